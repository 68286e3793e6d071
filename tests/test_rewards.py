"""Parsing and scoring of answers: cases by hand, and checks against a second computation."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest

from nanoladder.rewards import (
    TAGS,
    answer_block,
    answer_part,
    box_iou,
    exact_match,
    in_tags,
    parse_boxes,
    parse_choice,
    parse_number,
    parse_thought,
    relative_accuracy,
    reward,
    score_answer,
    score_boxes,
)
from nanoladder.schema import PAPER_UNITS, check_row

CHAIR = {"label": "chair", "bbox_2d": [10, 10, 30, 30]}
LAMP = {"label": "lamp", "bbox_2d": [40, 5, 50, 60]}
OPTIONS = ("A. bed", "B. chair")


def make_row(answer, **fields):
    """A row of a video question with this answer, as the schema reads it."""
    raw = {"question_id": 1, "question": "?", "image": ["a.png"], "data_type": "video"}
    return check_row(raw | {"answer": answer} | fields, Path("data"), "rows.jsonl:1")


def choice_row():
    return make_row("B", options=list(OPTIONS))


def size_row():
    return make_row("100", unit="cm")


def thinking(row):
    """The row with a prompt that asks to think first."""
    return dataclasses.replace(row, think=True)


def test_iou_equals_counting_pixels():
    rng = np.random.default_rng(0)
    for _ in range(200):
        (ax, bx), (ay, by) = rng.integers(0, 30, (2, 2))
        a = [ax, ay, ax + rng.integers(1, 20), ay + rng.integers(1, 20)]
        b = [bx, by, bx + rng.integers(1, 20), by + rng.integers(1, 20)]
        grids = np.zeros((2, 64, 64), bool)
        for grid, box in zip(grids, (a, b)):
            grid[box[1] : box[3], box[0] : box[2]] = True
        pixels = (grids[0] & grids[1]).sum() / (grids[0] | grids[1]).sum()
        assert box_iou(a, b) == pytest.approx(pixels)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "chair",
        "[",
        '{"label":"chair"}',
        '[{"label":"chair"}]',
        '[{"label":"chair","bbox_2d":[1,2,3]}]',
        '[{"label":"chair","bbox_2d":[30,10,10,30]}]',
        '[{"label":"chair","bbox_2d":["1",2,3,4]}]',
        '[{"label":"chair","bbox_2d":[NaN,2,3,4]}]',
        '[{"label":"chair","bbox_2d":[true,2,3,4]}]',
        "[" * 100_000,
        '[{"label":"chair","bbox_2d":[10,10,30,30]}] and more',
    ],
)
def test_broken_answers_earn_nothing(text):
    assert parse_boxes(text) is None
    assert set(score_boxes(text, [CHAIR]).values()) == {0.0}


def test_key_order_fences_and_order_of_objects_do_not_matter():
    lamp, chair = '"bbox_2d":[40,5,50,60],"label":"Lamp"', '"bbox_2d":[10,10,30,30],"label":"chair"'
    text = "```json\n[{" + lamp + "},{" + chair + "}]\n```"
    assert set(score_boxes(text, [CHAIR, LAMP]).values()) == {1.0}


def test_two_objects_of_one_label_are_matched_one_to_one():
    """By the highest IoU first, in any order; only as many boxes count as were asked for."""
    first, second = [{"label": "cup", "bbox_2d": b} for b in ([0, 0, 10, 10], [50, 0, 60, 10])]
    for answer in ([first, second], [second, first]):
        assert score_boxes(json.dumps(answer), [first, second])["iou"] == 1.0
    scores = score_boxes(json.dumps([first, first]), [first, second])
    assert (scores["iou"], scores["label_f1"]) == (0.5, 1.0)
    far = {"label": "cup", "bbox_2d": [80, 80, 90, 90]}
    assert score_boxes(json.dumps([far, first]), [first])["iou"] == 0.0  # the first box counts


def test_labels_differ_in_case_and_blanks_alone():
    truth = [
        {"label": "Stuhl ", "bbox_2d": [0, 0, 10, 10]},
        {"label": "TÜR", "bbox_2d": [5, 5, 9, 9]},
    ]
    answer = json.dumps(
        [{"label": t["label"].strip().lower(), "bbox_2d": t["bbox_2d"]} for t in truth]
    )
    assert score_boxes(answer, truth)["iou"] == 1.0
    assert score_boxes(json.dumps(truth), truth) == {
        "valid_json": 1.0,
        "label_f1": 1.0,
        "iou": 1.0,
        "acc50": 1.0,
    }


def test_missing_extra_and_repeated_objects():
    one = score_boxes(json.dumps([CHAIR]), [CHAIR, LAMP])
    assert one == {"valid_json": 1.0, "label_f1": pytest.approx(2 / 3), "iou": 0.5, "acc50": 0.5}
    extra = score_boxes(json.dumps([CHAIR, LAMP]), [CHAIR])
    assert extra["iou"] == 1.0 and extra["label_f1"] == pytest.approx(2 / 3)
    wrong_first = score_boxes(json.dumps([{**CHAIR, "bbox_2d": [80, 80, 90, 90]}, CHAIR]), [CHAIR])
    assert wrong_first["iou"] == 0.0  # a model must not score by guessing many boxes for one label
    empty = {"valid_json": 1.0, "label_f1": 0.0, "iou": 0.0, "acc50": 0.0}
    assert score_boxes("[]", [CHAIR]) == empty


def test_exact_match():
    assert exact_match(" Red. ", "red") == 1.0
    assert exact_match("red or blue", "red") == 0.0 and exact_match("", "red") == 0.0


@pytest.mark.parametrize("text, letter", [
    ("B", "B"), ("(B)", "B"), ("b.", "B"), ("B. chair", "B"), ("(b) chair.", "B"),
    (" B: Chair\n", "B"), ("D", "D"), ("A or B", None), ("A, B", None), ("AB", None),
    ("B. bed", None), ("E", None), ("", None), ("bed", "A"), ("a chair", None),
    ("A. bed B. chair C. lamp D. arm chair", None), ("D. arm chair", "D"), ("Arm chair.", "D"),
    ("bed or chair", None), ("chair (B)", "B"), ("Arm chair (d).", "D"), ("bed (B)", None),
    ("chair (E)", None), ("chair (B) (B)", None), ("chair ()", None),
])  # fmt: skip
def test_one_choice_is_read_whatever_its_form(text, letter):
    assert parse_choice(text, ("A. bed", "B. chair", "C. lamp", "D. arm chair")) == letter


def test_words_that_two_options_share_are_no_answer():
    assert parse_choice("bed", ("A. bed", "B. bed")) is None
    assert parse_choice("b. bed", ("A. bed", "B. bed")) == "B"
    assert (
        parse_choice("b", ("A. b", "B. c")) == "B"
    )  # a letter names its option before a text does


@pytest.mark.parametrize("text, unit, value", [
    ("3.2", "m", 3.2), ("3.2 m", "m", 3.2), ("about 3.2", "m", 3.2), (".5", "m", 0.5),
    ("a distance of 3.2 meters.", "m", 3.2), ("320cm", "m", 3.2), ("10 feet", "m", 3.048),
    ("1,200 mm", "m", 1.2), ("12", "cm", 12), ("1.2 metres", "cm", 120), ("32 inches", "cm", 81.28),
    ("132", "m^2", 132), ("20 m^2", "m^2", 20), ("20 m2", "m^2", 20), ("20 m²", "m^2", 20),
    ("20 sq. meters", "m^2", 20), ("100 square feet", "m^2", 9.290304), ("20 sqm", "m^2", 20),
    ("three", "", 3), ("There are 3 chairs", "", 3), ("12", "", 12), ("2 or 3", "", None),
    ("two or three", "", None), ("many", "", None), ("12 kg", "cm", None), ("20 m", "m^2", None),
    ("3 m2", "m", None), ("between 2 and 3 m", "m", None), ("3,2", "m", None), ("", "m^2", None),
    ("three", "m^2", None), ("1.2.3", "cm", None), ("1e308", "", None), ("١٠٠ or 100", "cm", None),
    ("1,0,0١٠٠1e308-0١٠٠", "cm", None),
    # A unit that is neither a length nor an area is any word of the data set.
    ("12 kg", "kg", 12), ("12", "kg", 12), ("12 m", "kg", None), ("1 degree", "degrees", 1),
    ("30 degrees", "degrees", 30), ("-30 degrees.", "degrees", -30),
    ("30 radians", "degrees", None),
])  # fmt: skip
def test_one_number_is_read_in_the_asked_unit(text, unit, value):
    assert parse_number(text, unit) == (value if value is None else pytest.approx(value))


def test_an_answer_is_scored_in_the_form_of_its_row():
    forms = [row.form for row in (choice_row(), size_row(), make_row("red"))]
    assert forms == ["choice", "number", "text"]
    assert score_answer("(b)", choice_row()) == {"accuracy": 1.0}
    assert score_answer("A or B", choice_row()) == {"accuracy": 0.0}
    assert score_answer("75 cm", size_row()) == {"accuracy": pytest.approx(0.6)}
    assert score_answer("75 l", size_row()) == {"accuracy": 0.0}
    assert score_answer("Red.", make_row("red", question_type="colour")) == {"accuracy": 1.0}


def test_the_papers_rows_have_units_that_they_do_not_state():
    for question_type, unit in PAPER_UNITS.items():
        row = make_row("100", question_type=question_type)
        assert (row.form, row.unit) == ("number", unit)
    assert score_answer("0.75 m", make_row("100", question_type="object size"))["accuracy"] == 0.6


# ---------------------------------------------------------------- thinking first


GOOD = "<think>I see a bed.</think><answer>B</answer>"


@pytest.mark.parametrize("text, valid, answer", [
    (GOOD, 1, "B"),
    ("<think>one\ntwo</think>\n\n<answer>\nB\n</answer>", 1, "\nB\n"),
    ("<think></think><answer></answer>", 1, ""),
    ("<think>a < b > c</think><answer>B</answer>", 1, "B"),
    (" " + GOOD, 0, "B"), (GOOD + "\n", 0, "B"), ("So: " + GOOD, 0, "B"), (GOOD + " Done.", 0, "B"),
    ("<answer>B</answer><think>late</think>", 0, "B"),
    ("<think>never closed<answer>B</answer>", 0, "B"),
    ("<think>a</think> then <answer>B</answer>", 0, "B"),
    ("<think><think>a</think></think><answer>B</answer>", 0, "B"),
    ("<think>a</think><think>b</think><answer>B</answer>", 0, "B"),
    ("<think>a <answer>B</answer></think>", 0, "B"),
    ("<think>a</think><answer>A</answer><answer>B</answer>", 0, ""),
    ("<think><answer>A</answer></think><answer>B</answer>", 0, ""),
    ("<think>a</think><answer><answer>B</answer></answer>", 0, ""),
    ("<think>a</think><answer>B", 0, ""), ("<think>a</think></answer>B<answer>", 0, ""),
    ("B", 0, ""), ("", 0, ""), ("<THINK>a</THINK><ANSWER>B</ANSWER>", 0, ""),
])  # fmt: skip
def test_the_form_of_thinking(text, valid, answer):
    assert (parse_thought(text) is not None) == bool(valid) and answer_block(text) == answer
    right = float(answer.strip() == "B")
    row = thinking(choice_row())
    assert reward(text, row) == score_answer(text, row) == {"format": valid, "accuracy": right}


def test_only_the_answer_block_is_read():
    size = thinking(size_row())
    right = in_tags("The sides are 40, 75, 20.", "100 cm")
    assert reward(right, size) == {"format": 1.0, "accuracy": 1.0}
    assert reward(in_tags("The sides are 100.", "75"), size)["accuracy"] == pytest.approx(0.6)
    wrong = in_tags("The longest is 100.", "long")
    assert reward(wrong, size) == {"format": 1.0, "accuracy": 0.0}
    # The prompt asks to think first, and this answer does not.
    assert reward("100", size) == {"format": 0.0, "accuracy": 0.0}
    assert parse_thought(in_tags("a", "b")) == ("a", "b")


def test_of_a_direct_answer_the_last_line_is_read():
    choice, size, colour = choice_row(), size_row(), make_row("red", question_type="colour")
    right = "The bed is 2 m away, so chair.\nchair"
    assert reward(right, choice) == {"format": 1.0, "accuracy": 1.0}
    assert answer_part(right, choice) == "chair" and answer_part(right, colour) == right
    assert reward("chair\nbed\n", choice) == {"format": 1.0, "accuracy": 0.0}
    assert reward("It is the chair.", choice) == {"format": 0.0, "accuracy": 0.0}
    assert reward("Sides 40, 75.\n100 cm", size) == {"format": 1.0, "accuracy": 1.0}
    # An answer block is read as a whole, and so is an answer in words.
    assert reward(in_tags("", "40\n100"), thinking(size))["accuracy"] == 0.0
    assert score_answer("blue\nred", colour) == {"accuracy": 0.0}


def test_whatever_a_model_writes_is_scored_and_only_right_answers_are_rewarded():
    """A second way to read texts of random tags, numbers and letters agrees where they score."""
    rng = np.random.default_rng(0)
    digits = ["100", "-0", "1e308", "9" * 400, "nan", "inf", "١٠٠", "1,0,0"]
    words = ["B", "A or B", "B. chair", "好", "<think", "\n", " ", "\x00"]
    pieces = [*TAGS, *TAGS, *digits, *words]
    choice, size = thinking(choice_row()), thinking(size_row())
    rewarded = 0
    for _ in range(100_000):
        text = "".join(pieces[k] for k in rng.integers(0, len(pieces), rng.integers(0, 9)))
        for row in (choice, size):
            scores = reward(text, row)
            assert scores["format"] in (0.0, 1.0) and 0 <= scores["accuracy"] <= 1
            if scores["accuracy"]:
                said, rewarded = text.split("<answer>")[1].split("</answer>")[0], rewarded + 1
                numbers = [int(number) for number in re.findall(r"\d+", said)]
                right = numbers == [100] if row is size else said.strip() in ("B", "B. chair")
                assert right, (text, said)
    assert rewarded > 200


def test_relative_accuracy_counts_thresholds():
    cases = [(3, 3, 1), (1.5, 1, 0.1), (1.6, 1, 0), (75, 100, 0.6), (0, 5, 0), (103, 100, 1)]
    for predicted, truth, expected in cases:
        assert relative_accuracy(predicted, truth) == pytest.approx(expected)
    thresholds = np.arange(50, 100, 5) / 100
    predicted, truth = np.random.default_rng(0).uniform(1, 9, (2, 500))
    mean = np.mean([abs(predicted - truth) / truth <= 1 - t for t in thresholds], axis=0)
    np.testing.assert_allclose(relative_accuracy(predicted, truth), mean)
