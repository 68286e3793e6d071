"""train.py at a tiny size: what a run leaves behind, resuming, several ranks, and refusals.

Run by torchrun, this file is one rank of a test.
"""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT, prepare, torchrun

import eval as evaluate
import rl
import train
from data.rooms.recipe import SETTINGS, Rooms
from nanoladder import checkpoint, predict, scoring
from nanoladder.command import Stopped, UserError
from nanoladder.files import read_json, read_jsonl, write_json
from nanoladder.image import ImageConfig, preprocess
from nanoladder.loop import Loop
from nanoladder.lora import LINEARS
from nanoladder.model import PRESETS, Qwen2_5_VL
from nanoladder.photos import load_image
from nanoladder.recipe import Recipe
from nanoladder.runtime import start_runtime
from nanoladder.schema import DATA_TYPES, rows_of
from nanoladder.tokenizer import Tokenizer, config_for_tokenizer

TINY = [
    *("--steps", "6", "--batch-size", "4", "--micro-batch-size", "2", "--eval-rows", "12"),
    *("--eval-every", "1000", "--save-every", "2", "--init", "scratch"),
    *("--no-freeze-vision", "--no-compile", "--no-amp"),
]
BOXES = ["--mix", "localization=1"]  # quicker than with the questions of stage 0
SHORT = 16  # tokens of an answer: an untrained model does not end its answers


@pytest.fixture(scope="module", autouse=True)
def quick_scores():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predict, "MAX_NEW_TOKENS", SHORT)
        patch.setattr(scoring, "VAL_ROWS", 14)
        yield


def flags_of(rooms, out, *flags, stage="1"):
    boxes = BOXES if stage == "1" else []
    return ["--stage", stage, "--data", str(rooms), "--out", str(out), *TINY, *boxes, *flags]


def run(rooms, out, *flags, stage="1"):
    train.main(flags_of(rooms, out, *flags, stage=stage))


def run_on_two_ranks(*runs):
    """Runs of train.py, each with its flags, one after the other on the same two ranks."""
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [*torchrun(), __file__, json.dumps(runs)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, env=env)
    assert done.returncode == 0, done.stderr.decode(errors="replace")


def weights(run_folder):
    return weights_of(run_folder / "checkpoint")


def weights_of(folder):
    return checkpoint.load(folder).state_dict()


def settings_of(run_folder):
    return read_json(run_folder / "run.json")["settings"]


