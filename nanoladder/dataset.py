"""From JSONL rows to batches: the one schema, the one conversation layout, the one collation.

Every data set is a folder with a JSONL file in SpatialLadder-26k's fields and the images it names. A row:

    {"question_id": 7, "question": "Locate the chair.", "answer": [{"bbox_2d": [12, 34, 56, 78], "label": "chair"}],
     "image": ["images/000007.png"], "data_type": "single_image", "level": 2}

An answer is a list of boxes in pixels of the original image, or a string: of a choice the letter of one of the row's
options (["A. chair", "B. lamp"]), of a number its digits in the unit that the question names, of a change of view its
motions ("move_right:0.4,rotate_up:5"). A row without options has null there, or no such field. A training row may have
`workings`, how its answer is found: what is then learned ends in the answer, on a line of its own. One with "foothold":
true is easier than what a benchmark asks, and rl.py leaves it out (data/rooms/balance.py). A benchmark's row may also
say its `task` and `source` in the benchmark's own words, by which nanoladder/benchmarks.py averages. A row of the cold
start has, in SpatialLadder's fields, "prompt" and "solution" for "question" and "answer": a solution thinks first,
<think>...</think><answer>lamp</answer>, and may name a choice by its words or its letter.

Rows about the same images become one sequence, so that the images are encoded once and only the questions tell the
answers apart:

    prefix    <|im_start|>user <image>          segment 0, seen by everything after it
    question  Locate the chair. ... answer      segment 1, sees the prefix and itself
    question  Locate the lamp.  ... answer      segment 2, likewise: it never sees segment 1

Each question starts at the position that follows the prefix, so its logits are exactly those it has when asked alone.
"""

import json
import math
import zlib
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from string import ascii_uppercase

import numpy as np
import torch
from PIL import Image

from nanoladder.common import UserError, progress
from nanoladder.image import MAX_FILE_PIXELS, fit, load_image, preprocess, preprocess_video, rescale_box
from nanoladder.model import mrope_position_ids
from nanoladder.rewards import parse_choice, parse_motion, parse_thought

IGNORE_INDEX = -100  # labels without a loss, as torch.nn.functional.cross_entropy has it
DATA_TYPES = ("single_image", "multi_view", "video")
# question_types with options to choose from; "choice" is any that only a benchmark asks, told apart by its task
CHOICES = ("relative distance", "relative direction", "appearance order", "route planning", "choice", "pick")
NUMBERS = ("object size", "room size", "object count", "absolute distance")  # in cm, m^2, pieces, m
MOTION = "view change"  # how the camera moved between two views: metres and degrees along five axes
# Questions whose answer is any short text, by the kind of row that asks them; to "pick" is a choice.
TEXTS = {
    "seeing": ("point", "list", "colour", "place", "side", "which", "count", "order", "next", "describe", "first",
               "pick"),  # stage 0's, of data/rooms/seeing.py
    "floor": ("floor",),  # of data/rooms/floor.py: where things stand, seen from above
    "reckoning": ("way", "turn", "tour"),  # likewise, with a map or a list that is given
}  # fmt: skip
TRACE = "trace"  # of a cold-start row that does not tell its type
QUESTION_TYPES = ("localization", *CHOICES, *NUMBERS, MOTION, *chain(*TEXTS.values()), TRACE)
# The file in a split's folder that holds the rows of each kind (Row.kind).
FILES = {"localization": "localization.jsonl", "seeing": "seeing.jsonl", **dict.fromkeys(DATA_TYPES, "spatial.jsonl"),
         "floor": "floor.jsonl", "reckoning": "floor.jsonl", "cold": "cold.jsonl"}  # fmt: skip
# What follows a question that is to be thought about first; rewards.parse_thought reads what comes of it.
THINK = "Think in <think></think>, then answer in <answer></answer>."
VIDEO_FPS = 2.0  # frames a second that a row's video frames are taken to have; the rooms' walks make 0.6 m/s of it
HOLD_OUT = 50  # scenes of which one is kept from training, where a data set brings no held-out rows
PADDING_STEP = 16  # sequence lengths are rounded up to this, so that few shapes exist to compile and to tune
FLOOR = ("across", "along")  # index images of where on the floor things are
SIDE = 8  # files, and ranks, of the chessboard that the dense loss lays over a picture, and pictures it tells apart


