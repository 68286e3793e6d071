"""Questions of stage 0, which teach the base to see and to name, from a room's exact truth.

The answers contain no boxes and no lengths. They say where an object is by its square of an 8 x 8
grid laid over the picture, and how far it is as a share of the farthest depth in view. An answer
has a point (x, y) only if the question gave it.
"""

import json
from collections import Counter

import numpy as np

from data.rooms.furniture import COLOURS
from data.rooms.questions import NAMES, clearly_seen, enumerate_words, in_view, the, unique

FACTS = ("square", "place", "colour", "depth")  # what can be asked of an object
BOARD = ("abcdefgh", "12345678")  # a square of the grid: its column from the left, row from the top
# Letters of up to eight pictures. Stage 0's dense loss teaches the vision encoder to predict all
# these letters, so BOARD, PICTURES and DEPTHS share none.
PICTURES = "ijklmnop"
DEPTHS = "stuvwxyz"  # eighths of the depth from the camera (s) to the farthest point in view (z)
PLACES = tuple(
    f"{row} {col}" for row in ("upper", "middle", "lower") for col in ("left", "centre", "right")
)
ALBUM = 8  # pictures of different rooms that album_rows asks about together, at most
# Two compared objects differ at least by this share: of the frame's side, or of the farther depth.
APART = 0.1


class Sight:
    """A picture and what questions can say about it.

    objects: the objects in view. unique: those of them that their category alone identifies.
    centre, depth: {id: (x, y) of the box's centre in pixels} and {id: median depth in metres}.
    """

    def __init__(self, scene, frame, visible):
        self.scene, self.frame, self.visible, self.size = scene, frame, visible, frame.ids.shape[0]
        self.objects = in_view(scene, visible, self.size)
        self.unique = unique(scene, visible, self.size)
        self.centre, self.depth = {}, {}
        for o in self.objects:
            x1, y1, x2, y2 = visible[o.id]["bbox"]
            self.centre[o.id] = (x1 + x2) / 2, (y1 + y2) / 2
            self.depth[o.id] = visible[o.id]["depth"]

    def count(self, category):
        """How many objects of a category are in view.

        None where a few pixels of another one are visible, because one may count it or not.
        """
        shown = sum(o.category == category for o in self.scene.objects if o.id in self.visible)
        counted = sum(o.category == category for o in self.objects)
        return counted if counted == shown else None

    def tell(self, o, facts):
        """{"label": category, fact: value, ...} of an object in view; facts are some of FACTS."""
        values = {
            "square": square(self.centre[o.id], self.size),
            "place": ninth(self.centre[o.id], self.size),
            "colour": o.colour,
            "depth": depth_letter(self.depth[o.id], self.frame.depth.max()),
        }
        return {"label": o.category} | {fact: values[fact] for fact in facts}

    def tells_as(self, other, o):
        """Whether another picture identifies an object, too, and would tell the same of it."""
        return o in other.unique and self.tell(o, FACTS) == other.tell(o, FACTS)

    def left_to_right(self):
        ordered = sorted(self.objects, key=lambda o: self.centre[o.id][0])
        return ", ".join(o.category for o in ordered)

    def name_at(self, point):
        """The name of what a pixel (x, y) shows: a category, or one of questions.SHELL."""
        value = self.frame.ids[point[1], point[0]]
        return self.scene.objects[value].category if value >= 0 else NAMES[-1 - value]

    def point_on(self, o, rng):
        """A random visible pixel (x, y) of an object."""
        ys, xs = np.nonzero(self.frame.ids == o.id)
        k = rng.integers(len(xs))
        return int(xs[k]), int(ys[k])

    def point_near(self, o, rng):
        """A random point (x, y) in the picture, up to half a box away from the object's box."""
        x1, y1, x2, y2 = self.visible[o.id]["bbox"]
        w, h = max(6, (x2 - x1) / 2), max(6, (y2 - y1) / 2)
        near = [rng.uniform(x1 - w, x2 + w), rng.uniform(y1 - h, y2 + h)]
        return tuple(int(v) for v in np.clip(near, 0, self.size - 1))

    def any_point(self, rng):
        return tuple(int(v) for v in rng.integers(0, self.size, 2))


