"""Furniture made of a few solids: 32 categories that a person recognizes at a glance.

One function for each category adds boxes, tubes (cylinders and frustums) and balls (ellipsoids) to
the Kit k. Lengths are in metres, in the object's own frame: x points to its front, y to its left, z
up, and the floor is z = 0. d, w and h are the wanted depth, width and height; v is the shape
variant.

Colour and variant are drawn independently of the category, and sizes vary at least twofold, so that
a category's name reveals none of them. Variants 0 and 1 serve train, val and test; variant 2 serves
ood alone. The paint "main" has the object's named colour and covers about half of it or more.

All categories and variants in one picture:  python -m data.rooms.render catalogue.png
"""

from dataclasses import dataclass, field

import numpy as np

BOX, TUBE, BALL = range(3)
# The looks of a surface, which render.py draws.
PLAIN, GLOW, STRIPES, BOOKS, KEYS, BRICK, LAND, SHEEN = range(8)
VARIANTS = {"train": (0, 1), "val": (0, 1), "test": (0, 1), "ood": (2,)}

COLOURS = {  # sRGB, 0 to 1; an object's shade is drawn near its colour
    "red": (0.78, 0.13, 0.14),
    "orange": (0.93, 0.48, 0.10),
    "yellow": (0.94, 0.80, 0.16),
    "green": (0.20, 0.55, 0.22),
    "teal": (0.08, 0.55, 0.56),
    "blue": (0.16, 0.32, 0.74),
    "purple": (0.45, 0.22, 0.62),
    "pink": (0.93, 0.52, 0.66),
    "brown": (0.42, 0.26, 0.14),
    "white": (0.93, 0.92, 0.90),
    "grey": (0.52, 0.53, 0.55),
    "black": (0.11, 0.11, 0.12),
}
ACCENTS = {  # {paint: sRGB tones, of which one is drawn for each object}
    "wood": ((0.62, 0.43, 0.25), (0.46, 0.29, 0.16), (0.78, 0.62, 0.42), (0.33, 0.20, 0.12)),
    "metal": ((0.66, 0.68, 0.70), (0.76, 0.62, 0.32), (0.24, 0.25, 0.27), (0.62, 0.42, 0.32)),
    "dark": ((0.14, 0.14, 0.16), (0.20, 0.17, 0.16), (0.13, 0.17, 0.22)),
    "pale": ((0.93, 0.90, 0.82), (0.90, 0.91, 0.92), (0.86, 0.83, 0.76)),
}
FIXED = {  # {paint: sRGB}
    "water": (0.55, 0.78, 0.86),
    "keys": (0.95, 0.94, 0.90),
    "glass": (0.74, 0.84, 0.90),
    "fire": (1.0, 0.55, 0.12),
    "stem": (0.25, 0.50, 0.20),
    "bloom": (0.95, 0.85, 0.30),
}


@dataclass
class Part:
    """One solid: rot @ (half * unit solid) + center, in object metres.

    The unit solid is the cube [-1, 1]^3, the unit ball, or the tube |z| <= 1. The radius of the
    tube changes linearly from radii[0] at z = -1 to radii[1] at z = 1.
    """

    kind: int
    center: np.ndarray  # [3]
    half: np.ndarray  # [3]
    rot: np.ndarray  # [3, 3]
    radii: tuple
    paint: str  # a key of ACCENTS or FIXED, or "main"
    rgb: np.ndarray  # [3] sRGB, 0 to 1
    look: int

    def extent(self):
        """Exact lower and upper bounds [2, 3] of the solid along the object's axes, in metres."""
        axes = self.rot * self.half
        if self.kind == TUBE:  # it is the hull of its two end discs
            disc = np.sqrt((axes[:, :2] ** 2).sum(1))
            middles = [(axes[:, 2] * side, disc * r) for side, r in zip((-1, 1), self.radii)]
            ends = [middle + reach * sign for middle, reach in middles for sign in (-1, 1)]
            return self.center + np.array([np.min(ends, 0), np.max(ends, 0)])
        reach = np.abs(axes).sum(1) if self.kind == BOX else np.sqrt((axes**2).sum(1))
        return self.center + np.array([-reach, reach])


@dataclass
class Kit:
    """Collects the parts of one object.

    x, y: the middle of a part; z: its underside; in metres. tone: a factor on the paint's colour.
    both: whether to add the part's mirror image at -y as well.
    """

    paints: dict
    parts: list = field(default_factory=list)
    top: tuple = None  # (z, x, y, depth, width) of a flat surface that small objects may stand on

    def _add(
        self, kind, center, half, paint, tone, rot=None, radii=(1.0, 1.0), look=PLAIN, both=False
    ):
        rgb = np.clip(np.array(self.paints[paint]) * tone, 0, 1)
        rot = np.eye(3) if rot is None else rot
        for side in (1, -1) if both else (1,):
            flip = np.array([1, side, 1])
            where, turned = center * flip, rot * flip * flip[:, None]
            half = np.maximum(half, 0.004)
            self.parts.append(Part(kind, where, half, turned, radii, paint, rgb, look))

    def box(self, x, y, z, d, w, h, paint="main", tone=1.0, lean=0.0, look=PLAIN, both=False):
        """A box of depth d, width w and height h that leans back by `lean` radians."""
        c, s = np.cos(lean), np.sin(lean)
        rot = np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])
        center, half = (x, y, z + h / 2), (d / 2, w / 2, h / 2)
        self._add(BOX, center, half, paint, tone, rot, look=look, both=both)

    def ball(self, x, y, z, d, w, h, paint="main", tone=1.0, look=PLAIN, both=False):
        """An ellipsoid with diameters d, w, h."""
        center, half = (x, y, z + h / 2), (d / 2, w / 2, h / 2)
        self._add(BALL, center, half, paint, tone, look=look, both=both)

    def tube(
        self, x, y, z, r, h, paint="main", tone=1.0, top=None, squash=1.0, look=PLAIN, both=False
    ):
        """An upright frustum of radius r below and `top` above; `squash` scales it along x."""
        top = r if top is None else top
        wide = max(r, top)
        center, half, radii = (
            (x, y, z + h / 2),
            (wide * squash, wide, h / 2),
            (r / wide, top / wide),
        )
        self._add(TUBE, center, half, paint, tone, None, radii, look, both)

    def rod(self, p, q, r, paint="main", tone=1.0, top=None, flat=1.0, look=PLAIN, both=False):
        """A frustum from point p (radius r) to q (radius `top`); `flat` scales it along x."""
        p, q = np.array(p, float), np.array(q, float)
        z = (q - p) / np.linalg.norm(q - p)
        x = np.array([1.0, 0, 0]) if abs(z[0]) < 0.9 else np.array([0, 1.0, 0])
        x -= z * (x @ z)
        x /= np.linalg.norm(x)
        top = r if top is None else top
        wide = max(r, top)
        half, radii = (wide * flat, wide, np.linalg.norm(q - p) / 2), (r / wide, top / wide)
        rot = np.stack([x, np.cross(z, x), z], 1)
        self._add(TUBE, (p + q) / 2, half, paint, tone, rot, radii, look, both)

    def legs(self, d, w, h, r, paint="wood", splay=0.0, tone=1.0):
        """Four legs up to the corners of d x w at height h; the feet stand `splay` further out."""
        for s in (-1, 1):
            x, y = s * (d / 2 - r), w / 2 - r
            foot = (x + s * splay, y + splay, r * 0.3 if splay else 0)
            self.rod(foot, (x, y, h), r * 0.75, paint, tone, top=r, both=True)


