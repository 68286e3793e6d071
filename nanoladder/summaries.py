"""From scored answers to numbers: means, what the best constant answer earns, and 95 % intervals.

    summary = summarize_spatial(predictions, train_rows)      # of one benchmark, for scores.json

Every interval is a percentile bootstrap over rows: as many rows are drawn again, with replacement,
1,000 times. Its middle 95 % of means are the interval.
"""

from collections import Counter

import numpy as np

from nanoladder.benchmarks import average
from nanoladder.prompts import boxes_in_input
from nanoladder.rewards import box_iou, exact_match, relative_accuracy

RESAMPLES = 1000

# ---------------------------------------------------------------- intervals


def resample(values, rng):
    """Means of RESAMPLES bootstrap samples of the values: [RESAMPLES]."""
    values = np.asarray(values, dtype=float)
    return values[rng.integers(0, len(values), (RESAMPLES, len(values)))].mean(axis=1)


def interval(draws):
    """The middle 95 % of bootstrap means, [low, high]."""
    return [float(v) for v in np.quantile(draws, (0.025, 0.975))]


def averages(columns, rng):
    """The mean of each column of scores, the interval of the first mean, and the number of rows."""
    means = {name: float(np.mean(scores)) for name, scores in columns.items()}
    first = next(iter(columns.values()))
    return means | {"interval": interval(resample(first, rng)), "n": len(first)}


# ---------------------------------------------------------------- boxes


def summarize_localization(predictions, constant_box, seed=0):
    """Mean scores of boxes, of all rows and of each level.

    Returns {"iou", "acc50", "valid_json", "label_f1", "constant_iou" (of answering with one and the
    same box), "interval" (of iou), "n", "levels": {"1": the same, ...}}.
    """
    rng, names = np.random.default_rng(seed), ("iou", "acc50", "valid_json", "label_f1")

    def means(items):
        columns = {name: [p["scores"][name] for p in items] for name in names}
        truths = ([box["bbox_2d"] for box in p["truth"]] for p in items)
        guessed = [np.mean([box_iou(constant_box, box) for box in boxes]) for boxes in truths]
        return averages(columns | {"constant_iou": guessed}, rng)

    levels = sorted({p["level"] for p in predictions})
    parts = {str(v): means([p for p in predictions if p["level"] == v]) for v in levels}
    return means(predictions) | {"levels": parts}


