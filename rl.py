"""Stage 3: GRPO (Shao et al. 2024, arXiv 2402.03300), learning from rewards that a program can check.

    python rl.py                                     # from runs/cold: spatial questions, thought about first
    python rl.py --no-think                          # from runs/stage2: the same, answered as rung 2 answers
    python rl.py --task localization                 # from runs/stage1: boxes, rewarded by how well they fit
    python rl.py --model PATH --lora-rank 16         # a Qwen2.5-VL folder, with the paper's group and lengths
    python rl.py --resume                            # goes on exactly where the killed run in --out was
    torchrun --nproc_per_node 2 rl.py                # every rank rolls out its share of the prompts; --shard: FSDP2

One step: take B prompts; let the policy answer each G times at temperature 1 (rollout); score the answers (rewards);
say how much better each is than its group (advantages); make the better ones likelier (update). The objective, to be
minimised, with ratio = policy / policy at the time of the rollout, for each token:

    mean over answers of mean over their tokens of
        -min(ratio * A, clip(ratio, 1 - eps, 1 + eps) * A)  +  kl_coef * k3
    A = (r - mean of the group's r) / (std of the group's r + 1e-4)
    r = format (0 or 1) + accuracy (0 to 1)
    k3 = ref / policy - log(ref / policy) - 1         an estimate of KL(policy || reference), never negative

These are SpatialLadder's choices (section 4 of the paper), but that boxes keep closer to the reference (TASKS). With
one update a rollout the ratio is exactly 1, so nothing is ever clipped, and the loss itself stays near 0: its gradient
is what counts. Watch accuracy, not loss; format and accuracy are logged apart, because the first can rise while the
second falls. k3 in the loss has a biased gradient (of the reverse direction's KL); it is kept for parity. A group whose
rewards are all alike teaches nothing but the KL: the share of these is logged as `idle`.

Exercises, each one line, and what it changes:

    advantages        no division by the std: hard and easy prompts weigh as their rewards spread (Dr. GRPO)
    GRPOLoss.forward  loss = (... * mask).sum() / mask.sum(): every token alike, so long answers weigh more (DAPO)
    GRPOLoss.forward  clamp(1 - eps, 1 + 0.28): unlikely tokens may rise further (DAPO's clip-higher); tells only with
                      several updates a rollout
    train             rewards = (accuracies).view(...): what becomes of the form when nobody pays for it?
    --kl-coef 0       nothing holds the policy near where it started; no second model is kept
    --shuffle-rewards a control: with the rewards of other answers, nothing may be learned
"""

import dataclasses
import json
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from nanoladder import checkpoint, parallel
from nanoladder.common import (
    RunFolder,
    Timer,
    UserError,
    autocast,
    cosine_schedule,
    environment,
    parse,
    progress,
    read_json,
    run_script,
    seed_everything,
    setting,
    show,
    start_runtime,
    to_device,
    write_json,
)
from nanoladder.dataset import (
    DATA_TYPES,
    attention_mask,
    boxes_in_input,
    encode_prompt,
    prompt_text,
    read_splits,
)
from nanoladder.evaluate import Summary, score_splits, validate, write_scores
from nanoladder.generate import encode_pictures, generate, policy_logprobs
from nanoladder.lora import add_lora, lora_off, merge_lora
from nanoladder.report import write_report
from nanoladder.rewards import reward
from nanoladder.tokenizer import Tokenizer


