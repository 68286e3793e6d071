"""Motions of a camera, as SPAR-Bench (arXiv 2503.22976) asks for them: "move_right:0.4"."""

import math
import re

# The five axes of a camera's motion, in metres and degrees; what is named first counts as positive.
AXES = (
    ("move_right", "move_left"),
    ("move_up", "move_down"),
    ("move_forward", "move_backward"),
    ("rotate_right", "rotate_left"),
    ("rotate_up", "rotate_down"),
)
MINUS = str.maketrans(dict.fromkeys("−－﹣–‐‑", "-"))  # what models write for a minus sign
MOTION = re.compile(r"\b((?:move|rotate)_[a-z]+)\s*:\s*(-?\d+(?:\.\d+)?)")


def parse_motion(text):
    """How far a camera moved along each of AXES, five numbers.

    None where the text names no motion, an unknown one, one of them twice, or an endless one.

    >>> parse_motion("move_left:0.4, rotate_up:5")
    (-0.4, 0.0, 0.0, 0.0, 5.0)
    """
    found = MOTION.findall(text.lower().translate(MINUS))
    steps = {name: float(value) for name, value in found}
    known = {name for axis in AXES for name in axis}
    readable = found and steps.keys() <= known and all(map(math.isfinite, steps.values()))
    if not readable or len(steps) < len(found):
        return None
    return tuple(steps.get(forth, 0.0) - steps.get(back, 0.0) for forth, back in AXES)
