"""What train.py and rl.py share about a run: load a policy, resume, update, log, save, finish."""

import dataclasses
import json
import math
import signal

import torch
from safetensors import SafetensorError

from nanoladder import checkpoint, parallel
from nanoladder.checkpoint import Policy
from nanoladder.command import Stopped, UserError, progress, refuse_changes
from nanoladder.files import read_json, write_json
from nanoladder.lora import add_lora, merge_lora
from nanoladder.process import Deferred, explain
from nanoladder.report import try_report
from nanoladder.run_folder import RunFolder, Timer, run_settings
from nanoladder.runtime import environment
from nanoladder.scoring import write_scores

CLIP_NORM = 1.0  # largest norm of the gradient


def load_policy(s, start, device):
    """The policy of a folder, or of "base"; frozen weights under LoRA may stay in bf16."""
    frozen = s.lora_rank and s.amp and not s.shard
    folder = checkpoint.BASE if start == "base" else start
    policy = Policy.load(folder, keep_bf16=frozen, device=device)
    policy.tokenizer.use_prompts(s.prompts)
    return policy.limit_pixels(s)


def prepare_model(s, model, frozen, recompute):
    """Set up a model for training: LoRA, a frozen encoder, activation checkpointing, compiling."""
    if s.lora_rank:
        add_lora(model, s.lora_rank)
    if frozen:
        model.visual.requires_grad_(False)
    model.set_activation_checkpointing(recompute)
    if s.compile:
        torch._dynamo.config.recompile_limit = 64  # sizes 0 and 1 are graphs of their own
        model.visual.encode = torch.compile(model.visual.encode, dynamic=True)
        model.model.compile(dynamic=True)


def resumed_settings(cls, given, out):
    """The settings of the run that --resume goes on with, in --out or else in the folder `out`.

    given: {name: value} of the flags. UserError where one differs from what the run was started
    with, except --shard and --device, which only say where the run computes.
    """
    run = RunFolder(given.get("out", out))
    run.refuse_if_used(resume=True)
    settings = run_settings(run.path)
    if odd := settings.keys() ^ {f.name for f in dataclasses.fields(cls)}:
        raise UserError(
            f"{run.path / 'run.json'}: setting {min(odd)} is of another script or version of "
            "nanoladder, and only that one can resume this run"
        )
    what, remedy = f"{run.path} has", "give no other flags than --out with --resume"
    now = {name: given[name] for name in given.keys() - {"out", "resume", "shard", "device"}}
    refuse_changes(settings, now, what, remedy)
    return settings


