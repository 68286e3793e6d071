"""From scored answers to tables: means, what guessing earns beside them, and 95 % intervals.

    summary = summarize_spatial(predictions, train_rows)      # of one benchmark, as scores.json keeps it
    print(as_text(tables({"rooms-si": summary})))             # as SpatialLadder's paper prints it

Every interval is a percentile bootstrap over rows: the same number of rows drawn again, with replacement, 1,000 times.
"""

from collections import Counter
from typing import NamedTuple

import numpy as np

from nanoladder.benchmarks import average
from nanoladder.dataset import CHOICES, NUMBERS, TEXTS, boxes_in_input
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


# ---------------------------------------------------------------- boxes


def summarize_localization(predictions, constant_box, seed=0):
    """Mean scores, all and per level, with those of answering every question by one and the same box.

    Returns {"iou", "acc50", "valid_json", "label_f1", "constant_iou", "interval" (of iou), "n", "levels": {"1": ..}}.
    """
    rng = np.random.default_rng(seed)

    def means(items):
        scores = {k: [p["scores"][k] for p in items] for k in ("iou", "acc50", "valid_json", "label_f1")}
        constant = [np.mean([box_iou(constant_box, t["bbox_2d"]) for t in p["truth"]]) for p in items]
        return {k: float(np.mean(v)) for k, v in scores.items()} | {
            "constant_iou": float(np.mean(constant)), "interval": interval(resample(scores["iou"], rng)),
            "n": len(items),
        }  # fmt: skip

    levels = sorted({p["level"] for p in predictions})
    return means(predictions) | {"levels": {str(v): means([p for p in predictions if p["level"] == v]) for v in levels}}


def best_constant_box(rows, image_config):
    """The box with the highest mean IoU against the rows' true boxes, by coordinate ascent from the median box.

    It is what a model gets that never looks: fitted on training rows, scored on held-out ones.
    """
    truth = np.array([item["bbox_2d"] for row in rows for item in boxes_in_input(row, image_config)], dtype=float)

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


# ---------------------------------------------------------------- stage 0's short answers


def summarize_answers(predictions, train_rows, seed=0):
    """Exact-match accuracy, all and per question type, beside that of the type's most frequent training answer."""
    rng, commonest = np.random.default_rng(seed), {}
    for kind in {p["question_type"] for p in predictions}:
        answers = Counter(row.answer for row in train_rows if row.question_type == kind)
        commonest[kind] = answers.most_common(1)[0][0] if answers else ""

    def means(items):
        accuracies = [p["scores"]["accuracy"] for p in items]
        return {
            "accuracy": float(np.mean(accuracies)),
            "constant": float(np.mean([exact_match(commonest[p["question_type"]], p["truth"]) for p in items])),
            "interval": interval(resample(accuracies, rng)),
            "n": len(items),
        }

    types = {kind: means([p for p in predictions if p["question_type"] == kind]) for kind in sorted(commonest)}
    return means(predictions) | {"types": types}


# ---------------------------------------------------------------- spatial questions


def summarize_spatial(predictions, train_rows, seed=0):
    """The table of SpatialLadder's paper for one benchmark, beside the best constant answer to each type.

    A type's score is its mean accuracy; relative direction's is the mean of easy, medium and hard, told by their number
    of options (VSI-Bench). nq and mcq are means over numeric and multiple-choice types, avg over all types: a macro
    average. micro is the plain mean over rows, which some harnesses print instead.
    Returns {"avg", "micro", "nq", "mcq", "constant", "interval" (of avg), "nq_interval", "mcq_interval", "n",
    "types": {type: {"accuracy", "constant", "interval", "n"}}}, and for thinking answers
    "format": the share of completions of the right form.
    """
    drawn, types = type_draws(predictions, seed), {}
    for kind, score in type_scores(predictions).items():
        forms, constants = _forms(predictions, kind), []
        for options, items in forms.items():
            met = [r.answer for r in train_rows if r.question_type == kind and len(r.options) == options]
            constants.append(_constant_score(met, [p["truth"] for p in items], choice=options > 0))
        types[kind] = {"accuracy": float(score), "constant": float(np.mean(constants)),
                       "interval": interval(drawn[kind]), "n": sum(map(len, forms.values()))}  # fmt: skip

    def interval_of(kinds):
        draws = [drawn[kind] for kind in drawn if kinds is None or kind in kinds]
        return interval(np.mean(draws, axis=0)) if draws else None

    formats = [p["scores"]["format"] for p in predictions if "format" in p["scores"]]
    return ({"format": float(np.mean(formats))} if formats else {}) | {
        "avg": macro(types, "accuracy"),
        "micro": float(np.mean([p["scores"]["accuracy"] for p in predictions])),
        "nq": macro(types, "accuracy", NUMBERS),
        "mcq": macro(types, "accuracy", CHOICES),
        "constant": macro(types, "constant"),
        "interval": interval_of(None),
        "nq_interval": interval_of(NUMBERS),
        "mcq_interval": interval_of(CHOICES),
        "n": len(predictions),
        "types": types,
    }