@pytest.fixture(scope="module")
def finished(rooms, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "stage1"
    run(rooms, out)
    return out


@pytest.fixture(scope="module")
def spatial_rooms(tmp_path_factory):
    """Rooms with views, walks, several questions and traces."""
    folder = tmp_path_factory.mktemp("data") / "spatial"
    sets = ["--view-sets", "6", "--videos", "6"]
    prepare(folder, *sets, "--questions", "4", "--traces", "30", "--seeing")
    return folder


# ---------------------------------------------------------------- runs


def test_a_run_leaves_what_the_readme_says(finished):
    assert {p.name for p in finished.iterdir()} == {
        *("checkpoint", "run.json", "metrics.jsonl", "scores.json", "predictions.jsonl"),
        *("samples.png", "report.html", ".lock"),
    }
    scores = read_json(finished / "scores.json")["localization"]
    for split in ("test", "ood"):
        parts = ("iou", "acc50", "valid_json", "label_f1", "constant_iou")
        assert {*parts, "interval", "n", "levels", "cut"} == set(scores[split])
        assert all(0 <= scores[split][k] <= 1 for k in parts)
    about = read_json(finished / "run.json")
    assert about["settings"]["seed"] == 0 and about["settings"]["recipe"] == "rooms"
    assert about["environment"]["torch"] == torch.__version__
    answers = read_jsonl(finished / "predictions.jsonl")
    assert {"prompt", "images", "decoding", "answer", "truth", "scores", "split"} <= set(answers[0])
    assert {answer["form"] for answer in answers} == {"boxes"}


def test_a_finished_run_is_never_overwritten(finished, rooms):
    with pytest.raises(UserError, match="finished run"):
        run(rooms, finished)
    with pytest.raises(UserError, match="nothing to resume"):
        run(rooms, finished.parent / "new", "--resume")


def test_a_killed_and_a_stopped_run_resume_bit_for_bit(finished, rooms, tmp_path, monkeypatch):
    """Killed when it has saved step 2, and stopped by Ctrl-C in step 5, which is then saved."""

    class Killed(Exception):
        pass

    def save_and_die(folder, state, save=checkpoint.save_state):
        save(folder, state)
        raise Killed

    def end_step(loop, end_step=Loop.end_step):
        if loop.step == 5:
            signal.raise_signal(signal.SIGINT)
        end_step(loop)

    cut = tmp_path / "cut"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(checkpoint, "save_state", save_and_die)
        run(rooms, cut)
    with pytest.raises(UserError, match="unfinished run"):
        run(rooms, cut)
    about = read_json(cut / "run.json")
    settings = about["settings"] | {"climb": 0.3}
    write_json(cut / "run.json", about | {"settings": settings})
    with pytest.raises(UserError, match="setting climb .*another script or version"):
        run(rooms, cut, "--resume")
    for name, value in (("data", about["data"] | {"rows": 1}), ("prompts", {})):
        write_json(cut / "run.json", about | {name: value})
        with pytest.raises(UserError, match="began with other (rows|prompts): restore"):
            run(rooms, cut, "--resume")
    write_json(cut / "run.json", about)
    with monkeypatch.context() as patch, pytest.raises(Stopped, match="step 5 of 6 steps"):
        patch.setattr(Loop, "end_step", end_step)
        run(rooms, cut, "--resume")
    run(rooms, cut, "--resume")
    whole, resumed = weights(finished), weights(cut)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_tokens_that_a_stage_never_uses_keep_their_embeddings(rooms, tmp_path):
    """Stage 1 answers with labels and boxes. Tokens such as "A" and "<think>" must not change."""
    run(rooms, tmp_path / "next", "--steps", "2", "--init", "base", "--eval-rows", "1")
    before, after = (
        state["model.embed_tokens.weight"]
        for state in (weights_of(checkpoint.BASE), weights(tmp_path / "next"))
    )
    tok = Tokenizer.load(checkpoint.BASE)
    unused, used = (
        torch.tensor([tok.encode(word)[0] for word in words])
        for words in (
            ["<", ">", "A", "think", " meters", " left"],
            ["0", "9", '[{"label":"', " the", "Locate"],
        )
    )
    assert torch.equal(before[unused], after[unused])
    assert (before[used] != after[used]).any(1).all()


def test_a_frozen_vision_encoder_stays_as_it_is(finished, rooms, tmp_path):
    flags = ["--init", str(finished), "--freeze-vision", "--steps", "2", "--eval-rows", "0"]
    run(rooms, tmp_path / "out", *flags)
    assert not (tmp_path / "out" / "scores.json").exists()  # with 0 rows none are wanted
    assert (tmp_path / "out" / "report.html").exists()
    before, after = weights(finished), weights(tmp_path / "out")
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert same == {name for name in before if name.startswith("visual.")}


def test_blank_images_stay_blank_in_the_checkpoint(finished, rooms, tmp_path):
    s = train.Settings(init=str(finished), blank_images=True)
    checkpoint.save(tmp_path / "blank", *train.build_policy(s, [], torch.device("cpu")))
    pictures = [load_image(path) for path in sorted(rooms.glob("test/images/*/*00.png"))[:2]]
    for folder, alike in ((finished, False), (tmp_path / "blank", True)):
        (first, _), (second, _) = (
            preprocess([picture], checkpoint.Policy.load(folder).image_config)
            for picture in pictures
        )
        assert torch.allclose(first, second, atol=1e-6) == alike


def test_stage_0_trains_and_its_checkpoint_feeds_stage_1(rooms, tmp_path):
    run(rooms, tmp_path / "base", "--steps", "2", stage="0")
    scores = read_json(tmp_path / "base" / "scores.json")
    assert set(scores) == {"seeing", "floor", "map_arithmetic"}
    assert 0 <= scores["seeing"]["test"]["accuracy"] <= 1
    assert "describe" in scores["seeing"]["test"]["types"]
    assert read_jsonl(tmp_path / "base" / "metrics.jsonl")[-1]["auxiliary_loss"] > 1
    start = ["--init", str(tmp_path / "base"), "--mix", SETTINGS["1"]["mix"]]
    run(rooms, tmp_path / "next", "--steps", "1", "--eval-rows", "2", *start)
    scores = read_json(tmp_path / "next" / "scores.json")
    assert set(scores) == {"localization", "seeing", "floor"}
    assert read_jsonl(tmp_path / "next" / "metrics.jsonl")[-1]["auxiliary_loss"] == 0


def test_stage_2_mixes_kinds_and_scores_each_benchmark(spatial_rooms, tmp_path, capsys):
    out, flags = tmp_path / "out", ["--questions-per-sequence", "2", "--eval-every", "3"]
    run(spatial_rooms, out, "--steps", "3", "--eval-rows", "8", *flags, stage="2")
    before, memory, _ = capsys.readouterr().out.partition("\nmemory with the largest pictures")
    rows = sum(1 + len(line) // 100 for line in before.splitlines())  # of a screen
    assert memory and rows < 24
    scores = read_json(out / "scores.json")
    benchmarks = {"rooms-si", "rooms-mv", "rooms-video"}
    twins, others = (
        {name + "-ood" for name in benchmarks},
        {"localization", "seeing", "floor", "map_arithmetic"},
    )
    averages = {"overall", "overall-ood", "intervals"}
    assert set(scores) == others | averages | benchmarks | twins
    wanted = {"avg", "micro", "nq", "mcq", "types", "constant", "shuffled", "n"}
    wanted |= {"interval", "nq_interval", "mcq_interval", "cut"}
    assert all(set(scores[name]) == wanted for name in benchmarks | twins)
    assert scores["overall"] == pytest.approx(sum(scores[name]["avg"] for name in benchmarks) / 3)
    val = read_jsonl(out / "metrics.jsonl")[-1]["val"]
    assert set(val) == others | set(DATA_TYPES)

    # eval.py asks the same rows and finds the same scores.
    data = ["--data", str(spatial_rooms), "--rows", "8", "--max-new-tokens", str(SHORT)]
    asked = [*data, "--bench", "rooms-si", "localization", "rooms-mv-ood"]
    evaluate.main(["--model", str(out), *asked])
    again = read_json(out / "eval" / "scores.json")
    assert again["rooms-si"] == scores["rooms-si"]
    assert again["rooms-mv-ood"] == scores["rooms-mv-ood"]
    assert again["localization"] == {"test": scores["localization"]["test"]}
    with pytest.raises(UserError, match="finished run"):
        evaluate.main(["--model", str(out), *asked])
    capsys.readouterr()
    evaluate.main(["--compare", str(out), str(out / "eval")])
    lines = capsys.readouterr().out.splitlines()
    assert lines and all("+0.000 [+0.000, +0.000]" in text for text in lines)


def test_rows_follow_the_settings(spatial_rooms):
    def train_rows(mix, **settings):
        s = train.Settings(data=str(spatial_rooms), stage="2", mix=mix, **settings)
        splits, shares = train.read_data(s, Rooms(), start_runtime())
        return Rooms().select(s, splits["train"]), shares

    for wanted in (True, False):  # --no-rationales: answers alone
        rows, _ = train_rows("video=1", rationales=wanted)
        assert rows and all(bool(row.rationale) == wanted for row in rows)
    for mix, modalities in (("video=1,floor=1", {"video"}), ("localization=1,floor=1", DATA_TYPES)):
        maps = rows_of(train_rows(mix, data_types=("video",))[0], "floor")
        # Maps are restricted only beside the spatial questions that they serve.
        assert {row.data_type for row in maps} == set(modalities)
    rows, shares = train_rows("video=1,single_image=2", data_types=("video",))
    assert shares == {"video": 1.0} and {row.kind for row in rows} == {"video"}


def test_the_cold_start_learns_traces_and_is_scored_thinking(spatial_rooms, tmp_path):
    out = tmp_path / "out"
    run(spatial_rooms, out, "--steps", "1", "--eval-rows", "6", stage="cold")
    scores = read_json(out / "scores.json")
    assert {"rooms-si", "rooms-mv", "rooms-video", "localization"} < set(scores)
    for name in ("rooms-si", "rooms-mv", "rooms-video", "rooms-si-ood"):
        assert 0 <= scores[name]["format"] <= 1
    answers = read_jsonl(out / "predictions.jsonl")
    thought = {a["question_type"] for a in answers if "</think>" in a["prompt"]}
    assert "localization" not in thought and len(thought) > 4 and "trace" not in thought
    assert all(("format" in a["scores"]) == (a["question_type"] in thought) for a in answers)

    data = ["--data", str(spatial_rooms), "--rows", "6", "--max-new-tokens", str(SHORT)]
    bench = ["--bench", "rooms-si", "localization", "--think"]
    evaluate.main(["--model", str(out), *data, *bench])
    again = read_json(out / "eval" / "scores.json")
    assert again["rooms-si"] == scores["rooms-si"]
    assert again["localization"]["test"] == scores["localization"]["test"]


# ---------------------------------------------------------------- a Qwen2.5-VL folder


@pytest.fixture
def small_qwen(qwen, tmp_path):
    """Qwen's own vocabulary and patches, a thousandth of its width."""
    tok, nano = Tokenizer.load(qwen[0]), PRESETS["nano"]
    vision = dataclasses.replace(nano.vision, patch_size=14, window_size=112, in_channels=3)
    config = config_for_tokenizer(dataclasses.replace(nano, vision=vision), tok)
    checkpoint.save(tmp_path / "qwen", Qwen2_5_VL(config), tok, ImageConfig())
    return tmp_path / "qwen"


def test_a_qwen_folder_goes_through_grpo_and_eval(rooms, small_qwen, tmp_path, monkeypatch):
    """With LoRA: afterwards it is a plain folder that eval.py takes."""
    recomputed = []

    def spy(s, model, frozen, recompute, prepare_model=rl.prepare_model):
        recomputed.append(recompute and not frozen)
        prepare_model(s, model, frozen, recompute)

    monkeypatch.setattr(rl, "prepare_model", spy)
    flags = ["--task", "localization", "--steps", "1", "--prompts-per-step", "2"]
    flags += ["--max-new-tokens", "4"]
    flags += ["--eval-rows", "1", "--lora-rank", "2", "--data", str(rooms)]
    rl.main(["--model", str(small_qwen), *flags, "--out", str(tmp_path / "rl")])
    settings = settings_of(tmp_path / "rl")
    assert (settings["lr"], settings["group_size"], recomputed) == (1e-5, 4, [True])
    flags = ["--bench", "localization", "--rows", "1", "--max-new-tokens", "4"]
    evaluate.main(["--model", str(tmp_path / "rl"), "--data", str(rooms), *flags])
    scores = read_json(tmp_path / "rl" / "eval" / "scores.json")
    assert scores["localization"]["test"]["n"] == 1


def test_a_qwen_folder_trains_with_lora_and_is_a_plain_one_after(rooms, small_qwen, tmp_path):
    flags = ["--lora-rank", "2", "--steps", "2", "--eval-rows", "1"]
    run(rooms, tmp_path / "out", "--model", str(small_qwen), *flags)
    settings = settings_of(tmp_path / "out")
    assert (settings["lr"], settings["muon_lr"], settings["recompute"]) == (1e-4, 0.0, True)
    before, after = weights_of(small_qwen), weights(tmp_path / "out")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert before.keys() == after.keys() and changed
    assert all(name.split(".")[-2] in LINEARS and name.endswith("weight") for name in changed)
    assert Tokenizer.load(tmp_path / "out" / "checkpoint").system


# ---------------------------------------------------------------- several ranks


@pytest.fixture
def every_loss(monkeypatch):
    """The losses of every step are logged."""
    monkeypatch.setattr(train, "LOG_EVERY", 1)


def assert_same_run(first, second, steps):
    """Every step has the same losses, and the weights differ by no more than rounding does."""
    logs = [read_jsonl(folder / "metrics.jsonl") for folder in (first, second)]
    assert [record["step"] for record in logs[0]] == list(range(1, steps + 1))
    for name in ("loss", "auxiliary_loss", "tokens"):
        values = [[record[name] for record in log] for log in logs]
        assert values[0] == pytest.approx(values[1], rel=1e-5), (second, name)
    others = weights(second)
    for name, weight in weights(first).items():
        assert torch.allclose(weight, others[name], atol=2e-4), (second, name)


def test_the_loss_does_not_depend_on_how_a_batch_is_split(rooms, tmp_path, every_loss):
    """Whole, by micro-batches, over two gloo ranks that copy the model, and that split it.

    The first step of stage 0 asks no question, and then the decoder's layers get no gradient.
    """
    common = ["--steps", "3", "--muon-lr", "0", "--eval-rows", "1", "--save-every", "1000"]
    one, seeing = ["--micro-batch-size", "1"], ["--mix", "seeing=1"]
    run(rooms, tmp_path / "whole", *common, "--micro-batch-size", "4")
    run(rooms, tmp_path / "split", *common, *one)
    run(rooms, tmp_path / "whole0", *common, *one, *seeing, stage="0")
    run_on_two_ranks(
        flags_of(rooms, tmp_path / "ddp", *common, *one),
        flags_of(rooms, tmp_path / "fsdp", *common, *one, "--shard"),
        flags_of(rooms, tmp_path / "ddp0", *common, *one, *seeing, stage="0"),
    )
    for other in ("split", "ddp", "fsdp"):
        assert_same_run(tmp_path / "whole", tmp_path / other, steps=3)
    assert_same_run(tmp_path / "whole0", tmp_path / "ddp0", steps=3)
    losses = [record["loss"] for record in read_jsonl(tmp_path / "ddp0" / "metrics.jsonl")]
    assert [loss > 0 for loss in losses] == [False, True, True]


def test_passes_hold_sequences_of_like_length():
    lengths = {i: int(n) for i, n in enumerate(np.random.default_rng(0).integers(40, 600, 96))}
    dataset, order = SimpleNamespace(length=lengths.get), list(lengths)

    def passes(rank, **flags):
        s = train.Settings(batch_size=16, micro_batch_size=4, **flags)
        return train.micro_batches(s, SimpleNamespace(rank=rank, world=2), dataset, order)

    steps = [first + second for first, second in zip(passes(0), passes(1))]
    for number, step in enumerate(steps):
        assert sorted(sum(step, [])) == order[16 * number : 16 * number + 16]
        for keys in step:
            own = [lengths[key] for key in keys]
            assert 0 < len(keys) <= 4 and max(own) <= 2 * min(own)
    assert any(len(a) != len(b) for a, b in zip(passes(0), passes(1)))
    for rank in (0, 1):  # a split model's ranks must call it equally often
        assert {len(step) for step in passes(rank, shard=True)} == {2}


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize("flags, complaint", [
    (["--mix", "smells=1"], "smells"),
    (["--mix", "localization"], "write it as localization=0.3,video=0.7"),
    (["--mix", "localization=0"], "the share of localization must be above 0"),
    (["--shard"], "needs several ranks"),
    (["--init", "nowhere"], "nowhere"),
    (["--freeze-vision"], "no vision encoder yet"),
    (["--init", "base", "--preset", "small"], "--preset is of --init scratch"),
])  # fmt: skip
def test_refusals_come_before_anything_is_written(rooms, tmp_path, flags, complaint):
    with pytest.raises(ValueError, match=complaint) as error:
        run(rooms, tmp_path / "out", *flags)
    assert not (tmp_path / "out").exists() and "\n" not in str(error.value)


def test_a_kind_without_rows_is_refused(rooms, tmp_path):
    shutil.copytree(rooms, tmp_path / "rooms")
    for path in (tmp_path / "rooms").glob("*/spatial.jsonl"):
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if '"data_type": "video"' not in line]
        path.write_text("".join(kept), encoding="utf-8")
    with pytest.raises(UserError, match="no video rows"):
        run(tmp_path / "rooms", tmp_path / "out", "--mix", "localization=1,video=1")
    assert not (tmp_path / "out").exists()


def test_a_stage_without_a_mixture_never_learns_other_kinds_than_the_rooms_could_make(tmp_path):
    class Told(Exception):
        pass

    class Maker(Recipe):
        def make(self, data, stage, kinds):
            raise Told(kinds)

    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "localization.jsonl").touch()
    s = SimpleNamespace(stage="2", data=str(tmp_path), mix=None, data_types=("video",))
    with pytest.raises(Told, match="'video'"):  # not the boxes that are there
        train.read_data(s, Maker(), SimpleNamespace(main=True))