@dataclass(slots=True)
class Row:
    """One question. `where` is FILE:LINE, for error messages; `sizes` the images' (width, height)."""

    question_id: int
    question: str
    answer: str | list
    images: tuple[Path, ...]
    question_type: str
    data_type: str
    level: int
    where: str
    sizes: tuple[tuple[int, int], ...] = ()
    options: tuple[str, ...] = ()  # of a choice, each with its letter: "A. chair"
    task: str = ""
    source: str = ""
    workings: str = ""  # what is said before the answer, on lines of its own
    solution: str = ""  # of a cold-start row: the whole completion to learn, the answer in it
    think: bool = False  # whether the prompt asks to think first
    foothold: bool = False  # one too many of an easy kind: it helps at first, and rewards must not dwell on it

    @property
    def is_localization(self):
        return isinstance(self.answer, list)

    @property
    def kind(self):
        """What a mixture counts by, a key of FILES; of spatial questions it is what they are about."""
        if self.is_localization:
            return "localization"
        if self.solution:
            return "cold"
        return next((kind for kind, types in TEXTS.items() if self.question_type in types), self.data_type)


# ---------------------------------------------------------------- reading, with every complaint before training


def read_rows(path):
    """Rows of a JSONL file, checked field by field; a UserError names file, line and what to change."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; name a data folder with --data, or make one: data.rooms.prepare")
    rows = []
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            where = f"{path}:{number}"
            try:
                raw = json.loads(line)
            except ValueError as error:
                raise UserError(f"{where}: not valid JSON ({error})") from None
            if isinstance(raw, dict):  # the paper's cold-start rows have no number
                raw.setdefault("question_id", number)
            rows.append(check_row(raw, path.parent, where))
    if not rows:
        raise UserError(f"{path}: no rows in it")
    return rows


def rows_of(rows, kind):
    return [row for row in rows if row.kind == kind]


def read_kinds(folder, kinds, limit=None, think=False, data_types=DATA_TYPES):
    """Checked rows of the given kinds in a split's folder, a subset of at most `limit` of each, images opened once.

    think: whether spatial questions are to be thought about first; what is seen at a glance never is.
    data_types: those that maps and traces may be about.
    """
    read = {file: read_rows(Path(folder) / file) for file in dict.fromkeys(FILES[kind] for kind in kinds)}
    for file, found in read.items():
        read[file] = [row for row in found if row.kind not in ("floor", "cold") or row.data_type in data_types]
    rows = [row for kind in kinds for row in subset(rows_of(read[FILES[kind]], kind), limit)]
    for row in rows:
        row.think |= think and row.kind in DATA_TYPES
    check_images(rows)
    return rows


def read_splits(folder, kinds, limits, think=False, data_types=DATA_TYPES):
    """{split: rows} of a data folder: train whole, and of val, test and ood at most limits[split] of each kind.

    Traces are for training alone; what they teach is held to spatial questions, thought about first. A folder with
    train alone (data.spatialladder) gives one scene in HOLD_OUT to val and test, of the kinds that are trained on; a
    scene is a folder of pictures.
    """
    folder, asked = Path(folder), held_out_kinds(kinds)
    rows = read_kinds(folder / "train", kinds, None, think, data_types)
    if not is_alone(folder):
        thought = think or "cold" in kinds
        splits = {split: read_kinds(folder / split, asked, limit, thought) for split, limit in limits.items()}
        return splits | {"train": rows}

    def is_held_out(row):
        return zlib.crc32(row.images[0].parent.name.encode()) % HOLD_OUT == 0

    held = [row for row in rows if is_held_out(row)]
    splits = {split: [row for kind in asked for row in subset(rows_of(held, kind), limits[split])]
              for split in ("val", "test")}  # fmt: skip
    return splits | {"train": [row for row in rows if not is_held_out(row)]}


def held_out_kinds(kinds):
    """The kinds of rows that a mixture of kinds is scored on."""
    return [kind for kind in dict.fromkeys([*kinds, *(DATA_TYPES if "cold" in kinds else ())]) if kind != "cold"]


def is_alone(folder):
    """Whether a data folder has a train split and no other; one whose making was interrupted (parts) is not whole."""
    train, others = folder / "train", ("val", "test", "ood")
    return train.is_dir() and not (train / "parts").exists() and not any((folder / split).is_dir() for split in others)


def subset(rows, limit, seed=0):
    """At most `limit` of the rows, always the same ones, in the rows' order; all of them where limit is None.

    Types of question, forms of a type (told by the number of options) and levels keep their shares.
    """
    if limit is None or limit >= len(rows):
        return rows
    rng, strata = np.random.default_rng(seed), {}
    for i in rng.permutation(len(rows)):
        strata.setdefault((rows[i].question_type, len(rows[i].options), rows[i].level), []).append(i)
    # A row's place in its stratum, as a share of it: those below one and the same share are taken from all strata.
    places = [((n + 0.5) / len(group), i) for group in strata.values() for n, i in enumerate(group)]
    return [rows[i] for i in sorted(i for _, i in sorted(places)[:limit])]


def check_row(raw, folder, where):
    """The Row of a JSON value whose images lie in `folder`; a UserError that starts with `where` if it is none."""
    if not isinstance(raw, dict):
        raise UserError(f"{where}: a row must be a JSON object, not {type(raw).__name__}")
    solution = raw.get("solution", "")
    if solution:
        parts = parse_thought(solution) if isinstance(solution, str) else None
        if parts is None:
            raise UserError(f"{where}: a solution must be <think>...</think><answer>...</answer> and nothing else")
        raw = {"question_type": TRACE} | raw
        raw |= {"question": raw.get("prompt"), "answer": parts[1].strip()}
    for field, kind in (("question_id", int), ("question", str), ("answer", (str, list)), ("image", list)):
        if not isinstance(raw.get(field), kind):
            raise UserError(f"{where}: field '{field}' is missing or of the wrong type")
    if raw.get("data_type") not in DATA_TYPES:
        raise UserError(f"{where}: data_type is {raw.get('data_type')!r}, must be one of {', '.join(DATA_TYPES)}")
    if not raw["image"]:
        raise UserError(f"{where}: no images; every row asks about at least one")
    if not all(isinstance(raw.get(field, ""), str) for field in ("task", "source", "workings")):
        raise UserError(f"{where}: task, source and workings must be strings, where a row has them")
    if not isinstance(raw.get("foothold", False), bool):
        raise UserError(f"{where}: foothold must be true or false, where a row has it")
    if isinstance(raw["answer"], list):
        if not raw["answer"]:
            raise UserError(f"{where}: empty answer; a localization row lists at least one box")
        for item in raw["answer"]:
            _check_box(item, where)
    kind, options = raw.get("question_type", "localization"), raw.get("options")
    if kind not in QUESTION_TYPES:
        raise UserError(f"{where}: question_type is {kind!r}, must be one of {', '.join(QUESTION_TYPES)}")
    if isinstance(raw["answer"], list) != (kind == "localization"):
        raise UserError(f"{where}: the answer to {kind!r} must be {'boxes' if kind == 'localization' else 'a string'}")
    if kind in CHOICES:
        _check_options(options, where)
        if solution:
            raw["answer"] = parse_choice(raw["answer"], options) or raw["answer"]
        if raw["answer"] not in (letters := list(ascii_uppercase[: len(options)])):
            raise UserError(f"{where}: answer {raw['answer']!r} is none of the options' letters {', '.join(letters)}")
    elif options is not None:
        raise UserError(f"{where}: options on a {kind!r} question, which is no choice; make them null")
    if kind in NUMBERS and not _is_amount(raw["answer"]):
        raise UserError(f"{where}: answer {raw['answer']!r} to {kind!r} must be a number, 0 or more, without its unit")
    if kind == MOTION and parse_motion(raw["answer"]) is None:
        raise UserError(f"{where}: answer {raw['answer']!r} to {kind!r} must be motions such as 'move_right:0.4'")
    return Row(
        raw["question_id"], raw["question"], raw["answer"],
        tuple(_inside(folder, name, where) for name in raw["image"]),
        kind, raw["data_type"], raw.get("level", 0), where, options=tuple(options or ()),
        task=raw.get("task", ""), source=raw.get("source", ""), workings=raw.get("workings", ""), solution=solution,
        think=bool(solution), foothold=raw.get("foothold", False),
    )  # fmt: skip


def _check_options(options, where):
    if not (isinstance(options, list) and len(options) > 1 and all(isinstance(o, str) for o in options)):
        raise UserError(f"{where}: a choice needs its options, a list of two or more strings such as 'A. chair'")
    for letter, option in zip(ascii_uppercase, options):
        if not option.startswith(f"{letter}. "):
            raise UserError(f"{where}: option {option!r} must start with '{letter}. '")


def _is_amount(text):
    try:
        return 0 <= float(text) < math.inf
    except ValueError:
        return False


def _check_box(item, where):
    box = item.get("bbox_2d") if isinstance(item, dict) else None
    if not (isinstance(box, list) and len(box) == 4 and all(isinstance(v, (int, float)) for v in box)):
        raise UserError(f"{where}: bbox_2d must be a list of four numbers [x1, y1, x2, y2]")
    if not isinstance(item.get("label"), str):
        raise UserError(f"{where}: a box needs a label")
    if not (0 <= box[0] < box[2] and 0 <= box[1] < box[3]):
        raise UserError(f"{where}: box {box} is empty, inverted or starts outside its image")


def _inside(root, name, where):
    resolved = _resolve(root, name) if isinstance(name, str) else None
    if resolved is None:
        raise UserError(f"{where}: image path {name!r} leaves the data folder; use paths relative to {root}")
    return resolved


@lru_cache(maxsize=1 << 20)
def _resolve(root, name):
    """root/name, or None where that is not inside root (absolute, `..`, a link that leads out)."""
    path = root / name
    return path if path.resolve().is_relative_to(root.resolve()) else None


def check_images(rows):
    """Open every image once, verify it, fill in `row.sizes`, and hold the rows' boxes against them.

    A missing, truncated or absurdly large image, video frames of more than one size, or a box outside its image, is a
    UserError that names the row.
    """
    sizes = {}
    for row in rows:
        for path in row.images:
            sizes.setdefault(path, row.where)
    for path, where in progress(sizes.items(), desc="check images", unit="image"):
        try:
            with Image.open(path) as image:
                if image.width * image.height > MAX_FILE_PIXELS:
                    raise UserError(f"{where}: {path} has {image.width}x{image.height} pixels, which is no photograph")
                sizes[path] = image.size
                image.verify()
        except UserError:
            raise
        except FileNotFoundError:
            raise UserError(f"{where}: no image {path}") from None
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise UserError(f"{where}: {path} is not a readable image ({error})") from None
    for row in rows:
        row.sizes = tuple(sizes[path] for path in row.images)
        check_sizes(row)


def check_sizes(row):
    """A UserError where a video's frames differ in size, or a box reaches outside its image."""
    if row.data_type == "video" and len(set(row.sizes)) > 1:
        found = ", ".join(f"{width}x{height}" for width, height in sorted(set(row.sizes)))
        raise UserError(f"{row.where}: frames of mixed sizes ({found}); resize a video's frames to one size")
    if row.is_localization:
        width, height = row.sizes[0]
        for item in row.answer:
            if item["bbox_2d"][2] > width or item["bbox_2d"][3] > height:
                raise UserError(f"{row.where}: box {item['bbox_2d']} reaches outside its {width}x{height} image")


