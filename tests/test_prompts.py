"""From rows to words: what is asked, and what is answered, in our prompt set and in another."""

import json
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
from conftest import ROOT

from nanoladder.answers import in_tags, read_answer
from nanoladder.command import UserError
from nanoladder.image import ImageConfig
from nanoladder.prompts import (
    DEFAULT,
    THINK,
    PromptSet,
    boxes_in_input,
    prompt_text,
    target_text,
)
from nanoladder.rewards import score_answer, score_boxes
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
    for given in (CHOICE, NUMBER, {"answer": "a"}):
        row = make_row(**given)
        assert prompt_text(replace(row, think=True)) == prompt_text(row) + "\n" + THINK


def test_a_choice_is_answered_in_its_words():
    row = make_row(**CHOICE)
    assert target_text(row, CONFIG) == "lamp"
    assert read_answer("lamp", row) == row.answer == "B"


def test_a_rationale_stands_before_its_answer():
    for given, answer in ((CHOICE, "lamp"), (NUMBER, "87")):
        row = make_row(**given, rationale="The lamp is 87 cm away.")
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


def test_labels_are_taught_as_they_are_written():
    row = replace(
        make_row(answer=[{"bbox_2d": [0, 0, 9, 9], "label": "Stühle"}]), sizes=((96, 96),)
    )
    assert target_text(row, CONFIG) == '[{"label":"Stühle","bbox_2d":[0,0,9,9]}]'


def test_boxes_are_never_thought_about():
    row = replace(make_row(**BOXES), think=True)
    assert prompt_text(row) == "Which?"


@pytest.mark.parametrize("question", ["<image>\n<image>\nWhich?", "<image>Which?", "Which?"])
def test_marks_of_pictures_are_left_out(question):
    assert prompt_text(make_row(**NUMBER, question=question)) == "Which?\nAnswer with a number."


def test_a_trace_that_asks_to_think_gets_no_second_request():
    prompt = "<image>How high? Reason in <think> </think>, answer in <answer> </answer>."
    row = make_row(prompt=prompt, solution=in_tags("It is 40 + 47.", "87"), unit="cm")
    for prompts in (DEFAULT, example_set()):
        assert prompt_text(row, prompts) == prompt.removeprefix("<image>")


# ---------------------------------------------------------------- other prompt sets


def example():
    """The prompt set that docs/real-data.md shows, as a JSON object."""
    return json.loads((ROOT / "docs/example-prompts.json").read_text(encoding="utf-8"))


def example_set(**changes):
    raw = example() | changes
    return PromptSet(**raw | {"box_keys": tuple(raw["box_keys"])})


def load(tmp_path, value):
    path = tmp_path / "set.json"
    path.write_text(json.dumps(value), encoding="utf-8")
    return PromptSet.load(path)


def test_the_example_of_the_docs_is_a_whole_set_of_its_own_wording(tmp_path):
    found = load(tmp_path, example())
    assert found == example_set() and list(example()) == [f.name for f in fields(PromptSet)]
    assert load(tmp_path, asdict(DEFAULT)) == DEFAULT
    templates = [name for name in example() if "{question}" in str(getattr(found, name))]
    assert len(templates) == 9
    choice, number = make_row(**CHOICE), make_row(**NUMBER)
    for row in (choice, number, replace(choice, think=True), replace(number, think=True)):
        text = prompt_text(row, found)
        assert text != prompt_text(row) and "Which?" in text and "{" not in text
        assert ("<think>" in text) == row.think
    assert "A. chair\nB. lamp" in prompt_text(choice, found)


def test_targets_follow_the_set():
    choice, boxes = make_row(**CHOICE), replace(make_row(**BOXES), sizes=((96, 96),))
    letters = example_set(box_indent=None, box_fence=False)
    assert target_text(choice, CONFIG, letters) == "B"
    assert target_text(replace(choice, rationale="Look."), CONFIG, letters) == "Look.\nB"
    assert target_text(choice, CONFIG, example_set(choice_answer="words")) == "lamp"
    assert target_text(boxes, CONFIG, letters) == '[{"bbox_2d":[4,5,20,30],"label":"chair"}]'
    fenced = target_text(boxes, CONFIG, example_set(box_indent=4, box_fence=True))
    first, *lines, last = fenced.split("\n")
    assert (first, last) == ("```json", "```")
    assert json.loads("".join(lines)) == boxes_in_input(boxes, CONFIG)
    assert lines[:3] == ["[", "    {", '        "bbox_2d": [']
    assert score_boxes(fenced, boxes_in_input(boxes, CONFIG))["iou"] == 1.0


