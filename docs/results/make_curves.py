"""Draw the learning curves of runs that followed each other:

    python docs/results/make_curves.py OUT.png RUN [RUN ...]

Needs matplotlib (pip install -e '.[plots]'). Each RUN is a run folder. The upper panel shows the
training losses of all runs in a row, and the lower one the scores on validation rows.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt

from nanoladder.files import read_jsonl

LOSSES = {"loss": "#8d93a1", "auxiliary_loss": "#c9915a"}
SCORES = {"seeing": "#00798c", "floor": "#d1495b", "map_arithmetic": "#e08e1b", "localization": "k"}


def smooth(values, share=0.9):
    """The running mean of the values, in which each new one has the weight 1 - share."""
    total, weight, out = 0.0, 0.0, []
    for value in values:
        total, weight = share * total + (1 - share) * value, share * weight + (1 - share)
        out.append(total / weight)
    return out


def draw(upper, lower, run, start):
    """One run, which begins at minute `start` -> the minute at which it ends."""
    rows = read_jsonl(run / "metrics.jsonl")
    minutes = [start + row["seconds"] / 60 for row in rows]
    for name in LOSSES.keys() & rows[0].keys():
        values = [v or float("nan") for v in smooth([row[name] for row in rows])]  # 0: not asked
        upper.plot(minutes, values, color=LOSSES[name], label=name.replace("_", " "))
    scored = [(at, row["val"]) for at, row in zip(minutes, rows) if "val" in row]
    for kind in SCORES.keys() & {kind for _, scores in scored for kind in scores}:
        values = [scores[kind].get("iou", scores[kind].get("accuracy")) for _, scores in scored]
        lower.plot([at for at, _ in scored], values, "o-", color=SCORES[kind], ms=3,
                   label=kind.replace("_", " "))  # fmt: skip
    for axis in (upper, lower):
        axis.axvline(start, color="#cccccc", lw=0.8)
    upper.annotate(run.name, ((start + minutes[-1]) / 2, 1.03), ha="center", fontsize=10,
                   xycoords=("data", "axes fraction"))  # fmt: skip
    return minutes[-1]


def main(out, *runs):
    figure, (upper, lower) = plt.subplots(2, 1, figsize=(14, 7), sharex=True)
    end = 0.0
    for run in map(Path, runs):
        end = draw(upper, lower, run, end)
    upper.set(ylabel="training loss", ylim=(0, 5), xlim=(0, end))
    lower.set(ylabel="score on validation rows", ylim=(0, 1), xlabel="minutes of training")
    for axis in (upper, lower):
        named = dict(zip(*axis.get_legend_handles_labels()[::-1]))
        axis.legend(named.values(), named.keys(), loc=(0.01, 0.62), fontsize=9)
    figure.tight_layout()
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main(*sys.argv[1:])
