"""The one schema of all data: folders of JSONL rows and pictures, read and checked.

A data folder has a folder for each split (train, and val, test, ood if there are any), and a split
has one file for each kind of rows: localization.jsonl, spatial.jsonl, cold.jsonl, or any other
name. The rows have SpatialLadder-26k's fields (arXiv 2510.08531, section 3):

    {"question_id": 7, "question": "Locate the chair.", "image": ["images/000007.png"],
     "answer": [{"bbox_2d": [12, 34, 56, 78], "label": "chair"}], "data_type": "single_image"}

data_type is single_image, multi_view or video (a list of frames). Boxes are in pixels of the
picture in its file, after the rotation that its EXIF data asks for, as a viewer shows it. The row
says by itself in which form it is answered, and so how it is scored:

    boxes     "answer" is a list of boxes
    choice    "options": ["A. chair", "B. lamp"], and "answer" is the letter of one of them
    number    "unit": "m", "cm", "m^2", any other word, or "" for a plain count; "answer" is digits
    motion    "answer" is a camera's motion, "move_right:0.4,rotate_up:5"
    text      anything else; it must be equal but for case, blanks, emphasis and a last stop

Further fields, all optional:

    question_type    what the score is called in the tables; the names in PAPER_CHOICES and
                     PAPER_UNITS also say the form, where neither options nor a unit does
    level            how hard the picture is; subsets keep the shares of the levels
    task, source     what a published benchmark calls the row (nanoladder/benchmarks.py)
    prompt           a published benchmark's own wording of the question, options included, which a
                     prompt set may use instead (PromptSet.own_prompt in nanoladder/prompts.py)
    frame_seconds    how many seconds a frame of a video stands for; 0.5, two frames a second
    rationale        how a choice or a number is found, which a training row may teach before the
                     answer; then answers to its kind of rows are read in their last line alone
    sft_only         true: an easy row that helps fine-tuning, and that rl.py leaves out
    prompt, solution in a row of cold.jsonl, instead of question and answer: a whole completion,
                     <think>...</think><answer>lamp</answer>
"""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from string import ascii_uppercase

from nanoladder.answers import is_size, parse_choice, parse_number, parse_thought
from nanoladder.command import UserError, progress, require
from nanoladder.files import json_lines
from nanoladder.motion import MINUS, MOTION, parse_motion
from nanoladder.photos import ImageError, image_size
from nanoladder.process import cpu_cores

DATA_TYPES = ("single_image", "multi_view", "video")
# SpatialLadder-26k's own question types. Its rows do not state their units.
PAPER_CHOICES = ("relative distance", "relative direction", "appearance order")
PAPER_UNITS = {
    "object size": "cm",
    "room size": "m^2",
    "object count": "",
    "absolute distance": "m",
}
REQUIRED = {"question_id": int, "question": str, "answer": (str, list), "image": list}
OPTIONAL = {"task": str, "source": str, "rationale": str, "question_type": str, "unit": str}
OPTIONAL |= {"prompt": str, "solution": str, "level": int, "sft_only": bool}
# Fields that a Row takes over as they are.
COPIED = ("question_id", "question", "answer", "data_type", "level", "task", "source")
COPIED += ("rationale", "solution", "sft_only")
LONGEST = 40  # characters of a number or a unit


@dataclass(slots=True)
class Row:
    """One question about pictures. The docstring above explains its fields."""

    question_id: int
    question: str
    answer: str | list
    images: tuple[Path, ...]
    data_type: str
    kind: str  # its file's name; of spatial.jsonl its data_type
    form: str  # boxes, choice, number, motion or text
    where: str  # FILE:LINE, for error messages
    question_type: str = ""
    level: int = 0
    unit: str = ""
    options: tuple[str, ...] = ()
    sizes: tuple[tuple[int, int], ...] = ()  # (width, height) of each image
    task: str = ""
    source: str = ""
    rationale: str = ""
    solution: str = ""
    frame_seconds: float = 0.5  # of a video
    own_prompt: str = ""  # the question and its options, as a benchmark itself words them
    think: bool = False  # whether the prompt asks to think before answering
    after_rationale: bool = False  # whether its kind's training rows have rationales
    sft_only: bool = False


# ---------------------------------------------------------------- files


def file_of(kind):
    """Name of the file that holds the rows of a kind; the spatial kinds are the data types."""
    return "spatial.jsonl" if kind in DATA_TYPES else f"{kind}.jsonl"


def rows_of(rows, kind):
    return [row for row in rows if row.kind == kind]


