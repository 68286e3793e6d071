"""The one schema of all data: folders of JSONL rows and pictures, read and checked.

A data folder has a folder for each split (train, and val, test, ood if there are any), and a split
has one file for each kind of rows: localization.jsonl, spatial.jsonl, cold.jsonl, or any other
name. The rows have SpatialLadder-26k's fields (arXiv 2510.08531, section 3):

    {"question_id": 7, "question": "Locate the chair.", "image": ["images/000007.png"],
     "answer": [{"bbox_2d": [12, 34, 56, 78], "label": "chair"}], "data_type": "single_image"}

data_type is single_image, multi_view or video (a list of frames). Boxes are in pixels of the
picture as it is on the disk. The row says by itself in which form it is answered, and so how it is
scored:

    boxes     "answer" is a list of boxes
    choice    "options": ["A. chair", "B. lamp"], and "answer" is the letter of one of them
    number    "unit": "m", "cm", "m^2", any other word, or "" for a plain count; "answer" is digits
    motion    "answer" is a camera's motion, "move_right:0.4,rotate_up:5"
    text      anything else; it is compared word by word

Further fields, all optional:

    question_type    what the score is called in the tables
    level            how hard the picture is; subsets keep the shares of the levels
    task, source     what a published benchmark calls the row (nanoladder/benchmarks.py)
    prompt           a published benchmark's own wording of the question, options included, which a
                     prompt set may use instead (PromptSet.own_prompt in nanoladder/prompts.py)
    frame_seconds    how many seconds a frame of a video stands for; 0.5, two frames a second
    rationale        how a choice or a number is found, which a training row may teach before the
                     answer; then these answers of its data set are read in their last line alone
    sft_only         true: an easy row that helps fine-tuning, and that rl.py leaves out
    prompt, solution in a row of cold.jsonl, instead of question and answer: a whole completion,
                     <think>...</think><answer>lamp</answer>
"""

import math
import reprlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from string import ascii_uppercase

from nanoladder.answers import (
    AREAS,
    LENGTHS,
    parse_choice,
    parse_number,
    parse_thought,
    plain_units,
    unit_size,
)
from nanoladder.command import UserError, progress
from nanoladder.files import json_lines
from nanoladder.motion import MINUS, MOTION, parse_motion
from nanoladder.photos import ImageError, image_size

DATA_TYPES = ("single_image", "multi_view", "video")
# SpatialLadder-26k's own question types. Its rows do not state their units, so these are known
# here.
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
    after_rationale: bool = False  # whether its data set teaches rationales before direct answers
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
        raise UserError(f"{path}: no such file; {_kinds_beside(path)}")
    rows = []
    for number, raw in json_lines(path, strict=True):
        if isinstance(raw, dict):  # the paper's cold-start rows have no number
            raw.setdefault("question_id", number)
        rows.append(check_row(raw, path.parent, f"{path}:{number}", path.stem))
    if not rows:
        raise UserError(f"{path}: no rows in it")
    return rows


def _kinds_beside(path):
    """What the user can do where a file of rows is missing: the end of a message."""
    stems = sorted(file.stem for file in path.parent.glob("*.jsonl"))
    if not stems:
        return "name another data folder with --data, or add these rows to it"
    kinds = [k for stem in stems for k in (DATA_TYPES if stem == "spatial" else (stem,))]
    return f"{path.parent} has {', '.join(kinds)}: choose among these with --mix, or add the file"


# ---------------------------------------------------------------- one row


