"""Configs as the world writes them mean what they mean in transformers, or are refused by name."""

import copy
import dataclasses
import json
import math
import random

import pytest
import torch
from test_model import CONFIGS, SEVEN, published

from nanoladder import checkpoint
from nanoladder.checkpoint import load_image_config
from nanoladder.command import UserError
from nanoladder.hf_config import (
    RANGES,
    CheckpointError,
    config_from_hf,
    config_to_hf,
    image_config_from_hf,
    image_config_to_hf,
)
from nanoladder.image import ImageConfig
from nanoladder.model import PRESETS, Config, Qwen2_5_VL, VisionConfig

SIZES = {"3b": {}, "7b": SEVEN}
PARAMETERS = {"3b": 3_754_622_976, "7b": 8_292_166_656}
OUTER = {"architectures", "image_token_id", "model_type", "tie_word_embeddings", "video_token_id"}
SHORT = {"hidden_size", "in_chans", "spatial_patch_size", "tokens_per_second"}


def flat(size):
    """config.json as it was published, with transformers 4.49: it has no padding token."""
    config = published(**SIZES[size]) | {"max_window_layers": 70, "vision_token_id": 151654}
    del config["pad_token_id"]
    return config


def short(size):
    """As older transformers wrote it: without what its vision config has by default."""
    config = flat(size)
    vision, default = config["vision_config"], {"hidden_size": 3584, "out_hidden_size": 3584}
    kept = {k: v for k, v in vision.items() if k in SHORT or default.get(k, v) != v}
    return config | {"vision_config": kept | {"model_type": "qwen2_5_vl"}}


def doubled(size):
    """As transformers 4.52 to 4.57 wrote it: the top level, and again with nulls in text_config."""
    config = flat(size)
    text = {name: value for name, value in config.items() if name != "vision_config"}
    text |= {"model_type": "qwen2_5_vl_text", "image_token_id": None, "video_token_id": None}
    text |= {"sliding_window": None, "layer_types": ["full_attention"] * text["num_hidden_layers"]}
    text |= {"pad_token_id": None}
    text["rope_scaling"] = text["rope_scaling"] | {"rope_type": "default", "type": "default"}
    return config | {"text_config": text}


def nested(size):
    """As transformers 5 writes it."""
    config = doubled(size)
    outer = {name: config[name] for name in OUTER | {"vision_config"}}
    outer |= {"vision_start_token_id": 151652, "vision_end_token_id": 151653}
    text = config["text_config"]
    text["rope_parameters"] = text.pop("rope_scaling") | {"rope_theta": 1e6}
    rope = {"rope_type": "axial", "rope_theta": 10000.0}
    vision = config["vision_config"] | {"in_channels": 3, "rope_parameters": rope}
    return outer | {"text_config": text, "vision_config": vision}


STYLES = {"flat": flat, "short": short, "doubled": doubled, "nested": nested}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("style", STYLES)
def test_published_configs_in_every_style(style, size):
    config = config_from_hf(json.loads(json.dumps(STYLES[style](size))))
    assert config == CONFIGS[size] and type(config.rope_theta) is float


@pytest.mark.parametrize("name", sorted(flat("3b").keys() - {"vision_config", "architectures"}))
def test_null_in_text_config_means_the_top_level(name):
    config = doubled("3b")
    config["text_config"][name] = None
    assert config_from_hf(config) == CONFIGS["3b"]


@pytest.mark.parametrize("style", STYLES)
def test_transformers_reads_the_same_model(style):
    transformers = pytest.importorskip("transformers", minversion="5.3")
    theirs = transformers.Qwen2_5_VLConfig(**STYLES[style]("7b")).to_dict()
    assert config_from_hf(json.loads(json.dumps(theirs))) == CONFIGS["7b"]


@pytest.mark.parametrize("size", SIZES)
def test_parameters_of_the_published_sizes(size):
    with torch.device("meta"):
        model = Qwen2_5_VL(config_from_hf(nested(size)))
    assert all(parameter.is_meta for parameter in model.parameters())  # nothing was allocated
    assert model.num_parameters() == PARAMETERS[size]


