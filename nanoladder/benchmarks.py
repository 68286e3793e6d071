"""The published averages of the six benchmarks, each as its authors or SpatialLadder's evaluation define it.

    average("vsibench", [{"task": "object_counting", "score": 0.6}, ...])  ->  {"average": 0.6, "micro": 0.6, ...}

A scored row is a dict with `task` and `score` (0 to 1), for CV-Bench also `source`: what data/NAME/prepare.py wrote
into the dataset's row, and the accuracy of nanoladder/rewards.py. Rows that could not be answered belong here with a
score of 0. A part that no row belongs to is left out, and never counts as 0.
"""

from nanoladder.common import UserError
from nanoladder.dataset import CHOICES, MOTION

# What each benchmark calls its tasks -> question_type of nanoladder/dataset.py.
VSI_TASKS = {
    "object_rel_direction_easy": "relative direction",
    "object_rel_direction_medium": "relative direction",
    "object_rel_direction_hard": "relative direction",
    "object_rel_direction": "relative direction",  # SPBench does not tell the three apart
    "object_rel_distance": "relative distance",
    "route_planning": "route planning",
    "obj_appearance_order": "appearance order",
    "object_abs_distance": "absolute distance",
    "object_counting": "object count",
    "object_size_estimation": "object size",
    "room_size_estimation": "room size",
}
CV_SOURCES = ("ADE20K", "COCO", "Omni3D")
CV_TASKS = dict.fromkeys(("Count", "Relation", "Depth", "Distance"), "choice")
SPAR_LEVELS = {
    "low": ("depth_prediction_oc", "depth_prediction_oo", "distance_prediction_oc", "distance_prediction_oo",
            "depth_prediction_oc_mv", "depth_prediction_oo_mv", "distance_prediction_oc_mv",
            "distance_prediction_oo_mv"),
    "middle": ("view_change_infer", "position_matching", "camera_motion_infer"),
    "high": ("obj_spatial_relation_oo", "obj_spatial_relation_oc_mv", "obj_spatial_relation_oo_mv",
             "spatial_imagination_oc", "spatial_imagination_oo", "spatial_imagination_oc_mv",
             "spatial_imagination_oo_mv", "distance_infer_center_oo", "distance_infer_center_oo_mv"),
}  # fmt: skip
SPAR_TASKS = {
    **dict.fromkeys(SPAR_LEVELS["low"], "absolute distance"),
    **dict.fromkeys(SPAR_LEVELS["middle"] + SPAR_LEVELS["high"], "choice"),
    "view_change_infer": MOTION,
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
    """The averages of benchmark `name` (a key of BENCHMARKS) over its scored rows.

    Every benchmark's dict has "average" (the one to report), "micro" (the mean over rows), "n" and "tasks",
    {task: {"score", "n"}}; what else is in it, its own function says. Raises UserError for a row of another benchmark.
    """
    tasks, compute = BENCHMARKS[name]
    if not scored_rows:
        raise UserError(f"{name}: no scored rows to average")
    if foreign := {row["task"] for row in scored_rows} - set(tasks):
        raise UserError(f"{name} has no such task: {', '.join(map(repr, sorted(foreign)))}")
    by_task = _groups(scored_rows, lambda row: row["task"])
    return compute(scored_rows) | {
        "micro": _score(scored_rows),
        "n": len(scored_rows),
        "tasks": {task: {"score": _score(by_task[task]), "n": len(by_task[task])} for task in tasks if task in by_task},
    }


def vsi_average(rows):
    """VSI-Bench (arXiv 2412.14171) and SPBench (SpatialLadder, arXiv 2510.08531): the macro average over types.

    Relative direction counts as one type, the mean of its easy, medium and hard tasks. "nq" and "mcq" are the means
    over numeric and over multiple-choice types, "types" is every type's score. Some harnesses report "micro" instead.
    """
    by_type = _groups(rows, lambda row: VSI_TASKS[row["task"]])
    types = {kind: _macro(_groups(items, lambda row: row["task"])) for kind, items in by_type.items()}
    return {
        "average": _mean(types.values()),
        **_parts("nq", [score for kind, score in types.items() if kind not in CHOICES]),
        **_parts("mcq", [score for kind, score in types.items() if kind in CHOICES]),
        "types": types,
    }


def cv_average(rows):
    """CV-Bench (Cambrian-1, arXiv 2406.16860): the mean of "2d" and "3d".

    2D is the mean of ADE20K's accuracy and COCO's, 3D is Omni3D's; both kinds weigh the same, whatever their rows.
    """
    sources = {source: _score(items) for source, items in _groups(rows, lambda row: row["source"]).items()}
    if foreign := set(sources) - set(CV_SOURCES):
        raise UserError(f"cvbench has no such source: {', '.join(map(repr, sorted(foreign)))}")
    parts = {
        **_parts("2d", [sources[source] for source in ("ADE20K", "COCO") if source in sources]),
        **_parts("3d", [sources[source] for source in ("Omni3D",) if source in sources]),
    }
    return {"average": _mean(parts.values()), **parts, "sources": sources}


def spar_average(rows):
    """SPAR-Bench (arXiv 2503.22976) as SpatialLadder reports it: every row weighs the same.

    "low", "middle" and "high" are its levels of cognition, weighed likewise. "macro" is the mean over the 20 tasks,
    which SPAR-Bench's own script reports. A change of view scores the mean MRA over five axes (score_answer).
    """
    levels = {level: [row["score"] for row in rows if row["task"] in tasks] for level, tasks in SPAR_LEVELS.items()}
    parts = {name: value for level, scores in levels.items() for name, value in _parts(level, scores).items()}
    return {"average": _score(rows), **parts, "macro": _macro(_groups(rows, lambda row: row["task"]))}


def view_average(rows):
    """ViewSpatial-Bench (arXiv 2505.21500): every row weighs the same; "camera" and "person" are its perspectives."""
    sides = _groups(rows, lambda row: row["task"].split()[0].lower())
    return {"average": _score(rows), **{side: _score(items) for side, items in sides.items()}}


BENCHMARKS = {
    "vsibench": (VSI_TASKS, vsi_average),
    "spbench-si": (VSI_TASKS, vsi_average),
    "spbench-mv": (VSI_TASKS, vsi_average),
    "cvbench": (CV_TASKS, cv_average),
    "sparbench": (SPAR_TASKS, spar_average),
    "viewspatial": (VIEW_TASKS, view_average),
}


def _groups(rows, key):
    groups = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def _mean(values):
    values = list(values)
    return sum(values) / len(values)


def _score(rows):
    return _mean(row["score"] for row in rows)


def _macro(groups):
    return _mean(_score(rows) for rows in groups.values())


def _parts(name, scores):
    """{name: mean of scores}; nothing where there are none."""
    return {name: _mean(scores)} if scores else {}
