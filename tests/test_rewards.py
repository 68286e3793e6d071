"""Scores of answers: cases by hand, and checks against a second computation."""

import dataclasses
import json
import re
import unicodedata
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from nanoladder.answers import TAGS, answer_block, answer_part, in_tags, parse_boxes, parse_thought
from nanoladder.rewards import (
    TOLERANCE,
    box_iou,
    exact_match,
    relative_accuracy,
    reward,
    score_answer,
    score_boxes,
)
from nanoladder.schema import PAPER_UNITS, check_row

CHAIR = {"label": "chair", "bbox_2d": [10, 10, 30, 30]}
LAMP = {"label": "lamp", "bbox_2d": [40, 5, 50, 60]}
OPTIONS = ("A. bed", "B. chair")
BOXES = SimpleNamespace(form="boxes")


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
        '[{"label":"chair","bbox_2d":[10,10,30,1e999]}]',
        '[{"label":"chair","bbox_2d":[10,10,30,Infinity]}]',
        '[{"label":"chair","bbox_2d":[10,10,30,%s]}]' % ("9" * 400),
        '[{"label":"chair","bbox_2d":[10,10,30,%s]}]' % ("9" * 5000),
        '[{"label":"\\ud800","bbox_2d":[10,10,30,30]}]',
        '[{"label":"chair","bbox_2d":' + "[" * 50_000 + "]" * 50_000 + "}]",
        '[{"label":"chair","bbox_2d":[10,10,30,30]}] and more',
    ],
)
def test_broken_answers_earn_nothing(text):
    scores, earned = score_boxes(text, [CHAIR]), reward(text, BOXES, [CHAIR])
    readable = float("ud800" in text)  # half a surrogate pair is a label like any other wrong one
    assert (parse_boxes(text) is not None) == bool(readable)
    assert scores.pop("valid_json") == readable and set(scores.values()) == {0.0}
    assert earned == {"format": readable, "accuracy": 0.0}


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


@pytest.mark.parametrize("label, written", [
    ("Stuhl ", "stuhl"), ("TÜR", "tür"), ("arm  chair", " Arm chair"), ("arm\tchair", "arm chair"),
    ("Straße", "STRASSE"), ("café", unicodedata.normalize("NFD", "CAFÉ")),
    (unicodedata.normalize("NFD", "Gemälde"), unicodedata.normalize("NFC", "gemälde")),
])  # fmt: skip
def test_labels_differ_in_more_than_case_blanks_and_unicode_form(label, written):
    """The training target itself scores 1, and so does what differs only in how it is typed."""
    lamp = {"label": "lampe", "bbox_2d": [0, 0, 9, 9]}
    truth = [{"label": label, "bbox_2d": [0, 0, 10, 10]}, lamp]
    for said in (label, written):
        answer = json.dumps([truth[0] | {"label": said}, lamp], ensure_ascii=False)
        assert set(score_boxes(answer, truth).values()) == {1.0}
        assert reward(answer, BOXES, truth) == {"format": 1.0, "accuracy": 1.0}


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
    assert (
        exact_match("**dark  red**", "Dark red") == 1.0 and exact_match("darkred", "dark red") == 0
    )


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
    (" " + GOOD, 1, "B"), (GOOD + "\n", 1, "B"), ("\r\n\t " + GOOD + "\u3000 \n", 1, "B"),
    ("So: " + GOOD, 0, "B"), (GOOD + " Done.", 0, "B"),
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


def test_the_last_line_is_read_only_behind_a_taught_rationale():
    """After a rationale the answer is the last line; on all other data the whole text counts."""
    rows = make_row("red", question_type="colour"), choice_row(), size_row()
    colour, choice, size = (dataclasses.replace(r, after_rationale=True) for r in rows)
    right = "The bed is 2 m away, so chair.\nchair"
    assert reward(right, choice) == {"format": 1.0, "accuracy": 1.0}
    assert answer_part(right, choice) == "chair" and answer_part(right, colour) == right
    assert reward("chair\nbed\n", choice) == {"format": 1.0, "accuracy": 0.0}
    assert reward("It is over there.", choice) == {"format": 0.0, "accuracy": 0.0}
    assert reward("Sides 40, 75.\n100 cm", size) == {"format": 1.0, "accuracy": 1.0}
    # An answer block is read as a whole, and so is an answer in words.
    assert reward(in_tags("", "40\n100"), thinking(size))["accuracy"] == 0.0
    assert score_answer("blue\nred", colour) == {"accuracy": 0.0}
    for text, row in ((right, choice_row()), ("Sides 40, 75.\n100 cm", size_row())):
        assert answer_part(text, row) == text
        assert reward(text, row) == {"format": 0.0, "accuracy": 0.0}
    assert reward("It is about\n100 cm\n", size_row()) == {"format": 1.0, "accuracy": 1.0}


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
                letters = set(re.findall(r"[A-Z]", said)) == {"B"} and said.strip()[0] == "B"
                right = numbers == [100] if row is size else letters
                assert right, (text, said)
    assert rewarded > 200


def test_relative_accuracy_counts_thresholds():
    cases = [(3, 3, 1), (1.5, 1, 0.1), (1.6, 1, 0), (75, 100, 0.6), (0, 5, 0), (103, 100, 1)]
    for predicted, truth, expected in cases:
        assert relative_accuracy(predicted, truth) == pytest.approx(expected)
    assert score_answer("9", make_row("10", unit="m")) == {"accuracy": 0.9}


def test_relative_accuracy_is_that_of_exact_arithmetic():
    """Ten thresholds in fractions, for decimals as answers have them; arrays give the same."""
    thresholds = [Fraction(k, 100) for k in range(50, 100, 5)]
    texts = [f"{k / 10:.1f}" for k in range(1, 130)] + ["0.35", "1.05", "315", "17.85", "99999.5"]
    scores, borders = [], 0
    for truth in texts[::9] + ["10", "100", "0.02", "123456"]:
        for said in texts:
            p, g = Fraction(said), Fraction(truth)
            scores.append(sum(abs(p - g) / g <= 1 - t for t in thresholds) / 10)
            borders += any(abs(p - g) / g == 1 - t for t in thresholds)
            assert relative_accuracy(float(said), float(truth)) == scores[-1], (said, truth)
    assert borders > 40
    truths = np.array([float(t) for t in texts[::9] + ["10", "100", "0.02", "123456"]])
    grid = relative_accuracy(np.array([float(t) for t in texts])[None], truths[:, None])
    assert grid.shape == (len(truths), len(texts)) and grid.ravel().tolist() == scores
    assert relative_accuracy(9 - 20 * TOLERANCE, 10) == 0.8  # far below any decimal's last digit
