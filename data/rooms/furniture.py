"""Furniture from a few solids: 32 categories a person names at a glance.

A builder adds boxes, tubes (cylinders, frustums) and balls (ellipsoids) to a Kit, in metres and in the
object's own frame: x points to its front, y to its left, z up, z = 0 is the floor. Colour and shape variant
are drawn independently of the category, sizes over a twofold range or more, so that a name gives none of
them away. Variants 0 and 1 serve train, val and test; variant 2 is kept for the ood split. The paint "main"
carries the object's named colour and covers about half of it or more.

See every category and variant in one picture:  python -m data.rooms.render catalogue.png
"""
from dataclasses import dataclass, field

import numpy as np

BOX, TUBE, BALL = range(3)
PLAIN, GLOW, STRIPES, BOOKS, KEYS, BRICK, LAND, SHEEN = range(8)  # surface looks, drawn by render.py
VARIANTS = {"train": (0, 1), "val": (0, 1), "test": (0, 1), "ood": (2,)}

COLOURS = {  # sRGB anchors of the named main colours
    "red": (.78, .13, .14), "orange": (.93, .48, .10), "yellow": (.94, .80, .16), "green": (.20, .55, .22),
    "teal": (.08, .55, .56), "blue": (.16, .32, .74), "purple": (.45, .22, .62), "pink": (.93, .52, .66),
    "brown": (.42, .26, .14), "white": (.93, .92, .90), "grey": (.52, .53, .55), "black": (.11, .11, .12)}
ACCENTS = {"wood": ((.62, .43, .25), (.46, .29, .16), (.78, .62, .42), (.33, .20, .12)),
           "metal": ((.66, .68, .70), (.76, .62, .32), (.24, .25, .27), (.62, .42, .32)),
           "dark": ((.14, .14, .16), (.20, .17, .16), (.13, .17, .22)),
           "pale": ((.93, .90, .82), (.90, .91, .92), (.86, .83, .76))}
FIXED = {"water": (.55, .78, .86), "keys": (.95, .94, .90), "glass": (.74, .84, .90), "fire": (1., .55, .12),
         "stem": (.25, .50, .20), "bloom": (.95, .85, .30)}


@dataclass
class Part:
    """One solid: rot @ (half * unit solid) + center, in object metres.

    The unit solid is the cube [-1, 1]^3, the unit ball, or the tube |z| <= 1 whose radius runs linearly from
    radii[0] at z = -1 to radii[1] at z = 1.
    """
    kind: int
    center: np.ndarray  # [3]
    half: np.ndarray    # [3]
    rot: np.ndarray     # [3, 3]
    radii: tuple
    paint: str          # a key of ACCENTS or FIXED, or main
    rgb: np.ndarray     # [3] sRGB, 0..1
    look: int

    def extent(self):
        """[2, 3] exact lower and upper bounds of the solid in object axes."""
        axes = self.rot * self.half
        if self.kind == TUBE:  # the hull of two end discs
            disc = np.sqrt((axes[:, :2] ** 2).sum(1))
            ends = [axes[:, 2] * s + disc * r * o for s, r in zip((-1, 1), self.radii) for o in (-1, 1)]
            return self.center + np.array([np.min(ends, 0), np.max(ends, 0)])
        reach = np.abs(axes).sum(1) if self.kind == BOX else np.sqrt((axes ** 2).sum(1))
        return self.center + np.array([-reach, reach])


@dataclass
class Kit:
    """Collects parts. x, y: a part's middle, z: its underside, metres; both: add its mirror image at -y."""
    paints: dict
    parts: list = field(default_factory=list)
    top: tuple = None  # (z, x, y, depth, width) of a flat surface that small objects may stand on

    def _add(self, kind, center, half, paint, tone, rot=None, radii=(1., 1.), look=PLAIN, both=False):
        rgb = np.clip(np.array(self.paints[paint]) * tone, 0, 1)
        rot = np.eye(3) if rot is None else rot
        for side in (1, -1) if both else (1,):
            flip = np.array([1, side, 1])
            self.parts.append(Part(kind, center * flip, np.maximum(half, .004), rot * flip * flip[:, None],
                                   radii, paint, rgb, look))

    def box(self, x, y, z, d, w, h, paint="main", tone=1., lean=0., look=PLAIN, both=False):
        """A box, d deep along x, w wide, h high, leaning back by `lean` radians about its middle."""
        c, s = np.cos(lean), np.sin(lean)
        self._add(BOX, (x, y, z + h / 2), (d / 2, w / 2, h / 2), paint, tone,
                  np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]]), look=look, both=both)

    def ball(self, x, y, z, d, w, h, paint="main", tone=1., look=PLAIN, both=False):
        """An ellipsoid with diameters d, w, h."""
        self._add(BALL, (x, y, z + h / 2), (d / 2, w / 2, h / 2), paint, tone, look=look, both=both)

    def tube(self, x, y, z, r, h, paint="main", tone=1., top=None, squash=1., look=PLAIN, both=False):
        """An upright frustum of radius r below and `top` above; squash scales it along x."""
        top = r if top is None else top
        wide = max(r, top)
        self._add(TUBE, (x, y, z + h / 2), (wide * squash, wide, h / 2), paint, tone, None,
                  (r / wide, top / wide), look, both)

    def rod(self, p, q, r, paint="main", tone=1., top=None, flat=1., look=PLAIN, both=False):
        """A frustum from point p (radius r) to point q (radius top); flat scales a sideways one along x."""
        p, q = np.array(p, float), np.array(q, float)
        z = (q - p) / np.linalg.norm(q - p)
        x = np.array([1., 0, 0]) if abs(z[0]) < .9 else np.array([0, 1., 0])
        x -= z * (x @ z)
        x /= np.linalg.norm(x)
        top = r if top is None else top
        wide = max(r, top)
        self._add(TUBE, (p + q) / 2, (wide * flat, wide, np.linalg.norm(q - p) / 2), paint, tone,
                  np.stack([x, np.cross(z, x), z], 1), (r / wide, top / wide), look, both)

    def legs(self, d, w, h, r, paint="wood", splay=0., tone=1.):
        """Four legs that meet the corners of d x w at height h, their feet `splay` metres further out."""
        for s in (-1, 1):
            x, y = s * (d / 2 - r), w / 2 - r
            foot = (x + s * splay, y + splay, r * .3 if splay else 0)
            self.rod(foot, (x, y, h), r * .75, paint, tone, top=r, both=True)


