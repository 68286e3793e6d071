"""Scores of answers, from 0 to 1: eval.py's metrics, and rl.py's reward, which is made of them.

    >>> from nanoladder.rewards import score_boxes
    >>> truth = [{"label": "chair", "bbox_2d": [10, 10, 30, 30]}]
    >>> score_boxes('[{"label":"chair","bbox_2d":[10,10,30,20]}]', truth)
    {'valid_json': 1.0, 'label_f1': 1.0, 'iou': 0.5, 'acc50': 1.0}

nanoladder/answers.py reads the answers; how depends on the form that a row asks for.
"""

from nanoladder.answers import answer_part, parse_boxes, parse_thought, plain, read_answer
from nanoladder.motion import parse_motion

# ---------------------------------------------------------------- boxes


def box_iou(a, b):
    """Intersection over union of two xyxy boxes, in any unit; 0 for an empty or inverted box."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    inter = width * height
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter
    return inter / union


def score_boxes(text, truth):
    """Scores of a localization answer, each in [0, 1]. truth: the asked objects, as parse_boxes.

    "valid_json": whether the text parses. "label_f1": F1 of the predicted and the asked labels.
    "iou": mean over the asked objects of the IoU with the predicted box of the same label, 0 where
    there is none. "acc50": share of the asked objects with an IoU of 0.5 or more. Of a label's
    boxes only as many count as were asked for, the first ones.
    """
    items, ious, hits = parse_boxes(text), [], 0
    predicted, asked = boxes_by_label(items or []), boxes_by_label(truth)
    for label, true in asked.items():
        found = predicted.get(label, [])[: len(true)]
        hits += len(found)
        ious += matched_ious(found, true)
    return {
        "valid_json": float(items is not None),
        "label_f1": 2 * hits / (len(items or []) + len(truth)),
        "iou": sum(ious) / len(truth),
        "acc50": sum(iou >= 0.5 for iou in ious) / len(truth),
    }


def boxes_by_label(items):
    """{label, compared as plain() text: its boxes in their order}."""
    boxes = {}
    for item in items:
        boxes.setdefault(plain(item["label"]), []).append(item["bbox_2d"])
    return boxes


def matched_ious(found, true):
    """IoU of each true box with the found box that it is matched to, one to one; 0 without one.

    The pair with the highest IoU is matched first. This is shorter than an optimal assignment, and
    true boxes always find themselves. Where objects of one label overlap, it may score less.
    """
    pairs = [(box_iou(a, b), i, j) for i, a in enumerate(found) for j, b in enumerate(true)]
    ious, left = [0.0] * len(true), set(range(len(found)))
    for iou, i, j in sorted(pairs, reverse=True):
        if i in left and not ious[j]:
            ious[j] = iou
            left.remove(i)
    return ious


# ---------------------------------------------------------------- short answers

THRESHOLDS = tuple(k / 100 for k in range(50, 100, 5))
# An error of exactly 10 % is within a threshold of 0.9, but floats round |0.9 - 1| / 1 up or down.
# The rounding is below 1e-12. Decimals as people write them differ by more than this tolerance, so
# the comparison is as in exact arithmetic, for arrays too.
TOLERANCE = 1e-9


def exact_match(text, truth):
    """1.0 where the texts are equal but for case, blanks, emphasis and a final full stop."""
    return float(plain(text) == plain(truth))


def relative_accuracy(predicted, truth):
    """MRA, the score of a number: mean over t = 0.50, 0.55 .. 0.95 of |p - g| / g <= 1 - t.

    Takes two numbers, or arrays that broadcast (VSI-Bench, arXiv 2412.14171, section 3.2). For a
    truth of 0, where nothing can be relative, the absolute error counts, as in SPAR-Bench.

    >>> relative_accuracy(1.25, 1.0), relative_accuracy(3.0, 1.0)
    (0.6, 0.0)
    >>> relative_accuracy(9.0, 10.0)
    0.9
    """
    error = abs(predicted - truth) / (abs(truth) + (truth == 0))
    return sum((error <= 1 - t + TOLERANCE) * 1.0 for t in THRESHOLDS) / len(THRESHOLDS)


def score_answer(text, row):
    """{"accuracy"} of an answer to a row that does not ask for boxes, in [0, 1].

    A choice scores 0 or 1, a number its MRA, a motion the mean MRA over its five axes (SPAR-Bench,
    arXiv 2503.22976; its script divides by the predicted motion where it means the true one).
    Where the row is to be thought about first, only the answer block is read, and there is also
    "format": 1 for a completion of the right format, whatever it answers.
    """
    scores = {"format": float(parse_thought(text) is not None)} if row.think else {}
    return scores | {"accuracy": accuracy(answer_part(text, row), row)}


def accuracy(text, row):
    """The score of what stands in a completion's answer part."""
    answer = read_answer(text, row)
    if answer is None:
        return 0.0
    if row.form == "number":
        return float(relative_accuracy(answer, float(row.answer)))
    if row.form == "motion":
        pairs = zip(answer, parse_motion(row.answer), strict=True)
        return sum(relative_accuracy(value, true) for value, true in pairs) / len(answer)
    return float(answer == row.answer) if row.form == "choice" else exact_match(text, row.answer)


def reward(text, row, truth=None):
    """{"format", "accuracy"} of an answer to any row, each in [0, 1]; GRPO's reward is their sum.

    truth: the boxes of a row that asks for boxes, as score_boxes takes them. The accuracy of boxes
    is the mean IoU; boxes that nobody asked for lower it: twice as many boxes as asked, half of it.
    The format of a direct answer is whether it can be read at all; see score_answer for the others.
    """
    if row.form == "boxes":
        scores, boxes = score_boxes(text, truth), parse_boxes(text) or []
        share = len(truth) / max(len(truth), len(boxes))
        return {"format": scores["valid_json"], "accuracy": scores["iou"] * share}
    if row.think:
        return score_answer(text, row)
    readable = read_answer(answer_part(text, row), row) is not None
    return {"format": float(readable)} | score_answer(text, row)
