"""Supervised fine-tuning: one loop for every stage that learns from answers.

    python train.py --stage 1                  # perception: localize objects, from the shipped base
    python train.py --stage 2                  # understanding: spatial questions, from runs/stage1
    python train.py --stage cold               # thinking before answering, from runs/stage2
    python train.py --stage all                # or 1,cold,3: several, with scores (ladder.py)
    python train.py --stage 1 --data FOLDER    # your own rows and pictures (schema.py)
    python train.py --stage 1 --model PATH --lora-rank 16     # a Qwen2.5-VL folder on one card
    torchrun --nproc_per_node 2 train.py --stage 1            # two ranks; --shard splits the model

One step: encode the pictures, run the decoder over the questions and answers, and lower the
cross-entropy of the answers' tokens (AnswerLoss). A recipe (nanoladder/recipe.py) holds what is
special about a data set. The run folder ends up with checkpoint/, run.json, metrics.jsonl,
scores.json, predictions.jsonl and report.html, and with samples.png where boxes were asked for.
A stopped or killed run goes on with --resume: bit for bit on a CPU, up to rounding on a GPU.
"""

import dataclasses
from math import prod

import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader

from nanoladder import parallel
from nanoladder.batches import IGNORE_INDEX, Dataset, attention_mask, collate, on_device
from nanoladder.checkpoint import TRAIN_PIXELS, PixelLimits, Policy
from nanoladder.command import UserError, parse, setting, show
from nanoladder.image import ImageConfig, blank_images
from nanoladder.ladder import climb_ladder, ladder_settings
from nanoladder.loop import Loop, load_policy, prepare_model, resumed_settings
from nanoladder.model import PRESETS, Qwen2_5_VL
from nanoladder.muon import make_optimizers
from nanoladder.preview import explain, picture_bytes
from nanoladder.process import leave_process_group, loader_processes, run_script
from nanoladder.recipe import find_recipe
from nanoladder.run_folder import RunFolder, Timer
from nanoladder.runtime import autocast, cuda_presets, start_runtime
from nanoladder.schema import DATA_TYPES
from nanoladder.scoring import scorer_of_run, val_limits
from nanoladder.splits import fingerprint, kinds_to_learn, parse_mixture, read_splits
from nanoladder.tokenizer import Tokenizer, config_for_tokenizer


@dataclasses.dataclass
class Settings(PixelLimits):
    """Every setting of a run; run.json keeps them."""

    stage: str = setting("1", "0, 1, 2, cold; all, or a list such as 1,cold,3 (3: rl.py): a ladder")
    data: str | None = setting(None, "data folder; that of the shipped recipe is made when missing")
    recipe: str | None = setting(None, "recipe in data/NAME/recipe.py; else that of the data")
    mix: str | None = setting(None, "shares of kinds, as localization=1,video=2; else the stage's")
    data_types: tuple = setting(DATA_TYPES, "modalities of spatial questions", choices=DATA_TYPES)
    rationales: bool = setting(True, "teach the rationale before the answer, where a row has one")
    blank_images: bool = setting(False, "control: make all pictures blank")
    out: str = setting("runs/stage1", "run folder", writes="folder")
    resume: bool = setting(False, "go on with the killed run in --out, with its settings")
    init: str = setting("base", "start: base (the shipped one), scratch, or a checkpoint folder")
    preset: str = setting("nano", "model size with --init scratch", choices=[*PRESETS])
    model: str | None = setting(None, "Qwen2.5-VL folder to start from, with the paper's settings")
    prompts: str | None = setting(None, "prompt set, a JSON file; default the checkpoint's own")
    lora_rank: int = setting(0, "train LoRA of this rank; 0 trains the weights", low=0, high=1024)
    freeze_vision: bool = setting(False, "train the decoder alone")
    steps: int | None = setting(1000, "optimizer steps", low=1, high=10**6)
    batch_size: int = setting(16, "sequences a step, over all ranks", low=1, high=10**4)
    micro_batch_size: int | None = setting(None, "sequences a pass; else all", low=1, high=10**4)
    questions_per_sequence: int = setting(4, "at most, of the same pictures", low=1, high=1000)
    lr: float = setting(1e-3, "peak learning rate of AdamW", low=0, high=10)
    muon_lr: float = setting(5e-3, "Muon's, on hidden matrices; 0 is AdamW for all", low=0, high=10)
    device: str | None = setting(None, "default: a GPU if any", choices=["cpu", "cuda", "mps"])
    amp: bool = setting(False, "bf16 automatic mixed precision")
    compile: bool = setting(False, "torch.compile the vision encoder and the decoder")
    recompute: bool = setting(False, "activation checkpointing: less memory, a third more compute")
    shard: bool = setting(False, "split the model over torchrun's ranks (FSDP2), instead of DDP")
    eval_rows: int = setting(1000, "held-out rows of a kind, scored at the end", low=0, high=10**6)
    eval_every: int = setting(300, "steps between scores on validation rows", low=0, high=10**6)
    save_every: int = setting(200, "steps between saved states", low=0, high=10**6)
    seed: int = setting(0, "seed of weights and of the data's order", low=0, high=2**31)


