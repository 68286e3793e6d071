"""Rationales: how the answer to a spatial question is found, written from the rooms' own truth.

Training rows of spatial.jsonl have a rationale, which the cold start teaches before the answer. It
has three steps. Every statement is true, or follows from those before it.

1. Perceive: of a single picture, the square and the depth of each asked object (see seeing.py).
2. Understand: where the objects stand on the floor (see floor.py), their depths or sizes.
3. Reason: ways on the floor, bearings, a comparison or a sum.

An example for a direction:

    [{"label":"bed","square":"c4","depth":"w"},{"label":"lamp","square":"f5","depth":"u"},
    {"label":"sofa","square":"b6","depth":"t"}] On the floor bed:ES, lamp:HQ, sofa:DP: from bed:ES
    to lamp:HQ 3 right 2 back: 120, to sofa:DP 1 left 3 back: 195, turn 75 right: front-right.

The cold start teaches the same rationales as traces,
<think>rationale</think><answer>answer</answer>. traces_from_truth() makes its rows. traces.py is
the command, which can also take a model's own.
"""

from itertools import accumulate

import numpy as np

from data.rooms.floor import Sights, first_seen, tour, turn
from data.rooms.seeing import PICTURES
from data.rooms.spatial import (
    box_distance,
    box_gaps,
    framed_corners,
    option_texts,
    right_option,
)
from nanoladder.answers import in_tags
from nanoladder.files import read_jsonl

# ---------------------------------------------------------------- one function for each type
# Each returns the values that fill the phrases of RATIONALES. The words are those of stage 0's
# tokenizer. Rationales that go different ways begin with different words, because the beginning
# tells the model which steps follow.


def absolute_distance(row, sights):
    a, b = objects = [sights.by_name[name] for name in row["asked"]]
    plan, height = box_gaps(a, b)
    return {
        "seen": _seen(sights, objects),
        "floor": sights.floor(objects),
        "way": sights.ways(objects),
        "plan": f"{plan:.1f}",
        "height": f"{height:.1f}",
    }


def object_size(row, sights):
    """Says the name again before the number, because sizes depend on it most."""
    name = row["asked"][0]
    o = sights.by_name[name]
    seen = f"On the floor {sights.floor([o])}"
    if sights.alone:
        seen = f"{sights.see([o])} Depth {sights.board.project([o.center])[1][0]:.1f}"
    return {"seen": seen, "name": name}


def room_size(row, sights):
    """Names the earliest two pictures that show opposite corners of the room."""
    framed = framed_corners(sights)
    first = [sights.picture(np.argmax(seen) if seen.any() else len(framed)) for seen in framed.T]
    pair = min((first[0], first[2]), (first[1], first[3]), key=max)
    sides = " x ".join(f"{side:.2f}" for side in sights.room)
    return {"a": PICTURES[min(pair)], "b": PICTURES[max(pair)], "sides": sides}


def object_count(row, sights):
    """Numbers every counted object, category by category and from the left, where it stands.

    A sum at the end alone would be a guess.
    """
    counted = [o for o in sights.objects if o.category in row["asked"]]
    counted.sort(key=lambda o: (row["asked"].index(o.category), sights.cell(o)))
    met = [f"{sights.floor([o])} {number}" for number, o in enumerate(counted, 1)]
    return {"met": ", ".join(met)}


def relative_distance(row, sights):
    """Names the closest object so far after each distance.

    A small model that sees four distances at once finds the smallest no better than by chance.
    """
    target, *others = objects = [
        sights.by_name[name] for name in (row["asked"][0], *option_texts(row))
    ]
    gaps = [(round(box_distance(target, o), 1), o.category) for o in others]
    closest = accumulate(gaps, lambda best, new: new if new[0] < best[0] else best)
    said = [f"{gap} so {name} {least}" for (gap, _), (least, name) in zip(gaps, closest)]
    return {"floor": sights.floor(objects), "ways": sights.ways(objects, said)}


def relative_direction(row, sights):
    """Derives the turn from two rounded bearings.

    Rounding cannot change the answer: it moves the turn by less than spatial.ANGLE_MARGIN, and no
    direction lies that near to the border of its sector.
    """
    objects = [sights.by_name[name] for name in row["asked"]]
    bearings = sights.bearings(objects)
    ways = f"{sights.ways(objects, bearings)}, turn {turn(*bearings)}"
    return {"seen": _seen(sights, objects), "floor": sights.floor(objects), "ways": ways}


