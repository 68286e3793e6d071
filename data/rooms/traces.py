"""Workings, how the answer to a spatial question is found, and the cold start's traces, which think them.

    python -m data.rooms.traces --data datasets/rooms-spatial                            # from the rooms' own truth
    python -m data.rooms.traces --data datasets/rooms-spatial --traces-from CHECKPOINT   # those a model gets right

Training rows of spatial.jsonl come with workings, which rung 2 writes on the lines before its answer. They perceive (of
one picture the objects asked about, with their squares of a chessboard laid over it and how far as a share of the
farthest point: in the words in which the base describes), understand (where on the floor they stand, one for all
pictures, in the words of floor.py; depths, sizes) and reason (steps, bearings, a comparison or some arithmetic). Every
step is true, or follows from those before it:

    [{"label":"bed","square":"c4","depth":"w"},{"label":"lamp","square":"f5","depth":"u"},
    {"label":"sofa","square":"b6","depth":"t"}] On the floor bed:ES, lamp:HQ, sofa:DP: from bed:ES to lamp:HQ 3 right
    2 back: 120, to sofa:DP 1 left 3 back: 195, turn 75 right: front-right.

A trace has them in <think></think> and the answer in <answer></answer>. DATA/train/cold.jsonl has the fields of
SpatialLadder's cold start (prompt, solution, image, data_type) and our question_type, options and level; prepare.py
--traces writes it too. From a model, an answer is kept where it earns full marks for form and content, one a question.
"""

from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch

from data.rooms.floor import Sights, first_seen, tour, turn
from data.rooms.seeing import PICTURES
from data.rooms.spatial import box_distance, box_gaps, framed_corners
from nanoladder import checkpoint
from nanoladder.common import (
    UserError,
    parse,
    progress,
    read_jsonl,
    run_script,
    setting,
    start_runtime,
    write_jsonl,
)
from nanoladder.dataset import encode_prompt, read_rows
from nanoladder.generate import generate
from nanoladder.rewards import in_tags, reward
from nanoladder.tokenizer import Tokenizer

PAPER = 1255  # traces of SpatialLadder's cold start


@dataclass
class Settings:
    data: str = setting("datasets/rooms-spatial", "data folder with train/spatial.jsonl")
    traces: int = setting(PAPER, "traces to write")
    traces_from: str | None = setting(None, "run folder or Qwen2.5-VL folder that thinks, instead of the truth")
    tries: int = setting(8, "answers sampled to each question, at temperature 1")
    max_new_tokens: int = setting(1024, "an answer that has not ended by then is dropped")
    seed: int = setting(0, "seed of the choice of questions, and of sampling")


# ---------------------------------------------------------------- workings: one function for each type
# Each returns the values that the phrases below are filled with. Words are those that the base's tokenizer knows, and
# workings that go different ways begin with different ones: the beginning is the plan that the rest follows.


def absolute_distance(row, sights):
    a, b = objects = [sights.by_name[name] for name in row["asked"]]
    plan, height = box_gaps(a, b)
    return {"seen": _seen(sights, objects), "floor": sights.floor(objects), "way": sights.ways(objects),
            "plan": f"{plan:.1f}", "height": f"{height:.1f}"}  # fmt: skip


def object_size(row, sights):
    o = sights.by_name[row["asked"][0]]
    if sights.alone:
        return {"seen": f"{sights.see([o])} Depth {sights.board.project([o.center])[1][0]:.1f}"}
    return {"seen": f"On the floor {sights.floor([o])}"}


def room_size(row, sights):
    """The earliest two pictures that show opposite corners."""
    framed = framed_corners(sights)
    first = [sights.picture(np.argmax(seen) if seen.any() else len(framed)) for seen in framed.T]
    pair = min((first[0], first[2]), (first[1], first[3]), key=max)
    sides = " x ".join(f"{side:.2f}" for side in sights.room)
    return {"a": PICTURES[min(pair)], "b": PICTURES[max(pair)], "sides": sides}


def object_count(row, sights):
    """Every counted object where it stands, kind by kind from the left, numbered: a sum at the end is a guess."""
    counted = [o for o in sights.objects if o.category in row["asked"]]
    counted.sort(key=lambda o: (row["asked"].index(o.category), sights.cell(o)))
    return {"met": ", ".join(f"{sights.floor([o])} {number}" for number, o in enumerate(counted, 1))}


def relative_distance(row, sights):
    """After each gap the closest so far: of four numbers at once a nano finds the least no better than by a guess."""
    target, *others = objects = [sights.by_name[name] for name in (row["asked"][0], *_texts(row))]
    gaps = [(round(box_distance(target, o), 1), o.category) for o in others]
    closest = accumulate(gaps, lambda best, new: new if new[0] < best[0] else best)
    said = [f"{gap} so {name} {least}" for (gap, _), (least, name) in zip(gaps, closest)]
    return {"floor": sights.floor(objects), "ways": sights.ways(objects, said)}


def relative_direction(row, sights):
    """The turn follows from the rounded bearings: questions keep farther from every border than rounding moves it."""
    objects = [sights.by_name[name] for name in row["asked"]]
    bearings = sights.bearings(objects)
    ways = f"{sights.ways(objects, bearings)}, turn {turn(*bearings)}"
    return {"seen": _seen(sights, objects), "floor": sights.floor(objects), "ways": ways}


def appearance_order(row, sights):
    """The first pictures that show them clearly, as asked and then picture by picture."""
    asked = [sights.by_name[name] for name in row["asked"]]
    first = {o.category: sights.first(o) for o in asked}
    met = {o.category: first[o.category] for o in sorted(asked, key=lambda o: sights.clear[o.id][0])}
    return {"seen": first_seen(first), "tour": tour(met)}


