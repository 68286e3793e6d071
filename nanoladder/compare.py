"""Two scored folders, compared row by row: python eval.py --compare FIRST SECOND"""

from pathlib import Path

import numpy as np

from nanoladder.benchmarks import BENCHMARKS
from nanoladder.command import UserError
from nanoladder.files import read_jsonl
from nanoladder.scoring import SHORT
from nanoladder.summaries import (
    interval,
    overall_interval,
    resample,
    summarize_benchmark,
    type_scores,
)


def compare(folders):
    """Print the second folder's scores minus the first's, over the rows that both answered.

    Of every question type, each benchmark and the benchmarks' mean, or a published benchmark's own
    average, with 95 % intervals by a paired bootstrap over rows.
    """
    if len(folders) != 2:
        raise UserError("--compare takes two folders")
    first, second = map(read_answers, folders)
    types, benchmarks, published, rng = {}, {}, {}, np.random.default_rng(0)
    for k in [k for k in first if k in second]:
        own, measure = first[k], "iou" if "iou" in first[k]["scores"] else "accuracy"
        before, after = own["scores"], second[k]["scores"]
        gains = {name: after[name] - before[name] for name in before.keys() & after.keys()}
        pair = own, own | {"scores": gains}
        values = before[measure], gains[measure]
        types.setdefault((own["split"], own["question_type"]), []).append(values)
        if own["split"] in BENCHMARKS:
            published.setdefault(own["split"], []).append(pair)
        elif own["kind"] in SHORT:
            benchmarks.setdefault(own["split"], {}).setdefault(own["kind"], []).append(pair)
    if not types:
        raise UserError(f"{folders[0]} and {folders[1]} answered no row in common")
    for (split, kind), pairs in sorted(types.items()):
        before, gains = np.array(pairs).T
        low_high = interval(resample(gains, rng))
        show_gain(split, kind, before.mean(), gains.mean(), low_high, len(gains))
    for split, pairs in published.items():
        before, gain = (summarize_benchmark(split, part) for part in zip(*pairs))
        means = before["average"], gain["average"]
        show_gain(split, "average", *means, gain["interval"], gain["n"])
    for split, found in benchmarks.items():
        groups = {kind: [pairs] for kind, pairs in found.items()}
        if len(found) > 1:
            groups["overall"] = list(found.values())
        for name, parts in groups.items():
            before, gains = ([[pair[i] for pair in pairs] for pairs in parts] for i in (0, 1))
            means = (average_of_types(before), average_of_types(gains))
            show_gain(split, name, *means, overall_interval(gains), sum(map(len, gains)))


def read_answers(folder):
    """{key: prediction} of a scored folder. UserError where the file is damaged."""
    path = Path(folder) / "predictions.jsonl"
    answers = read_jsonl(path)
    try:
        found = {key(p): p for p in answers}
        for p in answers:
            scores = p["scores"]
            measured = float(scores["iou" if "iou" in scores else "accuracy"])
            hash((p["kind"], len(p["options"]), measured))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: damaged or old ({error!r}): score the model anew") from None
    if len(found) < len(answers):
        raise UserError(f"{path}: two rows have one id, kind and pictures: number them anew")
    return found


def average_of_types(parts):
    """Mean over benchmarks of the mean over their types."""
    return np.mean([np.mean(list(type_scores(predictions).values())) for predictions in parts])


def show_gain(split, name, before, gain, low_high, n):
    low, high = low_high
    print(f"{split:4} {name:18} {before:.3f} {gain:+.3f} [{low:+.3f}, {high:+.3f}]  n {n}")


def key(prediction):
    names = ("split", "kind", "question_id", "question_type")
    images = tuple(Path(image).name for image in prediction["images"])
    return *(prediction[name] for name in names), images
