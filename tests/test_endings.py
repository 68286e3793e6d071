"""Runs that stop, fail, are killed or meet another one: what is kept, and that they go on.

A tiny model with a loop of its own stands for train.py and rl.py, because nanoladder/loop.py does
all of this for both.
"""

import dataclasses
import errno
import os
import shutil
import signal
import sys

import pytest
import torch
from safetensors import SafetensorError
from test_parallel import IDS, build
from test_report import box_prediction
from torch.utils.data import DataLoader

from nanoladder import checkpoint, loop, process, report
from nanoladder.checkpoint import Policy, load_state
from nanoladder.command import Stopped, UserError
from nanoladder.files import read_json, read_jsonl, write_json
from nanoladder.image import ImageConfig
from nanoladder.loop import Loop
from nanoladder.run_folder import RunFolder
from nanoladder.runtime import start_runtime
from nanoladder.summaries import summarize_localization
from nanoladder.tokenizer import Tokenizer

WHOLE = {"checkpoint", "metrics.jsonl", "report.html", "run.json", ".lock"}
TOKENIZER = Tokenizer.train(["a"], 300)
SCORED = WHOLE | {"predictions.jsonl", "samples.png", "scores.json"}


@dataclasses.dataclass
class Settings:
    out: str
    resume: bool = False
    steps: int = 6
    save_every: int = 2
    eval_rows: int = 1
    lora_rank: int = 0
    lr: float = 1e-2
    init: str = "scratch"
    stage: str = "1"


class Scorer:
    """Stands for scoring.Scorer. It counts how often it was asked."""

    def __init__(self, folder):
        self.answers, self.asked = [box_prediction(folder, 1)], 0

    def score(self, splits):
        assert splits == {"test": ["a row"]}
        self.asked += 1
        summary = summarize_localization(self.answers, [0, 0, 32, 32])
        return {"localization": {"test": summary}}, self.answers


def run(out, event=lambda loop, loss: None, scorer=None, **settings):
    """A run of the tiny model. event(loop, loss) is called in each step, before the update.

    It may change things, and may return another loss to tell the update of.
    """
    s, runtime, loss = Settings(str(out), **settings), start_runtime(), build()
    optimizers = [torch.optim.AdamW([p for p in loss.parameters() if p.requires_grad], lr=s.lr)]
    policy = Policy(loss.model, TOKENIZER, ImageConfig())
    splits = {"test": ["a row"], "ood": []}
    with (
        RunFolder(out).claimed(s.resume, runtime.main) as folder,
        Loop(s, runtime, folder, policy, loss, optimizers, {}) as running,
    ):
        while running.step < s.steps:
            value = running.compute(IDS[running.step % 2 :][:1])
            value.backward()
            changed = event(running, value)
            running.update(1.0, (value if changed is None else changed).detach())
            running.log("metrics.jsonl", {"loss": value.item()})
            running.end_step()
        running.finish(scorer, splits, {"data": 0.0})


def state_of(out):
    return load_state(out / "state.safetensors")


def weights(out):
    return (out / "checkpoint" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing interrupted."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    run(out, scorer=Scorer(out.parent))
    assert {path.name for path in out.iterdir()} == SCORED
    return out


def assert_same(out, whole):
    assert weights(out) == weights(whole)
    assert read_jsonl(out / "metrics.jsonl") == read_jsonl(whole / "metrics.jsonl")
    assert RunFolder(out).finished


# ---------------------------------------------------------------- numbers that are none


def nan_loss(loop, loss):
    return loss * float("nan")


def infinite_gradient(loop, loss):
    trained(loop).grad[0] = float("inf")


def infinite_weight(loop, loss):
    loop.optimizers[0].step = lambda: trained(loop).data.fill_(float("inf"))


def trained(loop):
    return next(p for p in loop.policy.model.parameters() if p.requires_grad)


@pytest.mark.parametrize("trouble, step, words", [
    (nan_loss, 3, "step 3: the loss (nan) or the norm of the gradient"),
    (infinite_gradient, 3, "step 3: the loss ("),
    (infinite_weight, 4, "step 4: the weights model.embed_tokens.weight are not finite"),
])  # fmt: skip
def test_what_is_not_finite_is_neither_learned_nor_saved(tmp_path, trouble, step, words):
    seen = []

    def event(loop, loss):
        seen.append(loop)
        return trouble(loop, loss) if loop.step + 1 == step else None

    out = tmp_path / "run"
    with pytest.raises(UserError) as error:
        run(out, event)
    assert words in str(error.value) and "\n" not in str(error.value)
    assert "lower --lr" in str(error.value)
    assert f"{out} keeps the state of step 2 of 6 steps" in str(error.value)
    kept = state_of(out).trained
    assert state_of(out).step == 2
    assert all(entry["value"].isfinite().all() for entry in kept.values())
    if trouble is not infinite_weight:  # the optimizer's step was not taken
        now = dict(seen[0].policy.model.named_parameters())
        assert all(torch.equal(now[name], entry["value"]) for name, entry in kept.items())


def test_a_learning_rate_of_1e30(tmp_path):
    with pytest.raises(UserError, match="not finite.*lower --lr.*keeps no state yet"):
        run(tmp_path / "run", lr=1e30)
    assert {path.name for path in (tmp_path / "run").iterdir()} <= WHOLE - {"checkpoint"}


# ---------------------------------------------------------------- signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_the_step_and_resuming_is_bit_for_bit(whole, tmp_path, number, capfd):
    def event(loop, loss):
        if loop.step + 1 == 3:
            signal.raise_signal(number)
            signal.raise_signal(number)  # as torchrun may repeat it at once

    before, out = [signal.getsignal(n) for n in process.STOPS], tmp_path / "run"
    with pytest.raises(Stopped) as stopped:
        run(out, event, save_every=0)
    assert stopped.value.signal == number
    line, status = process.explain(stopped.value)
    assert status == 128 + number
    assert line.endswith(
        "keeps the state of step 3 of 6 steps: go on with --resume --out " + str(out)
    )
    assert "stopping after this step" in capfd.readouterr().err
    assert [signal.getsignal(n) for n in process.STOPS] == before
    assert state_of(out).step == 3 and not RunFolder(out).finished
    with pytest.raises(UserError, match="unfinished run"):
        run(out)
    run(out, resume=True, save_every=0, scorer=Scorer(tmp_path))
    assert_same(out, whole)


def test_a_later_signal_stops_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "CALM", -1)

    def event(loop, loss):
        if loop.step + 1 == 4:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Stopped, match="keeps the state of step 2 of 6 steps: go on with --resume"):
        run(tmp_path / "run", event)


