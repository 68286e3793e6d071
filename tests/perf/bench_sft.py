"""A step of supervised fine-tuning beside a plain loop over transformers' model, and TRL's trainer.

    pip install trl                                              # written for version 1.16
    python tests/perf/bench_sft.py --data datasets/rooms-spatial
    python tests/perf/bench_sft.py --sequences 4 --questions 1   # nothing that could be shared

A step is forward, loss, backward, clipping and AdamW on all weights, in fp32. All have the same
weights and learn from the same questions: boxes, single pictures and eight views, of several
lengths. Our code puts the questions about the same pictures into one sequence, as train.py does.
The others get what one writes first: a row for each question, with its pictures, padded on the
right.

The script compares the losses before the first update, and refuses to go on where they differ.
Reading pictures is not timed. TRL's SFTTrainer takes the encoded batch, because the published
processor cannot feed a model as small as ours. Video is left out, for the reason in bench_eval.py.
"""

import os
import tempfile
from pathlib import Path

import torch
from turns import DEVICE, OURS, Turns, arguments, load_theirs, missing, table

from nanoladder import checkpoint
from nanoladder.batches import IGNORE_INDEX, Dataset, collate, on_device
from nanoladder.checkpoint import Policy
from nanoladder.command import UserError
from nanoladder.loop import CLIP_NORM
from nanoladder.muon import make_optimizers
from nanoladder.process import run_script
from nanoladder.splits import read_kinds
from train import AnswerLoss

KINDS = ["localization", "single_image", "multi_view"]
LR = 1e-5
TOLERANCE = 1e-3  # between the losses of the first step


def make_batches(args, policy):
    """(our batch, the others' batch, how many questions both ask)."""
    rows = read_kinds(Path(args.data) / "test", KINDS)
    dataset = Dataset(rows, *policy[1:3], policy.model.config)
    several = [group for group in dataset.groups if len(group) > 1] or dataset.groups
    by_kind = [[g for g in several if g[0].kind == kind] for kind in KINDS]
    groups = [group for together in zip(*by_kind) for group in together][: args.sequences]
    asked = [group[: args.questions] for group in groups]
    if len(groups) < args.sequences:
        raise UserError(f"--sequences {args.sequences}: {args.data} has {len(groups)} at most")

    def batch(examples):
        return on_device(collate(examples), policy.image_config, DEVICE)

    ours = batch([dataset.encode(group) for group in asked])
    alone = batch([dataset.encode([row]) for group in asked for row in group])
    theirs = {
        "input_ids": alone["input_ids"],
        "attention_mask": (alone["segments"] >= 0).long(),
        "mm_token_type_ids": (alone["input_ids"] == policy.model.config.image_token_id).int(),
        "pixel_values": alone["pixel_values"],
        "image_grid_thw": torch.tensor(alone["grid_thw"], device=DEVICE),
        "labels": alone["labels"],
    }
    return ours, theirs, len(alone["input_ids"])


def make_step(model, compute, losses):
    """A step that lowers compute() and appends the loss; it counts as one unit of work."""
    (adamw,) = make_optimizers(model, LR, muon_lr=0.0)
    model.train()

    def step():
        loss = compute()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        adamw.step()
        adamw.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
        return 1

    return step


def make_trainer(folder, batch, turns, out, losses):
    """TRL's SFTTrainer, of which every step gets the same batch and appends its loss."""
    import transformers
    import trl

    class Trainer(trl.SFTTrainer):
        def compute_loss(self, *args, **kwargs):
            loss = super().compute_loss(*args, **kwargs)
            losses.append(float(loss.detach()))
            return loss

    settings = trl.SFTConfig(
        **{"output_dir": out, "use_cpu": DEVICE.type == "cpu", "bf16": False},
        **{"gradient_checkpointing": False, "max_length": None, "max_steps": turns + 1},
        **{"per_device_train_batch_size": 1, "remove_unused_columns": False},
        **{"dataset_kwargs": {"skip_prepare_dataset": True}, "dataloader_pin_memory": False},
        **{"optim": "adamw_torch_fused", "adam_beta2": 0.95, "weight_decay": 0.05},
        **{"learning_rate": LR, "lr_scheduler_type": "constant", "max_grad_norm": CLIP_NORM},
        **{"report_to": [], "logging_strategy": "no", "save_strategy": "no", "disable_tqdm": True},
    )
    return Trainer(
        load_theirs(folder),
        args=settings,
        train_dataset=table({"input_ids": [[0]] * (turns + 1)}),
        data_collator=lambda _: dict(batch),
        processing_class=transformers.AutoTokenizer.from_pretrained(folder),
    )


def main(argv):
    sequences = (9, "sequences of our batch; the kinds of rows take turns")
    questions = (4, "questions of a sequence, at most")
    args = arguments(__doc__, argv, sequences=sequences, questions=questions)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # everything needed is here
    policy, folder = Policy.load(args.model, device=DEVICE), checkpoint.find(args.model)
    batch, plain, asked = make_batches(args, policy)
    answer_loss, theirs = AnswerLoss(policy.model), load_theirs(folder)
    tokens = int((batch["labels"] != IGNORE_INDEX).sum())
    losses = {OURS: [], "transformers": [], "TRL": []}
    contestants = {
        OURS: make_step(policy.model, lambda: answer_loss(batch)[0] / tokens, losses[OURS]),
        "transformers": make_step(theirs, lambda: theirs(**plain).loss, losses["transformers"]),
    }
    turns, peers = Turns("steps/s"), ["transformers"]
    if missing("trl"):
        turns.take_all(contestants, args.turns)
    else:
        peers.append("TRL")
        with tempfile.TemporaryDirectory() as out:
            trainer = make_trainer(folder, plain, args.turns, out, losses["TRL"])
            turns.train(trainer, contestants)
    results, what = [], f"SFT step, {asked} questions in {args.sequences} sequences"
    for peer in peers:
        difference = abs(losses[OURS][0] - losses[peer][0])
        if not difference < TOLERANCE:
            raise UserError(f"{peer}: the first loss is {losses[peer][0]}, ours {losses[OURS][0]}")
        same = f"losses {losses[OURS][0]:.5f} and {losses[peer][0]:.5f}"
        results.append(turns.result(what, peer, same))
    return results


if __name__ == "__main__":
    run_script(main)