@dataclasses.dataclass
class Settings:
    """Every setting of a run; run.json keeps them."""

    task: str = setting("spatial", "what is asked", choices=["spatial", "localization"])
    think: bool = setting(True, "ask spatial questions to be thought about first; boxes never are")
    init: str = setting("runs/cold", "checkpoint or run folder the policy and its reference start from")
    model: str | None = setting(None, "Qwen2.5-VL folder to start from instead; overrides --init")
    data: str = setting("datasets/rooms-spatial", "data folder with train, val, test and ood")
    data_types: tuple = setting(DATA_TYPES, "modalities of spatial questions", choices=DATA_TYPES)
    out: str = setting("runs/rl", "run folder")
    resume: bool = setting(False, "go on where the run in --out was killed, with that run's settings")
    steps: int = setting(250, "updates, one for each rollout")
    prompts: int = setting(16, "prompts a step (B), over all ranks")
    group_size: int = setting(8, "answers sampled for each prompt (G)")
    micro_prompts: int = setting(1, "prompts whose answers go through one forward and backward pass")
    max_new_tokens: int = setting(192, "an answer that has not ended by then is cut")
    temperature: float = setting(1.0, "of sampling; the update uses the same")
    clip_eps: float = setting(0.2, "how far the ratio may move before its gradient is cut")
    kl_coef: float = setting(0.01, "weight of the KL to the reference; 0 needs no reference")
    lr: float = setting(1.5e-4, "peak learning rate of AdamW")
    warmup: int = setting(10, "steps of linear warm-up before the cosine")
    clip: float = setting(1.0, "largest norm of the gradient")
    freeze_vision: bool = setting(True, "train the decoder alone; the vision tower stays as it is")
    lora_rank: int = setting(0, "train LoRA of this rank; the reference is then the policy with LoRA off")
    lora_alpha: float = setting(32.0, "LoRA's products are scaled by alpha / rank")
    shuffle_rewards: bool = setting(False, "control: rewards of the wrong answers; nothing can be learned")
    amp: bool = setting(False, "bf16 automatic mixed precision")
    compile: bool = setting(False, "torch.compile the decoder, for every token of an answer and for the update")
    recompute: bool = setting(False, "activation checkpointing: less memory, a third more compute")
    shard: bool = setting(False, "split the model over torchrun's ranks (FSDP2) instead of copying it to each (DDP)")
    eval_rows: int = setting(1000, "held-out rows of each kind and split to score at the end")
    eval_every: int = setting(50, "steps between greedy scores on a few validation rows")
    save_every: int = setting(50, "steps between saved states, and between answers kept in completions.jsonl")
    seed: int = setting(0, "seed of prompts and sampling")


VAL_ROWS = 200  # validation rows of a score during training, all kinds together
EARLY = 5  # steps after which answers of which none has the right form are remarked on
SHOWN = ("reward", "format", "accuracy", "length", "kl", "entropy", "clipped", "idle", "rollout_seconds",
         "update_seconds")  # in the progress bar  # fmt: skip
TASKS = {
    "spatial": {},
    # Boxes were measured with this KL weight, before spatial answers were let go farther (docs/notes.md).
    "localization": dict(init="runs/stage1", data="datasets/rooms", out="runs/rl-localization", kl_coef=0.05),
}

# SpatialLadder's own settings (section 4 of the paper); the rates are the field's usual ones.
QWEN = dict(freeze_vision=False, lr=1e-6, kl_coef=0.01, prompts=8, group_size=4, micro_prompts=1, max_new_tokens=1024,
            recompute=True, compile=False)  # fmt: skip


def presets(given):
    direct = {} if given.get("think", Settings.think) else {"init": "runs/stage2"}
    values = {"out": Settings.out} | direct | TASKS[given.get("task", Settings.task)]
    if given.get("resume"):
        run = RunFolder(given.get("out", values["out"]))
        run.refuse_if_used(resume=True)
        return read_json(run.path / "run.json")["settings"]
    if torch.cuda.is_available():
        values |= dict(amp=True, compile=True, prompts=64, micro_prompts=64)
    return values | (QWEN | (dict(lr=1e-5) if given.get("lora_rank") else {}) if "model" in given else {})


# ---------------------------------------------------------------- prompts, rollout, rewards, advantages


def deal_prompts(rows, total, seed):
    """Indices of `total` rows to ask: modalities take turns, in each its types, and in these their forms, told by the
    number of options, as the benchmarks' averages weigh them. What is rare among the rows (room size, 1 in 200) comes
    as often as what is not."""
    piles = {}
    for i in np.random.default_rng(seed).permutation(len(rows)):
        forms = piles.setdefault(rows[i].kind, {}).setdefault(rows[i].question_type, {})
        forms.setdefault(len(rows[i].options), []).append(int(i))

    def deal(pile):
        if isinstance(pile, list):
            return cycle(pile)
        decks = cycle([deal(part) for part in pile.values()])
        return (next(deck) for deck in decks)

    return list(islice(deal(piles), total))


