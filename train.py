"""Supervised fine-tuning: the rungs of the ladder that learn from answers, as presets of one loop.

    python train.py --stage 0             # the base: seeing and naming, from nothing
    python train.py --stage 1             # perception: localize objects, from the base shipped in nanoladder/base
    python train.py --stage 1 --init scratch
    python train.py --stage 2             # understanding: spatial questions, from runs/stage1
    python train.py --stage cold          # thinking, from runs/stage2: what rl.py starts from
    python train.py --stage all           # every rung and its scores (nanoladder/ladder.py)
    python train.py --stage 1 --model PATH --lora-rank 16      # a Qwen2.5-VL folder, on one card
    torchrun --nproc_per_node 2 train.py --stage 1             # DDP; with --shard FSDP2, for what one card can't hold

Data that is missing is made first. The run folder (runs/stage1) ends up with the checkpoint, run.json, metrics.jsonl,
scores.json, predictions.jsonl, samples.png and report.html. A killed run goes on with --resume, bit for bit on a CPU.
Caveat: a GPU adds in another order each time, so there a resumed run is equal only up to rounding.
"""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader

from data.rooms.floor import ACROSS, ALONG
from data.rooms.questions import LOCATE, NAMES, SHELL
from data.rooms.seeing import BOARD, DEPTHS, PICTURES
from data.rooms.spatial import PHRASES, SECTORS
from data.rooms.traces import WORKINGS
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
    FILES,
    FLOOR,
    IGNORE_INDEX,
    THINK,
    Dataset,
    attention_mask,
    collate,
    held_out_kinds,
    is_alone,
    plan_mixture,
    prompt_text,
    read_kinds,
    read_splits,
    rows_of,
    target_text,
)
from nanoladder.evaluate import Summary, score_splits, validate, write_scores
from nanoladder.image import ImageConfig
from nanoladder.ladder import HANDED_ON, RUNGS, climb_ladder
from nanoladder.lora import LINEARS, add_lora, merge_lora
from nanoladder.model import PRESETS, Qwen2_5_VL
from nanoladder.muon import Muon
from nanoladder.preview import explain
from nanoladder.report import write_report
from nanoladder.rewards import in_tags
from nanoladder.tokenizer import Tokenizer