def armchair(k, d, w, h, v):
    seat, arm = h * .45, w * .19
    k.box(0, 0, .09, d * .95, w * .95, seat * .6, tone=.85)
    k.box(d * .08, 0, seat * .75, d * .8, w - 2 * arm, seat * .35, tone=1.1)
    if v == 2:
        k.tube(-d * .25, 0, seat * .7, w * .5, h - seat * .7, top=w * .42, squash=.45)
    else:
        k.box(-d * .4, 0, .09, d * .2, w * .9, h - .09, lean=.08)
    if v == 1:
        y, z = (w - arm) / 2, seat * 1.25
        k.rod((-d * .45, y, z), (d * .47, y, z), arm * .62, both=True)
    k.box(0, (w - arm) / 2, .09, d * .92, arm, seat * (1.15 if v == 1 else 1.4) - .09, tone=.95, both=True)
    k.legs(d * .8, w * .85, .1, .03, "dark")


def bathtub(k, d, w, h, v):
    rim = h * .78
    if v == 1:
        k.box(0, 0, 0, d, w, rim - .02)
        k.box(0, 0, rim - .05, d * 1.03, w * 1.02, .05, tone=1.08)
        k.box(0, 0, rim - .01, d * .74, w * .84, .014, "water")
    else:
        s = d / w
        k.tube(0, 0, .1 if v == 0 else 0, w * .38, rim - .1, top=w * .48, squash=s)
        k.tube(0, 0, rim - .05, w * .5, .06, tone=1.08, squash=s)
        k.tube(0, 0, rim, w * .43, .014, "water", squash=s * .9)
        if v == 0:
            for x in (-1, 1):
                k.ball(x * d * .28, w * .28, 0, .1, .1, .16, "metal", both=True)
    k.tube(-d * .1, -w * .45, rim - .02, .025, h * .24, "metal")
    k.rod((-d * .1, -w * .46, h), (-d * .1, -w * .34, h - .03), .022, "metal")
    if v == 2:  # a shower pole
        k.tube(-d * .35, w * .42, rim, .02, 1.1, "metal")
        k.rod((-d * .35, w * .42, rim + 1.09), (0, w * .3, rim + 1.09), .02, "metal")
        k.tube(0, w * .3, rim + 1., .11, .07, "metal", top=.03)


def bed(k, d, w, h, v):
    deck = .28 + .2 * h
    k.box(0, 0, .07, d, w, deck * .5, "wood")
    k.box(0, 0, deck * .5, d * .97, w * .95, deck * .42, "pale")
    k.box(d * .14, 0, deck * .38, d * .7, w * 1.01, deck * .6, look=STRIPES if v == 1 else PLAIN)
    wide = w > 1.1
    k.box(-d * .36, w * .24 * wide, deck * .9, d * .16, w * (.4 if wide else .7), .1, "pale", 1.06, both=wide)
    if v == 1:
        k.tube(-d / 2, w / 2, 0, .04, max(h, deck * 1.5), "metal", both=True)
        for z in (.95, .75):
            k.rod((-d / 2, -w / 2, h * z), (-d / 2, w / 2, h * z), .03, "metal")
        return
    k.box(-d / 2, 0, 0, .07, w * 1.02, max(h, deck * 1.6), tone=.85)
    if v == 2:  # a four-poster
        k.legs(d * 1.02, w * 1.02, 1.3 + .5 * h, .045)
        k.box(0, 0, 1.3 + .5 * h, d * 1.02, w * 1.02, .05)


def bookcase(k, d, w, h, v):
    k.box(-d * .46, 0, 0, d * .08, w, h, tone=.75)
    k.box(0, w / 2 - .03 if v != 2 else 0, 0, d, .06, h, both=v != 2)
    n = 4 if h > 1.4 else 3
    for i in range(n + 1):
        z = i * (h - .05) / n
        k.box(0, 0, z, d * .99, w, .05, tone=1.05)
        if i < (n if v != 1 else n - 1):
            run = w * (.72 if (i + v) % 2 else .5)
            k.box(-.02, (w * .9 - run) / 2 * (-1) ** i, z + .04, d * .7, run, (h / n) * (.55 + .1 * (i % 2)),
                  "pale", look=BOOKS)


def chair(k, d, w, h, v):
    seat, frame = h * .48, "metal" if v == 1 else "wood"
    k.legs(d * .9, w * .9, seat, .022, frame, splay=.03 if v == 1 else 0.)
    if v == 2:
        k.tube(0, 0, seat, d * .5, .06)
        k.ball(-d * .42, 0, seat + .04, .08, w * .95, h - seat, tone=.92)
        return
    k.box(0, 0, seat - .01, d, w, .055)
    k.box(-d * .47, 0, h * (.62 if v else .7), .05, w, h * (.38 if v else .3), tone=.92)
    k.box(-d * .47, w * .4, seat, .04, .04, h * .35, frame, both=True)


