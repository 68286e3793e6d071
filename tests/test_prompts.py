"""From rows to words: what is asked, and what is answered."""

from dataclasses import replace
from pathlib import Path

from nanoladder.image import ImageConfig
from nanoladder.prompts import THINK, boxes_in_input, prompt_text, target_text
from nanoladder.rewards import in_tags, read_answer, score_answer
from nanoladder.schema import check_row

CONFIG = ImageConfig(patch_size=8, coordinates=True)
CHOICE = {"options": ["A. chair", "B. lamp"], "answer": "B"}
BOXES = {"answer": [{"bbox_2d": [4, 5, 20, 30], "label": "chair"}]}
NUMBER = {"answer": "87", "unit": "cm"}


def make_row(**fields):
    raw = {"question_id": 1, "question": "Which?", "image": ["a.png"], "data_type": "single_image"}
    return check_row(raw | fields, Path("data"), "rows.jsonl:1")


def test_a_prompt_says_in_which_form_to_answer():
    choice, number, boxes, text = (make_row(**f) for f in (CHOICE, NUMBER, BOXES, {"answer": "a"}))
    assert prompt_text(choice) == "Which?\nOptions: A. chair B. lamp\nAnswer with one option."
    assert prompt_text(number) == "Which?\nAnswer with a number."
    assert prompt_text(boxes) == prompt_text(text) == "Which?"


def test_a_prompt_may_ask_to_think_first():
    for fields in (CHOICE, NUMBER, {"answer": "a"}):
        row = make_row(**fields)
        assert prompt_text(replace(row, think=True)) == prompt_text(row) + "\n" + THINK


def test_a_choice_is_answered_in_its_words():
    row = make_row(**CHOICE)
    assert target_text(row, CONFIG) == "lamp"
    assert read_answer("lamp", row) == row.answer == "B"


def test_a_rationale_stands_before_its_answer():
    for fields, answer in ((CHOICE, "lamp"), (NUMBER, "87")):
        row = make_row(**fields, rationale="The lamp is 87 cm away.")
        text = target_text(row, CONFIG)
        assert text == "The lamp is 87 cm away.\n" + answer
        assert score_answer(text, row) == {"accuracy": 1.0}


def test_a_solution_is_taught_as_a_whole():
    solution = in_tags("It is 40 + 47.", "87")
    row = make_row(prompt="How high?", solution=solution, unit="cm")
    assert prompt_text(row) == "How high?\nAnswer with a number.\n" + THINK
    assert target_text(row, CONFIG) == solution
    assert score_answer(solution, row) == {"format": 1.0, "accuracy": 1.0}


def test_boxes_are_rescaled_with_the_image():
    row = replace(make_row(**BOXES), sizes=((100, 50),))
    tiny = replace(CONFIG, min_pixels=16 * 16, max_pixels=48 * 32)  # 100 x 50 becomes 48 x 16
    assert boxes_in_input(row, tiny) == [{"label": "chair", "bbox_2d": [2, 2, 10, 10]}]
    assert target_text(row, tiny) == '[{"label":"chair","bbox_2d":[2,2,10,10]}]'


def test_a_tiny_box_keeps_a_pixel():
    """A box that rounds to nothing would teach an answer that no reward accepts."""
    row = make_row(answer=[{"bbox_2d": [97.2, 60, 97.6, 60.4], "label": "key"}])
    row.sizes = ((98, 98),)
    (item,) = boxes_in_input(row, CONFIG)
    x1, y1, x2, y2 = item["bbox_2d"]
    assert 0 <= x1 < x2 <= 96 and 0 <= y1 < y2 <= 96
