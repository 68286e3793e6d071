"""Draw learning curves from metrics.jsonl files:  python docs/curves.py OUT.png RUN [RUN ...]

Needs matplotlib (pip install -e '.[plots]'). Each RUN is a run folder; a panel shows its training loss and what
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
    axis.set(title=run.name, xlabel="minutes of training", ylabel="loss", ylim=(0, None))
    right = axis.twinx()
    key = "iou" if "iou" in scored[0]["val"] else "accuracy"
    parts = "levels" if key == "iou" else "types"
    at = [row["seconds"] / 60 for row in scored]
    for part in scored[0]["val"][parts]:
        label = f"level {part}" if key == "iou" else part
        right.plot(at, [row["val"][parts][part][key] for row in scored], linewidth=1, label=label)
    right.plot(at, [row["val"][key] for row in scored], color="black", linewidth=2, label=f"validation {key}")
    right.set(ylabel=key, ylim=(0, 1))
    right.legend(fontsize=7, loc="center right")


def main(out, *runs):
    figure, axes = plt.subplots(1, len(runs), figsize=(6 * len(runs), 3.6), squeeze=False)
    for axis, run in zip(axes[0], runs):
        draw(axis, Path(run))
    figure.tight_layout()
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main(*sys.argv[1:])
