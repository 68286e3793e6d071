"""What every script shares: a command line made from a dataclass, device and AMP, seeds, schedule, run folder.

    @dataclass
    class Settings:
        \"\"\"One line a script shows above its flags.\"\"\"
        lr: float = setting(3e-4, "peak learning rate")

    settings = parse(Settings, argv)        # --lr 1e-3, unknown flags refused, `--help` readable
"""

import argparse
import dataclasses
import json
import math
import os
import platform
import random
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from tqdm import tqdm


class UserError(ValueError):
    """Something the user can mend; scripts print its one line and exit with status 2."""


def run_script(main):
    """Call main(argv); a UserError (or any ValueError our readers raise with a file's name) ends in one line."""
    try:
        main(sys.argv[1:])
    except ValueError as error:
        if os.environ.get("NANOLADDER_DEBUG"):
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


# ---------------------------------------------------------------- command line


def setting(default, help, choices=None):
    """A dataclass field with its line of --help."""
    return dataclasses.field(default=default, metadata={"help": help, "choices": choices})


def parse(cls, argv, presets=None, doc=""):
    """Settings dataclass from a command line.

    `presets(given)` maps the given flags to a dict of values that stand between the class's defaults and the
    flags, so that `--stage 0` can mean other defaults than `--stage 1`. Booleans are --name / --no-name.
    """
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    for f in dataclasses.fields(cls):
        flag = "--" + f.name.replace("_", "-")
        shown = "by preset" if f.default is None else f"default {f.default}"
        options = {"default": argparse.SUPPRESS, "help": f"{f.metadata['help']} ({shown})"}
        kind = f.type if isinstance(f.type, type) else f.type.__args__[0]  # `int | None` reads as int
        if kind is bool:
            options["action"] = argparse.BooleanOptionalAction
        elif kind is tuple:
            options |= {"nargs": "+", "choices": f.metadata["choices"], "metavar": f.name.upper()}
        else:
            options |= {"type": kind, "choices": f.metadata["choices"], "metavar": f.name.upper()}
        parser.add_argument(flag, **options)
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in vars(parser.parse_args(argv)).items()}
    return cls(**{**(presets(given) if presets else {}), **given})


def show(settings):
    """The resolved settings as aligned lines."""
    values = dataclasses.asdict(settings)
    width = max(map(len, values))
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in values.items())


def progress(items=None, **options):
    """A tqdm bar that leaves no trail, and that redraws only now and then where the output is a file."""
    return tqdm(items, mininterval=0.3 if sys.stderr.isatty() else 30, dynamic_ncols=True, **{"leave": False} | options)


# ---------------------------------------------------------------- device, ranks, numbers


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
        """The lists of all ranks, one behind the other."""
        if self.world == 1:
            return items
        parts = [None] * self.world
        dist.all_gather_object(parts, items)
        return [item for part in parts for item in part]

    def wait(self):
        if self.world > 1:
            dist.barrier()


def start_runtime():
    """Join torchrun's process group if there is one; pick CUDA where present."""
    world, local = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("LOCAL_RANK", 0))
    device = torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.set_float32_matmul_precision("high")
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Runtime(int(os.environ.get("RANK", 0)), world, device)


def autocast(device, enabled):
    """bf16 automatic mixed precision, which needs no loss scaling; nothing where `enabled` is false."""
    return torch.autocast(device.type, torch.bfloat16) if enabled else nullcontext()


def to_device(batch, device):
    """The dict with its tensors on the device."""
    return {k: v.to(device, non_blocking=True) if torch.is_tensor(v) else v for k, v in batch.items()}


def seed_everything(seed):
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def cosine_schedule(step, steps, warmup, floor=0.02):
    """Factor on the learning rate: linear from 0 over `warmup` steps, then half a cosine down to `floor`."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


# ---------------------------------------------------------------- run folder


def write_json(path, value):
    """Write JSON so that a reader, or a kill, never sees half a file."""
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
    partial.replace(path)


def write_jsonl(path, rows):
    """write_json for one JSON value a line."""
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    with open(partial, "w") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    partial.replace(path)


def read_json(path):
    """A JSON file; a UserError that names it where it is missing or broken."""
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error})") from None


def read_jsonl(path):
    """The values of a JSONL file; a UserError that names file and line where it is missing or broken."""
    try:
        lines = Path(path).read_bytes().split(b"\n")  # splitlines would also cut at rarer breaks inside a string
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    values = []
    for number, line in enumerate(lines[:-1] if lines[-1] == b"" else lines, 1):
        try:
            values.append(json.loads(line))
        except ValueError as error:
            raise UserError(f"{path}:{number}: not valid JSON ({error})") from None
    return values


def environment(device):
    """What run.json says of the machine."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "CPU"
    return {
        "device": f"{device.type}: {name}",
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


class RunFolder:
    """runs/NAME: run.json, metrics.jsonl, state.safetensors while training, checkpoint/ and scores.json at the end."""

    def __init__(self, path):
        self.path = Path(path)
        self.state, self.checkpoint = self.path / "state.safetensors", self.path / "checkpoint"

    def refuse_if_used(self, resume):
        """A UserError where starting would overwrite training, or resuming finds none."""
        if (self.path / "scores.json").exists():
            raise UserError(f"{self.path} holds a finished run: name another folder with --out, or delete it")
        if self.state.exists() and not resume:
            raise UserError(f"{self.path} holds an unfinished run: go on with --resume, or name another --out")
        if resume and not self.state.exists():
            raise UserError(f"{self.path} holds nothing to resume: start without --resume")

    def open_log(self, name, step):
        """A JSONL file for appending, without the lines a killed run wrote after its last saved step."""
        path = self.path / name
        kept = []
        if path.exists():
            lines = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
            kept = [line for line in lines if line["step"] <= step]
        write_jsonl(path, kept)
        return open(path, "a", buffering=1)


class Timer:
    """Seconds since the start, those of earlier sittings of a resumed run counted in."""

    def __init__(self, before=0.0):
        self.start = time.time() - before

    def __call__(self):
        return time.time() - self.start
