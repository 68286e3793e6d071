"""Hugging Face folders in and out, and the state of a run for exact resume.

A folder saved here opens in transformers, and a Qwen2.5-VL saved there opens here. Everything is
written beside its target and renamed into place, so a run that is killed at any moment leaves a
good checkpoint. Nothing is ever pickled.
"""

import json
import os
import re
import shutil
from dataclasses import asdict, fields
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from nanoladder.command import UserError
from nanoladder.files import read_json, write_json
from nanoladder.image import ImageConfig
from nanoladder.model import Config, Qwen2_5_VL, VisionConfig
from nanoladder.tokenizer import Tokenizer

BASE = Path(__file__).parent / "base"  # the checkpoint that ships: stage 0's
TIED, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


class CheckpointError(UserError):
    """A checkpoint that cannot be used; the message names the file and the tensor."""


# ---------------------------------------------------------------------------- config


def config_from_hf(hf: dict, source="config.json") -> Config:
    """Config of a Hugging Face config.json, flat as published or with the newer text_config.

    Raises CheckpointError for another architecture, an option this model does not have, or a
    missing field.
    """
    architecture = hf.get("model_type") or hf.get("architectures")
    if architecture != "qwen2_5_vl":
        raise CheckpointError(f"{source}: architecture {architecture} is not qwen2_5_vl")
    text, vision = {**hf, **(hf.get("text_config") or {})}, dict(hf.get("vision_config") or {})
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    if (kind := rope.get("rope_type", rope.get("type", "mrope"))) not in ("mrope", "default"):
        raise CheckpointError(f"{source}: rope type {kind} is not supported")
    if text.get("use_sliding_window"):
        raise CheckpointError(f"{source}: sliding window attention is not supported")
    for part in (text, vision):
        if (activation := part.get("hidden_act", "silu")) != "silu":
            raise CheckpointError(f"{source}: activation {activation} is not supported")
    text.update({name: rope[name] for name in ("rope_theta", "mrope_section") if name in rope})
    text["tie_word_embeddings"] = bool(
        hf.get("tie_word_embeddings") or text.get("tie_word_embeddings")
    )
    vision["in_channels"] = vision.get("in_channels", vision.get("in_chans", 3))
    if isinstance(text.get("eos_token_id"), list):
        text["eos_token_id"] = text["eos_token_id"][0]
    if text.get("pad_token_id") is None:
        text["pad_token_id"] = text.get("eos_token_id")

    def pick(cls, given, **known):
        names = [f.name for f in fields(cls) if f.name not in known]
        if lacking := [name for name in names if given.get(name) is None]:
            raise CheckpointError(f"{source}: lacks {', '.join(lacking)}")
        return cls(
            **known,
            **{n: tuple(given[n]) if isinstance(given[n], list) else given[n] for n in names},
        )

    return pick(Config, text, vision=pick(VisionConfig, vision))


def config_to_hf(config: Config) -> dict:
    """The flat config.json of the published checkpoints, which every tool reads."""
    hf = asdict(config)
    channels = {"hidden_act": "silu", "in_chans": config.vision.in_channels}
    hf["vision_config"] = hf.pop("vision") | channels
    hf["rope_scaling"] = {"type": "mrope", "mrope_section": hf.pop("mrope_section")}
    return hf | {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        "hidden_act": "silu",
        "use_sliding_window": False,
        "attention_dropout": 0.0,
        "bos_token_id": config.pad_token_id,
    }


def image_config_to_hf(config: ImageConfig) -> dict:
    hf = asdict(config)
    hf["image_mean"], hf["image_std"] = hf.pop("mean"), hf.pop("std")
    names = {"image_processor_type": "Qwen2VLImageProcessor"}
    return hf | names | {"processor_class": "Qwen2_5_VLProcessor"}


