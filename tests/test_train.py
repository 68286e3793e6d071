"""train.py end to end at a tiny size: what a run leaves behind, resuming, ranks, and refusals before any training."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import ROOT, prepare

import eval as evaluate
import rl
import train
from nanoladder import checkpoint
from nanoladder.common import UserError, start_runtime
from nanoladder.dataset import DATA_TYPES, Dataset, collate, read_rows, rows_of
from nanoladder.image import ImageConfig
from nanoladder.model import PRESETS, Qwen2_5_VL
from nanoladder.tokenizer import Tokenizer

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone", "train.py"]
TINY = ["--steps", "6", "--batch-size", "4", "--micro-batch-size", "2", "--eval-rows", "12", "--eval-every", "1000",
        "--save-every", "2", "--init", "scratch", "--no-freeze-vision", "--no-compile", "--no-amp", "--preset", "nano",
        "--workers", "0", "--max-new-tokens", "16"]  # fmt: skip
BOXES = ["--mix", "localization=1"]  # quicker than with the base's questions


def run(rooms, out, *flags, stage="1"):
    boxes = BOXES if stage == "1" else []
    train.main(["--stage", stage, "--data", str(rooms), "--out", str(out), *TINY, *boxes, *flags])


def weights(folder):
    return weights_of(folder / "checkpoint")


def weights_of(folder):
    return checkpoint.load(folder)[0].state_dict()


@pytest.fixture(scope="module")
def finished(rooms, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "stage1"
    run(rooms, out)
    return out


def test_a_run_leaves_what_the_readme_says(finished, rooms):
    assert {p.name for p in finished.iterdir()} == {
        "checkpoint", "run.json", "metrics.jsonl", "scores.json", "predictions.jsonl", "samples.png", "report.html"
    }  # fmt: skip
    scores = json.loads((finished / "scores.json").read_text())["localization"]
    for split in ("test", "ood"):
        parts = ("iou", "acc50", "valid_json", "label_f1", "constant_iou")
        assert {*parts, "interval", "n", "levels"} == set(scores[split])
        assert all(0 <= scores[split][k] <= 1 for k in parts)
    told = json.loads((finished / "run.json").read_text())
    assert told["settings"]["seed"] == 0 and told["environment"]["torch"] == torch.__version__
    answers = [json.loads(line) for line in (finished / "predictions.jsonl").read_text().splitlines()]
    assert {"prompt", "images", "decoding", "answer", "truth", "scores", "split"} <= set(answers[0])


def test_a_finished_run_is_never_overwritten(finished, rooms):
    with pytest.raises(UserError, match="finished run"):
        run(rooms, finished)
    with pytest.raises(UserError, match="nothing to resume"):
        run(rooms, finished.parent / "new", "--resume")


def test_a_killed_run_resumes_bit_for_bit(finished, rooms, tmp_path, monkeypatch):
    class Killed(Exception):
        pass

    save = checkpoint.save_state

    def save_and_die(folder, state):
        save(folder, state)
        if state["step"] == 4:
            raise Killed

    monkeypatch.setattr(checkpoint, "save_state", save_and_die)
    with pytest.raises(Killed):
        run(rooms, tmp_path / "cut")
    monkeypatch.undo()
    with pytest.raises(UserError, match="unfinished run"):
        run(rooms, tmp_path / "cut")
    run(rooms, tmp_path / "cut", "--resume")
    whole, resumed = weights(finished), weights(tmp_path / "cut")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_words_a_run_never_says_keep_their_embeddings(rooms, tmp_path):
    """Stage 1 says labels and boxes: the softmax must not push "A" and "<think>" together meanwhile."""
    run(rooms, tmp_path / "next", "--steps", "2", "--init", "base")
    before, after = (w["model.embed_tokens.weight"] for w in (weights_of(checkpoint.BASE), weights(tmp_path / "next")))
    tok = Tokenizer.load(checkpoint.BASE)
    unsaid, said = (torch.tensor([tok.encode(word)[0] for word in words]) for words in (
        ["<", ">", "A", "think", " meters", " left"], ["0", "9", '[{"label":"', " the", "Locate"]))  # fmt: skip
    assert torch.equal(before[unsaid], after[unsaid])
    assert (before[said] != after[said]).any(1).all()


def test_a_frozen_eye_stays_as_it_is_and_the_decoder_learns(finished, rooms, tmp_path):
    run(rooms, tmp_path / "out", "--init", str(finished), "--freeze-vision")
    before, after = weights(finished), weights(tmp_path / "out")
    assert {name for name in before if torch.equal(before[name], after[name])} == {
        name for name in before if name.startswith("visual.")
    }


def test_pictures_with_one_asked_object_are_left_out_of_stage_1(rooms):
    rows = read_rows(rooms / "train" / "localization.jsonl")
    groups = {}
    for row in rows:
        groups.setdefault(row.images, []).append(row)
    counts = [train.objects_asked(group) for group in groups.values()]
    assert 1 in counts and max(counts) > 2 and train.presets({})["min_objects"] == 2


def test_rung_1_keeps_the_eye_where_there_is_one():
    assert train.presets({})["freeze_vision"] and not train.presets({"init": "scratch"})["freeze_vision"]


def test_stage_0_trains_and_its_checkpoint_feeds_stage_1(rooms, tmp_path):
    run(rooms, tmp_path / "base", "--steps", "2", stage="0")
    scores = json.loads((tmp_path / "base" / "scores.json").read_text())["seeing"]["test"]
    assert 0 <= scores["accuracy"] <= 1 and "describe" in scores["types"]
    run(rooms, tmp_path / "next", "--steps", "1", "--init", str(tmp_path / "base"), "--mix", train.STAGES["1"]["mix"])
    assert set(json.loads((tmp_path / "next" / "scores.json").read_text())) == {"localization", "seeing", "floor"}


def test_another_sitting_of_the_base_learns_new_words_and_keeps_the_old():
    texts = ["Is the lamp left of the bed?"] * 2
    old, new = Tokenizer.train(texts), Tokenizer.train([*texts, "front-left", "front-left", " lamp:"])
    model = Qwen2_5_VL(train.speaking(PRESETS["nano"], old))
    other = train.translate(model, old, new)
    word = new.bpe.token_to_id("front-left")
    assert old.bpe.token_to_id("front-left") is None and other.config.image_token_id == new.image_id
    before, after = model.model.embed_tokens.weight, other.model.embed_tokens.weight
    assert torch.allclose(after[word], before[old.encode("front-left")].mean(0))
    both = [i for i in range(len(old)) if new.bpe.token_to_id(old.bpe.id_to_token(i)) is not None]
    assert len(both) > 260
    states = []
    for net, ids in ((model, both), (other, [new.bpe.token_to_id(old.bpe.id_to_token(i)) for i in both])):
        ids = torch.tensor([[i for i in ids if i not in (net.config.image_token_id, net.config.video_token_id)]])
        states.append(net(ids, torch.arange(ids.shape[1]).expand(3, 1, -1)))
    assert torch.allclose(*states, atol=1e-6)


def test_the_dense_loss_weighs_objects(rooms):
    """Cell by cell, from the definition: a mean over cells for each thing asked, weighted for names and the floor."""
    tok, image_config = Tokenizer.load(checkpoint.BASE), checkpoint.load_image_config(checkpoint.BASE)
    model, config = checkpoint.load(checkpoint.BASE)
    kinds = {"names": len(train.NAMES), "depths": len(train.DEPTHS), "across": 12, "along": 10}
    row = read_rows(rooms / "train" / "seeing.jsonl")[0]
    example = Dataset([row], tok, image_config, config, dense=kinds)[0, 0, 0]
    words = {"files": "abcdefgh", "ranks": "12345678", "pictures": "ijklmnop",
             "names": [" " + n for n in train.NAMES], "depths": "stuvwxyz",
             "across": "ABCDEFGHIJKL", "along": "MNOPQRSTUV"}  # fmt: skip
    ids = {kind: torch.tensor([tok.encode(word)[0] for word in said]) for kind, said in words.items()}
    with torch.no_grad():
        _, loss = train.Losses(model, 1.0, ids)(collate([example]))
        state = model.model.norm(model.visual(example["pixel_values"], example["grid_thw"]))
        head = model.lm_head.weight.detach()
    expected, start = 0.0, 0
    shown = example["dense_targets"][:, 24:][:, 3 : kinds["names"]].sum(1)  # share of each cell that is an object
    for kind, own in ids.items():
        target = example["dense_targets"][:, start : start + len(own)]
        assert torch.allclose(target.sum(1), torch.ones(len(target)))
        asked = kind in ("names", "across", "along")
        weights = [1 + train.OBJECT_WEIGHT * float(cell) if asked else 1.0 for cell in shown]
        missed = [-float((cell * (state[i] @ head[own].T).log_softmax(0)).sum())
                  for i, cell in enumerate(target)]  # fmt: skip
        expected += sum(w * m for w, m in zip(weights, missed)) / sum(weights)
        start += len(own)
    assert float(loss) == pytest.approx(expected, rel=1e-4)


@pytest.fixture
def small_qwen(qwen, tmp_path):
    """Qwen's own vocabulary and patches, a thousandth of its width."""
    tok = Tokenizer.load(qwen[0])
    config = dataclasses.replace(
        PRESETS["nano"],
        vision=dataclasses.replace(PRESETS["nano"].vision, patch_size=14, window_size=112, in_channels=3),
        vocab_size=len(tok), image_token_id=tok.image_id, video_token_id=tok.video_id,
        vision_start_token_id=tok.vision_start_id, vision_end_token_id=tok.vision_end_id,
    )  # fmt: skip
    checkpoint.save(tmp_path / "qwen", Qwen2_5_VL(config), tok, ImageConfig())
    return tmp_path / "qwen"


