"""Muon (Jordan 2024): momentum whose matrices are orthogonalised, so that every direction of a layer learns.

The same update as torch.optim.Muon, with two differences that a laptop feels: matrices of one shape go through the
Newton-Schulz iteration together, and on a CPU it runs in fp32, because torch's own bf16 is dozens of times slower
on processors without bf16 arithmetic (nano on AVX2: 4 s a step instead of a tenth).
"""

import torch
from torch import Tensor

# Quintic whose slope at 0 is large: five rounds bring singular values from anywhere below 1 to 0.7 .. 1.2.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalize(m: Tensor, rounds: int = 5) -> Tensor:
    """U V^T of each matrix U S V^T in m [matrices, rows, columns], roughly: singular values all near 1."""
    a, b, c = COEFFICIENTS
    x = m.bfloat16() if m.is_cuda else m.float()
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x  # the smaller side gives the cheaper products
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(rounds):
        gram = x @ x.mT  # [matrices, rows, rows]
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(m.dtype)


class Muon(torch.optim.Optimizer):
    """For the matrices inside a network; embeddings, heads, norms and biases belong to AdamW.

    lr is the spectral size of a step on a square or wide matrix; tall ones get sqrt(rows / columns) more. Weight
    decay is decoupled. Nesterov momentum.
    """

    def __init__(self, params, lr: float, momentum: float = 0.95, weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            alike = {}
            for p in group["params"]:
                if p.grad is not None:
                    alike.setdefault(p.shape, []).append(p)
            for shape, params in alike.items():
                grads = [p.grad for p in params]
                momenta = [self.state[p].setdefault("momentum", torch.zeros_like(p)) for p in params]
                torch._foreach_lerp_(momenta, grads, 1 - group["momentum"])
                ahead = torch._foreach_lerp(grads, momenta, group["momentum"])
                steps = orthogonalize(torch.stack(ahead)) * max(1, shape[0] / shape[1]) ** 0.5
                torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(params, list(steps.unbind()), alpha=-group["lr"])
