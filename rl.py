"""Stage 3: GRPO (Shao et al. 2024, arXiv 2402.03300), learning from verifiable rewards.

    python rl.py                               # from runs/cold: spatial questions, with thinking
    python rl.py --no-think                    # from runs/stage2: the same, answered directly
    python rl.py --task localization           # from runs/stage1: boxes, rewarded by their IoU
    python rl.py --model PATH --lora-rank 16   # a Qwen2.5-VL folder, with the paper's settings
    torchrun --nproc_per_node 2 rl.py          # each rank answers its share of the prompts

One step:
    1. take B prompts
    2. let the policy answer each prompt G times at temperature 1            (rollout)
    3. reward each answer: format (0 or 1) + accuracy (0 to 1)               (reward)
    4. compare each reward with those of its group                           (advantages)
    5. compute the log-probability of every answer token, with gradients     (answer_logprobs)
    6. make tokens of better answers likelier, and stay near the reference   (grpo_loss)
    7. take one optimizer step

With ratio = policy / policy at the time of the rollout, for each token, the loss is

    mean over answers of mean over their tokens of
        -min(ratio * A, clip(ratio, 1 - eps, 1 + eps) * A)  +  kl_coef * k3
    A = (r - mean of the group's r) / (std of the group's r + 1e-4)
    k3 = ref / policy - log(ref / policy) - 1

eps is CLIP_EPS. ref is the reference, a frozen copy of the start. k3 estimates KL(policy || ref).
Its gradient is not that of the KL, but SpatialLadder uses it (section 4 of the paper). With one
update a rollout the ratio is 1 up to rounding, so nothing is clipped. The advantages of a group add
up to 0, so the loss stays near 0: watch the accuracy instead. `idle` is the share of groups whose
rewards are all equal, so that all of their advantages are 0.
"""

import dataclasses

import torch
from torch import Tensor, nn

from nanoladder import parallel
from nanoladder.batches import attention_mask, check_context, deal_prompts, encode_prompt, pack
from nanoladder.checkpoint import TRAIN_PIXELS, PixelLimits
from nanoladder.command import UserError, parse, setting, show
from nanoladder.generate import encode_pictures, generate, policy_logprobs
from nanoladder.loop import Loop, load_policy, prepare_model, resumed_settings
from nanoladder.lora import lora_off
from nanoladder.model import call
from nanoladder.muon import make_optimizers
from nanoladder.predict import describe
from nanoladder.process import run_script
from nanoladder.prompts import boxes_in_input
from nanoladder.recipe import find_recipe
from nanoladder.rewards import reward
from nanoladder.run_folder import RunFolder
from nanoladder.runtime import autocast, cosine_schedule, cuda_presets, load_ahead, start_runtime
from nanoladder.schema import DATA_TYPES
from nanoladder.scoring import scorer_of_run, val_limits
from nanoladder.splits import fingerprint, read_splits


@dataclasses.dataclass
class Settings(PixelLimits):
    """Every setting of a run; run.json keeps them."""

    task: str = setting("spatial", "what is asked", choices=["spatial", "localization"])
    think: bool = setting(True, "think before answers to spatial questions, never before boxes")
    data: str | None = setting(None, "data folder; default the shipped world's")
    data_types: tuple = setting(DATA_TYPES, "modalities of spatial questions", choices=DATA_TYPES)
    out: str = setting("runs/rl", "run folder", writes="folder")
    resume: bool = setting(False, "go on with the killed run in --out, with its settings")
    init: str = setting("runs/cold", "start and reference: base (the shipped one), or a folder")
    model: str | None = setting(None, "Qwen2.5-VL folder to start from, with the paper's settings")
    prompts: str | None = setting(None, "prompt set, a JSON file; default the checkpoint's own")
    lora_rank: int = setting(0, "LoRA's rank; the reference has none; 0 is off", low=0, high=1024)
    steps: int = setting(250, "updates, one for each rollout", low=1, high=10**6)
    prompts_per_step: int = setting(16, "prompts a step (B), over all ranks", low=1, high=10**4)
    group_size: int = setting(8, "answers to each prompt (G)", low=2, high=1000)
    micro_prompts: int = setting(1, "prompts that share a forward pass", low=1, high=10**4)
    max_new_tokens: int = setting(192, "tokens of an answer, at most", low=1, high=10**5)
    kl_coef: float = setting(0.01, "weight of the KL; 0 keeps no reference", low=0, high=100)
    lr: float = setting(1.5e-4, "peak learning rate of AdamW", low=0, high=10)
    shuffle_rewards: bool = setting(False, "control: give every answer the reward of another one")
    device: str | None = setting(None, "default: a GPU if any", choices=["cpu", "cuda", "mps"])
    amp: bool = setting(False, "bf16 automatic mixed precision")
    compile: bool = setting(False, "torch.compile the vision encoder and the decoder")
    shard: bool = setting(False, "split the model over torchrun's ranks (FSDP2), instead of DDP")
    eval_rows: int = setting(1000, "held-out rows of a kind, scored at the end", low=0, high=10**6)
    save_every: int = setting(50, "steps between saved states and scores", low=0, high=10**6)
    seed: int = setting(0, "seed of prompts and sampling", low=0, high=2**31)


