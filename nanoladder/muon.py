"""The optimizers of both loops: Muon on hidden matrices, AdamW on all other weights or on all.

Muon (Jordan 2024) makes the momentum of a matrix orthogonal, so that every direction of a layer
learns at the same rate. The update is torch.optim.Muon's, with two differences that matter on a
laptop: matrices of one shape go through the iteration together, and a CPU computes it in fp32,
because bf16 is dozens of times slower on processors without bf16 arithmetic.
"""

import torch
from torch import Tensor

BETAS = (0.9, 0.95)  # of AdamW
# A quintic with a steep slope at 0: five rounds bring singular values below 1 to 0.7 .. 1.2.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalize(m: Tensor, rounds: int = 5) -> Tensor:
    """m [matrices, rows, columns] -> roughly U V^T of each U S V^T: singular values near 1."""
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
    """Muon with Nesterov momentum and decoupled weight decay, for matrices inside a network.

    lr is the spectral norm of a step on a square or wide matrix; on a tall one the step is larger
    by sqrt(rows / columns).
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
                for p in params:
                    if "momentum" not in self.state[p]:
                        self.state[p]["momentum"] = torch.zeros_like(p)
                momenta = [self.state[p]["momentum"] for p in params]
                torch._foreach_lerp_(momenta, grads, 1 - group["momentum"])
                ahead = torch._foreach_lerp(grads, momenta, group["momentum"])
                steps = orthogonalize(torch.stack(ahead)) * max(1, shape[0] / shape[1]) ** 0.5
                torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(params, list(steps.unbind()), alpha=-group["lr"])


def make_optimizers(model, lr, muon_lr, weight_decay=0.05):
    """[AdamW, Muon] for the weights of a model that are trained; AdamW alone where muon_lr is 0.

    The weight decay is decoupled and acts on matrices; embeddings (of patches too), biases and
    norms get AdamW without it.
    """
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    ends = {name for name in named if "embed" in name or "lm_head" in name}
    hidden = {name for name, p in named.items() if muon_lr and p.ndim == 2 and name not in ends}
    decayed = {name for name, p in named.items() if p.ndim > 1 and name not in ends} - hidden
    groups = [
        {"params": [named[n] for n in named if n in decayed], "weight_decay": weight_decay},
        {"params": [named[n] for n in named if n not in decayed | hidden], "weight_decay": 0.0},
    ]
    optimizers = [torch.optim.AdamW(groups, lr=lr, betas=BETAS, fused=True)]
    if hidden:
        matrices = [named[name] for name in named if name in hidden]
        optimizers.append(Muon(matrices, lr=muon_lr, weight_decay=weight_decay))
    return optimizers