def crib(k, d, w, h, v):
    deck = h * .4
    k.box(0, 0, deck, d * .94, w * .94, .1, "pale")
    k.legs(d, w, h, .035, "main", tone=.9)
    for x in (-d * .47, d * .47):
        for z in (h * .93, deck):
            k.rod((x, -w / 2, z), (x, w / 2, z), .03)
        for i in range(5):
            k.rod((x, (i - 2) * w * .17, deck), (x, (i - 2) * w * .17, h * .93), .016)
    k.box(0, w * .48, deck - .03, d * .95, .03, (h - deck) * (.6 if v else 1), tone=.95, both=True)
    k.box(0, w * .2, deck + .09, d * .8, w * .45, .06, tone=1.1)
    if v == 2:  # a cradle on rockers, with a hood
        for x in (-d / 2, d / 2):
            k.rod((x, -w * .55, .04), (x, w * .55, .04), .04, "wood")
        k.tube(0, -w * .4, h, d * .5, .3, top=.03)


def desk(k, d, w, h, v):
    k.box(0, 0, h - .045, d, w, .045, tone=1.05)
    k.box(-d * .46, 0, h * .3, .03, w * .96, h * .65, tone=.8)
    k.top = (h, 0, 0, d, w)
    if v == 2:
        k.legs(d * .9, w * .95, h - .04, .03, "metal", splay=.05)
        k.box(d * .1, 0, h - .17, d * .7, w * .8, .13, tone=.9)
        k.ball(d * .46, w * .2, h - .13, .04, .08, .03, "metal", both=True)
        return
    k.box(0, w * .33, 0, d * .95, w * .3, h - .04, tone=.92)
    n = 3 if v else 2
    for i in range(n):
        k.box(d * .475, w * .33, h * (.06 + .88 * i / n), .02, w * .26, h * .78 / n, tone=1.15)
        k.box(d * .49, w * .33, h * (.06 + .88 * (i + .4) / n), .03, w * .09, .025, "metal")
    if v:
        k.box(0, -w * .47, 0, d * .9, .04, h - .04, tone=.92)
    else:
        for x in (-d * .44, d * .44):
            k.box(x, -w * .46, 0, .045, .045, h - .04, "metal")


def dresser(k, d, w, h, v):
    k.box(0, 0, .06, d * .95, w * .98, h - .1, tone=.85)
    k.box(0, 0, h - .04, d, w, .04, tone=1.05)
    k.box(0, 0, 0, d * .85, w * .9, .07, "dark")
    k.top = (h, 0, 0, d, w)
    n = 3 if v != 2 else 5
    for i in range(n):
        z, tall = .1 + i * (h - .16) / n, (h - .16) / n * .88
        k.box(d * .475, 0, z, .03, w * .92, tall, tone=1.12)
        k.ball(d * .475, w * .24 * (v == 0), z + tall * .4, .09, w * .3 if v == 1 else .06, .05, "metal",
               both=v == 0)


def easel(k, d, w, h, v):
    k.rod((d * .3, w * .4, .02), (-d * .08, w * .06, h), .022, "wood", both=True)
    k.rod((-d * .5, 0, .02), (-d * .06, 0, h * .95), .022, "wood")
    k.box(d * .17, 0, h * .36, .08, w * .85, .03, "wood", .85)
    x, tall = d * .1, h * .5
    if v == 2:  # a round board
        k.rod((x - .02, 0, h * .64), (x + .02, 0, h * .648), w * .5)
        k.ball(x, 0, h * .58, .1, w * .4, w * .3, "pale")
        return
    k.box(x, 0, h * .385, .03, w * (.75 if v else 1), tall * (1.1 if v else .9), lean=.2)
    if v == 1:
        k.ball(x, 0, h * .52, .09, w * .36, tall * .45, "pale")
    else:
        k.box(x + .03, w * .1, h * .5, .02, w * .5, tall * .4, "pale", lean=.2)


def fan(k, d, w, h, v):
    r = min(w * .5, h * .42)
    hub, x = (h - r, .06) if v != 2 else (r, d * .39)
    if v == 2:  # a box fan
        k.box(0, 0, 0, d * .7, 2 * r, 2 * r)
        k.rod((d * .34, 0, r), (d * .37, 0, r), r * .9, "dark")
    else:
        k.tube(0, 0, 0, r * .75, .05, tone=.9, top=r * .5)
        k.tube(0, 0, .03, .03, hub - .03, "metal")
        k.rod((-r * .5, 0, hub), (.04, 0, hub), r * .3, tone=.85, top=r * .4)
        k.rod((0, 0, hub), (.012, 0, hub), r, "metal", .55)
    n = 4 if v == 1 else 3
    for a in .5 + np.arange(n) * 2 * np.pi / n:
        y, z = np.cos(a) * r, np.sin(a) * r
        k.rod((x, y * .1, hub + z * .1), (x, y * .9, hub + z * .9), r * .12, tone=1.15, top=r * .42, flat=.05)
    k.ball(x, 0, hub - r * .14, .08, r * .28, r * .28, "pale")


def fireplace(k, d, w, h, v):
    look = BRICK if v else PLAIN
    k.box(0, w * .38, 0, d * .9, w * .22, h * .82, look=look, both=True)
    k.box(0, 0, h * .6, d * .9, w * .98, h * .3, look=look)
    k.box(0, 0, h * .8, d, w, h * .2 - .06, tone=.9)
    k.box(0, 0, h - .07, d * 1.1, w * 1.06, .07, "wood" if v else "main", 1.1)
    k.box(-d * .4, 0, 0, d * .1, w * .6, h * .65, "dark", .6)
    k.box(0, 0, 0, d * .8, w * .55, .04, "dark", .8)
    k.rod((d * .1, -w * .2, .07), (d * .1, w * .2, .1), .04, "wood", .7)
    k.rod((0, w * .1, .08), (0, w * .12, h * .4), w * .09, "fire", top=.01, look=GLOW, both=True)
    if v == 2:  # a tapering chimney breast
        k.tube(-d * .05, 0, h, w * .45, h * .5, top=w * .2, squash=d / w * .9, look=BRICK)
    else:
        k.top = (h, 0, 0, d * .9, w)


