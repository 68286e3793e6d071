"""Questions about a room, made from its exact truth: localization (stage 1) and seeing (stage 0).

A question names an object by its category alone only where that is unambiguous: one instance in view, enough of it
to be seen. The thresholds are the constants below. Seeing questions teach the base to see and to name; none of their
answers holds a box or a length, nor a point that the question did not give, but for the square of a chessboard.
"""

import json

import numpy as np

from data.rooms.furniture import CATEGORIES, COLOURS

NAMES = ("floor", "wall", "ceiling", *CATEGORIES)  # an index image (IMAGE.names.png) holds places in this tuple

MIN_SIDE = 0.07  # of a box, as a share of the frame's side: smaller ones are not asked about
MAX_AREA = 0.2  # of a box, as a share of the frame: one that fills the frame is found without looking
MIN_VISIBILITY = 0.4  # share of an object's silhouette that nothing hides
MAX_TRUNCATION = 0.4  # share of its silhouette outside the frame
MIN_SHARE = 0.002  # of the frame's pixels, for an object to count as in view

FACTS = ("square", "place", "colour")  # what stage 0 can be asked to tell of an object
BOARD = ("abcdefgh", "12345678")  # a square: its file from the left, its rank from the top

LOCATE = ("Locate {}.", "Find {}.", "Point out {}.", "Give the bounding box of {}.")


def localization_rows(scene, visible, size, rng, most=4):
    """Question and answer dicts: up to `most` single objects of a frame, and one question about several of them.

    `visible` is render.visible_objects; `size` the frame's side in pixels.
    """
    objects = [o for o in _unique(scene, visible, size) if _askable(visible[o.id], size)]
    objects = [objects[i] for i in rng.permutation(len(objects))]
    asked = [[o] for o in objects[:most]]
    if len(objects) > 1:
        asked.append(objects[: rng.integers(2, min(4, len(objects)) + 1)])
    return [
        {
            "question": LOCATE[rng.integers(len(LOCATE))].format(_the(group)),
            "answer": [{"bbox_2d": visible[o.id]["bbox"], "label": o.category} for o in group],
            "question_type": "localization",
        }
        for group in asked
    ]


def _in_view(scene, visible, size):
    return [o for o in scene.objects if o.id in visible and visible[o.id]["pixels"] >= MIN_SHARE * size**2]


def _unique(scene, visible, size):
    """Objects in view whose category no other visible object shares, not even a sliver of one."""
    shown = [o.category for o in scene.objects if o.id in visible]
    return [o for o in _in_view(scene, visible, size) if shown.count(o.category) == 1]


def _askable(seen, size):
    x1, y1, x2, y2 = seen["bbox"]
    return clearly_seen(seen, size) and (x2 - x1) * (y2 - y1) <= MAX_AREA * size**2


def clearly_seen(seen, size):
    """Whether a frame of side `size` pixels shows an object well enough to name it; seen: its visible_objects entry."""
    x1, y1, x2, y2 = seen["bbox"]
    return (
        min(x2 - x1, y2 - y1) >= MIN_SIDE * size
        and seen["visibility"] >= MIN_VISIBILITY
        and seen["truncation"] <= MAX_TRUNCATION
    )


def _the(objects):
    return _enumerate([f"the {o.category}" for o in objects])


def _enumerate(words):
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


# ---------------------------------------------------------------- seeing, for the base


