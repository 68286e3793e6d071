"""Parsing and scoring of answers. rl.py's reward and eval.py's metric are these same functions.

    >>> from nanoladder.rewards import score_boxes
    >>> truth = [{"label": "chair", "bbox_2d": [10, 10, 30, 30]}]
    >>> score_boxes('[{"label":"chair","bbox_2d":[10,10,30,20]}]', truth)
    {'valid_json': 1.0, 'label_f1': 1.0, 'iou': 0.5, 'acc50': 1.0}

How an answer is read depends on the form that its row asks for (Row.form in nanoladder/schema.py):
"boxes", "choice", "number", "motion" or "text".
"""

import json
import math
import re

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


def parse_boxes(text):
    """The boxes of an answer, a JSON list of {"label": str, "bbox_2d": [x1, y1, x2, y2]}.

    The keys may come in any order, and a Markdown code fence around the list is allowed, because
    Qwen2.5-VL writes one. None where the text is anything else: half a list earns nothing.
    """
    text = re.sub(r"^```(?:json)?\s*|\s*```$", "", text.strip())
    try:
        items = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return items if isinstance(items, list) and all(map(is_box, items)) else None


def is_box(item):
    """Whether a JSON value is a labelled box that is neither empty nor inverted."""
    if not (isinstance(item, dict) and isinstance(item.get("label"), str)):
        return False
    box = item.get("bbox_2d")
    return (
        isinstance(box, list)
        and len(box) == 4
        and all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in box)
        and all(math.isfinite(v) for v in box)
        and box[0] < box[2]
        and box[1] < box[3]
    )


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
    """{label without case and outer blanks: its boxes in their order}."""
    boxes = {}
    for item in items:
        boxes.setdefault(item["label"].strip().casefold(), []).append(item["bbox_2d"])
    return boxes


def matched_ious(found, true):
    """IoU of each true box with the found box that it is matched to, one to one; 0 without one.

    The pair with the highest IoU is matched first. For the few boxes of an answer this is as good
    as an optimal assignment, and shorter.
    """
    pairs = [(box_iou(a, b), i, j) for i, a in enumerate(found) for j, b in enumerate(true)]
    ious, left = [0.0] * len(true), set(range(len(found)))
    for iou, i, j in sorted(pairs, reverse=True):
        if i in left and not ious[j]:
            ious[j] = iou
            left.remove(i)
    return ious


# ---------------------------------------------------------------- thinking first

TAGS = ("<think>", "</think>", "<answer>", "</answer>")


def in_tags(rationale, answer):
    """A completion that thinks first: what the cold start teaches and parse_thought reads."""
    return f"<think>{rationale}</think><answer>{answer}</answer>"


def parse_thought(text):
    """(rationale, answer) of a text that is one think block, then one answer block, nothing else.

    None for any other text. The blocks may have many lines and white space between them.

    >>> parse_thought("<think>1 + 1</think> <answer>2</answer>")
    ('1 + 1', '2')
    """
    found = re.fullmatch(r"<think>(.*)</think>\s*<answer>(.*)</answer>", text, re.DOTALL)
    repeated = any(text.count(tag) != 1 for tag in TAGS)
    return None if repeated or not found else found.groups()


def answer_part(text, row):
    """The part of a completion in which its answer is looked for.

    The answer block of a completion that thinks first. The last line of a direct choice or number,
    because a rationale may stand before it. All of any other answer.
    """
    if row.think:
        return answer_block(text)
    return text.strip().rpartition("\n")[2] if row.form in ("choice", "number") else text


def answer_block(text):
    """The content of the only answer block of a text; "" where there is none, or more than one."""
    if text.count("<answer>") != 1 or text.count("</answer>") != 1:
        return ""
    found = re.search(r"<answer>(.*)</answer>", text, re.DOTALL)
    return found[1] if found else ""


# ---------------------------------------------------------------- short answers


def exact_match(text, truth):
    """1.0 where the texts are equal but for case, outer white space and a final full stop."""
    return float(text.strip().rstrip(".").lower() == truth.strip().rstrip(".").lower())