def read_rows(path):
    """The checked rows of a JSONL file. UserError names the file, the line and the remedy."""
    path = Path(path)
    if not path.exists():
        stems = sorted(file.stem for file in path.parent.glob("*.jsonl"))
        there = ", ".join(", ".join(DATA_TYPES) if stem == "spatial" else stem for stem in stems)
        remedy = f"{path.parent} has {there}: choose among these with --mix, or add the file"
        empty = "name another data folder with --data, or add these rows to it"
        raise UserError(f"{path}: no such file; {remedy if stems else empty}")
    rows, folder, name = [], path.parent, str(path)
    for number, raw in json_lines(path, strict=True):
        if isinstance(raw, dict):  # the paper's cold-start rows have no number
            raw.setdefault("question_id", number)
        rows.append(check_row(raw, folder, f"{name}:{number}", path.stem))
    if not rows:
        raise UserError(f"{path}: no rows in it")
    return rows


# ---------------------------------------------------------------- one row


def check_row(raw, folder, where, file="spatial"):
    """The Row of a JSON value from FILE.jsonl, whose images lie in `folder`.

    UserError that starts with `where` if the value is no valid row.
    """
    at, found = f"{where}: ", type(raw).__name__
    require([(isinstance(raw, dict), f"a row must be a JSON object, not {found}")], at)
    raw = {field: value for field, value in raw.items() if value is not None}
    require(rules_of_types(raw), at)
    if raw.get("solution"):
        raw = question_of_trace(raw)
    form, unit = form_of(raw)
    require(rules_of_row(raw, form, unit, folder), at)
    return Row(
        **{name: raw[name] for name in COPIED if name in raw},
        images=tuple(inside(folder, name) for name in raw["image"]),
        kind=raw["data_type"] if file == "spatial" else file,
        form=form,
        where=where,
        question_type=raw.get("question_type") or ("localization" if form == "boxes" else form),
        unit=unit,
        options=tuple(raw.get("options", ())),
        frame_seconds=float(raw.get("frame_seconds", 0.5)),
        own_prompt="" if raw.get("solution") else raw.get("prompt", ""),
        think=bool(raw.get("solution")),
        after_rationale=bool(raw.get("rationale")),
    )


def question_of_trace(raw):
    """A cold-start row with its question and answer: those of its prompt and its solution."""
    answer, options = parse_thought(raw["solution"])[1].strip(), raw.get("options")
    if isinstance(options, list) and all(isinstance(option, str) for option in options):
        answer = parse_choice(answer, options) or answer
    return {"question_type": "trace"} | raw | {"question": raw.get("prompt"), "answer": answer}


def form_of(raw):
    """(form, unit) in which a row wants to be answered; its answer may not be right for it."""
    answer, named = raw.get("answer"), raw.get("question_type")
    unit = raw.get("unit", PAPER_UNITS.get(named))
    if isinstance(answer, list):
        return "boxes", ""
    if "options" in raw or (named in PAPER_CHOICES and unit is None):
        return "choice", ""
    if unit is not None:
        return "number", unit
    if isinstance(answer, str) and parse_motion(answer) is not None:
        if not MOTION.sub("", answer.lower().translate(MINUS)).strip(" ,;."):
            return "motion", ""
    return "text", ""


# The rules of a row: (whether one holds, in words). require() stops at the first that does not, so
# a rule may rely on those before it.


def rules_of_types(raw):
    for field, kind in OPTIONAL.items():
        fits = _is_a(raw.get(field, kind()), kind)
        yield fits, f"field '{field}' must be of type {kind.__name__}"
    trace, form = raw.get("solution"), "<think>...</think><answer>...</answer>"
    yield not trace or parse_thought(trace), f"a solution must be {form} and nothing else"


def rules_of_row(raw, form, unit, folder):
    for field, types in REQUIRED.items():
        yield _is_a(raw.get(field), types), f"field '{field}' is missing or of the wrong type"
    answer, images, data_type = raw["answer"], raw["image"], raw.get("data_type")
    yield raw["question"].strip(), "the question is empty"
    largest = max(abs(raw["question_id"]), abs(raw.get("level", 0)))
    yield largest < 1 << 53, "question_id and level must be smaller numbers"  # exact in JSON
    known = ", ".join(DATA_TYPES)
    yield data_type in DATA_TYPES, "data_type is {}, must be one of " + known, data_type
    yield images, "no images; every row asks about at least one"
    if form == "boxes":
        yield "options" not in raw, "options beside an answer of boxes; make them null"
        yield answer, "empty answer; a localization row lists at least one box"
        for item in answer:
            yield from rules_of_box(item)
        is_one = len(images) == 1 and data_type != "video"
        yield is_one, "boxes are of one picture, so name one image, single_image"
    elif form == "choice":
        yield "unit" not in raw, "a row has options or a unit, not both"
        yield from rules_of_choice(raw.get("options"), answer)
    elif form == "number":
        yield from rules_of_number(answer, unit)
    else:
        yield answer.strip(), "the answer is empty"
    may_explain = form in ("choice", "number") or raw.get("solution") or not raw.get("rationale")
    yield may_explain, f"only a choice or a number can have a rationale, not {form}"
    for name in images:
        if not (isinstance(name, str) and inside(folder, name)):
            remedy = f"use paths relative to {folder}"
            yield False, "image path {} is none, or leaves the data folder; " + remedy, name
    seconds = raw.get("frame_seconds", 0.5)
    is_time = _is_a(seconds, (int, float)) and 0 < seconds <= 3600
    yield is_time, "frame_seconds must be a number above 0, and at most 3600"


