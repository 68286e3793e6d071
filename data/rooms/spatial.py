"""Spatial questions (stage 2) with exact answers: seven types, asked of pictures, views and videos.

room_facts(row, size) lists what may be asked about one row of scenes.jsonl. balance.py chooses
among the facts of a whole split so that guessing does not pay. in_words() turns a chosen fact into
a row of spatial.jsonl. A fact is a question without its words: {"data_type", "question_type",
"asked": [categories], "answer", ...}.

The phrasing follows VSI-Bench (arXiv 2412.14171). Types and fields are those of SpatialLadder-26k
(arXiv 2510.08531, section 3).
"""

from collections import Counter
from itertools import combinations, permutations, zip_longest

import numpy as np

from data.rooms.furniture import CATEGORIES
from data.rooms.questions import clearly_seen
from data.rooms.scene import (
    SPLITS,
    Object,
    camera_from_json,
    footprint,
    footprint_distance,
    overlap,
)

# Two careful people could answer the following questions differently, so they are not asked.
# Whatever a question names or counts must be clearly seen (questions.clearly_seen) in some frame. A
# named object must be the only one of its category in all frames of the question, even if only a
# few pixels of another one show. All objects of a counted category must be clearly seen.
ANGLE_MARGIN = 15.0  # degrees, at least, from the direction of an object to the edge of its sector
STAND_APART = 0.8  # metres on the floor, at least, from where one stands to what one faces or seeks
MIN_DISTANCE = 0.5  # metres; a frame has too few pixels to measure smaller distances
NEARER_BY, NEARER_TIMES = 0.25, 1.25  # the nearest object leads by 0.25 m and by a factor of 1.25
# An object's size is asked only if one frame shows its ends: at least the first share of its
# silhouette is not hidden, and at most the second lies outside the frame.
WHOLE_VISIBILITY, WHOLE_TRUNCATION = 0.6, 0.1

# The frame of each modality around whose camera the map of the floor is laid (floor.py).
ORIGIN = {"single_image": 0, "multi_view": 0, "video": 8}
AHEAD = 60.0  # one who turns at most this many degrees from that camera's direction faces ahead

TRIES = 6  # facts of a type that a room offers to balance(), at most
LISTED = 6  # categories in a question that counts several; the room may lack some of them
# Sectors in degrees, counter-clockwise from the direction in which one faces.
SECTORS = {
    "easy": {"left": (0, 180), "right": (180, 360)},
    "medium": {"left": (0, 135), "back": (135, 225), "right": (225, 360)},
    "hard": {
        "front-left": (0, 90),
        "back-left": (90, 180),
        "back-right": (180, 270),
        "front-right": (270, 360),
    },
}

# ---------------------------------------------------------------- what the frames show


class View:
    """What the frames of one modality show together.

    row: a row of scenes.jsonl. frames: those of its frames that belong to the modality. size: the
    frames' side in pixels.

    board: the camera around which the map of the floor is laid (floor.py)
    named: the objects that a question may name by their category alone
    clear, shown: {id: indices of the frames that show an object clearly, and at all}
    whole: ids of the objects whose full length some frame shows
    """

    def __init__(self, row, frames, size):
        self.objects, self.room = [Object(**o) for o in row["objects"]], np.array(row["polygon"][2])
        self.cameras = [camera_from_json(frame["camera"]) for frame in frames]
        self.board = self.cameras[ORIGIN[frames[0]["data_type"]]]
        self.clear, self.shown, self.whole = {}, {}, set()
        for number, frame in enumerate(frames):
            for key, seen in frame["visible"].items():
                i = int(key)  # the keys of a JSON object are strings
                self.shown.setdefault(i, []).append(number)
                if clearly_seen(seen, size):
                    self.clear.setdefault(i, []).append(number)
                    uncovered = seen["visibility"] >= WHOLE_VISIBILITY
                    if uncovered and seen["truncation"] <= WHOLE_TRUNCATION:
                        self.whole.add(i)
        categories = Counter(self.objects[i].category for i in self.shown)
        self.named = [o for o in self.objects if o.id in self.clear and categories[o.category] == 1]


def box_gaps(a, b):
    """Metres between the closest points of two objects' boxes, on the floor plan and in height.

    A gap is 0 where the boxes overlap. The result is exact: boxes turn only about the vertical
    axis, so the two gaps are independent. On the plan, one of the closest points of two separate
    rectangles is a corner.
    """
    corners = [footprint(o.center, o.size, o.yaw) for o in (a, b)]
    plan = 0.0
    if not overlap(*corners):
        plan = min(footprint_distance(corners[0], b).min(), footprint_distance(corners[1], a).min())
    height = abs(a.center[2] - b.center[2]) - (a.size[2] + b.size[2]) / 2
    return float(plan), max(height, 0.0)