CLIP_EPS = 0.2  # how far the ratio may move before its gradient is cut
TEMPERATURE = 1.0  # of sampling and of the update, because else the ratio would not be 1
WARMUP = 10  # steps of linear warm-up before the cosine
LOGITS_AT_ONCE = 512  # answer tokens whose logits are in memory together
EARLY = 5  # steps after which ALL_IDLE is printed, if it is true
ALL_IDLE = f"""for {EARLY} steps all answers to a prompt earned the same, so nothing was learned:
start from a policy that knows the form of the answers (train.py), or raise --max-new-tokens"""
SHOWN = ("reward", "format", "accuracy", "length", "kl", "entropy", "idle")  # in the progress bar
LOCALIZATION = {"init": "runs/stage1", "out": "runs/rl-localization", "kl_coef": 0.05}
# SpatialLadder's own settings (section 4 of the paper).
QWEN = dict(lr=1e-6, kl_coef=0.01, prompts_per_step=8, group_size=4)
QWEN |= dict(max_new_tokens=1024, compile=False) | TRAIN_PIXELS


def presets(given):
    """Settings of the task, recipe and device: they replace defaults, and flags replace them."""
    values = {"init": Settings.init if given.get("think", True) else "runs/stage2"}
    values |= LOCALIZATION if given.get("task") == "localization" else {}
    if given.get("resume"):
        return resumed_settings(Settings, given, values.get("out", Settings.out))
    stage = "rl-localization" if given.get("task") == "localization" else "rl"
    values |= find_recipe(None, given.get("data")).settings(stage) | cuda_presets(given)
    if "model" in given:
        values |= QWEN | ({"lr": 1e-5} if given.get("lora_rank") else {})
    return values


# ---------------------------------------------------------------- rollout and advantages


@torch.no_grad()
def rollout(s, policy, prompts, seed):
    """G answers to each of B prompts: ids, mask, logprobs [B*G, C] (Completions); their texts."""
    model, tokenizer, *_ = policy
    device = model.lm_head.weight.device
    generator = torch.Generator(device).manual_seed(seed)
    with autocast(device, s.amp):
        if s.model is None:  # the encoder is frozen, so the whole step shares its output
            pictures = encode_pictures(model, prompts, device)
            for prompt, embeds in zip(prompts, pictures, strict=True):
                prompt["image_embeds"] = embeds
        sampling = (s.max_new_tokens, tokenizer.eos_ids, TEMPERATURE, tokenizer.vision_ids)
        completions = generate(model, prompts, *sampling, s.group_size, generator)
    return completions, completions.texts(tokenizer)


def advantages(rewards: Tensor) -> Tensor:
    """How much better each answer is than its group, in standard deviations: [B, G] -> [B, G]."""
    centered = rewards - rewards.mean(dim=1, keepdim=True)
    return centered / (rewards.std(dim=1, keepdim=True) + 1e-4)


# ---------------------------------------------------------------- the loss


def answer_logprobs(model, batch, ids, mask, banned_ids):
    """Log-probability of every answer token [B, G, C], 0 off the mask, and the mean entropy.

    C is the length of the longest answer. batch: of pack; logits are computed at the places of its
    `predictor` only, from which answer tokens are predicted.
    """
    image_embeds = batch.get("image_embeds")
    if image_embeds is None:
        image_embeds = model.visual(batch["pixel_values"], batch["grid_thw"])
    seen = attention_mask(batch["segments"])
    hidden = model(batch["input_ids"], batch["position_ids"], image_embeds, seen)  # [B, T, D]
    hidden = hidden[mask.nonzero()[:, 0], batch["predictor"][mask]]  # [answer tokens, D]

    def of_tokens(hidden, ids):  # [n, D], [n] -> log-probability and entropy, [n] each
        logprobs = policy_logprobs(model.lm_head(hidden), TEMPERATURE, banned_ids)  # [n, V]
        entropy = torch.special.entr(logprobs.detach().exp()).sum(-1)
        return logprobs.gather(1, ids[:, None])[:, 0], entropy

    # With Qwen's vocabulary all logits are gigabytes, so the backward pass computes each part anew.
    parts = zip(hidden.split(LOGITS_AT_ONCE), ids[mask].split(LOGITS_AT_ONCE))
    parts = [call(of_tokens, len(hidden) > LOGITS_AT_ONCE, *part) for part in parts]
    chosen, entropy = (torch.cat(values) for values in zip(*parts))
    return torch.zeros(ids.shape, device=ids.device).masked_scatter(mask, chosen), entropy.mean()


