"""Reading of answers: what a model's text says, in the form that its row asks for.

    >>> parse_choice("The answer is B.", ("A. bed", "B. chair")), parse_number("about 6 cm", "m")
    ('B', 0.06)

A reader returns None for a text that states nothing, or more than one thing. It never raises,
whatever a model writes. nanoladder/rewards.py gives the scores.
"""

import json
import math
import re
import unicodedata
from functools import lru_cache

from nanoladder.motion import MINUS, parse_motion

LONGEST = 2000  # characters of a choice or a number; a longer text is none, and is not searched


def plain(text):
    """The text without case, emphasis, repeated blanks, a final stop, and in one Unicode form."""
    if len(text) <= LONGEST:  # the time of normalize can be quadratic
        text = unicodedata.normalize("NFKC", text)
    return " ".join(re.sub(r"[*`\"“”]", "", text).split()).rstrip(".。! ").casefold()


# ---------------------------------------------------------------- boxes


def parse_boxes(text):
    """The boxes of an answer, a JSON list of {"label": str, "bbox_2d": [x1, y1, x2, y2]}.

    The keys may come in any order, others are left out, and a Markdown code fence around the list
    is allowed, because Qwen2.5-VL writes one. None for any other text: half a list earns nothing.
    """
    text = text.strip().removeprefix("```json").removeprefix("```").removesuffix("```")
    try:
        items = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(items, list) and all(map(is_box, items)):
        return [{"label": item["label"], "bbox_2d": item["bbox_2d"]} for item in items]
    return None


def is_box(item):
    """Whether a JSON value is a labelled box that is neither empty nor inverted."""
    label, box = map(item.get, ("label", "bbox_2d")) if isinstance(item, dict) else (None, None)
    if not (isinstance(label, str) and isinstance(box, list) and len(box) == 4):
        return False
    # The limit refuses NaN too, and can be compared with an integer of any size.
    numbers = all(type(v) in (int, float) and abs(v) < 1e9 for v in box)
    return numbers and box[0] < box[2] and box[1] < box[3]


# ---------------------------------------------------------------- thinking first

TAGS = ("<think>", "</think>", "<answer>", "</answer>")


def in_tags(rationale, answer):
    """A completion that thinks first: what the cold start teaches and parse_thought reads."""
    return f"<think>{rationale}</think><answer>{answer}</answer>"


def parse_thought(text):
    """(rationale, answer) of a text that is one think block, then one answer block, nothing else.

    None for any other text. The blocks may have many lines and white space around them.

    >>> parse_thought("<think>1 + 1</think> <answer>2</answer>")
    ('1 + 1', '2')
    """
    if any(text.count(tag) != 1 for tag in TAGS):
        return None
    pattern = r"<think>(.*)</think>\s*<answer>(.*)</answer>"
    found = re.fullmatch(pattern, text.strip(), re.DOTALL)
    return found.groups() if found else None


def answer_part(text, row):
    """The part of a completion in which its answer is looked for.

    The answer block of a completion that thinks first. The last line of a choice or a number whose
    data set teaches a rationale on the lines before it. All of any other answer.
    """
    if row.think:
        return answer_block(text)
    last = row.after_rationale and row.form in ("choice", "number")
    return text.strip().rpartition("\n")[2] if last else text


def answer_block(text):
    """The content of the only answer block of a text; "" where there is none, or more than one."""
    once = text.count("<answer>") == text.count("</answer>") == 1
    found = once and re.search(r"<answer>(.*)</answer>", text, re.DOTALL)
    return found[1] if found else ""


# ---------------------------------------------------------------- choices