@torch.no_grad()
def rollout(s, model, tokenizer, prompts, seed):
    """G answers to each of B prompts: Completions of ids, mask and logprobs [B*G, C], and their texts.

    A frozen eye sees the same now, in the update and in the reference: it looks once, and prompts keep image_embeds.
    """
    model.eval()
    device = model.lm_head.weight.device
    generator = torch.Generator(device).manual_seed(seed)
    with autocast(device, s.amp):
        if s.freeze_vision:
            for prompt, embeds in zip(prompts, encode_pictures(model, prompts, device), strict=True):
                prompt["image_embeds"] = embeds
        completions = generate(
            model, prompts, s.max_new_tokens, tokenizer.eos_ids, s.temperature, tokenizer.vision_ids, s.group_size,
            generator,
        )  # fmt: skip
    return completions, completions.texts(tokenizer)


def advantages(rewards: Tensor) -> Tensor:
    """How much better each answer is than its group, in the group's standard deviations: [B, G] -> [B, G]."""
    return (rewards - rewards.mean(dim=1, keepdim=True)) / (rewards.std(dim=1, keepdim=True) + 1e-4)


# ---------------------------------------------------------------- the loss


def pack(prompts, ids: Tensor, mask: Tensor) -> dict:
    """One sequence for each prompt with all G of its answers behind it, for one forward pass over both.

    Every answer is a segment of its own (dataset.attention_mask): it sees the prompt and itself, and its positions
    start where the prompt ends, so its log-probabilities are those of the prompt and the answer alone.
    prompts: B of encode_prompt(..., ask=True). ids, mask [B, G, C]. Returns the model's inputs [B, T] and
    `predictor` [B, G, C]: where in the sequence stands the token from which each answer's token is predicted.
    """
    (B, G, C), lengths = ids.shape, [len(prompt["input_ids"]) for prompt in prompts]
    T = max(n + int(said.sum()) for n, said in zip(lengths, mask))
    batch = {
        "input_ids": torch.zeros(B, T, dtype=torch.long),
        "segments": torch.full((B, T), -1),
        "position_ids": torch.zeros(3, B, T, dtype=torch.long),
        "predictor": torch.zeros(B, G, C, dtype=torch.long),
    }
    answer, place = torch.arange(1, G + 1)[:, None].expand(G, C), torch.arange(C).expand(G, C)
    for b, (prompt, n) in enumerate(zip(prompts, lengths)):
        said = mask[b].cpu()  # what lies behind an answer's end takes no room
        end = n + int(said.sum())
        batch["input_ids"][b, :n] = torch.as_tensor(prompt["input_ids"])
        batch["input_ids"][b, n:end] = ids[b].cpu()[said]
        batch["segments"][b, :n] = 0
        batch["segments"][b, n:end] = answer[said]
        batch["position_ids"][:, b, :n] = prompt["position_ids"]
        batch["position_ids"][:, b, n:end] = prompt["next_position"] + place[said]
        batch["predictor"][b][said] = torch.arange(n - 1, end - 1)
        batch["predictor"][b, :, 0] = n - 1  # an answer's first token is predicted by the prompt's last
    pictures = "image_embeds" if "image_embeds" in prompts[0] else "pixel_values"
    batch[pictures] = torch.cat([prompt[pictures] for prompt in prompts])
    batch["grid_thw"] = [grid for prompt in prompts for grid in prompt["grid_thw"]]
    return batch


