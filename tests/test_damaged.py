"""Two thousand damaged inputs: each ends in one line that names it, or in a right result.

The generator is seeded, and each input depends on its kind and number alone. So a failure can be
made again:  python tests/test_damaged.py rows 17

NAMED holds examples, each with the line that it gets; docs/bad-input.md shows them as a table.
"""

import copy
import dataclasses
import functools
import io
import json
import math
import os
import random
import re
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from test_command import CLASSES

import eval as evaluate
import train
from nanoladder import checkpoint
from nanoladder.checkpoint import Policy, State, all_finite, check_state, load_state, save_state
from nanoladder.command import UserError, flag, parse
from nanoladder.files import read_jsonl, read_log, write_json
from nanoladder.image import ImageConfig, preprocess
from nanoladder.model import Config, Qwen2_5_VL, VisionConfig, mrope_position_ids
from nanoladder.photos import image_size, load_image
from nanoladder.process import explain
from nanoladder.prompts import boxes_in_input, prompt_text, target_text
from nanoladder.recipe import find_recipe
from nanoladder.rewards import reward
from nanoladder.run_folder import RunFolder
from nanoladder.schema import check_images, check_row, read_rows
from nanoladder.splits import data_name, parse_mixture, read_kinds, read_splits
from nanoladder.strict import strict_accuracy
from nanoladder.tokenizer import Tokenizer, config_for_tokenizer

# ---------------------------------------------------------------- damage

ODD = [None, True, False, 0, -1, 1, 2, 0.5, -0.0, 1e308, math.nan, math.inf, -math.inf, 10**400]
ODD += ["", " ", "x", "0", "7", "1e999", "\0", "\n", "\u2028", "ü", "\ud800", "a" * 5000, "{x}"]
ODD += [[], [1], [[1]], ["x"], [None], {}, {"x": 1}, {"": []}, [1, 2, 3, 4], 10**9, -(10**9)]


def damage_value(rng, value, odd=ODD):
    """A copy of a JSON object in which one part is replaced, deleted, added, nested or retyped."""
    holder = value = copy.deepcopy(value) or {"x": 1}
    while True:
        key = rng.choice([*holder] if isinstance(holder, dict) else range(len(holder)))
        part = holder[key]
        if not part or not isinstance(part, (dict, list)) or rng.random() < 0.4:
            break
        holder = part
    how = rng.randrange(6)
    if how == 0:
        del holder[key]
    elif how == 1 and isinstance(holder, dict):
        holder[rng.choice([str(key).upper(), "x", ""])] = rng.choice(odd)
    elif how == 2:
        holder[key] = rng.choice([[part], {key: part}, str(part)])
    elif how == 3 and isinstance(part, (int, float)) and not isinstance(part, bool):
        holder[key] = rng.choice([-part, part + 1, part * 10**6, str(part)])
    else:
        holder[key] = rng.choice(odd)
    return value


def damage_bytes(rng, data):
    """A copy of bytes that is cut, or in which some are changed, doubled, zero or gone."""
    at = int(len(data) * rng.random() ** 2)  # the beginning is hit most
    if rng.random() < 0.2:
        return data[:at]
    part = data[at : at + rng.randint(1, 12)]
    news = [rng.randbytes(len(part)), part + part, bytes(len(part)), b""]
    news += [bytes(byte ^ 1 << rng.randrange(8) for byte in part[:1]) + part[1:]]
    return data[:at] + rng.choice(news) + data[at + len(part) :]


def damage_json(rng, value, odd=ODD):
    """The bytes of a JSON object, damaged before or after it was written."""
    how = rng.randrange(10)
    if how == 0:
        return damage_bytes(rng, json.dumps(value).encode())
    if how == 1:
        encoding = rng.choice(["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252", "gbk"])
        return json.dumps(value, ensure_ascii=False).encode(encoding, "replace")
    for _ in range(rng.choice([1, 1, 2])):
        value = damage_value(rng, value, odd)
    text = json.dumps(value, ensure_ascii=rng.random() < 0.5)
    if how == 2:
        text = text.replace(rng.choice(["}", "1", '"']), "[" * 100_000, 1)
    return text.encode("utf-8", "surrogatepass")


