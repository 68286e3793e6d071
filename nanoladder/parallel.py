"""Several devices: DDP where training fits each of them, PyTorch's FSDP2 where it does not.

    torchrun --nproc_per_node 2 train.py --stage 1           # DDP: every rank holds the whole model
    torchrun --nproc_per_node 2 train.py --stage 1 --shard   # FSDP2: every rank holds a part of it

FSDP2 splits the weights, gradients and optimizer states while it trains. When a run starts, and
while it answers, every device still holds all weights.

What is saved is whole in both cases, so a run saved on two ranks resumes on one, and vice versa.
"""

from contextlib import contextmanager

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from nanoladder.checkpoint import CheckpointError


def shard(root: nn.Module, blocks):
    """Split the parameters of `root` over the ranks; a block is gathered only while it computes."""
    for block in blocks:
        fully_shard(block)
    fully_shard(root)


def replicate(root: nn.Module, world: int) -> nn.Module:
    """root as ranks must call it, so that backward averages their gradients.

    It is root itself where there is one rank, or where the model is split. A root with the
    attribute `may_skip_parameters` has steps in which some parameters get no gradient.
    """
    if world == 1 or isinstance(root, FSDPModule):
        return root
    skips = getattr(root, "may_skip_parameters", False)
    return DistributedDataParallel(root, find_unused_parameters=skips)


def sync_gradients(root: nn.Module, on: bool):
    """Whether the next backward pass averages over the ranks; only the last one of a step must."""
    if isinstance(root, FSDPModule):
        root.set_requires_gradient_sync(on)
    elif isinstance(root, DistributedDataParallel):
        root.require_backward_grad_sync = on


@contextmanager
def gathered(root: nn.Module):
    """Inside, a split model is whole on every rank, for answering and for saving."""
    parts = [module for module in root.modules() if isinstance(module, FSDPModule)]
    if parts:
        root._get_fsdp_state()._lazy_init()  # FSDP takes the module that runs first for the root
    for part in parts:
        part.unshard()
        part.set_reshard_after_forward(False, recurse=False)
    try:
        yield
    finally:
        for part in parts:
            part.reshard()
            part.set_reshard_after_forward(part is not root, recurse=False)


def whole(value):
    """A split tensor, gathered from all ranks; any other tensor as it is."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def split_like(tensor, parameter):
    """A whole tensor on the device of `parameter`, and split as it is if it has the same shape."""
    tensor = tensor.to(parameter.device)
    if isinstance(parameter, DTensor) and tensor.shape == parameter.shape:
        return distribute_tensor(tensor, parameter.device_mesh, parameter.placements)
    return tensor


def optimized(model, optimizers):
    """(name, parameter, optimizer) of every trained parameter."""
    owner = {p: o for o in optimizers for group in o.param_groups for p in group["params"]}
    return [(name, p, owner[p]) for name, p in model.named_parameters() if p in owner]


def gather_state(model, optimizers, keep=True) -> dict:
    """{name: trained parameter and optimizer state}, whole, on the CPU.

    Every rank must call it, but only those that `keep` the state need memory for it.
    """
    state = {}
    for name, p, optimizer in optimized(model, optimizers):
        value, kept = whole(p.detach()), {k: whole(v) for k, v in optimizer.state[p].items()}
        if keep:
            state[name] = {"value": value.cpu(), "state": {k: v.cpu() for k, v in kept.items()}}
    return state


@torch.no_grad()
def scatter_state(state: dict, model, optimizers):
    """Put back what gather_state returned, on any number of ranks.

    CheckpointError if it is the state of another model.
    """
    trained = optimized(model, optimizers)
    if odd := sorted(state.keys() ^ {name for name, _, _ in trained}):
        raise CheckpointError(
            f"the saved state trains other parameters than this run, such as {odd[0]}"
        )
    for name, p, optimizer in trained:
        p.copy_(split_like(state[name]["value"], p))
        kept = state[name]["state"].items()
        optimizer.state[p] = {k: split_like(v, p) for k, v in kept}
