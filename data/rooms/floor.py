"""The floor as a map: squares in which objects stand, seen from above, and ways between them.

The map is a grid of squares, each CELL metres wide. Its columns are A to L from left to right; its
rows are M to V from near to far. All pictures of one question share one map, laid around a camera:
that of the only picture, of the first view, or of the middle frame of a walk. This camera stands in
the middle of the line between rows N and O and looks towards row V. An object two metres ahead of
it and one metre to its right stands in square HQ.

VSI-Bench (arXiv 2412.14171) found that models compare distances better if they draw such a map
first. Rationales (rationales.py) therefore lay the map out before they compare. Stage 0's dense
loss trains the vision encoder to predict an image token's square (prepare.py writes the index
images), and two files of rows ask for the map in words. The rows of floor.jsonl are answered from
pictures:

    floor  On the floor: bed, lamp?    bed:DS, lamp:HQ

The rows of map_arithmetic.jsonl give a map, or a list, that is drawn at random. They teach only to
calculate with it, which a language model of any size can learn:

    way    On the floor bed:DS, lamp:HQ, rug:DP. Distance from bed?
           from bed:DS to lamp:HQ 4 right 2 back, to rug:DP 0 right 3 back
    turn   On the floor bed:DS, lamp:HQ, rug:DP. Standing at the bed and facing the lamp, where is
           the rug?
           from bed:DS to lamp:HQ 4 right 2 back: 120, to rug:DP 0 right 3 back: 180, turn 60 right
    tour   First [{"label":"bed","picture":"l"},{"label":"lamp","picture":"i"}]. Picture by picture?
           (i) lamp (j) (k) (l) bed (m) (n) (o) (p)

A bearing is in degrees, clockwise from where the camera looks, rounded to a multiple of TURN.
"""

import numpy as np

from data.rooms.questions import NAMES
from data.rooms.seeing import PICTURES, as_json, depth_letter, square
from data.rooms.spatial import View

CELL = 0.8  # metres; nine of ten directions stay right on this grid when depths are 10 % wrong
ACROSS, ALONG = "ABCDEFGHIJKL", "MNOPQRSTUV"  # columns from the left, rows from near to far
BEHIND = 2  # rows behind the camera, for objects that other pictures show
TURN = 15  # degrees; two bearings rounded to it move no turn by more than spatial.ANGLE_MARGIN
ASKED = 4  # objects that a row asks for, at most
ROWS = 4  # floor rows for each modality of a room; a room has 4 turn, 2 way and 2 tour rows


def across_and_along(camera, metres):
    """Floor vectors [..., 2] in metres, as parts to the right of and ahead of a camera [..., 2]."""
    x, y = camera.rotation[0, :2]  # the camera is upright: this vector points to its right
    right = metres[..., 0] * x + metres[..., 1] * y
    return np.stack([right, metres[..., 1] * x - metres[..., 0] * y], -1)