def grpo_loss(logprobs, old_logprobs, ref_logprobs, advantage, mask, kl_coef):
    """The loss of this file's docstring, and its log. advantage [B, G], other tensors [B, G, C]."""
    ratio = (logprobs - old_logprobs).exp()
    clipped = ratio.clamp(1 - CLIP_EPS, 1 + CLIP_EPS)
    A = advantage[..., None]  # the same for all tokens of an answer
    policy_loss = -torch.minimum(ratio * A, clipped * A)
    difference = ref_logprobs - logprobs
    kl = difference.exp() - difference - 1
    lengths = mask.sum(-1)
    loss = (((policy_loss + kl_coef * kl) * mask).sum(-1) / lengths).mean()
    return loss, {
        "loss": loss,
        "kl": (kl * mask).sum() / lengths.sum(),
        "clipped": ((ratio != clipped) & mask).sum() / lengths.sum(),
        "off_policy": ((ratio - 1).abs() * mask).sum() / lengths.sum(),  # 0 but for rounding
    }


class GRPOLoss(nn.Module):
    """grpo_loss of packed groups. ref_model: another model, the policy without LoRA, or None."""

    def __init__(self, s, model, ref_model, banned_ids):
        super().__init__()
        self.s, self.model, self.ref_model = s, model, ref_model
        self.banned_ids = torch.tensor(banned_ids, device=model.lm_head.weight.device).long()

    def forward(self, batch, ids, mask, advantage, old_logprobs):
        """ids, mask, old_logprobs [B, G, C]; advantage [B, G] -> the loss and {name: number}."""
        logprobs, entropy = answer_logprobs(self.model, batch, ids, mask, self.banned_ids)
        ref = logprobs.detach()
        if self.ref_model is not None:
            with torch.no_grad(), lora_off(self.ref_model):
                ref, _ = answer_logprobs(self.ref_model, batch, ids, mask, self.banned_ids)
        loss, stats = grpo_loss(logprobs, old_logprobs, ref, advantage, mask, self.s.kl_coef)
        return loss, {k: v.detach() for k, v in (stats | {"entropy": entropy}).items()}


# ---------------------------------------------------------------- the loop


