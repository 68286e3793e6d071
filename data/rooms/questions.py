"""Localization questions about a room (stage 1), made from its exact truth, and what all questions share.

A question names an object by its category alone only where that is unambiguous: one instance in view, enough of it
to be seen. The thresholds are the constants below. seeing.py asks for the base, spatial.py for stage 2.
"""

from data.rooms.furniture import CATEGORIES

SHELL = ("floor", "wall", "ceiling")  # of a room, bare
NAMES = (*SHELL, *CATEGORIES)  # an index image (IMAGE.names.png) holds places in this tuple

MIN_SIDE = 0.1  # of a box, as a share of the frame's side: below, nano's eye names 15 in 100
MAX_AREA = 0.2  # of a box, as a share of the frame: one that fills the frame is found without looking
MIN_VISIBILITY = 0.4  # share of an object's silhouette that nothing hides
MAX_TRUNCATION = 0.4  # share of its silhouette outside the frame
MIN_SHARE = 0.006  # of the frame's pixels, for an object to count as in view

LOCATE = ("Locate {}.", "Find {}.", "Point out {}.", "Give the bounding box of {}.")


def localization_rows(scene, visible, size, rng, most=4):
    """Question and answer dicts: up to `most` single objects of a frame, and one question about several of them.

    `visible` is render.visible_objects; `size` the frame's side in pixels.
    """
    objects = [o for o in unique(scene, visible, size) if _askable(visible[o.id], size)]
    objects = [objects[i] for i in rng.permutation(len(objects))]
    asked = [[o] for o in objects[:most]]
    if len(objects) > 1:
        asked.append(objects[: rng.integers(2, min(4, len(objects)) + 1)])
    return [
        {
            "question": LOCATE[rng.integers(len(LOCATE))].format(the(group)),
            "answer": [{"bbox_2d": visible[o.id]["bbox"], "label": o.category} for o in group],
            "question_type": "localization",
        }
        for group in asked
    ]


def in_view(scene, visible, size):
    return [o for o in scene.objects if o.id in visible and visible[o.id]["pixels"] >= MIN_SHARE * size**2]


def unique(scene, visible, size):
    """Objects in view whose category no other visible object shares, not even a sliver of one."""
    shown = [o.category for o in scene.objects if o.id in visible]
    return [o for o in in_view(scene, visible, size) if shown.count(o.category) == 1]


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


def the(objects, last="and"):
    return enumerate_words([f"the {o.category}" for o in objects], last)


def enumerate_words(words, last="and"):
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"
