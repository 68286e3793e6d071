"""The whole ladder in one command: every rung a run of its own, scored on every benchmark, then one table.

    python train.py --stage all                         # base -> stage 1 -> stage 2 -> cold start -> GRPO
    python train.py --stage all --skip 1                # without perception: one of the paper's ablations
    python train.py --stage all --data-types video      # without single images and views: another

Rungs are folders of --out (runs/ladder): base, stage1, stage2, cold, rl. One that is done is kept and one that was
killed goes on from its last saved state, so after any interruption the same command goes on. Other flags, --seed 1
say, are handed to every rung. ladder.json keeps the table.
"""

import subprocess
import sys
from pathlib import Path

from nanoladder.common import RunFolder, UserError, read_json, write_json
from nanoladder.evaluate import BENCHMARKS
from nanoladder.tables import Table, as_text

ROOT = Path(__file__).parent.parent
BASE = ROOT / "nanoladder" / "base"
# Rung: its folder, its command, and how it is asked when scored.
RUNGS = {
    "1": ("stage1", ["train.py", "--stage", "1"], []),
    "2": ("stage2", ["train.py", "--stage", "2"], []),
    "cold": ("cold", ["train.py", "--stage", "cold"], ["--think"]),
    "3": ("rl", ["rl.py"], ["--think"]),
}
EVAL_ROWS = 300  # of each benchmark, the fixed subset


def climb(out, skip, flags, say):
    """Train and score what is missing, print the table. `flags` go to every rung that is trained."""
    out = Path(out)
    score(BASE, out / "base", [], say)
    rows, before, thinks = {"base": read_json(out / "base" / "scores.json")}, BASE, "cold" not in skip
    for rung, (name, command, asked) in RUNGS.items():
        if rung in skip:
            continue
        run = RunFolder(out / name)
        if not (run.path / "scores.json").exists():
            start = ["--resume"] if run.state.exists() else ["--init", str(before), *flags]
            call([*command, "--out", str(run.path), *start], say)
        score(run.path, run.path / "eval", asked if thinks else [], say)
        rows[name], before = read_json(run.path / "eval" / "scores.json"), run.path
    write_json(out / "ladder.json", rows)
    say(as_text([table(rows)]))


def score(checkpoint, folder, asked, say):
    if not (folder / "scores.json").exists():
        call(["eval.py", "--model", str(checkpoint), "--out", str(folder), "--rows", str(EVAL_ROWS), *asked], say)


def table(rows):
    """A row for each rung of {rung: scores.json}, in percent: every benchmark, their mean, and the IoU of boxes."""
    held_out = [name + suffix for suffix in ("", "-ood") for name in (*BENCHMARKS.values(), "overall")]
    lines = []
    for rung, scores in rows.items():
        averages = [scores[name] if name.startswith("overall") else scores[name]["avg"] for name in held_out]
        boxes = [scores["localization"][split]["iou"] for split in ("test", "ood")]
        lines.append((rung, *(f"{100 * value:.1f}" for value in averages + boxes)))
    return Table("the ladder, %", ("", *held_out, "IoU", "IoU-ood"), lines)


def call(command, say):
    say("\n$ python " + " ".join(command))
    if subprocess.run([sys.executable, *command], cwd=ROOT).returncode:
        raise UserError(f"{command[0]} failed; the reason is above. The same command goes on from here.")
