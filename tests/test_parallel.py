"""A split model computes, saves and resumes as a whole one does.

torchrun starts this file again, once for each rank of the test.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT, torchrun
from test_model import TINY
from torch import nn

from nanoladder import checkpoint, parallel
from nanoladder.checkpoint import CheckpointError, State, load_state, save_state
from nanoladder.command import Stopped, UserError
from nanoladder.model import Qwen2_5_VL
from nanoladder.runtime import start_runtime

IDS = torch.tensor([[5, 9, 2, 7, 3, 1], [8, 8, 4, 6, 2, 2]])
POSITIONS = torch.arange(6).expand(3, 2, 6)


class Loss(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids):
        logits = self.model.lm_head(self.model(ids, POSITIONS[:, : len(ids)]))
        return logits.logsumexp(-1).square().mean()


def build():
    torch.manual_seed(0)
    loss = Loss(Qwen2_5_VL(TINY))
    loss.model.visual.requires_grad_(False)
    return loss


def steps(loss, optimizers, count, ids):
    for _ in range(count):
        loss(ids).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()


def adamw(loss):
    trained = [p for p in loss.parameters() if p.requires_grad]
    return [torch.optim.AdamW(trained, lr=1e-2, fused=True)]


def rank_of_the_test(folder, start):
    """Two steps that are split over the ranks, and the whole state and checkpoint they end with.

    start: the file of a whole state to go on from, or "".
    """
    runtime, loss = start_runtime(), build()
    parallel.shard(loss, loss.model.model.layers)
    optimizers = adamw(loss)
    if start:
        parallel.scatter_state(load_state(start).trained, loss.model, optimizers)
    steps(loss, optimizers, 2, IDS[runtime.rank : runtime.rank + 1])
    state = State(2, 1.5, parallel.gather_state(loss.model, optimizers))
    with parallel.gathered(loss):
        if runtime.main:
            save_state(f"{folder}/state.safetensors", state)
            checkpoint.save(f"{folder}/checkpoint", loss.model)
        runtime.wait()
    steps(loss, optimizers, 1, IDS[:1])  # it goes on after having been whole
    if not start:
        end_on_one_rank(folder, runtime)
    runtime.wait()  # a rank that leaves while the other still computes may be aborted
    torch.distributed.destroy_process_group()


def end_on_one_rank(folder, runtime):
    """Runs in which the second rank alone has a loss that is NaN, and alone gets a signal."""
    from test_endings import run

    def nan(loop, loss):
        return loss * float("nan") if runtime.rank == 1 and loop.step + 1 == 3 else None

    def stop(loop, loss):
        if runtime.rank == 1 and loop.step + 1 == 3:
            signal.raise_signal(signal.SIGTERM)

    for event in (nan, stop):
        with pytest.raises((UserError, Stopped)) as error:
            run(Path(folder, event.__name__), event)
        told = Path(folder, f"{event.__name__}{runtime.rank}.txt")
        told.write_text(f"{error.type.__name__}: {error.value}", encoding="utf-8")


def on_two_ranks(folder, start=""):
    command = [*torchrun(), __file__, str(folder), str(start)]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run(command, check=True, env=env)


def same(a, b):
    """Assert that two states of gather_state are equal up to rounding.

    Adam can turn a rounding error into a hundredth of its step of 1e-2.
    """
    assert a.keys() == b.keys()
    for name in a:
        assert torch.allclose(a[name]["value"], b[name]["value"], atol=1e-4), name
        assert a[name]["state"].keys() == b[name]["state"].keys()
        for kind, kept in a[name]["state"].items():
            assert torch.allclose(kept, b[name]["state"][kind], atol=1e-5, rtol=1e-4), name


def test_saved_on_two_ranks_resumed_on_one_and_back(tmp_path):
    on_two_ranks(tmp_path)
    for rank in (0, 1):  # what ends one rank ends both of them at the same step
        told = {
            n: (tmp_path / f"{n}{rank}.txt").read_text(encoding="utf-8") for n in ("nan", "stop")
        }
        assert told["nan"].startswith("UserError: step 3: the loss (nan) or the norm of the")
        assert told["stop"].startswith("Stopped: ") and "the state of step 3 of 6" in told["stop"]
    assert load_state(tmp_path / "nan" / "state.safetensors").step == 2
    assert load_state(tmp_path / "stop" / "state.safetensors").step == 3
    loss = build()
    optimizers = adamw(loss)
    steps(loss, optimizers, 2, IDS)
    two = load_state(tmp_path / "state.safetensors").trained
    one = parallel.gather_state(loss.model, optimizers)
    same(two, one)
    stored = checkpoint.load(tmp_path / "checkpoint").state_dict()
    assert all(torch.allclose(stored[n], w, atol=1e-4) for n, w in loss.model.state_dict().items())

    save_state(tmp_path / "one.safetensors", State(2, 1.5, one))
    resumed = build()
    fresh = adamw(resumed)
    parallel.scatter_state(two, resumed.model, fresh)
    steps(resumed, fresh, 2, IDS)
    on_two_ranks(tmp_path, tmp_path / "one.safetensors")
    same(
        load_state(tmp_path / "state.safetensors").trained,
        parallel.gather_state(resumed.model, fresh),
    )


def test_state_of_another_model_is_refused():
    loss = build()
    optimizers = adamw(loss)
    state = parallel.gather_state(loss.model, optimizers)
    state["model.layers.9.extra"] = state.pop("model.norm.weight")
    with pytest.raises(CheckpointError, match="other parameters"):
        parallel.scatter_state(state, loss.model, optimizers)


if __name__ == "__main__":
    rank_of_the_test(*sys.argv[1:])