def depth_levels(depth, farthest):
    """Indices into DEPTHS (uint8) of depths in metres; farthest: the largest depth in view."""
    return np.minimum(len(DEPTHS) - 1, len(DEPTHS) * np.asarray(depth) / farthest).astype(np.uint8)


def depth_letter(depth, farthest):
    return DEPTHS[int(depth_levels(depth, farthest))]


class Sheet:
    """Collects rows: {"question", "answer", "question_type"} and, for a choice, "options"."""

    def __init__(self, rng):
        self.rows, self.rng = [], rng

    def draw(self, items, most):
        """At most `most` of the items, in a random order."""
        return [items[i] for i in self.rng.permutation(len(items))[:most]]

    def ask(self, kind, question, answer, options=None):
        more = {"options": options} if options else {}
        self.rows.append({"question": question, "answer": answer, "question_type": kind} | more)

    def pick(self, question, right, wrong):
        """Add a choice between `right` and at most three of `wrong`; its answer is a letter."""
        texts = self.draw([right, *self.draw(wrong, 3)], 4)
        options = [f"{letter}. {text}" for letter, text in zip("ABCD", texts)]
        self.ask("pick", question, "ABCD"[texts.index(right)], options)


def seeing_rows(sight, rng):
    """About twenty questions about one picture; none where nothing is in view.

    The type "describe" prepares stage 1: it asks the same facts about several objects, in any
    order. The model must look an object up by its label, whatever it says about it next and however
    far behind the label. The type "pick" teaches the form of most questions of stage 2, a choice.
    """
    sheet = Sheet(rng)
    ask, draw = sheet.ask, sheet.draw
    if not sight.objects:
        return sheet.rows
    _name_points(sheet, sight)
    ask("list", "What is in view, from left to right?", sight.left_to_right())
    asked = draw([o.category for o in sight.objects], 2) + draw(NAMES[3:], 1)
    counts = {name: sight.count(name) for name in draw(asked, rng.integers(1, 4))}
    _ask_count(sheet, "in view", counts)
    for o in draw(sight.unique, 1):
        ask("colour", f"What colour is the {o.category}?", o.colour)
    for o in draw(sight.unique, 1):
        place = ninth(sight.centre[o.id], sight.size)
        ask("place", f"In which part of the picture is the {o.category}?", place)
    for _ in range(7 if sight.unique else 0):
        _describe(sheet, [(sight, o, {}) for o in draw(sight.unique, rng.integers(1, 5))], FACTS)
    for o in draw(sight.unique, 1):
        point = sight.point_near(o, rng)
        side = _side(point, sight.visible[o.id]["bbox"])
        ask("side", f"On which side of the {o.category} is {_xy(point)}?", side)
    for o in draw(sight.unique, 1):
        _which_point(sheet, sight, o)
    for o in draw(sight.unique, 1):
        _next_to(sheet, sight, o)

    def ask_order(question, right, wrong):
        ask("order", question, right)

    _compare(sheet, sight, draw(sight.unique, 2), ask_order)
    for _ in range(2):
        _compare(sheet, sight, draw(sight.unique, rng.integers(2, 5)), sheet.pick)
        _relate(sheet, sight, draw(sight.unique, 2))
        _nearest(sheet, sight, draw(sight.unique, rng.integers(3, 6)))
    _pick_fact(sheet, sight)
    return sheet.rows


def album_rows(sights, rng):
    """Questions about pictures of different rooms together, mostly which picture shows what.

    They prepare for the stages that show several views, or a video.
    """
    sheet, found = Sheet(rng), {}
    for letter, sight in zip(PICTURES, sights):
        for o in sight.scene.objects:
            if o.id in sight.visible:
                found.setdefault(o.category, []).append((sight, o, {"picture": letter}))
    once = [g[0] for g in found.values() if len(g) == 1 and g[0][1] in g[0][0].objects]
    for _ in range(5 if once else 0):
        _describe(sheet, sheet.draw(once, rng.integers(1, 5)), FACTS)
    for _ in range(3 if found else 0):
        asked, counts = sheet.draw(sorted(found), 2) + sheet.draw(NAMES[3:], 1), {}
        for name in sheet.draw(asked, rng.integers(1, 4)):
            each = [sight.count(name) for sight in sights]
            counts[name] = None if None in each else sum(each)
        _ask_count(sheet, "in all pictures", counts)
    for _, o, where in sheet.draw(once, 3):
        wrong = [letter for letter in PICTURES[: len(sights)] if letter != where["picture"]]
        sheet.pick(f"In which picture is the {o.category}?", where["picture"], wrong)
    _list_one(sheet, [[sight] for sight in sights])
    return sheet.rows