# ---------------------------------------------------------------- rows

PICTURE = {"question_id": 1, "question": "Locate the Stühle.", "image": ["a.png"]}
PICTURE |= {"data_type": "single_image", "level": 2}
BOX = {"bbox_2d": [4, 5.5, 20, 30], "label": "Stühle "}
ASKED = PICTURE | {"options": ["A. bed", "B. lamp"], "answer": "B"}
GOOD = {
    "boxes": PICTURE | {"answer": [BOX, {"bbox_2d": [1, 2, 3, 4], "label": "lamp"}]},
    "choice": ASKED | {"question_type": "relative distance", "rationale": "The bed is far."},
    "number": PICTURE | {"unit": "cm", "answer": "87", "sft_only": True, "task": "x"},
    "count": PICTURE | {"unit": "", "answer": "3", "rationale": "1 + 2", "source": "x"},
    "paper": PICTURE | {"question_type": "room size", "answer": "24.5"},
    "motion": PICTURE | {"answer": "move_right:0.4,rotate_up:5", "data_type": "multi_view"},
    "text": PICTURE | {"answer": "Es ist grün.", "prompt": "Wo? <image>"},
    "video": ASKED | {"data_type": "video", "image": ["a.png"] * 3, "frame_seconds": 1.5},
    "trace": {k: v for k, v in PICTURE.items() if k != "question"}
    | {"prompt": "Which?", "solution": "<think>Far.</think><answer>lamp</answer>"},
}
GOOD["traced choice"] = GOOD["trace"] | {"options": ASKED["options"]}
FILE_OF = {"boxes": "localization", "trace": "cold", "traced choice": "cold"}
IMAGES = ImageConfig(patch_size=8, min_pixels=32 * 32, max_pixels=96 * 96, coordinates=True)
ODD_ROW = [*ODD, "A", "B. lamp", "../a.png", "/etc/passwd", "a.png", "b.png", ".", "video"]
ODD_ROW += ["<think>", "<think></think><answer></answer>", [4, 5, 20, 300], [0.1, 0.1, 0.5, 0.5]]
ODD_ROW += ["A. bed", "B. bed", "-3", "1,200", "3 cm", "move_up:1", [BOX], BOX, "m^2", "two"]


ASKING = [check_row(GOOD[form], Path(), form) for form in ("choice", "number", "text", "trace")]
ASKING += [dataclasses.replace(row, think=not row.think) for row in ASKING]


def rows(rng, folder):
    """A file of two rows, the second of them damaged."""
    form = rng.choice([*GOOD])
    path = folder / f"{FILE_OF.get(form, 'spatial')}.jsonl"
    (folder / "a.png").write_bytes(good_pictures()["PNG RGB"])
    good = json.dumps(GOOD[form]).encode() + b"\n"
    path.write_bytes(good + damage_json(rng, GOOD[form], ODD_ROW).replace(b"\n", b" "))
    return [f"{path}:2: "], lambda: train_on(path)


def train_on(path):
    """Read rows as training does; their targets must earn the whole reward."""
    found = read_rows(path)
    check_images(found)
    for row in found:
        target = target_text(row, IMAGES)
        assert f"{prompt_text(row)}{target}{row.question_type}".encode()
        truth = boxes_in_input(row, IMAGES) if row.form == "boxes" else None
        assert reward(target, row, truth)["accuracy"] == 1, target


# ---------------------------------------------------------------- pictures

MODES = {"PNG": "RGB L RGBA P 1 I;16 LA", "JPEG": "RGB L CMYK", "WEBP": "RGB RGBA", "GIF": "P L"}
MODES |= {"BMP": "RGB P 1", "TIFF": "RGB RGBA CMYK I;16 F 1"}
MODES |= {"EPS": "RGB", "PPM": "RGB", "TGA": "RGB", "ICO": "RGBA", "PCX": "RGB"}  # not opened