LEAD = re.compile(  # "The answer is", "Option", "I think it is"
    r"\A(?:#+ ?)?(?:(?:so|thus|hence|therefore),? )?"
    r"(?:(?:based on|according to|looking at|from|in) [^.:;?!]{1,60}?, )?"
    r"(?:i (?:think|believe|would say)(?: that)? )?"
    r"(?:(?:(?:the|my) )?(?:(?:correct|right|final|best) )?(?:answer|option|choice)\b"
    r"(?: is| would be)?(?: option)? ?:? ?|it is |i (?:would )?(?:choose|pick|select) "
    r"|(?:正确)?答案(?:是|为)? ?:? ?|选择? ?:? ?)"
)
# A letter; its mark, if it has one ("b.", "(b)", "b:", "b -"); and what is said after it.
LETTER = re.compile(
    r"\(?(?P<letter>[a-z])(?:(?P<mark>\)?[.:,;、]|\)| ?[-–—](?= )) ?| |$)(?P<words>.*)"
)
LETTER_LAST = re.compile(r"(?P<words>.+?) ?\((?P<letter>[a-z])\)")
REASON = re.compile(r"(?:because|since)\b|is (?:the )?(?:correct|right|best|answer)\b")
HEDGE = re.compile(
    r"\b(?:n?or|no|not|never|n?either|both|but|if|unless|except|instead|rather|maybe|perhaps|"
    r"possibly|wrong|incorrect|false|cannot)\b|n['’]t\b|\?"
)
# A letter that stands alone, as the name of an option does; the "a" of "a chair" is an article.
ALONE = re.compile(r"(?<![\w'’])(?:[b-zA-Z]|a(?! \w))(?![\w'’])")


def bare(text):
    """The text without LaTeX around it, invisible marks, and brackets or quotes around a letter."""
    text = re.sub(r"\\(?:boxed|text|textbf|mathrm)\b|[\\$\u200b\ufeff]", "", text)
    return re.sub(r"(?<!\w)[\[{'_]+([A-Za-z])[\]}'_]+(?!\w)", r"\1", text)


def without_lead(text):
    """Plain words without what leads to an answer and without an article, if anything is left."""
    return (LEAD.sub("", text) or text).removeprefix("the ")


def parse_choice(text, options):
    """Letter of the chosen option; None where the answer names none of them, or more than one.

    >>> answers = ("B", "(b)", "B. chair", "chair (B)", "chair", "A or B", "B. bed", "a chair")
    >>> [parse_choice(text, ("A. bed", "B. chair")) for text in answers]
    ['B', 'B', 'B', 'B', 'B', None, None, None]
    """
    if not 0 < len(text := text.strip()) <= LONGEST:
        return None
    text = bare(unicodedata.normalize("NFKC", text))
    text = re.sub(r"(?<!\w)([A-Za-z]\)?)\**\n", r"\1. ", text)  # a letter that is a whole line
    said, parts = without_lead(plain(text)), (option.partition(". ") for option in options)
    words = {letter: without_lead(plain(own)) for letter, _, own in parts}
    first, last = LETTER.fullmatch(said), LETTER_LAST.fullmatch(said)
    for letter, found in ((m["letter"].upper(), m["words"]) for m in (first, last) if m):
        if letter in words and found in ("", words[letter]):
            return letter
    named = [letter for letter, own in words.items() if own == said]
    if named or not first:
        return named[0] if len(named) == 1 else None
    letter, alone = first["letter"].upper(), {*map(str.upper, ALONE.findall(text))}
    names_others = alone & {*words} - {letter} or letter not in words
    return letter if not names_others and is_comment(first, words[letter], words.values()) else None


def is_comment(found, own, options):
    """Whether what a match of LETTER says after the letter goes with the words of its option.

    It may not name another option, or take the choice back. It gives a reason, or repeats the
    option's own words, or has three words or more: one or two are the name of something else.
    """
    comment, longest_first = found["words"], sorted({*options} - {""}, key=len, reverse=True)
    option = "|".join(map(re.escape, longest_first))
    names = re.compile(rf"(?<!\w)(?<!\d\.)(?:{option})(?!\w|\.\d)")
    named = {*names.findall(comment)}
    if named - {own} or HEDGE.search(names.sub("", comment)):
        return False
    enough = found["mark"] and (named or len(comment.split()) > 2)
    return bool(enough or REASON.match(comment))


# ---------------------------------------------------------------- numbers