def armchair(k, d, w, h, v):
    seat, arm = h * 0.45, w * 0.19
    k.box(0, 0, 0.09, d * 0.95, w * 0.95, seat * 0.6, tone=0.85)
    k.box(d * 0.08, 0, seat * 0.75, d * 0.8, w - 2 * arm, seat * 0.35, tone=1.1)
    if v == 2:
        k.tube(-d * 0.25, 0, seat * 0.7, w * 0.5, h - seat * 0.7, top=w * 0.42, squash=0.45)
    else:
        k.box(-d * 0.4, 0, 0.09, d * 0.2, w * 0.9, h - 0.09, lean=0.08)
    if v == 1:
        y, z = (w - arm) / 2, seat * 1.25
        k.rod((-d * 0.45, y, z), (d * 0.47, y, z), arm * 0.62, both=True)
    k.box(
        0,
        (w - arm) / 2,
        0.09,
        d * 0.92,
        arm,
        seat * (1.15 if v == 1 else 1.4) - 0.09,
        tone=0.95,
        both=True,
    )
    k.legs(d * 0.8, w * 0.85, 0.1, 0.03, "dark")


def bathtub(k, d, w, h, v):
    rim = h * 0.78
    if v == 1:
        k.box(0, 0, 0, d, w, rim - 0.02)
        k.box(0, 0, rim - 0.05, d * 1.03, w * 1.02, 0.05, tone=1.08)
        k.box(0, 0, rim - 0.01, d * 0.74, w * 0.84, 0.014, "water")
    else:
        s = d / w
        k.tube(0, 0, 0.1 if v == 0 else 0, w * 0.38, rim - 0.1, top=w * 0.48, squash=s)
        k.tube(0, 0, rim - 0.05, w * 0.5, 0.06, tone=1.08, squash=s)
        k.tube(0, 0, rim, w * 0.43, 0.014, "water", squash=s * 0.9)
        if v == 0:
            for x in (-1, 1):
                k.ball(x * d * 0.28, w * 0.28, 0, 0.1, 0.1, 0.16, "metal", both=True)
    k.tube(-d * 0.1, -w * 0.45, rim - 0.02, 0.025, h * 0.24, "metal")
    k.rod((-d * 0.1, -w * 0.46, h), (-d * 0.1, -w * 0.34, h - 0.03), 0.022, "metal")
    if v == 2:  # a shower pole
        k.tube(-d * 0.35, w * 0.42, rim, 0.02, 1.1, "metal")
        k.rod((-d * 0.35, w * 0.42, rim + 1.09), (0, w * 0.3, rim + 1.09), 0.02, "metal")
        k.tube(0, w * 0.3, rim + 1.0, 0.11, 0.07, "metal", top=0.03)


def bed(k, d, w, h, v):
    deck = 0.28 + 0.2 * h
    k.box(0, 0, 0.07, d, w, deck * 0.5, "wood")
    k.box(0, 0, deck * 0.5, d * 0.97, w * 0.95, deck * 0.42, "pale")
    k.box(
        d * 0.14, 0, deck * 0.38, d * 0.7, w * 1.01, deck * 0.6, look=STRIPES if v == 1 else PLAIN
    )
    wide = w > 1.1
    k.box(
        -d * 0.36,
        w * 0.24 * wide,
        deck * 0.9,
        d * 0.16,
        w * (0.4 if wide else 0.7),
        0.1,
        "pale",
        1.06,
        both=wide,
    )
    if v == 1:
        k.tube(-d / 2, w / 2, 0, 0.04, max(h, deck * 1.5), "metal", both=True)
        for z in (0.95, 0.75):
            k.rod((-d / 2, -w / 2, h * z), (-d / 2, w / 2, h * z), 0.03, "metal")
        return
    k.box(-d / 2, 0, 0, 0.07, w * 1.02, max(h, deck * 1.6), tone=0.85)
    if v == 2:  # a four-poster
        k.legs(d * 1.02, w * 1.02, 1.3 + 0.5 * h, 0.045)
        k.box(0, 0, 1.3 + 0.5 * h, d * 1.02, w * 1.02, 0.05)


def bookcase(k, d, w, h, v):
    k.box(-d * 0.46, 0, 0, d * 0.08, w, h, tone=0.75)
    k.box(0, w / 2 - 0.03 if v != 2 else 0, 0, d, 0.06, h, both=v != 2)
    n = 4 if h > 1.4 else 3
    for i in range(n + 1):
        z = i * (h - 0.05) / n
        k.box(0, 0, z, d * 0.99, w, 0.05, tone=1.05)
        if i < (n if v != 1 else n - 1):
            run = w * (0.72 if (i + v) % 2 else 0.5)
            k.box(
                -0.02,
                (w * 0.9 - run) / 2 * (-1) ** i,
                z + 0.04,
                d * 0.7,
                run,
                (h / n) * (0.55 + 0.1 * (i % 2)),
                "pale",
                look=BOOKS,
            )


def chair(k, d, w, h, v):
    seat, frame = h * 0.48, "metal" if v == 1 else "wood"
    k.legs(d * 0.9, w * 0.9, seat, 0.022, frame, splay=0.03 if v == 1 else 0.0)
    if v == 2:
        k.tube(0, 0, seat, d * 0.5, 0.06)
        k.ball(-d * 0.42, 0, seat + 0.04, 0.08, w * 0.95, h - seat, tone=0.92)
        return
    k.box(0, 0, seat - 0.01, d, w, 0.055)
    k.box(-d * 0.47, 0, h * (0.62 if v else 0.7), 0.05, w, h * (0.38 if v else 0.3), tone=0.92)
    k.box(-d * 0.47, w * 0.4, seat, 0.04, 0.04, h * 0.35, frame, both=True)


