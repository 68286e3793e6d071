"""The process and its device: torchrun's ranks, mixed precision, seeds, learning rates."""

import atexit
import dataclasses
import importlib.util
import math
import os
import platform
import random
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist

from nanoladder.command import UserError


@dataclasses.dataclass
class Runtime:
    """This process among its peers: `torchrun` starts several, plain `python` one."""

    rank: int
    world: int
    device: torch.device

    @property
    def main(self):
        return self.rank == 0

    def say(self, *words):
        """Print on the main rank alone."""
        if self.main:
            print(*words, flush=True)

    def sum(self, value):
        """Sum of a number over all ranks."""
        if self.world == 1:
            return value
        total = torch.tensor(float(value), dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return total.item()

    def gather(self, items):
        """The lists of all ranks, one after the other."""
        if self.world == 1:
            return items
        parts = [None] * self.world
        dist.all_gather_object(parts, items)
        return [item for part in parts for item in part]

    def wait(self):
        """Until all ranks are here."""
        if self.world > 1:
            dist.barrier()


def start_runtime(device=None, seed=0):
    """Join torchrun's process group if there is one, and seed every source of random numbers.

    device: None is CUDA where there is a GPU. UserError for a device that this machine lacks.
    """
    world, local = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("LOCAL_RANK", 0))
    present = {"cpu": True, "cuda": torch.cuda.is_available()}
    present["mps"] = torch.backends.mps.is_available() and world == 1
    device = device or ("cuda" if present["cuda"] else "cpu")
    if not present[device]:
        raise UserError(f"--device {device}: torch finds none here (mps works in one process only)")
    if device == "mps":
        print("mps was never tested: compare the first losses with those of --device cpu")
    device = torch.device("cuda", local) if device == "cuda" else torch.device(device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.set_float32_matmul_precision("high")
        # With a mask, cuDNN's attention can give NaN gradients on Hopper (pytorch#196678).
        torch.backends.cuda.enable_cudnn_sdp(False)
        if not has_bf16() and os.environ.get("RANK", "0") == "0":
            print("this GPU has no bf16 in hardware, so without --amp it computes in fp32")
    if world > 1 and not dist.is_initialized():
        backend = "nccl" if device.type == "cuda" else "gloo"
        # The other ranks wait while one of them makes the data, which may take hours.
        dist.init_process_group(backend, timeout=timedelta(days=1))
        atexit.register(leave)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    return Runtime(int(os.environ.get("RANK", 0)), world, device)


def leave():
    """Leave torchrun's process group, if this process is still in it."""
    if dist.is_initialized():
        dist.destroy_process_group()


def has_bf16():
    """Whether the GPU has bf16 in hardware. torch's own check says yes where it is emulated."""
    return torch.cuda.get_device_capability() >= (8, 0)


def can_compile():
    """Whether torch.compile has what it needs: Triton, and a GPU of at least capability 7.0."""
    has_triton = importlib.util.find_spec("triton") is not None  # not on Windows, for example
    return has_triton and torch.cuda.get_device_capability() >= (7, 0)


def cuda_presets(given):
    """What a GPU changes in the settings: bf16 and compiled graphs, where it has them.

    given: {name: value} of the flags.
    """
    if given.get("device", "cuda") != "cuda" or not torch.cuda.is_available():
        return {}
    return {"amp": has_bf16(), "compile": can_compile()}


def autocast(device, enabled):
    """bf16 automatic mixed precision, which needs no loss scaling; nothing where not enabled."""
    return torch.autocast(device.type, torch.bfloat16) if enabled else nullcontext()


def to_device(batch, device):
    """The dict with its tensors on the device."""
    return {
        name: value.to(device, non_blocking=True) if torch.is_tensor(value) else value
        for name, value in batch.items()
    }


def load_ahead(load, keys):
    """load(key) of each key in turn; while one is used, a thread loads the next."""
    with ThreadPoolExecutor(1) as thread:
        loading = deque()
        for key in keys:
            loading.append(thread.submit(load, key))
            if len(loading) > 1:
                yield loading.popleft().result()
        while loading:
            yield loading.popleft().result()


def cosine_schedule(step, steps, warmup, floor=0.02):
    """Factor on the learning rate: from 0 up over `warmup` steps, then half a cosine to `floor`."""
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def environment(device):
    """What run.json says of the machine."""
    cuda = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if cuda else platform.processor() or "CPU"
    return {
        "device": f"{device.type}: {name}",
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