def _forms(predictions, kind):
    """A type's predictions by their number of options."""
    forms = {}
    for p in predictions:
        if p["question_type"] == kind:
            forms.setdefault(p["options"], []).append(p)
    return forms


def type_scores(predictions, mean=np.mean):
    """{type: its score}, the mean of its forms' accuracies. mean: of a form's rows."""
    return {
        kind: np.mean([mean([p["scores"]["accuracy"] for p in items])
                       for items in _forms(predictions, kind).values()], axis=0)
        for kind in sorted({p["question_type"] for p in predictions})
    }  # fmt: skip


def type_draws(predictions, seed):
    """{type: bootstrap draws of its score}, rows drawn within each form of the type."""
    rng = np.random.default_rng(seed)
    return type_scores(predictions, lambda values: resample(values, rng))


def macro(types, field, kinds=None):
    """Mean of a field over the types (those among `kinds`) that have it; None where none has."""
    values = [t[field] for kind, t in types.items() if field in t and (kinds is None or kind in kinds)]
    return float(np.mean(values)) if values else None


def set_beside(summary, name, other):
    """Add another summary's scores of the same benchmark as a column: of shuffled pictures, of sampled answers."""
    summary[name] = other["avg"]
    for kind in summary["types"].keys() & other["types"].keys():
        summary["types"][kind][name] = other["types"][kind]["accuracy"]


def best_number(answers):
    """The positive constant with the highest mean MRA over numbers [N], and that MRA."""
    low = max(min(answers), 0.01)  # an answer of 0 has no place on the grid
    grid = np.geomspace(low / 1.5, max(*answers, low) * 1.5, 600)
    scores = relative_accuracy(grid[:, None], np.asarray(answers)[None]).mean(1)
    return float(grid[scores.argmax()]), float(scores.max())


def _constant_score(met, truth, choice):
    """Mean score on `truth` of the one answer that was best on `met`; 0 where training has no such question."""
    if not met:
        return 0.0
    if choice:
        guess = Counter(met).most_common(1)[0][0]
        return np.mean([t == guess for t in truth])
    guess, _ = best_number([float(a) for a in met])
    return np.mean([relative_accuracy(guess, float(t)) for t in truth])


def summarize_benchmark(name, predictions, seed=0):
    """average() of a real benchmark's predictions, with the "interval" of "average"."""
    rows = [{"task": p["task"], "source": p["source"], "score": p["scores"]["accuracy"]} for p in predictions]
    rng = np.random.default_rng(seed)
    draws = [average(name, [rows[i] for i in rng.integers(0, len(rows), len(rows))])["average"]
             for _ in range(RESAMPLES)]  # fmt: skip
    return average(name, rows) | {"interval": interval(draws)}


def overall_interval(benchmarks):
    """Interval of the mean of several benchmarks' averages, from a list of each one's predictions."""
    draws = [np.mean(list(type_draws(p, seed).values()), axis=0) for seed, p in enumerate(benchmarks)]
    return interval(np.mean(draws, axis=0))


# ---------------------------------------------------------------- what a person reads


class Table(NamedTuple):
    """One table of a report: the first cell of each row is its name."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]


PLAIN = ("localization", *TEXTS)  # entries of scores.json by split
# Scores beside a benchmark's, as far as they were measured: three of not looking, two of sampled answers.
BESIDE = ("constant", "shuffled", "blind", "sampled", "consensus")
PARTS = {"iou": "mean IoU", "acc50": "IoU >= 0.5", "label_f1": "label F1", "valid_json": "valid JSON",
         "constant_iou": "constant box", "accuracy": "accuracy", "constant": "constant"}  # fmt: skip


def extras(scores):
    """The table of what was measured beside the scores, in a list; an empty one where nothing was."""
    named = {f"{kind}, {split}": entry for kind in PLAIN for split, entry in scores.get(kind, {}).items()}
    rows = []
    for name, entry in {**named, **spatial(scores)}.items():
        entropy, look = entry.get("semantic_entropy"), entry.get("attention", {})
        if entropy is not None or look:
            rows.append((name, "" if entropy is None else f"{entropy:.3f}",
                         percent(look.get("inside")), percent(look.get("area"))))  # fmt: skip
    columns = ("", "entropy, nats", "in boxes, %", "their area, %")
    return [Table("semantic entropy, attention", columns, rows)] if rows else []


def tables(scores):
    """A table for each benchmark in what scores.json holds."""
    found = []
    for name, entry in scores.items():
        if name in PLAIN:
            found += [_plain_table(f"{name}, {split}", summary) for split, summary in entry.items()]
        elif name in spatial(scores):
            found.append(_paper_table(name, entry))
        elif isinstance(entry, dict) and "tasks" in entry:
            found.append(_benchmark_table(name, entry))
    return found


def spatial(scores):
    """The spatial benchmarks' entries of scores.json."""
    return {name: entry for name, entry in scores.items() if isinstance(entry, dict) and "avg" in entry}