def test_a_qwen_folder_goes_through_grpo_and_eval(rooms, small_qwen, tmp_path):
    """With LoRA: afterwards it is a plain folder that eval.py takes."""
    flags = ["--task", "localization", "--steps", "1", "--prompts", "2", "--max-new-tokens", "4", "--eval-rows", "1"]
    flags += ["--lora-rank", "2", "--data", str(rooms), "--out", str(tmp_path / "rl")]
    rl.main(["--model", str(small_qwen), *flags])
    settings = json.loads((tmp_path / "rl" / "run.json").read_text())["settings"]
    assert (settings["lr"], settings["group_size"], settings["recompute"]) == (1e-5, 4, True)
    evaluate.main(["--model", str(tmp_path / "rl"), "--data", str(rooms), "--bench", "localization", "--rows", "1",
                   "--max-new-tokens", "4"])  # fmt: skip
    assert json.loads((tmp_path / "rl" / "eval" / "scores.json").read_text())["localization"]["test"]["n"] == 1


def test_a_qwen_folder_trains_with_lora_and_is_a_plain_one_after(rooms, small_qwen, tmp_path):
    flags = ["--model", str(tmp_path / "qwen"), "--lora-rank", "2", "--steps", "2", "--eval-rows", "1"]
    run(rooms, tmp_path / "out", *flags)
    settings = json.loads((tmp_path / "out" / "run.json").read_text())["settings"]
    assert (settings["lr"], settings["muon_lr"], settings["recompute"]) == (1e-4, 0.0, True)
    before, after = weights_of(tmp_path / "qwen"), weights(tmp_path / "out")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert before.keys() == after.keys() and changed
    assert all(name.split(".")[-2] in train.LINEARS and name.endswith("weight") for name in changed)
    assert Tokenizer.load(tmp_path / "out" / "checkpoint").has_system


