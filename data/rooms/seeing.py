"""Questions that teach the base to see and to name (stage 0), made from a room's exact truth.

None of their answers holds a box or a length, nor a point that the question did not give, but for the square of a
chessboard; how far an object is, is told as a share of the farthest point in view.
"""

import json
from collections import Counter

import numpy as np

from data.rooms.furniture import COLOURS
from data.rooms.questions import NAMES, clearly_seen, enumerate_words, in_view, the, unique

FACTS = ("square", "place", "colour", "depth")  # what can be asked of an object
BOARD = ("abcdefgh", "12345678")  # a square: its file from the left, its rank from the top
PICTURES = "ijklmnop"  # which of several pictures: letters of their own, for what is found is said in the eye's words
DEPTHS = "stuvwxyz"  # eighths of the way from the camera (s) to the farthest point in view (z)
PLACES = tuple(f"{row} {col}" for row in ("upper", "middle", "lower") for col in ("left", "centre", "right"))
ALBUM = 8  # pictures of different rooms, at most, that album_rows asks about together
APART = 0.1  # of the picture's side, or of the farther depth: what is compared differs by so much


class Sight:
    """A picture and what can be told of it: objects in view, and those of them that a name alone tells apart."""

    def __init__(self, scene, frame, visible):
        self.scene, self.frame, self.visible, self.size = scene, frame, visible, frame.ids.shape[0]
        self.objects, self.unique = in_view(scene, visible, self.size), unique(scene, visible, self.size)
        self.centre, self.depth = {}, {}  # by an object's id: (x, y) in pixels, median metres
        for o in self.objects:
            x1, y1, x2, y2 = visible[o.id]["bbox"]
            self.centre[o.id] = (x1 + x2) / 2, (y1 + y2) / 2
            self.depth[o.id] = visible[o.id]["depth"]

    def count(self, category):
        """How many of a category are in view; None where a sliver of another shows, which one could count or not."""
        shown = sum(o.category == category for o in self.scene.objects if o.id in self.visible)
        counted = sum(o.category == category for o in self.objects)
        return counted if counted == shown else None

    def tell(self, o, facts):
        """{"label": ..., fact: value, ...} of an object in view."""
        values = {
            "square": square(self.centre[o.id], self.size),
            "place": ninth(self.centre[o.id], self.size),
            "colour": o.colour,
            "depth": depth_letter(self.depth[o.id], self.frame.depth.max()),
        }
        return {"label": o.category} | {fact: values[fact] for fact in facts}

    def left_to_right(self):
        return ", ".join(o.category for o in sorted(self.objects, key=lambda o: self.centre[o.id][0]))

    def name_at(self, point):
        value = self.frame.ids[point[1], point[0]]
        return self.scene.objects[value].category if value >= 0 else NAMES[-1 - value]

    def point_on(self, o, rng):
        """A random pixel (x, y) of an object."""
        ys, xs = np.nonzero(self.frame.ids == o.id)
        k = rng.integers(len(xs))
        return int(xs[k]), int(ys[k])

    def point_near(self, o, rng):
        """A random point within half a box of the object's box, and inside the picture."""
        x1, y1, x2, y2 = self.visible[o.id]["bbox"]
        w, h = max(6, (x2 - x1) / 2), max(6, (y2 - y1) / 2)
        near = [rng.uniform(x1 - w, x2 + w), rng.uniform(y1 - h, y2 + h)]
        return tuple(int(v) for v in np.clip(near, 0, self.size - 1))

    def any_point(self, rng):
        return tuple(int(v) for v in rng.integers(0, self.size, 2))


def depth_levels(depth, farthest):
    """Places in DEPTHS (uint8) of depths in metres, the farthest point in view being `farthest` away."""
    return np.minimum(len(DEPTHS) - 1, len(DEPTHS) * np.asarray(depth) / farthest).astype(np.uint8)


def depth_letter(depth, farthest):
    return DEPTHS[int(depth_levels(depth, farthest))]


class Sheet:
    """Questions being written: `rows` of question, answer, type and, of a choice, its options."""

    def __init__(self, rng):
        self.rows, self.rng = [], rng

    def draw(self, items, most):
        return [items[i] for i in self.rng.permutation(len(items))[:most]]

    def ask(self, kind, question, answer, options=None):
        more = {"options": options} if options else {}
        self.rows.append({"question": question, "answer": answer, "question_type": kind} | more)

    def pick(self, question, right, wrong):
        """A choice of up to four; `answer` holds its letter."""
        texts = self.draw([right, *self.draw(wrong, 3)], 4)
        options = [f"{letter}. {text}" for letter, text in zip("ABCD", texts)]
        self.ask("pick", question, "ABCD"[texts.index(right)], options)


