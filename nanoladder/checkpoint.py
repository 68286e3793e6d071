"""Hugging Face folders in and out, and the state of a run for exact resume.

A folder saved here opens in transformers, and a Qwen2.5-VL saved there opens here. Everything is
written beside its target and renamed into place, so a run that is killed at any moment leaves a
good checkpoint. Nothing is ever pickled.
"""

import math
import os
import re
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from nanoladder import hf_config
from nanoladder.command import UserError, flag, setting, shown
from nanoladder.files import read_json, write_json
from nanoladder.hf_config import CheckpointError, config_from_hf, require
from nanoladder.image import ImageConfig
from nanoladder.model import Config, Qwen2_5_VL
from nanoladder.tokenizer import Tokenizer

BASE = Path(__file__).parent / "base"  # the checkpoint that ships: stage 0's
TIED, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
FLOATS = {"F64", "F32", "F16", "BF16"}  # safetensors' names of the types that weights may have


# ---------------------------------------------------------------------------- files


def sync(path: Path):
    """Wait until a file or the entries of a folder are on disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot wait for a folder
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def beside(path: Path, word: str) -> Path:
    return path.with_name(f".{path.name}.{word}")


def settle(folder) -> Path:
    """The folder; the old one is put back if put_in_place was killed between its two renames."""
    folder = Path(folder)
    if not folder.exists() and beside(folder, "old").exists():
        os.rename(beside(folder, "old"), folder)
    return folder


def put_in_place(new: Path, path: Path):
    """Give the finished folder or file `new` the name `path`, when all of it is on disk."""
    old = beside(path, "old")
    for part in (*new.rglob("*"), new):
        sync(part)
    if path.is_dir():
        shutil.rmtree(old, ignore_errors=True)
        os.rename(path, old)
    os.replace(new, path)
    sync(path.parent)
    shutil.rmtree(old, ignore_errors=True)


# ---------------------------------------------------------------------------- model


def weight_files(folder: Path) -> list[Path]:
    """The one model.safetensors, or the shards its index names, all of them in the same folder."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.exists() or not index.exists():
        return [single]
    names = read_json(index).get("weight_map")
    given = isinstance(names, dict) and names
    require([(given, "lacks weight_map, the shard of each tensor")], f"{index}: ")
    for name in names.values():
        inside = isinstance(name, str) and re.fullmatch(r"\w[\w.-]*\.safetensors", name)
        require([(inside, f"{shown(name)} is no name of a shard in its own folder")], f"{index}: ")
    return [folder / name for name in sorted({*names.values()})]


@contextmanager
def open_tensors(path: Path, device="cpu"):
    """An open safetensors file. CheckpointError if it is missing or damaged."""
    if not path.is_file():
        raise CheckpointError(f"{path}: {'not a file' if path.exists() else 'no such file'}")
    try:
        with safe_open(path, "pt", device=str(device)) as file:
            yield file
    except SafetensorError as error:
        raise CheckpointError(f"{path}: damaged or truncated ({shown(str(error))})") from None


def all_finite(tensor: Tensor) -> bool:
    """Whether a tensor holds neither NaN nor infinity. 25 times as fast as isfinite().all()."""
    return not tensor.numel() or bool(torch.stack(tensor.aminmax()).isfinite().all())


def flat_name(name: str) -> str:
    """The flat name of a tensor: model.visual.x -> visual.x, model.language_model.x -> model.x"""
    name = re.sub(r"^model\.visual\.", "visual.", name)
    return re.sub(r"^model\.language_model\.", "model.", name)


def find(path) -> Path:
    """The checkpoint folder that `path` is, or that the run folder `path` holds."""
    path = Path(path)
    return path / "checkpoint" if settle(path / "checkpoint").is_dir() else path


def check_headers(paths: list[Path], shapes: dict, optional: set):
    """Compare names, shapes and types of the stored tensors with the model's; read none of them."""
    found = {}
    for path in paths:
        with open_tensors(path) as file:
            for stored in file.keys():
                name, header = flat_name(stored), file.get_slice(stored)
                shape, kind, wanted = (*header.get_shape(),), header.get_dtype(), shapes.get(name)
                rules = [
                    (name in shapes, "is unexpected"),
                    (name not in found, f"is also in {found.get(name)}"),
                    (shape == wanted, f"has shape {shape}, config wants {wanted}"),
                    (kind in FLOATS, f"has type {kind}, not F32, F16 or BF16"),
                ]
                require(rules, f"{path}: tensor {shown(stored)} ")
                found[name] = path
    missing = sorted(shapes.keys() - found.keys() - optional)
    rule = f"{len(missing)} missing tensors, the first is {missing[:1]}"
    require([(not missing, rule)], f"{paths[0].parent}: ")