def fridge(k, d, w, h, v):
    k.box(-.02, 0, .04, d * .94, w, h - .04, tone=.9)
    k.box(-.04, 0, 0, d * .8, w * .9, .05, "dark")
    if v == 2:  # side by side
        k.box(d * .47, w * .25, .06, .06, w * .49, h - .08, tone=1.06, both=True)
        k.box(d * .52, w * .04, h * .4, .05, .03, h * .35, "metal", both=True)
        k.box(d * .505, -w * .25, h * .55, .03, w * .2, h * .12, "dark")
        return
    split = h * (.34 if v else .66)
    for z, tall in ((.06, split - .08), (split, h - split - .01)):
        k.box(d * .47, 0, z, .06, w * .99, tall, tone=1.06)
        k.box(d * .53, -w * .4, z + tall * .25, .04, .03, tall * .5, "metal")


def globe(k, d, w, h, v):
    r = min(d, w, h * .8) / 2
    z = h - 2 * r
    k.ball(0, 0, z, 1.9 * r, 1.9 * r, 1.92 * r, look=LAND)
    k.tube(0, 0, 0, r * .62, .04, "wood", top=r * .5)
    k.tube(0, 0, .02, .03, max(z, .04), "wood" if v else "metal", top=.02)
    if v == 2:
        k.rod((0, 0, h - r - .02), (0, 0, h - r + .02), r * 1.1, "wood")
    else:
        arc = [(0, r * .99 * np.cos(t), z + r + r * .99 * np.sin(t)) for t in np.linspace(-1.9, 1.5, 7)]
        for p, q in zip(arc, arc[1:]):
            k.rod(p, q, .012 + .02 * r, "metal")
    for a in (0, 2.1, 4.2) if v == 1 else ():
        k.rod((r * .8 * np.cos(a), r * .8 * np.sin(a), .02), (0, 0, max(z, .06) * .8), .02, "wood")


def guitar(k, d, w, h, v):
    body, lean = h * .42, .12 * h
    face = lean * .42 + .06  # x of the body's front
    for z, r in ((h * .08, .5), (h * .27, .38)):
        c = lean * (.5 - z / h)
        k.rod((c - .04, 0, z + r * w * .7), (c + .06, 0, z + r * w * .7 + .01), w * r)
    if v == 1:  # electric
        k.box(face, 0, h * .19, .03, w * .36, h * .04, "dark")
        k.box(face, 0, h * .3, .03, w * .3, h * .04, "pale")
        k.rod((lean * .2, w * .2, body * .8), (lean * .1, w * .5, body * 1.2), w * .13, top=.02, both=True)
    elif v == 0:
        k.rod((face - .03, 0, h * .28), (face + .01, 0, h * .283), w * .17, "dark")
    else:  # a banjo: one drum of a body
        k.rod((face - .03, 0, h * .2), (face + .01, 0, h * .203), w * .34, "pale")
    k.rod((lean * .25 + .05, 0, body * .75), (-lean * .45 + .03, 0, h * .9), .028, "wood")
    k.box(-lean * .48 + .02, 0, h * .88, .04, .09, h * .12, "wood", .8, lean=.1)
    k.box(face, 0, h * .12, .04, w * .3, .03, "dark")
    k.rod((d * .45, w * .4, .02), (-d * .1, 0, h * .3), .014, "metal", both=True)
    k.rod((-d * .5, 0, .02), (-d * .1, 0, h * .34), .014, "metal")


def ladder(k, d, w, h, v):
    lean = .93 if v == 1 else .5  # variant 1 is a single leaning ladder, the others fold
    k.rod((d * .48, w * .48, .03), (d * (.48 - lean), w * .36, h), .03, both=True)
    if v != 1:
        k.rod((-d * .48, w * .46, .03), (-d * .02, w * .34, h), .025, tone=.85, both=True)
        k.box(0, 0, h - .03, d * .22, w * .8, .05, tone=1.1)
    for t in (np.arange(5) + .8) / 5.4:
        x, y = d * (.48 - t * lean), w * (.48 - .12 * t)
        if v == 2:
            k.box(x, 0, t * h, d * .2, 2 * y, .035)
        else:
            k.rod((x, -y, t * h), (x, y, t * h), .024, tone=1.1)


def lamp(k, d, w, h, v):
    r = min(d, w) / 2
    shade = min(.28 * h + .08, 2.2 * r)
    k.tube(0, 0, 0, r * .62, .035, "metal", top=r * .5)
    if h < .8 and v != 2:  # a table lamp has a round belly
        k.ball(0, 0, .02, r * .9, r * .9, h - shade - .02, "wood")
    k.tube(0, 0, .03, .02, h - shade * .5 - .03, "metal")
    if v == 2:
        k.ball(0, 0, h - 2 * r, 2 * r, 2 * r, 2 * r, look=GLOW)
    else:
        k.tube(0, 0, h - shade, r, shade, top=r * (.45 if v else 1), look=GLOW)
        k.ball(0, 0, h - .01, .04, .04, .04, "metal")


def laptop(k, d, w, h, v):
    lean = (.25, .5, .1)[v]
    k.box(0, 0, 0, d, w, .03)
    k.box(-d * .05, 0, .028, d * .42, w * .8, .006, "dark", look=KEYS if v else PLAIN)
    k.box(d * .36, 0, .028, d * .16, w * .25, .005, "pale")
    x = -d * .5 - np.sin(lean) * h * .5
    k.box(x, 0, .015, .02, w, h, lean=lean)
    k.box(x + .01, 0, .015 + h * .14, .007, w * .78, h * .7, "dark", 1.3, lean=lean, look=SHEEN)
    if v == 2:
        k.rod((-d * .5, -w * .4, .025), (-d * .5, w * .4, .025), .025, "metal")