def box_distance(a, b):
    """Metres between the closest points of two objects' boxes; 0 where they touch or overlap."""
    return float(np.hypot(*box_gaps(a, b)))


def angle(stand, face, target):
    """Degrees in [0, 360) by which one who stands at `stand` turns from `face` to `target`.

    The turn is counter-clockwise seen from above. Points are in metres; their height is ignored.
    """
    ahead, there = np.subtract(face, stand)[:2], np.subtract(target, stand)[:2]
    cross, dot = ahead[0] * there[1] - ahead[1] * there[0], ahead @ there
    return float(np.degrees(np.arctan2(cross, dot)) % 360)


def sector(a, b, c, difficulty):
    """Name of the sector in which object c lies for one who stands at object a and faces object b.

    None where that is ambiguous: something is too near, or c reaches beyond the sector.
    """
    plan = [np.array(o.center[:2]) for o in (a, b, c)]
    if min(np.linalg.norm(plan[0] - plan[1]), np.linalg.norm(plan[0] - plan[2])) < STAND_APART:
        return None
    middle = angle(*plan)
    corners = [angle(plan[0], plan[1], corner) for corner in footprint(c.center, c.size, c.yaw)]
    for name, (low, high) in SECTORS[difficulty].items():
        if low + ANGLE_MARGIN <= middle <= high - ANGLE_MARGIN:
            return name if all(low <= corner <= high for corner in corners) else None
    return None


def faces_ahead(forward, a, b):
    """Whether one who stands at object a and faces b looks within AHEAD degrees of a camera.

    forward: [2], where the camera looks on the floor plan.
    """
    facing = np.subtract(b.center, a.center)[:2]
    least = np.cos(np.radians(AHEAD)) * np.linalg.norm(facing) * np.linalg.norm(forward)
    return bool(facing @ forward >= least)


# ---------------------------------------------------------------- facts


def stratum(fact):
    """The class of a fact's answer; balance() chooses all classes about equally often.

    Of a number it is the half octave of its value, of a direction the direction itself.
    """
    if "options" not in fact:
        return int(np.floor(2 * np.log2(float(fact["answer"])) + 1e-9))
    return fact["answer"] if fact["question_type"] == "relative direction" else ""


def group(fact):
    """(question type, what else one knows of the question's form without its images)."""
    form = fact.get("difficulty", "")
    if fact["question_type"] == "object count":
        form = "one" if len(fact["asked"]) == 1 else "several"
    return fact["question_type"], form


def _draw(rng, items, most):
    """At most `most` of the items, in a random order."""
    return [items[i] for i in rng.permutation(len(items))[:most]]


def _draw_answers(rng, facts, most):
    """At most `most` facts, one of each stratum in turn, so that rare answers are not lost."""
    strata = {}
    for fact in _draw(rng, facts, len(facts)):
        strata.setdefault(stratum(fact), []).append(fact)
    piles = _draw(rng, sorted(strata.values(), key=lambda pile: str(stratum(pile[0]))), len(strata))
    return [fact for turn in zip_longest(*piles) for fact in turn if fact][:most]


def _fact(kind, asked, answer, **more):
    categories = [o if isinstance(o, str) else o.category for o in asked]
    return {"question_type": kind, "asked": categories, "answer": answer, **more}


# One function for each question type: the facts of a View, at most TRIES of each form.


def absolute_distance(view, rng):
    pairs = [(a, b, box_distance(a, b)) for a, b in combinations(view.named, 2)]
    facts = [
        _fact("absolute distance", _draw(rng, (a, b), 2), f"{d:.1f}")
        for a, b, d in pairs
        if d >= MIN_DISTANCE
    ]
    return _draw_answers(rng, facts, TRIES)


def object_size(view, rng):
    whole = [o for o in view.named if o.id in view.whole]
    facts = [_fact("object size", [o], f"{100 * max(o.size):.0f}") for o in whole]
    return _draw_answers(rng, facts, TRIES)


def relative_distance(view, rng):
    facts = []
    for target in _draw(rng, view.named, 2 * TRIES):
        others = _draw(rng, [o for o in view.named if o is not target], 4)
        if len(others) < 3:
            break
        far, near = zip(*sorted((box_distance(target, o), o.category) for o in others))
        if far[1] - far[0] >= NEARER_BY and far[1] >= NEARER_TIMES * far[0]:
            facts.append(_fact("relative distance", [target], near[0], options=list(near)))
    return facts[:TRIES]