def load_config(folder) -> Config:
    path = settle(folder) / "config.json"
    if not path.exists():
        raise CheckpointError(f"{path}: no such file; name the folder of a run or of a checkpoint")
    return config_from_hf(read_json(path), path)


def load(folder, keep_bf16: bool = False, device="cpu") -> Qwen2_5_VL:
    """Open a Qwen2.5-VL checkpoint of any size; its config is `model.config`.

    Weights become fp32; with keep_bf16 those that are stored in bf16 stay as they are.

    The model is created without memory and takes over each tensor as it is read, so there is no
    second copy. CheckpointError for whatever is missing, unexpected, of another shape or type, not
    finite or damaged; the config and all headers are checked before the first tensor is read.
    """
    folder, config = settle(folder), load_config(folder)
    with torch.device("meta"):
        model = Qwen2_5_VL(config)
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    is_tied, paths, state = config.tie_word_embeddings, weight_files(folder), {}
    shapes[TIED] = shapes[EMBEDDING]  # some tools write the shared tensor twice
    check_headers(paths, shapes, {TIED} if is_tied else set())
    for path in paths:
        with open_tensors(path, device) as file:
            for stored in file.keys():
                tensor = file.get_tensor(stored)
                kept = keep_bf16 and tensor.dtype == torch.bfloat16
                tensor = state[flat_name(stored)] = tensor if kept else tensor.float()
                rule = f"tensor {shown(stored)} holds NaN or infinity"
                require([(all_finite(tensor), rule)], f"{path}: ")
    if is_tied:
        same = torch.equal(state.setdefault(TIED, state[EMBEDDING]), state[EMBEDDING])
        rule = f"{TIED} differs from {EMBEDDING}, but config.json has tie_word_embeddings"
        require([(same, rule)], f"{folder}: ")
    model.load_state_dict(state, assign=True)
    if is_tied:
        model.lm_head.weight = model.model.embed_tokens.weight
    return model


def load_image_config(folder) -> ImageConfig:
    """How a checkpoint's pictures become patches.

    transformers 5 writes it into processor_config.json, older ones into preprocessor_config.json.
    """
    newer, older = (settle(folder) / f"{n}_config.json" for n in ("processor", "preprocessor"))
    if newer.exists() and (part := read_json(newer).get("image_processor")) is not None:
        return hf_config.image_config_from_hf(part, f"{newer}: image_processor")
    return hf_config.image_config_from_hf(read_json(older), str(older))


@dataclass
class PixelLimits:
    """Settings of every script that shows pictures to a model; Policy.limit_pixels applies them."""

    min_pixels: int | None = setting(
        None, "pixels of a picture, at least; else the checkpoint's limit", low=1, high=10**8
    )
    max_pixels: int | None = setting(
        None, "pixels of a picture, at most; else the checkpoint's limit", low=1, high=10**8
    )


# SpatialLadder's limits for the published weights, as its released scripts have them.
TRAIN_PIXELS = {"min_pixels": 16 * 28 * 28, "max_pixels": 128 * 28 * 28}
EVAL_PIXELS = {"min_pixels": 16 * 28 * 28, "max_pixels": 512 * 28 * 28}


class Policy(NamedTuple):
    """A model and what belongs to it, in the order in which functions take them."""

    model: Qwen2_5_VL
    tokenizer: Tokenizer
    image_config: ImageConfig
    generation: dict = {}  # generation_config.json as it was read; {} where there is none

    @property
    def repetition_penalty(self) -> float:
        """That of evaluation (repetition.py), 1 where there is none. Training samples without."""
        return self.generation.get("repetition_penalty") or 1.0

    def limit_pixels(self, s: PixelLimits) -> "Policy":
        """This policy under the limits of the settings `s`.

        None keeps the checkpoint's own. UserError where a limit is below one image token, or the
        least is above the most. A checkpoint that is saved from this policy has the limits, too.
        """
        names, token = ("min_pixels", "max_pixels"), self.image_config.factor**2
        given = {name: getattr(s, name) for name in names if getattr(s, name) is not None}
        for name, limit in given.items():
            if limit < token:
                raise UserError(f"{flag(name)} {limit} is below one image token, {token} pixels")
        limited = replace(self.image_config, **given)
        if given and limited.min_pixels > limited.max_pixels:
            limits = f"--min-pixels {limited.min_pixels} is above --max-pixels {limited.max_pixels}"
            raise UserError(f"{limits}; a limit that was not given is a preset or the checkpoint's")
        return self._replace(image_config=limited)

    @classmethod
    def load(cls, folder, keep_bf16=False, device="cpu"):
        """The policy of a checkpoint folder or of a run folder; keep_bf16 as in load()."""
        folder = find(folder)
        config, image_config = load_config(folder), load_image_config(folder)
        tokenizer, generation = Tokenizer.load(folder), load_generation(folder, config.vocab_size)
        hf_config.check_parts(config, image_config, tokenizer, folder)
        # An answer also ends at the end tokens of generation_config.json.
        tokenizer.eos_ids = (*dict.fromkeys((*tokenizer.eos_ids, *end_ids(generation))),)
        return cls(load(folder, keep_bf16, device), tokenizer, image_config, generation)