def tour_rows(pictures, rng):
    """Questions about several pictures of one room: which one shows what, and what one shows.

    pictures: the sights of each. A walk's picture has two, the frames that an image token covers.
    Of such a picture only that is asked which is the same in both.
    """
    sheet, first = Sheet(rng), {}
    objects = pictures[0][0].scene.objects
    views = [(letter, sight) for letter, group in zip(PICTURES, pictures) for sight in group]
    shown = Counter(o.category for o in objects if any(o.id in s.visible for _, s in views))
    for letter, sight in views:
        for o in objects:
            seen = sight.visible.get(o.id)
            if shown[o.category] == 1 and seen and clearly_seen(seen, sight.size):
                first.setdefault(o.id, (o, letter))
    for _ in range(4 if first else 0):
        asked = sheet.draw(list(first.values()), rng.integers(1, 5))
        answer = as_json([{"label": o.category, "picture": letter} for o, letter in asked])
        sheet.ask("first", f"Tell the first picture of {the(o for o, _ in asked)}.", answer)
    for _ in range(5):
        number = int(rng.integers(len(pictures)))
        sight, *others = pictures[number]
        alike = [o for o in sight.unique if all(sight.tells_as(other, o) for other in others)]
        group = [(sight, o, {}) for o in sheet.draw(alike, rng.integers(1, 5))]
        if group:
            _describe(sheet, group, FACTS, f" in picture ({PICTURES[number]})")
    _list_one(sheet, pictures)
    return sheet.rows


# ---------------------------------------------------------------- one question each


def _name_points(sheet, sight):
    """Ask what two to four points show."""
    points = [sight.point_on(o, sheet.rng) for o in sheet.rng.choice(sight.objects, 3)]
    points = sheet.draw([*points, sight.any_point(sheet.rng)], sheet.rng.integers(2, 5))
    answer = ", ".join(sight.name_at(point) for point in points)
    sheet.ask("point", f"What is at {_points(points)}?", answer)


def _which_point(sheet, sight, o):
    """Ask which of up to four points is on an object."""
    others = sheet.draw([other for other in sight.objects if other is not o], 2)
    wrong = [sight.point_on(other, sheet.rng) for other in others]
    x, y = sight.any_point(sheet.rng)
    if sight.frame.ids[y, x] != o.id:
        wrong.append((x, y))
    right = sight.point_on(o, sheet.rng)
    question = f"Which of {_points(sheet.draw([right, *wrong], 4))} is on the {o.category}?"
    sheet.ask("which", question, as_json([{"label": o.category, "point_2d": right}]))


def _next_to(sheet, sight, o):
    """Ask which object's centre comes next to the left, or to the right, of an object's centre."""
    step = sheet.rng.choice([-1, 1])
    x = sight.centre[o.id][0]
    gaps = [((sight.centre[other.id][0] - x) * step, other.category) for other in sight.objects]
    answer = min([gap for gap in gaps if gap[0] > 0], default=(0, "nothing"))[1]
    side = "right" if step > 0 else "left"
    sheet.ask("next", f"What is next to the {o.category} on the {side}?", answer)


def _describe(sheet, group, facts, where=""):
    """Ask for one to three of the `facts` about several objects.

    group: (sight, object, {further fact: value}) of each object; further facts are always asked.
    """
    told = sheet.draw([*group[0][2], *sheet.draw(facts, sheet.rng.integers(1, 4))], 4)
    items = []
    for sight, o, known in group:
        values = sight.tell(o, [fact for fact in told if fact not in known]) | known
        items.append({key: values[key] for key in ("label", *told)})
    asked = the(o for _, o, _ in group)
    sheet.ask("describe", f"Tell the {enumerate_words(told)} of {asked}{where}.", as_json(items))


def _list_one(sheet, pictures):
    """Ask what one of the pictures shows, if all of its frames show the same."""
    number = int(sheet.rng.integers(len(pictures)))
    listed = {sight.left_to_right() for sight in pictures[number]} - {""}
    if len(listed) == 1:
        question = f"What is in picture ({PICTURES[number]}), from left to right?"
        sheet.ask("list", question, *listed)