# The kinds of rows that each stage learns from, where it starts, and its run folder.
STAGES = {
    "0": ((), {"init": "scratch", "out": "runs/stage0"}),  # the base; a recipe says how
    "1": (("localization",), {"init": "base", "out": "runs/stage1"}),
    "2": (DATA_TYPES, {"init": "runs/stage1", "out": "runs/stage2"}),
    "cold": (("cold",), {"init": "runs/stage2", "out": "runs/cold"}),
}
# The paper's settings for real weights (section 4): 16 sequences a step, one at a time for memory.
QWEN = dict(mix=None, lr=1e-5, muon_lr=0.0, batch_size=16, micro_batch_size=1)
QWEN |= dict(recompute=True, compile=False, freeze_vision=False) | TRAIN_PIXELS
LOG_EVERY = 10


def presets(given):
    """Settings of the stage, recipe and device: they replace defaults, and flags replace them."""
    stage = given.get("stage", "1")
    if stage not in STAGES:
        return ladder_settings(given)
    values = dict(STAGES[stage][1])
    if given.get("resume"):
        return resumed_settings(Settings, given, values["out"])
    recipe = find_recipe(given.get("recipe"), given.get("data"))
    values |= recipe.settings(stage) | cuda_presets(given) | {"recipe": recipe.name}
    if given.get("init", values["init"]) == "scratch":
        values["freeze_vision"] = False  # there is nothing yet worth keeping
    elif "preset" in given:
        raise UserError("--preset is of --init scratch; any other start has its own size")
    if "model" in given:
        values |= QWEN | ({"lr": 1e-4} if given.get("lora_rank") else {})
    return values


# ---------------------------------------------------------------- one step


class AnswerLoss(nn.Module):
    """What a step lowers: the cross-entropy of the answers' tokens."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, batch):
        """A batch of on_device -> cross-entropy summed over answer tokens, and an auxiliary 0."""
        image_embeds = self.model.visual(batch["pixel_values"], batch["grid_thw"])  # [M, D]
        return self.of_answers(batch, image_embeds), image_embeds.new_zeros(())

    def of_answers(self, batch, image_embeds):
        """The sum over answer tokens: train divides it by their number on all ranks."""
        mask = attention_mask(batch["segments"])
        hidden = self.model(batch["input_ids"], batch["position_ids"], image_embeds, mask)
        targets = batch["labels"][:, 1:]  # [B, T - 1]: each token is predicted by the one before
        is_answer = targets != IGNORE_INDEX
        logits = self.head(hidden[:, :-1][is_answer])  # [answer tokens, V]; no others are computed
        return F.cross_entropy(logits.float(), targets[is_answer], reduction="sum")

    def head(self, hidden):
        """Logits of hidden states; a recipe may put another function in this one's place."""
        return self.model.lm_head(hidden)