def rules_of_box(item):
    box, label = map(item.get, ("bbox_2d", "label")) if isinstance(item, dict) else (None, None)
    numbers = isinstance(box, list) and all(_is_a(value, (int, float)) for value in box)
    yield numbers and len(box) == 4, "bbox_2d must be a list of four numbers [x1, y1, x2, y2]"
    yield isinstance(label, str) and label.strip(), "a box needs a label"
    if not (0 <= box[0] < box[2] < 1e9 and 0 <= box[1] < box[3] < 1e9):
        yield False, "box {} is empty, inverted or starts outside its image", box
    if max(box) <= 1:
        yield False, "box {} must be in pixels, not in shares of the picture", box


def rules_of_choice(options, answer):
    several = isinstance(options, list) and 1 < len(options) <= len(ascii_uppercase)
    several = several and all(isinstance(option, str) for option in options)
    what = "a list of two or more strings (26 at most) such as 'A. yes'"
    yield several, f"a choice needs its options, {what}"
    letters = [*ascii_uppercase[: len(options)]]
    for letter, option in zip(letters, options):
        worded = option.startswith(f"{letter}. ") and option[3:].strip()
        yield worded, f"option {{}} must start with '{letter}. ' and go on with words", option
    known = f"the options' letters {', '.join(letters)}"
    yield answer in letters, "answer {} is none of " + known, answer
    right = options[letters.index(answer)][3:]
    alone = parse_choice(right, options) == answer  # as no other option has the same words
    yield alone, f"the words of option {answer}, {{}}, do not tell it apart", right


def rules_of_number(answer, unit):
    yield len(unit) <= LONGEST, "unit {} is too long", unit
    try:
        value = float(answer) if len(answer) <= LONGEST else math.nan
    except ValueError:
        value = math.nan
    least, low = (", 0 or more,", 0) if unit == "" or is_size(unit) else ("", -1e300)
    is_read = low <= value <= 1e300 and parse_number(answer, unit) == value
    yield is_read, f"answer {{}} must be a number{least} without its unit", answer


def _is_a(value, types):
    """isinstance, but true and false are no integers."""
    return isinstance(value, types) and (types is bool or not isinstance(value, bool))


@lru_cache(maxsize=1 << 20)
def inside(root, name):
    """root/name, or None where that is no file inside root: absolute, `..`, or behind a link."""
    path = root / name
    try:
        top, real = real_folder(root), real_folder(path.parent) / path.name
        if path.name == ".." or "\0" in name or path.is_symlink():
            real = path.resolve()
    except (OSError, RuntimeError, ValueError):  # a loop of links, too long a name, or NUL in it
        return None
    within = real != top and real.is_relative_to(top) and not Path(name).is_absolute()
    return path if within else None


@lru_cache(maxsize=1 << 16)
def real_folder(folder):
    """The folder's path without links; cached, because many pictures lie in one folder."""
    return folder.resolve()


# ---------------------------------------------------------------- pictures


def check_images(rows):
    """Decode every picture once, set `row.sizes`, and hold the rows' boxes against their pictures.

    UserError that names the row where a picture is missing, damaged or absurdly large, where a
    video's frames have different sizes, or where a box reaches outside its picture.
    """
    first, sizes = {}, {}  # {picture: the first row that shows it}, {picture: (width, height)}
    for row in rows:
        for path in row.images:
            first.setdefault(path, row.where)
    pool = ThreadPoolExecutor(cpu_cores())
    try:
        found = pool.map(size_or_error, first)
        found = progress(found, total=len(first), desc="check images", unit="image")
        for path, size in zip(first, found):
            if isinstance(size, ImageError):
                raise UserError(f"{first[path]}: {size}")
            sizes[path] = size
    finally:
        pool.shutdown(cancel_futures=True)
    for row in rows:
        row.sizes = tuple(sizes[path] for path in row.images)
        check_sizes(row)


def size_or_error(path):
    try:
        return image_size(path)
    except ImageError as error:
        return error


def check_sizes(row):
    """UserError where a video's frames differ in size, or a box reaches outside its picture."""
    require(rules_of_sizes(row), f"{row.where}: ")


def rules_of_sizes(row):
    sizes, (width, height) = sorted(set(row.sizes)), row.sizes[0]
    found, is_one = ", ".join(f"{w}x{h}" for w, h in sizes), len(sizes) == 1
    remedy = "resize a video's frames to one size"
    yield is_one or row.data_type != "video", f"frames of mixed sizes ({found}); {remedy}"
    for box in (item["bbox_2d"] for item in row.answer if row.form == "boxes"):
        if box[2] > width or box[3] > height:
            yield False, f"box {{}} reaches outside its {width}x{height} image", box
