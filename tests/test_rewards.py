"""Scores of localization answers: hand-made cases and a check against a pixel count that shares no formula."""

import json
import re

import numpy as np
import pytest

from nanoladder.dataset import Row
from nanoladder.rewards import (
    TAGS,
    answer_block,
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

CHAIR = {"label": "chair", "bbox_2d": [10, 10, 30, 30]}
LAMP = {"label": "lamp", "bbox_2d": [40, 5, 50, 60]}


def test_iou_equals_counting_pixels():
    rng = np.random.default_rng(0)
    for _ in range(200):
        (ax, bx), (ay, by) = rng.integers(0, 30, (2, 2))
        a = [ax, ay, ax + rng.integers(1, 20), ay + rng.integers(1, 20)]
        b = [bx, by, bx + rng.integers(1, 20), by + rng.integers(1, 20)]
        grids = np.zeros((2, 64, 64), bool)
        for grid, box in zip(grids, (a, b)):
            grid[box[1] : box[3], box[0] : box[2]] = True
        assert box_iou(a, b) == pytest.approx((grids[0] & grids[1]).sum() / (grids[0] | grids[1]).sum())


@pytest.mark.parametrize("text", [
    "", "chair", "[", '{"label":"chair"}', '[{"label":"chair"}]', '[{"label":"chair","bbox_2d":[1,2,3]}]',
    '[{"label":"chair","bbox_2d":[30,10,10,30]}]', '[{"label":"chair","bbox_2d":["1",2,3,4]}]',
    '[{"label":"chair","bbox_2d":[NaN,2,3,4]}]', '[{"label":"chair","bbox_2d":[true,2,3,4]}]', "[" * 100_000,
    '[{"label":"chair","bbox_2d":[10,10,30,30]}] and more',
])  # fmt: skip
def test_broken_answers_earn_nothing(text):
    assert parse_boxes(text) is None
    assert set(score_boxes(text, [CHAIR]).values()) == {0.0}


def test_key_order_fences_and_order_of_objects_do_not_matter():
    text = '```json\n[{"bbox_2d":[40,5,50,60],"label":"Lamp"},{"bbox_2d":[10,10,30,30],"label":"chair"}]\n```'
    assert set(score_boxes(text, [CHAIR, LAMP]).values()) == {1.0}


def test_missing_extra_and_repeated_objects():
    one = score_boxes(json.dumps([CHAIR]), [CHAIR, LAMP])
    assert one == {"valid_json": 1.0, "label_f1": pytest.approx(2 / 3), "iou": 0.5, "acc50": 0.5}
    extra = score_boxes(json.dumps([CHAIR, LAMP]), [CHAIR])
    assert extra["iou"] == 1.0 and extra["label_f1"] == pytest.approx(2 / 3)
    wrong_first = score_boxes(json.dumps([{**CHAIR, "bbox_2d": [80, 80, 90, 90]}, CHAIR]), [CHAIR])
    assert wrong_first["iou"] == 0.0  # naming every place in turn is no way to score
    assert score_boxes("[]", [CHAIR]) == {"valid_json": 1.0, "label_f1": 0.0, "iou": 0.0, "acc50": 0.0}


def test_exact_match():
    assert exact_match(" Red. ", "red") == 1.0
    assert exact_match("red or blue", "red") == 0.0 and exact_match("", "red") == 0.0


@pytest.mark.parametrize("text, letter", [
    ("B", "B"), ("(B)", "B"), ("b.", "B"), ("B. chair", "B"), ("(b) chair.", "B"), (" B: Chair\n", "B"), ("D", "D"),
    ("A or B", None), ("A, B", None), ("AB", None), ("B. bed", None), ("E", None), ("", None), ("bed", "A"),
    ("A. bed B. chair C. lamp D. arm chair", None), ("a chair", None), ("D. arm chair", "D"),
    ("Arm chair.", "D"), ("bed or chair", None), ("chair (B)", "B"), ("Arm chair (d).", "D"), ("bed (B)", None),
    ("chair (E)", None), ("chair (B) (B)", None), ("chair ()", None),
])  # fmt: skip
def test_one_choice_is_read_whatever_its_form(text, letter):
    assert parse_choice(text, ("A. bed", "B. chair", "C. lamp", "D. arm chair")) == letter


def test_words_that_two_options_share_are_no_answer():
    assert parse_choice("bed", ("A. bed", "B. bed")) is None and parse_choice("b. bed", ("A. bed", "B. bed")) == "B"
    assert parse_choice("b", ("A. b", "B. c")) == "B"  # a letter is a letter first


@pytest.mark.parametrize("text, kind, value", [
    ("3.2", "absolute distance", 3.2), ("3.2 m", "absolute distance", 3.2), ("about 3.2", "absolute distance", 3.2),
    ("a distance of 3.2 meters.", "absolute distance", 3.2), ("320cm", "absolute distance", 3.2),
    ("10 feet", "absolute distance", 3.048), ("1,200 mm", "absolute distance", 1.2), (".5", "absolute distance", 0.5),
    ("12", "object size", 12), ("1.2 metres", "object size", 120), ("32 inches", "object size", 81.28),
    ("132", "room size", 132), ("20 m^2", "room size", 20), ("20 m2", "room size", 20), ("20 m²", "room size", 20),
    ("20 sq. meters", "room size", 20), ("100 square feet", "room size", 9.290304), ("20 sqm", "room size", 20),
    ("three", "object count", 3), ("There are 3 chairs", "object count", 3), ("12", "object count", 12),
    ("2 or 3", "object count", None), ("two or three", "object count", None), ("many", "object count", None),
    ("12 kg", "object size", None), ("20 m", "room size", None), ("3 m2", "absolute distance", None),
    ("between 2 and 3 m", "absolute distance", None), ("3,2", "absolute distance", None), ("", "room size", None),
    ("three", "room size", None), ("1.2.3", "object size", None), ("1e308", "object count", None),
    ("١٠٠ or 100", "object size", None), ("1,0,0١٠٠1e308-0١٠٠", "object size", None),
])  # fmt: skip
def test_one_number_is_read_in_the_asked_unit(text, kind, value):
    assert parse_number(text, kind) == (value if value is None else pytest.approx(value))


def test_an_answer_is_scored_by_its_rows_type():
    def row(kind, answer, options=()):
        return Row(1, "?", answer, (), kind, "video", 1, "rows.jsonl:1", options=options)

    options = ("A. bed", "B. chair")
    assert score_answer("(b)", row("relative distance", "B", options)) == {"accuracy": 1.0}
    assert score_answer("A or B", row("relative distance", "B", options)) == {"accuracy": 0.0}
    assert score_answer("75 cm", row("object size", "100")) == {"accuracy": pytest.approx(0.6)}
    assert score_answer("75 l", row("object size", "100")) == {"accuracy": 0.0}
    assert score_answer("Red.", row("colour", "red")) == {"accuracy": 1.0}


# ---------------------------------------------------------------- thinking first


def thinking(kind, answer, options=()):
    return Row(1, "?", answer, (), kind, "video", 1, "rows.jsonl:1", options=options, think=True)


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
    row = thinking("relative distance", "B", ("A. bed", "B. chair"))
    assert reward(text, row) == score_answer(text, row) == {"format": valid, "accuracy": right}


def test_only_the_answer_block_is_read():
    size = thinking("object size", "100")
    assert reward(in_tags("The sides are 40, 75, 20.", "100 cm"), size) == {"format": 1.0, "accuracy": 1.0}
    assert reward(in_tags("The sides are 100.", "75"), size)["accuracy"] == pytest.approx(0.6)
    assert reward(in_tags("The longest is 100.", "long"), size) == {"format": 1.0, "accuracy": 0.0}
    assert reward("100", size) == {"format": 0.0, "accuracy": 0.0}  # a direct answer where a thought is asked for
    assert parse_thought(in_tags("a", "b")) == ("a", "b")


def test_of_a_direct_answer_the_last_line_is_read():
    options = ("A. bed", "B. chair")
    choice, size = (Row(1, "?", *what, (), kind, "video", 1, "rows.jsonl:1", options=own) for what, kind, own in
                    ((("B",), "relative distance", options), (("100",), "object size", ())))  # fmt: skip
    assert reward("The bed is 2 m away, so chair.\nchair", choice) == {"format": 1.0, "accuracy": 1.0}
    assert reward("chair\nbed\n", choice) == {"format": 1.0, "accuracy": 0.0}
    assert reward("It is the chair.", choice) == {"format": 0.0, "accuracy": 0.0}
    assert reward("Sides 40, 75.\n100 cm", size) == {"format": 1.0, "accuracy": 1.0}
    assert reward(in_tags("", "40\n100"), thinking("object size", "100"))["accuracy"] == 0.0  # a block is read whole
    colour = Row(1, "?", "red", (), "colour", "video", 1, "rows.jsonl:1")
    assert score_answer("blue\nred", colour) == {"accuracy": 0.0}


def test_whatever_a_model_writes_is_scored_and_only_right_answers_are_rewarded():
    """Random pieces of tags, numbers and letters; 'right' is told by another reading of the text."""
    rng = np.random.default_rng(0)
    pieces = [*TAGS, *TAGS, "100", "B", "A or B", "-0", "1e308", "9" * 400, "nan", "inf", "١٠٠", "\n", " ", "\x00",
              "好", "<think", "B. chair", "1,0,0"]  # fmt: skip
    choice = thinking("relative distance", "B", ("A. bed", "B. chair"))
    size = thinking("object size", "100")
    rewarded = 0
    for _ in range(100_000):
        text = "".join(pieces[k] for k in rng.integers(0, len(pieces), rng.integers(0, 9)))
        for row in (choice, size):
            scores = reward(text, row)
            assert scores["format"] in (0.0, 1.0) and 0 <= scores["accuracy"] <= 1
            if scores["accuracy"]:
                said, rewarded = text.split("<answer>")[1].split("</answer>")[0], rewarded + 1
                numbers = [int(digits) for digits in re.findall(r"\d+", said)]
                assert numbers == [100] if row is size else said.strip() in ("B", "B. chair"), (text, said)
    assert rewarded > 200


def test_relative_accuracy_counts_thresholds():
    for predicted, truth, expected in [(3, 3, 1), (1.5, 1, 0.1), (1.6, 1, 0), (75, 100, 0.6), (0, 5, 0), (103, 100, 1)]:
        assert relative_accuracy(predicted, truth) == pytest.approx(expected)
    thresholds = np.arange(50, 100, 5) / 100
    predicted, truth = np.random.default_rng(0).uniform(1, 9, (2, 500))
    mean = np.mean([abs(predicted - truth) / truth <= 1 - t for t in thresholds], axis=0)
    np.testing.assert_allclose(relative_accuracy(predicted, truth), mean)