def _ask_count(sheet, where, counts):
    """Ask how many of the categories there are; counts: {category: number, None if ambiguous}."""
    if None not in counts.values():
        question = f"How many of these are {where}: {', '.join(counts)}?"
        sheet.ask("count", question, str(sum(counts.values())))


def _compare(sheet, sight, objects, ask):
    """Ask which of several objects is farthest left, right or down, or closest, by a margin."""
    word, key, margin = [
        ("further left", lambda o: sight.centre[o.id][0], APART * sight.size),
        ("further right", lambda o: -sight.centre[o.id][0], APART * sight.size),
        ("lower in the picture", lambda o: -sight.visible[o.id]["bbox"][3], APART * sight.size),
        ("closer", lambda o: np.log(sight.depth[o.id]), APART),
    ][sheet.rng.integers(4)]
    if len(objects) < 2:
        return
    first, second = sorted(objects, key=key)[:2]
    if key(second) - key(first) >= margin:
        names = [o.category for o in objects]
        question = f"Which is {word}, {the(objects, 'or')}?"
        ask(question, first.category, [name for name in names if name != first.category])


def _relate(sheet, sight, objects):
    """Ask on which side of another object an object is: left or right, in front or behind."""
    if len(objects) < 2:
        return
    a, b = objects
    if sheet.rng.random() < 0.5:
        words, gap = ("left", "right"), (sight.centre[a.id][0] - sight.centre[b.id][0]) / sight.size
        question = f"Is the {a.category} to the left or to the right of the {b.category}?"
    else:
        words, gap = ("front", "back"), np.log(sight.depth[a.id] / sight.depth[b.id])
        question = f"Is the {a.category} in front or in back of the {b.category}?"
    if abs(gap) >= APART:
        right = words[int(gap > 0)]
        sheet.pick(question, right, [word for word in words if word != right])


def _nearest(sheet, sight, objects):
    """Ask which of the other objects is nearest to the first one in the picture."""
    if len(objects) < 3:
        return

    def gap(o):
        return np.hypot(*np.subtract(sight.centre[o.id], sight.centre[objects[0].id]))

    others = sorted(objects[1:], key=gap)
    if gap(others[1]) - gap(others[0]) >= APART * sight.size:
        right, *wrong = [o.category for o in others]
        name = objects[0].category
        sheet.pick(f"Which of these is nearest to the {name} in the picture?", right, wrong)


def _pick_fact(sheet, sight):
    """Ask which of four names is in view, and which of four colours or places an object has."""
    absent = [name for name in NAMES[3:] if all(o.category != name for o in sight.scene.objects)]
    present = str(sheet.rng.choice([o.category for o in sight.objects]))
    sheet.pick("Which of these is in view?", present, absent)
    for o in sheet.draw(sight.unique, 1):
        place = ninth(sight.centre[o.id], sight.size)
        question, right, all_ = [
            (f"What colour is the {o.category}?", o.colour, COLOURS),
            (f"In which part of the picture is the {o.category}?", place, PLACES),
        ][sheet.rng.integers(2)]
        sheet.pick(question, right, [value for value in all_ if value != right])


# ---------------------------------------------------------------- words


def ninth(centre, size):
    """Name of the ninth of the picture in which a point (x, y) lies: "upper left"."""
    col, row = (min(2, int(3 * at / size)) for at in centre)
    return PLACES[3 * row + col]


def square(centre, size):
    """Name of the square of the grid in which a point (x, y) lies: "a1" is at the upper left."""
    return "".join(line[int(len(line) * at / size)] for line, at in zip(BOARD, centre))


def as_json(items):
    """JSON as prompts.target_text writes boxes, so that stage 0 answers in the form of stage 1."""
    return json.dumps(items, separators=(",", ":"))


def _xy(point):
    return f"({point[0]},{point[1]})"


def _points(points):
    return enumerate_words([_xy(p) for p in points])


def _side(point, box):
    """Where a point lies as seen from a box: "inside", "above left", "right", ..."""
    words = []
    if not box[1] <= point[1] < box[3]:
        words.append("above" if point[1] < box[1] else "below")
    if not box[0] <= point[0] < box[2]:
        words.append("left" if point[0] < box[0] else "right")
    return " ".join(words) or "inside"
