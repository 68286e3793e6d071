"""Draw the README's figures from the runs of a whole ladder:  python -m docs.figures runs/ladder

Needs matplotlib (pip install -e '.[plots]') and the rooms that the runs were scored on. Maps and answers are read from
predictions.jsonl, curves from metrics.jsonl, and what the eye says is asked of the base that ships. Writes
rungs.png, eye.png, samples.png, floor.png and, where seeds 1 and 2 of GRPO lie in rl-1 and rl-2 beside it, grpo.png.
"""

import re
import sys
import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from data.rooms.floor import ACROSS, ALONG, BEHIND, CELL, Sights, across_and_along
from data.rooms.questions import NAMES, SHELL
from data.rooms.scene import footprint
from docs.curves import smooth
from nanoladder import checkpoint
from nanoladder.common import read_jsonl
from nanoladder.evaluate import some
from nanoladder.image import load_image, preprocess
from nanoladder.pictures import draw_samples
from nanoladder.tokenizer import Tokenizer

DOCS = Path(__file__).parent
COLOURS = ("#d1495b", "#00798c", "#e08e1b")
GREY = "#8d93a1"


def picture(axis, path, title=""):
    axis.imshow(Image.open(path))
    axis.set_title(title, fontsize=8)
    axis.axis("off")


@torch.no_grad()
def eye(predictions):
    """What every image token of the base says it shows, read through the output head as its dense loss reads it."""
    model, _ = checkpoint.load(checkpoint.BASE)
    tokenizer, image_config = Tokenizer.load(checkpoint.BASE), checkpoint.load_image_config(checkpoint.BASE)
    ids = [tokenizer.encode(" " + name)[0] for name in NAMES]
    paths = list(dict.fromkeys(p["images"][0] for p in predictions if p["level"] == 3))[:3]
    figure, axes = plt.subplots(1, 2 * len(paths), figsize=(14, 2.6), layout="constrained")
    for axis, path in zip(axes[::2], paths):
        picture(axis, path)
    for axis, path in zip(axes[1::2], paths):
        pixel_values, ((_, height, width),) = preprocess([load_image(Path(path))], image_config)
        state = model.model.norm(model.visual(pixel_values, [(1, height, width)]))
        said = F.linear(state, model.lm_head.weight[ids]).argmax(-1).view(height // 2, width // 2)
        axis.imshow(said >= len(SHELL), cmap="Greens", vmin=0, vmax=3)
        for (row, column), name in np.ndenumerate(said.numpy()):
            axis.text(column, row, NAMES[name], fontsize=5.5, ha="center", va="center")
        axis.axis("off")
    figure.savefig(DOCS / "eye.png", dpi=110)


def board(axis, sights, answer):
    """The true floor plan in grey and, in colour, the squares that an answer states, with its steps from the first."""
    origin = np.array((len(ACROSS) / 2, BEHIND))  # the camera, in squares
    for o in sights.objects:
        corners = across_and_along(sights.board, footprint(o.center, o.size, o.yaw) - sights.board.position[:2])
        axis.fill(*(corners / CELL + origin).T, color="#d5d8de", zorder=1)
    stated = re.findall(r"(\w+):([A-L])([M-V])", answer.split(" from ")[0])
    places = [(ACROSS.index(file) + 0.5, ALONG.index(rank) + 0.5) for _, file, rank in stated]
    for (name, file, rank), place, colour in zip(stated, places, COLOURS):
        axis.add_patch(plt.Rectangle(np.subtract(place, 0.5), 1, 1, color=colour, alpha=0.55, zorder=2))
        axis.text(place[0], place[1] + 0.6, f"{name}:{file}{rank}", fontsize=7, ha="center", zorder=4)
        x, y = across_and_along(sights.board, np.array(sights.by_name[name].center[:2]) - sights.board.position[:2])
        axis.plot(x / CELL + origin[0], y / CELL + origin[1], "o", color=colour, markeredgecolor="black", zorder=3)
    for place in places[1:]:
        axis.annotate("", place, places[0], arrowprops=dict(arrowstyle="->", color="#444"), zorder=3)
    axis.plot(*origin, marker="^", color="black")
    axis.set(xlim=(0, len(ACROSS)), ylim=(0, len(ALONG)), aspect="equal")
    axis.set_xticks(np.arange(len(ACROSS)) + 0.5, ACROSS, fontsize=6)
    axis.set_yticks(np.arange(len(ALONG)) + 0.5, ALONG, fontsize=6)
    axis.tick_params(length=0)


def scene_of(prediction):
    """The truth about the room that a row's pictures show."""
    path = Path(prediction["images"][0])
    scenes = read_jsonl(path.parents[2] / "scenes.jsonl")
    return next(row for row in scenes if row["index"] == int(path.name[:6]))


def rungs(boxes, told, group):
    """The three rungs: an answer in boxes, one with its workings on the map, and a group of sampled ones."""
    figure, axes = plt.subplots(1, 5, figsize=(16, 3.6), layout="constrained", width_ratios=(1, 1, 1.25, 1, 1.2))
    found, seen, plan, asked, bars = axes
    picture(found, boxes["images"][0], "1 perception: " + textwrap.fill(boxes["prompt"], 38))
    scale = Image.open(boxes["images"][0]).width / boxes["input_size"][0]
    for items, style in ((boxes["truth"], dict(color="white")), (boxes["parsed"], dict(color=COLOURS[0]))):
        for item in items:
            x1, y1, x2, y2 = np.array(item["bbox_2d"]) * scale
            found.add_patch(plt.Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, linewidth=2, **style))
    picture(seen, told["images"][0], "2 understanding: " + textwrap.fill(told["prompt"].split("\n")[0], 38))
    board(plan, Sights(scene_of(told), "single_image", told["input_size"][0]), told["answer"].split("] ")[1])
    plan.set_title(textwrap.fill(told["answer"].split("] ")[1].replace("\n", " -> "), 52), fontsize=8)
    picture(asked, group[0]["images"][0], "3 reasoning: " + textwrap.fill(group[0]["prompt"].split("\n")[0], 38))
    rewards = np.array([g["format"] + g["accuracy"] for g in group])
    advantages = (rewards - rewards.mean()) / (rewards.std(ddof=1) + 1e-4)
    bars.barh(range(len(group)), advantages, color=np.where(advantages > 0, COLOURS[1], COLOURS[0]), alpha=0.6)
    for k, (one, reward) in enumerate(zip(group, rewards)):
        bars.text(0, k, f"{one['answer'].split('<answer>')[-1][:-9]}  (reward {reward:.1f})", ha="center", va="center",
                  fontsize=8)  # fmt: skip
    bars.set(title="eight sampled answers and their advantages", yticks=[])
    bars.title.set_fontsize(8)
    figure.savefig(DOCS / "rungs.png", dpi=110)