def crib(k, d, w, h, v):
    deck = h * 0.4
    k.box(0, 0, deck, d * 0.94, w * 0.94, 0.1, "pale")
    k.legs(d, w, h, 0.035, "main", tone=0.9)
    for x in (-d * 0.47, d * 0.47):
        for z in (h * 0.93, deck):
            k.rod((x, -w / 2, z), (x, w / 2, z), 0.03)
        for i in range(5):
            k.rod((x, (i - 2) * w * 0.17, deck), (x, (i - 2) * w * 0.17, h * 0.93), 0.016)
    k.box(
        0,
        w * 0.48,
        deck - 0.03,
        d * 0.95,
        0.03,
        (h - deck) * (0.6 if v else 1),
        tone=0.95,
        both=True,
    )
    k.box(0, w * 0.2, deck + 0.09, d * 0.8, w * 0.45, 0.06, tone=1.1)
    if v == 2:  # a cradle on rockers, with a hood
        for x in (-d / 2, d / 2):
            k.rod((x, -w * 0.55, 0.04), (x, w * 0.55, 0.04), 0.04, "wood")
        k.tube(0, -w * 0.4, h, d * 0.5, 0.3, top=0.03)


def desk(k, d, w, h, v):
    k.box(0, 0, h - 0.045, d, w, 0.045, tone=1.05)
    k.box(-d * 0.46, 0, h * 0.3, 0.03, w * 0.96, h * 0.65, tone=0.8)
    k.top = (h, 0, 0, d, w)
    if v == 2:
        k.legs(d * 0.9, w * 0.95, h - 0.04, 0.03, "metal", splay=0.05)
        k.box(d * 0.1, 0, h - 0.17, d * 0.7, w * 0.8, 0.13, tone=0.9)
        k.ball(d * 0.46, w * 0.2, h - 0.13, 0.04, 0.08, 0.03, "metal", both=True)
        return
    k.box(0, w * 0.33, 0, d * 0.95, w * 0.3, h - 0.04, tone=0.92)
    n = 3 if v else 2
    for i in range(n):
        k.box(
            d * 0.475, w * 0.33, h * (0.06 + 0.88 * i / n), 0.02, w * 0.26, h * 0.78 / n, tone=1.15
        )
        k.box(d * 0.49, w * 0.33, h * (0.06 + 0.88 * (i + 0.4) / n), 0.03, w * 0.09, 0.025, "metal")
    if v:
        k.box(0, -w * 0.47, 0, d * 0.9, 0.04, h - 0.04, tone=0.92)
    else:
        for x in (-d * 0.44, d * 0.44):
            k.box(x, -w * 0.46, 0, 0.045, 0.045, h - 0.04, "metal")


def dresser(k, d, w, h, v):
    k.box(0, 0, 0.06, d * 0.95, w * 0.98, h - 0.1, tone=0.85)
    k.box(0, 0, h - 0.04, d, w, 0.04, tone=1.05)
    k.box(0, 0, 0, d * 0.85, w * 0.9, 0.07, "dark")
    k.top = (h, 0, 0, d, w)
    n = 3 if v != 2 else 5
    for i in range(n):
        z, tall = 0.1 + i * (h - 0.16) / n, (h - 0.16) / n * 0.88
        k.box(d * 0.475, 0, z, 0.03, w * 0.92, tall, tone=1.12)
        k.ball(
            d * 0.475,
            w * 0.24 * (v == 0),
            z + tall * 0.4,
            0.09,
            w * 0.3 if v == 1 else 0.06,
            0.05,
            "metal",
            both=v == 0,
        )


def easel(k, d, w, h, v):
    k.rod((d * 0.3, w * 0.4, 0.02), (-d * 0.08, w * 0.06, h), 0.022, "wood", both=True)
    k.rod((-d * 0.5, 0, 0.02), (-d * 0.06, 0, h * 0.95), 0.022, "wood")
    k.box(d * 0.17, 0, h * 0.36, 0.08, w * 0.85, 0.03, "wood", 0.85)
    x, tall = d * 0.1, h * 0.5
    if v == 2:  # a round board
        k.rod((x - 0.02, 0, h * 0.64), (x + 0.02, 0, h * 0.648), w * 0.5)
        k.ball(x, 0, h * 0.58, 0.1, w * 0.4, w * 0.3, "pale")
        return
    k.box(x, 0, h * 0.385, 0.03, w * (0.75 if v else 1), tall * (1.1 if v else 0.9), lean=0.2)
    if v == 1:
        k.ball(x, 0, h * 0.52, 0.09, w * 0.36, tall * 0.45, "pale")
    else:
        k.box(x + 0.03, w * 0.1, h * 0.5, 0.02, w * 0.5, tall * 0.4, "pale", lean=0.2)


def fan(k, d, w, h, v):
    r = min(w * 0.5, h * 0.42)
    hub, x = (h - r, 0.06) if v != 2 else (r, d * 0.39)
    if v == 2:  # a box fan
        k.box(0, 0, 0, d * 0.7, 2 * r, 2 * r)
        k.rod((d * 0.34, 0, r), (d * 0.37, 0, r), r * 0.9, "dark")
    else:
        k.tube(0, 0, 0, r * 0.75, 0.05, tone=0.9, top=r * 0.5)
        k.tube(0, 0, 0.03, 0.03, hub - 0.03, "metal")
        k.rod((-r * 0.5, 0, hub), (0.04, 0, hub), r * 0.3, tone=0.85, top=r * 0.4)
        k.rod((0, 0, hub), (0.012, 0, hub), r, "metal", 0.55)
    n = 4 if v == 1 else 3
    for a in 0.5 + np.arange(n) * 2 * np.pi / n:
        y, z = np.cos(a) * r, np.sin(a) * r
        k.rod(
            (x, y * 0.1, hub + z * 0.1),
            (x, y * 0.9, hub + z * 0.9),
            r * 0.12,
            tone=1.15,
            top=r * 0.42,
            flat=0.05,
        )
    k.ball(x, 0, hub - r * 0.14, 0.08, r * 0.28, r * 0.28, "pale")


def fireplace(k, d, w, h, v):
    look = BRICK if v else PLAIN
    k.box(0, w * 0.38, 0, d * 0.9, w * 0.22, h * 0.82, look=look, both=True)
    k.box(0, 0, h * 0.6, d * 0.9, w * 0.98, h * 0.3, look=look)
    k.box(0, 0, h * 0.8, d, w, h * 0.2 - 0.06, tone=0.9)
    k.box(0, 0, h - 0.07, d * 1.1, w * 1.06, 0.07, "wood" if v else "main", 1.1)
    k.box(-d * 0.4, 0, 0, d * 0.1, w * 0.6, h * 0.65, "dark", 0.6)
    k.box(0, 0, 0, d * 0.8, w * 0.55, 0.04, "dark", 0.8)
    k.rod((d * 0.1, -w * 0.2, 0.07), (d * 0.1, w * 0.2, 0.1), 0.04, "wood", 0.7)
    k.rod(
        (0, w * 0.1, 0.08), (0, w * 0.12, h * 0.4), w * 0.09, "fire", top=0.01, look=GLOW, both=True
    )
    if v == 2:  # a tapering chimney breast
        k.tube(-d * 0.05, 0, h, w * 0.45, h * 0.5, top=w * 0.2, squash=d / w * 0.9, look=BRICK)
    else:
        k.top = (h, 0, 0, d * 0.9, w)


