"""GRPO: the sampler and the trainer agree, the loss is its definition, and resuming is exact.

Run by torchrun, this file is one rank of the last test.
"""

import copy
import dataclasses
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT, torchrun
from PIL import Image

import rl
import train
from nanoladder import checkpoint, predict
from nanoladder.batches import encode_prompt, pack
from nanoladder.checkpoint import Policy
from nanoladder.command import UserError
from nanoladder.files import read_jsonl
from nanoladder.generate import Completions, policy_logprobs
from nanoladder.image import ImageConfig
from nanoladder.model import PRESETS, Qwen2_5_VL
from nanoladder.schema import check_row
from nanoladder.tokenizer import Tokenizer, config_for_tokenizer

CONFIG = ImageConfig(patch_size=8, coordinates=True)
QUICK = rl.Settings(group_size=4, max_new_tokens=7, micro_prompts=2)


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """A small random policy, and prompts with one image, three views and a video."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for k in range(5):
        noise = rng.integers(0, 255, (96, 96, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{k}.png")
    tok = Tokenizer.train(["How far is the bed from the chair? 1 2 3 4 m"], 320)
    config = config_for_tokenizer(dataclasses.replace(PRESETS["nano"], num_hidden_layers=2), tok)
    torch.manual_seed(0)
    model = Qwen2_5_VL(config)
    torch.nn.init.normal_(model.model.embed_tokens.weight, std=0.1)  # so that answers differ

    def prompt(data_type, frames, question):
        raw = {"question_id": 1, "question": question, "answer": "3", "unit": "m"}
        raw |= {"data_type": data_type, "image": [f"{k}.png" for k in range(frames)]}
        return encode_prompt(check_row(raw, folder, "rows:1"), tok, CONFIG, config, ask=True)

    prompts = [
        prompt("single_image", 1, "How far?"),
        prompt("multi_view", 3, "How far is the bed from the chair?"),
        prompt("video", 5, "1 2 3"),
    ]
    return Policy(model, tok, CONFIG), prompts


def sampled(asked, frozen):
    """Prompts with what rollout adds to them, and their answers.

    frozen: the vision encoder runs once for the rollout and the update.
    """
    policy, prompts = asked
    prompts = [dict(prompt) for prompt in prompts]
    s = dataclasses.replace(QUICK, model=None if frozen else "qwen")
    completions, texts = rl.rollout(s, policy, prompts, seed=3)
    assert all(("image_embeds" in prompt) == frozen for prompt in prompts)
    ids, mask, old = (t.view(len(prompts), QUICK.group_size, -1) for t in completions)
    assert len(texts) == ids.shape[0] * ids.shape[1] and len(set(texts)) > 4
    return prompts, ids, mask, old


@pytest.mark.parametrize("frozen", [True, False])
def test_trainer_and_sampler_agree(asked, frozen):
    """The ratio is 1 on the first update, for images, views and a video in one pack."""
    model, tok, *_ = asked[0]
    prompts, ids, mask, old = sampled(asked, frozen)
    batch = pack(prompts, ids, mask, torch.device("cpu"))
    new, entropy = rl.answer_logprobs(model, batch, ids, mask, tok.vision_ids)
    assert mask.sum() > 60 and ((new - old).exp() - 1).abs().max().item() < 1e-4
    assert 0 < entropy < np.log(len(tok))


def test_logits_in_parts(asked, monkeypatch):
    """Parts of 7 tokens give the log-probabilities, entropy and gradients of all tokens at once.

    No more than a part's logits are kept for the backward pass.
    """
    model, tok, *_ = asked[0]
    prompts, ids, mask, _ = sampled(asked, frozen=True)
    batch = pack(prompts, ids, mask, torch.device("cpu"))

    def run(part):
        monkeypatch.setattr(rl, "LOGITS_AT_ONCE", part)
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
            chosen, entropy = rl.answer_logprobs(model, batch, ids, mask, tok.vision_ids)
        gradients = torch.autograd.grad((chosen * mask).sum(), [*model.model.parameters()])
        wide = [len(t) for t in kept if t.dim() == 2 and t.shape[1] == len(model.lm_head.weight)]
        return chosen, entropy, gradients, wide

    *whole, wide = run(10**6)
    *parts, narrow = run(7)
    assert mask.sum() in wide and not narrow
    torch.testing.assert_close(parts, whole)


@pytest.mark.parametrize("frozen", [True, False])
def test_the_loss_is_its_definition(asked, frozen):
    """Values and gradients equal those of every answer run alone.

    The old policy and the reference differ from the policy.
    """
    model, tok, *_ = asked[0]
    prompts, ids, mask, old = sampled(asked, frozen)
    torch.manual_seed(1)
    old, reference = old + 0.3 * torch.randn_like(old), copy.deepcopy(model).requires_grad_(False)
    for p in reference.model.parameters():
        p += 0.02 * torch.randn_like(p)
    advantage = torch.randn(ids.shape[:2])
    compute = rl.GRPOLoss(QUICK, model, reference, tok.vision_ids)
    loss, stats = compute(pack(prompts, ids, mask, torch.device("cpu")), ids, mask, advantage, old)

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
            pairs = zip(logprobs(model, prompt, own), logprobs(reference, prompt, own))
            total = 0.0
            for t, (new, ref) in enumerate(pairs):
                ratio, a = (new - old[b, g, t]).exp(), advantage[b, g]
                kl = (ref - new).exp() - (ref - new) - 1
                kls.append(kl.item())
                total = total - min(ratio * a, ratio.clamp(0.8, 1.2) * a) + QUICK.kl_coef * kl
            answers.append(total / len(own))
    expected = sum(answers) / len(answers)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    assert stats["kl"] == pytest.approx(np.mean(kls), 1e-3)
    assert 0 < stats["clipped"] < 1
    trained = list((model.model if frozen else model).parameters())
    gradients = [torch.autograd.grad(x, trained) for x in (loss, expected)]
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(*gradients))


def test_advantages_and_idle_groups():
    rewards = torch.tensor([[0.0, 1.0, 1.0, 2.0], [1.0, 1.0, 1.0, 1.0]])
    expected = (rewards[0] - 1) / (np.std([0, 1, 1, 2], ddof=1) + 1e-4)
    assert torch.allclose(rl.advantages(rewards)[0], expected)
    assert rl.advantages(rewards)[1].abs().max() == 0


# ---------------------------------------------------------------- whole runs

TINY = [
    *("--task", "localization", "--steps", "4", "--prompts-per-step", "4", "--micro-prompts", "2"),
    *("--group-size", "3", "--max-new-tokens", "8", "--save-every", "2", "--eval-rows", "8"),
    *("--no-amp", "--no-compile"),
]


@pytest.fixture(scope="module")
def start(rooms, tmp_path_factory):
    """A stage 1 of two steps."""
    out = tmp_path_factory.mktemp("start") / "stage1"
    flags = ["--init", "scratch", "--preset", "nano", "--no-compile", "--no-amp"]
    flags += ["--steps", "2", "--batch-size", "2", "--eval-rows", "2", "--mix", "localization=1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predict, "MAX_NEW_TOKENS", 16)
        train.main(["--stage", "1", "--data", str(rooms), "--out", str(out), *flags])
    return out


def run(rooms, start, out, *flags):
    rl.main(["--data", str(rooms), "--init", str(start), "--out", str(out), *TINY, *flags])


def weights(folder):
    return checkpoint.load(folder / "checkpoint").state_dict()


def reward_of_letters(text, row, truth):
    """A reward that differs from answer to answer; a model of two steps earns no real one."""
    return {"format": 0.0, "accuracy": len(set(text)) / 20}


def test_a_killed_run_resumes_bit_for_bit(rooms, start, tmp_path, monkeypatch):
    class Killed(Exception):
        pass

    def save_and_die(folder, state, save=checkpoint.save_state):
        save(folder, state)
        raise Killed

    monkeypatch.setattr(rl, "reward", reward_of_letters)
    run(rooms, start, tmp_path / "whole")
    assert {path.name for path in (tmp_path / "whole").iterdir()} == {
        *("checkpoint", "run.json", "metrics.jsonl", "completions.jsonl", "scores.json"),
        *("predictions.jsonl", "samples.png", "report.html", ".lock"),
    }
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(checkpoint, "save_state", save_and_die)
        run(rooms, start, tmp_path / "cut")
    run(rooms, start, tmp_path / "cut", "--resume")
    whole, resumed, before = weights(tmp_path / "whole"), weights(tmp_path / "cut"), weights(start)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert any(not torch.equal(whole[name], before[name]) for name in whole)
    logs = [read_jsonl(tmp_path / name / "metrics.jsonl") for name in ("whole", "cut")]
    first = logs[0][0]
    assert len(logs[0]) == len(logs[1]) == 4 and first["off_policy"] < 1e-4
    wanted = {"reward", "format", "accuracy", "kl", "entropy", "clipped", "idle", "length"}
    assert wanted <= set(first)
    assert ["val" in record for record in logs[0]] == [False, True, False, True]


def test_lora_needs_no_second_model(rooms, start, tmp_path):
    run(rooms, start, tmp_path / "lora", "--lora-rank", "2", "--steps", "2")
    metrics = read_jsonl(tmp_path / "lora" / "metrics.jsonl")
    assert abs(metrics[0]["kl"]) < 1e-6
    assert weights(tmp_path / "lora").keys() == weights(start).keys()


@pytest.mark.parametrize("flags, complaint", [
    (["--group-size", "1"], "must be a whole number from 2"),
    (["--resume"], "nothing to resume"),
    (["--shard"], "needs several ranks"),
])  # fmt: skip
def test_refusals(rooms, start, tmp_path, flags, complaint):
    with pytest.raises(UserError, match=complaint):
        run(rooms, start, tmp_path / "out", *flags)
    assert not (tmp_path / "out").exists()


def test_a_warning_is_printed_where_all_answers_earn_the_same(rooms, start, tmp_path, capsys):
    flags = ["--steps", "5", "--prompts-per-step", "2", "--group-size", "2", "--save-every", "9"]
    flags += ["--eval-rows", "1", "--max-new-tokens", "2", "--kl-coef", "0"]
    run(rooms, start, tmp_path / "stuck", *flags)
    printed = capsys.readouterr().out
    assert printed.count("for 5 steps all answers to a prompt earned the same") == 1
    metrics = read_jsonl(tmp_path / "stuck" / "metrics.jsonl")
    assert all(m["kl"] == m["format"] == 0 and m["idle"] == 1 for m in metrics)


# ---------------------------------------------------------------- several ranks


def one_by_one(s, policy, prompts, seed, rollout=rl.rollout):
    """Answers that depend on their prompt alone, not on the rank or on the other prompts."""
    apart = [rollout(s, policy, [prompt], sum(prompt["input_ids"])) for prompt in prompts]
    longest = max(completions.ids.shape[1] for completions, _ in apart)
    padded = [
        [F.pad(part, (0, longest - part.shape[1])) for part in completions]
        for completions, _ in apart
    ]
    texts = [text for _, texts in apart for text in texts]
    return Completions(*map(torch.cat, zip(*padded))), texts


def save_twice(path, state, save=checkpoint.save_state):
    """Keep the state of the first step in a second file, because a finished run has none."""
    save(path, state)
    if state.step == 1:
        shutil.copy(path, path.with_name("kept.safetensors"))


def rank_of_the_test(patch, *flags):
    patch.setattr(rl, "rollout", one_by_one)
    patch.setattr(rl, "reward", reward_of_letters)
    patch.setattr(checkpoint, "save_state", save_twice)
    rl.main(flags)


def test_a_split_model_learns_as_a_whole_one_and_goes_on_alone(rooms, start, tmp_path, monkeypatch):
    whole, split, alone = (tmp_path / name for name in ("whole", "split", "alone"))
    flags = ["--data", str(rooms), "--init", str(start), *TINY, "--steps", "2"]
    flags += ["--save-every", "1", "--kl-coef", "0.1", "--eval-rows", "1"]
    rank_of_the_test(monkeypatch, *flags, "--out", str(whole))
    command = [*torchrun(), __file__, *flags, "--out", str(split), "--shard"]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run(command, check=True, env=env)
    alone.mkdir()
    shutil.copy(split / "run.json", alone)
    shutil.copy(split / "kept.safetensors", alone / "state.safetensors")
    rank_of_the_test(monkeypatch, "--out", str(alone), "--resume", "--no-shard")

    logs = [read_jsonl(folder / "metrics.jsonl") for folder in (whole, split)]
    for name in ("loss", "reward", "grad_norm", "length"):
        first, second = ([record[name] for record in log] for log in logs)
        assert first == pytest.approx(second, rel=1e-4, abs=1e-6), name
    assert logs[0][0]["grad_norm"] > 0
    for folder in (split, alone):
        others = weights(folder)
        for name, weight in weights(whole).items():
            assert torch.allclose(weight, others[name], atol=1e-5), (folder, name)


if __name__ == "__main__":
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        rank_of_the_test(patch, *sys.argv[1:])
    torch.distributed.destroy_process_group()