def test_rooms_are_never_made_in_a_folder_of_other_data(rooms, tmp_path):
    own = tmp_path / "own"
    ignored = shutil.ignore_patterns("prepare.json", "seeing.jsonl", "images")
    shutil.copytree(rooms, own, ignore=ignored)
    before = {path: path.read_bytes() for path in own.rglob("*") if path.is_file()}
    mix = ["--mix", SETTINGS["1"]["mix"]]
    with pytest.raises(UserError, match="seeing.jsonl: no such file"):
        run(own, tmp_path / "out", *mix)
    with pytest.raises(UserError, match="seeing.jsonl is missing, and .*own holds other files"):
        run(own, tmp_path / "out", *mix, "--recipe", "rooms")
    assert before == {path: path.read_bytes() for path in own.rglob("*") if path.is_file()}
    assert not (tmp_path / "out").exists()


def test_a_script_prints_one_line(tmp_path):
    data, out = tmp_path / "rooms", tmp_path / "out"
    for split, text in (("ood", ""), ("train", "{broken\n")):
        (data / split).mkdir(parents=True)
        (data / split / "localization.jsonl").write_text(text, encoding="utf-8")
    command = [sys.executable, "train.py", "--data", str(data), "--out", str(out), *BOXES]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert "localization.jsonl:1" in done.stderr and not out.exists()


if __name__ == "__main__":
    torch.set_num_threads(1)
    predict.MAX_NEW_TOKENS, train.LOG_EVERY = SHORT, 1
    for argv in json.loads(sys.argv[1]):
        train.main(argv)