def train(s, loop, rows, validate):
    """The loop. rows: the training rows, from which prompts are dealt."""
    runtime, policy, idle = loop.runtime, loop.policy, 0.0
    order = deal_prompts(rows, s.steps * s.prompts_per_step, s.seed)
    share = s.prompts_per_step // runtime.world  # prompts that a rank answers

    def load(step):
        first = step * s.prompts_per_step + runtime.rank * share
        # Prompts with equally many pictures share a micro-batch, so that little is padded.
        asked = sorted((rows[i] for i in order[first : first + share]), key=lambda r: len(r.images))
        return asked, [encode_prompt(r, *policy[1:3], policy.model.config, True) for r in asked]

    loop.bar.set_description(f"GRPO, {s.task}")
    for asked, prompts in load_ahead(load, range(loop.step, s.steps)):
        started = loop.clock()
        # Each step and rank has its own seed, so a resumed run needs no random state.
        seed = (s.seed * s.steps + loop.step) * runtime.world + runtime.rank
        # A split model is whole while it answers: ranks end after different numbers of tokens, and
        # a layer gathered for each token would wait for ranks that have finished.
        with parallel.gathered(loop.loss_module):
            completions, texts = rollout(s, policy, prompts, seed)
        ids, mask, old_logprobs = (t.view(share, s.group_size, -1) for t in completions)
        rolled = loop.clock()
        parts = reward_answers(texts, asked, policy.image_config)
        terms = {name: torch.tensor([float(p[name]) for p in parts]) for name in parts[0]}
        rewards = sum(terms.values()).view(share, s.group_size)
        if s.shuffle_rewards:
            mixed = torch.randperm(rewards.numel(), generator=torch.Generator().manual_seed(seed))
            rewards = rewards.flatten()[mixed].view_as(rewards)
        record = update(s, loop, prompts, ids, mask, advantages(rewards), old_logprobs) | {
            **{name: float(term.mean()) for name, term in terms.items()},
            "reward": float(rewards.mean()),
            "spread": float(rewards.std(dim=1).mean()),
            "idle": float((rewards.std(dim=1) < 1e-6).float().mean()),
            "length": float(mask.sum(-1).float().mean()),
            "rollout_seconds": rolled - started,
            "update_seconds": loop.clock() - rolled,
        }
        record = {name: runtime.sum(value) / runtime.world for name, value in record.items()}
        loop.bar.set_postfix({name: f"{record[name]:.3g}" for name in SHOWN if name in record})
        idle += record["idle"]
        if loop.step == EARLY == idle:
            runtime.say(ALL_IDLE)
        if loop.due(s.save_every):
            with parallel.gathered(loop.loss_module):
                record["val"] = validate(loop.step)
        loop.log("metrics.jsonl", {"seconds": round(loop.clock(), 2)} | record)
        if loop.due(s.save_every):
            for k, text in enumerate(texts[: 2 * s.group_size]):  # of two prompts
                about = describe(asked[k // s.group_size], *policy[1:3])
                loop.log("completions.jsonl", about | {"answer": text} | parts[k])
        loop.end_step()


def reward_answers(texts, rows, image_config):
    """{"format", "accuracy"} of each text; the texts are G answers to each row."""
    truths = [boxes_in_input(r, image_config) if r.form == "boxes" else None for r in rows]
    G = len(texts) // len(rows)
    return [reward(text, rows[k // G], truths[k // G]) for k, text in enumerate(texts)]


def update(s, loop, prompts, ids, mask, advantage, old_logprobs):
    """One optimizer step on a rollout -> means of the loss and of its statistics."""
    device, totals = loop.runtime.device, {}
    on_host = ids.cpu(), mask.cpu()  # one copy, not one for each prompt
    advantage, share = advantage.to(device), len(prompts)
    for first in range(0, share, s.micro_prompts):
        part = slice(first, first + s.micro_prompts)
        weight = len(prompts[part]) / share
        batch = pack(prompts[part], *(tensor[part] for tensor in on_host), device)
        parallel.sync_gradients(loop.compute, on=first + s.micro_prompts >= share)
        with autocast(device, s.amp):
            parts = (tensor[part] for tensor in (ids, mask, advantage, old_logprobs))
            loss, stats = loop.compute(batch, *parts)
        (loss * weight).backward()
        totals = {name: totals.get(name, 0.0) + weight * v for name, v in stats.items()}
    factor = cosine_schedule(loop.step, s.steps, WARMUP)
    totals = {name: float(value) for name, value in totals.items()}  # only now wait for the device
    return totals | {"lr_factor": factor, "grad_norm": loop.update(factor, totals["loss"])}


def main(argv):
    s = parse(Settings, argv, presets, __doc__)
    runtime = start_runtime(s.device, s.seed)
    if s.prompts_per_step % runtime.world:
        raise UserError(f"--prompts-per-step must be a multiple of the {runtime.world} ranks")
    if s.shard and runtime.world == 1:
        raise UserError("--shard needs several ranks (torchrun)")
    with RunFolder(s.out).claimed(s.resume, runtime.main) as run:
        runtime.say(f"GRPO on {runtime.device}, {runtime.world} rank(s)\n{show(s)}")
        train_in(run, s, runtime)


def train_in(run, s, runtime):
    """The whole run, from the data to the report."""
    kinds = s.data_types if s.task == "spatial" else ("localization",)
    find_recipe(None, s.data)  # refuses data of an older version
    splits = read_splits(s.data, kinds, val_limits(kinds, s.eval_rows), s.think)
    rows = [row for row in splits["train"] if not row.sft_only]
    if not rows:
        raise UserError(f"{s.data}: no {s.task} rows to train on")
    start = s.model or s.init
    policy = load_policy(s, start, runtime.device)
    prepare_model(s, policy.model, frozen=s.model is None, recompute=s.model is not None)
    ref_model = policy.model if s.kl_coef else None  # without its LoRA
    if s.kl_coef and not s.lora_rank:
        ref_model = load_policy(s, start, runtime.device).model.requires_grad_(False)
    loss = GRPOLoss(s, policy.model, ref_model, policy.tokenizer.vision_ids)
    if s.shard:
        models = {id(m): m for m in (policy.model, ref_model) if m is not None}.values()
        parallel.shard(loss, [b for m in models for b in (*m.visual.blocks, *m.model.layers)])
    check_context(rows, *policy[1:3], policy.model.config)
    how = {"amp": s.amp, "max_new_tokens": s.max_new_tokens}
    scorer = scorer_of_run(policy, splits, s.data, runtime, **how)
    optimizers = make_optimizers(policy.model, s.lr, muon_lr=0.0, weight_decay=0.0)
    with Loop(s, runtime, run, policy, loss, optimizers, {"data": fingerprint(rows)}) as loop:
        train(s, loop, rows, lambda step: scorer.validate(step, splits["val"]))
        loop.finish(scorer, splits, {})


if __name__ == "__main__":
    run_script(main)