@dataclasses.dataclass
class Settings:
    """Every setting of a run; run.json keeps them."""

    stage: str = setting("1", "rung to train", choices=["0", "1", "2", "cold", "all"])
    preset: str = setting("nano", "model size for --init scratch", choices=["nano", "small"])
    init: str = setting("base", "where weights come from: base (the shipped one), scratch, or a checkpoint folder")
    model: str | None = setting(None, "Qwen2.5-VL folder to train instead, at the paper's rates; overrides --init")
    lora_rank: int = setting(0, "LoRA of this rank on a frozen model (bf16 with --amp), merged at the end; 0 is off")
    lora_alpha: float = setting(32.0, "LoRA's products are scaled by alpha / rank")
    lora_targets: str = setting(",".join(LINEARS), "linear layers that get LoRA")
    data: str = setting("datasets/rooms", "data folder; rooms are made there where it is missing")
    mix: str = setting("localization=1", "kinds of sequences and their shares; kinds: " + ", ".join(FILES))
    data_types: tuple = setting(DATA_TYPES, "modalities of spatial questions to train on", choices=DATA_TYPES)
    images: int = setting(10_000, "training rooms to make where the data is missing")
    out: str = setting("runs/stage1", "run folder")
    resume: bool = setting(False, "go on where the run in --out was killed, with that run's settings")
    steps: int = setting(1000, "optimizer steps")
    batch_size: int = setting(16, "sequences (sets of images with their questions) a step, over all ranks")
    micro_batch_size: int | None = setting(None, "sequences a forward pass; default a rank's whole share of the batch")
    questions: int = setting(4, "questions a sequence, at most")
    min_objects: int = setting(1, "leave out training pictures that ask about fewer objects than this")
    look: float = setting(0.0, "share of the run, at its start, that asks nothing: the dense loss trains the eye alone")
    ask_rate: float = setting(0.25, "after looking, the rates warm up again to this share of their peaks")
    lr: float = setting(1e-3, "peak learning rate of AdamW: embeddings, norms, biases (all weights if --muon-lr 0)")
    muon_lr: float = setting(0.005, "peak learning rate of Muon on the hidden matrices; 0 leaves them to AdamW")
    weight_decay: float = setting(0.05, "decoupled weight decay, on matrices only")
    warmup: int = setting(50, "steps of linear warm-up before the cosine")
    clip: float = setting(1.0, "largest norm of the gradient")
    climb: float = setting(0.0, "share of the asking in the emptier rooms (levels 1 and 2) before all levels mix")
    late: float = setting(0.0, "share of the run with single pictures alone, before views and videos join")
    several: float | None = setting(None, "of each kind's sequences then, those that show several; default as the data")
    freeze_vision: bool = setting(False, "train the decoder alone; the vision tower stays as it is")
    workings: bool = setting(True, "say how a spatial answer is found before it, where the data's rows tell")
    blind: bool = setting(False, "blank every picture: what is learned then can be guessed without looking")
    dense: float = setting(0.0, "weight of the dense loss of stage 0, of what and where; 0 is off")
    amp: bool = setting(False, "bf16 automatic mixed precision")
    compile: bool = setting(False, "torch.compile the vision tower and the decoder")
    recompute: bool = setting(False, "activation checkpointing: less memory, a third more compute")
    shard: bool = setting(False, "split the model over torchrun's ranks (FSDP2) instead of copying it to each (DDP)")
    workers: int = setting(0, "processes that load images; 0 loads in the loop")
    eval_rows: int = setting(1000, "held-out rows of each split to score at the end")
    max_new_tokens: int = setting(192, "an answer to be scored that has not ended by then is cut")
    eval_every: int = setting(300, "steps between scores on a few validation rows")
    save_every: int = setting(200, "steps between saved states")
    skip: tuple = setting((), "rungs that --stage all leaves out", choices=list(RUNGS))
    seed: int = setting(0, "seed of initialisation and data order")


# What each stage means, and what a GPU changes. Flags override both.
STAGES = {
    "0": dict(init="scratch", data="datasets/rooms-base", images=60_000, out="runs/stage0", steps=10_000,
              mix="seeing=0.6,floor=0.25,reckoning=0.15", questions=6, climb=0.5, look=0.25, dense=3.0, lr=6e-3,
              muon_lr=0.02, eval_every=1000, save_every=250),
    # Where one object alone is asked about, its name tells nothing, and a model that sees many such pictures learns
    # to ignore names and to box whatever stands out. Emptier rooms come first for the same reason.
    # What is never asked is forgotten: without the base's questions, replayed in every rung, a rung undoes it. These
    # rooms have no views, whose floor the eye would forget: so it stays as it is, and boxes come out no worse.
    "1": dict(steps=750, min_objects=2, climb=0.3, muon_lr=0.004, mix="localization=0.8,seeing=0.15,floor=0.05",
              several=0.3, freeze_vision=True),
    # Answers come with their workings, and a fifth of the sequences teach the floor as a map, on which they reckon.
    # The eye has seen enough: what is new is to compare. Boxes are replayed, or they would be forgotten.
    # Views and videos cost more than a picture and ask for the same and more: so they come late.
    "2": dict(init="runs/stage1", data="datasets/rooms-spatial", images=9600, out="runs/stage2", steps=1400, late=0.3,
              several=0.5, batch_size=8, micro_batch_size=4, questions=6, lr=1.5e-3, muon_lr=0.004, warmup=20,
              freeze_vision=True, eval_rows=100, eval_every=1000,
              mix="localization=0.16,seeing=0.08,floor=0.17,reckoning=0.05,single_image=0.19,multi_view=0.17,video=0.18"),
    # The form of thinking, shown to a model that can reason, as the paper's cold start does. Tags are new words, so the
    # embeddings learn fast, and a form half learned costs more than high rates do. Boxes, the floor and what the base
    # sees are replayed. What is held out is asked to think first.
    "cold": dict(init="runs/stage2", data="datasets/rooms-spatial", images=9600, out="runs/cold", steps=200,
                 several=0.5, batch_size=8, micro_batch_size=4, questions=6, lr=3e-3, muon_lr=0.004, warmup=20,
                 freeze_vision=True, eval_rows=100, eval_every=1000,
                 mix="cold=0.7,floor=0.06,localization=0.16,seeing=0.08"),
    # None: each rung's own.
    "all": dict(out="runs/ladder", data=None, steps=None, eval_rows=100),
}  # fmt: skip
# What prepare.py is asked for beside --pictures, and for how many of these there is a view set and a video too.
PREPARE = {
    "0": (["--seeing", "--index-images"], 1 / 16),
    "1": (["--seeing"], 0),
    "2": (["--seeing", "--held-out", "200", "--questions", "8"], 1 / 8),
    # A trace for every question there is (55,177 of 9,600 rooms); the paper has 1,255.
    "cold": (["--seeing", "--held-out", "200", "--questions", "8", "--traces", "250000"], 1 / 8),
}
CUDA = dict(preset="small", batch_size=128, micro_batch_size=None, amp=True, compile=True, workers=12, eval_rows=1000,
            eval_every=1000, save_every=1000)  # fmt: skip