@functools.cache
def good_pictures():
    """{format and mode: the bytes of a picture of 48 x 32 pixels}"""
    noise = np.random.default_rng(0).integers(0, 255, (32, 48, 3), dtype=np.uint8)
    colours, found = Image.fromarray(noise), {}
    for name, mode in ((n, mode) for n in MODES for mode in MODES[n].split()):
        file = io.BytesIO()
        (colours.convert("L") if mode == "I;16" else colours).convert(mode).save(file, name)
        found[f"{name} {mode}"] = file.getvalue()
    return found


def pictures(rng, folder):
    path = folder / f"a{rng.choice(['.png', '.jpg', '.gif', '.tiff', '.mp4', '.txt', ''])}"
    data, how = rng.choice([*good_pictures().values()]), rng.randrange(12)
    if how == 0:
        path.mkdir()
    elif how == 1:
        path.write_bytes(rng.choice([b"", b"<html>", b"%PDF-1.4", rng.randbytes(500)]))
    elif how > 2:
        path.write_bytes(data if how == 3 else damage_bytes(rng, data))
    return [str(path)], lambda: look_at(path)


def look_at(path):
    picture = load_image(path)
    pixels, _ = preprocess([picture], IMAGES)
    assert picture.mode == "RGB" and picture.size == image_size(path) and all_finite(pixels)


# ---------------------------------------------------------------- checkpoints


@functools.cache
def good_checkpoint():
    """{name: bytes} of the files of a tiny checkpoint."""
    tokenizer = Tokenizer.train(["Locate the chair."] * 9, 300)
    vision = VisionConfig(1, 8, 8, 2, 8, 8, 2, 2, 48, (0,), in_channels=6)
    config = Config(vision, 300, 8, 8, 1, 2, 1, 1e4, (0, 1, 1), max_position_embeddings=512)
    model = Qwen2_5_VL(config_for_tokenizer(config, tokenizer))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save(Path(folder, "tiny"), model, tokenizer, IMAGES)
        return {path.name: path.read_bytes() for path in Path(folder, "tiny").iterdir()}


def write_checkpoint(folder):
    """The tiny checkpoint in a folder."""
    for name, data in good_checkpoint().items():
        (folder / name).write_bytes(data)
    return folder


SHARD, WEIGHTS = "model-1.safetensors", "model.safetensors"
INDEX, TIED = "model.safetensors.index.json", "model.embed_tokens.weight"


def checkpoints(rng, folder):
    """A checkpoint with one damaged or missing file. Its weights are in a shard, or in one file."""
    path = write_checkpoint(folder) / rng.choice(
        [*good_checkpoint(), "config.json", WEIGHTS, INDEX]
    )
    if path.name == INDEX:
        _, header, _ = parts_of((folder / WEIGHTS).read_bytes())
        weights = dict.fromkeys(header.keys() - {"__metadata__"}, SHARD)
        os.rename(folder / WEIGHTS, folder / SHARD)
        path.write_bytes(damage_json(rng, {"weight_map": weights, "metadata": {}}))
    elif path.name == WEIGHTS:
        path.write_bytes(damage_tensors(rng, path.read_bytes()))
    elif rng.random() < 0.05:
        path.unlink()
    else:
        path.write_bytes(damage_json(rng, json.loads(path.read_bytes())))
    return [str(folder)], lambda: use_policy(Policy.load(folder), path.name == WEIGHTS)


def parts_of(data):
    """The header of a safetensors file, as bytes and as JSON, and the bytes of its tensors."""
    end = 8 + int.from_bytes(data[:8], "little")
    return data[8:end], json.loads(data[8:end]), data[end:]


def damage_tensors(rng, data):
    """A safetensors file that is damaged anywhere, in its header, or in its numbers."""
    written, header, tensors = parts_of(data)
    how, at = rng.randrange(3), rng.randrange(len(tensors))
    if how == 0:
        return damage_bytes(rng, data)
    if how == 1:
        written = damage_json(rng, header, [*ODD, "F16", "I32", "F64", [8, 8]])
    else:
        tensors = (tensors[:at] + rng.randbytes(40) + tensors[at + 40 :])[: len(tensors)]
    return len(written).to_bytes(8, "little") + written + tensors