def load_image_config(folder) -> ImageConfig:
    """How a checkpoint's pictures become patches, from its preprocessor_config.json, old or new."""
    path = settle(folder) / "preprocessor_config.json"
    hf = read_json(path)
    size = hf.get("size") or {}
    for name, newer in (("min_pixels", "shortest_edge"), ("max_pixels", "longest_edge")):
        hf[name] = hf.get(name) or size.get(newer) or size.get(name)
    try:
        mean, std = tuple(hf["image_mean"]), tuple(hf["image_std"])
        coordinates = bool(hf.get("coordinates", False))
        names = ("patch_size", "merge_size", "temporal_patch_size", "min_pixels", "max_pixels")
        numbers = {name: int(hf[name]) for name in names}
        return ImageConfig(mean=mean, std=std, coordinates=coordinates, **numbers)
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: lacks a usable {error}") from None


# ---------------------------------------------------------------------------- files


def sync(path: Path):
    """Wait until a file or the entries of a folder are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def beside(path: Path, word: str) -> Path:
    return path.with_name(f".{path.name}.{word}")


def settle(folder) -> Path:
    """The folder; the old one is put back if replace_folder was killed between its two renames."""
    folder = Path(folder)
    if not folder.exists() and beside(folder, "old").exists():
        os.rename(beside(folder, "old"), folder)
    return folder


def replace_folder(new: Path, folder: Path):
    """Put the finished folder `new` in the place of `folder`."""
    old = beside(folder, "old")
    for path in (*new.rglob("*"), new):
        sync(path)
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        os.rename(folder, old)
    os.rename(new, folder)
    sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


# ---------------------------------------------------------------------------- model


def weight_files(folder: Path) -> list[Path]:
    """The one model.safetensors, or the shards its index names."""
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return [folder / "model.safetensors"]
    return [folder / name for name in sorted(set(read_json(index)["weight_map"].values()))]


def flat_name(name: str) -> str:
    """The flat name of a tensor: model.visual.x -> visual.x, model.language_model.x -> model.x"""
    name = re.sub(r"^model\.visual\.", "visual.", name)
    return re.sub(r"^model\.language_model\.", "model.", name)


def find(path) -> Path:
    """The checkpoint folder that `path` is, or that the run folder `path` holds."""
    path = Path(path)
    return path / "checkpoint" if settle(path / "checkpoint").is_dir() else path


def load(folder, dtype: torch.dtype = torch.float32, device="cpu") -> tuple[Qwen2_5_VL, Config]:
    """Open a Qwen2.5-VL checkpoint of any size. Returns (model, config).

    The model is created without memory and takes over each tensor as it is read, so there is no
    second copy. CheckpointError for whatever is missing, unexpected, of another shape or damaged.
    """
    folder = settle(folder)
    config = config_from_hf(read_json(folder / "config.json"), folder / "config.json")
    with torch.device("meta"):
        model = Qwen2_5_VL(config)
    expected = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    state = {}
    for path in weight_files(folder):
        if not path.exists():
            raise CheckpointError(f"{path}: no such file, though {folder} should hold it")
        try:
            with safe_open(path, "pt", device=str(device)) as file:
                for stored in file.keys():
                    name = flat_name(stored)
                    if name == TIED and config.tie_word_embeddings:
                        continue  # some tools write the shared tensor twice
                    if name not in expected:
                        raise CheckpointError(f"{path}: unexpected tensor {stored}")
                    shape, wanted = tuple(file.get_slice(stored).get_shape()), expected[name]
                    if shape != wanted:
                        raise CheckpointError(
                            f"{path}: {stored} has shape {shape}, config wants {wanted}"
                        )
                    state[name] = file.get_tensor(stored).to(dtype)
        except SafetensorError as error:
            raise CheckpointError(f"{path}: damaged or truncated ({error})") from None
    if missing := sorted(expected.keys() - state.keys()):
        raise CheckpointError(
            f"{folder}: {len(missing)} missing tensors, the first is {missing[0]}"
        )
    if config.tie_word_embeddings:
        state[TIED] = state[EMBEDDING]
    model.load_state_dict(state, assign=True)
    if config.tie_word_embeddings:
        model.lm_head.weight = model.model.embed_tokens.weight
    return model, config


class Policy(NamedTuple):
    """A model and what belongs to it, in the order in which functions take them."""

    model: Qwen2_5_VL
    tokenizer: Tokenizer
    image_config: ImageConfig

    @classmethod
    def load(cls, folder, dtype=torch.float32, device="cpu"):
        """The policy of a checkpoint folder or of a run folder."""
        folder = find(folder)
        model, _ = load(folder, dtype, device)
        return cls(model, Tokenizer.load(folder), load_image_config(folder))


def save(folder, model: Qwen2_5_VL, tokenizer=None, image_config: ImageConfig | None = None):
    """Write a checkpoint that transformers opens, replacing the whole folder at once."""
    folder, config = Path(folder), model.config
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = beside(folder, "new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    weights = {
        name: parameter.detach().contiguous() for name, parameter in model.named_parameters()
    }
    save_file(weights, new / "model.safetensors", metadata={"format": "pt"})
    dtype = str(weights[EMBEDDING].dtype).removeprefix("torch.")
    write_json(new / "config.json", config_to_hf(config) | {"torch_dtype": dtype})
    ends = {"eos_token_id": [config.eos_token_id], "pad_token_id": config.pad_token_id}
    write_json(new / "generation_config.json", ends | {"do_sample": False})
    if image_config is not None:
        write_json(new / "preprocessor_config.json", image_config_to_hf(image_config))
    if tokenizer is not None:
        tokenizer.save(new)
    replace_folder(new, folder)


# ---------------------------------------------------------------------------- state of a run


def save_state(path, state):
    """Write nested dicts, lists and tuples of tensors and JSON values to one safetensors file.

    The tensors are the file's tensors, and the rest is JSON in its header. Keys keep their type,
    floats every bit, and shared tensors stay shared.
    """
    path, tensors, names = Path(path), {}, {}

    def encode(value):
        if isinstance(value, Tensor):
            layout = (value.shape, value.stride(), value.dtype, value.device)
            same = (value.data_ptr() or id(value), *layout)
            if same not in names:
                names[same] = str(len(names))
                tensors[names[same]] = own_storage(value)
            return {"tensor": names[same]}
        if isinstance(value, dict):
            return {"dict": [[key, encode(item)] for key, item in value.items()]}
        if isinstance(value, tuple):
            return {"tuple": [encode(item) for item in value]}
        if isinstance(value, list):
            return [encode(item) for item in value]
        return value  # what JSON does not know makes it raise TypeError

    header = {"format": "pt", "state": json.dumps(encode(state))}
    path.parent.mkdir(parents=True, exist_ok=True)
    new = beside(path, "new")
    save_file(tensors, new, metadata=header)
    sync(new)
    os.replace(new, path)
    sync(path.parent)


def own_storage(tensor: Tensor) -> Tensor:
    """The tensor on the CPU, contiguous and no view into a larger one, as safetensors needs it."""
    tensor = tensor.detach().cpu().contiguous()
    is_whole = tensor.untyped_storage().nbytes() == tensor.nbytes
    return tensor if is_whole else tensor.clone()


def load_state(path):
    """What save_state wrote, tensors on the CPU. CheckpointError if it is missing or damaged."""
    path = Path(path)
    if not path.exists():
        raise CheckpointError(f"{path}: no such file")
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            header = json.loads((file.metadata() or {})["state"])
    except (SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged or not a run's state ({error})") from None

    def decode(value):
        if isinstance(value, list):
            return [decode(item) for item in value]
        if not isinstance(value, dict):
            return value
        (kind, content), *_ = value.items()
        if kind == "tensor":
            return tensors[content]
        if kind == "tuple":
            return tuple(decode(item) for item in content)
        return {key: decode(item) for key, item in content}

    return decode(header)
