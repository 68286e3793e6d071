"""LoRA: nothing changes at first, only its matrices learn, it comes off, it merges; the same as peft's."""

import pytest
import torch
from test_model import TINY

from nanoladder.lora import LINEARS, add_lora, lora_layers, lora_off, merge_lora
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
    for layer in lora_layers(model):
        torch.nn.init.normal_(layer.lora_B, std=0.1)


def test_it_starts_at_the_model_comes_off_and_merges(model):
    names, plain = list(model.state_dict()), logits(model)
    add_lora(model, rank=4, alpha=8)
    assert torch.equal(logits(model), plain)
    disturb(model)
    changed = logits(model)
    assert not torch.allclose(changed, plain, atol=1e-2)
    with lora_off(model):
        assert torch.equal(logits(model), plain)
    assert torch.equal(logits(model), changed)
    merge_lora(model)
    assert torch.allclose(logits(model), changed, atol=1e-5)
    assert list(model.state_dict()) == names and all(p.requires_grad for p in model.parameters())


def test_only_its_matrices_learn(model):
    add_lora(model, rank=2, alpha=4, targets=("q_proj", "qkv"))
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained and all(name.endswith(("lora_A", "lora_B")) for name in trained)
    assert {name.split(".")[-2] for name in trained} == {"q_proj", "qkv"}
    logits(model).sum().backward()
    with_gradient = {name for name, p in model.named_parameters() if p.grad is not None}
    assert with_gradient == {name for name in trained if "q_proj" in name}  # no picture was looked at


def test_frozen_bf16_weights_with_matrices_in_fp32(model):
    model.bfloat16()
    add_lora(model, rank=2, alpha=4)
    disturb(model)
    before = logits(model)
    assert before.dtype == torch.bfloat16 and lora_layers(model)[0].lora_A.dtype == torch.float32
    merge_lora(model)
    assert all(p.dtype == torch.bfloat16 for p in model.parameters())
    assert torch.allclose(logits(model).float(), before.float(), atol=0.1)


def test_unknown_targets_are_refused(model):
    with pytest.raises(ValueError, match="q_proy"):
        add_lora(model, rank=2, alpha=4, targets=("q_proj", "q_proy"))


def test_it_computes_what_peft_computes(model):
    peft = pytest.importorskip("peft", reason="the reference; pip install -e '.[test]'")
    torch.manual_seed(0)
    theirs = Qwen2_5_VL(TINY)
    wanted = [name for name, m in theirs.named_modules() if isinstance(m, torch.nn.Linear)]
    wanted = [name for name in wanted if name.split(".")[-1] in LINEARS]
    theirs = peft.inject_adapter_in_model(peft.LoraConfig(r=4, lora_alpha=12, target_modules=wanted), theirs)
    add_lora(model, rank=4, alpha=12)
    disturb(model)
    for layer, other in zip(lora_layers(model), [m for m in theirs.modules() if hasattr(m, "lora_A")], strict=True):
        other.lora_A["default"].weight.data.copy_(layer.lora_A)
        other.lora_B["default"].weight.data.copy_(layer.lora_B)
    assert torch.allclose(logits(model), logits(theirs), atol=1e-5)