def overview(scores):
    """The table of all spatial benchmarks together, in a list; an empty one where none was scored."""
    averages = [(name, entry["avg"], entry["interval"], entry) for name, entry in spatial(scores).items()]
    averages += [(name, scores[name], low_high, {}) for name, low_high in scores.get("intervals", {}).items()]
    rows = [(name, percent(entry.get("nq")), percent(entry.get("mcq")), percent(score), _range(low_high))
            for name, score, low_high, entry in averages]  # fmt: skip
    return [Table("spatial benchmarks, %", ("", "NQ", "MCQ", "average", "95 %"), rows)] if rows else []


def _plain_table(title, summary):
    shown = [part for part in PARTS if part in summary]
    named = {"all": summary} | {f"level {k}": v for k, v in summary.get("levels", {}).items()}
    named |= summary.get("types", {})
    rows = [(name, *(f"{s[part]:.3f}" for part in shown), _range(s["interval"], 1, 3), str(s["n"]))
            for name, s in named.items()]  # fmt: skip
    return Table(title, ("", *(PARTS[part] for part in shown), f"95 % of {PARTS[shown[0]]}", "n"), rows)


def _paper_table(title, summary):
    """Types, NQ, MCQ and average in percent, and beside them those of BESIDE."""
    types, rows = summary["types"], []
    beside = [name for name in BESIDE if name in summary]
    for kinds, name, key in ((NUMBERS, "NQ", "nq"), (CHOICES, "MCQ", "mcq"), (None, "average", "avg")):
        shown = [kind for kind in types if kinds and kind in kinds]
        for kind in shown:
            t = types[kind]
            rows.append((kind, percent(t["accuracy"]), _range(t["interval"]),
                         *(percent(t.get(b)) for b in beside), str(t["n"])))  # fmt: skip
        if shown or kinds is None:
            low_high = summary["interval" if kinds is None else f"{key}_interval"]
            n = sum(t["n"] for kind, t in types.items() if kinds is None or kind in kinds)
            rows.append((name, percent(summary[key]), _range(low_high),
                         *(percent(macro(types, b, kinds)) for b in beside), str(n)))  # fmt: skip
    rows.append(("mean over rows (micro)", percent(summary["micro"]), "", *("" for _ in beside), str(summary["n"])))
    if "format" in summary:
        rows.append(("valid form", percent(summary["format"]), "", *("" for _ in beside), str(summary["n"])))
    return Table(f"{title}, %", ("", "score", "95 %", *beside, "n"), rows)


def _benchmark_table(title, summary):
    """Tasks of a real benchmark, the parts that its authors tell apart, and its averages."""
    rows = [(task, percent(t["score"]), "", str(t["n"])) for task, t in summary["tasks"].items()]
    parts = [name for name, value in summary.items() if isinstance(value, float) and name != "average"]
    rows += [(name, percent(summary[name]), "", "") for name in parts]
    rows.append(("average", percent(summary["average"]), _range(summary["interval"]), str(summary["n"])))
    return Table(f"{title}, %", ("", "score", "95 %", "n"), rows)


def percent(value):
    """A share as text, in percent; "" for None."""
    return "" if value is None else f"{100 * value:.1f}"


def _range(low_high, times=100, digits=1):
    return "-".join(f"{times * v:.{digits}f}" for v in low_high)


def as_text(found):
    """Tables as aligned lines for a terminal."""
    lines = []
    for table in found:
        widths = [max(len(row[i]) for row in (table.columns, *table.rows)) for i in range(len(table.columns))]
        lines += ["", table.title]
        for name, *cells in (table.columns, *table.rows):
            numbers = "".join(f"  {cell:>{width}}" for cell, width in zip(cells, widths[1:]))
            lines.append(f"  {name:<{widths[0]}}{numbers}".rstrip())
    return "\n".join(lines)