def check_row(raw, folder, where, file="spatial"):
    """The Row of a JSON value from FILE.jsonl, whose images lie in `folder`.

    UserError that starts with `where` if the value is no valid row.
    """
    if not isinstance(raw, dict):
        raise UserError(f"{where}: a row must be a JSON object, not {type(raw).__name__}")
    raw = {field: value for field, value in raw.items() if value is not None}
    for field, kind in OPTIONAL.items():
        if not _is_a(raw.get(field, kind()), kind):
            raise UserError(f"{where}: field '{field}' must be of type {kind.__name__}")
    if raw.get("solution"):
        raw = question_of_trace(raw, where)
    for field, types in REQUIRED.items():
        if not _is_a(raw.get(field), types):
            raise UserError(f"{where}: field '{field}' is missing or of the wrong type")
    if not raw["question"].strip():
        raise UserError(f"{where}: the question is empty")
    if max(abs(raw["question_id"]), abs(raw.get("level", 0))) >= 1 << 53:  # JSON's exact integers
        raise UserError(f"{where}: question_id and level must be smaller numbers")
    data_type, options = raw.get("data_type"), raw.get("options")
    if data_type not in DATA_TYPES:
        known = ", ".join(DATA_TYPES)
        raise UserError(f"{where}: data_type is {shown(data_type)}, must be one of {known}")
    if not raw["image"]:
        raise UserError(f"{where}: no images; every row asks about at least one")
    form, unit = check_answer(raw, where)
    if form == "boxes" and (data_type == "video" or len(raw["image"]) > 1):
        raise UserError(f"{where}: boxes are of one picture, so name one image, single_image")
    if raw.get("rationale") and not raw.get("solution") and form not in ("choice", "number"):
        raise UserError(f"{where}: only a choice or a number can have a rationale, not {form}")
    return Row(
        question_id=raw["question_id"],
        question=raw["question"],
        answer=raw["answer"],
        images=tuple(image_path(folder, name, where) for name in raw["image"]),
        data_type=data_type,
        kind=data_type if file == "spatial" else file,
        form=form,
        where=where,
        question_type=raw.get("question_type") or ("localization" if form == "boxes" else form),
        level=raw.get("level", 0),
        unit=unit or "",
        options=tuple(options or ()),
        task=raw.get("task", ""),
        source=raw.get("source", ""),
        rationale=raw.get("rationale", ""),
        solution=raw.get("solution", ""),
        frame_seconds=check_seconds(raw.get("frame_seconds", 0.5), where),
        own_prompt="" if raw.get("solution") else raw.get("prompt", ""),
        think=bool(raw.get("solution")),
        after_rationale=bool(raw.get("rationale")),
        sft_only=raw.get("sft_only", False),
    )


def _is_a(value, types):
    """isinstance, but true and false are no integers."""
    return isinstance(value, types) and (types is bool or not isinstance(value, bool))


def shown(value):
    """A JSON value for a message: its repr in one line, cut where it is long or deep."""
    cut = reprlib.Repr()
    cut.maxstring = 80
    return cut.repr(value)


def question_of_trace(raw, where):
    """A cold-start row with its question and answer: those of its prompt and its solution."""
    parts = parse_thought(raw["solution"])
    if parts is None:
        form = "<think>...</think><answer>...</answer>"
        raise UserError(f"{where}: a solution must be {form} and nothing else")
    answer, options = parts[1].strip(), raw.get("options")
    if isinstance(options, list) and all(isinstance(option, str) for option in options):
        answer = parse_choice(answer, options) or answer
    return {"question_type": "trace"} | raw | {"question": raw.get("prompt"), "answer": answer}


def check_answer(raw, where):
    """(form, unit) of a row's answer; UserError where the answer does not fit its form."""
    answer, options, named = raw["answer"], raw.get("options"), raw.get("question_type")
    if isinstance(answer, list):
        if options is not None:
            raise UserError(f"{where}: options beside an answer of boxes; make them null")
        if not answer:
            raise UserError(f"{where}: empty answer; a localization row lists at least one box")
        for item in answer:
            check_box(item, where)
        return "boxes", None
    if options is not None or named in PAPER_CHOICES:
        if "unit" in raw:
            raise UserError(f"{where}: a row has options or a unit, not both")
        check_options(options, answer, where)
        return "choice", None
    unit = raw.get("unit", PAPER_UNITS.get(named))
    if unit is not None:
        check_number(answer, unit, where)
        return "number", unit
    if not answer.strip():
        raise UserError(f"{where}: the answer is empty")
    stated = parse_motion(answer) is not None
    if stated and not MOTION.sub("", answer.lower().translate(MINUS)).strip(" ,;."):
        return "motion", None
    return "text", None


def check_seconds(seconds, where):
    if type(seconds) not in (int, float) or not 0 < seconds <= 3600:
        raise UserError(f"{where}: frame_seconds must be a number above 0, and at most 3600")
    return float(seconds)


