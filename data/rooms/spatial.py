"""Spatial questions (stage 2) from a room's stored truth: seven types, three modalities, exact answers.

room_facts(row, size) lists what may be asked about one row of scenes.jsonl, balance.py chooses among the facts of a
whole split so that guessing does not pay, and in_words(...) makes a row of spatial.jsonl from a chosen fact. A fact is
a question without its words: {"data_type", "question_type", "asked": [categories], "answer", ...}. What two careful
people could answer differently is not asked: the margins are the first constants below.

Phrasing after VSI-Bench (arXiv 2412.14171), types and fields after SpatialLadder-26k (arXiv 2510.08531, section 3).
"""

from collections import Counter
from itertools import combinations, permutations, zip_longest

import numpy as np

from data.rooms.furniture import CATEGORIES
from data.rooms.questions import clearly_seen
from data.rooms.scene import SPLITS, Object, camera_from_json, footprint, footprint_distance, overlap

# What is not asked, because two careful people could answer it differently:
ANGLE_MARGIN = 15.0  # degrees between the direction to an object's centre and the edge of its sector
STAND_APART = 0.8  # metres in plan from where one stands to what one faces or is asked about: nearer, it surrounds one
MIN_DISTANCE = 0.5  # metres; what nearly touches can't be measured at the resolution of a frame
NEARER_BY, NEARER_TIMES = 0.25, 1.25  # the nearest object is so many metres and times nearer than the next
WHOLE_VISIBILITY, WHOLE_TRUNCATION = 0.6, 0.1  # in some frame, of an object whose size is asked: its ends are in sight
# Whatever is named or counted is clearly seen (questions.clearly_seen) in some frame. What is named is the only one of
# its category in all frames of the question, slivers included; of what is counted, the room holds none that is not
# clearly seen.

AHEAD = 60.0  # degrees between where the first camera looks and where one faces, up to which one faces ahead

TRIES = 6  # facts of a kind that a room offers for the balance to choose from
LISTED = 6  # categories in a question that counts several, whether the room has them or not
# Sectors in degrees, counter-clockwise from where one faces.
SECTORS = {
    "easy": {"left": (0, 180), "right": (180, 360)},
    "medium": {"left": (0, 135), "back": (135, 225), "right": (225, 360)},
    "hard": {"front-left": (0, 90), "back-left": (90, 180), "back-right": (180, 270), "front-right": (270, 360)},
}

# ---------------------------------------------------------------- what the frames show


class View:
    """What the frames of one modality show together.

    named: objects one may speak of by category alone; clear[id], shown[id]: indices of the frames in which an object
    is clearly seen, and in which any pixel of it is; whole: ids of objects whose full length is in sight.
    """

    def __init__(self, row, frames, size):
        self.objects, self.room = [Object(**o) for o in row["objects"]], np.array(row["polygon"][2])
        self.cameras = [camera_from_json(frame["camera"]) for frame in frames]
        self.clear, self.shown, self.whole = {}, {}, set()
        for number, frame in enumerate(frames):
            for key, seen in frame["visible"].items():
                i = int(key)  # JSON has only strings as keys
                self.shown.setdefault(i, []).append(number)
                if clearly_seen(seen, size):
                    self.clear.setdefault(i, []).append(number)
                    if seen["visibility"] >= WHOLE_VISIBILITY and seen["truncation"] <= WHOLE_TRUNCATION:
                        self.whole.add(i)
        categories = Counter(self.objects[i].category for i in self.shown)
        self.named = [o for o in self.objects if o.id in self.clear and categories[o.category] == 1]


def box_gaps(a, b):
    """Metres in plan and in height between the closest points of two objects' oriented boxes; 0 where they overlap.

    Exact: boxes turn about the vertical alone, so the two gaps are independent. In plan, the closest points of two
    apart rectangles include a corner of one.
    """
    corners = [footprint(o.center, o.size, o.yaw) for o in (a, b)]
    plan = 0.0
    if not overlap(*corners):
        plan = min(footprint_distance(corners[0], b).min(), footprint_distance(corners[1], a).min())
    height = abs(a.center[2] - b.center[2]) - (a.size[2] + b.size[2]) / 2
    return float(plan), max(height, 0.0)


def box_distance(a, b):
    """Metres between the closest points of two objects' oriented boxes; 0 where they touch or overlap."""
    return float(np.hypot(*box_gaps(a, b)))


def angle(stand, face, target):
    """Degrees in [0, 360), counter-clockwise seen from above, from facing `face` to facing `target` ([2] metres)."""
    ahead, there = np.subtract(face, stand)[:2], np.subtract(target, stand)[:2]
    cross, dot = ahead[0] * there[1] - ahead[1] * there[0], ahead @ there
    return float(np.degrees(np.arctan2(cross, dot)) % 360)


