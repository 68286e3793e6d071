"""Checkpoints go to transformers and back, damage is named, and a run's state survives exactly."""

import dataclasses
import json
import math
import os
import random
import shutil
import types

import pytest
import torch
from safetensors.torch import load_file, save_file

from nanoladder import checkpoint
from nanoladder.checkpoint import (
    BASE,
    CheckpointError,
    Policy,
    State,
    all_finite,
    check_state,
    find,
    load,
    load_image_config,
    load_state,
    save,
    save_state,
)
from nanoladder.command import UserError
from nanoladder.image import ImageConfig, preprocess
from nanoladder.model import PRESETS, Qwen2_5_VL, mrope_position_ids
from nanoladder.tokenizer import Tokenizer

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
    again = load(folder)
    assert again.config == NANO and load_image_config(folder) == IMAGES
    assert again.lm_head.weight is again.model.embed_tokens.weight
    pairs = zip(model.named_parameters(), again.named_parameters(), strict=True)
    for (name, one), (other_name, other) in pairs:
        assert name == other_name and torch.equal(one, other) and other.requires_grad
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    with torch.no_grad():  # the tensors may lie on the file itself: training must not write through
        again.model.norm.weight.zero_()
    assert torch.equal(load(folder).model.norm.weight, model.model.norm.weight)
    assert load(folder, keep_bf16=True).lm_head.weight.dtype == torch.float32


def test_stored_bf16_stays_where_it_may(saved, tmp_path):
    save(tmp_path / "half", load(saved[0]).bfloat16(), FakeTokenizer(), IMAGES)
    kept, widened = (load(tmp_path / "half", keep_bf16=keep).lm_head.weight for keep in (1, 0))
    assert (kept.dtype, widened.dtype) == (torch.bfloat16, torch.float32)
    assert torch.equal(kept.float(), widened)


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
    again = load(tmp_path / "theirs")
    assert again.config == NANO and equal_weights(again, model)


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
    again = load(broken)
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


def set_config(name="config.json", **changes):
    def apply(folder):
        config = json.loads((folder / name).read_text(encoding="utf-8"))
        (folder / name).write_text(json.dumps(config | changes), encoding="utf-8")

    return apply


def remove(name):
    return lambda folder: (folder / name).unlink()


def overwrite(name, text):
    return lambda folder: (folder / name).write_text(text, encoding="utf-8")


def replace_by_folder(folder):
    remove("model.safetensors")(folder)
    (folder / "model.safetensors").mkdir()


def index_of(weight_map):
    """A folder whose index has this weight_map; what it may name lies there, good and bad."""

    def apply(folder):
        shutil.copy(folder / "model.safetensors", folder.parent / "elsewhere.safetensors")
        os.rename(folder / "model.safetensors", folder / "a.safetensors")
        index = {"metadata": {}} if weight_map is None else {"weight_map": weight_map}
        overwrite("model.safetensors.index.json", json.dumps(index))(folder)

    return apply


def fill(value):
    return edit(lambda t: t["model.norm.weight"][3:4].fill_(value))


def retype(dtype):
    return edit(lambda t: t.update({"model.norm.weight": t["model.norm.weight"].to(dtype)}))