GPU = {
    "0": CUDA | dict(images=200_000, steps=12_000, lr=1e-3),
    "1": CUDA | dict(images=60_000, steps=6_000),
    "2": CUDA | dict(images=40_000, steps=4_000),
    "cold": CUDA | dict(images=40_000, steps=300),
}
OURS = ("seeing", "floor", "reckoning")  # kinds that the rooms alone have: no part of the paper's mixture
# SpatialLadder's own settings (section 4 of the paper): AdamW, 16 samples a step, one at a time to save memory.
QWEN = dict(lr=1e-5, muon_lr=0.0, batch_size=16, micro_batch_size=1, recompute=True, compile=False,
            freeze_vision=False)  # fmt: skip
OBJECT_WEIGHT = 4.0  # in the dense loss: 30 % of object cells named after six minutes of a core, without it 24 %
VAL_ROWS = 200  # validation rows of a score during training, all kinds together


def presets(given):
    """What stands between the defaults and the given flags: the stage, the device, or the run to go on with."""
    stage = given.get("stage", "1")
    values = {"out": "runs/stage1"} | STAGES[stage]
    if stage == "all":
        if given.get("resume"):
            raise UserError("--stage all goes on by itself: give the same command again, without --resume")
        if own := given.keys() - {"stage", "out", "skip", *HANDED_ON}:
            raise UserError(f"--{min(own).replace('_', '-')} is each rung's own: --stage all hands on only "
                            + ", ".join("--" + name.replace("_", "-") for name in HANDED_ON))  # fmt: skip
        return values
    if given.get("resume"):
        run = RunFolder(given.get("out", values["out"]))
        run.refuse_if_used(resume=True)
        return read_json(run.path / "run.json")["settings"]
    if torch.cuda.is_available():
        values |= GPU[stage]
        if stage == "1" and given.get("preset", values["preset"]) == "small":  # the shipped base is nano
            values["init"] = "runs/stage0" if Path("runs/stage0/scores.json").exists() else "scratch"
    if given.get("init", values.get("init")) == "scratch":
        values["freeze_vision"] = False  # no eye yet to keep
    if "model" in given:
        values |= QWEN | (dict(lr=1e-4) if given.get("lora_rank") else {})
        parts = values.get("mix", Settings.mix).split(",")
        values["mix"] = ",".join(part for part in parts if part.split("=")[0] not in OURS)
    return values


# ---------------------------------------------------------------- before training