def relative_direction(view, rng):
    facts, forward = [], view.board.rotation[2, :2]
    for difficulty, sectors in SECTORS.items():
        found = []
        for triple in _draw(rng, list(permutations(view.named, 3)), 48):  # of up to some hundreds
            if name := sector(*triple, difficulty):
                more = {"difficulty": difficulty, "options": list(sectors)}
                more["ahead"] = faces_ahead(forward, *triple[:2])
                found.append(_fact("relative direction", triple, name, **more))
        facts += _draw_answers(rng, found, TRIES)
    return facts


def object_count(view, rng):
    """Facts about one category ("how many chairs"), and about LISTED categories together.

    Some of the LISTED may be absent, so that the length of the list says nothing about the count.
    """
    counts = Counter(o.category for o in view.objects)
    hidden = {o.category for o in view.objects if o.id not in view.clear}
    present = sorted(set(counts) - hidden)
    absent = [c for c in CATEGORIES if c not in counts]
    facts = _draw_answers(rng, [_fact("object count", [c], str(counts[c])) for c in present], TRIES)
    lengths = range(1, min(LISTED, len(present)) + 1)
    several = []
    for few in [_draw(rng, present, length) for length in lengths for _ in range(2)]:
        asked = _draw(rng, few + _draw(rng, absent, LISTED - len(few)), LISTED)
        several.append(_fact("object count", asked, str(sum(counts[c] for c in few))))
    return facts + _draw_answers(rng, several, 2 * TRIES)


def framed_corners(view):
    """bool [frames, 4]: whether a frame shows each corner of the room, at any of five heights."""
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * view.room
    framed = np.zeros((len(view.cameras), 4), bool)
    for number, camera in enumerate(view.cameras):
        for z in (0.0, 0.5, 1.0, 1.5, 2.0):
            image, depth = camera.project(np.column_stack([corners, np.full(4, z)]))
            framed[number] |= (depth > 0) & (np.abs(image).max(1) < 1)
    return framed


def room_size(view, rng):
    """One fact if the frames show two opposite corners of the room: they fix a rectangle.

    Its area is that of sides in whole centimetres, which rationales multiply.
    """
    framed = framed_corners(view).any(0)
    if not ((framed[0] and framed[2]) or (framed[1] and framed[3])):
        return []
    return [_fact("room size", [], f"{np.prod(np.round(view.room, 2)):.1f}")]


def appearance_order(view, rng):
    """Orders of three or four objects, each clearly seen before any pixel of the next shows."""
    facts = []
    chronological = sorted(view.named, key=lambda o: view.clear[o.id][0])
    for length in (4, 3):
        chains = [
            chain
            for chain in combinations(chronological, length)
            if all(view.clear[a.id][0] < view.shown[b.id][0] for a, b in zip(chain, chain[1:]))
        ]
        for chain in _draw(rng, chains, TRIES - len(facts)):
            names = [o.category for o in chain]
            wrong = _draw(rng, [list(p) for p in permutations(names) if list(p) != names], 3)
            orders = [", ".join(order) for order in (names, *wrong)]
            facts.append(
                _fact("appearance order", _draw(rng, names, length), orders[0], options=orders)
            )
    return facts


COMMON = (absolute_distance, object_size, relative_distance, relative_direction)
ASKED_OF = {  # {data_type: what makes its facts}
    "single_image": COMMON,
    "multi_view": (*COMMON, object_count),
    "video": (*COMMON, object_count, room_size, appearance_order),
}


def room_facts(row, size):
    """All that may be asked about one room; the same row gives the same facts.

    row: a row of scenes.jsonl. size: its frames' side in pixels. Returns {"index", "scene",
    "level", "image": {data_type: names of its frames}, "facts": [...]}.
    """
    room = {"index": row["index"], "scene": row["id"], "level": row["level"]}
    room |= {"image": {}, "facts": []}
    for number, (data_type, makers) in enumerate(ASKED_OF.items()):
        frames = [frame for frame in row["frames"] if frame["data_type"] == data_type]
        if frames:
            view = View(row, frames, size)
            stream = [row["seed"], SPLITS.index(row["split"]), row["index"], 4, number]
            rng = np.random.default_rng(stream)
            room["image"][data_type] = [frame["image"] for frame in frames]
            for make in makers:
                room["facts"] += [{"data_type": data_type, **fact} for fact in make(view, rng)]
    return room


