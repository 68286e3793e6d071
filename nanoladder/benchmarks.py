"""The published averages of six benchmarks.

Each is computed as the benchmark's authors or SpatialLadder's evaluation compute it.

    >>> average("vsibench", [{"task": "object_counting", "score": 0.5}])["average"]
    0.5

A scored row is a dict with "task", "score" and, for CV-Bench, "source". data/NAME/prepare.py wrote
the task and the source into the data set's row. The score is the accuracy of nanoladder/rewards.py,
from 0 to 1. A row that could not be answered must be among the scored rows, with a score of 0. A
part of a benchmark that no row belongs to is left out of the result. It never counts as 0.
"""

from collections import Counter

from nanoladder.command import UserError
from nanoladder.schema import PAPER_CHOICES

# Each VSI-Bench task -> its type, which is the question_type of the converted row.
VSI_TASKS = {
    "object_rel_direction_easy": "relative direction",
    "object_rel_direction_medium": "relative direction",
    "object_rel_direction_hard": "relative direction",
    "object_rel_direction": "relative direction",  # SPBench has one task for all three
    "object_rel_distance": "relative distance",
    "route_planning": "route planning",
    "obj_appearance_order": "appearance order",
    "object_abs_distance": "absolute distance",
    "object_counting": "object count",
    "object_size_estimation": "object size",
    "room_size_estimation": "room size",
}
# The multiple-choice types among them; the others are numeric.
VSI_CHOICES = (*PAPER_CHOICES, "route planning")
CV_SOURCES = ("ADE20K", "COCO", "Omni3D")
# The tasks of the other benchmarks -> the question_type of the converted row.
CV_TASKS = dict.fromkeys(("Count", "Relation", "Depth", "Distance"), "choice")
SPAR_LEVELS = {
    "low": """depth_prediction_oc depth_prediction_oo distance_prediction_oc
        distance_prediction_oo depth_prediction_oc_mv depth_prediction_oo_mv
        distance_prediction_oc_mv distance_prediction_oo_mv""".split(),
    "middle": "view_change_infer position_matching camera_motion_infer".split(),
    "high": """obj_spatial_relation_oo obj_spatial_relation_oc_mv obj_spatial_relation_oo_mv
        spatial_imagination_oc spatial_imagination_oo spatial_imagination_oc_mv
        spatial_imagination_oo_mv distance_infer_center_oo distance_infer_center_oo_mv""".split(),
}
SPAR_TASKS = {
    **dict.fromkeys(SPAR_LEVELS["low"], "absolute distance"),
    **dict.fromkeys(SPAR_LEVELS["middle"] + SPAR_LEVELS["high"], "choice"),
    "view_change_infer": "view change",  # answered by the camera's motion between two views
}
VIEW_TASKS = dict.fromkeys(
    (
        "Camera perspective - Relative Direction",
        "Camera perspective - Object View Orientation",
        "Person perspective - Relative Direction",
        "Person perspective - Object View Orientation",
        "Person perspective - Scene Simulation Relative Direction",
    ),
    "choice",
)


def average(name, scored_rows):
    """The averages of benchmark `name` (a key of BENCHMARKS) over its scored rows, as a dict.

    "average": the number that is reported. "micro": the mean over all rows. "n": how many rows.
    "tasks": {task: {"score", "n"}}. The benchmark's own function below adds more entries. UserError
    where there are no rows, or a row belongs to another benchmark.
    """
    tasks, compute = BENCHMARKS[name]
    if not scored_rows:
        raise UserError(f"{name}: no scored rows to average")
    if foreign := {row["task"] for row in scored_rows} - set(tasks):
        raise UserError(f"{name} has no such task: {', '.join(map(repr, sorted(foreign)))}")
    counts = Counter(row["task"] for row in scored_rows)
    scores = _means(((row["task"], row["score"]) for row in scored_rows), tasks)
    return compute(scored_rows, scores) | {
        "micro": _mean(row["score"] for row in scored_rows),
        "n": len(scored_rows),
        "tasks": {task: {"score": score, "n": counts[task]} for task, score in scores.items()},
    }


def vsi_average(rows, tasks):
    """VSI-Bench (arXiv 2412.14171) and SPBench (arXiv 2510.08531): the mean over question types.

    The score of relative direction is the mean of its easy, medium and hard tasks, so it counts as
    one type. "nq" is the mean over the numeric types, "mcq" the mean over the multiple-choice
    types, and "types" has the score of each type. Some evaluation scripts report "micro" instead.
    """
    types = _means((VSI_TASKS[task], score) for task, score in tasks.items())
    parts = (("mcq" if name in VSI_CHOICES else "nq", score) for name, score in types.items())
    return {"average": _mean(types.values()), **_means(parts, ("nq", "mcq")), "types": types}


def cv_average(rows, tasks):
    """CV-Bench (Cambrian-1, arXiv 2406.16860): the mean of "2d" and "3d".

    "2d" is the mean of the accuracies on ADE20K and on COCO, "3d" is the accuracy on Omni3D. The
    two count the same, however many rows each has. "sources" has the accuracy on each source.
    """
    sources = _means((row["source"], row["score"]) for row in rows)
    if foreign := set(sources) - set(CV_SOURCES):
        raise UserError(f"cvbench has no such source: {', '.join(map(repr, sorted(foreign)))}")
    pairs = (("3d" if name == "Omni3D" else "2d", score) for name, score in sources.items())
    parts = _means(pairs, ("2d", "3d"))
    return {"average": _mean(parts.values()), **parts, "sources": sources}


def spar_average(rows, tasks):
    """SPAR-Bench (arXiv 2503.22976) as SpatialLadder reports it: the mean over all rows.

    "low", "middle" and "high" are the means over the rows of its three levels of cognition. "macro"
    is the mean over the 20 tasks, which SPAR-Bench's own script reports. nanoladder/rewards.py
    explains how a view change is scored.
    """
    level_of = {task: level for level, names in SPAR_LEVELS.items() for task in names}
    levels = _means(((level_of[row["task"]], row["score"]) for row in rows), SPAR_LEVELS)
    over_rows = _mean(row["score"] for row in rows)
    return {"average": over_rows, **levels, "macro": _mean(tasks.values())}


def view_average(rows, tasks):
    """ViewSpatial-Bench (arXiv 2505.21500): the mean over all rows.

    "camera" and "person" are the means over the rows of its two perspectives.
    """
    perspectives = _means((row["task"].split()[0].lower(), row["score"]) for row in rows)
    return {"average": _mean(row["score"] for row in rows), **perspectives}


# Name of a benchmark -> its tasks with their question types, and the function of its averages,
# which gets the scored rows and {task: its score}.
BENCHMARKS = {
    "vsibench": (VSI_TASKS, vsi_average),
    "spbench-si": (VSI_TASKS, vsi_average),
    "spbench-mv": (VSI_TASKS, vsi_average),
    "cvbench": (CV_TASKS, cv_average),
    "sparbench": (SPAR_TASKS, spar_average),
    "viewspatial": (VIEW_TASKS, view_average),
}


def _mean(values):
    values = list(values)
    return sum(values) / len(values)


def _means(pairs, order=()):
    """{name: mean score} of (name, score) pairs, in this order, without names that have none."""
    scores = {name: [] for name in order}
    for name, score in pairs:
        scores.setdefault(name, []).append(score)
    return {name: _mean(own) for name, own in scores.items() if own}