def build(s, runtime, texts):
    """Model, tokenizer and image settings that the run starts from."""
    if s.init == "scratch" and s.model is None:
        if s.freeze_vision:
            raise UserError("--init scratch has no eye yet to keep: add --no-freeze-vision")
        tokenizer = Tokenizer.train(texts)
        config = speaking(PRESETS[s.preset], tokenizer)
        model = Qwen2_5_VL(config).to(runtime.device)
        image_config = ImageConfig(config.vision.patch_size, coordinates=config.vision.in_channels > 3)
    else:
        folder = checkpoint.find(s.model or (checkpoint.BASE if s.init == "base" else s.init))
        dtype = torch.bfloat16 if s.lora_rank and s.amp and not s.shard else torch.float32  # frozen ones need no more
        model, _ = checkpoint.load(folder, dtype, runtime.device)
        tokenizer, image_config = Tokenizer.load(folder), checkpoint.load_image_config(folder)
        if s.stage == "0" and s.model is None:  # the base makes the words of all rungs, in every sitting
            known, tokenizer = tokenizer, Tokenizer.train(texts)
            model = translate(model, known, tokenizer).to(runtime.device)
    if s.blind:  # no contrast: every pixel is the mean's, to one part in a billion; kept in the checkpoint
        image_config = dataclasses.replace(image_config, std=(1e9,) * 3)
    if s.lora_rank:
        add_lora(model, s.lora_rank, s.lora_alpha, s.lora_targets.split(","))
    if s.freeze_vision:
        model.visual.requires_grad_(False)
    model.set_activation_checkpointing(s.recompute)
    if s.compile:
        model.visual.encode = torch.compile(model.visual.encode, dynamic=True)
        model.model.compile(dynamic=True)
    return model, tokenizer, image_config


def speaking(config, tokenizer):
    """The config of a model of the tokenizer's vocabulary."""
    return dataclasses.replace(
        config,
        vocab_size=len(tokenizer),
        image_token_id=tokenizer.image_id,
        video_token_id=tokenizer.video_id,
        vision_start_token_id=tokenizer.vision_start_id,
        vision_end_token_id=tokenizer.vision_end_id,
        eos_token_id=tokenizer.im_end_id,
        pad_token_id=tokenizer.pad_id,
    )


def translate(model, old, new):
    """The model in another vocabulary: a token of both keeps its embedding, a new one starts as the mean of the
    old ones that spell it."""
    other, weights = Qwen2_5_VL(speaking(model.config, new)), model.state_dict()
    pieces = [old.pieces(new, i) for i in range(len(new))]
    for name in {"model.embed_tokens.weight", "lm_head.weight"} & weights.keys():
        weights[name] = torch.stack([weights[name][ids].mean(0) for ids in pieces])
    other.load_state_dict(weights)
    return other


