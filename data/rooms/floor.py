"""The floor as a map: where objects stand seen from above, in squares of CELL metres, and the way from one to another.

All pictures share one board: that of the only picture, of the first view, or of the frame in the middle of a walk. Its
camera stands in the middle of the line between ranks N and O and looks up, so an object two metres ahead of it and one
to its right is at HQ: files A to L from the left, ranks M to V on from behind the camera. VSI-Bench (arXiv 2412.14171)
found that models which draw such a map first compare distances better; thoughts (traces.py) lay it out before they
compare. The base's eye is asked for it at every image token (prepare.py writes the index images), and floor.jsonl asks
for it in words, in four types of rows, the first of kind "floor", the others of kind "reckoning":

    floor  On the floor: bed, lamp?    bed:DS, lamp:HQ
    way    On the floor bed:DS, lamp:HQ, rug:DP. Distance from bed?
           from bed:DS to lamp:HQ 4 right 2 back, to rug:DP 0 right 3 back
    turn   On the floor bed:DS, lamp:HQ, rug:DP. Standing at the bed and facing the lamp, where is the rug?
           from bed:DS to lamp:HQ 4 right 2 back: 120, to rug:DP 0 right 3 back: 180, turn 60 right
    tour   First [{"label":"bed","picture":"l"},{"label":"lamp","picture":"i"}]. Picture by picture?
           (i) lamp (j) (k) (l) bed (m) (n) (o) (p)

The first is found in the pictures; the others are made up and show only how to reckon with a map, or a list, as a
language model of any size can.
A bearing is in degrees clockwise from where the camera looks, to the nearest TURN.
"""

import numpy as np

from data.rooms.questions import NAMES
from data.rooms.seeing import PICTURES, as_json, depth_letter, square
from data.rooms.spatial import View

CELL = 0.8  # metres: with depths 10 % wrong, nine directions in ten still come out right
ACROSS, ALONG = "ABCDEFGHIJKL", "MNOPQRSTUV"  # files from the left, ranks on
BEHIND = 2  # ranks behind the camera: what another picture shows may lie there
ORIGIN = {"single_image": 0, "multi_view": 0, "video": 8}  # the frame whose camera the board is laid around
TURN = 15  # degrees; two bearings rounded to it keep every turn within spatial.ANGLE_MARGIN
ASKED = 4  # objects a row asks for, at most
ROWS = 4  # floor rows about the pictures, as many turn rows, and half as many way and tour rows


def across_and_along(camera, metres):
    """Of vectors in plan [..., 2], their parts to the right of and ahead of a camera, which is upright."""
    x, y = camera.rotation[0, :2]  # of its right
    return np.stack([metres[..., 0] * x + metres[..., 1] * y, metres[..., 1] * x - metres[..., 0] * y], -1)