def test_ctrl_c_while_scoring_loses_no_training(whole, tmp_path):
    class Interrupted:
        def score(self, splits):
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Stopped, match="step 6 of 6 steps: go on with --resume"):
        run(tmp_path / "run", save_every=0, scorer=Interrupted())
    run(tmp_path / "run", resume=True, save_every=0, scorer=Scorer(tmp_path))
    assert_same(tmp_path / "run", whole)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no process groups")
def test_a_signal_to_the_group_spares_the_workers_of_the_loader():
    loader = iter(DataLoader([1, 2], num_workers=1, worker_init_fn=process.leave_process_group))
    worker = loader._workers[0].pid
    assert int(next(loader)) == 1 and os.getpgid(worker) == worker != os.getpgrp()


# ---------------------------------------------------------------- disks


@pytest.mark.parametrize("error", [
    OSError(errno.ENOSPC, "No space left on device"),
    SafetensorError("I/O error: No space left on device (os error 28)"),
])  # fmt: skip
def test_a_full_disk_keeps_the_state_from_before(whole, tmp_path, monkeypatch, error):
    def save_half(tensors, path, metadata=None, save=checkpoint.save_file):
        if os.path.lexists(path.with_name("state.safetensors")):  # the second state
            path.write_bytes(b"half")
            raise error
        save(tensors, path, metadata)

    out = tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(UserError) as told:
        patch.setattr(checkpoint, "save_file", save_half)
        run(out)
    line, status = process.explain(told.value)
    assert status == 2 and "\n" not in line
    for words in (
        "step 4: ",
        "No space left",
        "on the disk",
        "step 2 of 6 steps: go on with --resume",
    ):
        assert words in line, line
    assert state_of(out).step == 2
    run(out, resume=True, scorer=Scorer(tmp_path))
    assert_same(out, whole)


def test_a_closed_pipe_is_named_and_loses_no_training(whole, tmp_path):
    class Told:  # scores are printed, and `train.py | head` has ended before
        def score(self, splits):
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    with pytest.raises(UserError, match="program that reads the output has ended; .* step 6 of 6"):
        run(tmp_path / "run", save_every=0, scorer=Told())
    run(tmp_path / "run", resume=True, save_every=0, scorer=Scorer(tmp_path))
    assert_same(tmp_path / "run", whole)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(UserError, match="--out .*file.* cannot be written"):
            run(out)
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


# ---------------------------------------------------------------- two runs in one folder


def test_a_second_run_in_the_same_folder_is_refused(tmp_path):
    import eval as evaluate  # here, because a test of two ranks imports this file, too
    import rl
    import train

    out = str(tmp_path / "run")
    with RunFolder(out).claimed(resume=False):
        for main, flags in (
            (train.main, ["--stage", "1", "--data", out]),
            (rl.main, ["--data", out]),
            (evaluate.main, ["--model", out, "--data", out]),
            (train.main, ["--stage", "all"]),
        ):
            with pytest.raises(
                UserError, match=f"run is in use by another process .*{os.getpid()}"
            ):
                main([*flags, "--out", out])
    assert not os.path.exists(out)  # nothing was written there, so the folder goes again