def use_policy(policy, damaged_weights=False):
    """Its weights are finite and its answers too, unless finite weights of it were damaged."""
    model, tokenizer, image_config, _ = policy
    assert all(all_finite(parameter) for parameter in model.parameters())
    config, side = model.config, 2 * image_config.merge_size
    questions = [prompt_text(row, tokenizer.prompts) for row in ASKING]
    ids = [*tokenizer.prefix([4]), *(i for text in questions for i in tokenizer.question(text))]
    assert max(ids) < config.vocab_size and isinstance(tokenizer.decode(ids), str)
    grids = [(1, side, side)]
    width = config.vision.in_channels * image_config.temporal_patch_size
    pixels = torch.ones(side * side, width * image_config.patch_size**2)
    positions, _ = mrope_position_ids(ids, grids, [], [], config)
    with torch.no_grad():
        hidden = model(torch.tensor([ids]), positions[:, None], model.visual(pixels, grids))
        assert damaged_weights or all_finite(model.lm_head(hidden))


# ---------------------------------------------------------------- flags

WORDS = ["nan", "-inf", "1e400", "-1", "0", "1", "2.5", "1e-3", "9" * 5000, "", " ", "x", "--", "ü"]
WORDS += ["\udcff", "\0", "1,5", "cpu", "video", "localization=1", "cold", "true", "None", "-1e5"]
WORDS += ["0x10", "1_0", "٣", "/", ".", "vsibench", "{}", "-", "=", "a=1,a=2", "video=nan", ","]


def flags(rng, folder):
    """A command line of one to three flags, some of them misspelt or without a value."""
    cls, argv = CLASSES[rng.choice([*CLASSES])], []
    for f in rng.choices(dataclasses.fields(cls), k=rng.randint(1, 3)):
        name = flag(f.name)
        if rng.random() < 0.1:
            name = rng.choice([name[:-1], name.upper(), name[1:], "--no-" + name[2:]])
        values = rng.choices(WORDS, k=rng.choice([0, 1, 1, 1, 1, 1, 2]))
        if f.name == "out":
            values = [str(folder / (rng.choice(WORDS) + "x"))]
        elif f.metadata["low"] is not None and rng.random() < 0.5:
            values = [str(f.metadata["low"] + rng.choice([-1, 0, 1, 0.5]))]
        argv += rng.choice([[name, *values], [f"{name}={''.join(values)}"]])
    module = sys.modules[cls.__module__]
    presets = getattr(module, "presets", None)
    words = [part for word in argv for part in word.split("=", 1)]
    names = [*(word for word in words if len(word) > 2), "unknown argument", "--help"]
    return names, lambda: check_settings(parse(cls, argv, presets))


def check_settings(s):
    """Each setting has the type of its default and lies in its range; --mix can be read."""
    for f in dataclasses.fields(s):
        value, low, high = getattr(s, f.name), f.metadata["low"], f.metadata["high"]
        kind = type(f.default)
        assert value is None or f.default is None or type(value) is kind or kind is float
        assert value is None or low is None or low <= value <= high
    if mix := getattr(s, "mix", None):
        assert all(0 < share < math.inf for share in parse_mixture(mix).values())


# ---------------------------------------------------------------- what a run leaves


def logs(rng, folder):
    """metrics.jsonl of a killed run: what lies before the damage is kept, and the log goes on."""
    lines = [json.dumps({"step": n, "loss": 1 / n, "x": {"y": [n]}}) + "\n" for n in range(1, 20)]
    data = "".join(lines).encode()
    damaged = damage_bytes(rng, data)
    (folder / "metrics.jsonl").write_bytes(damaged)
    whole = os.path.commonprefix([data, damaged]).count(b"\n")

    def read():
        kept = [json.loads(line) for line in lines[:whole]]
        assert read_log(folder / "metrics.jsonl")[:whole] == kept
        with RunFolder(folder).open_log("metrics.jsonl", 19) as log:
            log.write(json.dumps({"step": 20}) + "\n")
        again = read_jsonl(folder / "metrics.jsonl")
        assert again[:whole] == kept and again[-1] == {"step": 20}

    return [str(folder)], read


