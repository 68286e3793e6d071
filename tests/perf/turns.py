"""What the benchmarks beside peers share: contestants that take turns, and one line of result.

In every turn each contestant works once, so whatever else slows the machine slows all of them. The
ratio of their speeds is taken in each turn, and the median of these ratios counts. The first turn
warms up and does not count. Nothing else should run meanwhile.
"""

import argparse
import sys
import time
from pathlib import Path
from statistics import median

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
OURS = "nanoladder"
BASE = ROOT / "nanoladder/base"
COLUMNS = ("what", "beside", "speed", "nanoladder", "peer", "ratio", "the same result")


def arguments(doc, argv, **flags):
    """The flags that all benchmarks have, and numbers of this one: name=(default, help)."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=BASE, help="run folder or checkpoint folder")
    parser.add_argument("--data", default="datasets/rooms-spatial", help="data folder with test")
    parser.add_argument("--out", help="JSON file to write, where a script writes one")
    for name, (default, text) in (flags | {"turns": (5, "turns of each contestant")}).items():
        parser.add_argument("--" + name.replace("_", "-"), type=int, default=default, help=text)
    return parser.parse_args(argv)


def load_theirs(folder, dtype=torch.float32):
    """transformers' model with the weights of a checkpoint folder."""
    from transformers import Qwen2_5_VLForConditionalGeneration

    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=dtype)
    return model.to(DEVICE)


def table(columns):
    """{name: list} as a data set that TRL takes."""
    from datasets import Dataset

    return Dataset.from_dict(columns)


def missing(package):
    """Whether a package is missing; then a line says so."""
    try:
        __import__(package)
    except ImportError as error:
        print(f"{package} is missing, so it is left out ({error})", flush=True)
        return True
    return False


class Turns:
    """Speeds of contestants in units a second, one for each turn: {name: [speed, ...]}.

    runtime: under torchrun, a unit counts on whichever rank it was done.
    """

    def __init__(self, unit, runtime=None):
        self.unit, self.runtime, self.speeds = unit, runtime, {}

    def take(self, name, work):
        """One turn: work() returns how many units it did."""
        if self.runtime:
            self.runtime.wait()
        start = time.perf_counter()
        units = work()
        units = self.runtime.sum(units) if self.runtime else units  # waits for all ranks
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
        self.add(name, units, time.perf_counter() - start)

    def add(self, name, units, seconds):
        self.speeds.setdefault(name, []).append(units / seconds)

    def take_all(self, contestants, turns):
        """contestants: {name: work}. So many turns of each, after one to warm up."""
        for _ in range(turns + 1):
            for name, work in contestants.items():
                self.take(name, work)

    def train(self, trainer, contestants):
        """Train with a Trainer of transformers; before each of its steps, contestants take a turn.

        The trainer's own steps count under the name "TRL".
        """
        import transformers

        class Callback(transformers.TrainerCallback):
            def on_step_begin(callback, *_, **__):
                for name, work in contestants.items():
                    self.take(name, work)
                callback.start = time.perf_counter()

            def on_step_end(callback, *_, **__):
                self.add("TRL", 1, time.perf_counter() - callback.start)

        trainer.add_callback(Callback)
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()

    def result(self, what, peer, same):
        """The result beside a peer as a dict, after printing it in one line.

        same: what shows that both compute the same, in words.
        """
        ours, theirs = (self.speeds[name][1:] for name in (OURS, peer))
        ratios = sorted(a / b for a, b in zip(ours, theirs))
        found = {"what": what, "peer": peer, "unit": self.unit}
        found |= {"ours": median(ours), "theirs": median(theirs), "ratio": median(ratios)}
        found |= {"lowest": ratios[0], "highest": ratios[-1], "turns": len(ratios), "same": same}
        if self.runtime is None or self.runtime.main:
            print(line(found), flush=True)
        return found


def cells(result):
    """A result as the cells of COLUMNS."""
    speeds = (f"{result[name]:.3g}" for name in ("ours", "theirs"))
    ratio = f"{result['ratio']:.2f} ({result['lowest']:.2f} to {result['highest']:.2f})"
    return (result["what"], result["peer"], result["unit"], *speeds, ratio, result["same"])


def line(result):
    what, peer, unit, ours, theirs, ratio, same = cells(result)
    return f"{what}, beside {peer}: ratio {ratio}; {ours} and {theirs} {unit}; {same}"
