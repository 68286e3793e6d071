"""GRPO: sampler and trainer agree, the loss is its definition, resuming is exact, and rewards are what is learned.

Run by torchrun, this file is one rank of the last test.
"""

import copy
import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT
from PIL import Image

import rl
import train
from nanoladder import checkpoint
from nanoladder.common import UserError
from nanoladder.dataset import Row, encode_prompt
from nanoladder.generate import Completions, policy_logprobs
from nanoladder.image import ImageConfig
from nanoladder.model import PRESETS, Qwen2_5_VL
from nanoladder.tokenizer import Tokenizer

CONFIG = ImageConfig(patch_size=8, coordinates=True)
QUICK = rl.Settings(group_size=4, max_new_tokens=7, micro_prompts=2)


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """A small model with opinions, its tokenizer, and prompts of one image, three views and a video."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    paths = []
    for k in range(5):
        paths.append(folder / f"{k}.png")
        Image.fromarray(rng.integers(0, 255, (96, 96, 3), dtype=np.uint8)).save(paths[-1])
    tok = Tokenizer.train(["How far is the bed from the chair? 1 2 3 4 m"], 320)
    config = dataclasses.replace(
        PRESETS["nano"], vocab_size=len(tok), num_hidden_layers=2, image_token_id=tok.image_id,
        video_token_id=tok.video_id, vision_start_token_id=tok.vision_start_id,
    )  # fmt: skip
    torch.manual_seed(0)
    model = Qwen2_5_VL(config)
    torch.nn.init.normal_(model.model.embed_tokens.weight, std=0.1)

    def row(data_type, frames, question):
        return Row(1, question, "3", tuple(paths[:frames]), "absolute distance", data_type, 1, "rows:1", ((96, 96),))

    rows = [row("single_image", 1, "How far?"), row("multi_view", 3, "How far is the bed from the chair?"),
            row("video", 5, "1 2 3")]  # fmt: skip
    prompts = [encode_prompt(row, tok, CONFIG, config, ask=True) for row in rows]
    return model, tok, prompts


def sampled(asked, frozen):
    """Prompts with what rollout adds to them, and their answers. Frozen: the eye looks once for rollout and update."""
    model, tok, prompts = asked
    prompts = [dict(prompt) for prompt in prompts]
    s = dataclasses.replace(QUICK, freeze_vision=frozen)
    completions, texts = rl.rollout(s, model, tok, prompts, seed=3)
    assert all(("image_embeds" in prompt) == frozen for prompt in prompts)
    ids, mask, old = (t.view(len(prompts), QUICK.group_size, -1) for t in completions)
    assert len(texts) == ids.shape[0] * ids.shape[1] and len(set(texts)) > 4
    return prompts, ids, mask, old


@pytest.mark.parametrize("frozen", [True, False])
def test_trainer_and_sampler_agree(asked, frozen):
    """Ratio 1 on the first update, for images, views and videos of different lengths in one pack."""
    model, tok, _ = asked
    prompts, ids, mask, old = sampled(asked, frozen)
    new, entropy = rl.answer_logprobs(QUICK, model, rl.pack(prompts, ids, mask), ids, mask, tok.vision_ids)
    assert mask.sum() > 60 and ((new - old).exp() - 1).abs().max().item() < 1e-4
    assert 0 < entropy < np.log(len(tok))


@pytest.mark.parametrize("frozen", [True, False])
def test_the_loss_is_its_definition(asked, frozen):
    """Against every answer run alone, with an old policy and a reference that differ, values and gradients."""
    model, tok, _ = asked
    prompts, ids, mask, old = sampled(asked, frozen)
    torch.manual_seed(1)
    old, reference = old + 0.3 * torch.randn_like(old), copy.deepcopy(model).requires_grad_(False)
    for p in reference.model.parameters():
        p += 0.02 * torch.randn_like(p)
    advantage = torch.randn(ids.shape[:2])
    compute = rl.GRPOLoss(QUICK, model, reference, tok.vision_ids)
    loss, stats = compute(rl.pack(prompts, ids, mask), ids, mask, advantage, old)

    def logprobs(model, prompt, own):
        """Of one answer's tokens, the prompt and the answer alone in their sequence."""
        whole = torch.cat((torch.tensor(prompt["input_ids"]), own))[None]
        after = prompt["next_position"] + torch.arange(len(own))
        positions = torch.cat((prompt["position_ids"], after.expand(3, -1)), dim=1)[:, None]
        hidden = model(whole, positions, model.visual(prompt["pixel_values"], prompt["grid_thw"]))
        logits = model.lm_head(hidden)[0, -len(own) - 1 : -1]
        return policy_logprobs(logits, 1.0, tok.vision_ids)[torch.arange(len(own)), own]

    answers, kls = [], []
    for b, prompt in enumerate(prompts):
        for g in range(QUICK.group_size):
            own = ids[b, g][mask[b, g]]
            total = 0.0
            for t, (new, ref) in enumerate(zip(logprobs(model, prompt, own), logprobs(reference, prompt, own))):
                ratio, a = (new - old[b, g, t]).exp(), advantage[b, g]
                kl = (ref - new).exp() - (ref - new) - 1
                kls.append(kl.item())
                total = total - min(ratio * a, ratio.clamp(0.8, 1.2) * a) + QUICK.kl_coef * kl
            answers.append(total / len(own))
    expected = sum(answers) / len(answers)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5) and stats["kl"] == pytest.approx(np.mean(kls), 1e-3)
    assert 0 < stats["clipped"] < 1
    trained = list((model.model if frozen else model).parameters())
    gradients = [torch.autograd.grad(x, trained) for x in (loss, expected)]
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(*gradients))