def good_state(model):
    """A state as Loop.save keeps it, of AdamW."""
    trained = {}
    for name, p in model.named_parameters():
        kept = {"step": torch.tensor(3.0), "exp_avg": p.detach() * 0, "exp_avg_sq": p.detach() * 0}
        trained[name] = {"value": p.detach(), "state": kept}
    return State(3, 1.5, trained)


def states(rng, folder):
    """state.safetensors of a killed run."""
    path = folder / "state.safetensors"
    model = Policy.load(write_checkpoint(folder)).model
    save_state(path, good_state(model))
    data = path.read_bytes()
    if rng.random() < 0.5:
        path.write_bytes(damage_tensors(rng, data))
    else:
        _, header, tensors = parts_of(data)
        told = damage_json(rng, header["__metadata__"])
        header["__metadata__"] = {"step": told.decode("utf-8", "replace"), "seconds": "1.5"}
        written = json.dumps(header).encode()
        path.write_bytes(len(written).to_bytes(8, "little") + written + tensors)

    def read():
        state = load_state(path)
        check_state(state, 10, model, path)
        assert 0 <= state.step <= 10 and all_finite(state.trained[TIED]["value"])

    return [str(path)], read


def jsons(rng, folder):
    """run.json of a run that is resumed or scored, and prepare.json of a data folder."""
    settings = dataclasses.asdict(train.Settings(mix="localization=1", data=str(folder)))
    write_checkpoint(folder)
    made = {"recipe": "rooms", "version": 1}
    (folder / "run.json").write_bytes(damage_json(rng, {"settings": settings, "ranks": 1}))
    (folder / "prepare.json").write_bytes(damage_json(rng, made))
    (folder / "state.safetensors").touch()
    out = ["--out", str(folder)]
    read = rng.choice([
        lambda: check_settings(parse(train.Settings, [*out, "--resume"], train.presets)),
        lambda: check_settings(parse(evaluate.Settings, ["--model", out[1]], evaluate.presets)),
        lambda: find_recipe(None, folder),
        lambda: data_name(folder) + "-si",
    ])  # fmt: skip
    return [str(folder), "--"], read


# ---------------------------------------------------------------- answers

SAID = """<think> </think> <answer> </answer> [ ] { } "label" "bbox_2d" : , 1 -3 .5 1e400 NaN B (b)
A. lamp bed or not because . the m^2 cm metres inches ½ ² ３ − － ```json move_up:1 move_up:
rotate_left:-9 \ud800 \u2028 \0 ü 米 three dozen ?""".split()
SAID += ["9" * 400, "a" * 4000, " " * 4000, "[" * 5000, "\n"]
SAID += ['[{"label":"lamp","bbox_2d":[1,2,3,4]}]']


def answers(rng, folder):
    """What a model may write, to a row of each form."""
    form = rng.choice([*GOOD])
    row = check_row(GOOD[form], folder, "rows.jsonl:1", FILE_OF.get(form, "spatial"))
    text = rng.choice(["", " "]).join(rng.choices(SAID, k=rng.randint(0, 12)))
    row.think, truth = rng.random() < 0.5, GOOD["boxes"]["answer"]

    def read():
        scores = reward(text, row, truth if form == "boxes" else None)
        strict = 0 if form == "boxes" else strict_accuracy(text, row)
        assert all(0 <= score <= 1 for score in [*scores.values(), strict])

    return [], read


# ---------------------------------------------------------------- all of them

KINDS = {rows: 1000, pictures: 300, checkpoints: 300, flags: 300}
KINDS |= {logs: 25, states: 25, jsons: 30, answers: 40}


