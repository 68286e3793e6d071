"""Draw the docs' pictures from a whole ladder:  python -m docs.results.make_figures runs/ladder

Needs matplotlib (pip install -e '.[plots]') and the rooms on which the runs were scored. Writes to
docs/: stages.png, encoder.png, samples.png, floor.png and, where the ladder has GRPO, grpo.png.
Where the runs have folders sampled/ of eval.py --samples, sampling.png shows their answers. Where
base and stage1 have folders looked/ of eval.py --attention, looking.png shows these. What these two
show is also written to sampling.json and looking.json in docs/results. Ladders beside this one that
are called without-STAGE are drawn into grpo.png, too.
"""

import re
import sys
import tempfile
import textwrap
from functools import lru_cache
from math import comb
from operator import mul
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

import rl
from data.rooms.floor import ACROSS, ALONG, BEHIND, CELL, Sights, across_and_along, turn
from data.rooms.questions import NAMES, SHELL
from data.rooms.render import render
from data.rooms.scene import footprint, scene_from_json
from docs.results.make_curves import smooth
from nanoladder.batches import encode_prompt
from nanoladder.checkpoint import BASE, Policy
from nanoladder.files import read_jsonl, write_json
from nanoladder.image import preprocess
from nanoladder.photos import load_image
from nanoladder.pictures import draw_samples
from nanoladder.predict import describe
from nanoladder.rewards import score_answer
from nanoladder.schema import check_images, read_rows
from nanoladder.scoring import some

RESULTS = Path(__file__).parent
DOCS = RESULTS.parent
NUMBER, SIDE = "absolute distance", 384
COLOURS = ("#d1495b", "#00798c", "#e08e1b")
# What the paper's figure shows in about 2,600 steps of GRPO, read off by eye.
PAPER_GRPO = {"accuracy": {"start": 0.35, "end": 0.55}, "spread": {"start": 0.36, "end": 0.10}}


@lru_cache
def drawn_large(path):
    """The picture's scene, drawn again with SIDE pixels a side; the model sees 96."""
    truth = truth_about(path)
    frame = next(f for f in truth["frames"] if path.endswith(f["image"]))
    scene, (camera,) = scene_from_json(truth | {"cameras": [frame["camera"]]})
    return render(scene, camera, SIDE).rgb


def final(prediction):
    """What stands between the answer tags, or all of an answer without them."""
    return prediction["answer"].split("<answer>")[-1].removesuffix("</answer>")


def filled(text, width):
    return "\n".join(textwrap.fill(line, width) for line in text.split("\n"))


def picture(axis, path, title="", width=38):
    axis.imshow(drawn_large(str(path)))
    axis.set_title(filled(title, width), fontsize=11)
    axis.axis("off")


def save(figure, name):
    figure.savefig(DOCS / name, dpi=110)
    plt.close(figure)