def fridge(k, d, w, h, v):
    k.box(-0.02, 0, 0.04, d * 0.94, w, h - 0.04, tone=0.9)
    k.box(-0.04, 0, 0, d * 0.8, w * 0.9, 0.05, "dark")
    if v == 2:  # side by side
        k.box(d * 0.47, w * 0.25, 0.06, 0.06, w * 0.49, h - 0.08, tone=1.06, both=True)
        k.box(d * 0.52, w * 0.04, h * 0.4, 0.05, 0.03, h * 0.35, "metal", both=True)
        k.box(d * 0.505, -w * 0.25, h * 0.55, 0.03, w * 0.2, h * 0.12, "dark")
        return
    split = h * (0.34 if v else 0.66)
    for z, tall in ((0.06, split - 0.08), (split, h - split - 0.01)):
        k.box(d * 0.47, 0, z, 0.06, w * 0.99, tall, tone=1.06)
        k.box(d * 0.53, -w * 0.4, z + tall * 0.25, 0.04, 0.03, tall * 0.5, "metal")


def globe(k, d, w, h, v):
    r = min(d, w, h * 0.8) / 2
    z = h - 2 * r
    k.ball(0, 0, z, 1.9 * r, 1.9 * r, 1.92 * r, look=LAND)
    k.tube(0, 0, 0, r * 0.62, 0.04, "wood", top=r * 0.5)
    k.tube(0, 0, 0.02, 0.03, max(z, 0.04), "wood" if v else "metal", top=0.02)
    if v == 2:
        k.rod((0, 0, h - r - 0.02), (0, 0, h - r + 0.02), r * 1.1, "wood")
    else:
        arc = [
            (0, r * 0.99 * np.cos(t), z + r + r * 0.99 * np.sin(t))
            for t in np.linspace(-1.9, 1.5, 7)
        ]
        for p, q in zip(arc, arc[1:]):
            k.rod(p, q, 0.012 + 0.02 * r, "metal")
    for a in (0, 2.1, 4.2) if v == 1 else ():
        k.rod(
            (r * 0.8 * np.cos(a), r * 0.8 * np.sin(a), 0.02),
            (0, 0, max(z, 0.06) * 0.8),
            0.02,
            "wood",
        )


def guitar(k, d, w, h, v):
    body, lean = h * 0.42, 0.12 * h
    face = lean * 0.42 + 0.06  # x of the body's front
    for z, r in ((h * 0.08, 0.5), (h * 0.27, 0.38)):
        c = lean * (0.5 - z / h)
        k.rod((c - 0.04, 0, z + r * w * 0.7), (c + 0.06, 0, z + r * w * 0.7 + 0.01), w * r)
    if v == 1:  # electric
        k.box(face, 0, h * 0.19, 0.03, w * 0.36, h * 0.04, "dark")
        k.box(face, 0, h * 0.3, 0.03, w * 0.3, h * 0.04, "pale")
        k.rod(
            (lean * 0.2, w * 0.2, body * 0.8),
            (lean * 0.1, w * 0.5, body * 1.2),
            w * 0.13,
            top=0.02,
            both=True,
        )
    elif v == 0:
        k.rod((face - 0.03, 0, h * 0.28), (face + 0.01, 0, h * 0.283), w * 0.17, "dark")
    else:  # a banjo, whose body is one drum
        k.rod((face - 0.03, 0, h * 0.2), (face + 0.01, 0, h * 0.203), w * 0.34, "pale")
    k.rod((lean * 0.25 + 0.05, 0, body * 0.75), (-lean * 0.45 + 0.03, 0, h * 0.9), 0.028, "wood")
    k.box(-lean * 0.48 + 0.02, 0, h * 0.88, 0.04, 0.09, h * 0.12, "wood", 0.8, lean=0.1)
    k.box(face, 0, h * 0.12, 0.04, w * 0.3, 0.03, "dark")
    k.rod((d * 0.45, w * 0.4, 0.02), (-d * 0.1, 0, h * 0.3), 0.014, "metal", both=True)
    k.rod((-d * 0.5, 0, 0.02), (-d * 0.1, 0, h * 0.34), 0.014, "metal")


def ladder(k, d, w, h, v):
    lean = 0.93 if v == 1 else 0.5  # variant 1 leans, the others are stepladders
    k.rod((d * 0.48, w * 0.48, 0.03), (d * (0.48 - lean), w * 0.36, h), 0.03, both=True)
    if v != 1:
        k.rod((-d * 0.48, w * 0.46, 0.03), (-d * 0.02, w * 0.34, h), 0.025, tone=0.85, both=True)
        k.box(0, 0, h - 0.03, d * 0.22, w * 0.8, 0.05, tone=1.1)
    for t in (np.arange(5) + 0.8) / 5.4:
        x, y = d * (0.48 - t * lean), w * (0.48 - 0.12 * t)
        if v == 2:
            k.box(x, 0, t * h, d * 0.2, 2 * y, 0.035)
        else:
            k.rod((x, -y, t * h), (x, y, t * h), 0.024, tone=1.1)


def lamp(k, d, w, h, v):
    r = min(d, w) / 2
    shade = min(0.28 * h + 0.08, 2.2 * r)
    k.tube(0, 0, 0, r * 0.62, 0.035, "metal", top=r * 0.5)
    if h < 0.8 and v != 2:  # a table lamp has a round belly
        k.ball(0, 0, 0.02, r * 0.9, r * 0.9, h - shade - 0.02, "wood")
    k.tube(0, 0, 0.03, 0.02, h - shade * 0.5 - 0.03, "metal")
    if v == 2:
        k.ball(0, 0, h - 2 * r, 2 * r, 2 * r, 2 * r, look=GLOW)
    else:
        k.tube(0, 0, h - shade, r, shade, top=r * (0.45 if v else 1), look=GLOW)
        k.ball(0, 0, h - 0.01, 0.04, 0.04, 0.04, "metal")


def laptop(k, d, w, h, v):
    lean = (0.25, 0.5, 0.1)[v]
    k.box(0, 0, 0, d, w, 0.03)
    k.box(-d * 0.05, 0, 0.028, d * 0.42, w * 0.8, 0.006, "dark", look=KEYS if v else PLAIN)
    k.box(d * 0.36, 0, 0.028, d * 0.16, w * 0.25, 0.005, "pale")
    x = -d * 0.5 - np.sin(lean) * h * 0.5
    k.box(x, 0, 0.015, 0.02, w, h, lean=lean)
    k.box(
        x + 0.01, 0, 0.015 + h * 0.14, 0.007, w * 0.78, h * 0.7, "dark", 1.3, lean=lean, look=SHEEN
    )
    if v == 2:
        k.rod((-d * 0.5, -w * 0.4, 0.025), (-d * 0.5, w * 0.4, 0.025), 0.025, "metal")