def ending(kind, number, folder):
    """The line with which one damaged input of a kind is refused; None where all is right."""
    names, read = kind(random.Random(f"{kind.__name__} {number}"), folder)
    try:
        read()
    except BaseException as error:  # a library's panic is no Exception
        line, status = explain(error)
        good = status == 2 and len(line.splitlines()) == 1 and any(name in line for name in names)
        if not good:
            raise AssertionError(f"{kind.__name__} {number} ends in {error!r}") from error
        return line


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_what_is_damaged_ends_in_one_line_or_in_a_right_result(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # runs of this repository are not looked at
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # for models as small as these, more would only wait for each other
    refused = 0
    for number in range(KINDS[kind]):
        folder = tmp_path / str(number)
        folder.mkdir()
        refused += ending(kind, number, folder) is not None
    torch.set_num_threads(threads)
    least, most = (0, 0) if kind in (logs, answers) else (0.2, 0.9)  # both endings are tried
    assert least <= refused / KINDS[kind] <= most


def test_two_thousand_inputs_are_tried():
    assert sum(KINDS.values()) >= 2000


# ---------------------------------------------------------------- examples, which the docs show


def row(form="boxes", **changes):
    """Read a data folder whose second row is changed."""
    line(json.dumps(GOOD[form] | changes).encode(), FILE_OF.get(form, "spatial"))


def line(data, file="localization"):
    """Read a data folder whose second row is these bytes."""
    kind = "single_image" if file == "spatial" else file
    good = GOOD["choice" if file == "spatial" else "boxes"]
    Path(f"desk/train/{file}.jsonl").write_bytes(json.dumps(good).encode() + b"\n" + data)
    read_kinds("desk/train", [kind])


def box(*numbers):
    row(answer=[BOX | {"bbox_2d": numbers}])


def picture(name, *size, mode="RGB", end=None):
    """Read a data folder with a plain picture of a format, cut off at `end`."""
    file = io.BytesIO()
    Image.new(mode, size).save(file, name)
    Path("desk/train/b.png").write_bytes(file.getvalue()[:end])
    row(image=["b.png"])


def data(folder, kind="localization"):
    read_splits(folder, [kind], {"val": 9, "test": 9})


def command(text):
    s = parse(train.Settings, text.split(), train.presets)
    parse_mixture(s.mix or "")


def changed(file, **values):
    """Load a checkpoint with other values in one of its JSON files."""
    path = Path("model", file)
    write_json(path, (json.loads(path.read_bytes()) if path.exists() else {}) | values)
    Policy.load("model")


def tensor(change):
    """Load a checkpoint whose last norm is changed."""
    tensors = safetensors.torch.load(Path("model", WEIGHTS).read_bytes())
    tensors["model.norm.weight"] = change(tensors["model.norm.weight"])
    Path("model", WEIGHTS).write_bytes(safetensors.torch.save(tensors))
    Policy.load("model")


def cut_weights():
    Path("model", WEIGHTS).write_bytes(good_checkpoint()[WEIGHTS][:-9])
    Policy.load("model")


def shard(name):
    Path("model", WEIGHTS).unlink()
    changed(INDEX, weight_map={TIED: name})


HALF = {"value": torch.ones(1), "state": {"exp_avg": torch.ones(1)}}  # AdamW keeps more


def state(**changes):
    model, path = Policy.load("model").model, "run/state.safetensors"
    save_state(path, good_state(model)._replace(**changes))
    check_state(load_state(path), 10, model, path)


NAMED = [  # (what is wrong, what a user does, the line that it gets)
    ("a folder that is not there", lambda: data("dsek"),
     "--data dsek: no such folder; name a folder of rows and pictures"),
    ("a file in place of a folder", lambda: data("boxes.csv"),
     "--data boxes.csv: this is a file, not a folder; name a folder of rows and pictures"),
    ("rows beside the folder train", lambda: data("loose"),
     "--data loose: no folder train in it; move localization.jsonl and the pictures into "
     "loose/train"),
    ("rows of a kind that is not there", lambda: data("desk", "spatial"),
     "desk/train/spatial.jsonl: no such file; desk/train has localization: choose among these "
     "with --mix, or add the file"),
    ("too few pictures, and neither val nor test", lambda: data("desk"),
     "desk/train: its rows are about 1 scene(s), too few to hold any out for val and test; add "
     "pictures of others, or make the folders val and test beside train"),
    ("a line that is cut off", lambda: line(b'{"question_id": 1, "quest'),
     "desk/train/localization.jsonl:2: not valid JSON (...)"),
    ("a file in 16-bit Unicode", lambda: line("{}".encode("utf-16")),
     "desk/train/localization.jsonl:2: this is not UTF-8 text; save the file as UTF-8"),
    ("a file in a Windows code page", lambda: line('{"question": "Stühle"}'.encode("cp1252")),
     "desk/train/localization.jsonl:2: this is not UTF-8 text; save the file as UTF-8"),
    ("lists inside lists without end", lambda: line(b"[" * 10**5),
     "desk/train/localization.jsonl:2: lists or objects are nested too deeply"),
    ("a key that stands twice in a row", lambda: line(b'{"level": 1, "level": 2}'),
     "desk/train/localization.jsonl:2: not valid JSON (an object has the same key twice)"),
    ("no question", lambda: row(question=None),
     "desk/train/localization.jsonl:2: field 'question' is missing or of the wrong type"),
    ("a level in words", lambda: row(level="easy"),
     "desk/train/localization.jsonl:2: field 'level' must be of type int"),
    ("a box in shares of the picture", lambda: box(0.1, 0.2, 0.5, 0.6),
     "desk/train/localization.jsonl:2: box [0.1, 0.2, 0.5, 0.6] must be in pixels, not in "
     "shares of the picture"),
    ("a box outside its picture", lambda: box(4, 5, 480, 30),
     "desk/train/localization.jsonl:2: box [4, 5, 480, 30] reaches outside its 48x32 image"),
    ("a choice answered in words", lambda: row("choice", answer="lamp"),
     "desk/train/spatial.jsonl:2: answer 'lamp' is none of the options' letters A, B"),
    ("a number with its unit", lambda: row("number", answer="87 cm"),
     "desk/train/spatial.jsonl:2: answer '87 cm' must be a number, 0 or more, without its unit"),
    ("a rationale before a free text", lambda: row("text", rationale="It is red."),
     "desk/train/spatial.jsonl:2: only a choice or a number can have a rationale, not text"),
    ("a picture outside the data folder", lambda: row(image=["../a.png"]),
     "desk/train/localization.jsonl:2: image path '../a.png' is none, or leaves the data "
     "folder; use paths relative to desk/train"),
    ("a picture that is not there", lambda: row(image=["c.png"]),
     "desk/train/localization.jsonl:2: desk/train/c.png: no such image file"),
    ("a photograph that is cut off", lambda: picture("JPEG", 300, 200, end=-500),
     "desk/train/localization.jsonl:2: desk/train/b.png: cannot be read as an image (...)"),
    ("a format that can start other programs", lambda: picture("EPS", 20, 20),
     "desk/train/localization.jsonl:2: desk/train/b.png: cannot be read as an image (it is "
     "none of PNG, JPEG, WEBP, BMP, TIFF, GIF)"),
    ("a panorama too narrow for a model", lambda: picture("PNG", 4000, 16),
     "desk/train/localization.jsonl:2: desk/train/b.png: 4000 x 16 pixels is too narrow; crop "
     "it to an aspect ratio below 200"),
    ("32 bits a pixel, of an unknown range", lambda: picture("TIFF", 9, 9, mode="F"),
     "desk/train/localization.jsonl:2: desk/train/b.png: cannot be read as an image (it has "
     "32 bits a pixel and channel; save it with 8 or 16)"),
    ("a rate that is no number", lambda: command("--lr nan"),
     "--lr nan: must be from 0 to 10"),
    ("a count of 0", lambda: command("--batch-size 0"),
     "--batch-size 0: must be a whole number from 1 to 10000"),
    ("a flag that is misspelt", lambda: command("--batchsize 4"),
     "unknown argument --batchsize: did you mean --batch-size?"),
    ("a mixture without shares", lambda: command("--mix localization"),
     "--mix localization: write it as localization=0.3,video=0.7, each kind once"),
    ("a file as the folder of a run", lambda: command("--out boxes.csv"),
     "--out boxes.csv: boxes.csv is not a folder: name another path"),
    ("nothing to go on with", lambda: command("--out new --resume"),
     "new holds nothing to resume: start without --resume"),
    ("another setting with `--resume`", lambda: command("--out run --resume --batch-size 4"),
     "run has --batch-size 16, not 4: give no other flags than --out with --resume"),
    ("a folder without a model", lambda: Policy.load("desk"),
     "desk/config.json: no such file; name the folder of a run or of a checkpoint"),
    ("another architecture", lambda: changed("config.json", model_type="qwen3_vl"),
     "model/config.json: architecture 'qwen3_vl' is not qwen2_5_vl"),
    ("ten million layers", lambda: changed("config.json", num_hidden_layers=10**7),
     "model/config.json: num_hidden_layers is 10000000, but must be a whole number from 1 to 256"),
    ("a rotary base of 0", lambda: changed("config.json", rope_theta=0),
     "model/config.json: rope_theta is 0, but must be a number from 1.0 to 1,000,000,000,000.0"),
    ("pictures divided by 0", lambda: changed("preprocessor_config.json", image_std=[0, 1, 1]),
     "model/preprocessor_config.json: image_std is 0, but must be a number from 1e-06 to "
     "1,000,000,000,000.0"),
    ("a tokenizer with more tokens than the model", lambda: changed("config.json", vocab_size=99),
     "model: config.json: vocab_size 99 is below 276 tokens"),
    ("a prompt set without its place", lambda: changed("prompts.json", number="How many?"),
     "model/prompts.json: number lacks {question}; it must hold {question}, and no other place"),
    ("weights that are not finite", lambda: tensor(lambda t: t * math.nan),
     "model/model.safetensors: tensor 'model.norm.weight' holds NaN or infinity"),
    ("weights of an integer type", lambda: tensor(lambda t: t.int()),
     "model/model.safetensors: tensor 'model.norm.weight' has type I32, not F32, F16 or BF16"),
    ("weights of another shape", lambda: tensor(lambda t: t[1:]),
     "model/model.safetensors: tensor 'model.norm.weight' has shape (7,), config wants (8,)"),
    ("a file of weights that is cut off", cut_weights,
     "model/model.safetensors: damaged or truncated (...)"),
    ("a shard outside its folder", lambda: shard("../model.safetensors"),
     "model/model.safetensors.index.json: '../model.safetensors' is no name of a shard in its "
     "own folder"),
    ("a state with an impossible step", lambda: state(step=-1),
     "run/state.safetensors: this run cannot go on from it: step -1 is not in 0 to 10"),
    ("a state without its optimizer", lambda: state(trained={TIED: HALF}),
     "run/state.safetensors: this run cannot go on from it: model.embed_tokens.weight lacks "
     "its optimizer's state"),
]  # fmt: skip


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder to stand in, with good data, a good checkpoint and a run that was killed."""
    monkeypatch.chdir(tmp_path)
    for name in ("desk/train", "loose", "model", "run"):
        Path(name).mkdir(parents=True)
    for path in (Path("desk/train/localization.jsonl"), Path("loose/localization.jsonl")):
        path.write_text(json.dumps(GOOD["boxes"]) + "\n", encoding="utf-8")
    Path("desk/train/a.png").write_bytes(good_pictures()["PNG RGB"])
    Path("boxes.csv").touch()
    write_checkpoint(Path("model"))
    write_json("run/run.json", {"settings": dataclasses.asdict(train.Settings(out="run"))})
    Path("run/state.safetensors").touch()


@pytest.mark.parametrize("wrong, use, wanted", NAMED, ids=[wrong for wrong, *_ in NAMED])
def test_named_inputs_get_their_line(wrong, use, wanted, desk, tmp_path):
    with pytest.raises(UserError) as error:
        use()
    line, status = explain(error.value)
    line = line.replace(str(tmp_path) + os.sep, "").replace(os.sep, "/")
    pattern = re.escape(f"error: {wanted}").replace(re.escape("..."), ".+")  # a library's words
    assert status == 2 and re.fullmatch(pattern, line), line


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        print(ending(globals()[sys.argv[1]], int(sys.argv[2]), Path(folder)))