def mirror(k, d, w, h, v):
    for x, tone in ((d / 2, 1), (-d / 2, .85)):
        k.rod((x, w * .4, .02), (-d * .02, w * .42, h * .55), .026, tone=tone, both=True)
    if v == 0:
        k.box(0, 0, h * .1, .06, w, h * .9, lean=.06)
        k.box(.03, 0, h * .1 + w * .17, .012, w * .66, h * .9 - w * .34, "glass", lean=.06, look=SHEEN)
    elif v == 1:
        k.ball(0, 0, h * .1, .1, w, h * .9)
        k.ball(.035, 0, h * .1 + w * .17, .07, w * .66, h * .9 - w * .34, "glass", look=SHEEN)
    else:
        r = min(w, h * .8) / 2
        k.rod((-.02, 0, h - r), (.03, 0, h - r), r)
        k.rod((.025, 0, h - r), (.04, 0, h - r), r * .74, "glass", look=SHEEN)


def piano(k, d, w, h, v):
    key = h * .58
    if v == 2:  # a grand with its lid up
        key, x = .62 * h + .1, d * .4
        k.box(0, 0, key - .12, d * 1.1, w, .2)
        k.tube(-d * .55, w * .12, key - .12, w * .37, .2, tone=.95, squash=1.5)
        k.box(-d * .35, w * .42, key + .1, d * 1.2, .04, w * .55, tone=1.1)
        for x, y in ((-1.1, .1), (.4, -.42), (.4, .42)):
            k.tube(x * d, y * w, 0, .05, key - .1, tone=.8)
        k.box(d * .42, 0, key + .07, d * .26, w * .88, .025, "keys", look=KEYS)
        return
    k.box(-d * .25, 0, 0, d * .5, w, h)
    k.box(-d * .25, 0, h, d * .54, w * 1.02, .04, tone=.8)
    k.top = (h + .04, -d * .25, 0, d * .5, w)
    k.box(d * .2, 0, key - .1, d * .6, w * .98, .1)
    k.box(d * .33, 0, key + .005, d * .3, w * .88, .025, "keys", look=KEYS)
    k.box(d * .2, w * .475, key - .02, d * .6, w * .045, .09, tone=.9, both=True)
    if v:
        k.tube(d * .4, w * .45, 0, .035, key - .05, tone=.9, top=.05, both=True)
    else:
        k.box(d * .15, w * .47, 0, d * .65, w * .05, key - .05, tone=.9, both=True)
    k.box(.01, 0, key + .1, .02, w * .4, h * .2, "pale", lean=.15)


def plant(k, d, w, h, v):
    r, pot = min(d, w) / 2, h * .3
    k.tube(0, 0, 0, r * .4, pot, "pale" if v else "wood", top=r * .6)
    k.tube(0, 0, pot * .86, r * .65, pot * .18, "pale" if v else "wood", 1.1)
    k.tube(0, 0, pot * .98, r * .55, pot * .08, "dark")
    if v == 2:  # a cactus
        k.tube(0, 0, pot, r * .4, (h - pot) * .9)
        k.ball(0, 0, h - r * .55, r * .8, r * .8, r * .55)
        for s in (-1, 1):
            y, z = s * r * .82, pot + (h - pot) * (.35 + .1 * s)
            k.rod((0, 0, z), (0, y, z), r * .18)
            k.rod((0, y, z - r * .1), (0, y, z + (h - pot) * .35), r * .18, tone=1.1)
    for i in range(6 if v < 2 else 0):  # a bush, or long blades
        x, y = r * np.cos(2.4 * i), r * np.sin(2.4 * i)
        if v == 0:
            k.ball(x * .42, y * .42, pot + (h - pot) * .1 * i, r, r, (h - pot) * .5, tone=.75 + .09 * i)
        else:
            tip = (x * .85, y * .85, h * (.8 + .2 * (i % 2)))
            k.rod((0, 0, pot), tip, r * .2, tone=.8 + .2 * (i % 3), top=.01)


def radiator(k, d, w, h, v):
    n = 6 if v == 1 else 8
    for i in range(n):
        y, z = (i - (n - 1) / 2) * w * .92 / n, .12 + (h - .16) * i / (n - 1)
        if v == 0:
            k.box(0, y, .08, d, w * .6 / n, h - .08, tone=1.04)
        elif v == 1:
            k.tube(0, y, .08, w * .4 / n, h - .1, squash=min(1, d * n / w))
        else:  # a towel rail
            k.rod((0, -w * .45, z), (0, w * .45, z), .03)
    for z in (.14, h * .86):
        k.rod((0, -w * .48, z), (0, w * .48, z), d * .25, tone=.85)
    k.tube(0, w * .47, 0, .03, h if v == 2 else h * .3, "main" if v == 2 else "metal", both=True)


def sink(k, d, w, h, v):
    deep, rim, s = .18, h * .82, min(1, .8 * d / w)
    if v == 0:  # on a pedestal
        k.tube(0, 0, 0, .13, .05, tone=.95, top=.1)
        k.tube(-d * .1, 0, .03, .09, rim - .1, tone=.95, top=.11)
        k.ball(0, 0, rim - deep * 1.3, d * .96, w * .96, deep * 2, tone=.97)
        bowl, r = rim + deep * .55, w * .36
    else:  # in a cabinet, or as a basin on top of one
        k.box(0, 0, .05, d * .9, w * .95, rim - .08, tone=.9)
        k.box(0, 0, rim - .05, d, w, .05)
        k.box(d * .46, w * .235, .1, .02, w * .43, rim - .22, tone=1.1, both=True)
        bowl, r = rim, w * .38
        if v == 2:
            bowl, r, s = rim + .12, min(d, w) * .37, 1.
            k.tube(0, 0, rim, r * .8, .12, "wood", top=r * 1.1)
    k.tube(d * .06 * (v < 2), 0, bowl - .01, r, .025, "pale", 1.05, squash=s)
    k.tube(d * .06 * (v < 2), 0, bowl + .008, r * .78, .01, "dark", 3.2, squash=s)
    k.tube(-d * .4, 0, rim - .02, .022, h - rim + .02, "metal")
    k.rod((-d * .4, 0, h - .02), (-d * .05, 0, h - .06), .02, "metal")
    k.ball(-d * .4, .1, bowl, .05, .05, .06, "metal", both=True)