def mirror(k, d, w, h, v):
    for x, tone in ((d / 2, 1), (-d / 2, 0.85)):
        k.rod((x, w * 0.4, 0.02), (-d * 0.02, w * 0.42, h * 0.55), 0.026, tone=tone, both=True)
    if v == 0:
        k.box(0, 0, h * 0.1, 0.06, w, h * 0.9, lean=0.06)
        k.box(
            0.03,
            0,
            h * 0.1 + w * 0.17,
            0.012,
            w * 0.66,
            h * 0.9 - w * 0.34,
            "glass",
            lean=0.06,
            look=SHEEN,
        )
    elif v == 1:
        k.ball(0, 0, h * 0.1, 0.1, w, h * 0.9)
        k.ball(
            0.035, 0, h * 0.1 + w * 0.17, 0.07, w * 0.66, h * 0.9 - w * 0.34, "glass", look=SHEEN
        )
    else:
        r = min(w, h * 0.8) / 2
        k.rod((-0.02, 0, h - r), (0.03, 0, h - r), r)
        k.rod((0.025, 0, h - r), (0.04, 0, h - r), r * 0.74, "glass", look=SHEEN)


def piano(k, d, w, h, v):
    key = h * 0.58
    if v == 2:  # a grand with its lid up
        key, x = 0.62 * h + 0.1, d * 0.4
        k.box(0, 0, key - 0.12, d * 1.1, w, 0.2)
        k.tube(-d * 0.55, w * 0.12, key - 0.12, w * 0.37, 0.2, tone=0.95, squash=1.5)
        k.box(-d * 0.35, w * 0.42, key + 0.1, d * 1.2, 0.04, w * 0.55, tone=1.1)
        for x, y in ((-1.1, 0.1), (0.4, -0.42), (0.4, 0.42)):
            k.tube(x * d, y * w, 0, 0.05, key - 0.1, tone=0.8)
        k.box(d * 0.42, 0, key + 0.07, d * 0.26, w * 0.88, 0.025, "keys", look=KEYS)
        return
    k.box(-d * 0.25, 0, 0, d * 0.5, w, h)
    k.box(-d * 0.25, 0, h, d * 0.54, w * 1.02, 0.04, tone=0.8)
    k.top = (h + 0.04, -d * 0.25, 0, d * 0.5, w)
    k.box(d * 0.2, 0, key - 0.1, d * 0.6, w * 0.98, 0.1)
    k.box(d * 0.33, 0, key + 0.005, d * 0.3, w * 0.88, 0.025, "keys", look=KEYS)
    k.box(d * 0.2, w * 0.475, key - 0.02, d * 0.6, w * 0.045, 0.09, tone=0.9, both=True)
    if v:
        k.tube(d * 0.4, w * 0.45, 0, 0.035, key - 0.05, tone=0.9, top=0.05, both=True)
    else:
        k.box(d * 0.15, w * 0.47, 0, d * 0.65, w * 0.05, key - 0.05, tone=0.9, both=True)
    k.box(0.01, 0, key + 0.1, 0.02, w * 0.4, h * 0.2, "pale", lean=0.15)


def plant(k, d, w, h, v):
    r, pot = min(d, w) / 2, h * 0.3
    k.tube(0, 0, 0, r * 0.4, pot, "pale" if v else "wood", top=r * 0.6)
    k.tube(0, 0, pot * 0.86, r * 0.65, pot * 0.18, "pale" if v else "wood", 1.1)
    k.tube(0, 0, pot * 0.98, r * 0.55, pot * 0.08, "dark")
    if v == 2:  # a cactus
        k.tube(0, 0, pot, r * 0.4, (h - pot) * 0.9)
        k.ball(0, 0, h - r * 0.55, r * 0.8, r * 0.8, r * 0.55)
        for s in (-1, 1):
            y, z = s * r * 0.82, pot + (h - pot) * (0.35 + 0.1 * s)
            k.rod((0, 0, z), (0, y, z), r * 0.18)
            k.rod((0, y, z - r * 0.1), (0, y, z + (h - pot) * 0.35), r * 0.18, tone=1.1)
    for i in range(6 if v < 2 else 0):  # a bush, or long blades
        x, y = r * np.cos(2.4 * i), r * np.sin(2.4 * i)
        if v == 0:
            k.ball(
                x * 0.42,
                y * 0.42,
                pot + (h - pot) * 0.1 * i,
                r,
                r,
                (h - pot) * 0.5,
                tone=0.75 + 0.09 * i,
            )
        else:
            tip = (x * 0.85, y * 0.85, h * (0.8 + 0.2 * (i % 2)))
            k.rod((0, 0, pot), tip, r * 0.2, tone=0.8 + 0.2 * (i % 3), top=0.01)


def radiator(k, d, w, h, v):
    n = 6 if v == 1 else 8
    for i in range(n):
        y, z = (i - (n - 1) / 2) * w * 0.92 / n, 0.12 + (h - 0.16) * i / (n - 1)
        if v == 0:
            k.box(0, y, 0.08, d, w * 0.6 / n, h - 0.08, tone=1.04)
        elif v == 1:
            k.tube(0, y, 0.08, w * 0.4 / n, h - 0.1, squash=min(1, d * n / w))
        else:  # a towel rail
            k.rod((0, -w * 0.45, z), (0, w * 0.45, z), 0.03)
    for z in (0.14, h * 0.86):
        k.rod((0, -w * 0.48, z), (0, w * 0.48, z), d * 0.25, tone=0.85)
    k.tube(0, w * 0.47, 0, 0.03, h if v == 2 else h * 0.3, "main" if v == 2 else "metal", both=True)


