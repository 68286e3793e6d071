"""LoRA (Hu et al. 2021, arXiv 2106.09685): train a small product beside each frozen matrix.

add_lora(model, rank=16)    # y = W x + 2 * B A x, with B = 0 at first
with lora_off(model): ...   # the model as it was, which is GRPO's reference
merge_lora(model)           # W += 2 * B A, which makes it a plain model again
"""

from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Last parts of the names of the layers that get LoRA: the projections of the decoder and of the
# vision blocks, but not the merger, the embeddings or the head.
LINEARS = "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj qkv proj".split()
SCALE = 2.0  # of the products: the usual alpha of twice the rank


class LoRALinear(nn.Linear):
    """A frozen linear layer with its old names, and lora_A [r, in], lora_B [out, r] in fp32."""

    def __init__(self, linear: nn.Linear, rank: int):
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.on, device = True, linear.weight.device
        spread = self.in_features**0.5
        self.lora_A = nn.Parameter(torch.randn(rank, self.in_features, device=device) / spread)
        self.lora_B = nn.Parameter(torch.zeros(self.out_features, rank, device=device))

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        if not self.on:
            return y
        added = F.linear(F.linear(x.to(self.lora_A.dtype), self.lora_A), self.lora_B)
        return y + (SCALE * added).to(y.dtype)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        plain = nn.Linear(
            self.in_features, self.out_features, bias=self.bias is not None, device="meta"
        )
        total = self.weight + SCALE * self.lora_B @ self.lora_A
        plain.weight, plain.bias = nn.Parameter(total, requires_grad=False), self.bias
        return plain


def add_lora(model: nn.Module, rank: int):
    """Freeze the model, and put LoRA of this rank on its linear layers named in LINEARS."""
    model.requires_grad_(False)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear) and name in LINEARS:
                setattr(module, name, LoRALinear(child, rank))


def lora_layers(model: nn.Module) -> list[LoRALinear]:
    return [module for module in model.modules() if isinstance(module, LoRALinear)]


@contextmanager
def lora_off(model: nn.Module):
    """Inside, the model computes as if it had no LoRA; a model without LoRA does not change."""
    layers = lora_layers(model)
    for layer in layers:
        layer.on = False
    try:
        yield
    finally:
        for layer in layers:
            layer.on = True


def merge_lora(model: nn.Module):
    """Add each product to its matrix: a plain, frozen model of the same function, in fp32.

    In bf16 most of what GRPO learns would be lost, because it is less than half of a bf16 step.
    """
    model.float()
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, LoRALinear):
                setattr(module, name, child.merged())