def sector(a, b, c, difficulty):
    """Name of the sector that holds all of object c for one who stands at a and faces b; None if that is ambiguous."""
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
    """Whether one who stands at a and faces b looks within AHEAD degrees of where a camera does (forward [2])."""
    facing = np.subtract(b.center, a.center)[:2]
    return bool(facing @ forward >= np.cos(np.radians(AHEAD)) * np.linalg.norm(facing) * np.linalg.norm(forward))


# ---------------------------------------------------------------- facts: one function for each type


def stratum(fact):
    """What balance() deals about equally often: a number's place on a log scale (half octaves), or the direction."""
    if "options" not in fact:
        return int(np.floor(2 * np.log2(float(fact["answer"])) + 1e-9))
    return fact["answer"] if fact["question_type"] == "relative direction" else ""


def group(fact):
    """Type, and what else of the question's form one can see without its images."""
    form = fact.get("difficulty", "")
    if fact["question_type"] == "object count":
        form = "one" if len(fact["asked"]) == 1 else "several"
    return fact["question_type"], form


def _draw(rng, items, most):
    return [items[i] for i in rng.permutation(len(items))[:most]]


def _draw_answers(rng, facts, most):
    """Up to `most` facts, each stratum of answers in its turn: rare answers are what is scarce."""
    strata = {}
    for fact in _draw(rng, facts, len(facts)):
        strata.setdefault(stratum(fact), []).append(fact)
    piles = _draw(rng, sorted(strata.values(), key=lambda pile: str(stratum(pile[0]))), len(strata))
    return [fact for turn in zip_longest(*piles) for fact in turn if fact][:most]


def _fact(kind, asked, answer, **more):
    return {"question_type": kind, "asked": [o if isinstance(o, str) else o.category for o in asked],
            "answer": answer, **more}  # fmt: skip


def absolute_distance(view, rng):
    pairs = [(a, b, box_distance(a, b)) for a, b in combinations(view.named, 2)]
    facts = [_fact("absolute distance", _draw(rng, (a, b), 2), f"{d:.1f}") for a, b, d in pairs if d >= MIN_DISTANCE]
    return _draw_answers(rng, facts, TRIES)


def object_size(view, rng):
    whole = [o for o in view.named if o.id in view.whole]
    return _draw_answers(rng, [_fact("object size", [o], f"{100 * max(o.size):.0f}") for o in whole], TRIES)


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
    facts, forward = [], view.cameras[0].rotation[2, :2]
    for difficulty, sectors in SECTORS.items():
        found = [
            _fact("relative direction", triple, name, difficulty=difficulty, options=list(sectors),
                  ahead=faces_ahead(forward, *triple[:2]))
            for triple in _draw(rng, list(permutations(view.named, 3)), 48)  # of up to some hundreds
            if (name := sector(*triple, difficulty))
        ]  # fmt: skip
        facts += _draw_answers(rng, found, TRIES)
    return facts


def object_count(view, rng):
    """One category ("how many chairs"), and LISTED of them together, some of which may be absent: a list's length
    then says nothing about the count."""
    counts = Counter(o.category for o in view.objects)
    hidden = {o.category for o in view.objects if o.id not in view.clear}  # a sliver, or not shown at all
    present = sorted(set(counts) - hidden)
    absent = [c for c in CATEGORIES if c not in counts]
    facts = _draw_answers(rng, [_fact("object count", [c], str(counts[c])) for c in present], TRIES)
    lists = [_draw(rng, present, size) for size in range(1, min(LISTED, len(present)) + 1) for _ in range(2)]
    several = [_fact("object count", _draw(rng, few + _draw(rng, absent, LISTED - len(few)), LISTED),
                     str(sum(counts[c] for c in few))) for few in lists]  # fmt: skip
    return facts + _draw_answers(rng, several, 2 * TRIES)


def framed_corners(view):
    """[frames, 4] whether a frame shows each corner of the room, at any height below the ceiling."""
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * view.room
    framed = np.zeros((len(view.cameras), 4), bool)
    for number, camera in enumerate(view.cameras):
        for z in (0.0, 0.5, 1.0, 1.5, 2.0):
            image, depth = camera.project(np.column_stack([corners, np.full(4, z)]))
            framed[number] |= (depth > 0) & (np.abs(image).max(1) < 1)
    return framed


def room_size(view, rng):
    """Asked where two opposite corners of the room have been in frame: they fix a rectangle."""
    framed = framed_corners(view).any(0)
    if not ((framed[0] and framed[2]) or (framed[1] and framed[3])):
        return []
    return [_fact("room size", [], f"{np.prod(view.room):.1f}")]


def appearance_order(view, rng):
    """Each is clearly seen in a frame before the next shows even a sliver."""
    facts = []
    chronological = sorted(view.named, key=lambda o: view.clear[o.id][0])
    for length in (4, 3):
        chains = [
            chain for chain in combinations(chronological, length)
            if all(view.clear[a.id][0] < view.shown[b.id][0] for a, b in zip(chain, chain[1:]))
        ]  # fmt: skip
        for chain in _draw(rng, chains, TRIES - len(facts)):
            names = [o.category for o in chain]
            wrong = _draw(rng, [list(p) for p in permutations(names) if list(p) != names], 3)
            orders = [", ".join(order) for order in (names, *wrong)]
            facts.append(_fact("appearance order", _draw(rng, names, length), orders[0], options=orders))
    return facts