def parse_choice(text, options):
    """Letter of the chosen option; None where the answer names none of them, or more than one.

    >>> answers = ("B", "(b)", "B. chair", "chair (B)", "chair", "A or B", "B. bed", "a chair")
    >>> [parse_choice(text, ("A. bed", "B. chair")) for text in answers]
    ['B', 'B', 'B', 'B', 'B', None, None, None]
    """
    text, named = text.strip().lower(), []
    letter_first = r"\(?(?P<letter>[a-z])(?:\)|[.:]|\)[.:])?(?:\s+(?P<words>.+?))?\.?"
    letter_last = r"(?P<words>.+?)\s*\((?P<letter>[a-z])\)\.?"
    ways = [re.fullmatch(pattern, text, re.DOTALL) for pattern in (letter_first, letter_last)]
    for option in options:
        letter, words = option.lower().split(". ", 1)
        if any(m and m["letter"] == letter and m["words"] in (None, words) for m in ways):
            return letter.upper()
        if text.rstrip(".") == words.rstrip("."):
            named.append(letter.upper())
    return named[0] if len(named) == 1 else None


LENGTHS = dict.fromkeys(("m", "meter"), 1.0)  # metres
LENGTHS |= dict(mm=0.001, millimeter=0.001, cm=0.01, centimeter=0.01)
LENGTHS |= {"in": 0.0254, "inch": 0.0254, "ft": 0.3048, "foot": 0.3048, "feet": 0.3048}
AREAS = {f"square {name}": size**2 for name, size in LENGTHS.items()}  # square metres
DIGITS = "zero one two three four five six seven eight nine ten eleven twelve".split()
NUMBER = re.compile(r"(?<![\w.^,])(-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)(?![\d,.]*\d)")


def plain_units(text):
    """The text in lower case with areas in one spelling: m^2, m2, sq. m -> square m."""
    text = text.lower().replace("metre", "meter")
    text = re.sub(r"([a-z]+?)s?(?:\s?\^\s?2|²|2)(?!\w)", r"square \1", text)
    return re.sub(r"\bsq(?:uare)?\.?\s*(?=[a-z])", "square ", text)


def unit_size(name, sizes):
    """Size of the unit called `name`, or whose plural that is; None where `sizes` lacks it."""
    names = (name, name.removesuffix("s"), name.removesuffix("es"))
    return next((sizes[n] for n in names if n in sizes), None)


def parse_number(text, unit):
    """The one number that an answer states, in the asked unit; None if it states none or several.

    unit: "m", "cm", "m^2", any other word, or "" for a plain count. Another unit of the same
    dimension is converted; a number with any other word behind it is no answer.

    >>> [parse_number(text, "m") for text in ("3.2", "about 320 cm.", "It is 3.2 m away", "2 or 3")]
    [3.2, 3.2, 3.2, None]
    >>> parse_number("12 kg", "m"), parse_number("12 m^2", "m")
    (None, None)
    """
    text, asked = plain_units(text), plain_units(unit)
    found = list(NUMBER.finditer(text))
    if not found and not asked:
        spelt = [DIGITS.index(word) for word in re.findall(r"[a-z]+", text) if word in DIGITS]
        return float(spelt[0]) if len(spelt) == 1 else None
    if len(found) != 1 or re.search(r"\d", NUMBER.sub("", text)):  # 1e308 leaves digits over
        return None
    value, rest = float(found[0][1].replace(",", "")), text[found[0].end() :]
    stated = re.match(r"\s*((?:square )?[a-z]+)", rest)
    if stated is None or not asked:
        return value
    tables = (sizes for sizes in (LENGTHS, AREAS) if unit_size(asked, sizes))
    sizes = next(tables, {asked: 1.0, asked.removesuffix("s"): 1.0})
    size = unit_size(stated[1], sizes)
    return None if size is None else value * size / unit_size(asked, sizes)


def read_answer(text, row):
    """What an answer says, in the form that its row asks for; None where it cannot be read.

    A list of boxes, an option's letter, a number in the asked unit, five motions, or a text.
    """
    if row.form == "boxes":
        return parse_boxes(text)
    if row.form == "choice":
        return parse_choice(text, row.options)
    if row.form == "number":
        return parse_number(text, row.unit)
    return parse_motion(text) if row.form == "motion" else text


# ---------------------------------------------------------------- scores

THRESHOLDS = tuple(k / 100 for k in range(50, 100, 5))


def relative_accuracy(predicted, truth):
    """MRA, the score of a number: mean over t = 0.50, 0.55 .. 0.95 of |p - g| / g <= 1 - t.

    Takes two numbers, or arrays that broadcast (VSI-Bench, arXiv 2412.14171, section 3.2). For a
    truth of 0, where nothing can be relative, the absolute error counts, as in SPAR-Bench.

    >>> relative_accuracy(1.25, 1.0), relative_accuracy(3.0, 1.0)
    (0.6, 0.0)
    """
    error = abs(predicted - truth) / (abs(truth) + (truth == 0))
    return sum((error <= 1 - threshold) * 1.0 for threshold in THRESHOLDS) / len(THRESHOLDS)


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