def seeing_rows(scene, frame, visible, rng):
    """Question, answer and type of about sixteen questions on one frame, every answer short.

    "describe" is what stage 1 builds on: the same few facts about several objects, in any order, so that an object has
    to be found once behind its label whatever is said of it next, and however far behind.
    """
    size = frame.ids.shape[0]
    objects = _in_view(scene, visible, size)
    if not objects:
        return []
    unique = _unique(scene, visible, size)
    centre = {o.id: _centre(visible[o.id]["bbox"]) for o in objects}
    rows = []

    def ask(kind, question, answer):
        rows.append({"question": question, "answer": answer, "question_type": kind})

    def draw(items, most):
        return [items[i] for i in rng.permutation(len(items))[:most]]

    for _ in range(2):
        points = [_point_on(rng.choice([o.id for o in objects]), frame.ids, rng) for _ in range(3)]
        points.append(tuple(rng.integers(0, size, 2)))
        points = draw(points, rng.integers(2, 5))
        ask("point", f"What is at {_enumerate([_xy(p) for p in points])}?",
            ", ".join(_name_at(scene, frame.ids, p) for p in points))  # fmt: skip
    ask("list", "What is in view, from left to right?",
        ", ".join(o.category for o in sorted(objects, key=lambda o: centre[o.id][0])))  # fmt: skip
    for o in draw(unique, 1):
        ask("colour", f"What colour is the {o.category}?", o.colour)
    for o in draw(unique, 1):
        ask("place", f"In which part of the picture is the {o.category}?", ninth(centre[o.id], size))
    for _ in range(6 if unique else 0):
        group, told = draw(unique, rng.integers(1, 5)), draw(FACTS, rng.integers(1, 4))
        answer = []
        for o in group:
            facts = {"square": square(centre[o.id], size), "place": ninth(centre[o.id], size), "colour": o.colour}
            answer.append({"label": o.category} | {fact: facts[fact] for fact in told})
        ask("describe", f"Tell the {_enumerate(told)} of {_the(group)}.", _as_json(answer))
    for o in draw(unique, 2):
        point = _near(visible[o.id]["bbox"], size, rng)
        ask("side", f"On which side of the {o.category} is {_xy(point)}?", _side(point, visible[o.id]["bbox"]))
    for o in draw(unique, 1):
        others = [_point_on(p.id, frame.ids, rng) for p in draw([p for p in objects if p is not o], 2)]
        others += [p for p in [tuple(rng.integers(0, size, 2))] if frame.ids[p[1], p[0]] != o.id]
        right = _point_on(o.id, frame.ids, rng)
        points = draw([right, *others], 4)
        ask("which", f"Which of {_enumerate([_xy(p) for p in points])} is on the {o.category}?",
            _as_json([{"label": o.category, "point_2d": right}]))  # fmt: skip
    shown = [o.category for o in objects]
    asked = str(rng.choice(shown if rng.random() < 0.6 else NAMES[3:]))
    if all(o.category != asked or o in objects for o in scene.objects if o.id in visible):
        ask("count", f"How many of these are in view: {asked}?", str(shown.count(asked)))
    for a, b in [draw(unique, 2)] if len(unique) > 1 else []:
        word, key = [
            ("further left", lambda o: centre[o.id][0]),
            ("further right", lambda o: -centre[o.id][0]),
            ("lower in the picture", lambda o: -visible[o.id]["bbox"][3]),
            ("closer", lambda o: np.median(frame.depth[frame.ids == o.id])),
        ][rng.integers(4)]
        ask("order", f"Which is {word}, the {a.category} or the {b.category}?", min((a, b), key=key).category)
    for o in draw(unique, 1):
        step = rng.choice([-1, 1])
        beyond = [p for p in objects if (centre[p.id][0] - centre[o.id][0]) * step > 0]
        answer = min(beyond, key=lambda p: abs(centre[p.id][0] - centre[o.id][0])).category if beyond else "nothing"
        ask("next", f"What is next to the {o.category} on the {'right' if step > 0 else 'left'}?", answer)
    return rows


def _centre(box):
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def _as_json(items):
    """As boxes are written (dataset.target_text), so that what the base says of an object has the form of stage 1."""
    return json.dumps(items, separators=(",", ":"))


def _xy(point):
    return f"({point[0]},{point[1]})"


def _point_on(object_id, ids, rng):
    """A random pixel (x, y) of an object."""
    ys, xs = np.nonzero(ids == object_id)
    k = rng.integers(len(xs))
    return int(xs[k]), int(ys[k])


def _name_at(scene, ids, point):
    value = ids[point[1], point[0]]
    return scene.objects[value].category if value >= 0 else NAMES[-1 - value]


def ninth(centre, size):
    """Name of the ninth of the picture that holds a point."""
    row = ("upper", "middle", "lower")[min(2, int(3 * centre[1] / size))]
    col = ("left", "centre", "right")[min(2, int(3 * centre[0] / size))]
    return f"{row} {col}"


def square(centre, size):
    """Name of the square that holds a point, were a chessboard laid over the picture: "a1" is upper left."""
    return "".join(line[int(len(line) * at / size)] for line, at in zip(BOARD, centre))


def _near(box, size, rng):
    """A random point within half a box of the box, and inside the picture."""
    x1, y1, x2, y2 = box
    w, h = max(6, (x2 - x1) / 2), max(6, (y2 - y1) / 2)
    return tuple(int(v) for v in np.clip([rng.uniform(x1 - w, x2 + w), rng.uniform(y1 - h, y2 + h)], 0, size - 1))


def _side(point, box):
    """Where a point lies seen from a box: inside, above left, right, ..."""
    words = []
    if not box[1] <= point[1] < box[3]:
        words.append("above" if point[1] < box[1] else "below")
    if not box[0] <= point[0] < box[2]:
        words.append("left" if point[0] < box[0] else "right")
    return " ".join(words) or "inside"


# Words of the rungs above, so that the tokenizer of the base has them: a tokenizer can't grow later.
VOCABULARY = tuple(
    f"{a} the {category} {b}"
    for category in CATEGORIES
    for a, b in [
        ("What is the distance between", "and the wall in meters? Measured from the closest points."),
        ("If I am standing by", "and facing it, is it to my front-left, front-right, back-left or back-right?"),
        ("What is the length of the longest dimension of", "in centimeters? Answer with a number."),
        ("Which of these objects is closest to", "? Options: A. B. C. D. Answer with the letter."),
        ("What is the size of this room with", "in square meters? What will be the first-time appearance order?"),
        ("<think>I see", "at depth 1.2 m, so it is larger, smaller, nearer, therefore</think><answer>A</answer>"),
        ("These are frames of a video. How many times does", "appear? First, then, last."),
        ("I turn left, turn right, go back. The angle and the direction of", "is degrees, x, y, z = 0.5 + 1.5 > 2."),
    ]
) + tuple(f"What colour is it? {colour}." for colour in COLOURS)