ASKED_OF = {
    "single_image": (absolute_distance, object_size, relative_distance, relative_direction),
    "multi_view": (absolute_distance, object_size, relative_distance, relative_direction, object_count),
    "video": (absolute_distance, object_size, relative_distance, relative_direction, object_count, room_size,
              appearance_order),
}  # fmt: skip


def room_facts(row, size):
    """All that may be asked about one room.

    `row` is a row of scenes.jsonl, `size` its frames' side in pixels. Returns {"index", "scene", "level", "image":
    {data_type: names of the frames}, "facts": [...]}; the same row gives the same facts.
    """
    room = {"index": row["index"], "scene": row["id"], "level": row["level"], "image": {}, "facts": []}
    for number, (data_type, makers) in enumerate(ASKED_OF.items()):
        frames = [frame for frame in row["frames"] if frame["data_type"] == data_type]
        if frames:
            view = View(row, frames, size)
            rng = np.random.default_rng([row["seed"], SPLITS.index(row["split"]), row["index"], 4, number])
            room["image"][data_type] = [frame["image"] for frame in frames]
            room["facts"] += [{"data_type": data_type, **f} for maker in makers for f in maker(view, rng)]
    return room


# ---------------------------------------------------------------- words

PHRASES = {
    "absolute distance": (
        "Measuring from the closest point of each object, what is the distance between the {0} and the {1} in meters?",
        "How many meters are between the closest points of the {0} and the {1}?",
        "What is the distance between the {0} and the {1} (in meters)? Measure from their closest points.",
    ),
    "object size": (
        "What is the length of the longest dimension (length, width, or height) of the {0}, measured in centimeters?",
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
        "Measuring from the closest point of each object, which of these objects is the closest to the {0}?",
        "Which of these objects is nearest to the {0}, measured between closest points?",
        "Of these objects, which one has the smallest distance to the {0}?",
    ),
    "appearance order": (
        "What will be the first-time appearance order of these categories in the video: {all}?",
        "In which order do these first appear in the video: {all}?",
        "Watching the video, in what order does one first see these: {all}?",
    ),
    "easy": (
        "If I am standing by the {0} and facing the {1}, is the {2} to the left or the right of the {1}?",
        "Standing at the {0} and facing the {1}, on which side do I have the {2}: left or right?",
        "I stand by the {0} and look at the {1}. Is the {2} to my left or to my right?",
    ),
    "medium": (
        "If I am standing by the {0} and facing the {1}, is the {2} to my left, right, or back? An object is to my "
        "back if I would have to turn at least 135 degrees in order to face it.",
        "Standing at the {0} and facing the {1}, do I have the {2} to my left, right, or back (a turn of 135 degrees "
        "or more)?",
    ),
    "hard": (
        "If I am standing by the {0} and facing the {1}, is the {2} to my front-left, front-right, back-left, or "
        "back-right?",
        "Standing at the {0} and facing the {1}, in which quadrant do I have the {2}: front-left, front-right, "
        "back-left or back-right?",
        "I stand by the {0} and look at the {1}. Is the {2} front-left, front-right, back-left or back-right of me?",
    ),
}


def in_words(number, fact, room, turns, rng):
    """The row of a fact: {"question_id": number, "question", "options", "answer", ...}.

    `room` is the room_facts that holds it. The right answer takes each letter in turn: `turns` remembers whose turn it
    is among the rows of a data_type. Beyond SpatialLadder-26k's fields a row has `level`, `scene`, `asked` and, for
    directions, `difficulty`.
    """
    kind, form = group(fact)
    phrases = PHRASES[form or kind]
    phrase, asked = phrases[rng.integers(len(phrases))], fact["asked"]
    options, answer = fact.get("options"), fact["answer"]
    if options:
        turn = (kind, form, len(options), stratum(fact))
        place = turns.setdefault(turn, len(turns)) % len(options)  # turns start staggered, for small sets
        turns[turn] += 1
        texts = _draw(rng, [o for o in options if o != answer], len(options))
        texts.insert(place, answer)
        options = [f"{letter}. {text}" for letter, text in zip("ABCD", texts)]
        answer = "ABCD"[place]
    row = {
        "question_id": number,
        "question": phrase.format(*asked, all=", ".join(asked)),
        "options": options,
        "answer": answer,
        "image": room["image"][fact["data_type"]],
        "question_type": kind,
        "data_type": fact["data_type"],
        "level": room["level"],
        "scene": room["scene"],
        "asked": asked,
    }
    return row | ({"difficulty": fact["difficulty"]} if "difficulty" in fact else {})