IDS = {"image_token_id": 5, "video_token_id": 6, "vision_start_token_id": 7}
IDS |= {"vision_end_token_id": 8, "eos_token_id": 1, "pad_token_id": 0}


def test_our_configs_come_back():
    presets = [dataclasses.replace(preset, **IDS) for preset in PRESETS.values()]
    for config in (*presets, Config(), Config(tie_word_embeddings=False)):
        assert config_from_hf(json.loads(json.dumps(config_to_hf(config)))) == config


def test_every_number_has_a_range():
    for cls in (Config, VisionConfig, ImageConfig):
        numbers = {f.name for f in dataclasses.fields(cls) if f.type not in (bool, VisionConfig)}
        assert numbers <= RANGES.keys()


# ---------------------------------------------------------------------------- refused

ROPE = {"rope_type": "default", "mrope_section": [16, 24, 24]}
WIDE = "must sum to 64"
# changes of the published 3B's config.json: (changes of the top level, of vision_config, message)
REFUSED = {
    "another family": ({"model_type": "qwen3_vl"}, {}, "architecture 'qwen3_vl'"),
    "no field": ({"hidden_size": None}, {}, "lacks hidden_size"),
    "no end": ({"eos_token_id": []}, {}, "eos_token_id is \\[\\]"),
    "zero width": ({"hidden_size": 0}, {}, "hidden_size is 0, but must be a whole number from 4"),
    "ten million layers": ({"num_hidden_layers": 10**7}, {}, "num_hidden_layers is 10000000"),
    "endless vision": ({}, {"depth": 10**7}, "vision_config.depth is 10000000"),
    "heads": ({"num_attention_heads": 15}, {}, "multiple of 2 \\* num_attention_heads"),
    "key heads": ({"num_key_value_heads": 3}, {}, "num_key_value_heads must divide"),
    "vision heads": ({}, {"num_heads": 7}, "vision_config.hidden_size must be a multiple of 4"),
    "other widths": ({}, {"out_hidden_size": 512}, "out_hidden_size must be hidden_size, 2048"),
    "theta 0": ({"rope_theta": 0}, {}, "rope_theta is 0"),
    "theta negative": ({"rope_theta": -1e6}, {}, "rope_theta is -1000000.0"),
    "theta a word": ({"rope_theta": "x"}, {}, "rope_theta is 'x', but must be a number from 1"),
    "theta true": ({"rope_theta": True}, {}, "rope_theta is True"),
    "theta NaN": ({"rope_theta": math.nan}, {}, "rope_theta is nan"),
    "eps": ({"rms_norm_eps": 1e9}, {}, "rms_norm_eps is 1000000000.0"),
    "tied": ({"tie_word_embeddings": "x"}, {}, "tie_word_embeddings is 'x', but must be true or"),
    "six sections": (
        {"rope_scaling": {"mrope_section": [16, 24, 24] * 2}},
        {},
        "list of 3 numbers",
    ),
    "sum of sections": ({"rope_scaling": {"mrope_section": [16, 24, 25]}}, {}, WIDE),
    "section": ({"rope_scaling": {"mrope_section": [-16, 40, 40]}}, {}, "mrope_section is -16"),
    "no sections": ({"rope_scaling": None}, {}, "lacks mrope_section"),
    "scaled rope": ({"rope_scaling": ROPE | {"rope_type": "yarn"}}, {}, "rope_type 'yarn' is not"),
    "rope a list": ({"rope_scaling": [1]}, {}, "rope_scaling is \\[1\\], but must be a JSON obj"),
    "window": ({"use_sliding_window": True}, {}, "use_sliding_window True is not supported"),
    "activation": ({"hidden_act": "gelu"}, {}, "hidden_act 'gelu' is not supported"),
    "dropout": ({"attention_dropout": 0.5}, {}, "attention_dropout 0.5 is not supported"),
    "quantized": ({"quantization_config": {"bits": 4}}, {}, "quantization_config .* not supported"),
    "vision activation": ({}, {"hidden_act": "gelu"}, "vision_config.hidden_act 'gelu'"),
    "vision theta": ({}, {"rope_theta": 5000}, "vision_config.rope_theta 5000 .* must be 10000"),
    "newer vision theta": (
        {},
        {"rope_parameters": {"rope_theta": 1e6}},
        "vision_config.rope_theta",
    ),
    "tokens a second": ({}, {"tokens_per_second": 0}, "vision_config.tokens_per_second is 0"),
    "a second's word": ({}, {"tokens_per_second": "x"}, "tokens_per_second is 'x'"),
    "window 0": ({}, {"window_size": 0}, "vision_config.window_size is 0"),
    "window small": ({}, {"window_size": 27}, "window_size is below 28 pixels"),
    "patch 0": ({}, {"patch_size": 0}, "vision_config.patch_size is 0"),
    "merge 0": ({}, {"spatial_merge_size": 0}, "vision_config.spatial_merge_size is 0"),
    "blocks beyond": ({}, {"fullatt_block_indexes": [7, 32]}, "fullatt_block_indexes go beyond"),
    "blocks negative": ({}, {"fullatt_block_indexes": [-1]}, "fullatt_block_indexes is -1"),
    "blocks a number": ({}, {"fullatt_block_indexes": 7}, "fullatt_block_indexes is 7.* a list of"),
    "id beyond": ({"image_token_id": 151936}, {}, "must be below vocab_size 151936"),
    "id negative": ({"video_token_id": -1}, {}, "video_token_id is -1"),
    "one id twice": ({"video_token_id": 151655}, {}, "must differ"),
    "padding beyond": ({"pad_token_id": 151936}, {}, "pad_token_id must be below vocab_size"),
    "vision a list": ({"vision_config": [1]}, {}, "vision_config is \\[1\\], but must be a JSON"),
    "text a word": ({"text_config": "x"}, {}, "text_config is 'x', but must be a JSON object"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_unusable_config_is_refused_by_name(name):
    changes, vision, message = REFUSED[name]
    hf = flat("3b")
    hf["vision_config"] |= vision
    with pytest.raises(CheckpointError, match=f"^config.json: .*{message}") as error:
        config_from_hf(hf | changes)
    assert "\n" not in str(error.value) and len(str(error.value)) < 250


@pytest.mark.parametrize("value", [[], "x", 7, True])
def test_config_that_is_no_object(value):
    with pytest.raises(CheckpointError, match="config.json is .* must be a JSON object"):
        config_from_hf(value)


def test_bad_config_is_refused_before_a_model_is_built(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "Qwen2_5_VL", None)  # calling it would be a TypeError
    path = tmp_path / "config.json"
    for text in ('["x"]', "null", '"x"', json.dumps(flat("3b") | {"num_hidden_layers": 10**7})):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match="config.json: "):
            checkpoint.load(tmp_path)


JUNK = [0, -1, 10**30, 1.5, math.nan, math.inf, True, "x", "\n" * 99, [], [0], {}, {"a": 1}, None]


def test_damaged_values_end_in_one_line_or_in_a_model_that_holds():
    """2,000 configs with one or two fields replaced by junk."""
    rng, refused = random.Random(0), 0
    for _ in range(2000):
        hf = copy.deepcopy(rng.choice([flat, doubled, nested])("3b"))
        parts = [hf, hf["vision_config"], hf.get("text_config", hf)]
        for _ in range(rng.choice([1, 2])):
            part = rng.choice([part for part in parts if isinstance(part, dict)])
            part[rng.choice(sorted(part))] = rng.choice(JUNK)
        try:
            config = config_from_hf(hf)
        except CheckpointError as error:
            assert "\n" not in str(error)
            refused += 1
        else:
            assert sum(config.mrope_section) == config.head_dim // 2 and config.rope_theta >= 1
            assert config.vision.depth > max(config.vision.fullatt_block_indexes, default=0)
    assert refused > 500


# ---------------------------------------------------------------------------- pictures

PIL = "transformers.models.qwen2_vl.image_processing_pil_qwen2_vl"
SETTINGS = {"min_pixels": 3136, "max_pixels": 12845056, "patch_size": 14, "temporal_patch_size": 2}
SETTINGS |= {"merge_size": 2, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.2, 0.3, 0.4]}