def end_ids(generation: dict) -> list:
    """The end tokens of a generation_config.json, where they are a number, a list, or missing."""
    ends = generation.get("eos_token_id")
    return ends if isinstance(ends, list) else [] if ends is None else [ends]


def load_generation(folder, vocab_size: int) -> dict:
    """A folder's generation_config.json, all of it; {} without one. CheckpointError if unusable."""
    path = settle(folder) / "generation_config.json"
    generation = read_json(path) if path.exists() else {}
    for end in end_ids(generation):
        hf_config.checked(end, int, (0, vocab_size - 1), f"{path}: eos_token_id")
    if (penalty := generation.get("repetition_penalty")) is not None:
        hf_config.checked(penalty, float, (0.01, 100), f"{path}: repetition_penalty")
    return generation


def save(folder, model: Qwen2_5_VL, tokenizer=None, image_config=None, generation=None):
    """Write a checkpoint that transformers opens, replacing the whole folder at once.

    generation: the content of generation_config.json; without it greedy decoding is written.
    """
    folder, config = Path(folder), model.config
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = beside(folder, "new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    weights = {name: p.detach().contiguous() for name, p in model.named_parameters()}
    save_file(weights, new / "model.safetensors", metadata={"format": "pt"})
    dtype = str(weights[EMBEDDING].dtype).removeprefix("torch.")
    write_json(new / "config.json", hf_config.config_to_hf(config) | {"torch_dtype": dtype})
    ends = {"eos_token_id": [config.eos_token_id], "pad_token_id": config.pad_token_id}
    write_json(new / "generation_config.json", generation or ends | {"do_sample": False})
    if image_config is not None:
        write_json(new / "preprocessor_config.json", hf_config.image_config_to_hf(image_config))
    if tokenizer is not None:
        tokenizer.save(new)
    put_in_place(new, folder)


# ---------------------------------------------------------------------------- state of a run


class State(NamedTuple):
    """What a run needs to go on."""

    step: int
    seconds: float  # of training so far
    trained: dict  # of parallel.gather_state


def save_state(path, state: State):
    """Write a run's state to one safetensors file."""
    path = Path(path)
    tensors = {
        f"{name} {kind}": tensor.contiguous()
        for name, entry in state.trained.items()
        for kind, tensor in ({"value": entry["value"]} | entry["state"]).items()
    }
    header = {"format": "pt", "step": str(state.step), "seconds": repr(state.seconds)}
    save_file(tensors, beside(path, "new"), metadata=header)
    put_in_place(beside(path, "new"), path)


def load_state(path) -> State:
    """What save_state wrote, tensors on the CPU. CheckpointError if it is missing or damaged."""
    trained = {}
    with open_tensors(Path(path)) as file:
        header = file.metadata() or {}
        for key in file.keys():
            name, _, kind = key.rpartition(" ")
            trained.setdefault(name, {"state": {}})["state"][kind] = file.get_tensor(key)
    for entry in trained.values():
        entry["value"] = entry["state"].pop("value", None)
    try:
        return State(int(header["step"]), float(header["seconds"]), trained)
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: not a run's state ({shown(str(error))})") from None


# What each optimizer keeps of a parameter: AdamW, Muon, and either one before its first gradient.
KEPT = ({"step", "exp_avg", "exp_avg_sq"}, {"momentum"}, set())


def check_state(state: State, steps: int, model: Qwen2_5_VL, path):
    """CheckpointError unless a run of `steps` steps with this model can go on from a state."""
    where = f"{path}: this run cannot go on from it: "
    require(rules_of_state(*state, steps, dict(model.named_parameters())), where)


def rules_of_state(step, seconds, trained, steps: int, parameters: dict):
    yield 0 <= step <= steps, f"step {step} is not in 0 to {steps}"
    yield 0 <= seconds < math.inf, f"seconds {seconds} is no duration"
    for name, entry in trained.items():
        yield name in parameters, f"{shown(name)} is not in this model"
        yield {*entry["state"]} in KEPT, f"{name} lacks its optimizer's state"
        for kind, tensor in ({"value": entry["value"]} | entry["state"]).items():
            shape = () if kind == "step" else parameters[name].shape
            fits = tensor is not None and tensor.is_floating_point() and tensor.shape == shape
            yield fits and all_finite(tensor), f"{kind} of {name} is not finite or of another shape"
    began = step == 0 or any(entry["state"] for entry in trained.values())
    yield began, "it holds no optimizer's state"