WIDE = {code + 0xFEE0: code for code in range(0x21, 0x7F)}  # full-width letters and digits
LENGTHS = dict.fromkeys(("m", "meter", "米"), 1.0)  # metres
LENGTHS |= dict(mm=0.001, millimeter=0.001, 毫米=0.001, cm=0.01, centimeter=0.01, 厘米=0.01)
LENGTHS |= {"in": 0.0254, "inch": 0.0254, "ft": 0.3048, "foot": 0.3048, "feet": 0.3048}
AREAS = {f"square {name}": size**2 for name, size in LENGTHS.items()}  # square metres
DIGITS = "zero one two three four five six seven eight nine ten eleven twelve".split()
LARGER = re.compile(r"(?:teen|[efhnrx]ty)\b|hundred|thousand|dozen")
# A number stands behind no letter, except in a script that puts no blanks between words.
NUMBER = re.compile(
    r"(?<![.,^])(?<![^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af])"
    r"(-?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+))(?![\d,.]*\d)"
)


def plain_units(text):
    """The text in lower case with areas in one spelling: m^2, m2, sq. m -> square m."""
    text = text.lower().replace("metre", "meter")
    text = re.sub(r"(?<![a-z])([a-z]+?)s?(?:\s?\^\s?2|²|2)(?!\w)", r"square \1", text)
    text = re.sub(r"\bsq(?:uare)?\.?\s*(?=[a-z])", "square ", text)
    return text.replace("平方", "square ")


def unit_size(name, sizes):
    """Size of the unit called `name`, or whose plural that is; None where `sizes` lacks it."""
    names = (name, name.removesuffix("s"), name.removesuffix("es"))
    return next((sizes[n] for n in names if n in sizes), None)


@lru_cache
def is_size(unit):
    """Whether a unit is one of length or area."""
    return any(unit_size(plain_units(unit), sizes) for sizes in (LENGTHS, AREAS))


def parse_number(text, unit):
    """The one number that an answer states, in the asked unit; None if it states none or several.

    unit: "m", "cm", "m^2", any other word, or "" for a plain count. Lengths and areas in other
    units are converted; a number with any other word behind it is no answer.

    >>> [parse_number(text, "m") for text in ("3.2", "about 320 cm.", "It is 3.2 m away", "2 or 3")]
    [3.2, 3.2, 3.2, None]
    >>> parse_number("12 kg", "m"), parse_number("12 m^2", "m")
    (None, None)
    """
    if not 0 < len(text := text.strip()) <= LONGEST:
        return None
    text = re.sub(r"\\(?:boxed|text|mathrm)\b|[\\${}]", "", text.translate(WIDE))
    text = re.sub(r"[−－﹣]\s*|\b(?:minus|negative)\s+(?=\d)", "-", text.lower())
    text, asked = plain_units(text.translate(MINUS)), plain_units(unit)
    found = list(NUMBER.finditer(text))
    spelt = [DIGITS.index(word) for word in re.findall(r"[a-z]+", text) if word in DIGITS]
    if not found and not asked:
        return float(spelt[0]) if len(spelt) == 1 and not LARGER.search(text) else None
    others = (c for c in NUMBER.sub("", text) if c.isnumeric() and not c.isalpha())
    if len(found) != 1 or any(others):  # "1e308" and "2½" leave some over
        return None
    value, rest = float(found[0][1].replace(",", "")), text[found[0].end() :]
    if {*spelt} - {1, value}:  # "2 to three"; "the one" is no number
        return None
    if rest.startswith("%") and asked != "%":
        return None
    if asked and re.match(rf"\s*{re.escape(asked)}(?!\w)", rest):  # also one of several words
        return value if math.isfinite(value) else None
    stated = re.match(r"\s*((?:square )?(?:[a-z]+|[毫厘]?米))", rest)
    if stated and asked:
        tables = (sizes for sizes in (LENGTHS, AREAS) if unit_size(asked, sizes))
        sizes = next(tables, {asked: 1.0, asked.removesuffix("s"): 1.0})
        size = unit_size(stated[1], sizes)
        value = math.inf if size is None else value * size / unit_size(asked, sizes)
    return value if math.isfinite(value) else None


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