def train(s, loop, recipe, dataset, order, validate):
    """The loop. order: (epoch, index in dataset.groups, number of questions) of each sequence."""
    runtime, device, image_config = loop.runtime, loop.runtime.device, loop.policy.image_config
    steps = micro_batches(s, runtime, dataset, order[loop.step * s.batch_size :])
    how = {"batch_sampler": [keys for passes in steps for keys in passes], "collate_fn": collate}
    if device.type == "cuda":
        batch_bytes = picture_bytes(dataset.groups, image_config, s)
        how |= {"num_workers": loader_processes(runtime.world, batch_bytes), "pin_memory": True}
    loader = iter(DataLoader(dataset, worker_init_fn=leave_process_group, **how))
    loop.bar.set_description(f"stage {s.stage}")
    for passes in steps:
        batches = [next(loader) for _ in passes]
        # Losses are means over the answer tokens, or the patches, of all ranks together.
        answers = sum(int((batch["labels"] != IGNORE_INDEX).sum()) for batch in batches)
        own = [sum(map(prod, batch["grid_thw"])) for batch in batches]
        tokens, patches = max(1, runtime.sum(answers)), runtime.sum(sum(own))
        answer_sum = auxiliary_sum = 0.0
        for k, batch in enumerate(batches):
            parallel.sync_gradients(loop.compute, on=k + 1 == len(batches))
            with autocast(device, s.amp):
                answer_loss, auxiliary = loop.compute(on_device(batch, image_config, device))
            # Ranks average their gradients, so each rank's part is multiplied by their number.
            auxiliary = auxiliary * runtime.world * own[k] / patches
            (answer_loss * runtime.world / tokens + auxiliary).backward()
            answer_sum += answer_loss.detach()
            auxiliary_sum += auxiliary.detach()
        factor = recipe.rate(s, loop.step)
        norm = loop.update(factor, answer_sum + auxiliary_sum)
        if loop.due(LOG_EVERY) or loop.due(s.eval_every) or loop.step == s.steps:
            record = {
                "loss": runtime.sum(float(answer_sum)) / tokens,
                "auxiliary_loss": runtime.sum(float(auxiliary_sum)) / runtime.world,
                "lr_factor": factor,
                "grad_norm": norm,
                "tokens": int(tokens),
                "seconds": round(loop.clock(), 2),
            }
            loop.bar.set_postfix(loss=f"{record['loss']:.3f}", lr_factor=f"{factor:.2f}")
            if loop.due(s.eval_every):
                with parallel.gathered(loop.loss_module):
                    record["val"] = validate(loop.step)
            loop.log("metrics.jsonl", record)
        loop.end_step()


def micro_batches(s, runtime, dataset, order):
    """This rank's forward passes of each step, as lists of keys of sequences of like length.

    The longest of a pass is at most twice as long as its shortest, as Dataset.length estimates.
    With --shard all ranks need equally many passes, so only micro_batch_size divides them.
    """
    steps = []
    for first in range(0, len(order), s.batch_size):
        alike = sorted((dataset.length(key), key) for key in order[first : first + s.batch_size])
        passes, shortest = [[]], 0
        for length, key in alike[runtime.rank :: runtime.world]:  # each rank gets some long ones
            too_long = length > 2 * shortest > 0 and not s.shard
            if too_long or len(passes[-1]) == s.micro_batch_size:
                passes.append([])
            shortest = shortest if passes[-1] else length
            passes[-1].append(key)
        steps.append(passes)
    return steps


# ---------------------------------------------------------------- model, data, main


def build_policy(s, texts, device):
    """The policy that the run starts from: a new one, or that of a checkpoint."""
    if s.init == "scratch" and s.model is None:
        tokenizer = Tokenizer.train(texts, PRESETS[s.preset].vocab_size)
        tokenizer.use_prompts(s.prompts)
        config = config_for_tokenizer(PRESETS[s.preset], tokenizer)
        merged, coordinates = config.vision.spatial_merge_size, config.vision.in_channels > 3
        images = ImageConfig(config.vision.patch_size, merged, coordinates=coordinates)
        policy = Policy(Qwen2_5_VL(config).to(device), tokenizer, images).limit_pixels(s)
    else:
        policy = load_policy(s, s.model or s.init, device)
    if s.blank_images:
        policy = policy._replace(image_config=blank_images(policy.image_config))
    prepare_model(s, policy.model, s.freeze_vision, s.recompute)
    return policy