def floor(predictions, asked=8):
    """Of questions of direction about several views, the first that is answered right and the first that is not."""
    about = [p for p in predictions if p["question_type"] == "relative direction" and len(p["images"]) == asked]
    shown = [next(p for p in about if p["scores"]["accuracy"] == right) for right in (1, 0)]
    figure = plt.figure(figsize=(10.5, 3.6 * len(shown)), layout="constrained")
    for part, p in zip(figure.subfigures(len(shown), 1), shown):
        views, plan = part.subfigures(1, 2, width_ratios=(1.7, 1))
        for number, (axis, path) in enumerate(zip(views.subplots(2, asked // 2).flat, p["images"])):
            picture(axis, path, f"view {number + 1}")
        board(plan.subplots(), Sights(scene_of(p), "multi_view", p["input_size"][0]), p["answer"])
        verdict = "right" if p["scores"]["accuracy"] else "wrong"
        question, workings = p["prompt"].split("\n")[0], p["answer"].split("\n")[0]
        part.suptitle(f"{question}\n{workings}  [{verdict}]", fontsize=9, ha="left", x=0.01)
    figure.savefig(DOCS / "floor.png", dpi=110)


def grpo(runs):
    """Accuracy and form of the answers that GRPO samples, and how far it goes from its reference."""
    figure, axes = plt.subplots(1, 3, figsize=(14, 3), layout="constrained")
    for axis, name in zip(axes, ("accuracy", "format", "kl")):
        for (title, run), colour in zip(runs.items(), (COLOURS[1], COLOURS[2], GREY)):
            rows = read_jsonl(run / "metrics.jsonl")
            values, steps = [row[name] for row in rows], [row["step"] for row in rows]
            axis.plot(steps, values, color=colour, alpha=0.15)
            axis.plot(steps, smooth(values, 0.95), color=colour, label=title)
        axis.set(title=f"{name} of sampled answers" if name != "kl" else "KL to the reference", xlabel="step")
    axes[0].legend(fontsize=8)
    figure.savefig(DOCS / "grpo.png", dpi=110)


if __name__ == "__main__":
    ladder = Path(sys.argv[1])
    boxes, answers = ([p for p in read_jsonl(ladder / run / "eval/predictions.jsonl") if p["split"] == "test"]
                      for run in ("stage1", "stage2"))  # fmt: skip
    boxes = [p for p in boxes if p["question_type"] == "localization"]
    several = [p for p in boxes if len(p["truth"]) == 3]
    alone = [p for p in answers if p["question_type"] == "relative direction" and len(p["images"]) == 1]
    sampled = read_jsonl(ladder / "rl/completions.jsonl")[-8:]
    rungs(several[0], next(p for p in alone if p["scores"]["accuracy"]), sampled)
    eye(answers)
    draw_samples(some(boxes, 8), DOCS / "samples.png")
    floor(answers)
    seeds = {"seed 0": ladder / "rl", "seed 1": ladder.parent / "rl-1", "seed 2": ladder.parent / "rl-2"}
    if all(run.exists() for run in seeds.values()):
        grpo(seeds)