def floor_squares(camera, points):
    """(file, rank) of points in plan [..., 2] on a camera's board, at the edge where they lie beyond: int [..., 2]."""
    squares = np.floor(across_and_along(camera, points - camera.position[:2]) / CELL) + (len(ACROSS) // 2, BEHIND)
    return np.clip(squares, 0, (len(ACROSS) - 1, len(ALONG) - 1)).astype(int)


class Sights(View):
    """Objects as the pictures of one modality show them. Two frames of a walk are one picture, as in video tokens."""

    def __init__(self, scene, data_type, size):
        self.frames = [frame for frame in scene["frames"] if frame["data_type"] == data_type]
        super().__init__(scene, self.frames, size)
        self.size, self.alone, self.pace = size, len(self.frames) == 1, 2 if data_type == "video" else 1
        self.by_name = {o.category: o for o in self.named}
        self.board = self.cameras[ORIGIN[data_type]]

    def picture(self, frame):
        """Index of the picture that a frame is in."""
        return frame // self.pace

    def see(self, objects):
        """Of one picture alone, what the base tells of them."""
        items, (frame,) = [], self.frames
        for o in objects:
            seen = frame["visible"][str(o.id)]
            x1, y1, x2, y2 = seen["bbox"]
            items.append({"label": o.category, "square": square(((x1 + x2) / 2, (y1 + y2) / 2), self.size),
                          "depth": depth_letter(seen["depth"], frame["farthest"])})  # fmt: skip
        return as_json(items)

    def first(self, o):
        return self.picture(self.clear[o.id][0])

    def cell(self, o):
        """(file, rank) of an object's centre."""
        return tuple(floor_squares(self.board, np.array(o.center[:2])).tolist())

    def floor(self, objects):
        """Where they stand, as all rows write it: "bed:DS, lamp:HQ"."""
        return ", ".join(f"{o.category}:{name(self.cell(o))}" for o in objects)

    def ways(self, objects, said=()):
        """From the first of the objects to each of the others, with what is said of it."""
        return ways({o.category: self.cell(o) for o in objects}, said)

    def bearings(self, objects):
        """From the first of the objects to each of the others, clockwise from where the board's camera looks."""
        a, *others = [np.array(o.center[:2]) for o in objects]
        return [bearing(*across_and_along(self.board, b - a)) for b in others]


def name(cell):
    return ACROSS[cell[0]] + ALONG[cell[1]]


def way(a, b):
    """Steps from one cell to another, across and along: "4 right 2 back"."""
    across, along = np.subtract(b, a)
    return f"{abs(across)} {'left' if across < 0 else 'right'} {abs(along)} {'back' if along < 0 else 'front'}"


def ways(cells, said=()):
    """From the first of {label: cell} to the others, each with what is said of it: "from bed:DS to lamp:HQ 4 right
    2 back: 120, to rug:DP 0 right 3 back: 180". Squares are said again: what stands side by side is soon compared."""
    (start, first), *others = cells.items()
    told = [f"to {label}:{name(cell)} {way(first, cell)}" for label, cell in others]
    if said:
        told = [f"{steps}: {more}" for steps, more in zip(told, said)]
    return f"from {start}:{name(first)} {', '.join(told)}"


def first_seen(first):
    """{label: index of the first picture that shows it} in the base's words."""
    return as_json([{"label": label, "picture": PICTURES[at]} for label, at in first.items()])


def tour(first):
    """Picture by picture what is seen for the first time, "(i) lamp (j) (k) (l) bed": to sort is too much for one step,
    but each letter asks for no more than the label that has it."""
    labels = [[label for label, number in first.items() if number == at] for at in range(len(PICTURES))]
    return " ".join(" ".join([f"({letter})", *own]) for letter, own in zip(PICTURES, labels))


def bearing(right, ahead):
    return int(np.round(np.degrees(np.arctan2(right, ahead)) / TURN)) * TURN % 360


def turn(ahead, there):
    """From facing one bearing to facing another, the shorter way round: "60 left"."""
    right = (there - ahead) % 360
    return f"{right} right" if right <= 180 else f"{360 - right} left"


def floor_rows(scene, data_type, size, rng):
    """Rows of kind "floor" about the pictures that a row of scenes.jsonl has of a modality."""
    sights, found = Sights(scene, data_type, size), []
    for _ in range(ROWS if sights.named else 0):
        objects = [sights.named[i] for i in rng.permutation(len(sights.named))[: rng.integers(2, ASKED + 1)]]
        asked = f"On the floor: {', '.join(o.category for o in objects)}?"
        found.append({"question": asked, "answer": sights.floor(objects), "question_type": "floor"})
    return found


def reckoning_rows(rng):
    """Rows of kind "reckoning"."""
    rows = [_reckoning(kind, rng) for kind in ("way", "turn", "turn", "tour") for _ in range(ROWS // 2)]
    return [{"question": question, "answer": answer, "question_type": kind} for kind, question, answer in rows]


def _reckoning(kind, rng):
    """A question on a map that is made up, or a list, and its answer."""
    labels = [NAMES[3:][i] for i in rng.permutation(len(NAMES) - 3)[: rng.integers(3, ASKED + 2)]]
    if kind == "tour":
        first = dict(zip(labels, rng.permutation(len(PICTURES)).tolist()))
        return kind, f"First {first_seen(first)}. Picture by picture?", tour(first)
    inner = [(across, along) for across in range(1, len(ACROSS) - 1) for along in range(1, len(ALONG))]
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