NORM = "model.safetensors: tensor 'model.norm.weight'"
DAMAGED = "model.safetensors: damaged or truncated"
NOT_OURS = "index.json: .* is no name of a shard in its own folder"
# name: (breakage, pattern of the message)
BREAKAGES = {
    "missing tensor": (
        edit(lambda t: t.pop("model.norm.weight")),
        "1 missing .*model.norm.weight",
    ),
    "unexpected tensor": (
        edit(lambda t: t.update({"model.x\ny": torch.ones(1)})),
        "tensor 'model.x.*' is unexpected",
    ),
    "misshapen tensor": (
        edit(lambda t: t.update({"model.norm.weight": torch.ones(7)})),
        rf"{NORM} has shape \(7,\), config wants \(128,\)",
    ),
    "one tensor under two names": (
        edit(lambda t: t.update({"model.language_model.norm.weight": torch.ones(128)})),
        "norm.weight' is also in",
    ),
    "NaN": (fill(math.nan), f"{NORM} holds NaN or infinity"),
    "infinity": (fill(-math.inf), f"{NORM} holds NaN or infinity"),
    "whole numbers": (retype(torch.int64), f"{NORM} has type I64, not F32"),
    "truth values": (retype(torch.bool), f"{NORM} has type BOOL"),
    "eight bits": (retype(torch.float8_e4m3fn), f"{NORM} has type F8_E4M3"),
    "another head": (
        edit(lambda t: t.update({"lm_head.weight": torch.ones(300, 128)})),
        "lm_head.weight differs from model.embed_tokens.weight, but config.json has tie_word",
    ),
    "truncated": (cut, DAMAGED),
    "scribbled header": (scribble, DAMAGED),
    "empty": (overwrite("model.safetensors", ""), DAMAGED),
    "a folder": (replace_by_folder, "model.safetensors: not a file"),
    "no weights": (remove("model.safetensors"), "model.safetensors: no such file"),
    "another folder's shard": (index_of({"x": "../elsewhere.safetensors"}), NOT_OURS),
    "a whole path": (index_of({"x": "/tmp/elsewhere.safetensors"}), NOT_OURS),
    "a path of Windows": (index_of({"x": "..\\elsewhere.safetensors"}), NOT_OURS),
    "another drive": (index_of({"x": "C:elsewhere.safetensors"}), NOT_OURS),
    "a number as shard": (index_of({"x": 1}), NOT_OURS),
    "no map of shards": (index_of(None), "index.json: lacks weight_map"),
    "shards in a list": (index_of(["a.safetensors"]), "index.json: lacks weight_map"),
    "an index without shards": (index_of({}), "index.json: lacks weight_map"),
    "no config": (remove("config.json"), "config.json: no such file"),
    "broken config": (overwrite("config.json", "{"), "config.json: not valid JSON"),
    "config in a list": (
        overwrite("config.json", "[]"),
        "config.json: must hold JSON of type dict",
    ),
    "another width": (set_config(intermediate_size=100), "has shape .*, config wants "),
    "more layers": (
        set_config(num_hidden_layers=3),
        "missing tensors, the first is .*model.layers.2",
    ),
}


@pytest.mark.parametrize("name", BREAKAGES)
def test_damage_is_named_in_one_line(broken, name):
    breakage, message = BREAKAGES[name]
    breakage(broken)
    with pytest.raises(UserError, match=message) as error:
        load(broken)
    assert "\n" not in str(error.value)


def test_tied_head_may_be_stored_twice(saved, broken):
    edit(lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()}))(broken)
    again = load(broken)
    assert equal_weights(again, saved[1])
    assert again.lm_head.weight is again.model.embed_tokens.weight


def test_headers_are_compared_before_any_tensor_is_read(broken, monkeypatch):
    edit(lambda t: t.pop("visual.merger.mlp.2.bias"))(broken)
    monkeypatch.setattr(torch.Tensor, "to", None)  # load would call it on each tensor
    with pytest.raises(CheckpointError, match="the first is .*visual.merger.mlp.2.bias"):
        load(broken)


def test_random_damage_is_refused_or_harmless(saved, broken):
    """Bytes of the header and of the config change; what still loads is a model like the first."""
    rng, refused = random.Random(0), 0
    for _ in range(30):
        name = rng.choice(["model.safetensors", "config.json"])
        data = bytearray((saved[0] / name).read_bytes())
        data[rng.randrange(2000 if name == "model.safetensors" else len(data))] ^= rng.choice(
            [1, 255]
        )
        (broken / name).write_bytes(data)
        try:
            model = load(broken)
        except UserError as error:
            assert "\n" not in str(error) and str(broken) in str(error)
            refused += 1
        else:
            assert model.num_parameters() == saved[1].num_parameters()
        shutil.copy(saved[0] / name, broken / name)
    assert refused > 15


def test_finite_tensors_are_told_apart():
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        tensor = torch.randn(5, 7).to(dtype)
        assert all_finite(tensor) and all_finite(tensor[:0])
        for value in (math.nan, math.inf, -math.inf):
            tensor[2, 3] = value
            assert not all_finite(tensor)


PARTS = {
    "image token": ("config.json", {"image_token_id": 9}, "image_token_id is 9, but .* has 5"),
    "patches": ("preprocessor_config.json", {"patch_size": 14}, "patch_size is 8, but .* has 14"),
    "coordinates": ("preprocessor_config.json", {"coordinates": False}, "in_channels is 6, but"),
}


@pytest.mark.parametrize("name", PARTS)
def test_parts_of_different_models_are_refused(tmp_path, name):
    file, changes, message = PARTS[name]
    folder = shutil.copytree(BASE, tmp_path / "model")
    set_config(file, **changes)(folder)
    with pytest.raises(CheckpointError, match=f"config.json: {message}"):
        Policy.load(folder)


