"""What train.py and rl.py share about a run: load a policy, resume, update, log, save, finish."""

import dataclasses
import json

import torch

from nanoladder import checkpoint, parallel
from nanoladder.checkpoint import Policy
from nanoladder.command import UserError, progress
from nanoladder.files import RunFolder, Timer, read_json, write_json
from nanoladder.lora import add_lora, merge_lora
from nanoladder.report import write_report
from nanoladder.runtime import environment
from nanoladder.scoring import write_scores

CLIP_NORM = 1.0  # largest norm of the gradient


def load_policy(s, folder, device):
    """The policy that training starts from; frozen weights under LoRA may stay in bf16."""
    frozen = s.lora_rank and s.amp and not s.shard
    return Policy.load(folder, torch.bfloat16 if frozen else torch.float32, device)


def prepare_model(s, model, recompute):
    """Set up a model for training: LoRA, what is frozen, activation checkpointing, compilation."""
    if s.lora_rank:
        add_lora(model, s.lora_rank)
    if s.freeze_vision:
        model.visual.requires_grad_(False)
    model.set_activation_checkpointing(recompute)
    if s.compile:
        torch._dynamo.config.recompile_limit = (
            64  # one prompt, or one answer, is a graph of its own
        )
        model.visual.encode = torch.compile(model.visual.encode, dynamic=True)
        model.model.compile(dynamic=True)


def resumed_settings(cls, out):
    """The settings of the run in the folder `out`, which --resume goes on with."""
    run = RunFolder(out)
    run.refuse_if_used(resume=True)
    settings = read_json(run.path / "run.json")["settings"]
    if odd := settings.keys() ^ {f.name for f in dataclasses.fields(cls)}:
        raise UserError(
            f"{run.path / 'run.json'}: setting {min(odd)} is of another version of nanoladder, "
            "and only that version can resume this run"
        )
    return settings


class Loop:
    """A run in progress: its step, its optimizers and its files.

    loss_module holds the model; `compute` is how every rank must call it. With --resume everything
    continues from the folder's last saved state.
    """

    def __init__(self, s, runtime, run, policy, loss_module, optimizers, about):
        self.s, self.runtime, self.run, self.policy = s, runtime, run, policy
        self.loss_module, self.optimizers, self.step, seconds = loss_module, optimizers, 0, 0.0
        if s.resume:
            state = checkpoint.load_state(run.state)
            self.step, seconds = state["step"], state["seconds"]
            parallel.scatter_state(state["trained"], policy.model, optimizers)
            runtime.say(f"resumed at step {self.step} of {s.steps}")
        self.peak_rates = [[group["lr"] for group in o.param_groups] for o in optimizers]
        self.compute = parallel.replicate(loss_module, runtime.world)
        self.clock, self.logs = Timer(seconds), {}
        self.about = {
            "settings": dataclasses.asdict(s),
            "environment": environment(runtime.device),
            "ranks": runtime.world,
            "parameters": policy.model.num_parameters(),
        } | about
        run.path.mkdir(parents=True, exist_ok=True)
        if runtime.main:
            write_json(run.path / "run.json", self.about)
        self.bar = progress(
            total=s.steps, initial=self.step, unit="step", leave=True, disable=not runtime.main
        )

    def due(self, every):
        """Whether this step is one of every so many; 0 means never."""
        return every > 0 and self.step % every == 0

    def update(self, factor):
        """Clip the gradient, take an optimizer step at `factor` of the peak rates -> its norm."""
        norm = torch.nn.utils.clip_grad_norm_(self.policy.model.parameters(), CLIP_NORM)
        for optimizer, rates in zip(self.optimizers, self.peak_rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.bar.update()
        return float(parallel.whole(norm))

    def log(self, name, record):
        """Append a record of this step to a JSONL file of the run."""
        if self.runtime.main:
            if name not in self.logs:
                self.logs[name] = self.run.open_log(name, self.step - 1)
            self.logs[name].write(json.dumps({"step": self.step} | record) + "\n")

    def save(self):
        """Save all that --resume needs; every rank must call it."""
        trained = parallel.gather_state(self.policy.model, self.optimizers)
        if self.runtime.main:
            state = {"step": self.step, "seconds": self.clock(), "trained": trained}
            checkpoint.save_state(self.run.state, state)
        self.runtime.wait()

    def finish(self, scorer, splits, minutes):
        """Save the checkpoint, score it on the splits, write the report, and drop the state.

        minutes: {name: minutes} that were spent before the loop, for run.json.
        """
        self.bar.close()
        seconds, scoring = self.clock(), Timer()
        with parallel.gathered(self.loss_module):
            if self.s.lora_rank:
                merge_lora(self.policy.model)
            if self.runtime.main:
                checkpoint.save(self.run.checkpoint, *self.policy)
            scores, answers = scorer.score({k: splits[k] for k in ("test", "ood") if k in splits})
            if self.runtime.main:
                write_scores(self.run.path, scores, answers)
                spent = minutes | {"train": seconds / 60, "score": scoring() / 60}
                self.about["minutes"] = {name: round(value, 2) for name, value in spent.items()}
                if self.runtime.device.type == "cuda":
                    peak = torch.cuda.max_memory_allocated() / 2**30
                    self.about["peak_memory_gib"] = round(peak, 2)
                write_json(self.run.path / "run.json", self.about)
                self.run.state.unlink(missing_ok=True)  # the checkpoint holds what it held
                self.runtime.say(f"done: {write_report(self.run.path)}")
            self.runtime.wait()