def sink(k, d, w, h, v):
    deep, rim, s = 0.18, h * 0.82, min(1, 0.8 * d / w)
    if v == 0:  # on a pedestal
        k.tube(0, 0, 0, 0.13, 0.05, tone=0.95, top=0.1)
        k.tube(-d * 0.1, 0, 0.03, 0.09, rim - 0.1, tone=0.95, top=0.11)
        k.ball(0, 0, rim - deep * 1.3, d * 0.96, w * 0.96, deep * 2, tone=0.97)
        bowl, r = rim + deep * 0.55, w * 0.36
    else:  # in a cabinet, or as a basin on top of one
        k.box(0, 0, 0.05, d * 0.9, w * 0.95, rim - 0.08, tone=0.9)
        k.box(0, 0, rim - 0.05, d, w, 0.05)
        k.box(d * 0.46, w * 0.235, 0.1, 0.02, w * 0.43, rim - 0.22, tone=1.1, both=True)
        bowl, r = rim, w * 0.38
        if v == 2:
            bowl, r, s = rim + 0.12, min(d, w) * 0.37, 1.0
            k.tube(0, 0, rim, r * 0.8, 0.12, "wood", top=r * 1.1)
    k.tube(d * 0.06 * (v < 2), 0, bowl - 0.01, r, 0.025, "pale", 1.05, squash=s)
    k.tube(d * 0.06 * (v < 2), 0, bowl + 0.008, r * 0.78, 0.01, "dark", 3.2, squash=s)
    k.tube(-d * 0.4, 0, rim - 0.02, 0.022, h - rim + 0.02, "metal")
    k.rod((-d * 0.4, 0, h - 0.02), (-d * 0.05, 0, h - 0.06), 0.02, "metal")
    k.ball(-d * 0.4, 0.1, bowl, 0.05, 0.05, 0.06, "metal", both=True)


def sofa(k, d, w, h, v):
    seat, arm, n = h * 0.45, min(0.22, w * 0.12), 3 if w > 2 else 2
    k.box(0, 0, 0.08, d * 0.95, w, seat * 0.6, tone=0.85)
    for i in range(n):
        run = (w - 2 * arm) / n
        k.box(
            d * 0.08,
            (i - (n - 1) / 2) * run,
            seat * 0.7,
            d * 0.82,
            run * 0.96,
            seat * 0.38,
            tone=1.12,
        )
    k.box(-d * 0.4, 0, 0.08, d * 0.2, w * 0.98, h - 0.08)
    y, z = (w - arm) / 2, seat * 1.3
    if v == 1:
        k.rod((-d * 0.48, y, z), (d * 0.48, y, z), arm * 0.6, both=True)
    if v == 2:  # a corner sofa: one arm, a chaise on the other side
        k.box(d * 0.75, w * 0.33, 0.08, d * 0.7, w * 0.33, seat * 0.95, tone=1.05)
    k.box(0, -y, 0.08, d * 0.95, arm, seat * (1.2 if v else 1.45) - 0.08, tone=0.95, both=v != 2)
    k.box(d * 0.3, w * 0.42, 0, 0.06, 0.06, 0.09, "dark", both=True)


def stool(k, d, w, h, v):
    r = min(d, w) / 2
    k.top = (h, 0, 0, r * 1.3, r * 1.3)
    if v == 0:
        k.legs(r * 1.2, r * 1.2, h - 0.04, 0.02, splay=r * 0.3)
        k.tube(0, 0, h - 0.13, r * 0.9, 0.13, top=r)
    elif v == 1:
        k.tube(0, 0, 0, r * 0.8, 0.03, "metal", top=r * 0.6)
        k.tube(0, 0, 0.02, 0.028, h - 0.08, "metal")
        k.tube(0, 0, h * 0.35, r * 0.55, 0.02, "metal")
        k.tube(0, 0, h - 0.14, r, 0.14, top=r * 0.95)
    else:
        k.legs(r * 1.7, r * 1.7, h - 0.04, 0.022)
        k.box(0, 0, h - 0.14, r * 2, r * 2, 0.14)
        k.rod((0, -r * 0.8, h * 0.3), (0, r * 0.8, h * 0.3), 0.018, "wood")


def stove(k, d, w, h, v):
    hob = h * 0.86
    k.box(0, 0, 0.04, d * 0.95, w, hob - 0.04)
    k.box(0, 0, hob, d, w, 0.03, "dark")
    k.box(d * 0.47, 0, h * 0.14, 0.03, w * 0.8, h * 0.4, "dark", 1.4, look=SHEEN)
    k.rod((d * 0.52, -w * 0.38, h * 0.61), (d * 0.52, w * 0.38, h * 0.61), 0.018, "metal")
    for x in (-d * 0.22, d * 0.22):
        k.tube(x, w * 0.24, hob + 0.02, min(d, w) * 0.17, 0.02, "metal", both=True)
    if v == 0:
        k.box(-d * 0.46, 0, hob, 0.05, w, h * 0.14)
    elif v == 1:
        for y in (w * 0.11, w * 0.33):
            k.ball(d * 0.45, y, h * 0.73, 0.08, 0.06, 0.06, "metal", both=True)
    else:  # an extractor hood above
        k.box(-d * 0.46, 0, hob, 0.04, w * 0.4, h * 0.9)
        k.tube(-d * 0.15, 0, h * 1.5, w * 0.5, h * 0.26, top=w * 0.18, squash=0.7 * d / w)


def table(k, d, w, h, v):
    k.top = (h, 0, 0, d, w)
    if v == 1:  # round, on one column
        r = min(d, w) / 2
        k.tube(0, 0, h - 0.06, r, 0.06)
        k.tube(0, 0, 0.03, 0.06, h - 0.06, "wood")
        k.tube(0, 0, h * 0.35, 0.09, h * 0.12, "wood", top=0.05)
        k.tube(0, 0, 0, r * 0.55, 0.05, "wood", top=r * 0.4)
        k.top = (h, 0, 0, r * 1.4, r * 1.4)
        return
    k.box(0, 0, h - 0.06, d, w, 0.06)
    if v == 0:
        k.box(0, 0, h - 0.13, d * 0.85, w * 0.85, 0.08, tone=0.8)
        k.legs(d * 0.94, w * 0.94, h - 0.04, 0.035)
    else:  # on trestles
        for x in (-1, 1):
            k.rod(
                (x * d * 0.45, w * 0.38, 0.03),
                (-x * d * 0.35, w * 0.38, h - 0.05),
                0.03,
                "wood",
                both=True,
            )
        k.rod((0, -w * 0.38, h * 0.47), (0, w * 0.38, h * 0.47), 0.025, "wood")


def teddy(k, d, w, h, v):
    r = min(d, w, h * 0.7)
    k.ball(0, 0, 0, r * 0.75, r * 0.8, h * 0.6)
    k.ball(0, 0, h * 0.5, r * 0.62, r * 0.68, h * 0.44, tone=1.08)
    k.ball(r * 0.2, 0, h * 0.56, r * 0.3, r * 0.3, h * 0.17, "pale")
    k.ball(r * 0.3, 0, h * 0.64, r * 0.1, r * 0.12, h * 0.05, "dark")
    k.ball(r * 0.22, r * 0.14, h * 0.72, r * 0.1, r * 0.09, h * 0.05, "dark", both=True)
    if v == 2:  # a rabbit
        k.ball(-0.02, r * 0.17, h * 0.85, r * 0.14, r * 0.17, h * 0.42, tone=0.95, both=True)
    else:
        k.ball(0, r * 0.27, h * 0.84, r * 0.16, r * 0.26, h * 0.17, tone=0.9, both=True)
    k.ball(r * 0.35, r * 0.27, 0, r * 0.55, r * 0.28, h * 0.2, tone=0.93, both=True)
    k.rod(
        (0, r * 0.3, h * 0.48),
        (r * 0.22, r * 0.5, h * (0.6 if v == 1 else 0.3)),
        r * 0.13,
        tone=0.93,
        both=True,
    )