def best_constant_box(rows, image_config):
    """The box with the highest mean IoU with the rows' boxes, by coordinate ascent from the median.

    It is what a model can earn without looking: fitted on training rows, scored on held-out ones.
    """
    boxes = [item["bbox_2d"] for row in rows for item in boxes_in_input(row, image_config)]
    truth = np.array(boxes, dtype=float)

    def mean_iou(box):
        low, high = np.maximum(truth[:, :2], box[:2]), np.minimum(truth[:, 2:], box[2:])
        inter = (high - low).clip(min=0).prod(axis=1)
        areas = (truth[:, 2:] - truth[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod()
        return (inter / (areas - inter)).mean()

    box = np.median(truth, axis=0)
    best = mean_iou(box)
    for step in (8, 4, 2, 1):
        improved = True
        while improved:
            improved = False
            for move in np.concatenate([np.eye(4), -np.eye(4)]) * step:
                candidate = box + move
                if (candidate[2:] > candidate[:2]).all() and mean_iou(candidate) > best + 1e-9:
                    box, best, improved = candidate, mean_iou(candidate), True
    return [round(v) for v in box.tolist()]


# ---------------------------------------------------------------- other short answers


def summarize_answers(predictions, train_rows, seed=0):
    """Mean accuracy of all rows and of each question type, beside the best constant answer's."""
    rng, types = np.random.default_rng(seed), {}
    whole = {"accuracy": [p["scores"]["accuracy"] for p in predictions], "constant": []}
    for name in sorted({p["question_type"] for p in predictions}):
        items = [p for p in predictions if p["question_type"] == name]
        known = [row for row in train_rows if row.question_type == name]
        types[name] = {"accuracy": [p["scores"]["accuracy"] for p in items]}
        types[name]["constant"] = constant_scores(known, items)
        whole["constant"] += types[name]["constant"]
    found = averages(whole, rng)
    return found | {"types": {name: averages(columns, rng) for name, columns in types.items()}}


def constant_scores(known, predictions):
    """What each prediction's row gives to the one answer that scores best on the `known` rows.

    All rows have one form. A choice may be guessed by a letter, or by words that stand beside any
    letter. Without known rows nothing can be guessed, and every score is 0.
    """
    if not known:
        return [0.0] * len(predictions)
    if predictions[0]["form"] == "number":
        guess, _ = best_number([float(row.answer) for row in known])
        return [float(relative_accuracy(guess, float(p["truth"]))) for p in predictions]
    said = Counter(text for row in known for text in ways_to_say(row.answer, row.options))
    guess = said.most_common(1)[0][0]
    ways = (ways_to_say(p["truth"], p["options"]) for p in predictions)
    return [max(exact_match(guess, text) for text in texts) for texts in ways]


def ways_to_say(answer, options):
    """The answer, and the words of the option whose letter it is.

    >>> ways_to_say("B", ["A. bed", "B. chair"])
    ['B', 'chair']
    """
    parts = (option.partition(". ") for option in options)
    return [answer, *(words for letter, _, words in parts if letter == answer)]


def best_number(answers):
    """The positive constant with the highest mean MRA over the numbers, and that MRA."""
    positive = [answer for answer in answers if answer > 0] or [1.0]  # the grid is logarithmic
    grid = np.geomspace(min(positive) / 1.5, max(positive) * 1.5, 600)
    scores = relative_accuracy(grid[:, None], np.asarray(answers)[None]).mean(1)
    return float(grid[scores.argmax()]), float(scores.max())


# ---------------------------------------------------------------- spatial questions


def summarize_spatial(predictions, train_rows, seed=0):
    """The table of SpatialLadder's paper for one benchmark, beside the best constant answers.

    A type's score is its mean accuracy; where a type is asked with several numbers of options
    (easy, medium and hard directions) it is the mean of theirs, as in VSI-Bench. avg is the mean
    over types, nq that over numeric types, mcq that over choices; micro is the mean over rows.
    Returns {"avg", "micro", "nq", "mcq", "constant", "interval" (of avg), "nq_interval",
    "mcq_interval", "n", "types": {type: {"form", "accuracy", "constant", "interval", "n"}}}, and
    for answers that think first "format", the share of completions of the right format.
    """
    drawn, scores, types = type_draws(predictions, seed), type_scores(predictions), {}
    for name, parts in by_type(predictions).items():
        asked, constants = [row for row in train_rows if row.question_type == name], []
        for options, items in parts.items():
            known = [row for row in asked if len(row.options) == options]
            constants.append(np.mean(constant_scores(known, items)))
        types[name] = {
            "form": items[0]["form"],
            "accuracy": float(scores[name]),
            "constant": float(np.mean(constants)),
            "interval": interval(drawn[name]),
            "n": sum(map(len, parts.values())),
        }

    def interval_of(form=None):
        draws = [drawn[name] for name in types if form in (None, types[name]["form"])]
        return interval(np.mean(draws, axis=0)) if draws else None

    formats = [p["scores"]["format"] for p in predictions if "format" in p["scores"]]
    return ({"format": float(np.mean(formats))} if formats else {}) | {
        "avg": macro(types, "accuracy"),
        "micro": float(np.mean([p["scores"]["accuracy"] for p in predictions])),
        "nq": macro(types, "accuracy", "number"),
        "mcq": macro(types, "accuracy", "choice"),
        "constant": macro(types, "constant"),
        "interval": interval_of(),
        "nq_interval": interval_of("number"),
        "mcq_interval": interval_of("choice"),
        "n": len(predictions),
        "types": types,
    }


def by_type(predictions):
    """{question type: {number of options: its predictions}}"""
    groups = {name: {} for name in sorted({p["question_type"] for p in predictions})}
    for p in predictions:
        groups[p["question_type"]].setdefault(len(p["options"]), []).append(p)
    return groups


def type_scores(predictions, mean=np.mean):
    """{type: its score}, the mean over its numbers of options. mean: of one group's accuracies."""
    scores = {}
    for name, parts in by_type(predictions).items():
        groups = [mean([p["scores"]["accuracy"] for p in items]) for items in parts.values()]
        scores[name] = np.mean(groups, axis=0)
    return scores


def type_draws(predictions, seed):
    """{type: bootstrap draws of its score}, rows drawn within each number of options."""
    rng = np.random.default_rng(seed)
    return type_scores(predictions, lambda values: resample(values, rng))


def macro(types, field, form=None):
    """Mean of a field over the types that have it, or over those of one form; None without any."""
    values = [t[field] for t in types.values() if field in t and form in (None, t["form"])]
    return float(np.mean(values)) if values else None


def overall_interval(benchmarks):
    """Interval of the mean of several benchmarks' averages, from each one's predictions."""
    draws = [type_draws(predictions, seed) for seed, predictions in enumerate(benchmarks)]
    means = [np.mean(list(types.values()), axis=0) for types in draws]
    return interval(np.mean(means, axis=0))


def set_beside(summary, name, other):
    """Add another summary of the same benchmark as a column `name`, such as "shuffled"."""
    summary[name] = other["avg"]
    for question_type in summary["types"].keys() & other["types"].keys():
        accuracy = other["types"][question_type]["accuracy"]
        summary["types"][question_type][name] = accuracy


def summarize_benchmark(name, predictions, seed=0):
    """average() of a published benchmark's predictions, with the "interval" of "average".

    "strict" holds the same averages of the scores by the original's reading (nanoladder/strict.py).
    """
    rows, strict = (
        [p | {"score": p["scores"][reading]} for p in predictions]
        for reading in ("accuracy", "strict")
    )
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(RESAMPLES):
        drawn = [rows[i] for i in rng.integers(0, len(rows), len(rows))]
        draws.append(average(name, drawn)["average"])
    return average(name, rows) | {"interval": interval(draws), "strict": average(name, strict)}
