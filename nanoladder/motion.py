"""Motions of a camera, as SPAR-Bench (arXiv 2503.22976) asks for them: "move_right:0.4"."""

import re

# The five axes of a camera's motion, in metres and degrees; what is named first counts as positive.
AXES = (
    ("move_right", "move_left"),
    ("move_up", "move_down"),
    ("move_forward", "move_backward"),
    ("rotate_right", "rotate_left"),
    ("rotate_up", "rotate_down"),
)
MOTION = re.compile(r"\b((?:move|rotate)_[a-z]+)\s*:\s*(-?\d+(?:\.\d+)?)")


def parse_motion(text):
    """How far a camera moved along each of AXES, five numbers.

    None where the text names no motion, an unknown one, or one of them twice.

    >>> parse_motion("move_left:0.4, rotate_up:5")
    (-0.4, 0.0, 0.0, 0.0, 5.0)
    """
    found = MOTION.findall(text.lower())
    steps = {name: float(value) for name, value in found}
    known = {name for axis in AXES for name in axis}
    if not found or len(steps) < len(found) or not steps.keys() <= known:
        return None
    return tuple(steps.get(forth, 0.0) - steps.get(back, 0.0) for forth, back in AXES)