@pytest.mark.parametrize("text", ["", "{", "[1]", "{}", '{"model": {"type": "BPE"}}'])
def test_damaged_tokenizer_is_named_in_one_line(tmp_path, text):
    (tmp_path / "tokenizer.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="tokenizer.json: damaged or not a tokenizer") as error:
        Tokenizer.load(tmp_path)
    assert "\n" not in str(error.value)
    shutil.copy(BASE / "tokenizer.json", tmp_path)
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(ValueError, match="chat_template.jinja: damaged"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("tied", [True, False])
def test_a_model_made_by_transformers_opens_here(tmp_path, tied):
    """A random Qwen2.5-VL of transformers, saved by it in several shards."""
    transformers = pytest.importorskip("transformers", minversion="5.3")
    vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2}
    vision |= {"out_hidden_size": 48, "window_size": 56, "fullatt_block_indexes": [1]}
    text = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 300}
    text |= {"num_attention_heads": 4, "num_key_value_heads": 2, "eos_token_id": 1}
    text |= {"pad_token_id": 0, "bos_token_id": 0}
    text |= {"rope_parameters": {"rope_type": "default", "mrope_section": [2, 2, 2]}}
    ids = {"image_token_id": 5, "video_token_id": 6}
    ids |= {"vision_start_token_id": 7, "vision_end_token_id": 8, "tie_word_embeddings": tied}
    config = transformers.Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids)
    theirs = transformers.Qwen2_5_VLForConditionalGeneration(config).eval()
    theirs.save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    model = load(tmp_path)
    config = model.config
    assert config.tie_word_embeddings == tied and config.mrope_section == (2, 2, 2)
    ids = torch.randint(10, 300, (1, 12))
    logits = model.lm_head(model(ids, torch.arange(12).expand(3, 1, -1)))
    torch.testing.assert_close(logits, theirs(input_ids=ids).logits, atol=1e-5, rtol=0)


def test_folders_are_not_synced_on_windows(tmp_path, monkeypatch):
    """There, os.open of a folder raises PermissionError."""
    (tmp_path / "file").write_text("x", encoding="utf-8")

    def open_file(path, flags):
        assert flags == os.O_RDWR, "Windows flushes only what is open for writing"
        return os.open(path, flags)

    windows = types.SimpleNamespace(**vars(os) | {"name": "nt", "open": open_file})
    monkeypatch.setattr(checkpoint, "os", windows)
    checkpoint.sync(tmp_path / "file")
    checkpoint.sync(tmp_path)


def test_kill_between_the_renames_loses_nothing(saved, tmp_path, monkeypatch):
    folder = shutil.copytree(saved[0], tmp_path / "run" / "nano")
    other = Qwen2_5_VL(NANO)
    replace = os.replace

    def die_at_the_folder(new, path):
        if path == folder:
            raise KeyboardInterrupt
        replace(new, path)

    monkeypatch.setattr(checkpoint.os, "replace", die_at_the_folder)
    with pytest.raises(KeyboardInterrupt):
        save(folder, other)
    monkeypatch.undo()
    assert not folder.exists()
    assert torch.equal(load(folder).model.norm.weight, saved[1].model.norm.weight)
    save(folder, other)
    assert torch.equal(load(folder).lm_head.weight, other.lm_head.weight)
    assert [path.name for path in folder.parent.iterdir()] == ["nano"]
    assert not (folder / "tokenizer.json").exists()  # the whole folder was replaced


def test_state_comes_back_exactly(tmp_path):
    line, path = torch.arange(10.0), tmp_path / "state.safetensors"
    entries = {
        "views": {"value": line[2:5], "state": {"momentum": line[5:8]}},
        "turned": {"value": torch.randn(2, 3).T, "state": {}},
        "half.weight": {"value": torch.randn(3).bfloat16(), "state": {"step": torch.tensor(2.0)}},
    }
    save_state(path, State(7, 0.1 + 0.2, entries))
    step, seconds, trained = load_state(path)
    assert (step, seconds) == (7, 0.1 + 0.2) and trained.keys() == entries.keys()
    for name, entry in entries.items():
        again = trained[name]
        assert again["value"].dtype == entry["value"].dtype
        assert torch.equal(again["value"], entry["value"])
        assert again["state"].keys() == entry["state"].keys()
        assert all(torch.equal(again["state"][k], v) for k, v in entry["state"].items())
    assert [path.name for path in tmp_path.iterdir()] == ["state.safetensors"]


def test_kill_while_writing_keeps_the_old_state(tmp_path, monkeypatch):
    path = tmp_path / "state.safetensors"
    save_state(path, State(1, 0.0, {}))

    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint.os, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        save_state(path, State(2, 0.0, {}))
    monkeypatch.undo()
    assert load_state(path).step == 1
    save_state(path, State(3, 0.0, {}))
    assert load_state(path).step == 3


