"""The floor as a map: where objects stand seen from above, in squares of CELL metres, and the way from one to another.

One picture is laid out at a time: its camera stands in the middle of the line between ranks 1 and 2 and looks up, so an
object two metres ahead of it and one to its right is at h4. Of several pictures, a thought lays out the one that shows
most of the objects. VSI-Bench (arXiv 2412.14171) found that models which draw such a map first compare distances
better; thoughts (traces.py) lay it out before they compare, and floor.jsonl teaches it before that, in three types of
rows, the first of kind "floor" and for stage 2, the others of kind "reckoning" and for the base too:

    floor  On the floor: bed, lamp?    bed:d6, lamp:h4         (of several: On the floor of picture (k): bed, lamp?)
    way    On the floor bed:d6, lamp:h4, rug:d3. Distance from bed?
           from bed:d6 to lamp:h4 4 right 2 back, to rug:d3 0 right 3 back
    turn   On the floor bed:d6, lamp:h4, rug:d3. Standing at the bed and facing the lamp, where is the rug?
           from bed:d6 to lamp:h4 4 right 2 back: 120, to rug:d3 0 right 3 back: 180, turn 60 right

The first is found in the pictures; the others are made up and show only how to reckon with a map, as a language model
of any size can.
A bearing is in degrees clockwise from where the camera looks, to the nearest TURN.
"""

import numpy as np

from data.rooms.questions import NAMES
from data.rooms.seeing import PICTURES, as_json, depth_letter, most_of, square
from data.rooms.spatial import View

CELL = 0.8  # metres: with depths 10 % wrong, nine directions in ten still come out right
FILES, RANKS = "abcdefghijkl", "0123456789"  # from the left, and from the camera on
BEHIND = 2  # ranks behind the camera: what another picture shows may lie there
TURN = 15  # degrees; two bearings rounded to it keep every turn within spatial.ANGLE_MARGIN
ASKED = 4  # objects a row asks for, at most
ROWS = 4  # floor rows about a picture, as many turn rows, and half as many way rows