WORKINGS = {
    "absolute distance": (absolute_distance, (
        "{seen}On the floor {floor}: {way}. {plan} on the floor, {height} in z = {answer}.",
        "{seen}On the floor {floor}, {way}, in x and y {plan}, in z {height}, so {answer}.",
    )),
    "object size": (object_size, (
        "{seen}. The longest side is {answer}.",
        "{seen}, so the longest side is {answer}.",
    )),
    "room size": (room_size, (
        "Opposite corners are in picture ({a}) and ({b}). The sides are {sides} = {answer}.",
        "Opposite corners in picture ({a}) and ({b}), so the size is {sides} = {answer}.",
    )),
    "object count": (object_count, (
        "Count {met}. There are {answer}.",
        "Count {met}, so {answer}.",
    )),
    "relative distance": (relative_distance, (
        "On the floor {floor}: {ways}. The closest is {answer}.",
        "On the floor {floor}, {ways}, so {answer}.",
    )),
    "relative direction": (relative_direction, (
        "{seen}On the floor {floor}: {ways}: {answer}.",
        "{seen}On the floor {floor}, {ways}, so {answer}.",
    )),
    "appearance order": (appearance_order, (
        "First {seen}. {tour}. The order is {answer}.",
        "First {seen}. {tour}, so {answer}.",
    )),
}  # fmt: skip


def _seen(sights, objects):
    """What comes before the map; of several pictures nothing, for all of them show one floor."""
    return sights.see(objects) + " " if sights.alone else ""


def _texts(row):
    """The options without their letters."""
    return [option.split(". ", 1)[1] for option in row["options"]]


def _answer(row):
    """The answer to a row, of a choice the words of the right option."""
    return _texts(row)["ABCD".index(row["answer"])] if row["options"] else row["answer"]


def workings(row, scene, size, rng):
    """How the answer to a row of spatial.jsonl is found. scene: its room in scenes.jsonl; size: the frames' side in
    pixels."""
    values, phrases = WORKINGS[row["question_type"]]
    return phrases[rng.integers(len(phrases))].format(
        answer=_answer(row), **values(row, Sights(scene, row["data_type"], size))
    )


# ---------------------------------------------------------------- rows


def dealt(rows, rng):
    """Indices of rows in a random order, those about the same images together (they are learned in one sequence), and
    each modality by its share all along."""
    sets = {}
    for i, row in enumerate(rows):
        sets.setdefault((row["data_type"], *row["image"]), []).append(i)
    piles = {}
    for key in sorted(sets):
        piles.setdefault(key[0], []).append(sets[key])
    turns = [(place / len(pile), kind, pile[j]) for kind, pile in piles.items()
             for place, j in enumerate(rng.permutation(len(pile)))]  # fmt: skip
    return [i for _, _, indices in sorted(turns) for i in indices]


def trace_row(row, solution):
    fields = ("question_id", "image", "data_type", "question_type", "options", "level")
    return {"prompt": row["question"], "solution": solution} | {name: row[name] for name in fields if name in row}


def traces_from_truth(folder, count, seed):
    """`count` rows of cold.jsonl, from the workings of a split's folder."""
    rows = [row for row in read_jsonl(folder / "spatial.jsonl") if row.get("workings")]
    order = dealt(rows, np.random.default_rng([seed, 6]))[:count]
    return [trace_row(rows[i], in_tags(rows[i]["workings"], _answer(rows[i]))) for i in order]


def traces_from_model(folder, s, batch_size=16):
    """Up to `s.traces` rows of cold.jsonl: what the model at s.traces_from thinks where that earns full marks."""
    home, device = checkpoint.find(s.traces_from), start_runtime().device
    model, config = checkpoint.load(home, device=device)
    tokenizer, image_config = Tokenizer.load(home), checkpoint.load_image_config(home)
    raw, rows, found = read_jsonl(folder / "spatial.jsonl"), read_rows(folder / "spatial.jsonl"), []
    for row in rows:
        row.think = True
    order = dealt(raw, np.random.default_rng([s.seed, 6]))
    generator = torch.Generator(device).manual_seed(s.seed)
    bar = progress(total=s.traces, desc="traces", unit="trace")
    for first in range(0, len(order), batch_size):
        asked = order[first : first + batch_size]
        prompts = [encode_prompt(rows[i], tokenizer, image_config, config, ask=True) for i in asked]
        texts = generate(
            model, prompts, s.max_new_tokens, tokenizer.eos_ids, 1.0, tokenizer.vision_ids, s.tries, generator
        ).texts(tokenizer)
        for k, i in enumerate(asked):
            tried = texts[k * s.tries : (k + 1) * s.tries]
            right = [text for text in tried if reward(text, rows[i]) == {"format": 1.0, "accuracy": 1.0}]
            found += [trace_row(raw[i], text) for text in right[:1]]
        bar.update(min(len(found), s.traces) - bar.n)
        if len(found) >= s.traces:
            break
    bar.close()
    return found[: s.traces]


def main(argv):
    s = parse(Settings, argv, doc=__doc__)
    folder = Path(s.data) / "train"
    if (folder / "cold.jsonl").exists():
        raise UserError(f"{folder / 'cold.jsonl'} is there already: delete it to have others")
    found = traces_from_model(folder, s) if s.traces_from else traces_from_truth(folder, s.traces, s.seed)
    if not found:
        raise UserError(
            f"{s.traces_from} got no question right in the form that was asked for"
            if s.traces_from
            else f"{folder / 'spatial.jsonl'}: no row has workings; make the rooms anew, or use --traces-from"
        )
    write_jsonl(folder / "cold.jsonl", found)
    print(f"{folder / 'cold.jsonl'}: {len(found)} traces")


if __name__ == "__main__":
    run_script(main)