def sofa(k, d, w, h, v):
    seat, arm, n = h * .45, min(.22, w * .12), 3 if w > 2 else 2
    k.box(0, 0, .08, d * .95, w, seat * .6, tone=.85)
    for i in range(n):
        run = (w - 2 * arm) / n
        k.box(d * .08, (i - (n - 1) / 2) * run, seat * .7, d * .82, run * .96, seat * .38, tone=1.12)
    k.box(-d * .4, 0, .08, d * .2, w * .98, h - .08)
    y, z = (w - arm) / 2, seat * 1.3
    if v == 1:
        k.rod((-d * .48, y, z), (d * .48, y, z), arm * .6, both=True)
    if v == 2:  # a corner sofa: one arm, a chaise on the other side
        k.box(d * .75, w * .33, .08, d * .7, w * .33, seat * .95, tone=1.05)
    k.box(0, -y, .08, d * .95, arm, seat * (1.2 if v else 1.45) - .08, tone=.95, both=v != 2)
    k.box(d * .3, w * .42, 0, .06, .06, .09, "dark", both=True)


def stool(k, d, w, h, v):
    r = min(d, w) / 2
    k.top = (h, 0, 0, r * 1.3, r * 1.3)
    if v == 0:
        k.legs(r * 1.2, r * 1.2, h - .04, .02, splay=r * .3)
        k.tube(0, 0, h - .13, r * .9, .13, top=r)
    elif v == 1:
        k.tube(0, 0, 0, r * .8, .03, "metal", top=r * .6)
        k.tube(0, 0, .02, .028, h - .08, "metal")
        k.tube(0, 0, h * .35, r * .55, .02, "metal")
        k.tube(0, 0, h - .14, r, .14, top=r * .95)
    else:
        k.legs(r * 1.7, r * 1.7, h - .04, .022)
        k.box(0, 0, h - .14, r * 2, r * 2, .14)
        k.rod((0, -r * .8, h * .3), (0, r * .8, h * .3), .018, "wood")


def stove(k, d, w, h, v):
    hob = h * .86
    k.box(0, 0, .04, d * .95, w, hob - .04)
    k.box(0, 0, hob, d, w, .03, "dark")
    k.box(d * .47, 0, h * .14, .03, w * .8, h * .4, "dark", 1.4, look=SHEEN)
    k.rod((d * .52, -w * .38, h * .61), (d * .52, w * .38, h * .61), .018, "metal")
    for x in (-d * .22, d * .22):
        k.tube(x, w * .24, hob + .02, min(d, w) * .17, .02, "metal", both=True)
    if v == 0:
        k.box(-d * .46, 0, hob, .05, w, h * .14)
    elif v == 1:
        for y in (w * .11, w * .33):
            k.ball(d * .45, y, h * .73, .08, .06, .06, "metal", both=True)
    else:  # an extractor hood above
        k.box(-d * .46, 0, hob, .04, w * .4, h * .9)
        k.tube(-d * .15, 0, h * 1.5, w * .5, h * .26, top=w * .18, squash=.7 * d / w)


def table(k, d, w, h, v):
    k.top = (h, 0, 0, d, w)
    if v == 1:  # round, on one column
        r = min(d, w) / 2
        k.tube(0, 0, h - .06, r, .06)
        k.tube(0, 0, .03, .06, h - .06, "wood")
        k.tube(0, 0, h * .35, .09, h * .12, "wood", top=.05)
        k.tube(0, 0, 0, r * .55, .05, "wood", top=r * .4)
        k.top = (h, 0, 0, r * 1.4, r * 1.4)
        return
    k.box(0, 0, h - .06, d, w, .06)
    if v == 0:
        k.box(0, 0, h - .13, d * .85, w * .85, .08, tone=.8)
        k.legs(d * .94, w * .94, h - .04, .035)
    else:  # on trestles
        for x in (-1, 1):
            k.rod((x * d * .45, w * .38, .03), (-x * d * .35, w * .38, h - .05), .03, "wood", both=True)
        k.rod((0, -w * .38, h * .47), (0, w * .38, h * .47), .025, "wood")


def teddy(k, d, w, h, v):
    r = min(d, w, h * .7)
    k.ball(0, 0, 0, r * .75, r * .8, h * .6)
    k.ball(0, 0, h * .5, r * .62, r * .68, h * .44, tone=1.08)
    k.ball(r * .2, 0, h * .56, r * .3, r * .3, h * .17, "pale")
    k.ball(r * .3, 0, h * .64, r * .1, r * .12, h * .05, "dark")
    k.ball(r * .22, r * .14, h * .72, r * .1, r * .09, h * .05, "dark", both=True)
    if v == 2:  # a rabbit
        k.ball(-.02, r * .17, h * .85, r * .14, r * .17, h * .42, tone=.95, both=True)
    else:
        k.ball(0, r * .27, h * .84, r * .16, r * .26, h * .17, tone=.9, both=True)
    k.ball(r * .35, r * .27, 0, r * .55, r * .28, h * .2, tone=.93, both=True)
    k.rod((0, r * .3, h * .48), (r * .22, r * .5, h * (.6 if v == 1 else .3)), r * .13, tone=.93, both=True)