def test_stage_2_mixes_kinds_and_scores_each_benchmark(tmp_path, capsys):
    prepare(tmp_path / "rooms", "--view-sets", "6", "--videos", "6", "--questions", "4", "--seeing")
    run(tmp_path / "rooms", tmp_path / "out", "--steps", "3", "--questions", "2", "--eval-every", "3", stage="2")
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    benchmarks = {"rooms-si", "rooms-mv", "rooms-video"}
    twins = {name + "-ood" for name in benchmarks}
    beside = {"localization", "seeing", "floor", "reckoning", "overall", "overall-ood", "intervals"}
    assert set(scores) == beside | benchmarks | twins
    wanted = {"avg", "micro", "nq", "mcq", "types", "constant", "shuffled", "n"}
    wanted |= {"interval", "nq_interval", "mcq_interval"}
    assert all(set(scores[name]) == wanted for name in benchmarks | twins)
    assert scores["overall"] == pytest.approx(sum(scores[name]["avg"] for name in benchmarks) / 3)
    for told in (True, False):  # --no-workings: answers alone
        s = train.Settings(data=str(tmp_path / "rooms"), workings=told)
        rows = train.load_splits(s, ["video"], start_runtime())["train"]
        assert rows and all(bool(row.workings) == told for row in rows)
    s = train.Settings(data=str(tmp_path / "rooms"), data_types=("video",))
    for kinds, shown in ((["video", "floor"], {"video"}), (["localization", "floor"], set(DATA_TYPES))):
        maps = rows_of(train.load_splits(s, kinds, start_runtime())["train"], "floor")
        assert {row.data_type for row in maps} == shown  # restricted only beside what they serve
    val = json.loads((tmp_path / "out" / "metrics.jsonl").read_text().splitlines()[-1])["val"]
    assert set(val) == {"localization", "seeing", "floor", "reckoning", "single_image", "multi_view", "video"}

    asked = ["--data", str(tmp_path / "rooms"), "--rows", "12", "--bench", "rooms-si", "localization", "rooms-mv-ood"]
    asked += ["--max-new-tokens", "16"]
    evaluate.main(["--model", str(tmp_path / "out"), *asked])  # the same rows, asked by eval.py
    again = json.loads((tmp_path / "out" / "eval" / "scores.json").read_text())
    assert again["rooms-si"] == scores["rooms-si"] and again["rooms-mv-ood"] == scores["rooms-mv-ood"]
    assert again["localization"] == {"test": scores["localization"]["test"]}
    with pytest.raises(UserError, match="finished run"):
        evaluate.main(["--model", str(tmp_path / "out"), *asked])
    capsys.readouterr()
    evaluate.main(["--compare", str(tmp_path / "out"), str(tmp_path / "out" / "eval")])
    lines = capsys.readouterr().out.splitlines()
    assert lines and all("+0.000 [+0.000, +0.000]" in text for text in lines)