def test_file_that_holds_no_state_is_named(tmp_path):
    path = tmp_path / "state.safetensors"
    with pytest.raises(CheckpointError, match="state.safetensors: no such file"):
        load_state(path)
    save_state(path, State(1, 0.0, {"x": {"value": torch.ones(1000), "state": {}}}))
    os.truncate(path, 500)
    with pytest.raises(CheckpointError, match="state.safetensors: damaged"):
        load_state(path)
    for header in (None, {}, {"step": "3"}, {"step": "3.5", "seconds": "1"}, {"step": "x"}):
        save_file({"x": torch.ones(1)}, path, metadata=header)
        with pytest.raises(CheckpointError, match="state.safetensors: not a run's state"):
            load_state(path)


def run_state(step=3):
    """A small model and the state of its run: one parameter each of AdamW and Muon, one unused."""
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 1, bias=False))
    moments = {"step": torch.tensor(3.0), "exp_avg": torch.ones(2), "exp_avg_sq": torch.ones(2)}
    kept = {"0.weight": {"momentum": torch.ones(2, 3)}, "0.bias": moments, "1.weight": {}}
    values = {name: p.detach().clone() for name, p in model.named_parameters()}
    trained = {name: {"value": values[name], "state": kept[name]} for name in kept}
    return State(step, 1.5, trained), model


def spoil(name, key, value):
    """A change of a parameter's value, or of what its optimizer kept; None takes it away."""

    def apply(state):
        entry = state.trained[name]
        part = entry if key == "value" else entry["state"]
        part.update({key: value}) if key == "value" or value is not None else part.pop(key)
        return state

    return apply


def without_optimizers(state):
    entries = {name: entry | {"state": {}} for name, entry in state.trained.items()}
    return state._replace(trained=entries)


SPOILT = {
    "a step below 0": (lambda s: s._replace(step=-1), "step -1 is not in 0 to 10"),
    "a step beyond": (lambda s: s._replace(step=11), "step 11 is not in 0 to 10"),
    "NaN seconds": (lambda s: s._replace(seconds=math.nan), "seconds nan is no duration"),
    "seconds below 0": (lambda s: s._replace(seconds=-1), "seconds -1 is no duration"),
    "no parameters": (lambda s: s._replace(trained={}), "holds no optimizer's state"),
    "another model": (
        lambda s: s._replace(trained={"x": {"value": torch.ones(1), "state": {}}}),
        "'x' is not in this model",
    ),
    "another shape": (
        spoil("0.bias", "value", torch.ones(3)),
        "value of 0.bias is not finite or of",
    ),
    "no value": (spoil("0.bias", "value", None), "value of 0.bias"),
    "NaN": (spoil("0.bias", "value", torch.tensor([1, math.nan])), "value of 0.bias is not finite"),
    "whole numbers": (spoil("0.bias", "value", torch.tensor([1, 2])), "value of 0.bias"),
    "no moment": (spoil("0.bias", "exp_avg_sq", None), "0.bias lacks its optimizer's state"),
    "an infinite moment": (spoil("0.bias", "exp_avg", torch.full((2,), math.inf)), "exp_avg of"),
    "a momentum's shape": (spoil("0.weight", "momentum", torch.ones(3, 2)), "momentum of 0.weight"),
    "no optimizer": (without_optimizers, "holds no optimizer's state"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_state_that_no_run_can_go_on_from_is_refused(name):
    state, model = run_state()
    check_state(state, 10, model, "state.safetensors")
    change, message = SPOILT[name]
    with pytest.raises(
        CheckpointError, match=f"^state.safetensors: this run cannot go on from it: .*{message}"
    ):
        check_state(change(state), 10, model, "state.safetensors")


def test_state_before_the_first_step_needs_no_optimizer():
    state, model = run_state(step=0)
    check_state(without_optimizers(state), 10, model, "state.safetensors")


def test_random_damage_to_a_state_is_refused_or_harmless(tmp_path):
    path, (state, model), rng = tmp_path / "state.safetensors", run_state(), random.Random(0)
    save_state(path, state)
    good, refused = path.read_bytes(), 0
    for _ in range(400):
        data = bytearray(good)
        for _ in range(rng.choice([1, 2])):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data)
        try:
            again = load_state(path)
            check_state(again, 10, model, path)
        except CheckpointError as error:
            assert "\n" not in str(error)
            refused += 1
        else:
            assert 0 <= again.step <= 10
    assert refused > 200
