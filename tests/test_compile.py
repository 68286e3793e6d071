"""How many graphs torch.compile makes of a whole run: few, and none once it has seen it all."""

import dataclasses
from functools import partial

import pytest
import torch

import train
from nanoladder import predict, scoring
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


def test_a_run_makes_few_graphs_and_none_after_its_first_validation(rooms, tmp_path, graphs):
    data, stage1 = ["--data", str(rooms), "--eval-rows", "0", "--compile"], tmp_path / "stage1"
    flags = [*data, "--out", str(stage1), "--init", "scratch", "--no-freeze-vision"]
    flags += ["--batch-size", "8", "--micro-batch-size", "4", "--steps", "6", "--eval-every", "2"]
    train.main([*flags, "--mix", "localization=1"])
    # Training: the encoder and the decoder. Asking: the encoder, and the decoder on prompts that
    # are padded or not, each with its first and its later tokens.
    assert len(graphs.steps) <= 8 and max(graphs.steps) < 2
