"""Checkpoints go to transformers and back, damage is named, and a run's state survives exactly."""

import dataclasses
import json
import os
import random
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from nanoladder import checkpoint
from nanoladder.checkpoint import (
    CheckpointError,
    config_from_hf,
    config_to_hf,
    find,
    load,
    load_image_config,
    load_state,
    save,
    save_state,
)
from nanoladder.command import UserError
from nanoladder.image import ImageConfig, preprocess
from nanoladder.model import PRESETS, Config, Qwen2_5_VL, mrope_position_ids

NANO = dataclasses.replace(
    PRESETS["nano"],
    vocab_size=300,
    num_hidden_layers=2,
    image_token_id=5,
    video_token_id=6,
    vision_start_token_id=7,
    vision_end_token_id=8,
    eos_token_id=1,
    pad_token_id=0,
)
IMAGES = ImageConfig(patch_size=8, min_pixels=32 * 32, max_pixels=96 * 96, coordinates=True)


class FakeTokenizer:
    def save(self, folder):
        (folder / "tokenizer.json").write_text("{}", encoding="utf-8")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A nano checkpoint and the model it was written from; copy it before breaking it."""
    torch.manual_seed(0)
    model = Qwen2_5_VL(NANO)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    folder = tmp_path_factory.mktemp("saved") / "nano"
    save(folder, model, FakeTokenizer(), IMAGES)
    return folder, model


@pytest.fixture
def broken(saved, tmp_path):
    """A copy of the saved folder, to break."""
    return shutil.copytree(saved[0], tmp_path / "broken")


def test_saved_checkpoint_comes_back(saved):
    folder, model = saved
    names = {path.name for path in folder.iterdir()}
    jsons = {"config.json", "generation_config.json", "preprocessor_config.json", "tokenizer.json"}
    assert names == {"model.safetensors", *jsons}
    again, config = load(folder)
    assert config == NANO and load_image_config(folder) == IMAGES
    assert again.lm_head.weight is again.model.embed_tokens.weight
    pairs = zip(model.named_parameters(), again.named_parameters(), strict=True)
    for (name, one), (other_name, other) in pairs:
        assert name == other_name and torch.equal(one, other) and other.requires_grad
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    with torch.no_grad():  # the tensors may lie on the file itself: training must not write through
        again.model.norm.weight.zero_()
    assert torch.equal(load(folder)[0].model.norm.weight, model.model.norm.weight)
    assert load(folder, dtype=torch.bfloat16)[0].lm_head.weight.dtype == torch.bfloat16


def test_run_folder_stands_for_its_checkpoint(saved, tmp_path):
    checkpoint = shutil.copytree(saved[0], tmp_path / "run" / "checkpoint")
    assert find(tmp_path / "run") == find(checkpoint) == checkpoint
    checkpoint.rename(tmp_path / "run" / ".checkpoint.old")  # what a kill while saving leaves
    assert find(tmp_path / "run") == checkpoint and (checkpoint / "config.json").exists()


def test_transformers_opens_it_and_computes_the_same(saved):
    transformers = pytest.importorskip("transformers", minversion="5.3")
    folder, model = saved
    load_theirs = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained
    theirs, info = load_theirs(folder, output_loading_info=True)
    assert not any(info.values())
    image = torch.randint(0, 256, (64, 96, 3), dtype=torch.uint8).numpy()
    pixel_values, grids = preprocess([image], load_image_config(folder))
    ids = [9, 7, *[5] * 24, 8, 10, 11]
    positions, _ = mrope_position_ids(ids, grids, [], [], NANO)
    ids = torch.tensor([ids])
    wanted = theirs(
        input_ids=ids,
        pixel_values=pixel_values,
        image_grid_thw=torch.tensor(grids),
        mm_token_type_ids=(ids == 5).int(),
    ).logits
    logits = model.lm_head(model(ids, positions[:, None], model.visual(pixel_values, grids)))
    torch.testing.assert_close(logits, wanted, atol=1e-4, rtol=0)
    processing = pytest.importorskip("transformers.models.qwen2_vl.image_processing_pil_qwen2_vl")
    theirs = processing.Qwen2VLImageProcessorPil.from_pretrained(folder)
    colours = pixel_values.view(len(pixel_values), 6, -1)[:, :3].flatten(1)  # without coordinates
    assert torch.equal(theirs([image], return_tensors="pt")["pixel_values"], colours)


def test_what_transformers_saves_opens_here(saved, tmp_path):
    """transformers writes a nested config and, here, several shards."""
    transformers = pytest.importorskip("transformers", minversion="5.3")
    folder, model = saved
    theirs = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(folder)
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="1MB")
    assert (tmp_path / "theirs" / "model.safetensors.index.json").exists()
    config = (tmp_path / "theirs" / "config.json").read_text(encoding="utf-8")
    assert "text_config" in json.loads(config)
    again, config = load(tmp_path / "theirs")
    assert config == NANO and equal_weights(again, model)


def equal_weights(one, other):
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def rename_nested(name):
    """The name of a tensor in the layout that has model.language_model."""
    prefix = "model." if name.startswith("visual.") else "model.language_model."
    return prefix + name.removeprefix("model.")


def test_nested_names_and_shards_open(saved, broken):
    tensors = load_file(broken / "model.safetensors")
    tensors = {rename_nested(name): value for name, value in tensors.items()}
    (broken / "model.safetensors").unlink()
    names = sorted(tensors)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in shards.items():
        save_file({name: tensors[name] for name in part}, broken / file)
    index = {"weight_map": {name: file for file, part in shards.items() for name in part}}
    path = broken / "model.safetensors.index.json"
    path.write_text(json.dumps(index), encoding="utf-8")
    again, _ = load(broken)
    assert equal_weights(again, saved[1])
    (broken / "b.safetensors").unlink()
    with pytest.raises(CheckpointError, match="b.safetensors: no such file"):
        load(broken)


def edit(change):
    """A breakage of the tensors: change(dict of tensors) changes them in place."""

    def apply(folder):
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors")

    return apply


def cut(folder):
    os.truncate(folder / "model.safetensors", 100_000)


def scribble(folder):
    with open(folder / "model.safetensors", "r+b") as file:
        file.write(b"\xff" * 64)


def set_config(**changes):
    def apply(folder):
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        (folder / "config.json").write_text(json.dumps(config | changes), encoding="utf-8")

    return apply


def remove(name):
    return lambda folder: (folder / name).unlink()


def overwrite(name, text):
    return lambda folder: (folder / name).write_text(text, encoding="utf-8")


DAMAGED = "model.safetensors: damaged or truncated"
# name: (breakage, pattern of the message, type of the error)
BREAKAGES = {
    "missing tensor": (
        edit(lambda t: t.pop("model.norm.weight")),
        "1 missing .* model.norm.weight",
        CheckpointError,
    ),
    "unexpected tensor": (
        edit(lambda t: t.update({"model.x": torch.ones(1)})),
        "unexpected tensor model.x",
        CheckpointError,
    ),
    "misshapen tensor": (
        edit(lambda t: t.update({"model.norm.weight": torch.ones(7)})),
        r"norm.weight .*\(7,\).*\(128,\)",
        CheckpointError,
    ),
    "truncated": (cut, DAMAGED, CheckpointError),
    "scribbled header": (scribble, DAMAGED, CheckpointError),
    "no weights": (
        remove("model.safetensors"),
        "model.safetensors: no such file",
        CheckpointError,
    ),
    "no config": (remove("config.json"), "config.json: no such file", UserError),
    "broken config": (overwrite("config.json", "{"), "config.json: not valid JSON", UserError),
    "another family": (
        set_config(model_type="qwen3_vl"),
        "config.json: architecture qwen3_vl",
        CheckpointError,
    ),
    "incomplete config": (
        set_config(hidden_size=None),
        "config.json: lacks hidden_size",
        CheckpointError,
    ),
    "scaled rope": (
        set_config(rope_scaling={"rope_type": "yarn"}),
        "rope type yarn",
        CheckpointError,
    ),
    "sliding window": (set_config(use_sliding_window=True), "sliding window", CheckpointError),
    "another activation": (set_config(hidden_act="gelu"), "activation gelu", CheckpointError),
}


@pytest.mark.parametrize("name", BREAKAGES)
def test_damage_is_named_in_one_line(broken, name):
    breakage, message, kind = BREAKAGES[name]
    breakage(broken)
    with pytest.raises(UserError, match=message) as error:
        load(broken)
    assert type(error.value) is kind and "\n" not in str(error.value)


def test_incomplete_image_config_is_named(broken):
    overwrite("preprocessor_config.json", '{"image_mean": [0.5, 0.5, 0.5]}')(broken)
    with pytest.raises(CheckpointError, match="preprocessor_config.json: lacks .*image_std"):
        load_image_config(broken)


def test_newer_image_limits_are_read(broken):
    path = broken / "preprocessor_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    least, most = config.pop("min_pixels"), config.pop("max_pixels")
    config["size"] = {"shortest_edge": least, "longest_edge": most}
    path.write_text(json.dumps(config), encoding="utf-8")
    assert load_image_config(broken) == IMAGES


def test_configs_of_every_layout():
    for config in (*PRESETS.values(), Config(), Config(tie_word_embeddings=False)):
        hf = json.loads(json.dumps(config_to_hf(config)))
        assert config_from_hf(hf) == config
        top = {"model_type", "architectures", "vision_config", "tie_word_embeddings"}
        top |= {"image_token_id", "video_token_id"}
        top |= {"vision_start_token_id", "vision_end_token_id"}
        text = {key: value for key, value in hf.items() if key not in top}
        rope = {"rope_type": "default", "rope_theta": text.pop("rope_theta")}
        rope |= text.pop("rope_scaling")
        nested = {key: hf[key] for key in top} | {"text_config": text | {"rope_parameters": rope}}
        assert config_from_hf(nested) == config


def test_kill_between_the_renames_loses_nothing(saved, tmp_path, monkeypatch):
    folder = shutil.copytree(saved[0], tmp_path / "run" / "nano")
    other = Qwen2_5_VL(NANO)
    rename, calls = os.rename, []

    def rename_once(*paths):
        calls.append(paths)
        if len(calls) == 2:
            raise KeyboardInterrupt
        rename(*paths)

    monkeypatch.setattr(checkpoint.os, "rename", rename_once)
    with pytest.raises(KeyboardInterrupt):
        save(folder, other)
    monkeypatch.undo()
    assert not folder.exists()
    assert torch.equal(load(folder)[0].model.norm.weight, saved[1].model.norm.weight)
    save(folder, other)
    assert torch.equal(load(folder)[0].lm_head.weight, other.lm_head.weight)
    assert [path.name for path in folder.parent.iterdir()] == ["nano"]
    assert not (folder / "tokenizer.json").exists()  # the whole folder was replaced


def same(a, b):
    """Whether two states are equal in value and type at every depth."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return type(b) is dict and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def test_state_comes_back_exactly(tmp_path):
    shared, square, line = torch.randn(3), torch.randn(3, 3), torch.arange(10.0)
    state = {
        **{"step": 7, "ratio": 0.1 + 0.2, "infinite": float("inf"), "none": None, "flag": True},
        **{3: "int", "3": "str", "empty": {}, "list": []},
        **{"python": random.getstate(), "torch": torch.get_rng_state()},
        "nested": [{"a": (1, [torch.tensor(2)])}],
        "views": [line[2:5], line[3:6]],
        "square": [square, square.T],
        "turned": torch.randn(2, 3).T,
        "half": shared.bfloat16(),
        "shared": [shared, shared],
        "nothing": [torch.zeros(0), torch.zeros(0, 4)],
    }
    save_state(tmp_path / "deep" / "state.safetensors", state)
    again = load_state(tmp_path / "deep" / "state.safetensors")
    assert same(state, again)
    assert again["shared"][0] is again["shared"][1]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["state.safetensors"]


