"""Draw learning curves of runs:  python docs/results/make_curves.py OUT.png RUN [RUN ...]

Needs matplotlib (pip install -e '.[plots]'). Each RUN is a run folder; its panel shows the training
losses and the scores on validation rows.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt

from nanoladder.files import read_jsonl

GREY, BROWN = "#8d93a1", "#c9b28f"


def smooth(values, share=0.9):
    """The running mean of the values, in which each new one has the weight 1 - share."""
    total, weight, out = 0.0, 0.0, []
    for value in values:
        total, weight = share * total + (1 - share) * value, share * weight + (1 - share)
        out.append(total / weight)
    return out


def draw(axis, run):
    """One run's panel. Older runs call the auxiliary loss dense_loss."""
    rows = read_jsonl(run / "metrics.jsonl")
    scored = [row for row in rows if "val" in row]
    minutes = [row["seconds"] / 60 for row in rows]
    axis.plot(minutes, smooth([row["loss"] for row in rows]), color=GREY, label="training loss")
    for name in {"dense_loss", "auxiliary_loss"} & rows[0].keys():
        values = smooth([row[name] for row in rows])
        axis.plot(minutes, values, color=BROWN, label=name.replace("_", " "))
    axis.set(title=run.name, xlabel="minutes of training", ylabel="loss", ylim=(0, 3.5))
    right, at = axis.twinx(), [row["seconds"] / 60 for row in scored]
    for kind, first in scored[0]["val"].items():
        key = next(k for k in ("iou", "avg", "accuracy") if k in first)
        right.plot(at, [row["val"][kind][key] for row in scored], label=f"{kind}: {key}")
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