def test_the_cold_start_learns_traces_and_is_scored_thinking(tmp_path):
    sets = ["--view-sets", "6", "--videos", "6"]
    prepare(tmp_path / "rooms", *sets, "--questions", "4", "--traces", "30", "--seeing")
    flags = ["--data", str(tmp_path / "rooms"), "--max-new-tokens", "16"]
    run(tmp_path / "rooms", tmp_path / "out", "--steps", "1", "--eval-rows", "6", *flags, stage="cold")
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert {"rooms-si", "rooms-mv", "rooms-video", "localization"} < set(scores)
    assert all(0 <= scores[f"rooms-{kind}"]["format"] <= 1 for kind in ("si", "mv", "video", "si-ood"))
    answers = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    thought = {a["question_type"] for a in answers if "</think>" in a["prompt"]}
    assert "localization" not in thought and len(thought) > 4 and "trace" not in thought
    assert all(("format" in a["scores"]) == (a["question_type"] in thought) for a in answers)

    asked = ["--rows", "6", "--bench", "rooms-si", "localization", "--think", *flags]
    evaluate.main(["--model", str(tmp_path / "out"), *asked])
    again = json.loads((tmp_path / "out" / "eval" / "scores.json").read_text())
    assert again["rooms-si"] == scores["rooms-si"] and again["localization"]["test"] == scores["localization"]["test"]