def television(k, d, w, h, v):
    if v == 2:  # an old set with aerials
        k.box(0, 0, 0, d, w, h * 0.98)
        k.box(d * 0.5, w * 0.08, h * 0.2, 0.02, w * 0.66, h * 0.64, "dark", 0.8, look=SHEEN)
        for i in range(2):
            k.ball(d * 0.5, -w * 0.4, h * (0.5 + 0.22 * i), 0.06, w * 0.08, w * 0.08, "metal")
        k.rod((0, 0, h), (0, w * 0.4, h * 1.35), 0.012, "metal", both=True)
        return
    tall = min(w * 0.56, h * 0.6)
    low = h - tall
    k.box(-0.02, 0, low, 0.05, w, tall)
    k.box(0.01, 0, low + tall * 0.1, 0.02, w * 0.9, tall * 0.8, "dark", look=SHEEN)
    if v == 0:  # on a cabinet
        k.box(-0.02, 0, low - 0.09, 0.05, 0.16, 0.1, "metal")
        k.box(0, 0, 0.04, d, w * 1.05, low - 0.12)
        k.box(d * 0.5, w * 0.26, 0.08, 0.02, w * 0.48, max(low - 0.2, 0.06), tone=1.12, both=True)
    else:  # on an open rack
        for z in (0, low * 0.45, low - 0.05):
            k.box(0, 0, z, d, w, 0.06)
        k.box(0, w * 0.47, 0, d, 0.06, low, tone=0.9, both=True)


def toilet(k, d, w, h, v):
    rim, s = h * 0.5, min(1.4, d * 0.68 / w)
    k.tube(d * 0.05, 0, 0, w * 0.28, rim * 0.7, top=w * 0.36, squash=1.1)
    k.ball(d * 0.14, 0, rim * 0.35, d * 0.66, w * 0.96, rim * 1.1, tone=0.97)
    k.tube(d * 0.15, 0, rim * 0.86, w * 0.5, 0.06, tone=1.06, squash=s)
    k.tube(d * 0.16, 0, rim * 0.86 + 0.055, w * 0.33, 0.012, "dark", 2.4, squash=s)
    if v == 0:
        k.box(-d * 0.38, 0, rim * 0.7, d * 0.24, w, h - rim * 0.7 - 0.03)
        k.box(-d * 0.38, 0, h - 0.04, d * 0.26, w * 1.05, 0.04, tone=1.06)
        k.ball(-d * 0.38, 0, h - 0.01, 0.06, 0.06, 0.03, "metal")
    elif v == 1:  # the lid stands open
        k.box(-d * 0.4, 0, rim * 0.7, d * 0.2, w * 0.95, h * 0.25)
        k.rod((-d * 0.26, 0, h * 0.74), (-d * 0.3, 0, h * 0.745), w * 0.46, tone=1.06)
    else:  # a cistern high on the wall
        k.box(-d * 0.4, 0, h * 1.55, d * 0.2, w * 0.9, h * 0.35)
        k.tube(-d * 0.4, 0, rim * 0.5, 0.035, h * 1.5 - rim * 0.5, "metal")
        k.rod((-d * 0.3, w * 0.3, h * 1.1), (-d * 0.3, w * 0.3, h * 1.6), 0.012, "wood")


def vase(k, d, w, h, v):
    r = min(d, w) / 2
    if v == 0:
        k.ball(0, 0, 0, 2 * r, 2 * r, h * 0.5)
        k.tube(0, 0, h * 0.4, r * 0.4, h * 0.2, top=r * 0.6)
    elif v == 1:
        k.tube(0, 0, 0, r * 0.5, h * 0.4, top=r)
        k.tube(0, 0, h * 0.4, r, h * 0.15, top=r * 0.45)
        k.tube(0, 0, h * 0.55, r * 0.45, 0.03, tone=1.1, top=r * 0.6)
    else:
        k.box(0, 0, 0, r * 1.5, r * 1.5, h * 0.55)
        k.tube(0, 0, h * 0.53, r * 0.5, 0.04, "dark")
    for i in range(3):
        x, y, z = (
            r * 0.7 * np.cos(2.1 * i + 0.4),
            r * 0.7 * np.sin(2.1 * i + 0.4),
            h * (0.8 + 0.06 * i),
        )
        k.rod((0, 0, h * 0.5), (x, y, z), 0.009, "stem")
        k.ball(x, y, z - r * 0.2, r * 0.6, r * 0.6, r * 0.45, "bloom", 1 - 0.12 * i)


def wardrobe(k, d, w, h, v):
    k.box(0, 0, 0.05, d * 0.96, w, h - 0.1, tone=0.9)
    k.box(0, 0, h - 0.06, d * 1.02, w * 1.03, 0.06, tone=0.75)
    k.box(0, 0, 0, d * 0.9, w * 0.96, 0.06, "dark")
    z, tall = (h * 0.3, h * 0.64) if v == 1 else (0.1, h - 0.2)
    k.box(d * 0.48, w * 0.245, z, 0.03, w * 0.46, tall, tone=1.12, both=True)
    k.box(d * 0.51, w * 0.05, h * 0.5, 0.035, 0.03, 0.18, "metal", both=True)
    if v == 1:
        k.box(d * 0.48, 0, 0.09, 0.03, w * 0.95, h * 0.17, tone=1.12)
        k.ball(d * 0.5, 0, h * 0.15, 0.05, 0.1, 0.04, "metal")
    elif v == 2:  # mirrored door panels under a pediment
        k.box(d * 0.5, w * 0.245, h * 0.3, 0.02, w * 0.3, h * 0.5, "glass", look=SHEEN, both=True)
        k.tube(0, 0, h, w * 0.4, 0.14, tone=0.8, top=w * 0.2, squash=d / w * 0.8)