def appearance_order(row, sights):
    """Names the first picture that shows each object clearly, as asked, then picture by picture."""
    asked = [sights.by_name[name] for name in row["asked"]]
    first = {o.category: sights.first(o) for o in asked}
    met = {
        o.category: first[o.category] for o in sorted(asked, key=lambda o: sights.clear[o.id][0])
    }
    return {"seen": first_seen(first), "tour": tour(met)}


RATIONALES = {  # {question type: (its function, phrases to choose from)}
    "absolute distance": (
        absolute_distance,
        (
            "{seen}On the floor {floor}: {way}. {plan} on the floor, {height} in z = {answer}.",
            "{seen}On the floor {floor}, {way}, in x and y {plan}, in z {height}, so {answer}.",
        ),
    ),
    "object size": (
        object_size,
        (
            "{seen}. The longest side of the {name} is {answer}.",
            "{seen}, so the longest side of the {name} is {answer}.",
        ),
    ),
    "room size": (
        room_size,
        (
            "Opposite corners are in picture ({a}) and ({b}). The sides are {sides} = {answer}.",
            "Opposite corners in picture ({a}) and ({b}), so the size is {sides} = {answer}.",
        ),
    ),
    "object count": (
        object_count,
        (
            "Count {met}. There are {answer}.",
            "Count {met}, so {answer}.",
        ),
    ),
    "relative distance": (
        relative_distance,
        (
            "On the floor {floor}: {ways}. The closest is {answer}.",
            "On the floor {floor}, {ways}, so {answer}.",
        ),
    ),
    "relative direction": (
        relative_direction,
        (
            "{seen}On the floor {floor}: {ways}: {answer}.",
            "{seen}On the floor {floor}, {ways}, so {answer}.",
        ),
    ),
    "appearance order": (
        appearance_order,
        (
            "First {seen}. {tour}. The order is {answer}.",
            "First {seen}. {tour}, so {answer}.",
        ),
    ),
}


def _seen(sights, objects):
    """What comes before the map: squares and depths in a single picture, nothing for several."""
    return sights.see(objects) + " " if sights.alone else ""


def _answer(row):
    """The answer to a row; of a choice, the words of the right option."""
    return option_texts(row)[right_option(row)] if row["options"] else row["answer"]


def rationale(row, scene, size, rng):
    """The rationale of a row of spatial.jsonl.

    scene: the row of scenes.jsonl of its room. size: the frames' side in pixels.
    """
    find, phrases = RATIONALES[row["question_type"]]
    phrase = phrases[rng.integers(len(phrases))]
    return phrase.format(answer=_answer(row), **find(row, Sights(scene, row["data_type"], size)))


# ---------------------------------------------------------------- rows of cold.jsonl


def shuffled(rows, rng):
    """Indices of the rows in a random order in which every data_type keeps its share throughout.

    Rows about the same images follow each other, because they are trained on in one sequence.
    """
    sets = {}
    for i, row in enumerate(rows):
        sets.setdefault((row["data_type"], *row["image"]), []).append(i)
    by_type = {}
    for key in sorted(sets):
        by_type.setdefault(key[0], []).append(sets[key])
    placed = []  # (share of its data_type that comes before it, data_type, indices)
    for kind, groups in by_type.items():
        for place, j in enumerate(rng.permutation(len(groups))):
            placed.append((place / len(groups), kind, groups[j]))
    return [i for *_, indices in sorted(placed) for i in indices]


def trace_row(row, solution):
    """The row of cold.jsonl that teaches `solution` as the answer to a row of spatial.jsonl."""
    fields = ("question_id", "image", "data_type", "question_type", "options", "unit", "level")
    kept = {name: row[name] for name in fields if name in row}
    return {"prompt": row["question"], "solution": solution} | kept


def traces_from_truth(folder, count, seed):
    """At most `count` rows of cold.jsonl, made from the rationales in a split's folder."""
    rows = [row for row in read_jsonl(folder / "spatial.jsonl") if row.get("rationale")]
    order = shuffled(rows, np.random.default_rng([seed, 6]))[:count]
    return [trace_row(rows[i], in_tags(rows[i]["rationale"], _answer(rows[i]))) for i in order]
