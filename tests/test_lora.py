"""LoRA changes nothing at first, learns alone, comes off, can be merged, and equals peft's."""

import pytest
import torch
from test_model import TINY

from nanoladder.lora import LINEARS, SCALE, add_lora, lora_layers, lora_off, merge_lora
from nanoladder.model import Qwen2_5_VL

IDS = torch.tensor([[5, 9, 2, 7, 3]])
POSITIONS = torch.arange(5).expand(3, 1, 5)


def logits(model):
    return model.lm_head(model(IDS, POSITIONS))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Qwen2_5_VL(TINY)


def disturb(model):
    """Give the products a value; B is 0 at first."""
    for layer in lora_layers(model):
        torch.nn.init.normal_(layer.lora_B, std=0.1)


def test_lora_starts_at_the_model_and_is_switched_off_and_merged(model):
    names, plain = list(model.state_dict()), logits(model)
    add_lora(model, rank=4)
    assert torch.equal(logits(model), plain)
    disturb(model)
    changed = logits(model)
    assert not torch.allclose(changed, plain, atol=1e-2)
    with lora_off(model):
        assert torch.equal(logits(model), plain)
    assert torch.equal(logits(model), changed)
    merge_lora(model)
    assert torch.allclose(logits(model), changed, atol=1e-5)
    assert list(model.state_dict()) == names


def test_only_the_matrices_of_lora_learn(model):
    add_lora(model, rank=2)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained and all(name.endswith(("lora_A", "lora_B")) for name in trained)
    assert {name.split(".")[-2] for name in trained} == set(LINEARS)
    logits(model).sum().backward()
    with_gradient = {name for name, p in model.named_parameters() if p.grad is not None}
    # There was no picture, so the vision encoder was not used.
    assert with_gradient == {name for name in trained if not name.startswith("visual")}


def test_frozen_bf16_weights_with_matrices_in_fp32(model):
    model.bfloat16()
    add_lora(model, rank=2)
    disturb(model)
    before = logits(model)
    assert before.dtype == torch.bfloat16 and lora_layers(model)[0].lora_A.dtype == torch.float32
    layer = lora_layers(model)[0]
    learned = SCALE * layer.lora_B @ layer.lora_A
    frozen, path = layer.weight.float(), next(n for n, m in model.named_modules() if m is layer)
    merge_lora(model)
    assert torch.allclose(logits(model), before.float(), atol=0.1)
    # In bf16 a part of what was learned would be rounded away.
    merged = model.get_submodule(path).weight
    assert torch.allclose(merged - frozen, learned, atol=1e-7)
    assert (merged.bfloat16().float() - merged).abs().max() > 1e-5


def test_lora_computes_what_peft_computes(model):
    peft = pytest.importorskip("peft", reason="the reference; pip install -e '.[test]'")
    torch.manual_seed(0)
    theirs = Qwen2_5_VL(TINY)
    wanted = [name for name, m in theirs.named_modules() if isinstance(m, torch.nn.Linear)]
    wanted = [name for name in wanted if name.split(".")[-1] in LINEARS]
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=wanted)  # a scale of alpha / r = 2
    theirs = peft.inject_adapter_in_model(config, theirs)
    add_lora(model, rank=4)
    disturb(model)
    others = [module for module in theirs.modules() if hasattr(module, "lora_A")]
    for layer, other in zip(lora_layers(model), others, strict=True):
        other.lora_A["default"].weight.data.copy_(layer.lora_A)
        other.lora_B["default"].weight.data.copy_(layer.lora_B)
    assert torch.allclose(logits(model), logits(theirs), atol=1e-5)