def seeing_rows(sight, rng):
    """Some twenty questions on one picture, every answer short; none where nothing is in view.

    "describe" is what stage 1 builds on: the same few facts about several objects, in any order, so that an object has
    to be found once behind its label whatever is said of it next, and however far behind. "pick" teaches the form of
    most questions of stage 2, a choice, on what is seen at a glance.
    """
    sheet = Sheet(rng)
    ask, draw = sheet.ask, sheet.draw
    if not sight.objects:
        return sheet.rows
    points = [sight.point_on(o, rng) for o in rng.choice(sight.objects, 3)] + [sight.any_point(rng)]
    points = draw(points, rng.integers(2, 5))
    ask("point", f"What is at {_points(points)}?", ", ".join(sight.name_at(p) for p in points))
    ask("list", "What is in view, from left to right?", sight.left_to_right())
    asked = draw([o.category for o in sight.objects], 2) + draw(NAMES[3:], 1)
    _ask_count(sheet, "in view", {name: sight.count(name) for name in draw(asked, rng.integers(1, 4))})
    for o in draw(sight.unique, 1):
        ask("colour", f"What colour is the {o.category}?", o.colour)
    for o in draw(sight.unique, 1):
        ask("place", f"In which part of the picture is the {o.category}?", ninth(sight.centre[o.id], sight.size))
    for _ in range(7 if sight.unique else 0):
        _describe(sheet, [(sight, o, {}) for o in draw(sight.unique, rng.integers(1, 5))], FACTS)
    for o in draw(sight.unique, 1):
        point = sight.point_near(o, rng)
        ask("side", f"On which side of the {o.category} is {_xy(point)}?", _side(point, sight.visible[o.id]["bbox"]))
    for o in draw(sight.unique, 1):
        others = [sight.point_on(p, rng) for p in draw([p for p in sight.objects if p is not o], 2)]
        others += [p for p in [sight.any_point(rng)] if sight.frame.ids[p[1], p[0]] != o.id]
        right = sight.point_on(o, rng)
        ask("which", f"Which of {_points(draw([right, *others], 4))} is on the {o.category}?",
            as_json([{"label": o.category, "point_2d": right}]))  # fmt: skip
    for o in draw(sight.unique, 1):
        step = rng.choice([-1, 1])
        gaps = [((sight.centre[p.id][0] - sight.centre[o.id][0]) * step, p.category) for p in sight.objects]
        answer = min([gap for gap in gaps if gap[0] > 0], default=(0, "nothing"))[1]
        ask("next", f"What is next to the {o.category} on the {'right' if step > 0 else 'left'}?", answer)
    _compare(sheet, sight, draw(sight.unique, 2), lambda question, right, wrong: ask("order", question, right))
    for _ in range(2):
        _compare(sheet, sight, draw(sight.unique, rng.integers(2, 5)), sheet.pick)
        _relate(sheet, sight, draw(sight.unique, 2))
        _nearest(sheet, sight, draw(sight.unique, rng.integers(3, 6)))
    _pick_fact(sheet, sight)
    return sheet.rows


def album_rows(sights, rng):
    """Questions on several pictures at once, for stages that see views and videos: in which one is what?"""
    sheet, found = Sheet(rng), {}
    for letter, sight in zip(PICTURES, sights):
        for o in sight.scene.objects:
            if o.id in sight.visible:
                found.setdefault(o.category, []).append((sight, o, {"picture": letter}))
    once = [group[0] for group in found.values() if len(group) == 1 and group[0][1] in group[0][0].objects]
    for _ in range(5 if once else 0):
        _describe(sheet, sheet.draw(once, rng.integers(1, 5)), FACTS)
    for _ in range(3 if found else 0):
        asked = sheet.draw(sorted(found), 2) + sheet.draw(NAMES[3:], 1)
        counts = {name: [sight.count(name) for sight in sights] for name in sheet.draw(asked, rng.integers(1, 4))}
        _ask_count(sheet, "in all pictures", {n: None if None in c else sum(c) for n, c in counts.items()})
    for _, o, where in sheet.draw(once, 3):
        wrong = [letter for letter in PICTURES[: len(sights)] if letter != where["picture"]]
        sheet.pick(f"In which picture is the {o.category}?", where["picture"], wrong)
    _list_one(sheet, sights)
    return sheet.rows