def run_on_two_ranks(rooms, out, *flags):
    command = [*TORCHRUN, "--stage", "1", "--data", str(rooms), "--out", str(out), *TINY, *BOXES, *flags]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def losses(out):
    return [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_the_loss_does_not_depend_on_how_a_batch_is_split(rooms, tmp_path):
    """Ten steps' losses: all at once, by micro-batches, over two gloo ranks that copy the model, and that split it."""
    common = ["--steps", "10", "--muon-lr", "0", "--eval-rows", "1", "--save-every", "1000"]
    run(rooms, tmp_path / "whole", *common, "--micro-batch-size", "4")
    run(rooms, tmp_path / "split", *common, "--micro-batch-size", "1")
    run_on_two_ranks(rooms, tmp_path / "ddp", *common, "--micro-batch-size", "1")
    run_on_two_ranks(rooms, tmp_path / "fsdp", *common, "--micro-batch-size", "1", "--shard")
    for other in ("split", "ddp", "fsdp"):
        assert losses(tmp_path / "whole") == pytest.approx(losses(tmp_path / other), rel=1e-5), other
        for name, weight in weights(tmp_path / "whole").items():
            assert torch.allclose(weight, weights(tmp_path / other)[name], atol=2e-4), (other, name)


@pytest.mark.parametrize("flags, complaint", [
    (["--batch-size", "5"], "no multiple"),
    (["--mix", "smells=1"], "must be one of localization, seeing"),
    (["--mix", "localization"], "write kinds and their shares"),
    (["--shard"], "needs several ranks"),
    (["--lora-rank", "2", "--lora-targets", "nose"], "LoRA targets nose"),
    (["--init", "nowhere"], "nowhere"),
    (["--freeze-vision"], "no eye yet"),
])  # fmt: skip
def test_refusals_come_before_anything_is_written(rooms, tmp_path, flags, complaint):
    with pytest.raises(ValueError, match=complaint):
        run(rooms, tmp_path / "out", *flags)
    assert not (tmp_path / "out").exists()


def test_a_kind_without_rows_is_refused(rooms, tmp_path):
    shutil.copytree(rooms, tmp_path / "rooms")
    for path in (tmp_path / "rooms").glob("*/spatial.jsonl"):
        path.write_text("".join(line for line in path.open() if '"data_type": "video"' not in line))
    with pytest.raises(UserError, match="no video rows"):
        run(tmp_path / "rooms", tmp_path / "out", "--mix", "localization=1,video=1")
    assert not (tmp_path / "out").exists()


def test_rooms_are_never_made_in_a_folder_of_other_data(rooms, tmp_path):
    own = tmp_path / "own"
    shutil.copytree(rooms, own, ignore=shutil.ignore_patterns("prepare.json", "seeing.jsonl", "images"))
    before = {path: path.read_bytes() for path in own.rglob("*.jsonl")}
    with pytest.raises(UserError, match=r"seeing.jsonl is missing: add it, or leave its rows out of --mix"):
        run(own, tmp_path / "out", "--mix", train.STAGES["1"]["mix"])
    assert before == {path: path.read_bytes() for path in own.rglob("*.jsonl")} and not (tmp_path / "out").exists()


def test_a_script_says_one_line(tmp_path):
    (tmp_path / "rooms" / "ood").mkdir(parents=True)
    (tmp_path / "rooms" / "train").mkdir()
    (tmp_path / "rooms" / "ood" / "localization.jsonl").write_text("")
    (tmp_path / "rooms" / "train" / "localization.jsonl").write_text("{broken\n")
    command = [sys.executable, "train.py", "--data", str(tmp_path / "rooms"), "--out", str(tmp_path / "out"), *BOXES]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert "localization.jsonl:1" in done.stderr and not (tmp_path / "out").exists()