def television(k, d, w, h, v):
    if v == 2:  # an old set with aerials
        k.box(0, 0, 0, d, w, h * .98)
        k.box(d * .5, w * .08, h * .2, .02, w * .66, h * .64, "dark", .8, look=SHEEN)
        for i in range(2):
            k.ball(d * .5, -w * .4, h * (.5 + .22 * i), .06, w * .08, w * .08, "metal")
        k.rod((0, 0, h), (0, w * .4, h * 1.35), .012, "metal", both=True)
        return
    tall = min(w * .56, h * .6)
    low = h - tall
    k.box(-.02, 0, low, .05, w, tall)
    k.box(.01, 0, low + tall * .1, .02, w * .9, tall * .8, "dark", look=SHEEN)
    if v == 0:  # on a cabinet
        k.box(-.02, 0, low - .09, .05, .16, .1, "metal")
        k.box(0, 0, .04, d, w * 1.05, low - .12)
        k.box(d * .5, w * .26, .08, .02, w * .48, max(low - .2, .06), tone=1.12, both=True)
    else:  # on an open rack
        for z in (0, low * .45, low - .05):
            k.box(0, 0, z, d, w, .06)
        k.box(0, w * .47, 0, d, .06, low, tone=.9, both=True)


def toilet(k, d, w, h, v):
    rim, s = h * .5, min(1.4, d * .68 / w)
    k.tube(d * .05, 0, 0, w * .28, rim * .7, top=w * .36, squash=1.1)
    k.ball(d * .14, 0, rim * .35, d * .66, w * .96, rim * 1.1, tone=.97)
    k.tube(d * .15, 0, rim * .86, w * .5, .06, tone=1.06, squash=s)
    k.tube(d * .16, 0, rim * .86 + .055, w * .33, .012, "dark", 2.4, squash=s)
    if v == 0:
        k.box(-d * .38, 0, rim * .7, d * .24, w, h - rim * .7 - .03)
        k.box(-d * .38, 0, h - .04, d * .26, w * 1.05, .04, tone=1.06)
        k.ball(-d * .38, 0, h - .01, .06, .06, .03, "metal")
    elif v == 1:  # the lid stands open
        k.box(-d * .4, 0, rim * .7, d * .2, w * .95, h * .25)
        k.rod((-d * .26, 0, h * .74), (-d * .3, 0, h * .745), w * .46, tone=1.06)
    else:  # a cistern high on the wall
        k.box(-d * .4, 0, h * 1.55, d * .2, w * .9, h * .35)
        k.tube(-d * .4, 0, rim * .5, .035, h * 1.5 - rim * .5, "metal")
        k.rod((-d * .3, w * .3, h * 1.1), (-d * .3, w * .3, h * 1.6), .012, "wood")


def vase(k, d, w, h, v):
    r = min(d, w) / 2
    if v == 0:
        k.ball(0, 0, 0, 2 * r, 2 * r, h * .5)
        k.tube(0, 0, h * .4, r * .4, h * .2, top=r * .6)
    elif v == 1:
        k.tube(0, 0, 0, r * .5, h * .4, top=r)
        k.tube(0, 0, h * .4, r, h * .15, top=r * .45)
        k.tube(0, 0, h * .55, r * .45, .03, tone=1.1, top=r * .6)
    else:
        k.box(0, 0, 0, r * 1.5, r * 1.5, h * .55)
        k.tube(0, 0, h * .53, r * .5, .04, "dark")
    for i in range(3):
        x, y, z = r * .7 * np.cos(2.1 * i + .4), r * .7 * np.sin(2.1 * i + .4), h * (.8 + .06 * i)
        k.rod((0, 0, h * .5), (x, y, z), .009, "stem")
        k.ball(x, y, z - r * .2, r * .6, r * .6, r * .45, "bloom", 1 - .12 * i)


def wardrobe(k, d, w, h, v):
    k.box(0, 0, .05, d * .96, w, h - .1, tone=.9)
    k.box(0, 0, h - .06, d * 1.02, w * 1.03, .06, tone=.75)
    k.box(0, 0, 0, d * .9, w * .96, .06, "dark")
    z, tall = (h * .3, h * .64) if v == 1 else (.1, h - .2)
    k.box(d * .48, w * .245, z, .03, w * .46, tall, tone=1.12, both=True)
    k.box(d * .51, w * .05, h * .5, .035, .03, .18, "metal", both=True)
    if v == 1:
        k.box(d * .48, 0, .09, .03, w * .95, h * .17, tone=1.12)
        k.ball(d * .5, 0, h * .15, .05, .1, .04, "metal")
    elif v == 2:  # mirrored door panels under a pediment
        k.box(d * .5, w * .245, h * .3, .02, w * .3, h * .5, "glass", look=SHEEN, both=True)
        k.tube(0, 0, h, w * .4, .14, tone=.8, top=w * .2, squash=d / w * .8)


def washer(k, d, w, h, v):
    k.box(0, 0, .03, d * .96, w, h - .03)
    k.box(0, 0, h - .04, d, w * 1.01, .04, tone=1.08)
    k.box(0, 0, 0, d * .9, w * .9, .04, "dark")
    if v == 2:  # a top loader
        k.box(-d * .4, 0, h, d * .2, w, .16, tone=.9)
        k.box(d * .08, 0, h - .005, d * .6, w * .8, .03, "dark", 1.5)
        k.ball(-d * .3, w * .3, h + .04, .07, .08, .08, "metal")
        return
    r, z, s = min(w, h) * .3, h * .45, 1 if v else -1
    k.rod((d * .46, 0, z), (d * .53, 0, z), r, "metal", top=r * .9)
    k.rod((d * .5, 0, z), (d * .545, 0, z), r * .72, "dark", 1.2, look=SHEEN)
    k.box(d * .475, s * w * .2, h * .83, .02, w * .4, h * .09, "pale")
    k.ball(d * .46, -s * w * .3, h * .835, .08, .08, .08, "metal")
    k.top = (h, 0, 0, d, w)