@torch.no_grad()
def encoder(predictions):
    """What the base's output head names at each image token, as the dense loss applies it."""
    model, tokenizer, image_config, _ = Policy.load(BASE)
    ids = [tokenizer.encode(" " + name)[0] for name in NAMES]
    paths = list(dict.fromkeys(p["images"][0] for p in predictions if p["level"] == 3))[:3]
    figure, (above, below) = plt.subplots(2, 3, figsize=(10.5, 7), layout="constrained")
    for axis, path in zip(above, paths):
        picture(axis, path)
    for axis, path in zip(below, paths):
        pixel_values, grids = preprocess([load_image(Path(path))], image_config)
        state = model.model.norm(model.visual(pixel_values, grids))
        _, height, width = grids[0]
        logits = F.linear(state, model.lm_head.weight[ids])
        named = logits.argmax(-1).view(height // 2, width // 2)
        axis.imshow(named >= len(SHELL), cmap="Greens", vmin=0, vmax=3)
        for (row, column), name in np.ndenumerate(named.numpy()):
            axis.text(column, row, NAMES[name], fontsize=8, ha="center", va="center")
        axis.axis("off")
    save(figure, "encoder.png")


def board(axis, sights, answer):
    """The true floor plan in grey and, in colour, the squares that a rationale states."""
    origin = np.array((len(ACROSS) / 2, BEHIND))  # the camera, in squares
    for o in sights.objects:
        corners = footprint(o.center, o.size, o.yaw) - sights.board.position[:2]
        corners = across_and_along(sights.board, corners)
        axis.fill(*(corners / CELL + origin).T, color="#d5d8de", zorder=1)
    stated = re.findall(r"(\w+):([A-L])([M-V])", answer.split(" from ")[0])
    places = [(ACROSS.index(a) + 0.5, ALONG.index(b) + 0.5) for _, a, b in stated]
    for (name, column, row), place, colour in zip(stated, places, COLOURS):
        square = plt.Rectangle(np.subtract(place, 0.5), 1, 1, color=colour, alpha=0.55, zorder=2)
        axis.add_patch(square)
        text, above = f"{name}:{column}{row}", 0.6 if row < ALONG[-1] else -0.9
        axis.text(place[0], place[1] + above, text, fontsize=9, ha="center", zorder=4)
        true = np.array(sights.by_name[name].center[:2]) - sights.board.position[:2]
        x, y = across_and_along(sights.board, true) / CELL + origin
        axis.plot(x, y, "o", color=colour, markeredgecolor="black", zorder=3)
    for place in places[1:]:
        arrow = {"arrowstyle": "->", "color": "#444"}
        axis.annotate("", place, places[0], arrowprops=arrow, zorder=3)
    axis.plot(*origin, marker="^", color="black")
    axis.text(origin[0] + 0.4, origin[1] - 0.4, "camera", fontsize=9, va="center")
    axis.set(xlim=(0, len(ACROSS)), ylim=(0, len(ALONG)), aspect="equal")
    axis.set_xticks(np.arange(len(ACROSS)) + 0.5, ACROSS, fontsize=8)
    axis.set_yticks(np.arange(len(ALONG)) + 0.5, ALONG, fontsize=8)
    axis.tick_params(length=0)


def truth_about(path):
    """The row of scenes.jsonl about the room that a picture shows."""
    path = Path(path)
    scenes = read_jsonl(path.parents[2] / "scenes.jsonl")
    return next(row for row in scenes if row["index"] == int(path.name[:6]))


def rationale(answer):
    """The part of an answer between its think tags, without the list of what is seen."""
    thought = re.sub(r"</?think>|<answer>.*", "", answer)
    return thought.split("] ")[-1]


def follows(prediction):
    """Whether the turn in a rationale follows from its two bearings."""
    thinking = rationale(prediction["answer"])
    bearings = [int(degrees) for degrees in re.findall(r": (\d+)", thinking)]
    return len(bearings) == 2 and turn(*bearings) in thinking


def stages(boxes, direct, thought, group):
    """The stages of the ladder, each with an answer about one picture (one_room)."""
    figure = plt.figure(figsize=(11, 10), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1.9, 1))
    found, plan = above.subplots(1, 2)
    bars = below.subplots()
    picture(found, boxes["images"][0], "Stage 1: " + boxes["prompt"], width=60)
    scale = SIDE / boxes["input_size"][0]
    for key, colour in (("truth", "white"), ("parsed", COLOURS[0])):
        for item in boxes[key]:
            x1, y1, x2, y2 = np.array(item["bbox_2d"]) * scale
            frame = plt.Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, lw=2, color=colour)
            found.add_patch(frame)
            if key == "parsed":
                name = {"color": "white", "backgroundcolor": colour, "fontsize": 10}
                found.text(x1 + 4, y1 - 6, item["label"], **name)
    question = filled("Stage 2: " + direct["prompt"].split("\n")[0], 60)
    said = f"{question}\nAnswer: {direct['answer']}"
    found.text(0.5, -0.02, said, transform=found.transAxes, ha="center", va="top", fontsize=11)
    thinking = rationale(thought["answer"])
    sights = Sights(truth_about(thought["images"][0]), "single_image", thought["input_size"][0])
    board(plan, sights, thinking)
    plan.set_title(filled(f"The cold start: {thinking}\nAnswer: {final(thought)}", 60), fontsize=11)
    rewards = np.array([g["format"] + g["accuracy"] for g in group])
    advantages = (rewards - rewards.mean()) / (rewards.std(ddof=1) + 1e-4)
    colours = np.where(advantages > 0, COLOURS[1], COLOURS[0])
    bars.barh(range(len(group)), advantages, color=colours)
    answers = [final(g)[:20] for g in group]
    parts = [f"format {g['format']:.0f} + accuracy {g['accuracy']:.1f}" for g in group]
    labels = [f"{answer}: {part}" for answer, part in zip(answers, parts)]
    bars.set_yticks(range(len(group)), labels)
    title = f"Stage 3: {group[0]['prompt'].splitlines()[0]}\nThe truth is {group[0]['truth']}."
    bars.set_title(filled(title, 110), fontsize=11)
    bars.set_xlabel("advantage of each of eight sampled answers")
    save(figure, "stages.png")