def test_prompts_are_dealt_as_the_benchmarks_weigh_them():
    rows = [Row(i, "?", "3", (), kind, data_type, 1, "rows:1") for i, (data_type, kind) in enumerate(
        [("single_image", "object size")] * 50 + [("single_image", "absolute distance")] * 5
        + [("video", "room size")] * 2 + [("video", "object count")] * 9 + [("video", "object size")] * 30
    )]  # fmt: skip
    for k in range(60, 90):  # of a type's two forms one is rare
        rows[k + 6] = dataclasses.replace(rows[k + 6], options=("A. a", "B. b", "C. c")[: 2 + (k % 10 == 0)])
    dealt = rl.deal_prompts(rows, 60, seed=1)
    assert dealt == rl.deal_prompts(rows, 60, 1) != rl.deal_prompts(rows, 60, 2)
    counts = Counter((rows[i].data_type, rows[i].question_type) for i in dealt)
    assert sorted(counts.values()) == [10, 10, 10, 15, 15]
    assert Counter(len(rows[i].options) for i in dealt if rows[i].options) == {2: 5, 3: 5}
    assert len({rows[i].data_type for i in dealt[:2]}) == 2  # and so in every step
    assert sorted(Counter(dealt).values())[-2:] == [5, 5]  # all of a pile are asked before one is asked again


def test_advantages_and_idle_groups():
    rewards = torch.tensor([[0.0, 1.0, 1.0, 2.0], [1.0, 1.0, 1.0, 1.0]])
    expected = (rewards[0] - 1) / (np.std([0, 1, 1, 2], ddof=1) + 1e-4)
    assert torch.allclose(rl.advantages(rewards)[0], expected) and rl.advantages(rewards)[1].abs().max() == 0


# ---------------------------------------------------------------- whole runs

TINY = ["--task", "localization", "--steps", "4", "--prompts", "4", "--micro-prompts", "2", "--group-size", "3",
        "--max-new-tokens", "8", "--save-every", "2", "--eval-every", "4", "--eval-rows", "8", "--no-amp",
        "--no-compile"]  # fmt: skip


@pytest.fixture(scope="module")
def start(rooms, tmp_path_factory):
    """A barely trained stage 1."""
    out = tmp_path_factory.mktemp("start") / "stage1"
    train.main(["--stage", "1", "--data", str(rooms), "--out", str(out), "--init", "scratch", "--steps", "2",
                "--batch-size", "2", "--eval-rows", "2", "--max-new-tokens", "16", "--no-compile", "--no-amp",
                "--preset", "nano", "--workers", "0", "--mix", "localization=1"])  # fmt: skip
    return out


def run(rooms, start, out, *flags):
    rl.main(["--data", str(rooms), "--init", str(start), "--out", str(out), *TINY, *flags])


def weights(folder):
    return checkpoint.load(folder / "checkpoint")[0].state_dict()


def test_a_killed_run_resumes_bit_for_bit(rooms, start, tmp_path, monkeypatch):
    class Killed(Exception):
        pass

    def save_and_die(folder, state, save=checkpoint.save_state):
        save(folder, state)
        raise Killed

    # A barely trained model earns no real reward; this one differs from answer to answer.
    monkeypatch.setattr(rl, "reward", lambda text, row, truth: {"format": 0.0, "accuracy": len(set(text)) / 20})
    run(rooms, start, tmp_path / "whole")
    names = {"checkpoint", "run.json", "metrics.jsonl", "completions.jsonl", "scores.json", "predictions.jsonl"}
    assert {path.name for path in (tmp_path / "whole").iterdir()} == names | {"samples.png", "report.html"}
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(checkpoint, "save_state", save_and_die)
        run(rooms, start, tmp_path / "cut")
    run(rooms, start, tmp_path / "cut", "--resume")
    whole, resumed, before = weights(tmp_path / "whole"), weights(tmp_path / "cut"), weights(start)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert any(not torch.equal(whole[name], before[name]) for name in whole)
    logs = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("whole", "cut")]
    first = json.loads(logs[0][0])
    assert len(logs[0]) == len(logs[1]) == 4 and first["off_policy"] < 1e-4
    assert {"reward", "format", "accuracy", "kl", "entropy", "clipped", "idle", "length"} <= set(first)
    assert "val" in json.loads(logs[0][-1])