def washer(k, d, w, h, v):
    k.box(0, 0, 0.03, d * 0.96, w, h - 0.03)
    k.box(0, 0, h - 0.04, d, w * 1.01, 0.04, tone=1.08)
    k.box(0, 0, 0, d * 0.9, w * 0.9, 0.04, "dark")
    if v == 2:  # a top loader
        k.box(-d * 0.4, 0, h, d * 0.2, w, 0.16, tone=0.9)
        k.box(d * 0.08, 0, h - 0.005, d * 0.6, w * 0.8, 0.03, "dark", 1.5)
        k.ball(-d * 0.3, w * 0.3, h + 0.04, 0.07, 0.08, 0.08, "metal")
        return
    r, z, s = min(w, h) * 0.3, h * 0.45, 1 if v else -1
    k.rod((d * 0.46, 0, z), (d * 0.53, 0, z), r, "metal", top=r * 0.9)
    k.rod((d * 0.5, 0, z), (d * 0.545, 0, z), r * 0.72, "dark", 1.2, look=SHEEN)
    k.box(d * 0.475, s * w * 0.2, h * 0.83, 0.02, w * 0.4, h * 0.09, "pale")
    k.ball(d * 0.46, -s * w * 0.3, h * 0.835, 0.08, 0.08, 0.08, "metal")
    k.top = (h, 0, 0, d, w)


@dataclass(frozen=True)
class Spec:
    """A category: its builder, the limits (low, high) of its sides in metres, where it stands."""

    build: callable
    depth: tuple
    width: tuple
    height: tuple
    wall: bool = False  # stands with its back to a wall
    perch: bool = False  # may stand on another object's top


CATEGORIES = {
    "armchair": Spec(armchair, (0.5, 1.15), (0.5, 1.15), (0.5, 1.3)),
    "bathtub": Spec(bathtub, (0.5, 1.15), (0.9, 2.3), (0.4, 0.85), wall=True),
    "bed": Spec(bed, (0.95, 2.4), (0.6, 2.1), (0.5, 1.35), wall=True),
    "bookcase": Spec(bookcase, (0.25, 0.5), (0.6, 2.1), (0.8, 2.2), wall=True),
    "chair": Spec(chair, (0.3, 0.65), (0.3, 0.65), (0.5, 1.25)),
    "crib": Spec(crib, (0.45, 0.95), (0.65, 1.6), (0.55, 1.3), wall=True),
    "desk": Spec(desk, (0.42, 0.9), (0.8, 2.2), (0.5, 1.05), wall=True),
    "dresser": Spec(dresser, (0.35, 0.7), (0.55, 1.7), (0.5, 1.4), wall=True),
    "easel": Spec(easel, (0.45, 1.0), (0.4, 1.1), (0.8, 2.0)),
    "fan": Spec(fan, (0.3, 0.7), (0.3, 0.8), (0.5, 1.7)),
    "fireplace": Spec(fireplace, (0.3, 0.65), (0.8, 2.2), (0.7, 1.6), wall=True),
    "fridge": Spec(fridge, (0.45, 0.9), (0.45, 1.2), (0.8, 2.1), wall=True),
    "globe": Spec(globe, (0.25, 0.8), (0.25, 0.8), (0.35, 1.3), perch=True),
    "guitar": Spec(guitar, (0.3, 0.6), (0.28, 0.6), (0.7, 1.6)),
    "ladder": Spec(ladder, (0.5, 1.3), (0.35, 0.8), (0.9, 2.2)),
    "lamp": Spec(lamp, (0.22, 0.65), (0.22, 0.65), (0.4, 2.0), perch=True),
    "laptop": Spec(laptop, (0.16, 0.42), (0.25, 0.65), (0.16, 0.42), perch=True),
    "mirror": Spec(mirror, (0.3, 0.7), (0.4, 1.1), (0.85, 2.1)),
    "piano": Spec(piano, (0.45, 0.9), (0.85, 2.1), (0.75, 1.5), wall=True),
    "plant": Spec(plant, (0.3, 1.0), (0.3, 1.0), (0.4, 2.0), perch=True),
    "radiator": Spec(radiator, (0.1, 0.25), (0.45, 1.9), (0.4, 1.1), wall=True),
    "sink": Spec(sink, (0.35, 0.75), (0.4, 1.2), (0.6, 1.3), wall=True),
    "sofa": Spec(sofa, (0.6, 1.2), (1.25, 3.1), (0.5, 1.15), wall=True),
    "stool": Spec(stool, (0.26, 0.55), (0.26, 0.55), (0.3, 0.95)),
    "stove": Spec(stove, (0.35, 0.85), (0.35, 1.3), (0.5, 1.4), wall=True),
    "table": Spec(table, (0.5, 1.4), (0.6, 2.4), (0.35, 1.0)),
    "teddy": Spec(teddy, (0.3, 1.0), (0.3, 1.0), (0.35, 1.4), perch=True),
    "television": Spec(television, (0.2, 0.5), (0.6, 1.9), (0.6, 1.6), wall=True),
    "toilet": Spec(toilet, (0.42, 0.95), (0.28, 0.65), (0.45, 1.1), wall=True),
    "vase": Spec(vase, (0.14, 0.45), (0.14, 0.45), (0.25, 1.0), perch=True),
    "wardrobe": Spec(wardrobe, (0.35, 0.8), (0.5, 2.4), (1.0, 2.4), wall=True),
    "washer": Spec(washer, (0.4, 0.8), (0.4, 0.9), (0.5, 1.25), wall=True),
}


def draw_size(rng, category):
    """Draw depth, width and height [3] in metres.

    Two thirds of a side's place between its limits are common to all sides; one third is its own.
    """
    spec, common = CATEGORIES[category], rng.random()
    limits = (spec.depth, spec.width, spec.height)
    return np.array([lo + (hi - lo) * (2 * common + rng.random()) / 3 for lo, hi in limits])


def draw_paints(rng, split):
    """Draw an object's (colour name, {paint: sRGB [3]}).

    The shades of the ood split are duller and lighter.
    """
    name = str(rng.choice(sorted(COLOURS)))
    main = np.array(COLOURS[name]) * rng.uniform(0.9, 1.08) + rng.normal(0, 0.02, 3)
    if split == "ood":
        main = main * 0.85 + 0.06
    accents = {
        paint: np.array(tones[rng.integers(len(tones))]) * rng.uniform(0.88, 1.12)
        for paint, tones in ACCENTS.items()
    }
    return name, {"main": np.clip(main, 0.04, 0.97), **accents, **FIXED}


def build(category, size, paints, variant):
    """Build an object of about the given depth, width and height: size [3] in metres.

    Returns (parts, size, top). parts: they are moved so that their tight box is centred on x = y =
    0 and rests on z = 0. size: the true size [3] of this box. top: a free surface (z, x, y, depth,
    width) on which something may stand, or None.
    """
    kit = Kit(paints)
    CATEGORIES[category].build(kit, *size, variant)
    bounds = np.array([part.extent() for part in kit.parts])
    low, high = bounds[:, 0].min(0), bounds[:, 1].max(0)
    shift = np.append((low + high)[:2] / 2, low[2])
    for part in kit.parts:
        part.center = part.center - shift
    if kit.top:
        z, x, y, *sides = kit.top
        kit.top = (z - shift[2], x - shift[0], y - shift[1], *sides)
    return kit.parts, high - low, kit.top