# ---------------------------------------------------------------- rows to text


def boxes_in_input(row, image_config):
    """The row's boxes in integer pixels of the resized image, which is what the model sees and says."""
    size, resized = row.sizes[0], fit(row.sizes[0], image_config)
    return [
        {"label": item["label"], "bbox_2d": [round(v) for v in rescale_box(item["bbox_2d"], size, resized)]}
        for item in row.answer
    ]


def prompt_text(row):
    """What the user asks: the question, its options, in which form to answer, and whether to think first.

    >>> prompt_text(row)
    'Which is nearest to the bed?\\nOptions: A. lamp B. sofa C. desk\\nAnswer with one option.'
    """
    lines = [row.question]
    if row.options:
        lines += [f"Options: {' '.join(row.options)}", "Answer with one option."]
    if row.question_type in NUMBERS:
        lines.append("Answer with a number.")
    return "\n".join([*lines, THINK] if row.think else lines)


def target_text(row, image_config):
    """What the assistant should say: a trace that ends in the answer, boxes as JSON, the words of the right option, or
    the answer itself, with its workings before it.

    Boxes have the label first, for the place is found by it. A choice is answered in words: a small model learns which
    long before it learns what letter stands before that (README, chapter 3), and rewards.parse_choice reads both.

    >>> target_text(row, image_config), target_text(choice, image_config)
    ('[{"label":"chair","bbox_2d":[12,34,56,78]}]', 'sofa')
    """
    if row.is_localization:
        return json.dumps(boxes_in_input(row, image_config), separators=(",", ":"))
    if row.solution:
        return row.solution
    answer = row.options[ascii_uppercase.index(row.answer)][3:] if row.options else row.answer
    return f"{row.workings}\n{answer}" if row.workings else answer


