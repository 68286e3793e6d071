"""Localization questions about a room (stage 1), and what all kinds of questions share.

A question may name an object by its category alone only where the name is unambiguous: the picture
shows one object of this category, and enough of it. The thresholds are the constants below.
seeing.py makes the questions of stage 0, and spatial.py those of stage 2.
"""

from data.rooms.furniture import CATEGORIES

SHELL = ("floor", "wall", "ceiling")  # what a pixel shows where no object is
NAMES = (*SHELL, *CATEGORIES)  # an index image IMAGE.names.png holds indices into this tuple

# Of a box, as a share of the frame's side. The small vision encoder names only 15 of 100 smaller
# objects correctly.
MIN_SIDE = 0.1
MAX_AREA = 0.2  # of a box, as a share of the frame; one can guess the box of a larger object
MIN_VISIBILITY = 0.4  # share of an object's silhouette that nothing hides
MAX_TRUNCATION = 0.4  # share of an object's silhouette that lies outside the frame
MIN_SHARE = 0.006  # share of the frame's pixels that an object needs to count as in view

LOCATE = ("Locate {}.", "Find {}.", "Point out {}.", "Give the bounding box of {}.")


def localization_rows(scene, visible, size, rng, most=4):
    """Questions and answers: up to `most` about one object each, and one about several objects.

    visible: what render.visible_objects returns. size: the frame's side in pixels.
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
    """The objects that cover at least MIN_SHARE of a frame of side `size` pixels."""
    least = MIN_SHARE * size**2
    return [o for o in scene.objects if o.id in visible and visible[o.id]["pixels"] >= least]


def unique(scene, visible, size):
    """The objects in view whose category no other object has of which even one pixel is visible."""
    shown = [o.category for o in scene.objects if o.id in visible]
    return [o for o in in_view(scene, visible, size) if shown.count(o.category) == 1]


def _askable(seen, size):
    x1, y1, x2, y2 = seen["bbox"]
    return clearly_seen(seen, size) and (x2 - x1) * (y2 - y1) <= MAX_AREA * size**2


def clearly_seen(seen, size):
    """Whether a frame shows an object well enough to name it.

    seen: the object's entry of visible_objects. size: the frame's side in pixels.
    """
    x1, y1, x2, y2 = seen["bbox"]
    return (
        min(x2 - x1, y2 - y1) >= MIN_SIDE * size
        and seen["visibility"] >= MIN_VISIBILITY
        and seen["truncation"] <= MAX_TRUNCATION
    )


def the(objects, last="and"):
    """The objects' categories as a list in words: "the bed, the lamp and the sofa"."""
    return enumerate_words([f"the {o.category}" for o in objects], last)


def enumerate_words(words, last="and"):
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"
