"""Parsing and scoring of answers: the reward of rl.py and the metric of eval.py are these functions.

    >>> from nanoladder.rewards import score_boxes
    >>> truth = [{"label": "chair", "bbox_2d": [10, 10, 30, 30]}]
    >>> score_boxes('[{"label":"chair","bbox_2d":[10,10,30,20]}]', truth)
    {'valid_json': 1.0, 'label_f1': 1.0, 'iou': 0.5, 'acc50': 1.0}
"""

import json
import math
import re


def box_iou(a, b):
    """Intersection over union of two xyxy boxes (any unit, edges exclusive); 0 for an empty or inverted box."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    inter = width * height
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter
    return inter / union


def parse_boxes(text):
    """Boxes from an answer: a JSON list of {"label": str, "bbox_2d": [x1, y1, x2, y2]}, keys in any order.

    A Markdown code fence around the list is allowed, because Qwen2.5-VL writes one. Returns the list, or None
    where the text is anything else: a broken list earns nothing, so that there is no reward for half a format.
    """
    text = re.sub(r"^```(?:json)?\s*|\s*```$", "", text.strip())
    try:
        items = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return items if isinstance(items, list) and all(map(_is_box, items)) else None


def _is_box(item):
    if not (isinstance(item, dict) and isinstance(item.get("label"), str)):
        return False
    box = item.get("bbox_2d")
    return (
        isinstance(box, list)
        and len(box) == 4
        and all(isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v) for v in box)
        and box[0] < box[2]
        and box[1] < box[3]
    )


def score_boxes(text, truth):
    """Scores of one localization answer, each in [0, 1].

    `truth` lists the asked objects as {"label", "bbox_2d"}, labels in lower case and unique. `valid_json`: the
    text parses; `label_f1`: F1 between predicted and asked labels; `iou`: mean over the asked objects of the IoU
    with the first prediction of the same label, 0 where there is none; `acc50`: share of them with IoU >= 0.5.
    """
    items = parse_boxes(text)
    predicted = [(item["label"].strip().lower(), item["bbox_2d"]) for item in items or []]
    boxes = dict(reversed(predicted))  # the first of a repeated label wins
    ious = [box_iou(boxes[t["label"]], t["bbox_2d"]) if t["label"] in boxes else 0.0 for t in truth]
    hits = sum(t["label"] in boxes for t in truth)
    return {
        "valid_json": float(items is not None),
        "label_f1": 2 * hits / (len(predicted) + len(truth)),
        "iou": sum(ious) / len(truth),
        "acc50": sum(iou >= 0.5 for iou in ious) / len(truth),
    }


# ---------------------------------------------------------------- thinking first

TAGS = ("<think>", "</think>", "<answer>", "</answer>")


def in_tags(thought, answer):
    """A completion that thinks first: what the cold start teaches, and what parse_thought reads."""
    return f"<think>{thought}</think><answer>{answer}</answer>"


def parse_thought(text):
    """(thought, answer) of a text that is one think block, then one answer block and nothing else; None of any other.

    The blocks may have many lines and white space between them.

    >>> [parse_thought(text) for text in ("<think>1 + 1</think>\\n<answer>2</answer>", "<answer>2</answer>")]
    [('1 + 1', '2'), None]
    """
    if any(text.count(tag) != 1 for tag in TAGS):  # no tag is nested or repeated
        return None
    found = re.fullmatch(r"<think>(.*)</think>\s*<answer>(.*)</answer>", text, re.DOTALL)
    return found and found.groups()


def final(text, row):
    """The part of a completion in which its answer is looked for: the answer block of one that thinks first. Where a
    choice or a number is asked for directly it is the last line, for workings may stand before it; else all of it."""
    if row.think:
        return answer_block(text)
    return text.strip().rpartition("\n")[2] if row.options or row.question_type in UNITS else text


def answer_block(text):
    """What stands in the only answer block of a text, whatever stands around it; "" where there is none, or several."""
    if text.count("<answer>") != 1 or text.count("</answer>") != 1:
        return ""
    found = re.search(r"<answer>(.*)</answer>", text, re.DOTALL)
    return found[1] if found else ""


# ---------------------------------------------------------------- short answers


def exact_match(text, truth):
    """1.0 where the answer is the asked one, apart from case, outer white space and a final full stop."""
    return float(text.strip().rstrip(".").lower() == truth.strip().rstrip(".").lower())


def parse_choice(text, options):
    """Letter of the chosen option, or None where the answer is none or more than one of them.

    >>> said = ("B", "(b)", "b.", "B. chair", "chair (B)", "chair", "A or B", "B. bed", "a chair")
    >>> [parse_choice(text, ("A. bed", "B. chair")) for text in said]
    ['B', 'B', 'B', 'B', 'B', 'B', None, None, None]
    """
    said, meant = text.strip().lower(), []
    before = re.fullmatch(r"\(?(?P<letter>[a-z])(?:\)|[.:]|\)[.:])?(?:\s+(?P<words>.+?))?\.?", said, re.DOTALL)
    behind = re.fullmatch(r"(?P<words>.+?)\s*\((?P<letter>[a-z])\)\.?", said, re.DOTALL)
    for option in options:
        letter, words = option.lower().split(". ", 1)
        if any(way and way["letter"] == letter and way["words"] in (None, words) for way in (before, behind)):
            return letter.upper()
        if said.rstrip(".") == words.rstrip("."):
            meant.append(letter.upper())
    return meant[0] if len(meant) == 1 else None


LENGTHS = {  # metres
    "mm": 0.001, "millimeter": 0.001, "cm": 0.01, "centimeter": 0.01, "m": 1.0, "meter": 1.0,
    "in": 0.0254, "inch": 0.0254, "ft": 0.3048, "foot": 0.3048, "feet": 0.3048,
}  # fmt: skip
AREAS = {f"square {name}": size**2 for name, size in LENGTHS.items()}  # square metres
SPELT = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
# What the answer to a numeric question is in; a count has no unit.
UNITS = {"object size": (LENGTHS, "cm"), "absolute distance": (LENGTHS, "m"), "room size": (AREAS, "square m"),
         "object count": ({}, None)}  # fmt: skip
NUMBER = re.compile(r"(?<![\w.^,])(-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)(?![\d,.]*\d)")


def parse_number(text, question_type):
    """The one number that an answer states, in the unit the type is asked in; None where there is none or several.

    A unit of the right dimension is converted; a number with any other word behind it is no answer.

    >>> [parse_number(text, "absolute distance") for text in ("3.2", "about 320 cm.", "It is 3.2 m away", "2 or 3")]
    [3.2, 3.2, 3.2, None]
    >>> parse_number("12 kg", "absolute distance"), parse_number("12 m^2", "absolute distance")
    (None, None)
    """
    text = re.sub(r"([a-z]+?)s?(?:\s?\^\s?2|²|2)(?!\w)", r"square \1", text.lower().replace("metre", "meter"))
    text = re.sub(r"\bsq(?:uare)?\.?\s*(?=[a-z])", "square ", text)
    found = list(NUMBER.finditer(text))
    if not found and question_type == "object count":
        spelt = [SPELT.index(word) for word in re.findall(r"[a-z]+", text) if word in SPELT]
        return float(spelt[0]) if len(spelt) == 1 else None
    if len(found) != 1 or re.search(r"\d", NUMBER.sub("", text)):  # other digits are of no number, as in 1e308
        return None
    value, rest = float(found[0][1].replace(",", "")), text[found[0].end() :]
    sizes, asked = UNITS[question_type]
    unit = re.match(r"\s*((?:square )?[a-z]+)", rest)
    if unit is None or asked is None:
        return value
    name = unit[1] if unit[1] in sizes else unit[1].removesuffix("es").removesuffix("s")
    return value * sizes[name] / sizes[asked] if name in sizes else None


# The five axes of a camera's motion, in metres and degrees; what is named first counts as positive.
AXES = (("move_right", "move_left"), ("move_up", "move_down"), ("move_forward", "move_backward"),
        ("rotate_right", "rotate_left"), ("rotate_up", "rotate_down"))  # fmt: skip


def parse_motion(text):
    """How far the camera moved along each of AXES; None where an answer names no motion, an unknown or a repeated one.

    >>> parse_motion("move_left:0.4, rotate_up:5")
    (-0.4, 0.0, 0.0, 0.0, 5.0)
    """
    found = re.findall(r"\b((?:move|rotate)_[a-z]+)\s*:\s*(-?\d+(?:\.\d+)?)", text.lower())
    steps = {name: float(value) for name, value in found}
    if not found or len(steps) < len(found) or not steps.keys() <= {name for axis in AXES for name in axis}:
        return None
    return tuple(steps.get(forth, 0.0) - steps.get(back, 0.0) for forth, back in AXES)


def read_answer(text, row):
    """What a short answer says, in the form that its row asks for; None where it cannot be read.

    A letter, a number in the asked unit, or a motion. An answer of any other type is its own text.
    """
    if row.options:
        return parse_choice(text, row.options)
    if row.question_type in UNITS:
        return parse_number(text, row.question_type)
    return parse_motion(text) if row.question_type == "view change" else text


def score_answer(text, row):
    """{"accuracy"} of an answer to a dataset row, in [0, 1].

    Of a choice 0 or 1, of a number its MRA, of a change of view the mean MRA over its five axes (SPAR-Bench, arXiv
    2503.22976; its published script divides by the predicted motion where it means the true one). Where the row is to
    be thought about first, accuracy reads the answer block alone, and "format" is 1 for a completion of the right form,
    whatever it answers.
    """
    scores = {"format": float(parse_thought(text) is not None)} if row.think else {}
    return scores | {"accuracy": _accuracy(final(text, row), row)}


def _accuracy(text, row):
    said = read_answer(text, row)
    if said is None:
        return 0.0
    if row.question_type in UNITS:
        return float(relative_accuracy(said, float(row.answer)))
    if row.question_type == "view change":
        scores = [relative_accuracy(value, true) for value, true in zip(said, parse_motion(row.answer))]
        return sum(scores) / len(scores)
    return float(said == row.answer) if row.options else exact_match(text, row.answer)


def reward(text, row, truth=None):
    """{"format", "accuracy"} of an answer to a dataset row, each in [0, 1]; GRPO's reward is their sum.

    truth: a localization row's boxes as score_boxes takes them. Its accuracy is the mean IoU, less what boxes nobody
    asked for cost: twice as many boxes as asked, half the accuracy. Format is whether a direct answer can be read at
    all; of one that is thought about first see score_answer.
    """
    if row.is_localization:
        scores, said = score_boxes(text, truth), parse_boxes(text) or []
        return {"format": scores["valid_json"], "accuracy": scores["iou"] * len(truth) / max(len(truth), len(said))}
    if row.think:
        return score_answer(text, row)
    return {"format": float(read_answer(final(text, row), row) is not None)} | score_answer(text, row)


THRESHOLDS = tuple(k / 100 for k in range(50, 100, 5))


def relative_accuracy(predicted, truth):
    """MRA, the score of a number: mean over the ten thresholds t = 0.50, 0.55 .. 0.95 of |p - g| / g <= 1 - t.

    Two numbers, or arrays that broadcast; VSI-Bench (arXiv 2412.14171), section 3.2. Of a truth of 0, where nothing can
    be relative, the absolute error counts, as in SPAR-Bench.

    >>> relative_accuracy(1.25, 1.0), relative_accuracy(3.0, 1.0)
    (0.6, 0.0)
    """
    error = abs(predicted - truth) / (abs(truth) + (truth == 0))
    return sum((error <= 1 - threshold) * 1.0 for threshold in THRESHOLDS) / len(THRESHOLDS)