# ---------------------------------------------------------------- rows to tensors


class Dataset(torch.utils.data.Dataset):
    """Rows grouped by their images; item (epoch, i, k) is a training example with k questions about the i-th group.

    Which of the group's rows it asks is drawn by (seed, epoch, i) alone: no random state to keep, so a resumed run
    sees exactly what an unbroken one would have. With `dense`, {index image: how many values it has}, examples carry
    the targets of the dense loss.
    """

    def __init__(self, rows, tokenizer, image_config, model_config, seed=0, dense=None):
        groups = {}
        for row in rows:
            groups.setdefault((row.kind, row.images), []).append(row)
        self.groups = list(groups.values())
        self.tokenizer, self.image_config, self.model_config = tokenizer, image_config, model_config
        self.seed, self.dense = seed, dense

    def __len__(self):
        return len(self.groups)

    def __getitem__(self, key):
        epoch, i, questions = key
        group = self.groups[i]
        rng = np.random.default_rng([self.seed, epoch, i])
        return self.encode([group[j] for j in rng.permutation(len(group))], questions)

    def encode(self, rows, questions=None):
        """One sequence about the rows' images, asking the first `questions` of them (None: all; 0: only look)."""
        tok = self.tokenizer
        example = encode_prompt(rows[0], tok, self.image_config, self.model_config)
        ids, positions, start = example["input_ids"], [example["position_ids"]], example["next_position"]
        labels, segments = [IGNORE_INDEX] * len(ids), [0] * len(ids)
        for number, row in enumerate(rows[:questions], 1):
            question, answer = tok.question(prompt_text(row)), tok.answer(target_text(row, self.image_config))
            ids = ids + question + answer
            labels += [IGNORE_INDEX] * len(question) + answer
            length = len(question) + len(answer)
            segments += [number] * length
            positions.append(torch.arange(start, start + length).expand(3, -1))
        example |= {
            "input_ids": ids,
            "labels": labels,
            "segments": segments,
            "position_ids": torch.cat(positions, dim=1),
        }
        if self.dense:
            example["dense_targets"] = dense_targets(rows[0], example["grid_thw"], self.image_config, self.dense)
        return example