# ---------------------------------------------------------------- words

UNITS = {"absolute distance": "m", "object size": "cm", "room size": "m^2", "object count": ""}
PHRASES = {
    "absolute distance": (
        "Measuring from the closest point of each object, what is the distance between the {0} and "
        "the {1} in meters?",
        "How many meters are between the closest points of the {0} and the {1}?",
        "What is the distance between the {0} and the {1} (in meters)? Measure from their closest "
        "points.",
    ),
    "object size": (
        "What is the length of the longest dimension (length, width, or height) of the {0}, "
        "measured in centimeters?",
        "How long is the longest side of the {0} in centimeters?",
        "In centimeters, what does the longest dimension of the {0} measure?",
    ),
    "room size": (
        "What is the size of this room (in square meters)?",
        "How many square meters does the floor of this room have?",
        "What is the floor area of the room in the video, in square meters?",
    ),
    "one": (
        "How many {0}(s) are in this room?",
        "What is the number of {0}(s) in the room?",
        "Count each {0} in this room. How many are there?",
    ),
    "several": (
        "How many of these are in this room, all kinds together: {all}?",
        "Count all of these in this room: {all}. How many objects are there in total?",
    ),
    "relative distance": (
        "Measuring from the closest point of each object, which of these objects is the closest to "
        "the {0}?",
        "Which of these objects is nearest to the {0}, measured between closest points?",
        "Of these objects, which one has the smallest distance to the {0}?",
    ),
    "appearance order": (
        "What will be the first-time appearance order of these categories in the video: {all}?",
        "In which order do these first appear in the video: {all}?",
        "Watching the video, in what order does one first see these: {all}?",
    ),
    "easy": (
        "If I am standing by the {0} and facing the {1}, is the {2} to the left or the right of "
        "the {1}?",
        "Standing at the {0} and facing the {1}, on which side do I have the {2}: left or right?",
        "I stand by the {0} and look at the {1}. Is the {2} to my left or to my right?",
    ),
    "medium": (
        "If I am standing by the {0} and facing the {1}, is the {2} to my left, right, or back? An "
        "object is to my back if I would have to turn at least 135 degrees in order to face it.",
        "Standing at the {0} and facing the {1}, do I have the {2} to my left, right, or back (a "
        "turn of 135 degrees or more)?",
    ),
    "hard": (
        "If I am standing by the {0} and facing the {1}, is the {2} to my front-left, front-right, "
        "back-left, or back-right?",
        "Standing at the {0} and facing the {1}, in which quadrant do I have the {2}: front-left, "
        "front-right, back-left or back-right?",
        "I stand by the {0} and look at the {1}. Is the {2} front-left, front-right, back-left or "
        "back-right of me?",
    ),
}


def option_texts(row):
    """The options of a row without their letters."""
    return [option.split(". ", 1)[1] for option in row["options"]]


def right_option(row):
    """Index of the right option of a row."""
    return "ABCD".index(row["answer"])


def in_words(number, fact, room, turns, rng):
    """The row of a fact: {"question_id": number, "question", "options", "answer", ...}.

    room: the room_facts that hold the fact. turns: a dict, empty at first and shared by all rows of
    a data_type; it makes the right answer take each letter in turn. A number has its "unit". Beyond
    SpatialLadder-26k's fields a row has "level", "scene", "asked" and, for directions,
    "difficulty".
    """
    kind, form = group(fact)
    phrases = PHRASES[form or kind]
    phrase, asked = phrases[rng.integers(len(phrases))], fact["asked"]
    options, answer = fact.get("options"), fact["answer"]
    if options:
        turn = (kind, form, len(options), stratum(fact))
        # The turns of different strata start at different letters, which matters for small sets.
        place = turns.setdefault(turn, len(turns)) % len(options)
        turns[turn] += 1
        texts = _draw(rng, [o for o in options if o != answer], len(options))
        texts.insert(place, answer)
        options = [f"{letter}. {text}" for letter, text in zip("ABCD", texts)]
        answer = "ABCD"[place]
    row = {
        "question_id": number,
        "question": phrase.format(*asked, all=", ".join(asked)),
        "options": options,
        **({} if options else {"unit": UNITS[kind]}),
        "answer": answer,
        "image": room["image"][fact["data_type"]],
        "question_type": kind,
        "data_type": fact["data_type"],
        "level": room["level"],
        "scene": room["scene"],
        "asked": asked,
    }
    return row | ({"difficulty": fact["difficulty"]} if "difficulty" in fact else {})
