"""A compiled run: it makes few graphs, none once it has seen it all, and learns the same."""

import dataclasses
from functools import partial

import pytest
import torch

import rl
import train
from nanoladder import predict, scoring
from nanoladder.files import read_jsonl
from nanoladder.loop import Loop
from nanoladder.model import PRESETS

SHALLOW = dataclasses.replace(
    PRESETS["nano"],
    num_hidden_layers=1,
    vision=dataclasses.replace(PRESETS["nano"].vision, depth=1, fullatt_block_indexes=(0,)),
)


class Graphs:
    """A backend of torch.compile that runs each graph as it is, and keeps the step it is from."""

    def __init__(self):
        self.steps, self.step = [], 0

    def __call__(self, graph, inputs):
        self.steps.append(self.step)
        return graph.forward


@pytest.fixture
def graphs(monkeypatch):
    found, end_step = Graphs(), Loop.end_step

    def end(loop):
        found.step = loop.step
        end_step(loop)

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=found))
    monkeypatch.setattr(Loop, "end_step", end)
    monkeypatch.setattr(scoring, "VAL_ROWS", 6)
    monkeypatch.setattr(predict, "MAX_NEW_TOKENS", 8)
    monkeypatch.setitem(PRESETS, "nano", SHALLOW)
    return found


def test_a_run_makes_few_graphs_and_computes_the_same(rooms, tmp_path, graphs):
    flags = ["--data", str(rooms), "--eval-rows", "0", "--init", "scratch", "--steps", "4"]
    flags += ["--batch-size", "8", "--micro-batch-size", "4", "--eval-every", "2"]
    flags += ["--no-freeze-vision", "--mix", "localization=1"]
    train.main([*flags, "--out", str(tmp_path / "compiled"), "--compile"])
    train.main([*flags, "--out", str(tmp_path / "eager"), "--no-compile"])
    # Training: the encoder and the decoder. Asking: the encoder, and the decoder on prompts that
    # are padded or not, each with its first and its later tokens. None is new after a validation.
    assert len(graphs.steps) <= 8 and max(graphs.steps) < 2
    compiled, eager = (read_jsonl(tmp_path / n / "metrics.jsonl") for n in ("compiled", "eager"))
    assert [r["val"] for r in compiled] == [r["val"] for r in eager] and len(eager) == 2
    losses = [[r["loss"] for r in log] for log in (compiled, eager)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_later_stages_make_no_graph_after_their_first_steps(rooms, tmp_path, graphs):
    quick, base = ["--data", str(rooms), "--eval-rows", "0"], str(tmp_path / "base")
    new = ["--init", "scratch", "--no-freeze-vision", "--mix", "localization=1"]
    train.main([*quick, *new, "--steps", "1", "--eval-every", "0", "--out", base])
    spatial = ["--mix", "single_image=1,multi_view=1,video=1", "--no-rationales", "--freeze-vision"]
    spatial += ["--stage", "2", "--steps", "6", "--batch-size", "8", "--micro-batch-size", "4"]
    flags = [*quick, *spatial, "--init", base, "--eval-every", "3", "--compile"]
    train.main([*flags, "--out", str(tmp_path / "stage2")])
    assert 0 < len(graphs.steps) <= 10 and max(graphs.steps) < 3  # the steps before a validation
    graphs.steps, graphs.step = [], 0
    flags = [*quick, "--init", str(tmp_path / "stage2"), "--no-think", "--steps", "6", "--compile"]
    flags += ["--prompts-per-step", "4", "--group-size", "2", "--max-new-tokens", "8"]
    rl.main([*flags, "--save-every", "3", "--out", str(tmp_path / "rl")])
    assert 0 < len(graphs.steps) <= 8 and max(graphs.steps) < 3