class Sights(View):
    """Objects as the pictures of one modality show them. Two frames of a walk are one picture, as in video tokens."""

    def __init__(self, scene, data_type, size):
        self.frames = [frame for frame in scene["frames"] if frame["data_type"] == data_type]
        super().__init__(scene, self.frames, size)
        self.size, self.alone, self.pace = size, len(self.frames) == 1, 2 if data_type == "video" else 1
        self.by_name = {o.category: o for o in self.named}

    def picture(self, frame):
        """Index of the picture that a frame is in."""
        return frame // self.pace

    def best(self, objects):
        """Index of the picture that shows most of them."""
        return most_of(objects, [{int(key): seen for key, seen in frame["visible"].items()}
                                 for frame in self.frames[:: self.pace]], self.size)  # fmt: skip

    def see(self, objects):
        """Of one picture alone what the base tells of them, or else which picture shows most of them."""
        if not self.alone:
            return f"In picture ({PICTURES[self.best(objects)]})."
        items, (frame,) = [], self.frames
        for o in objects:
            seen = frame["visible"][str(o.id)]
            x1, y1, x2, y2 = seen["bbox"]
            items.append({"label": o.category, "square": square(((x1 + x2) / 2, (y1 + y2) / 2), self.size),
                          "depth": depth_letter(seen["depth"], frame["farthest"])})  # fmt: skip
        return as_json(items)

    def meet(self, objects):
        """The first picture that shows each clearly, in the base's words."""
        return as_json([{"label": o.category, "picture": PICTURES[self.first(o)]} for o in objects])

    def first(self, o):
        return self.picture(self.clear[o.id][0])

    def depth(self, o):
        """Metres ahead of the best picture's camera."""
        return self.camera(self.best([o])).project([o.center])[1][0]

    def camera(self, number):
        """That of a picture, or of its first frame."""
        return self.cameras[number * self.pace]

    def across_and_along(self, number, metres):
        """Of a vector in plan, its parts to the right and ahead of a picture's camera, which is upright."""
        right = self.camera(number).rotation[0, :2]
        return np.array([right @ metres, right[0] * metres[1] - right[1] * metres[0]])

    def cell(self, number, o):
        """(file, rank) of an object's centre on a picture's board, at the edge where it lies beyond."""
        away = self.across_and_along(number, np.subtract(o.center, self.camera(number).position)[:2])
        cell = np.floor(away / CELL) + (len(FILES) // 2, BEHIND)
        return tuple(int(at) for at in np.clip(cell, 0, (len(FILES) - 1, len(RANKS) - 1)))

    def lay(self, number, objects):
        """On a picture's board: "bed:d6, lamp:h4"."""
        return ", ".join(f"{o.category}:{name(self.cell(number, o))}" for o in objects)

    def floor(self, objects):
        """On the best picture's board."""
        return self.lay(self.best(objects), objects)

    def ways(self, objects, said=()):
        """From the first of the objects to each of the others on the best picture's board, with what is said of it."""
        best = self.best(objects)
        return ways({o.category: self.cell(best, o) for o in objects}, said)

    def bearings(self, objects):
        """From the first of the objects to each of the others, clockwise from where the best picture looks."""
        best, (a, *others) = self.best(objects), objects
        return [bearing(*self.across_and_along(best, np.subtract(b.center, a.center)[:2])) for b in others]


def name(cell):
    return FILES[cell[0]] + RANKS[cell[1]]


def way(a, b):
    """Steps from one cell to another, across and along: "4 right 2 back"."""
    across, along = np.subtract(b, a)
    return f"{abs(across)} {'left' if across < 0 else 'right'} {abs(along)} {'back' if along < 0 else 'front'}"


def ways(cells, said=()):
    """From the first of {label: cell} to the others, each with what is said of it: "from bed:d6 to lamp:h4 4 right
    2 back: 120, to rug:d3 0 right 3 back: 180". Squares are said again: what stands side by side is soon compared."""
    (start, first), *others = cells.items()
    told = [f"to {label}:{name(cell)} {way(first, cell)}" for label, cell in others]
    if said:
        told = [f"{steps}: {more}" for steps, more in zip(told, said)]
    return f"from {start}:{name(first)} {', '.join(told)}"


def bearing(right, ahead):
    return int(np.round(np.degrees(np.arctan2(right, ahead)) / TURN)) * TURN % 360


def turn(ahead, there):
    """From facing one bearing to facing another, the shorter way round: "60 left"."""
    right = (there - ahead) % 360
    return f"{right} right" if right <= 180 else f"{360 - right} left"


def floor_rows(scene, data_type, size, rng):
    """Rows of kind "floor" about the pictures that a row of scenes.jsonl has of a modality, one of them at a time."""
    sights, found = Sights(scene, data_type, size), []
    for _ in range(ROWS):
        number = int(rng.integers(sights.picture(len(sights.frames) - 1) + 1))
        shown = [o for o in sights.named if number in map(sights.picture, sights.clear[o.id])]
        if objects := [shown[i] for i in rng.permutation(len(shown))[: rng.integers(2, ASKED + 1)]]:
            where = "" if sights.alone else f" of picture ({PICTURES[number]})"
            asked = f"On the floor{where}: {', '.join(o.category for o in objects)}?"
            found.append({"question": asked, "answer": sights.lay(number, objects), "question_type": "floor"})
    return found


def reckoning_rows(rng):
    """Rows of kind "reckoning"."""
    rows = [_reckoning(kind, rng) for kind in ("way", "turn", "turn") for _ in range(ROWS // 2)]
    return [{"question": question, "answer": answer, "question_type": kind} for kind, question, answer in rows]


def _reckoning(kind, rng):
    """A question on a map that is made up, and its answer."""
    labels = [NAMES[3:][i] for i in rng.permutation(len(NAMES) - 3)[: rng.integers(3, ASKED + 2)]]
    inner = [(across, along) for across in range(1, len(FILES) - 1) for along in range(1, len(RANKS))]
    cells = {label: np.array(inner[i]) for label, i in zip(labels, rng.permutation(len(inner)))}
    laid = "On the floor " + ", ".join(f"{label}:{name(cell)}" for label, cell in cells.items()) + "."
    stand, *others = [labels[i] for i in rng.permutation(len(labels))]
    if kind == "way":
        reached = {label: cell for label, cell in cells.items() if label != stand}
        return kind, f"{laid} Distance from {stand}?", ways({stand: cells[stand]} | reached)
    face, target = others[:2]
    ahead, there = [bearing(*(cells[other] - cells[stand])) for other in (face, target)]
    question = f"{laid} Standing at the {stand} and facing the {face}, where is the {target}?"
    told = ways({label: cells[label] for label in (stand, face, target)}, (ahead, there))
    return kind, question, f"{told}, turn {turn(ahead, there)}"