@dataclass(frozen=True)
class Spec:
    """A category: its builder, believable (low, high) metres of depth, width and height, and its manners."""
    build: callable
    depth: tuple
    width: tuple
    height: tuple
    wall: bool = False   # stands with its back to a wall
    perch: bool = False  # may stand on another object's top


CATEGORIES = {
    "armchair": Spec(armchair, (.5, 1.15), (.5, 1.15), (.5, 1.3)),
    "bathtub": Spec(bathtub, (.5, 1.15), (.9, 2.3), (.4, .85), wall=True),
    "bed": Spec(bed, (.95, 2.4), (.6, 2.1), (.5, 1.35), wall=True),
    "bookcase": Spec(bookcase, (.25, .5), (.6, 2.1), (.8, 2.2), wall=True),
    "chair": Spec(chair, (.3, .65), (.3, .65), (.5, 1.25)),
    "crib": Spec(crib, (.45, .95), (.65, 1.6), (.55, 1.3), wall=True),
    "desk": Spec(desk, (.42, .9), (.8, 2.2), (.5, 1.05), wall=True),
    "dresser": Spec(dresser, (.35, .7), (.55, 1.7), (.5, 1.4), wall=True),
    "easel": Spec(easel, (.45, 1.), (.4, 1.1), (.8, 2.)),
    "fan": Spec(fan, (.3, .7), (.3, .8), (.5, 1.7)),
    "fireplace": Spec(fireplace, (.3, .65), (.8, 2.2), (.7, 1.6), wall=True),
    "fridge": Spec(fridge, (.45, .9), (.45, 1.2), (.8, 2.1), wall=True),
    "globe": Spec(globe, (.25, .8), (.25, .8), (.35, 1.3), perch=True),
    "guitar": Spec(guitar, (.3, .6), (.28, .6), (.7, 1.6)),
    "ladder": Spec(ladder, (.5, 1.3), (.35, .8), (.9, 2.2)),
    "lamp": Spec(lamp, (.22, .65), (.22, .65), (.4, 2.), perch=True),
    "laptop": Spec(laptop, (.16, .42), (.25, .65), (.16, .42), perch=True),
    "mirror": Spec(mirror, (.3, .7), (.4, 1.1), (.85, 2.1)),
    "piano": Spec(piano, (.45, .9), (.85, 2.1), (.75, 1.5), wall=True),
    "plant": Spec(plant, (.3, 1.), (.3, 1.), (.4, 2.), perch=True),
    "radiator": Spec(radiator, (.1, .25), (.45, 1.9), (.4, 1.1), wall=True),
    "sink": Spec(sink, (.35, .75), (.4, 1.2), (.6, 1.3), wall=True),
    "sofa": Spec(sofa, (.6, 1.2), (1.25, 3.1), (.5, 1.15), wall=True),
    "stool": Spec(stool, (.26, .55), (.26, .55), (.3, .95)),
    "stove": Spec(stove, (.35, .85), (.35, 1.3), (.5, 1.4), wall=True),
    "table": Spec(table, (.5, 1.4), (.6, 2.4), (.35, 1.)),
    "teddy": Spec(teddy, (.3, 1.), (.3, 1.), (.35, 1.4), perch=True),
    "television": Spec(television, (.2, .5), (.6, 1.9), (.6, 1.6), wall=True),
    "toilet": Spec(toilet, (.42, .95), (.28, .65), (.45, 1.1), wall=True),
    "vase": Spec(vase, (.14, .45), (.14, .45), (.25, 1.), perch=True),
    "wardrobe": Spec(wardrobe, (.35, .8), (.5, 2.4), (1., 2.4), wall=True),
    "washer": Spec(washer, (.4, .8), (.4, .9), (.5, 1.25), wall=True),
}


def draw_size(rng, category):
    """Draw depth, width, height [3] in metres: two thirds one common scale, one third each side's own."""
    spec, common = CATEGORIES[category], rng.random()
    return np.array([low + (high - low) * (2 * common + rng.random()) / 3
                     for low, high in (spec.depth, spec.width, spec.height)])


def draw_paints(rng, split):
    """Draw (colour name, paint name -> sRGB [3]) of an object; the ood split's shades are duller, lighter."""
    name = str(rng.choice(sorted(COLOURS)))
    main = np.array(COLOURS[name]) * rng.uniform(.9, 1.08) + rng.normal(0, .02, 3)
    if split == "ood":
        main = main * .85 + .06
    accents = {paint: np.array(tones[rng.integers(len(tones))]) * rng.uniform(.88, 1.12)
               for paint, tones in ACCENTS.items()}
    return name, {"main": np.clip(main, .04, .97), **accents, **FIXED}


def build(category, size, paints, variant):
    """Build an object of wished depth, width, height `size` [3] metres, centred on its own footprint.

    Returns (parts, size, top): the parts, moved so that their tight box is centred on x = y = 0 and rests on
    z = 0; that box's true size [3]; and its free top surface (z, x, y, depth, width) or None.
    """
    kit = Kit(paints)
    CATEGORIES[category].build(kit, *size, variant)
    bounds = np.array([part.extent() for part in kit.parts])
    low, high = bounds[:, 0].min(0), bounds[:, 1].max(0)
    shift = np.append((low + high)[:2] / 2, low[2])
    for part in kit.parts:
        part.center = part.center - shift
    top = kit.top and (kit.top[0] - shift[2], kit.top[1] - shift[0], kit.top[2] - shift[1], *kit.top[3:])
    return kit.parts, high - low, top