def test_image_configs_of_every_age(tmp_path):
    """transformers reads each folder of ours as we do."""
    processing = pytest.importorskip(PIL)
    older, newer = (tmp_path / f"{name}_config.json" for name in ("preprocessor", "processor"))

    def check(wanted):
        ours = load_image_config(tmp_path)
        theirs = processing.Qwen2VLImageProcessorPil.from_pretrained(tmp_path)
        assert image_config_from_hf(json.loads(theirs.to_json_string())) == ours == wanted

    older.write_text(json.dumps(SETTINGS), encoding="utf-8")
    wanted = ImageConfig(max_pixels=12845056, mean=(0.5,) * 3, std=(0.2, 0.3, 0.4))
    check(wanted)
    newer.write_text(json.dumps({"processor_class": "Qwen2_5_VLProcessor"}), encoding="utf-8")
    check(wanted)
    written = processing.Qwen2VLImageProcessorPil(
        size={"shortest_edge": 3136, "longest_edge": 9999}
    )
    parts = {"image_processor": json.loads(written.to_json_string()), "processor_class": "x"}
    newer.write_text(json.dumps(parts), encoding="utf-8")
    check(ImageConfig(max_pixels=9999))  # the newer file counts
    older.unlink()
    check(ImageConfig(max_pixels=9999))
    assert image_config_from_hf(image_config_to_hf(wanted)) == wanted