def encode_prompt(row, tokenizer, image_config, model_config, ask=False):
    """The shared prefix of a row's images or video, followed by its question if `ask` (for generation)."""
    is_video = row.data_type == "video"
    pixel_values, grid_thw = _load_pictures(row.images, is_video, image_config)
    counts = [t * h * w // image_config.merge_size**2 for t, h, w in grid_thw]
    ids = tokenizer.prefix(counts, is_video)
    if ask:
        ids = ids + tokenizer.question(prompt_text(row))
    seconds = [image_config.temporal_patch_size / VIDEO_FPS]
    grids = ([], grid_thw, seconds) if is_video else (grid_thw, [], [])
    position_ids, next_position = mrope_position_ids(ids, *grids, model_config)
    return {
        "input_ids": ids,
        "position_ids": position_ids,
        "next_position": next_position,
        "pixel_values": pixel_values,
        "grid_thw": grid_thw,
    }


@lru_cache(maxsize=4)  # rows about the same pictures come one after another, and generate encodes one tensor once
def _load_pictures(paths, is_video, image_config):
    """pixel_values and grids of a row's pictures."""
    pictures = [load_image(path) for path in paths]
    if not is_video:
        return preprocess(pictures, image_config)
    pixel_values, grid = preprocess_video(pictures, image_config)
    return pixel_values, [grid]


def dense_targets(row, grids, image_config, kinds):
    """What each image token shows, by share of its cell: squares of a board, which picture of SIDE, and each kind of
    index image.

    kinds: {kind: how many values IMAGE.kind.png has}. [tokens, 3 * SIDE + all values]; each thing asked sums to 1, and
    what an album of different rooms is not asked, where on their floor things are, to 0. A token of a video shows the
    same cell of `temporal_patch_size` frames, and their mean.
    """
    album = len({path.name.split("_")[0] for path in row.images}) > 1  # a picture's name begins with its room's
    is_video = row.data_type == "video"
    pace = image_config.temporal_patch_size if is_video else 1
    grids, shares = list(grids) * (len(row.images) if is_video else 1), []
    for number, (path, grid) in enumerate(zip(row.images, grids, strict=True)):
        rows, cols = grid[1] // image_config.merge_size, grid[2] // image_config.merge_size
        side = image_config.patch_size * image_config.merge_size
        indices = [index_shares(path.with_suffix(f".{kind}.png"), rows, cols, side, n)
                   * (kind not in FLOOR or not album) for kind, n in kinds.items()]  # fmt: skip
        picture = torch.eye(SIDE)[min(number // pace, SIDE - 1)].expand(rows * cols, -1)
        shares.append(torch.cat((board_squares(rows, cols), picture, *indices), dim=1))
    if is_video:
        return torch.stack(shares).unflatten(0, (-1, pace)).mean(1).flatten(0, 1)
    return torch.cat(shares)


def index_shares(path, rows, cols, side, count):
    """Share of each value's pixels in the cells of an index image, which have side^2: [rows * cols, count]."""
    try:
        with Image.open(path) as image:
            index = np.asarray(image.resize((cols * side, rows * side), Image.Resampling.NEAREST)).astype(np.int64)
    except OSError as error:
        raise UserError(f"{path}: not a readable index image ({error}), which --dense needs: make the "
                        "rooms with --index-images") from None  # fmt: skip
    cells = index.reshape(rows, side, cols, side).swapaxes(1, 2).reshape(rows * cols, side * side)
    flat = cells + count * np.arange(rows * cols)[:, None]
    counts = np.bincount(flat.ravel(), minlength=rows * cols * count)
    return torch.from_numpy(counts.reshape(rows * cols, count) / side**2).float()


def board_squares(rows, cols):
    """Shares of each image token's cell in the files and ranks of a chessboard over the picture: [tokens, 8 + 8]."""

    def shares(count):  # of one side's `count` cells: [count, 8]
        cell, line = torch.arange(count)[:, None] / count, torch.arange(SIDE) / SIDE
        return count * (torch.minimum(cell + 1 / count, line + 1 / SIDE) - torch.maximum(cell, line)).clamp(min=0)

    files, ranks = shares(cols).expand(rows, -1, -1), shares(rows)[:, None].expand(-1, cols, -1)
    return torch.cat((files, ranks), dim=-1).flatten(0, 1)


def collate(examples):
    """Right-padded batch. `segments` is -1 on padding, so nothing attends to it."""
    longest = max(len(e["input_ids"]) for e in examples)
    length = -(-longest // PADDING_STEP) * PADDING_STEP
    batch = {
        "input_ids": torch.zeros(len(examples), length, dtype=torch.long),
        "labels": torch.full((len(examples), length), IGNORE_INDEX),
        "segments": torch.full((len(examples), length), -1),
        "position_ids": torch.zeros(3, len(examples), length, dtype=torch.long),
    }
    for b, example in enumerate(examples):
        n = len(example["input_ids"])
        for name in ("input_ids", "labels", "segments"):
            batch[name][b, :n] = torch.tensor(example[name])
        batch["position_ids"][:, b, :n] = example["position_ids"]
    batch["pixel_values"] = torch.cat([e["pixel_values"] for e in examples])
    batch["grid_thw"] = [grid for e in examples for grid in e["grid_thw"]]
    if "dense_targets" in examples[0]:
        batch["dense_targets"] = torch.cat([e["dense_targets"] for e in examples])
    return batch


def attention_mask(segments):
    """[B, T] segments -> bool [B, 1, T, T]: earlier tokens of the prefix and of one's own segment are seen."""
    query, key = segments[:, None, :, None], segments[:, None, None, :]
    causal = torch.ones(segments.shape[1], segments.shape[1], dtype=torch.bool, device=segments.device).tril()
    return causal & ((key == 0) | (key == query))


def plan_order(levels, total, climb, seed):
    """(epoch, index) of `total` examples: shuffled passes, emptier rooms first.

    `levels` is each group's level. With climb > 0 the first `climb` share of the examples comes from the two lower
    levels alone, and the rest from all; 0 mixes all from the start. Made at once and from the seed alone, so a
    resumed run needs only its step.
    """
    levels = np.asarray(levels)
    phases = [(np.flatnonzero(levels < levels.max()), int(total * climb)), (np.arange(len(levels)), total)]
    order, epoch = [], 0
    for pool, end in phases:
        while len(pool) and len(order) < end:
            shuffled = np.random.default_rng([seed, epoch]).permutation(pool)
            order += [(epoch, int(i)) for i in shuffled[: end - len(order)]]
            epoch += 1
    return order


def plan_mixture(groups, shares, total, climb, seed, late=0.0, several=None):
    """plan_order over groups of several kinds: each climbs by itself, and at each place of the order comes the kind
    that lags furthest behind its share. shares: {kind: weight}; what is asked about several pictures joins after the
    `late` share of all, and is then the share `several` of a kind that asks about single ones too (None: as there are).
    """
    piles = {}  # groups by (kind, whether they show several pictures)
    for i, group in enumerate(groups):
        if group[0].kind in shares:
            piles.setdefault((group[0].kind, len(group[0].images) > 1), []).append(i)
    sizes = Counter()
    for (kind, _), own in piles.items():
        sizes[kind] += len(own)
    weights = {}
    for (kind, more), own in piles.items():
        part = len(own) / sizes[kind]
        if several is not None and part < 1:
            part = several if more else 1 - several
        weights[kind, more] = shares[kind] * part
    due, turns, taken = dict.fromkeys(piles, 0.0), [], Counter()
    for n in range(total):
        present = [pile for pile in piles if n >= late * total or not pile[1]] or list(piles)
        for pile in present:
            due[pile] += weights[pile] / sum(weights[p] for p in present)
        turns.append(max(present, key=lambda pile: due[pile] - taken[pile]))
        taken[turns[-1]] += 1
    orders = {}
    for pile, count in taken.items():
        planned = plan_order([groups[i][0].level for i in piles[pile]], count, climb, seed)
        orders[pile] = iter([(epoch, piles[pile][i]) for epoch, i in planned])
    return [next(orders[pile]) for pile in turns]
