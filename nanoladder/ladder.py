"""The whole ladder in one command: every rung a run of its own, scored on every benchmark, then one table.

    python train.py --stage all                         # base -> stage 1 -> stage 2 -> cold start -> GRPO
    python train.py --stage all --skip 1                # without perception: one of the paper's ablations
    python train.py --stage all --data-types video      # without single images and views: another

Rungs are folders of --out (runs/ladder): base, stage1, stage2, cold, rl. One that is done is kept and one that was
killed goes on from its last saved state, so after any interruption the same command goes on. ladder.json keeps the
scores of all, and report.html of the last rung shows the curves of all.
"""

import os
import subprocess
import sys
from pathlib import Path

import torch

from nanoladder.checkpoint import BASE
from nanoladder.common import RunFolder, UserError, read_json, write_json
from nanoladder.evaluate import BENCHMARKS
from nanoladder.tables import Table, as_text, percent

ROOT = Path(__file__).parent.parent
# Rung: its folder, its command, and how it is asked when scored.
RUNGS = {
    "1": ("stage1", ["train.py", "--stage", "1"], []),
    "2": ("stage2", ["train.py", "--stage", "2"], []),
    "cold": ("cold", ["train.py", "--stage", "cold"], ["--think"]),
    "3": ("rl", ["rl.py"], ["--think"]),
}
HANDED_ON = ("data", "data_types", "steps", "eval_rows", "seed")  # settings that every rung gets, where they are given
EVAL_ROWS = 300  # of each benchmark, the fixed subset


def climb_ladder(s):
    """Train and score what is missing, print the table. s: train.py's settings."""
    out, handed = Path(s.out), []
    for name in HANDED_ON:
        if (value := getattr(s, name)) is not None:
            handed += ["--" + name.replace("_", "-"), *map(str, value if isinstance(value, tuple) else [value])]
    climbed, before = [("base", BASE, out / "base", [])], BASE  # rung, checkpoint, folder of its scores, how asked
    direct = "cold" in s.skip  # who never learned to think in tags answers as rung 2 does
    for rung, (name, command, asked) in RUNGS.items():
        if rung in s.skip:
            continue
        run = RunFolder(out / name)
        if not (run.path / "scores.json").exists():
            start = ["--resume"] if run.state.exists() else ["--init", str(before), *handed]
            call([*command, "--out", str(run.path), *start, *(["--no-think"] if direct and rung == "3" else [])])
        climbed.append((name, run.path, run.path / "eval", [] if direct else asked))
        before = run.path
    rows = {name: score(s, *scored) for name, *scored in climbed}  # now that all data is made
    write_json(out / "ladder.json", rows)
    print(as_text([table(rows)]))


def score(s, model, folder, asked):
    """What scores.json in the folder says of a model, scored now if it was not."""
    if not (folder / "scores.json").exists():
        data = ["--data", s.data] if s.data else []
        call(["eval.py", "--model", str(model), "--out", str(folder), "--rows", str(EVAL_ROWS), *data, *asked])
    return read_json(folder / "scores.json")


def table(rows):
    """A row for each rung of {name: scores.json}: every benchmark, their mean, its interval and that of
    their out-of-domain twins, in percent, and the mean IoU of boxes."""
    lines = []
    for name, scores in rows.items():
        averages = [*(scores[benchmark]["avg"] for benchmark in BENCHMARKS.values()), scores["overall"]]
        low_high = "-".join(map(percent, scores["intervals"]["overall"]))
        boxes = [f"{scores['localization'][split]['iou']:.3f}" for split in ("test", "ood")]
        lines.append((name, *map(percent, averages), low_high, percent(scores["overall-ood"]), *boxes))
    columns = ("%", *BENCHMARKS.values(), "overall", "95 %", "overall-ood", "IoU", "IoU-ood")
    return Table("the ladder", columns, lines)


def call(command):
    """Run a script on every GPU, or on a CPU in two processes that share the cores: nano's steps are too small for one
    to use two cores well."""
    cores = os.cpu_count() or 1
    ranks = torch.cuda.device_count() or min(2, cores)
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"] if ranks > 1 else []
    threads = {"OMP_NUM_THREADS": str(cores // ranks)}
    print("\n$ python " + " ".join([*torchrun, *command]), flush=True)
    if subprocess.run([sys.executable, *torchrun, *command], cwd=ROOT, env=os.environ | threads).returncode:
        raise UserError(f"{command[0]} failed; the reason is above. The same command goes on from here.")