REFUSED_PICTURES = {
    "no resizing": ({"do_resize": False}, "do_resize False is not supported; it must be True"),
    "no normalizing": ({"do_normalize": False}, "do_normalize False"),
    "no rescaling": ({"do_rescale": False}, "do_rescale False"),
    "no conversion": ({"do_convert_rgb": False}, "do_convert_rgb False"),
    "another scale": ({"rescale_factor": 1 / 127.5}, "rescale_factor 0.0078.* must be 0.0039"),
    "bilinear": ({"resample": 2}, "resample 2 is not supported; it must be 3"),
    "cropping": ({"do_center_crop": True}, "do_center_crop True"),
    "std 0": ({"image_std": [0, 0.3, 0.3]}, "image_std is 0"),
    "two means": ({"image_mean": [0.5, 0.5]}, "image_mean .* must be a list of 3 numbers"),
    "a mean": ({"image_mean": 0.5}, "image_mean is 0.5"),
    "no std": ({"image_std": None}, "lacks image_std"),
    "least above most": ({"min_pixels": 10**8}, "min_pixels 100000000 must not be above"),
    "least 0": ({"min_pixels": 0}, "min_pixels is 0"),
    "patch 0": ({"patch_size": 0}, "patch_size is 0"),
    "patch a word": ({"patch_size": "14"}, "patch_size is '14'"),
    "coordinates": ({"coordinates": 1}, "coordinates is 1, but must be true or false"),
    "size a list": ({"size": [1]}, "size is \\[1\\]"),
}


@pytest.mark.parametrize("name", REFUSED_PICTURES)
def test_unusable_image_config_is_refused_by_name(name):
    changes, message = REFUSED_PICTURES[name]
    with pytest.raises(CheckpointError, match=f"^preprocessor_config.json: {message}"):
        image_config_from_hf(SETTINGS | changes)


def test_missing_image_config_is_named(tmp_path):
    with pytest.raises(UserError, match="preprocessor_config.json: no such file"):
        load_image_config(tmp_path)
    (tmp_path / "processor_config.json").write_text('{"image_processor": [1]}', encoding="utf-8")
    with pytest.raises(CheckpointError, match="processor_config.json: image_processor is "):
        load_image_config(tmp_path)