def read_data(s, recipe, runtime):
    """({split: rows}, {kind: share}) of the run; what the recipe can make is made first."""
    unwanted = {*DATA_TYPES} - {*s.data_types}
    shares = parse_mixture(s.mix) if s.mix else dict.fromkeys(STAGES[s.stage][0], 1.0)
    shares = {kind: share for kind, share in shares.items() if kind not in unwanted}
    if runtime.main and s.data:
        recipe.make(s.data, s.stage, list(shares))
    runtime.wait()
    if not s.mix:
        own = kinds_to_learn(s.data, list(shares))
        shares = {kind: 1.0 for kind in own if kind not in unwanted}
    if not shares:
        raise UserError(f"stage {s.stage} needs --mix, or a recipe that says what it learns from")
    splits = read_splits(s.data, list(shares), val_limits(list(shares), s.eval_rows))
    present = {row.kind for row in splits["train"]}
    lacking = [kind for kind in shares if kind not in present]
    if lacking and (s.mix or not present):
        raise UserError(f"{s.data}: no {lacking[0]} rows to train on; add some, or change --mix")
    shares = {kind: share for kind, share in shares.items() if kind in present}
    for row in splits["train"]:
        row.rationale = row.rationale if s.rationales else ""
    return splits, shares


def check(s, runtime):
    """UserError where settings make no sense, or contradict each other."""
    if s.batch_size % runtime.world:
        raise UserError(f"--batch-size {s.batch_size} is no multiple of the {runtime.world} ranks")
    if s.shard and (runtime.world == 1 or s.muon_lr):
        raise UserError("--shard needs several ranks (torchrun), and --muon-lr 0")
    if s.init == "scratch" and s.model is None and s.freeze_vision:
        raise UserError("--init scratch has no vision encoder yet to keep: add --no-freeze-vision")


def main(argv):
    s = parse(Settings, argv, presets, __doc__)
    if s.stage not in STAGES:
        return climb_ladder(s)
    runtime, clock = start_runtime(s.device, s.seed), Timer()
    check(s, runtime)
    with RunFolder(s.out).claimed(s.resume, runtime.main) as run:
        runtime.say(f"stage {s.stage} on {runtime.device}, {runtime.world} rank(s)\n{show(s)}")
        train_in(run, s, runtime, clock)


def train_in(run, s, runtime, clock):
    """The whole run, from the data to the report."""
    recipe = find_recipe(s.recipe, s.data)
    splits, shares = read_data(s, recipe, runtime)
    minutes = {"data": clock() / 60}
    policy = build_policy(s, recipe.texts(splits["train"]), runtime.device)
    rows = recipe.select(s, splits["train"])
    if left_out := len(splits["train"]) - len(rows):
        runtime.say(f"the recipe leaves out {left_out} of {len(splits['train'])} training rows")
    if not rows:
        raise UserError(f"{s.data}: the recipe leaves no rows to train on; change --mix")
    extra = recipe.extra_tensors(s, policy.image_config)
    dataset = Dataset(rows, *policy[1:3], policy.model.config, s.seed, extra)
    order = recipe.order(s, dataset.groups, shares)
    example = dataset[(*order[0][:2], s.questions_per_sequence)]
    explain(s, dataset, example, policy, runtime.say)
    loss = recipe.loss(s, AnswerLoss(policy.model), *policy[1:3], splits["train"])
    if s.shard:
        parallel.shard(loss, [*policy.model.visual.blocks, *policy.model.model.layers])
    scorer = scorer_of_run(policy, splits, s.data, runtime, amp=s.amp)
    optimizers = make_optimizers(policy.model, s.lr, 0.0 if s.lora_rank else s.muon_lr)
    about = {"images": len(dataset), "data": fingerprint(rows)}
    with Loop(s, runtime, run, policy, loss, optimizers, about) as loop:
        train(s, loop, recipe, dataset, order, lambda step: scorer.validate(step, splits["val"]))
        loop.finish(scorer, splits, minutes)


if __name__ == "__main__":
    run_script(main)
