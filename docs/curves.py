"""Draw learning curves from metrics.jsonl files:  python docs/curves.py OUT.png RUN [RUN ...]

Needs matplotlib (pip install -e '.[plots]'). Each RUN is a run folder; a panel shows its training losses and what
it scored on validation rows on the way.
"""

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt


def smooth(values, share=0.9):
    """Running mean that forgets by `share` a point."""
    total, weight, out = 0.0, 0.0, []
    for value in values:
        total, weight = share * total + (1 - share) * value, share * weight + (1 - share)
        out.append(total / weight)
    return out


def draw(axis, run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    scored = [row for row in rows if "val" in row]
    minutes = [row["seconds"] / 60 for row in rows]
    axis.plot(minutes, smooth([row["loss"] for row in rows]), color="#8d93a1", label="training loss")
    if "dense_loss" in rows[0]:
        axis.plot(minutes, smooth([row["dense_loss"] for row in rows]), color="#c9b28f", label="dense loss")
    axis.set(title=run.name, xlabel="minutes of training", ylabel="loss", ylim=(0, 3.5))
    right = axis.twinx()
    at = [row["seconds"] / 60 for row in scored]
    for kind, first in scored[0]["val"].items():
        key = next(k for k in ("iou", "avg", "accuracy") if k in first)
        parts = first.get("levels", first.get("types")) if len(scored[0]["val"]) == 1 else {}
        for part in parts:
            name = "levels" if "levels" in first else "types"
            lines = [row["val"][kind][name][part][key] for row in scored]
            right.plot(at, lines, linewidth=1, label=f"level {part}" if name == "levels" else part)
        scores = [row["val"][kind][key] for row in scored]
        right.plot(at, scores, linewidth=2, label=f"{kind}: {key}", **({"color": "black"} if parts else {}))
    right.set(ylabel="validation score", ylim=(0, 1))
    handles = axis.get_lines() + right.get_lines()
    right.legend(handles=handles, fontsize=7, loc="center left", bbox_to_anchor=(1.12, 0.5))


def main(out, *runs):
    rows = -(-len(runs) // 2)
    figure, axes = plt.subplots(rows, 2, figsize=(14, 3.4 * rows), squeeze=False)
    for axis, run in zip(axes.flat, runs):
        draw(axis, Path(run))
    for axis in axes.flat[len(runs) :]:
        axis.remove()
    figure.tight_layout()
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main(*sys.argv[1:])