def test_lora_without_a_second_model(rooms, start, tmp_path):
    run(rooms, start, tmp_path / "lora", "--lora-rank", "2", "--steps", "2")
    metrics = [json.loads(text) for text in (tmp_path / "lora" / "metrics.jsonl").read_text().splitlines()]
    assert abs(metrics[0]["kl"]) < 1e-6 and weights(tmp_path / "lora").keys() == weights(start).keys()


@pytest.mark.parametrize("flags, complaint", [
    (["--group-size", "1"], "a group of one"),
    (["--resume"], "nothing to resume"),
    (["--shard"], "needs several ranks"),
])  # fmt: skip
def test_refusals(rooms, start, tmp_path, flags, complaint):
    with pytest.raises(UserError, match=complaint):
        run(rooms, start, tmp_path / "out", *flags)


def test_a_form_nobody_finds_is_remarked_on(rooms, start, tmp_path, capsys):
    run(rooms, start, tmp_path / "stuck", "--steps", "5", "--prompts", "2", "--group-size", "2", "--eval-every", "9",
        "--eval-rows", "1", "--max-new-tokens", "2", "--kl-coef", "0")  # fmt: skip
    assert capsys.readouterr().out.count("no answer of the first 5 steps had the form asked for") == 1
    metrics = [json.loads(text) for text in (tmp_path / "stuck" / "metrics.jsonl").read_text().splitlines()]
    assert all(m["kl"] == m["format"] == 0 and m["idle"] == 1 for m in metrics)


# ---------------------------------------------------------------- several ranks


def one_by_one(s, model, tokenizer, prompts, seed, rollout=rl.rollout):
    """Answers that depend on their prompt alone, not on which rank asks it, nor beside what."""
    apart = [rollout(s, model, tokenizer, [prompt], sum(prompt["input_ids"])) for prompt in prompts]
    longest = max(completions.ids.shape[1] for completions, _ in apart)
    parts = zip(*([F.pad(part, (0, longest - part.shape[1])) for part in completions] for completions, _ in apart))
    return Completions(*map(torch.cat, parts)), [text for _, texts in apart for text in texts]


def save_twice(path, state, save=checkpoint.save_state):
    """A finished run drops its state: keep one of the way."""
    save(path, state)
    shutil.copy(path, path.with_name("kept.safetensors"))


def rank_of_the_test(patch, *flags):
    patch.setattr(rl, "rollout", one_by_one)
    patch.setattr(rl, "reward", lambda text, row, truth: {"format": 0.0, "accuracy": len(set(text)) / 20})
    patch.setattr(checkpoint, "save_state", save_twice)
    rl.main(flags)


def test_a_split_model_learns_as_a_whole_one_and_goes_on_alone(rooms, start, tmp_path, monkeypatch):
    flags = ["--data", str(rooms), "--init", str(start), *TINY, "--steps", "2", "--save-every", "1", "--kl-coef", "0.1",
             "--eval-rows", "1", "--eval-every", "9"]  # fmt: skip
    rank_of_the_test(monkeypatch, *flags, "--out", str(tmp_path / "whole"))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone", __file__]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run([*command, *flags, "--out", str(tmp_path / "split"), "--shard"], check=True, env=env)
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(tmp_path / "split" / "run.json", alone)
    shutil.copy(tmp_path / "split" / "kept.safetensors", alone / "state.safetensors")
    rank_of_the_test(monkeypatch, "--out", str(alone), "--resume", "--no-shard")

    whole, split = ([json.loads(text) for text in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
                    for name in ("whole", "split"))  # fmt: skip
    for name in ("loss", "reward", "grad_norm", "length"):
        assert [m[name] for m in whole] == pytest.approx([m[name] for m in split], rel=1e-4, abs=1e-6), name
    assert whole[0]["grad_norm"] > 0
    for other in ("split", "alone"):
        for name, weight in weights(tmp_path / "whole").items():
            assert torch.allclose(weight, weights(tmp_path / other)[name], atol=1e-5), (other, name)


if __name__ == "__main__":
    with pytest.MonkeyPatch.context() as patch:
        rank_of_the_test(patch, *sys.argv[1:])
    torch.distributed.destroy_process_group()