def steps(model, optimizers, number):
    """Losses of some training steps on random tokens from the global generator."""
    losses = []
    for _ in range(number):
        ids = torch.randint(10, 300, (2, 9))
        logits = model.lm_head(model(ids, torch.arange(9).expand(3, 2, -1)))
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def optimizers_of(model):
    decay = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim == 1]
    return [torch.optim.AdamW(decay, lr=1e-3), torch.optim.SGD(rest, lr=1e-2, momentum=0.9)]


def test_resumed_run_is_the_same_run(tmp_path):
    torch.manual_seed(0)
    model = Qwen2_5_VL(NANO)
    optimizers = optimizers_of(model)
    steps(model, optimizers, 2)
    state = {"model": model.state_dict(), "optimizers": [o.state_dict() for o in optimizers]}
    save_state(tmp_path / "state.safetensors", state | {"rng": torch.get_rng_state()})
    straight = steps(model, optimizers, 3)

    again = Qwen2_5_VL(NANO)
    optimizers = optimizers_of(again)
    state = load_state(tmp_path / "state.safetensors")
    again.load_state_dict(state["model"])
    for optimizer, one in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(one)
    torch.set_rng_state(state["rng"])
    assert steps(again, optimizers, 3) == straight and equal_weights(again, model)


def test_kill_while_writing_keeps_the_old_state(tmp_path, monkeypatch):
    path = tmp_path / "state.safetensors"
    save_state(path, {"step": 1})

    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint.os, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        save_state(path, {"step": 2})
    monkeypatch.undo()
    assert load_state(path) == {"step": 1}
    save_state(path, {"step": 3})
    assert load_state(path) == {"step": 3}


def test_file_that_holds_no_state_is_named(tmp_path):
    path = tmp_path / "state.safetensors"
    with pytest.raises(CheckpointError, match="state.safetensors: no such file"):
        load_state(path)
    save_state(path, {"x": torch.ones(1000)})
    os.truncate(path, 500)
    with pytest.raises(CheckpointError, match="state.safetensors: damaged"):
        load_state(path)
    save_file({"x": torch.ones(1)}, path)
    with pytest.raises(CheckpointError, match="state.safetensors: .*not a run's state"):
        load_state(path)
    with pytest.raises(TypeError):
        save_state(path, {"x": object()})