def check_options(options, answer, where):
    several = isinstance(options, list) and 1 < len(options) <= len(ascii_uppercase)
    if not (several and all(isinstance(option, str) for option in options)):
        raise UserError(
            f"{where}: a choice needs its options, a list of two or more strings (26 at most) "
            "such as 'A. yes'"
        )
    for letter, option in zip(ascii_uppercase, options):
        if not (option.startswith(f"{letter}. ") and option[3:].strip()):
            raise UserError(
                f"{where}: option {shown(option)} must start with '{letter}. ' and go on with words"
            )
    if answer not in (letters := list(ascii_uppercase[: len(options)])):
        known = ", ".join(letters)
        raise UserError(f"{where}: answer {shown(answer)} is none of the options' letters {known}")
    right = options[letters.index(answer)][3:]
    if parse_choice(right, options) != answer:  # as another option has the same words, or none
        raise UserError(
            f"{where}: the words of option {answer}, {shown(right)}, do not tell it apart"
        )


def check_number(answer, unit, where):
    if len(unit) > LONGEST:
        raise UserError(f"{where}: unit {shown(unit)} is too long")
    try:
        value = float(answer) if len(answer) <= LONGEST else math.nan
    except ValueError:
        value = math.nan
    is_size = unit == "" or any(unit_size(plain_units(unit), table) for table in (LENGTHS, AREAS))
    low = 0 if is_size else -1e300
    if not low <= value <= 1e300 or parse_number(answer, unit) != value:
        least = ", 0 or more," if is_size else ""
        raise UserError(f"{where}: answer {shown(answer)} must be a number{least} without its unit")


def check_box(item, where):
    box = item.get("bbox_2d") if isinstance(item, dict) else None
    numbers = isinstance(box, list) and all(_is_a(value, (int, float)) for value in box)
    if not (numbers and len(box) == 4):
        raise UserError(f"{where}: bbox_2d must be a list of four numbers [x1, y1, x2, y2]")
    if not (isinstance(item.get("label"), str) and item["label"].strip()):
        raise UserError(f"{where}: a box needs a label")
    if not (0 <= box[0] < box[2] < 1e9 and 0 <= box[1] < box[3] < 1e9):
        raise UserError(f"{where}: box {shown(box)} is empty, inverted or starts outside its image")
    if max(box) <= 1:
        raise UserError(
            f"{where}: box {shown(box)} must be in pixels, not in shares of the picture"
        )


def image_path(folder, name, where):
    """folder/name; UserError where that lies outside the folder."""
    path = inside(folder, name) if isinstance(name, str) else None
    if path is None:
        raise UserError(
            f"{where}: image path {shown(name)} is none, or leaves the data folder; "
            f"use paths relative to {folder}"
        )
    return path


@lru_cache(maxsize=1 << 20)
def inside(root, name):
    """root/name, or None where that is no file inside root: absolute, `..`, or behind a link."""
    path = root / name
    try:
        real, top = path.resolve(), root.resolve()
    except (OSError, RuntimeError, ValueError):  # a loop of links, too long a name, or NUL in it
        return None
    within = real != top and real.is_relative_to(top) and not Path(name).is_absolute()
    return path if within else None


# ---------------------------------------------------------------- pictures


def check_images(rows):
    """Decode every picture once, set `row.sizes`, and hold the rows' boxes against their pictures.

    UserError that names the row where a picture is missing, damaged or absurdly large, where a
    video's frames have different sizes, or where a box reaches outside its picture.
    """
    sizes = {}
    for row in rows:
        for path in row.images:
            sizes.setdefault(path, row.where)
    for path, where in progress(sizes.items(), desc="check images", unit="image"):
        try:
            sizes[path] = image_size(path)
        except ImageError as error:
            raise UserError(f"{where}: {error}") from None
    for row in rows:
        row.sizes = tuple(sizes[path] for path in row.images)
        check_sizes(row)


def check_sizes(row):
    """UserError where a video's frames differ in size, or a box reaches outside its picture."""
    if row.data_type == "video" and len(set(row.sizes)) > 1:
        found = ", ".join(f"{width}x{height}" for width, height in sorted(set(row.sizes)))
        raise UserError(
            f"{row.where}: frames of mixed sizes ({found}); resize a video's frames to one size"
        )
    if row.form == "boxes":
        width, height = row.sizes[0]
        for item in row.answer:
            x2, y2 = item["bbox_2d"][2:]
            if x2 > width or y2 > height:
                box = shown(item["bbox_2d"])
                raise UserError(
                    f"{row.where}: box {box} reaches outside its {width}x{height} image"
                )
