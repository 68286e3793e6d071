"""Hugging Face's config.json and preprocessor_config.json, to our dataclasses and back.

This module reads no file and builds no model. Every field has a type and a range. A value that
would make another model than ours is refused by its name. So a folder means the same here as in
transformers, or is not opened.
"""

from dataclasses import asdict, fields
from functools import partial
from typing import get_args, get_origin

from nanoladder.command import UserError, require, shown
from nanoladder.image import ImageConfig
from nanoladder.model import Config, VisionConfig

MANY = 10_000_000
# The least and the greatest value of each number in Config, VisionConfig and ImageConfig. They are
# wide: they only keep out what cannot work, and what would be built without end.
RANGES = {
    "depth": (1, 256), "num_hidden_layers": (1, 256), "fullatt_block_indexes": (0, 255),
    "hidden_size": (4, 65_536), "out_hidden_size": (4, 65_536),
    "intermediate_size": (1, 1_000_000), "vocab_size": (8, MANY),
    "num_heads": (1, 1024), "num_attention_heads": (1, 1024), "num_key_value_heads": (1, 1024),
    "patch_size": (1, 256), "temporal_patch_size": (1, 16), "in_channels": (3, 6),
    "spatial_merge_size": (1, 16), "merge_size": (1, 16), "window_size": (1, 65_536),
    "tokens_per_second": (1, 1000), "max_position_embeddings": (1, MANY),
    "rope_theta": (1.0, 1e12), "mrope_section": (0, 65_536), "rms_norm_eps": (1e-12, 1e-2),
    "image_token_id": (0, MANY), "video_token_id": (0, MANY),
    "vision_start_token_id": (0, MANY), "vision_end_token_id": (0, MANY),
    "eos_token_id": (0, MANY), "pad_token_id": (0, MANY),
    "min_pixels": (1, 10**9), "max_pixels": (1, 10**9), "mean": (-10.0, 10.0),
    "std": (1e-6, 1e12),  # a huge one makes every picture look the same: image.blank_images
}  # fmt: skip
# What a file may say about options that our code does not have. One that is missing or null means
# the first value.
TEXT_OPTIONS = {
    "hidden_act": ("silu",), "attention_dropout": (0,), "use_sliding_window": (False,),
    "rope_type": ("default", "mrope"), "type": ("mrope", "default"),
    "quantization_config": (None,),
}  # fmt: skip
VISION_OPTIONS = {
    "hidden_act": ("silu",), "rope_theta": (10_000,),
    "rope_type": ("axial", "default"), "type": ("axial", "default"),
}  # fmt: skip
IMAGE_OPTIONS = {
    "do_resize": (True,), "do_rescale": (True,), "do_normalize": (True,),
    "do_convert_rgb": (True,), "resample": (3,), "rescale_factor": (1 / 255,),  # 3 is bicubic
    "do_center_crop": (False,), "do_pad": (False,),
}  # fmt: skip
FILE_NAMES = {"mean": "image_mean", "std": "image_std"}  # of fields that have others in the files
# transformers' own defaults. Its older versions left out of vision_config what equals them, and so
# does the published 32B.
VISION_DEFAULTS = asdict(VisionConfig())
VISION_DEFAULTS |= {"hidden_size": 3584, "out_hidden_size": 3584, "tokens_per_second": 4}


class CheckpointError(UserError):
    """A checkpoint that cannot be used; the message names the file and the field or tensor."""


require = partial(require, error=CheckpointError)


# ---------------------------------------------------------------------------- reading


def json_object(value, name: str) -> dict:
    """The entries of a JSON object that are not null; null is an empty one."""
    if value is not None and not isinstance(value, dict):
        raise CheckpointError(f"{name} is {shown(value)}, but must be a JSON object")
    return {key: item for key, item in (value or {}).items() if item is not None}


def checked(value, kind, limits, name: str):
    """A JSON value as `kind`, the type of a dataclass's field; CheckpointError if it is no such."""
    if get_origin(kind) is tuple:
        kinds = get_args(kind)
        if not isinstance(value, (list, tuple)) or len(value) != len(kinds) and ... not in kinds:
            count = "" if ... in kinds else f"{len(kinds)} "
            raise CheckpointError(f"{name} is {shown(value)}, but must be a list of {count}numbers")
        return tuple(checked(item, kinds[0], limits, name) for item in value)
    what = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
    right = isinstance(value, bool) == (kind is bool) and isinstance(value, (int, kind))
    if kind is not bool:
        what += f" from {limits[0]:,} to {limits[1]:,}"
        right = right and limits[0] <= value <= limits[1]
    if not right:
        raise CheckpointError(f"{name} is {shown(value)}, but must be {what}")
    return kind(value)


def build(cls, given: dict, where: str, **known):
    """An instance of the dataclass `cls` from the fields of a file, and those known already.

    where: the beginning of messages, which names the file and its part.
    """
    kinds = {f.name: f.type for f in fields(cls) if f.name not in known}
    names = {name: FILE_NAMES.get(name, name) for name in kinds}
    if lacking := [name for name in names.values() if name not in given]:
        raise CheckpointError(f"{where}lacks {', '.join(lacking)}")
    values = {n: checked(given[names[n]], kinds[n], RANGES.get(n), where + names[n]) for n in kinds}
    return cls(**values, **known)


def refuse_options(given: dict, options: dict, where: str):
    for name, allowed in options.items():
        if (value := given.get(name, allowed[0])) not in allowed:
            only = "" if allowed[0] is None else f"; it must be {shown(allowed[0])}"
            raise CheckpointError(f"{where}{name} {shown(value)} is not supported{only}")


# ---------------------------------------------------------------------------- the model