def test_a_row_that_brings_its_own_prompt_is_asked_with_it_where_the_set_says_so():
    row = make_row(**CHOICE, prompt="Which? (A) chair (B) lamp")
    assert prompt_text(row) == prompt_text(make_row(**CHOICE))
    assert prompt_text(row, example_set(own_prompt="{question}")) == "Which? (A) chair (B) lamp"
    wrapped = example_set(own_prompt="Q: {question}!", own_prompt_think="Think: {question}")
    assert prompt_text(row, wrapped) == "Q: Which? (A) chair (B) lamp!"
    assert prompt_text(replace(row, think=True), wrapped) == "Think: Which? (A) chair (B) lamp"
    assert prompt_text(make_row(**CHOICE), wrapped) == prompt_text(
        row, example_set(own_prompt=None)
    )


def test_words_of_a_row_are_never_read_as_places_of_a_template():
    row = make_row(options=["A. {question}", "B. \\1"], answer="A", question="Is it {options}?")
    assert prompt_text(row).startswith("Is it {options}?\nOptions: A. {question} B. \\1\n")


def test_braces_that_are_no_place_are_text(tmp_path):
    boxes = 'Answer as [{"bbox_2d": [1, 2, 3, 4], "label": "..."}], {} or {1}: {question}'
    found = load(tmp_path, example() | {"boxes": boxes})
    assert prompt_text(make_row(**BOXES), found) == boxes.replace("{question}", "Which?")


@pytest.mark.parametrize(
    "changes, complaint",
    [
        (
            {"number": "How much?"},
            r"set.json: number lacks \{question\}; it must hold \{question\}",
        ),
        ({"choice": "{question}"}, r"choice lacks \{options\}; it must hold \{question\} and"),
        ({"number": "{question} {options}"}, r"number has \{options\}; it must hold \{question\},"),
        ({"text": "{Question}"}, r"text lacks \{question\} and has \{Question\}"),
        ({"own_prompt": ""}, r"own_prompt lacks \{question\}"),
        ({"choice_think": None}, "choice_think must be text, not null"),
        ({"system": 3}, "system must be text, not 3"),
        ({"choice_answer": "Letter"}, 'choice_answer is "Letter"; it must be "words" or "letter"'),
        ({"box_fence": 1}, "box_fence is 1; it must be true or false"),
        ({"box_indent": True}, "box_indent is true; it must be null or 0 or 1"),
        ({"box_keys": ["label"]}, r'box_keys is \["label"\]; it must be \["label", "bbox_2d"\] or'),
        ({"colour": "red"}, "unknown key colour; known are system, choice,"),
    ],
)
def test_a_wrong_set_is_refused_by_file_and_key(tmp_path, changes, complaint):
    with pytest.raises(UserError, match=complaint):
        load(tmp_path, example() | changes)


def test_a_set_that_lacks_a_key_or_is_none_is_refused(tmp_path):
    lacking = example()
    del lacking["boxes"]
    with pytest.raises(UserError, match="set.json: lacks boxes; docs/real-data.md has an example"):
        load(tmp_path, lacking)
    with pytest.raises(UserError, match="set.json: must hold JSON of type dict"):
        load(tmp_path, ["{question}"])
    with pytest.raises(UserError, match="nowhere.json: no such file"):
        PromptSet.load(tmp_path / "nowhere.json")


def test_our_own_wording_is_what_it_always_was():
    """The weights that ship were trained on these very words."""
    assert prompt_text(make_row(**CHOICE)) == (
        "Which?\nOptions: A. chair B. lamp\nAnswer with one option."
    )
    assert prompt_text(replace(make_row(**CHOICE), think=True)) == (
        "Which?\nOptions: A. chair B. lamp\nAnswer with one option.\n"
        "Think in <think></think>, then answer in <answer></answer>."
    )
    assert prompt_text(replace(make_row(answer="a"), think=True)) == (
        "Which?\nThink in <think></think>, then answer in <answer></answer>."
    )