def tour_rows(sights, rng):
    """Questions on several pictures of one room: which of them shows what, and what does it show?"""
    sheet, views, first = Sheet(rng), [sight.visible for sight in sights], {}
    shown = Counter(o.category for o in sights[0].scene.objects if any(o.id in seen for seen in views))
    for letter, seen in zip(PICTURES, views):
        for o in sights[0].scene.objects:
            if shown[o.category] == 1 and o.id in seen and clearly_seen(seen[o.id], sights[0].size):
                first.setdefault(o.id, (o, letter))
    for _ in range(4 if first else 0):
        asked = sheet.draw(list(first.values()), rng.integers(1, 5))
        answer = as_json([{"label": o.category, "picture": letter} for o, letter in asked])
        sheet.ask("first", f"Tell the first picture of {the(o for o, _ in asked)}.", answer)
    for _ in range(5):
        number = int(rng.integers(len(sights)))
        if group := [(sights[number], o, {}) for o in sheet.draw(sights[number].unique, rng.integers(1, 5))]:
            _describe(sheet, group, FACTS, f" in picture ({PICTURES[number]})")
    _list_one(sheet, sights)
    return sheet.rows


# ---------------------------------------------------------------- one question each


def _describe(sheet, group, facts, where=""):
    """group: (sight, object, what else is known of it) of each; these facts always count among those asked."""
    told = sheet.draw([*group[0][2], *sheet.draw(facts, sheet.rng.integers(1, 4))], 4)
    items = []
    for sight, o, known in group:
        values = sight.tell(o, [fact for fact in told if fact not in known]) | known
        items.append({key: values[key] for key in ("label", *told)})
    sheet.ask("describe", f"Tell the {enumerate_words(told)} of {the(o for _, o, _ in group)}{where}.", as_json(items))


def _list_one(sheet, sights):
    number = int(sheet.rng.integers(len(sights)))
    if sights[number].objects:
        question = f"What is in picture ({PICTURES[number]}), from left to right?"
        sheet.ask("list", question, sights[number].left_to_right())


def _ask_count(sheet, where, counts):
    """counts: {category: how many, or None where that is ambiguous}."""
    if None not in counts.values():
        sheet.ask("count", f"How many of these are {where}: {', '.join(counts)}?", str(sum(counts.values())))


def _compare(sheet, sight, objects, ask):
    """Which object of two or more leads in some way, by a clear margin."""
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
    """Whether one object is left or right of another, or in front of or behind it."""
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
    """Which of two or more other objects is nearest to the first, as the picture shows them."""
    if len(objects) < 3:
        return

    def gap(o):
        return np.hypot(*np.subtract(sight.centre[o.id], sight.centre[objects[0].id]))

    others = sorted(objects[1:], key=gap)
    if gap(others[1]) - gap(others[0]) >= APART * sight.size:
        right, *wrong = [o.category for o in others]
        sheet.pick(f"Which of these is nearest to the {objects[0].category} in the picture?", right, wrong)


def _pick_fact(sheet, sight):
    """An object's colour or place, or what is in view at all, among three that are wrong."""
    absent = [name for name in NAMES[3:] if all(o.category != name for o in sight.scene.objects)]
    sheet.pick("Which of these is in view?", str(sheet.rng.choice([o.category for o in sight.objects])), absent)
    for o in sheet.draw(sight.unique, 1):
        place = ninth(sight.centre[o.id], sight.size)
        question, right, all_ = [
            (f"What colour is the {o.category}?", o.colour, COLOURS),
            (f"In which part of the picture is the {o.category}?", place, PLACES),
        ][sheet.rng.integers(2)]
        sheet.pick(question, right, [value for value in all_ if value != right])


# ---------------------------------------------------------------- words


def ninth(centre, size):
    """Name of the ninth of the picture that holds a point."""
    col, row = (min(2, int(3 * at / size)) for at in centre)
    return PLACES[3 * row + col]


def square(centre, size):
    """Name of the square that holds a point, were a chessboard laid over the picture: "a1" is upper left."""
    return "".join(line[int(len(line) * at / size)] for line, at in zip(BOARD, centre))


def as_json(items):
    """As boxes are written (dataset.target_text), so that what the base says of an object has the form of stage 1."""
    return json.dumps(items, separators=(",", ":"))


def _xy(point):
    return f"({point[0]},{point[1]})"


def _points(points):
    return enumerate_words([_xy(p) for p in points])


def _side(point, box):
    """Where a point lies seen from a box: inside, above left, right, ..."""
    words = []
    if not box[1] <= point[1] < box[3]:
        words.append("above" if point[1] < box[1] else "below")
    if not box[0] <= point[0] < box[2]:
        words.append("left" if point[0] < box[0] else "right")
    return " ".join(words) or "inside"