def floor_squares(camera, points):
    """(column, row) on a camera's map of floor points [..., 2] in metres: int [..., 2].

    A point beyond the map gets the nearest square at its edge.
    """
    metres = across_and_along(camera, points - camera.position[:2])
    squares = np.floor(metres / CELL) + (len(ACROSS) // 2, BEHIND)
    return np.clip(squares, 0, (len(ACROSS) - 1, len(ALONG) - 1)).astype(int)


class Sights(View):
    """Objects as the pictures of one modality show them, and their map.

    Two frames of a walk count as one picture, because a video's image token covers two frames.
    """

    def __init__(self, scene, data_type, size):
        self.frames = [frame for frame in scene["frames"] if frame["data_type"] == data_type]
        super().__init__(scene, self.frames, size)
        self.size, self.alone = size, len(self.frames) == 1
        self.pace = 2 if data_type == "video" else 1  # frames in a picture
        self.by_name = {o.category: o for o in self.named}

    def picture(self, frame):
        """Index of the picture that a frame belongs to."""
        return frame // self.pace

    def see(self, objects):
        """Squares and depths of objects in a single picture, in the words of stage 0."""
        items, (frame,) = [], self.frames
        for o in objects:
            seen = frame["visible"][str(o.id)]
            x1, y1, x2, y2 = seen["bbox"]
            where = square(((x1 + x2) / 2, (y1 + y2) / 2), self.size)
            depth = depth_letter(seen["depth"], frame["farthest"])
            items.append({"label": o.category, "square": where, "depth": depth})
        return as_json(items)

    def first(self, o):
        """Index of the first picture that shows an object clearly."""
        return self.picture(self.clear[o.id][0])

    def cell(self, o):
        """(column, row) of an object's centre on the map."""
        return tuple(floor_squares(self.board, np.array(o.center[:2])).tolist())

    def floor(self, objects):
        """Where objects stand, in the form that all rows use: "bed:DS, lamp:HQ"."""
        return ", ".join(f"{o.category}:{name(self.cell(o))}" for o in objects)

    def ways(self, objects, said=()):
        """ways() from the first of the objects to each of the others."""
        return ways({o.category: self.cell(o) for o in objects}, said)

    def bearings(self, objects):
        """Bearings in degrees from the first of the objects to each of the others."""
        a, *others = [np.array(o.center[:2]) for o in objects]
        return [bearing(*across_and_along(self.board, b - a)) for b in others]


def name(cell):
    """The name of a (column, row): "DS"."""
    return ACROSS[cell[0]] + ALONG[cell[1]]


def way(a, b):
    """Steps from one (column, row) to another: "4 right 2 back"."""
    across, along = np.subtract(b, a)
    side, forth = "left" if across < 0 else "right", "back" if along < 0 else "front"
    return f"{abs(across)} {side} {abs(along)} {forth}"


def ways(cells, said=()):
    """The ways from the first of {label: (column, row)} to the others.

    said: what follows each of them; with the bearings 120 and 180 the result is
    "from bed:DS to lamp:HQ 4 right 2 back: 120, to rug:DP 0 right 3 back: 180". The squares are
    repeated, because a model compares two squares more easily if they stand side by side.
    """
    (start, first), *others = cells.items()
    told = [f"to {label}:{name(cell)} {way(first, cell)}" for label, cell in others]
    if said:
        told = [f"{steps}: {more}" for steps, more in zip(told, said)]
    return f"from {start}:{name(first)} {', '.join(told)}"


def first_seen(first):
    """{label: index of the first picture that shows it} as JSON, in the words of stage 0."""
    return as_json([{"label": label, "picture": PICTURES[at]} for label, at in first.items()])


def tour(first):
    """What is seen for the first time, picture by picture: "(i) lamp (j) (k) (l) bed".

    A small model cannot sort the labels in one step. Here each letter asks only for its own label.
    """
    labels = [
        [label for label, number in first.items() if number == at] for at in range(len(PICTURES))
    ]
    return " ".join(" ".join([f"({letter})", *own]) for letter, own in zip(PICTURES, labels))


def bearing(right, ahead):
    """Degrees of a vector, clockwise from straight ahead, rounded to a multiple of TURN."""
    return int(np.round(np.degrees(np.arctan2(right, ahead)) / TURN)) * TURN % 360


def turn(ahead, there):
    """The shorter turn from one bearing to another: "60 left"."""
    right = (there - ahead) % 360
    return f"{right} right" if right <= 180 else f"{360 - right} left"


# ---------------------------------------------------------------- rows


def floor_rows(scene, data_type, size, rng):
    """Rows of floor.jsonl about one modality of a room.

    scene: a row of scenes.jsonl. size: the frames' side in pixels.
    """
    sights, found = Sights(scene, data_type, size), []
    for _ in range(ROWS if sights.named else 0):
        order = rng.permutation(len(sights.named))[: rng.integers(2, ASKED + 1)]
        objects = [sights.named[i] for i in order]
        asked = f"On the floor: {', '.join(o.category for o in objects)}?"
        found.append({"question": asked, "answer": sights.floor(objects), "question_type": "floor"})
    return found


def map_arithmetic_rows(rng):
    """Rows of map_arithmetic.jsonl."""
    kinds = ("way", "turn", "turn", "tour")
    rows = [_map_arithmetic(kind, rng) for kind in kinds for _ in range(ROWS // 2)]
    return [
        {"question": question, "answer": answer, "question_type": kind}
        for kind, question, answer in rows
    ]


def _map_arithmetic(kind, rng):
    """(kind, question, answer) about a map, or a list, that is drawn at random."""
    order = rng.permutation(len(NAMES) - 3)[: rng.integers(3, ASKED + 2)]
    labels = [NAMES[3:][i] for i in order]
    if kind == "tour":
        first = dict(zip(labels, rng.permutation(len(PICTURES)).tolist()))
        return kind, f"First {first_seen(first)}. Picture by picture?", tour(first)
    inner = [(a, b) for a in range(1, len(ACROSS) - 1) for b in range(1, len(ALONG))]
    cells = {label: np.array(inner[i]) for label, i in zip(labels, rng.permutation(len(inner)))}
    laid = "On the floor " + ", ".join(f"{label}:{name(cell)}" for label, cell in cells.items())
    stand, *others = [labels[i] for i in rng.permutation(len(labels))]
    if kind == "way":
        reached = {label: cell for label, cell in cells.items() if label != stand}
        answer = ways({stand: cells[stand]} | reached)
        return kind, f"{laid}. Distance from {stand}?", answer
    face, target = others[:2]
    ahead, there = (bearing(*(cells[other] - cells[stand])) for other in (face, target))
    asked = f"Standing at the {stand} and facing the {face}, where is the {target}?"
    told = ways({label: cells[label] for label in (stand, face, target)}, (ahead, there))
    return kind, f"{laid}. {asked}", f"{told}, turn {turn(ahead, there)}"
