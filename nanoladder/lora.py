"""LoRA (Hu et al. 2021, arXiv 2106.09685): train a small product of two matrices beside each frozen one.

    add_lora(model, rank=16, alpha=32, targets=("q_proj", "v_proj"))   # y = W x + alpha/rank * B A x, B starts at 0
    with lora_off(model): ...                                          # the model as it was: GRPO's reference for free
    merge_lora(model)                                                  # W += alpha/rank * B A: a plain model again
"""

from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# By the last part of their name: the decoder's and the vision blocks' projections, not the merger, embeddings or head.
LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "qkv", "proj")


class LoRALinear(nn.Linear):
    """A linear layer that keeps its names, frozen, and adds lora_A [r, in] and lora_B [out, r] in fp32."""

    def __init__(self, linear: nn.Linear, rank: int, alpha: float):
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.scale, self.on = alpha / rank, True
        device = linear.weight.device
        self.lora_A = nn.Parameter(torch.randn(rank, self.in_features, device=device) / self.in_features**0.5)
        self.lora_B = nn.Parameter(torch.zeros(self.out_features, rank, device=device))

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        if not self.on:
            return y
        return y + (self.scale * F.linear(F.linear(x.to(self.lora_A.dtype), self.lora_A), self.lora_B)).to(y.dtype)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        plain = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None, device="meta")
        total = self.weight.float() + self.scale * self.lora_B @ self.lora_A
        plain.weight, plain.bias = nn.Parameter(total.to(self.weight.dtype)), self.bias
        return plain


def add_lora(model: nn.Module, rank: int, alpha: float, targets=LINEARS):
    """Freeze the model and put LoRA on its linear layers named in targets. ValueError where none is so named."""
    model.requires_grad_(False)
    found = [
        (module, name, child)
        for module in model.modules()
        for name, child in module.named_children()
        if isinstance(child, nn.Linear) and name in targets
    ]
    if not found or set(targets) - {name for _, name, _ in found}:
        raise ValueError(f"LoRA targets {', '.join(targets)}: the model's linear layers are {', '.join(LINEARS)}")
    for module, name, linear in found:
        setattr(module, name, LoRALinear(linear, rank, alpha))


def lora_layers(model: nn.Module) -> list[LoRALinear]:
    return [module for module in model.modules() if isinstance(module, LoRALinear)]


@contextmanager
def lora_off(model: nn.Module):
    """Inside, the model computes as if it had no LoRA."""
    layers = lora_layers(model)
    for layer in layers:
        layer.on = False
    try:
        yield
    finally:
        for layer in layers:
            layer.on = True


def merge_lora(model: nn.Module):
    """Add each product into its matrix and become a plain model of the same function, all of it trainable."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, LoRALinear):
                setattr(module, name, child.merged())
    model.requires_grad_(True)