def config_from_hf(hf: dict, source="config.json") -> Config:
    """Config of a Hugging Face config.json, flat as published or with the newer text_config.

    Where text_config says null or nothing the top level counts, as in transformers. CheckpointError
    for another architecture, an option this model does not have, or a field that is missing or
    outside its range. Tensors are not needed, so a bad config is refused before anything is built.
    """
    where, top = f"{source}: ", json_object(hf, str(source))
    architecture = top.get("model_type", top.get("architectures"))
    if architecture != "qwen2_5_vl":
        raise CheckpointError(f"{where}architecture {shown(architecture)} is not qwen2_5_vl")

    def part(holder, name):
        return json_object(holder.get(name), where + name)

    text, own = top | part(top, "text_config"), part(top, "vision_config")
    text |= part(text, "rope_scaling") | part(text, "rope_parameters")
    vision = VISION_DEFAULTS | {"in_channels": own.get("in_chans", 3)} | own
    vision |= part(own, "rope_scaling") | part(own, "rope_parameters")
    refuse_options(text, TEXT_OPTIONS, where)
    refuse_options(vision, VISION_OPTIONS, f"{where}vision_config.")
    tied = "tie_word_embeddings"  # where either says so
    text[tied] = top.get(tied) or text.get(tied, False)
    if isinstance(ends := text.get("eos_token_id"), list) and ends:
        text["eos_token_id"] = ends[0]
    padding = text.get("bos_token_id", text.get("eos_token_id"))  # Qwen's bos is its padding
    text = {"pad_token_id": padding} | text
    vision = build(VisionConfig, vision, f"{where}vision_config.")
    config = build(Config, text, where, vision=vision)
    require(rules_of(config), where)
    return config


def rules_of(c: Config) -> list:
    """What the fields of a config must agree in: [(whether they do, in words)]."""
    v, width, heads, vision = c.vision, c.hidden_size, c.num_attention_heads, "vision_config."
    half, token = width // heads // 2, v.patch_size * v.spatial_merge_size
    ids = [c.image_token_id, c.video_token_id, c.vision_start_token_id, c.vision_end_token_id]
    ids, named = [*ids, c.eos_token_id], "image, video, vision_start, vision_end and eos token_id"
    groups, full, deep = c.num_key_value_heads, v.fullatt_block_indexes, v.hidden_size
    return [
        (width % (2 * heads) == 0, "hidden_size must be a multiple of 2 * num_attention_heads"),
        (heads % groups == 0, "num_key_value_heads must divide num_attention_heads"),
        (sum(c.mrope_section) == half, f"mrope_section must sum to {half}, half a head's width"),
        (deep % (4 * v.num_heads) == 0, f"{vision}hidden_size must be a multiple of 4 * num_heads"),
        (v.out_hidden_size == width, f"{vision}out_hidden_size must be hidden_size, {width}"),
        (v.window_size >= token, f"{vision}window_size is below {token} pixels, one image token"),
        (max(full, default=0) < v.depth, f"{vision}fullatt_block_indexes go beyond depth"),
        (len({*ids}) == len(ids), f"{named} must differ: {ids}"),
        (max(ids) < c.vocab_size, f"{named} must be below vocab_size {c.vocab_size}: {ids}"),
        (c.pad_token_id < c.vocab_size, f"pad_token_id must be below vocab_size {c.vocab_size}"),
    ]


def check_parts(config: Config, image_config: ImageConfig, tokenizer, folder):
    """CheckpointError where a folder's config does not belong to its pictures or its tokenizer."""
    v, pictures, size = config.vision, image_config, config.vocab_size
    pairs = [
        ("patch_size", v.patch_size, pictures.patch_size),
        ("spatial_merge_size", v.spatial_merge_size, pictures.merge_size),
        ("temporal_patch_size", v.temporal_patch_size, pictures.temporal_patch_size),
        ("in_channels", v.in_channels, 3 + 3 * pictures.coordinates),
        ("image_token_id", config.image_token_id, tokenizer.image_id),
        ("video_token_id", config.video_token_id, tokenizer.video_id),
        ("vision_start_token_id", config.vision_start_token_id, tokenizer.vision_start_id),
        ("vision_end_token_id", config.vision_end_token_id, tokenizer.vision_end_id),
    ]
    rules = [
        (own == other, f"{name} is {own}, but the image processor or tokenizer has {other}")
        for name, own, other in pairs
    ]
    fits = (len(tokenizer) <= size, f"vocab_size {size} is below {len(tokenizer)} tokens")
    require([*rules, fits], f"{folder}: config.json: ")


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


# ---------------------------------------------------------------------------- its pictures


def image_config_from_hf(hf: dict, source="preprocessor_config.json") -> ImageConfig:
    """How pictures become patches, from the settings of transformers' image processor."""
    where, given = f"{source}: ", json_object(hf, str(source))
    size = json_object(given.get("size"), f"{where}size")
    for name, newer in (("min_pixels", "shortest_edge"), ("max_pixels", "longest_edge")):
        if (limit := given.get(name, size.get(newer, size.get(name)))) is not None:
            given[name] = limit
    refuse_options(given, IMAGE_OPTIONS, where)
    config = build(ImageConfig, {"coordinates": False} | given, where)
    low, high = config.min_pixels, config.max_pixels
    require([(low <= high, f"min_pixels {low} must not be above max_pixels {high}")], where)
    return config


def image_config_to_hf(config: ImageConfig) -> dict:
    hf = {FILE_NAMES.get(name, name): value for name, value in asdict(config).items()}
    names = {"image_processor_type": "Qwen2VLImageProcessor"}
    return hf | names | {"processor_class": "Qwen2_5_VLProcessor"}