class Loop:
    """A run in progress: its step, its optimizers and its files.

    loss_module holds the model; `compute` is how every rank must call it. With --resume everything
    continues from the folder's last saved state. Use it in a `with` block: Ctrl-C and SIGTERM then
    end the run after its current step, and an error says what the folder keeps.
    """

    def __init__(self, s, runtime, run, policy, loss_module, optimizers, about):
        self.s, self.runtime, self.run, self.policy = s, runtime, run, policy
        self.loss_module, self.optimizers, self.step, seconds = loss_module, optimizers, 0, 0.0
        self.saved, self.signals = None, Deferred()  # the step that is saved; Ctrl-C
        if s.resume:
            state = checkpoint.load_state(run.state)
            checkpoint.check_state(state, s.steps, policy.model, run.state)
            self.step, seconds, trained = state
            self.saved = self.step
            parallel.scatter_state(trained, policy.model, optimizers)
            runtime.say(f"resumed at step {self.step} of {s.steps}")
        self.peak_rates = [[group["lr"] for group in o.param_groups] for o in optimizers]
        self.compute = parallel.replicate(loss_module, runtime.world)
        self.clock, self.logs = Timer(seconds), {}
        self.about = {
            "settings": dataclasses.asdict(s),
            "environment": environment(runtime.device),
            "ranks": runtime.world,
            "parameters": policy.model.num_parameters(),
            "prompts": dataclasses.asdict(policy.tokenizer.prompts),
        } | about
        before = read_json(run.path / "run.json") if s.resume else self.about
        for name, what in ("data", "rows"), ("prompts", "prompts"):
            if json.dumps(before.get(name)) != json.dumps(self.about.get(name)):
                raise UserError(f"{run.path} began with other {what}: restore them, or start anew")
        if runtime.main and not run.scores.exists():
            write_json(run.path / "run.json", self.about)
        self.bar = progress(
            total=s.steps, initial=self.step, unit="step", leave=True, disable=not runtime.main
        )

    def __enter__(self):
        self.signals.__enter__()
        return self

    def __exit__(self, kind, error, traceback):
        self.signals.release()
        self.bar.close()
        on = "start again" if self.saved is None else f"go on with --resume --out {self.run.path}"
        on = f"{self.kept()}: {on}"
        if isinstance(error, KeyboardInterrupt):
            raise Stopped(getattr(error, "signal", signal.SIGINT), on) from None
        if isinstance(error, (OSError, SafetensorError)):  # such as a full disk
            cause = explain(error)[0].removeprefix("error: ")
            raise UserError(f"step {self.step}: {cause}; {on}") from error

    def kept(self):
        state = "no state yet" if self.saved is None else f"the state of step {self.saved}"
        return f"{self.run.path} keeps {state} of {self.s.steps} steps"

    def refuse(self, what):
        """UserError, because what is not finite can neither be trained on nor be saved."""
        how = "start again with a lower --lr, because --resume keeps the settings"
        raise UserError(f"step {self.step}: {what} not finite: {how}; {self.kept()}")

    def due(self, every):
        """Whether this step is one of every so many; 0 means never."""
        return every > 0 and self.step % every == 0

    def update(self, factor, loss):
        """Clip the gradient, take an optimizer step at `factor` of the peak rates -> its norm.

        loss: this rank's. UserError on every rank, before the optimizer's step, where the loss of
        one of them or the gradient is not finite.
        """
        norm = torch.nn.utils.clip_grad_norm_(self.policy.model.parameters(), CLIP_NORM)
        norm, loss = float(parallel.whole(norm)), self.runtime.sum(float(loss))
        self.step += 1
        if not math.isfinite(norm + loss):
            self.refuse(f"the loss ({loss:g}) or the norm of the gradient ({norm:g}) is")
        for optimizer, rates in zip(self.optimizers, self.peak_rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.bar.update()
        return norm

    def log(self, name, record):
        """Append a record of this step to a JSONL file of the run."""
        if self.runtime.main:
            if name not in self.logs:
                self.logs[name] = self.run.open_log(name, self.step - 1)
            self.logs[name].write(json.dumps({"step": self.step} | record) + "\n")

    def end_step(self):
        """Save where it is due, at the last step, and when a signal asks a rank to stop: all do."""
        stop = self.runtime.sum(self.signals.signal is not None)
        if stop or self.step == self.s.steps or self.due(self.s.save_every):
            self.save()
        if stop:
            raise Stopped(self.signals.signal or signal.SIGTERM)

    def save(self):
        """Save all that --resume needs; every rank must call it."""
        trained = parallel.gather_state(self.policy.model, self.optimizers, self.runtime.main)
        odd = [name for name, p in trained.items() if not checkpoint.all_finite(p["value"])]
        if self.runtime.sum(len(odd)):
            self.refuse(f"the weights {odd[0] if odd else ''} are")  # the main rank has the names
        if self.runtime.main:
            state = checkpoint.State(self.step, self.clock(), trained)
            checkpoint.save_state(self.run.state, state)
        self.runtime.wait()
        self.saved = self.step

    def finish(self, scorer, splits, minutes):
        """Save the checkpoint, score it on the splits, write the report, and drop the state.

        minutes: {name: minutes} that were spent before the loop, for run.json. The state goes last,
        so a run that was killed on the way and is resumed does what is missing.
        """
        self.bar.close()
        self.signals.release()  # nothing is lost any more, so a signal may stop at once
        if not self.run.scores.exists():
            with parallel.gathered(self.loss_module):
                self.keep_and_score(scorer, splits, minutes)
        if self.runtime.main:
            try_report(self.run.path, self.runtime.say)
            self.run.state.unlink(missing_ok=True)
        self.runtime.wait()

    def keep_and_score(self, scorer, splits, minutes):
        """Write checkpoint/, the minutes into run.json, and the scores, unless --eval-rows is 0."""
        seconds, scoring = self.clock(), Timer()
        if self.s.lora_rank:
            merge_lora(self.policy.model)
        if self.runtime.main:
            checkpoint.save(self.run.checkpoint, *self.policy)
        held_out = {k: splits[k] for k in ("test", "ood") if self.s.eval_rows and splits.get(k)}
        scores, answers = scorer.score(held_out) if held_out else ({}, [])
        if self.runtime.main:
            spent = minutes | {"train": seconds / 60, "score": scoring() / 60}
            self.about["minutes"] = {name: round(value, 2) for name, value in spent.items()}
            if self.runtime.device.type == "cuda":
                self.about["peak_memory_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
            write_json(self.run.path / "run.json", self.about)
            if held_out:
                write_scores(self.run.path, scores, answers)