def answer_logprobs(s, model, batch, ids, mask, banned_ids):
    """Log-probability of every answer token, [B, G, C] (0 off the mask), and the mean entropy of what was sampled from.

    Logits exist for answer tokens alone.
    """
    image_embeds = batch.get("image_embeds")
    if image_embeds is None:
        image_embeds = model.visual(batch["pixel_values"], batch["grid_thw"])
    seen = attention_mask(batch["segments"])
    hidden = model(batch["input_ids"], batch["position_ids"], image_embeds, seen)  # [B, T, D]
    rows = torch.arange(len(ids), device=ids.device).view(-1, 1, 1).expand_as(ids)
    hidden = hidden[rows[mask], batch["predictor"][mask]]  # [answer tokens, D]
    logprobs = policy_logprobs(model.lm_head(hidden), s.temperature, banned_ids)  # [answer tokens, V]
    chosen = logprobs.gather(1, ids[mask][:, None])[:, 0]
    with torch.no_grad():
        entropy = torch.special.entr(logprobs.exp()).sum(-1).mean()
    return torch.zeros(ids.shape, device=ids.device).masked_scatter(mask, chosen), entropy


class GRPOLoss(nn.Module):
    """The objective of this file's docstring over a pack of groups, and what to watch about it.

    ref_model: the model itself, which without its LoRA is the reference; another one; or None where there is no KL.
    """

    def __init__(self, s, model, ref_model, banned_ids):
        super().__init__()
        self.s, self.model, self.ref_model, self.banned_ids = s, model, ref_model, banned_ids

    def forward(self, batch, ids, mask, advantage, old):
        """ids, mask, old [B, G, C]; advantage [B, G]. -> loss, {name: number}"""
        ref = None
        if self.ref_model is not None:
            with torch.no_grad(), lora_off(self.ref_model):  # without LoRA there is nothing to turn off
                ref, _ = answer_logprobs(self.s, self.ref_model, batch, ids, mask, self.banned_ids)
        new, entropy = answer_logprobs(self.s, self.model, batch, ids, mask, self.banned_ids)
        ratio = (new - old).exp()
        clipped = ratio.clamp(1 - self.s.clip_eps, 1 + self.s.clip_eps)
        advantage = advantage[..., None]
        token_loss = -torch.minimum(ratio * advantage, clipped * advantage)
        kl = torch.zeros_like(new)
        if ref is not None:
            kl = (ref - new).exp() - (ref - new) - 1
        lengths = mask.sum(-1)
        loss = (((token_loss + self.s.kl_coef * kl) * mask).sum(-1) / lengths).mean()
        stats = {
            "loss": loss,
            "kl": (kl * mask).sum() / lengths.sum(),
            "clipped": ((ratio != clipped) & mask).sum() / lengths.sum(),
            "off_policy": ((ratio - 1).abs() * mask).max(),  # 0 but for rounding: sampler and trainer must agree
            "entropy": entropy,
        }
        return loss, {k: float(v.detach()) for k, v in stats.items()}


# ---------------------------------------------------------------- the loop