def floor(predictions, views=8):
    """Questions of direction about several views: the first right and the first wrong answer."""
    about = [p for p in predictions if p["question_type"] == "relative direction"]
    about = [p for p in about if len(p["images"]) == views]
    shown = [next(p for p in about if p["scores"]["accuracy"] == right) for right in (1, 0)]
    figure = plt.figure(figsize=(10.5, 3.6 * len(shown)), layout="constrained")
    for part, p in zip(figure.subfigures(len(shown), 1), shown):
        left, plan = part.subfigures(1, 2, width_ratios=(1.7, 1))
        axes = left.subplots(2, views // 2).flat
        for number, (axis, path) in enumerate(zip(axes, p["images"])):
            picture(axis, path, f"view {number + 1}")
        thinking = rationale(p["answer"])
        sights = Sights(truth_about(p["images"][0]), "multi_view", p["input_size"][0])
        board(plan.subplots(), sights, thinking)
        verdict = "correct" if p["scores"]["accuracy"] else "wrong"
        title = f"{p['prompt'].split(chr(10))[0]}\n{thinking}  [{verdict}]"
        part.suptitle(title, fontsize=9, ha="left", x=0.01)
    save(figure, "floor.png")


def grpo(runs):
    """What greedy answers of the first run score, and what all runs' samples earn, step by step.

    runs: {label: folder of rl.py}.
    """
    logs = {label: read_jsonl(run / "metrics.jsonl") for label, run in runs.items()}
    panels = {"accuracy": "accuracy of sampled answers (training)"}
    panels |= {"spread": "standard deviation of a group's rewards", "idle": "share of idle groups"}
    figure, axes = plt.subplots(2, 2, figsize=(11, 6.4), layout="constrained")
    first, *others = axes.flat
    scored = [row for row in next(iter(logs.values())) if "val" in row]
    for name, label, colour in (("nq", "numbers", COLOURS[0]), ("mcq", "choices", COLOURS[2])):
        values = [np.mean([kind[name] for kind in row["val"].values()]) for row in scored]
        first.plot([row["step"] for row in scored], values, "o-", color=colour, label=label)
    first.set_ylabel("accuracy of greedy answers (validation)")
    for axis, (name, title) in zip(others, panels.items()):
        for (label, rows), colour in zip(logs.items(), (COLOURS[1], COLOURS[0], COLOURS[2])):
            steps, values = [row["step"] for row in rows], [row[name] for row in rows]
            axis.plot(steps, values, color=colour, alpha=0.15)
            axis.plot(steps, smooth(values, 0.95), color=colour, label=label)
        for when, value in PAPER_GRPO.get(name, {}).items():
            axis.axhline(value, color="#777", ls=":", lw=1)
            axis.text(
                rows[-1]["step"], value, f"paper, {when}", color="#555", ha="right", va="bottom"
            )
        axis.set_ylabel(title)
    for axis in axes.flat:
        axis.set_xlabel("step")
    first.legend(loc="lower right")
    if len(logs) > 1:
        others[0].legend(loc="upper left")
    save(figure, "grpo.png")


def best_of(scores, k):
    """The expected best of k of the scores, drawn without replacement (Chen et al. 2021)."""
    ways = (comb(rank, k - 1) for rank in range(len(scores)))  # to draw k, the best of this rank
    return sum(map(mul, sorted(scores), ways)) / comb(len(scores), k)


def sampling(folders):
    """The best of k sampled answers, and how much their meanings differ, after several stages.

    folders: {name of a stage: its folder of eval.py --samples N}. Returns what is drawn.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.6), layout="constrained")
    drawn = {}
    for (name, folder), colour in zip(folders.items(), COLOURS):
        answers = read_jsonl(folder / "samples.jsonl")
        answers = [a for a in answers if a["split"] == "test" and a["form"] != "boxes"]
        split = Path(answers[0]["images"][0]).parents[2]
        rows = {row.question_id: row for row in read_rows(split / "spatial.jsonl")}
        scores = []
        for answer in answers:
            row = rows[answer["question_id"]]
            row.think = "<think>" in answer["prompt"]
            scores.append([score_answer(text, row)["accuracy"] for text in answer["samples"]])
        numbers = [2**i for i in range(len(scores[0]).bit_length())]
        best = [np.mean([best_of(own, k) for own in scores]) for k in numbers]
        left.plot(numbers, best, "o-", color=colour, label=name)
        entropy = np.mean([answer["semantic_entropy"] for answer in answers])
        drawn[name] = {"k": numbers, "best of k": best, "semantic entropy": entropy}
    left.set_xscale("log", base=2)
    left.set(xlabel="k", title="best score among k sampled answers (pass@k)", xticks=numbers)
    left.set_xticks(numbers, map(str, numbers))
    left.legend()
    entropies = [values["semantic entropy"] for values in drawn.values()]
    right.bar([*drawn], entropies, color=COLOURS[: len(drawn)])
    right.set(ylabel="nats", title="semantic entropy of the sampled answers")
    save(figure, "sampling.png")
    return drawn


def looking(folders):
    """Where localization answers look, before and after a training.

    folders: {name of a stage: its folder of eval.py --attention}. Returns for each stage the share
    of the attention inside the asked boxes, question by question, and their share of the picture.
    """
    found, shares = {}, {}
    for name, folder in folders.items():
        records = sorted(read_jsonl(folder / "attention.jsonl"), key=lambda r: r["question_id"])
        found[name] = {r["question_id"]: r for r in records if len(r["truth"]) == 1}
        shares[name] = {key: [round(r[key], 4) for r in records] for key in ("inside", "area")}
    keys = some([*set.intersection(*map(set, found.values()))], 4)
    figure, axes = plt.subplots(len(found), 4, figsize=(11, 6), layout="constrained")
    for line, (name, records) in zip(axes, found.items()):
        for axis, record in zip(line, map(records.get, keys)):
            (item,), share = record["truth"], f"{record['inside']:.0%} in the box"
            picture(axis, record["images"][0], f"{name}: {item['label']}, {share}", 30)
            weights = np.array(record["attention"])
            shade = {"cmap": "Reds", "alpha": 0.8 * weights / weights.max(), "vmin": -1, "vmax": 0}
            axis.imshow(np.zeros_like(weights), extent=(0, SIDE, SIDE, 0), **shade)
            x1, y1, x2, y2 = (v * SIDE / record["input_size"][0] for v in item["bbox_2d"])
            axis.add_patch(plt.Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, color="white"))
    save(figure, "looking.png")
    return shares


def sampled(run, row):
    """Eight answers of a run to a row, with the parts of their reward."""
    policy, s = Policy.load(run), rl.Settings()
    row.think = True
    check_images([row])
    prompt = encode_prompt(row, *policy[1:3], policy.model.config, ask=True)
    _, texts = rl.rollout(s, policy, [prompt], seed=0)
    parts = rl.reward_answers(texts, [row], policy.image_config)
    about = describe(row, *policy[1:3]) | {"truth": row.answer}
    return [about | {"answer": text} | part for text, part in zip(texts, parts)]


def one_room(boxes, direct, thought, run):
    """An answer of each stage about one picture, and the run's group of sampled answers about it.

    Stage 2 and the cold start answer questions of direction rightly, and the boxes are of three
    objects. Of the pictures where that is so, it is the one whose IoU is nearest to the usual one.
    """

    def about(predictions, is_wanted):
        return {Path(p["images"][0]).name: p for p in reversed(predictions) if is_wanted(p)}

    def is_right(p):
        wanted = ("relative direction", "single_image")
        return (p["question_type"], p["kind"]) == wanted and p["scores"]["accuracy"] == 1

    found = about(boxes, lambda p: len(p["truth"]) == 3)
    said, told = about(direct, is_right), about(thought, lambda p: is_right(p) and follows(p))
    rows = read_rows(Path(direct[0]["images"][0]).parents[2] / "spatial.jsonl")
    asked = {Path(r.images[0]).name: r for r in rows if r.question_type == NUMBER}
    shared = found.keys() & said.keys() & told.keys() & asked.keys()
    usual = np.mean([p["scores"]["iou"] for p in boxes])
    name = min(sorted(shared), key=lambda name: abs(found[name]["scores"]["iou"] - usual))
    return found[name], said[name], told[name], sampled(run, asked[name])


def enlarged(prediction, folder):
    """The prediction with a larger picture of its room, drawn into a folder."""
    path = Path(folder) / Path(prediction["images"][0]).name
    Image.fromarray(drawn_large(prediction["images"][0])).save(path)
    return prediction | {"images": [str(path)]}


def main(ladder):
    def scored(run):
        files = (ladder / run / name for name in ("eval/predictions.jsonl", "predictions.jsonl"))
        rows = read_jsonl(next(path for path in files if path.exists()))
        return [p for p in rows if p["split"] == "test"]

    boxes = [p for p in scored("stage1") if p["question_type"] == "localization"]
    direct, thought = scored("stage2"), scored("cold")
    stages(*one_room(boxes, direct, thought, ladder / "cold"))
    encoder(direct)
    with tempfile.TemporaryDirectory() as folder:
        draw_samples([enlarged(p, folder) for p in some(boxes, 8)], DOCS / "samples.png")
    floor(thought)
    if (ladder / "rl" / "scores.json").exists():
        others = {run.parent.name: run for run in sorted(ladder.parent.glob("without-*/rl"))}
        grpo({"all stages": ladder / "rl"} | others)
    folders = {run: ladder / run / "sampled" for run in ("stage2", "cold", "rl")}
    if all((folder / "scores.json").exists() for folder in folders.values()):
        write_json(RESULTS / "sampling.json", sampling(folders))
    folders = {run: ladder / run / "looked" for run in ("base", "stage1")}
    if all((folder / "scores.json").exists() for folder in folders.values()):
        write_json(RESULTS / "looking.json", looking(folders))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
