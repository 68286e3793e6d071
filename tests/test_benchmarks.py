"""The averages of the benchmarks equal a second implementation on arrays, for random scores."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from nanoladder.benchmarks import BENCHMARKS, CV_SOURCES, SPAR_LEVELS, VSI_TASKS, average
from nanoladder.command import UserError
from nanoladder.motion import parse_motion
from nanoladder.rewards import relative_accuracy, score_answer
from nanoladder.schema import check_row

NUMERIC = [
    "object_abs_distance",
    "object_counting",
    "object_size_estimation",
    "room_size_estimation",
]


def scored(name, seed, tasks=None, n=400):
    """Random scored rows, with many more of some tasks than of others."""
    rng, tasks = np.random.default_rng(seed), list(tasks or BENCHMARKS[name][0])
    weights = rng.dirichlet(np.full(len(tasks), 0.7)) * 0.8 + 0.2 / len(tasks)
    drawn = tasks + rng.choice(tasks, n, p=weights).tolist()
    return [
        {
            "task": task,
            "score": float(rng.integers(0, 11)) / 10,
            "source": str(rng.choice(CV_SOURCES)),
        }
        for task in drawn
    ]


def columns(rows):
    return (
        np.array([r["task"] for r in rows]),
        np.array([r["source"] for r in rows]),
        np.array([r["score"] for r in rows]),
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_counts_its_tasks_and_rows(name, seed):
    rows = scored(name, seed)
    task, _, score = columns(rows)
    result = average(name, rows)
    assert result["n"] == len(rows) and result["micro"] == pytest.approx(score.mean())
    assert set(result["tasks"]) == set(task)
    for one, found in result["tasks"].items():
        assert found == {
            "score": pytest.approx(score[task == one].mean()),
            "n": (task == one).sum(),
        }


@pytest.mark.parametrize("seed", range(5))
def test_vsibench_takes_eight_types_and_directions_as_one(seed):
    rows = scored("vsibench", seed, [task for task in VSI_TASKS if task != "object_rel_direction"])
    task, _, score = columns(rows)
    per = {t: score[task == t].sum() / (task == t).sum() for t in set(task)}
    levels = ("easy", "medium", "hard")
    direction = sum(per.pop(f"object_rel_direction_{level}") for level in levels) / 3
    numeric = [per.pop(t) for t in NUMERIC]
    choices = [direction, *per.values()]
    assert (len(numeric), len(choices)) == (4, 4)
    result = average("vsibench", rows)
    assert result["average"] == pytest.approx((sum(numeric) + sum(choices)) / 8)
    assert result["nq"] == pytest.approx(np.mean(numeric))
    assert result["mcq"] == pytest.approx(np.mean(choices))
    assert result["types"]["relative direction"] == pytest.approx(direction)
    assert result["average"] != pytest.approx(result["micro"])


@pytest.mark.parametrize("seed", range(5))
def test_spbench_averages_the_types_that_it_has(seed):
    tasks = [
        "object_abs_distance",
        "object_size_estimation",
        "object_rel_distance",
        "object_rel_direction",
    ]
    rows = scored("spbench-si", seed, tasks)
    task, _, score = columns(rows)
    per = [score[task == t].mean() for t in tasks]
    result = average("spbench-si", rows)
    assert result["average"] == pytest.approx(np.mean(per))
    assert result["nq"] == pytest.approx(np.mean(per[:2]))
    assert result["mcq"] == pytest.approx(np.mean(per[2:])) and len(result["types"]) == 4
    assert "mcq" not in average("spbench-mv", [row for row in rows if row["task"] in NUMERIC])


@pytest.mark.parametrize("seed", range(5))
def test_cvbench_weighs_two_and_three_dimensions_alike(seed):
    rows = scored("cvbench", seed)
    _, source, score = columns(rows)
    ade, coco, omni = (score[source == name].mean() for name in ("ADE20K", "COCO", "Omni3D"))
    result = average("cvbench", rows)
    assert result["average"] == pytest.approx(ade / 4 + coco / 4 + omni / 2)
    assert (result["2d"], result["3d"]) == (pytest.approx((ade + coco) / 2), pytest.approx(omni))
    flat = average("cvbench", [row for row in rows if row["source"] != "Omni3D"])
    # A part without rows is left out, and never counts as 0.
    assert "3d" not in flat and flat["average"] == pytest.approx((ade + coco) / 2)


@pytest.mark.parametrize("seed", range(5))
def test_sparbench_and_viewspatial_weigh_every_row_alike(seed):
    rows = scored("sparbench", seed)
    task, _, score = columns(rows)
    names, counts = np.unique(task, return_counts=True)
    means = np.array([score[task == t].mean() for t in names])
    result = average("sparbench", rows)
    assert len(names) == 20 == sum(map(len, SPAR_LEVELS.values()))
    assert result["average"] == pytest.approx((means * counts).sum() / counts.sum())
    assert result["macro"] == pytest.approx(means.mean())
    low = np.array(["prediction" in t for t in task])
    middle = np.isin(task, ["view_change_infer", "position_matching", "camera_motion_infer"])
    for level, mask in (("low", low), ("middle", middle), ("high", ~low & ~middle)):
        assert result[level] == pytest.approx(score[mask].mean())

    rows = scored("viewspatial", seed)
    task, _, score = columns(rows)
    camera = np.char.startswith(task, "Camera")
    result = average("viewspatial", rows)
    assert result["camera"] == pytest.approx(score[camera].mean())
    assert result["person"] == pytest.approx(score[~camera].mean())
    assert result["average"] == pytest.approx(score.mean())


def test_rows_of_another_benchmark_and_none_are_refused():
    with pytest.raises(UserError, match="no scored rows"):
        average("vsibench", [])
    with pytest.raises(UserError, match="vsibench has no such task: 'Count', 'Depth'"):
        average("vsibench", scored("cvbench", 0))
    with pytest.raises(UserError, match="cvbench has no such source: 'LVIS'"):
        average("cvbench", [{"task": "Count", "source": "LVIS", "score": 1.0}])


# ---------------------------------------------------------------- the answers of SPAR-Bench alone


AXIS_NAMES = [
    "move_right move_left",
    "move_up move_down",
    "move_forward move_backward",
    "rotate_right rotate_left",
    "rotate_up rotate_down",
]


def motion_score(said, truth):
    """Mean MRA over five axes, computed for one threshold and axis at a time."""
    hits, signs = 0, {"right": 1, "up": 1, "forward": 1, "left": -1, "down": -1, "backward": -1}
    for pair in AXIS_NAMES:
        p, g = (
            Fraction(sum(signs[name.split("_")[1]] * steps.get(name, 0) for name in pair.split()))
            for steps in (said, truth)
        )
        error = abs(p - g) if g == 0 else abs((p - g) / g)
        hits += sum(error <= 1 - Fraction(k, 100) for k in range(50, 100, 5))
    return hits / 50


def test_a_change_of_view_is_scored_axis_by_axis():
    rng = np.random.default_rng(0)
    raw = {"question_id": 0, "question": "?", "image": ["a.png"], "data_type": "multi_view"}

    def draw():
        axes = rng.choice(5, rng.integers(1, 6), replace=False)
        return {str(rng.choice(AXIS_NAMES[k].split())): int(rng.integers(1, 30)) / 8 for k in axes}

    for _ in range(200):
        truth, said = draw(), draw()
        text, answer = (",".join(f"{k}:{v}" for k, v in steps.items()) for steps in (said, truth))
        asked = raw | {"answer": answer, "question_type": "view change"}
        row = check_row(asked, Path("data"), "rows.jsonl:1")
        assert row.form == "motion"
        assert score_answer(text, row)["accuracy"] == pytest.approx(motion_score(said, truth))
        assert score_answer(answer, row)["accuracy"] == 1.0
    assert score_answer("it went left", row) == {"accuracy": 0.0}


@pytest.mark.parametrize(
    "text, axes",
    [
        ("move_left:0.4,rotate_up:5", (-0.4, 0, 0, 0, 5)),
        ("Move_Up: 2 and rotate_left: 30.", (0, 2, 0, -30, 0)),
        ("move_right:1,move_left:3", (-2, 0, 0, 0, 0)),
        ("move_down:-1", (0, 1, 0, 0, 0)),
        ("", None),
        ("left", None),
        ("move_sideways:3", None),
        ("move_up:1,move_up:2", None),
        ("rotate_forward:1", None),
    ],
)
def test_motions_are_read(text, axes):
    assert parse_motion(text) == axes


def test_a_truth_of_zero_counts_the_absolute_error():
    assert relative_accuracy(0.0, 0.0) == 1.0 and relative_accuracy(2.0, 0.0) == 0.0
    assert relative_accuracy(0.18, 0.0) == relative_accuracy(1.18, 1.0) == pytest.approx(0.7)
    np.testing.assert_allclose(relative_accuracy(np.array([0.0, -2.0]), np.array([0.0, -2.0])), 1.0)