def train(s, runtime, run, loss_module, tokenizer, image_config, rows, score):
    """The loop; returns the seconds of training, all sittings together."""
    model, device = loss_module.model, runtime.device
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizers = [torch.optim.AdamW(trained, lr=s.lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True)]
    step, seconds, well_formed = 0, 0.0, 0.0
    if s.resume:
        state = checkpoint.load_state(run.state)
        step, seconds = state["step"], state["seconds"]
        parallel.scatter_state(state["trained"], model, optimizers)
        runtime.say(f"resumed at step {step} of {s.steps}")
    compute, clock = parallel.replicate(loss_module, runtime.world), Timer(seconds)
    if runtime.main:
        metrics, kept = run.open_log("metrics.jsonl", step), run.open_log("completions.jsonl", step)
    order = deal_prompts(rows, s.steps * s.prompts, s.seed)
    share = s.prompts // runtime.world  # prompts a rank rolls out
    bar = progress(total=s.steps, initial=step, desc=f"GRPO, {s.task}", unit="step", leave=True,
                   disable=not runtime.main)  # fmt: skip
    while step < s.steps:
        first, started = step * s.prompts + runtime.rank * share, clock()
        # Prompts with as many pictures go through a micro-batch together, so that little is padded.
        asked = sorted((rows[i] for i in order[first : first + share]), key=lambda row: len(row.images))
        prompts = [encode_prompt(row, tokenizer, image_config, model.config, ask=True) for row in asked]
        # Its own seed for every step and rank: nothing random has to be saved for a resumed run to be the same.
        sampling_seed = (s.seed * s.steps + step) * runtime.world + runtime.rank
        # A split model is whole while it answers. Ranks end their answers after different numbers of tokens, and a
        # layer gathered anew for each token would wait for ranks that are done; and once a rollout is less to send.
        with parallel.gathered(loss_module):
            completions, texts = rollout(s, model, tokenizer, prompts, sampling_seed)
        ids, mask, old = (t.view(share, s.group_size, -1) for t in completions)
        rolled = clock()

        truths = [boxes_in_input(row, image_config) if row.is_localization else None for row in asked]
        parts = [reward(text, asked[k // s.group_size], truths[k // s.group_size]) for k, text in enumerate(texts)]
        formats, accuracies = (torch.tensor([part[k] for part in parts]) for k in ("format", "accuracy"))
        rewards = (formats + accuracies).view(share, s.group_size)
        if s.shuffle_rewards:
            mixed = torch.randperm(rewards.numel(), generator=torch.Generator().manual_seed(sampling_seed))
            rewards = rewards.flatten()[mixed].view_as(rewards)
        advantage = advantages(rewards).to(device)

        model.train()
        totals = {}
        for at in range(0, share, s.micro_prompts):
            part = slice(at, at + s.micro_prompts)
            weight = len(prompts[part]) / share
            batch = to_device(pack(prompts[part], ids[part], mask[part]), device)
            parallel.sync_gradients(compute, on=at + s.micro_prompts >= share)
            with autocast(device, s.amp):
                loss, stats = compute(batch, ids[part], mask[part], advantage[part], old[part])
            (loss * weight).backward()
            totals = {k: totals.get(k, 0.0) + weight * v for k, v in stats.items()}
        norm = torch.nn.utils.clip_grad_norm_(trained, s.clip)
        factor = cosine_schedule(step, s.steps, s.warmup)
        for group in optimizers[0].param_groups:
            group["lr"] = s.lr * factor
        optimizers[0].step()
        optimizers[0].zero_grad(set_to_none=True)
        step += 1
        bar.update()

        record = totals | {
            "reward": float(rewards.mean()),
            "format": float(formats.mean()),
            "accuracy": float(accuracies.mean()),
            "idle": float((rewards.std(dim=1) < 1e-6).float().mean()),
            "length": float(mask.sum(-1).float().mean()),
            "grad_norm": float(parallel.whole(norm)),
            "rollout_seconds": rolled - started,
            "update_seconds": clock() - rolled,
        }
        record = {k: runtime.sum(v) / runtime.world for k, v in record.items()}
        record = {"step": step, "lr": factor, "seconds": round(clock(), 2)} | record
        bar.set_postfix({k: f"{record[k]:.3g}" for k in SHOWN})
        well_formed += record["format"]
        if step == EARLY and not well_formed and runtime.main:
            bar.write(f"no answer of the first {EARLY} steps had the form asked for, so nothing is learned: start "
                      "from a checkpoint that knows it (train.py --stage cold), or raise --max-new-tokens")  # fmt: skip
        if step % s.eval_every == 0:
            with parallel.gathered(loss_module):
                record["val"] = score(step)
        if runtime.main:
            metrics.write(json.dumps(record) + "\n")
        if step % s.save_every == 0 and step < s.steps:
            gathered = parallel.gather_state(model, optimizers)
            if runtime.main:
                for k, text in enumerate(texts[: 2 * s.group_size]):  # of two prompts
                    row = asked[k // s.group_size]
                    shown = {"step": step, "question_id": row.question_id, "images": [str(p) for p in row.images],
                             "prompt": prompt_text(row), "answer": text} | parts[k]  # fmt: skip
                    kept.write(json.dumps(shown) + "\n")
                checkpoint.save_state(run.state, {"step": step, "seconds": clock(), "trained": gathered})
            runtime.wait()
    bar.close()
    return clock()


def main(argv):
    s = parse(Settings, argv, presets, __doc__)
    runtime, clock = start_runtime(), Timer()
    if s.prompts % runtime.world:
        raise UserError(f"--prompts {s.prompts} is no multiple of {runtime.world} ranks")
    if s.group_size < 2:
        raise UserError(f"--group-size {s.group_size}: a group of one has no better and no worse answers")
    if s.shard and runtime.world == 1:
        raise UserError("--shard needs several ranks (torchrun)")
    run = RunFolder(s.out)
    run.refuse_if_used(s.resume)
    runtime.say(f"GRPO on {runtime.device}, {runtime.world} rank(s), seed {s.seed}")
    runtime.say(show(s))
    seed_everything(s.seed)

    kinds = s.data_types if s.task == "spatial" else ("localization",)
    limits = {"val": VAL_ROWS // len(kinds), "test": s.eval_rows, "ood": s.eval_rows}
    splits = read_splits(s.data, kinds, limits, s.think)
    # Where most questions are easier than a benchmark's, what pays is a habit that fits these alone.
    rows = [row for row in splits["train"] if not row.foothold]
    if not rows:
        raise UserError(f"{Path(s.data) / 'train'}: no {s.task} rows, so no answer can be scored")
    folder = checkpoint.find(s.model or s.init)
    dtype = torch.bfloat16 if s.lora_rank and s.amp and not s.shard else torch.float32  # frozen ones need no more
    model, _ = checkpoint.load(folder, dtype, runtime.device)
    tokenizer, image_config = Tokenizer.load(folder), checkpoint.load_image_config(folder)
    model.set_activation_checkpointing(s.recompute)
    ref_model = None
    if s.lora_rank:
        add_lora(model, s.lora_rank, s.lora_alpha)
    if s.freeze_vision:
        model.visual.requires_grad_(False)
    if s.compile:
        torch._dynamo.config.recompile_limit = 64  # where one prompt is left, or one answer, is a graph of its own
        model.model.compile(dynamic=True)
    if s.kl_coef:
        ref_model = model if s.lora_rank else checkpoint.load(folder, dtype, runtime.device)[0].requires_grad_(False)
    loss_module = GRPOLoss(s, model, ref_model, tokenizer.vision_ids)
    if s.shard:
        models = [model] if ref_model in (None, model) else [model, ref_model]
        parallel.shard(loss_module, [block for m in models for block in (*m.visual.blocks, *m.model.layers)])
    summarize = Summary(splits["train"], image_config)
    asking, limit = (model, tokenizer, image_config), {"max_new_tokens": s.max_new_tokens}

    def score(step):
        return validate(*asking, splits["val"], summarize, step, runtime, **limit)

    run.path.mkdir(parents=True, exist_ok=True)
    about = {"settings": dataclasses.asdict(s), "environment": environment(runtime.device), "ranks": runtime.world,
             "parameters": model.num_parameters(), "rows": len(rows)}  # fmt: skip
    if runtime.main:
        write_json(run.path / "run.json", about)
    seconds = train(s, runtime, run, loss_module, tokenizer, image_config, rows, score)
    with parallel.gathered(loss_module):
        if s.lora_rank:
            merge_lora(model)
        if runtime.main:
            checkpoint.save(run.checkpoint, model, tokenizer, image_config)
        held_out = {split: splits[split] for split in ("test", "ood") if split in splits}
        scores, answers = score_splits(*asking, held_out, summarize, runtime, **limit)
        if runtime.main:
            write_scores(run.path, scores, answers)
            write_json(run.path / "run.json", about | {"minutes": {"train": round(seconds / 60, 2)}})
            run.state.unlink(missing_ok=True)
            runtime.say(f"done in {clock() / 60:.1f} minutes: {write_report(run.path)}")
        runtime.wait()


if __name__ == "__main__":
    run_script(main)