def make_optimizers(model, s):
    """Muon on the hidden matrices, AdamW on the rest and on LoRA; no weight decay on vectors and embeddings."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    inner = [p for name, p in named if p.ndim == 2 and name != "model.embed_tokens.weight" and name != "lm_head.weight"]
    hidden = inner if s.muon_lr > 0 and not s.lora_rank else []
    rest = [(name, p) for name, p in named if not any(p is h for h in hidden)]
    decayed = [p for name, p in rest if p.ndim > 1 and "embed" not in name and "lm_head" not in name]
    plain = [p for name, p in rest if not any(p is d for d in decayed)]
    groups = [{"params": decayed, "weight_decay": s.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimizers = [torch.optim.AdamW(groups, lr=s.lr, betas=(0.9, 0.95), fused=True)]
    if hidden:
        optimizers.append(Muon(hidden, lr=s.muon_lr, weight_decay=s.weight_decay))
    return optimizers


# ---------------------------------------------------------------- one step


class Losses(nn.Module):
    """Batch -> summed loss of the supervised tokens, and the mean dense loss (0 where its weight is 0).

    The dense loss reads every image token through the final norm and the head, as if it were the decoder's last
    state, and asks it, each by share of its cell: the letter and the digit of its square, were a chessboard laid over
    the picture, which picture that is, the names of what it shows, a letter for how far that is, and the two letters
    of the square of the floor where it stands (floor.py; of an album, whose rooms share no floor, not). It needs no
    parameters of its own and pulls what the eye says towards the words for it. A cell full of an object counts
    OBJECT_WEIGHT times more for its name and its floor than one of bare wall, for most are bare. Stage 0 only: it
    stands in for the pretraining that SpatialLadder's vision tower came with.

    words: the dense loss's token ids, {what is asked: tensor}, "names" among them. said: bool [V], the tokens that
    the run's texts hold; None for all. The softmax would push all others, which rungs above need, into one direction,
    and a model can't learn to write what it can't tell apart: so those stay as they are.
    """

    def __init__(self, model, dense, words, said=None):
        super().__init__()
        self.model, self.dense, self.words, self.said = model, dense, words, said

    def forward(self, batch):
        model = self.model
        image_embeds = model.visual(batch["pixel_values"], batch["grid_thw"])
        text_loss = dense_loss = torch.zeros((), device=image_embeds.device)
        targets = batch["labels"][:, 1:]
        supervised = targets != IGNORE_INDEX
        if supervised.any():
            mask = attention_mask(batch["segments"])
            hidden = model(batch["input_ids"], batch["position_ids"], image_embeds, mask)
            head = model.lm_head.weight
            if self.said is not None:
                head = torch.where(self.said[:, None], head, head.detach())
            logits = F.linear(hidden[:, :-1][supervised], head)  # [supervised tokens, V]: no others are ever made
            text_loss = F.cross_entropy(logits.float(), targets[supervised], reduction="sum")
        if self.dense:
            # Among their words alone: a softmax over all would push the others, unasked yet, into one direction.
            state = model.model.norm(image_embeds)
            targets = batch["dense_targets"].split([len(ids) for ids in self.words.values()], dim=1)
            targets = dict(zip(self.words, targets))
            objects = 1 + OBJECT_WEIGHT * (1 - targets["names"][:, : len(SHELL)].sum(-1))
            for kind, ids in self.words.items():
                said = F.linear(state, model.lm_head.weight[ids]).float().log_softmax(-1)  # [image tokens, words]
                missed = -(targets[kind] * said).sum(-1)
                weight = targets[kind].sum(-1)  # 1, or 0 where it is not asked
                if kind in ("names", *FLOOR):
                    weight = weight * objects
                dense_loss = dense_loss + (weight * missed).sum() / weight.sum().clamp(min=1)
        return text_loss, dense_loss


def train(s, runtime, run, losses, dataset, shares, score):
    """The loop. `score(step)` measures on validation rows; returns the seconds of training, all sittings together."""
    model, optimizers = losses.model, make_optimizers(losses.model, s)
    step, seconds, looking = 0, 0.0, round(s.look * s.steps)

    def prepare(asking):
        """The losses as ranks must call them. Until questions are asked the decoder rests: decay would shrink it."""
        if looking:
            model.model.layers.requires_grad_(asking)
        return parallel.replicate(losses, runtime.world)

    if s.resume:
        state = checkpoint.load_state(run.state)
        step, seconds = state["step"], state["seconds"]
        parallel.scatter_state(state["trained"], model, optimizers)
        runtime.say(f"resumed at step {step} of {s.steps}")
    base_rates = [[group["lr"] for group in o.param_groups] for o in optimizers]
    clock = Timer(seconds)
    metrics = run.open_log("metrics.jsonl", step) if runtime.main else None

    looks = looking * s.batch_size
    order = [(epoch, i, 0) for epoch, i in plan_mixture(dataset.groups, shares, looks, 0.0, s.seed, 0.0, s.several)]
    asks = plan_mixture(dataset.groups, shares, s.steps * s.batch_size - looks, s.climb, s.seed, s.late, s.several)
    order += [(epoch, i, s.questions) for epoch, i in asks]
    micro = s.micro_batch_size
    accumulation = s.batch_size // (micro * runtime.world)
    mine = []

    def size(item):
        group = dataset.groups[item[1]]
        return len(group[0].images), min(len(group), item[2])

    for at in range(step * s.batch_size, len(order), s.batch_size):
        # Sequences of like length go together, so that little is padded; every rank gets its share of the long.
        alike = sorted(order[at : at + s.batch_size], key=size)
        own = alike[runtime.rank :: runtime.world]
        mine += [own[k : k + micro] for k in range(0, len(own), micro)]
    loader = iter(DataLoader(dataset, batch_sampler=mine, collate_fn=collate, num_workers=s.workers,
                             pin_memory=runtime.device.type == "cuda"))  # fmt: skip
    compute = prepare(step >= looking)
    bar = progress(total=s.steps, initial=step, desc=f"stage {s.stage}", unit="step", leave=True,
                   disable=not runtime.main)  # fmt: skip
    while step < s.steps:
        model.train()
        if step == looking:
            compute = prepare(asking=True)
        micro_batches = [next(loader) for _ in range(accumulation)]
        # One mean over the step's supervised tokens, however they are split over micro-batches and ranks.
        tokens = max(1, runtime.sum(sum(int((b["labels"] != IGNORE_INDEX).sum()) for b in micro_batches)))
        text_sum, dense_sum = 0.0, 0.0
        for k, batch in enumerate(micro_batches):
            parallel.sync_gradients(compute, on=k + 1 == accumulation)
            with autocast(runtime.device, s.amp):
                text_loss, dense_loss = compute(to_device(batch, runtime.device))
                # Ranks average their gradients, so the token sum is scaled by their number.
                loss = text_loss * runtime.world / tokens + s.dense * dense_loss / accumulation
            loss.backward()
            text_sum, dense_sum = text_sum + text_loss.detach(), dense_sum + dense_loss.detach() / accumulation
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), s.clip)
        if step < looking:
            factor = cosine_schedule(step, looking, s.warmup)
        else:
            factor = cosine_schedule(step - looking, s.steps - looking, s.warmup) * (s.ask_rate if looking else 1)
        for optimizer, rates in zip(optimizers, base_rates):
            for group, rate in zip(optimizer.param_groups, rates):
                group["lr"] = rate * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        step += 1
        bar.update()

        if step % 10 == 0 or step == s.steps:
            record = {
                "step": step,
                "loss": runtime.sum(float(text_sum)) / tokens,
                "lr": factor,
                "grad_norm": float(parallel.whole(norm)),
                "tokens": int(tokens),
                "seconds": round(clock(), 2),
            }
            if s.dense:
                record["dense_loss"] = runtime.sum(float(dense_sum)) / runtime.world
            bar.set_postfix(loss=f"{record['loss']:.3f}", rate=f"{factor:.2f}")
            if step > looking and step % s.eval_every == 0:
                with parallel.gathered(losses):
                    record["val"] = score(step)
            if runtime.main:
                metrics.write(json.dumps(record) + "\n")
        if step % s.save_every == 0 and step < s.steps:
            trained = parallel.gather_state(model, optimizers)
            if runtime.main:
                checkpoint.save_state(run.state, {"step": step, "seconds": clock(), "trained": trained})
            runtime.wait()
    bar.close()
    return clock()


# ---------------------------------------------------------------- all of a run


def main(argv):
    s = parse(Settings, argv, presets, __doc__)
    if s.stage == "all":
        return climb_ladder(s)
    runtime = start_runtime()
    clock = Timer()
    s.micro_batch_size = s.micro_batch_size or max(1, s.batch_size // runtime.world)
    if s.batch_size % (s.micro_batch_size * runtime.world):
        shares = f"--micro-batch-size {s.micro_batch_size} x {runtime.world} rank(s)"
        raise UserError(f"--batch-size {s.batch_size} is no multiple of {shares}")
    if s.shard and (runtime.world == 1 or s.muon_lr):
        raise UserError("--shard needs several ranks (torchrun) and --muon-lr 0: Muon wants its matrices whole")
    run = RunFolder(s.out)
    run.refuse_if_used(s.resume)
    threads = f"{runtime.world} rank(s) of {torch.get_num_threads()} thread(s)"
    runtime.say(f"stage {s.stage} on {runtime.device}, {threads}, seed {s.seed}")
    runtime.say(show(s))
    seed_everything(s.seed)

    shares = {kind: share for kind, share in mixture(s.mix).items() if kind not in set(DATA_TYPES) - set(s.data_types)}
    splits = load_splits(s, list(shares), runtime)
    data_seconds = clock()
    model, tokenizer, image_config = build(s, runtime, corpus(splits["train"]))
    files, ranks = BOARD
    words = {"files": files, "ranks": ranks, "pictures": PICTURES, "names": [" " + name for name in NAMES],
             "depths": DEPTHS, "across": ACROSS, "along": ALONG}  # fmt: skip
    dense = {kind: len(words[kind]) for kind in ("names", "depths", *FLOOR)} if s.dense else None
    dataset = Dataset(splits["train"], tokenizer, image_config, model.config, s.seed, dense)
    dataset.groups = [
        group for group in dataset.groups if group[0].kind != "localization" or objects_asked(group) >= s.min_objects
    ]
    explain(s, dataset, model, tokenizer, runtime.say)
    ids = {kind: torch.tensor([tokenizer.encode(word)[0] for word in choice], device=runtime.device)
           for kind, choice in words.items()}  # fmt: skip
    said = None if s.model else said_tokens(splits["train"], tokenizer, image_config, model).to(runtime.device)
    losses = Losses(model, s.dense, ids, said)
    if s.shard:
        parallel.shard(losses, [*model.visual.blocks, *model.model.layers])
    # Constant answers come from training rows of the kinds that are scored, which the cold start is not trained on.
    scored_only = {row.kind for row in splits["test"]} - shares.keys()
    summarize = Summary(splits["train"] + read_kinds(Path(s.data) / "train", scored_only), image_config)
    kinds = dict.fromkeys(row.kind for row in splits["val"])
    few = [row for kind in kinds for row in rows_of(splits["val"], kind)[: VAL_ROWS // len(kinds)]]
    asking = (model, tokenizer, image_config)
    limit = {"max_new_tokens": s.max_new_tokens}

    def score(step):
        return validate(*asking, few, summarize, step, runtime, **limit)

    run.path.mkdir(parents=True, exist_ok=True)
    about = {"settings": dataclasses.asdict(s), "environment": environment(runtime.device), "ranks": runtime.world,
             "parameters": model.num_parameters(), "images": len(dataset), "rows": len(splits["train"])}  # fmt: skip
    if runtime.main:
        write_json(run.path / "run.json", about)
    train_seconds = train(s, runtime, run, losses, dataset, shares, score)
    with parallel.gathered(losses):
        if s.lora_rank:
            merge_lora(model)
        if runtime.main:
            checkpoint.save(run.checkpoint, model, tokenizer, image_config)
        scoring = Timer()
        held_out = {split: splits[split] for split in ("test", "ood") if split in splits}
        scores, answers = score_splits(*asking, held_out, summarize, runtime, **limit)
        if runtime.main:
            write_scores(run.path, scores, answers)
            seconds = {"data": data_seconds, "train": train_seconds, "score": scoring()}  # train: all sittings together
            if runtime.device.type == "cuda":
                about["peak_memory_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
            write_json(run.path / "run.json", about | {"minutes": {k: round(v / 60, 2) for k, v in seconds.items()}})
            run.state.unlink(missing_ok=True)  # what it held is in the checkpoint now
            runtime.say(f"done in {clock() / 60:.1f} minutes: {write_report(run.path)}")
        runtime.wait()


def mixture(text):
    """{kind: share} of --mix. UserError for an unknown kind or no share."""
    try:
        shares = {kind: float(share) for kind, share in (part.split("=") for part in text.split(","))}
    except ValueError:
        raise UserError(f"--mix {text}: write kinds and their shares as localization=0.3,video=0.7") from None
    if odd := [kind for kind, share in shares.items() if kind not in FILES or not share > 0]:
        raise UserError(f"--mix: {odd[0]} must be one of {', '.join(FILES)}, with a share above 0")
    return shares


def load_splits(s, kinds, runtime):
    """Checked rows of train, val, test and ood (read_splits); rooms that are missing are made first."""
    data = Path(s.data)
    needed = [data / "train" / FILES[kind] for kind in kinds]
    needed += [data / "ood" / FILES[kind] for kind in held_out_kinds(kinds)]
    missing = [path for path in needed if not path.exists()]
    if runtime.main and not is_alone(data) and missing:
        if (data / "train").exists() and not (data / "prepare.json").exists():  # somebody's own data
            raise UserError(f"{missing[0]} is missing: add it, or leave its rows out of --mix {s.mix}")
        flags, share = PREPARE[s.stage]
        sets = str(round(share * s.images))
        command = [sys.executable, "-m", "data.rooms.prepare", "--out", str(data), "--pictures", str(s.images),
                   "--view-sets", sets, "--videos", sets, *flags]  # fmt: skip
        runtime.say("making rooms: " + " ".join(command[1:]))
        if subprocess.run(command, cwd=Path(__file__).parent).returncode:
            raise UserError(f"making the rooms in {data} failed; the reason is above")
    runtime.wait()
    # Where no spatial questions are asked, as on rung 1, maps serve none: they stay whole.
    data_types = s.data_types if {*DATA_TYPES, "cold"} & {*kinds} else DATA_TYPES
    splits = read_splits(data, kinds, {"val": None, "test": s.eval_rows, "ood": s.eval_rows}, data_types=data_types)
    for row in splits["train"]:
        row.workings = row.workings if s.workings else ""
    if lacking := [kind for kind in kinds if not rows_of(splits["train"], kind)]:
        raise UserError(f"{data}: no {lacking[0]} rows to train on; make them (data.rooms.prepare), or change --mix")
    return splits


def objects_asked(group):
    """Number of different objects that localization rows about the same images ask for."""
    return len({item["label"] for row in group if row.is_localization for item in row.answer})


def said_tokens(rows, tokenizer, image_config, model):
    """Bool [V]: the tokens that rows ask or answer with, as far as a sample of them tells."""
    said = torch.zeros(model.config.vocab_size, dtype=torch.bool)
    for row in rows[:: max(1, len(rows) // 20_000)]:
        said[tokenizer.question(prompt_text(row)) + tokenizer.answer(target_text(row, image_config))] = True
    return said


def corpus(rows):
    """Texts for a new tokenizer: the stage's questions and answers, and all that the rungs above ask and answer."""
    for row in rows[:: max(1, len(rows) // 100_000)]:
        yield prompt_text(row)
        yield target_text(row, ImageConfig())
    yield '[{"label":"bed","bbox_2d":[12,34,56,78]},{"label":"sofa","bbox_2d":[9,8,7,65]}]'
    asked = [*LOCATE, *(phrase for phrases in PHRASES.values() for phrase in phrases)]
    for name in NAMES:
        yield from (phrase.format(*[f"the {name}"] * 3, all=f"{name}, {name}") for phrase in asked)
    yield "Options: A. left B. right C. back D. front\nAnswer with one option.\nAnswer with a number.\n" + THINK
    for word in ("user", "assistant", *(word for sectors in SECTORS.values() for word in sectors)):
        yield f"{word}\n {word}"
    for _, phrases in WORKINGS.values():
        yield from (in_tags(re.sub(r"{.*?}", " 1", phrase), "A") for phrase in phrases)


if __name__ == "__main__":
    run_script(main)
