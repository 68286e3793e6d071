"""The original's reading of answers: what its evaluation was read to do, case by case."""

from types import SimpleNamespace

import numpy as np
import pytest

from nanoladder.benchmarks import VIEW_TASKS
from nanoladder.rewards import score_answer
from nanoladder.strict import strict_accuracy

VIEW = next(iter(VIEW_TASKS))


def choice(task="route_planning", think=False):
    options = ("A. bed", "B. chair")
    return SimpleNamespace(form="choice", answer="B", options=options, task=task, think=think)


def number(answer, task="object_counting", think=False):
    return SimpleNamespace(form="number", answer=answer, unit="", task=task, think=think)


@pytest.mark.parametrize("text, vsi, view, cv, spar", [
    ("B", 1, 1, 1, 1), ("B.", 1, 1, 1, 1), ("B. chair", 1, 1, 1, 1), (" B\n", 1, 1, 1, 0),
    ("b", 1, 0, 1, 1), ("(B)", 0, 0, 1, 0), ("[B]. chair", 0, 0, 1, 0), ("b. chair", 0, 0, 1, 1),
    ("Answer: B", 1, 0, 0, 0), ("**B**", 0, 0, 0, 0), ("B\nchair", 0, 0, 0, 1), ("AB", 0, 0, 0, 0),
    ("The answer is B.", 0, 0, 0, 0), ("chair", 0, 0, 0, 0), ("B or A", 1, 1, 1, 1),
    ("because", 0, 0, 0, 1), ("A", 0, 0, 0, 0), ("", 0, 0, 0, 1), ("E", 0, 0, 0, 0),
])  # fmt: skip
def test_letters(text, vsi, view, cv, spar):
    """SPBench is read as VSI-Bench is; rows of other data too."""
    tasks = ("route_planning", VIEW, "Count", "position_matching")
    assert [strict_accuracy(text, choice(t)) for t in tasks] == [vsi, view, cv, spar]
    assert strict_accuracy(text, choice("")) == vsi


@pytest.mark.parametrize("text, truth, vsi, spar, spar_mv", [
    ("3", "3", 1, 1, 1), ("3.0 meters", "3", 1, 1, 1), ("-3", "3", 1, 1, 1),
    ("9", "10", 0.9, 0.9, 0.9), ("3 m^2", "2", 0.1, 0.1, 0.1),
    ("about 3", "3", 1, 1, 1), ("a distance of 3 m", "3", 0, 1, 1), ("three", "3", 1, 0, 0),
    ("2 or 3", "3", 0.4, 0.4, 1), ("2 or one", "1", 1, 0, 0), ("twenty-two", "2", 1, 0, 0),
    ("1e5", "1", 1, 1, 0), ("none", "3", 0, 0, 0), ("", "3", 0, 0, 0),
    ("9" * 5000, "3", 0, 0, 0), ("0", "0", 1, 1, 1), ("0.3", "0", 0.5, 0.5, 0.5),
])  # fmt: skip
def test_the_first_plain_number(text, truth, vsi, spar, spar_mv):
    """VSI-Bench's reading takes words first, and an article for 1; SPAR-Bench's takes none."""
    tasks = ("object_counting", "depth_prediction_oc", "depth_prediction_oc_mv")
    scores = [strict_accuracy(text, number(truth, task)) for task in tasks]
    assert scores == pytest.approx([vsi, spar, spar_mv])


def test_thresholds_are_floats_without_a_tolerance():
    """So rounding decides some borders; our score is that of exact arithmetic there."""
    thresholds = np.linspace(0.5, 0.95, 10)
    borders = 0
    for truth in range(1, 200):
        for percent in range(5, 55, 5):
            said = truth * (100 - percent) / 100
            row, text = number(str(truth)), f"{said:.4f}"
            expected = (abs(float(text) - truth) / truth <= 1 - thresholds).mean()
            assert strict_accuracy(text, row) == expected
            row.after_rationale = False
            ours = score_answer(text, row)["accuracy"]
            assert ours == pytest.approx((55 - percent) / 50)
            borders += ours != pytest.approx(expected)
    assert borders > 0


def test_the_answer_block_is_read_where_there_is_one():
    asked, plain = choice(think=True), choice()
    for text, score in (
        ("<think>A</think><answer>B</answer>", 1), ("B", 1), ("<answer> B </answer> A", 1),
        ("<answer>A</answer><answer>B</answer>", 0), ("<answer>B", 0), ("So: B", 0),
    ):  # fmt: skip
        assert strict_accuracy(text, asked) == score
        assert strict_accuracy(text, plain) == float(text == "B")
    assert strict_accuracy("<think>7</think><answer>3</answer>", number("3", think=True)) == 1


def test_other_forms_are_scored_as_ours():
    row = SimpleNamespace(form="motion", answer="move_left:0.4", think=False, after_rationale=False)
    for text in ("move_left:0.4", "move_left:0.3", "nothing"):
        assert strict_accuracy(text, row) == score_answer(text, row)["accuracy"]