# ---------------------------------------------------------------- logs


def test_a_damaged_log_is_mended_on_resume(tmp_path):
    log = tmp_path / "metrics.jsonl"
    good = [b'{"step": 1, "text": "a\xe2\x80\xa8b"}', b'{"step": 2, "loss": NaN}']
    odd = [
        b'{"step": 2, "val": {"iou": 0.5}',
        b"\0\0\0\0",
        b"[3]",
        b'{"loss": 1}',
        b'{"step": "x"}',
    ]
    late = [b'{"step": 3, "loss": Infinity}', b'{"step": 9, "loss": 1.0}', b'{"step": 4, "va']
    log.write_bytes(b"\n".join([*good, *odd, *late]))
    with RunFolder(tmp_path).open_log("metrics.jsonl", 3) as file:
        file.write('{"step": 4}\n')
    rows = read_jsonl(log)
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert rows[0]["text"] == "a\u2028b"


# ---------------------------------------------------------------- the end of a run


class Killed(BaseException):
    pass


class Death:
    """Ends a run at its n-th change of a file in a folder; a dead process changes no more."""

    def __init__(self):
        self.folder, self.left = None, 0
        sys.addaudithook(self.hook)

    def hook(self, event, args):
        if self.folder is None or event not in ("open", "os.rename", "os.remove", "os.mkdir"):
            return
        path = args[0] if isinstance(args[0], str) else os.fsdecode(args[0]) if args[0] else ""
        reads = event == "open" and not args[2] & (os.O_WRONLY | os.O_RDWR)
        if not path.startswith(self.folder) or reads or path.endswith(".lock"):
            return
        self.left -= 1
        if self.left <= 0:
            raise Killed(event, path)


DEATH = Death()  # an audit hook stays for ever, so there is one


def test_a_run_that_is_killed_at_any_write_of_its_end_does_what_is_missing(whole, tmp_path):
    trained = tmp_path / "trained"

    class Ended(Scorer):
        def score(self, splits):
            raise Killed

    with pytest.raises(Killed):
        run(trained, scorer=Ended(tmp_path))  # the state of the last step, and a checkpoint
    shutil.rmtree(trained / "checkpoint")
    for count in range(1, 100):
        out, scorer = tmp_path / str(count), Scorer(tmp_path)
        shutil.copytree(trained, out)
        DEATH.folder, DEATH.left = str(out), count
        try:
            run(out, resume=True, scorer=scorer)
        except Killed:
            DEATH.folder = None
            assert not RunFolder(out).finished, count
            scored = (out / "scores.json").exists()
            asked = scorer.asked
            run(out, resume=True, scorer=scorer)
            assert scorer.asked == asked + (not scored), count
        else:
            break
        finally:
            DEATH.folder = None
        assert {path.name for path in out.iterdir()} - {"checkpoint.old"} == SCORED, count
        assert {"data", "train", "score"} == read_json(out / "run.json")["minutes"].keys()
        assert_same(out, whole)
        shutil.rmtree(out)
    assert 20 < count < 99  # checkpoint, run.json, predictions, picture, scores, page, state


def test_a_run_without_scores_ends_with_a_page(tmp_path):
    run(tmp_path / "run", eval_rows=0, steps=1)
    assert {path.name for path in (tmp_path / "run").iterdir()} == WHOLE
    with pytest.raises(UserError, match="finished run"):
        run(tmp_path / "run")
    with pytest.raises(UserError, match="finished run"):
        run(tmp_path / "run", resume=True)


def test_a_page_that_fails_does_not_fail_the_run(tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(report, "gallery", lambda folder: 1 / 0)
        run(out, steps=1, scorer=Scorer(tmp_path))
    told = [line for line in capsys.readouterr().out.splitlines() if "report" in line]
    assert len(told) == 1 and "ZeroDivisionError" in told[0]
    assert f"python -m nanoladder.report {out}" in told[0]
    assert RunFolder(out).finished and not (out / "report.html").exists()
    report.main([str(out)])
    assert (out / "report.html").exists()
    with pytest.raises(UserError, match="name a run folder"):
        report.main([])


def test_an_older_run_killed_before_its_scores_is_not_finished(tmp_path):
    """Its folder has a run.json and a log alone; the same command starts it again."""
    write_json(tmp_path / "run.json", {"settings": {}})
    assert not RunFolder(tmp_path).finished
    RunFolder(tmp_path).refuse_if_used(resume=False)
    assert loop.CLIP_NORM == 1.0


def test_a_run_is_never_written_into_a_folder_that_holds_other_things(tmp_path):
    """Such as the data folder, or a folder of photographs."""
    (tmp_path / "train").mkdir()
    with pytest.raises(UserError, match="holds other files: name another folder with --out"):
        with RunFolder(tmp_path).claimed(resume=False):
            pass
    assert {path.name for path in tmp_path.iterdir()} <= {"train", ".lock"}
