"""Furnished rooms, drawn at random, with their whole 3D truth. One seed gives one room.

make_scene(seed, split, index, level) draws a rectangular room, its looks and its light, and
furniture that never intersects. single_camera, view_cameras and walk_cameras place cameras on the
free floor. Lengths are in metres. x and y span the floor, z points up, the floor is z = 0, and a
corner of the room is the origin. A camera's axes are x right, y down, z forward.

To see rooms:  python -m data.rooms.render rooms.png
"""

from dataclasses import asdict, dataclass

import numpy as np

from data.rooms.furniture import (
    BALL,
    BOX,
    CATEGORIES,
    TUBE,
    VARIANTS,
    build,
    draw_paints,
    draw_size,
)

SPLITS = ("train", "val", "test", "ood")
# {level: smallest and largest number of objects in a room}; the ood split adds 1 to 3.
LEVELS = {1: (1, 3), 2: (3, 6), 3: (5, 9)}
MARGIN = 0.05  # metres between footprints
CLEARANCE = 0.35  # metres from a free point of the floor's grid to any footprint or wall
CELL = 0.1  # metres; side of a cell in the grid of free floor

FLOORS = {
    "train": ("planks", "tiles", "checker", "carpet", "plain"),
    "ood": ("diamonds", "bricks", "stripes"),
}
WALLS = {"train": ("plain", "plain", "stripes", "panel"), "ood": ("bricks", "checker", "tiles")}
FLOOR_TONES = {
    "train": (
        (0.66, 0.50, 0.34),
        (0.48, 0.34, 0.23),
        (0.72, 0.66, 0.58),
        (0.55, 0.55, 0.56),
        (0.44, 0.48, 0.54),
        (0.60, 0.47, 0.43),
    ),
    "ood": ((0.30, 0.36, 0.32), (0.80, 0.76, 0.70), (0.52, 0.30, 0.26), (0.28, 0.30, 0.42)),
}
WALL_TONES = {
    "train": (
        (0.90, 0.88, 0.83),
        (0.82, 0.86, 0.88),
        (0.86, 0.80, 0.72),
        (0.78, 0.83, 0.76),
        (0.88, 0.80, 0.80),
        (0.80, 0.79, 0.86),
    ),
    "ood": ((0.62, 0.44, 0.38), (0.42, 0.56, 0.60), (0.68, 0.64, 0.40), (0.50, 0.44, 0.60)),
}


@dataclass
class Object:
    """One piece of furniture and its tight oriented box.

    yaw: the counter-clockwise angle from the world's x axis to the object's front, its own x axis.
    """

    id: int  # its place in scene.objects
    category: str
    variant: int
    colour: str
    center: list  # [3] metres
    size: list  # [3] metres along its own x, y, z (depth, width, height)
    yaw: float  # radians, 0 to 2 pi
    on: int | None  # id of the object it stands on

    def corners(self):
        """Corners [8, 3] of the oriented box in world coordinates."""
        signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) / 2
        return signs * self.size @ rotation_z(self.yaw).T + self.center


@dataclass
class Surface:
    """The look of a floor or of walls: a pattern, two sRGB colours, the period in metres."""

    pattern: str
    colour: list
    second: list
    period: float


@dataclass
class Decor:
    """A picture, window or door: a rectangle on a wall, from the corner `low` to the corner `high`.

    Wall 0 is at y = 0, wall 1 at the largest x, wall 2 at the largest y, wall 3 at x = 0.
    """

    kind: str
    wall: int
    low: list  # [2] metres along the wall's x or y axis, and up
    high: list
    colour: list


@dataclass
class Solids:
    """All P primitives of a room: boxes first, then tubes, then balls."""

    kind: np.ndarray  # [P]
    owner: np.ndarray  # [P] object id
    center: np.ndarray  # [P, 3]
    axes: np.ndarray  # [P, 3, 3] columns: half axes in metres
    unit: np.ndarray  # [P, 3, 3] inverse of axes: world offset from center -> unit space
    radii: np.ndarray  # [P, 2]
    rgb: np.ndarray  # [P, 3] sRGB
    look: np.ndarray  # [P]


@dataclass
class Camera:
    """A square pinhole camera. rotation @ (world - position) gives x right, y down, z forward.

    The fields of K cameras may be stacked to [K, 3], [K, 3, 3] and [K]. The results of project()
    then have a K before their shapes.
    """

    position: np.ndarray  # [3] metres
    rotation: np.ndarray  # [3, 3]
    fov_deg: float  # field of view, horizontal and vertical

    def project(self, points):
        """World points [N, 3] -> (image x, y [N, 2], depth in metres [N]).

        x and y are -1 at the left and upper edge of the frame, and 1 at the other edges.
        """
        turned = np.swapaxes(self.rotation, -1, -2)
        local = (np.asarray(points) - self.position[..., None, :]) @ turned
        depth, half = local[..., 2], np.tan(np.radians(self.fov_deg) / 2)
        edge = np.maximum(depth, 1e-6) * np.asarray(half)[..., None]
        return local[..., :2] / edge[..., None], depth


@dataclass
class Scene:
    """A furnished room. seed, split, index and level are enough to draw it again."""

    seed: int
    split: str
    index: int
    level: int
    id: str
    polygon: list  # [[x, y], ...] counter-clockwise, metres
    height: float
    floor: Surface
    wall: Surface
    ceiling: list  # sRGB
    decor: list
    light: list  # [3] metres
    light_colour: list  # [3]
    fill: float  # light from everywhere
    objects: list
    solids: Solids


def rotation_z(yaw):
    """Rotation [3, 3] by yaw radians about the z axis, counter-clockwise seen from above."""
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def footprint(center, size, yaw, margin=0.0):
    """Corners [4, 2] of an oriented rectangle on the floor, grown by `margin` metres."""
    half = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]) * (np.asarray(size[:2]) / 2 + margin)
    return half @ rotation_z(yaw)[:2, :2].T + np.asarray(center[:2])


def overlap(a, b):
    """Whether two convex quadrilaterals [4, 2] intersect, by the separating-axis test."""
    edges = np.concatenate([a[1:3] - a[:2], b[1:3] - b[:2]])
    normals = np.stack([-edges[:, 1], edges[:, 0]], 1)
    pa, pb = a @ normals.T, b @ normals.T
    return bool(np.all((pa.max(0) > pb.min(0)) & (pb.max(0) > pa.min(0))))


def _count(rng, split, level):
    """Draw the number of objects in a room."""
    if level == 1:
        count = 1 if rng.random() < 0.1 else rng.integers(2, 4)
    else:
        count = rng.integers(LEVELS[level][0], LEVELS[level][1] + 1)
    return int(count + (rng.integers(1, 4) if split == "ood" else 0))


def _categories(rng, count):
    """Draw `count` categories. One in ten repeats an earlier one, so that counting makes sense."""
    names = []
    for _ in range(count):
        repeat = names and rng.random() < 1 / 10
        names.append(str(rng.choice(names if repeat else sorted(CATEGORIES))))
    return names


def _on_floor(rng, spec, size, room, taken):
    """Draw a free place (x, y, yaw); None after 40 tries. taken: footprints of other objects."""
    for _ in range(40):
        if spec.wall or rng.random() < 0.25:
            side = int(rng.integers(4))
            yaw = side * np.pi / 2 + np.pi / 2  # of the wall's inward normal; that of wall 0 is +y
            along, gap = room[side % 2], size[0] / 2 + 0.02 + 0.04 * rng.random()
            if along < size[1] + 0.1:
                continue
            run = rng.uniform(size[1] / 2 + 0.02, along - size[1] / 2 - 0.02)
            x, y = ((run, gap), (room[0] - gap, run), (run, room[1] - gap), (gap, run))[side]
        else:
            square = rng.integers(4) * np.pi / 2 + rng.normal(0, 0.12)
            yaw = square if rng.random() < 0.5 else rng.uniform(0, 2 * np.pi)
            x, y = rng.uniform(0.2, room[0] - 0.2), rng.uniform(0.2, room[1] - 0.2)
        corners = footprint((x, y), size, yaw)
        if corners.min() < 0.01 or (corners > np.array(room) - 0.01).any():
            continue
        grown = footprint((x, y), size, yaw, MARGIN)
        if not any(overlap(grown, other) for other in taken):
            return float(x), float(y), float(yaw % (2 * np.pi))
    return None


def _on_top(rng, size, support, top):
    """Draw a place (x, y, yaw) on a support's free top, which furniture.build describes."""
    slack = np.maximum(np.array(top[3:]) - np.hypot(*size[:2]), 0) / 2
    spot = np.append(top[1:3] + rng.uniform(-1, 1, 2) * slack, 0)
    x, y, _ = rotation_z(support.yaw) @ spot + support.center
    return float(x), float(y), float((support.yaw + rng.uniform(-0.6, 0.6)) % (2 * np.pi))


def _furnish(rng, split, names, room, height):
    """Place an object of every name, large ones first. Returns (objects, parts of each).

    None where an object finds no place.
    """
    drawn = [
        (name, int(rng.choice(VARIANTS[split])), *draw_paints(rng, split), draw_size(rng, name))
        for name in names
    ]
    drawn.sort(key=lambda d: (CATEGORIES[d[0]].perch, -d[4][0] * d[4][1]))
    objects, pieces, tops, taken = [], [], {}, []
    for name, variant, colour, paints, wish in drawn:
        spec, on, base = CATEGORIES[name], None, 0.0
        if spec.perch and tops and rng.random() < 0.85:
            chosen = int(rng.choice(sorted(tops)))
            shrink = min(1.0, 0.62 / wish[2], 0.75 * min(tops[chosen][3:]) / np.hypot(*wish[:2]))
            on = chosen if shrink > 0.35 else None  # nobody would recognize a smaller copy
        parts, size, top = build(name, wish if on is None else wish * shrink, paints, variant)
        if on is None:
            place = _on_floor(rng, spec, size, room, taken)
            if place is None or size[2] > height - 0.05:
                return None
            taken.append(footprint(place, size, place[2]))
            if top and top[0] < 1.35:
                tops[len(objects)] = top
        else:
            top = tops.pop(on)
            place, base = _on_top(rng, size, objects[on], top), top[0]
        center = [place[0], place[1], float(base + size[2] / 2)]
        objects.append(
            Object(len(objects), name, variant, colour, center, size.tolist(), place[2], on)
        )
        pieces.append(parts)
    return objects, pieces


def flatten(objects, pieces):
    """Solids of all parts of all objects, in world coordinates and sorted by kind."""
    rows = []
    for obj, parts in zip(objects, pieces):
        turn, foot = rotation_z(obj.yaw), np.array(obj.center) - (0, 0, obj.size[2] / 2)
        rows += [(p, obj.id, turn @ p.center + foot, turn @ (p.rot * p.half)) for p in parts]
    rows = [row for kind in (BOX, TUBE, BALL) for row in rows if row[0].kind == kind]
    parts, owner, center, axes = zip(*rows)
    return Solids(
        np.array([p.kind for p in parts]),
        np.array(owner),
        np.array(center),
        np.array(axes),
        np.linalg.inv(axes),
        np.array([p.radii for p in parts]),
        np.array([p.rgb for p in parts]),
        np.array([p.look for p in parts]),
    )


def _decorate(rng, room, objects):
    """Draw a door, windows and pictures; tall furniture hides none, and none overlap."""
    decor, busy = [], [[] for _ in range(4)]
    for obj in objects:
        corners = obj.corners()
        for side, axis, far in ((0, 1, False), (1, 0, True), (2, 1, True), (3, 0, False)):
            gap = (room[axis] - corners[:, axis].max()) if far else corners[:, axis].min()
            if gap < 0.3 and obj.size[2] > 0.7:
                busy[side].append((corners[:, 1 - axis].min(), corners[:, 1 - axis].max()))
    windows, pictures = int(rng.integers(1, 3)), int(rng.integers(1, 4))
    for kind in ["door"] + ["window"] * windows + ["picture"] * pictures:
        width, low, high, colour = _draw_decor(rng)[kind]
        for _ in range(10):
            side = int(rng.integers(4))
            start = rng.uniform(0.15, room[side % 2] - width - 0.15)
            if all(start > b + 0.05 or start + width < a - 0.05 for a, b in busy[side]):
                busy[side].append((start, start + width))
                rectangle = [start, low], [start + width, high]
                decor.append(Decor(kind, side, *rectangle, colour.tolist()))
                break
    return decor


def _draw_decor(rng):
    """{kind: (width, lower edge, upper edge, sRGB colour)}; lengths in metres."""
    wood, sky = np.array((0.62, 0.45, 0.30)), np.array((0.62, 0.78, 0.92))
    door = rng.uniform(0.8, 1.0), 0.0, 2.05, wood * rng.uniform(0.8, 1.35)
    window = rng.uniform(0.8, 1.8), 0.85, 2.1, sky
    picture = rng.uniform(0.4, 0.9), 1.25, rng.uniform(1.65, 2.0), rng.uniform(0.15, 0.85, 3)
    return {"door": door, "window": window, "picture": picture}


def make_scene(seed, split, index, level):
    """Draw a room. split: one of SPLITS. level: 1, 2 or 3. Equal arguments give equal rooms.

    The ood split differs in four ways. Its rooms are larger and have 1 to 3 more objects. Its
    colours and its patterns of wall and floor are unseen in training. So are its shape variants.
    Its cameras have heights and fields of view outside the ranges of training.
    """
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    ood = split == "ood"
    count, slack = _count(rng, split, level), 0.0
    while True:  # until everything fits and leaves a fifth of the floor to stand on
        low, high = (5.0, 6.0 + 0.6 * count) if ood else (3.0, 3.6 + 0.6 * count)
        room = [float(min(rng.uniform(low, high) + slack, 12.0 if ood else 9.0)) for _ in range(2)]
        height = float(rng.uniform(3.3, 4.2) if ood else rng.uniform(2.5, 3.2))
        placed = _furnish(rng, split, _categories(rng, count), room, height)
        if placed and _free_floor(room, placed[0])[1].mean() > 0.2:
            break
        slack += 0.1  # the next draw is a little larger

    def surface(patterns, tones):
        tone = np.array(tones[rng.integers(len(tones))]) * rng.uniform(0.92, 1.06)
        tone = tone + rng.normal(0, 0.012, 3)
        first, second = np.clip(tone, 0, 1), np.clip(tone * rng.uniform(0.72, 0.9), 0, 1)
        pattern, period = str(rng.choice(patterns)), float(rng.uniform(0.28, 0.6))
        return Surface(pattern, first.tolist(), second.tolist(), period)

    look, warmth = "ood" if ood else "train", float(rng.uniform(-0.06, 0.08))
    return Scene(
        seed,
        split,
        index,
        level,
        f"{split}-{index:06d}",
        polygon=[[0.0, 0.0], [room[0], 0.0], [room[0], room[1]], [0.0, room[1]]],
        height=height,
        floor=surface(FLOORS[look], FLOOR_TONES[look]),
        wall=surface(WALLS[look], WALL_TONES[look]),
        ceiling=[float(rng.uniform(0.86, 0.96))] * 3,
        decor=_decorate(rng, room, placed[0]),
        light=[
            float(rng.uniform(0.25, 0.75) * room[0]),
            float(rng.uniform(0.25, 0.75) * room[1]),
            height - 0.15,
        ],
        light_colour=[1 + warmth, 1.0, 1 - warmth],
        fill=float(rng.uniform(0.42, 0.58)),
        objects=placed[0],
        solids=flatten(*placed),
    )


# ---------------------------------------------------------------- cameras


def _free_floor(room, objects):
    """A grid over the floor: (points [X, Y, 2] in metres, free: bool [X, Y]).

    A point is free if it is at least CLEARANCE away from every footprint and wall.
    """
    axes = [np.arange(CELL / 2, side, CELL) for side in room]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    free = ((points > CLEARANCE) & (points < np.array(room) - CLEARANCE)).all(-1)
    for obj in objects:
        if obj.on is None:
            free &= footprint_distance(points, obj) > CLEARANCE
    return points, free


def footprint_distance(points, obj):
    """Metres from floor points [..., 2] to an object's oriented footprint; 0 inside."""
    c, s = float(np.cos(obj.yaw)), float(np.sin(obj.yaw))
    x, y = points[..., 0] - obj.center[0], points[..., 1] - obj.center[1]
    return np.hypot(
        np.maximum(abs(c * x + s * y) - obj.size[0] / 2, 0),
        np.maximum(abs(c * y - s * x) - obj.size[1] / 2, 0),
    )


def look_at(position, target, fov_deg):
    """An upright camera at `position` that looks at `target`, both [3] in metres.

    With K of each it is K stacked cameras; see Camera.
    """
    position, ahead = np.asarray(position, float), np.subtract(target, position)
    x, y, z = np.moveaxis(ahead / np.linalg.norm(ahead, axis=-1, keepdims=True), -1, 0)
    level = np.hypot(x, y)
    right, down = (y / level, -x / level, 0 * z), (x * z / level, y * z / level, -level)
    rows = [np.stack(row, -1) for row in (right, down, (x, y, z))]
    return Camera(position, np.stack(rows, -2), fov_deg)


def _lens(scene, rng):
    """Draw a camera's (height in metres, field of view in degrees).

    No draw for the ood split lies in the ranges of training.
    """
    if scene.split != "ood":
        return rng.uniform(1.1, 1.8), rng.uniform(60, 80)
    return (
        rng.uniform(1.95, 2.5) if rng.random() < 0.5 else rng.uniform(0.75, 1.0),
        rng.uniform(84, 94) if rng.random() < 0.5 else rng.uniform(48, 56),
    )


def stream(scene, number):
    """A random generator for something about a room. The room itself is drawn without a number.

    Every use has its own number, so that one draw never changes what another use draws.
    """
    return np.random.default_rng([scene.seed, SPLITS.index(scene.split), scene.index, number])


def single_camera(scene, rng, tries=80):
    """Of `tries` random poses on the free floor, the one that frames the most objects well."""
    points, free = _free_floor(scene.polygon[2], scene.objects)
    spots = points[free]
    centers = np.array([obj.center for obj in scene.objects])
    reach = np.array([np.linalg.norm(obj.size) / 2 for obj in scene.objects])
    draws = []
    for _ in range(tries):
        height, fov = _lens(scene, rng)
        spot = spots[rng.integers(len(spots))] + rng.uniform(-0.04, 0.04, 2)
        weights = rng.dirichlet(np.full(len(centers), 0.5))  # of the objects' centres in the target
        draws.append((*spot, height, fov, *weights, rng.normal(0, 0.08)))
    draws = np.array(draws)  # [tries, ...]
    position, fov, target = draws[:, :3], draws[:, 3], draws[:, 4:-1] @ centers
    away = np.hypot(*(target - position)[:, :2].T)
    lowest = position[:, 2] - 0.55 * away  # so that the camera does not look down steeply
    target[:, 2] = np.maximum(0.6 * target[:, 2] + 0.25, lowest) + draws[:, -1]
    image, depth = look_at(position, target, fov).project(centers)
    half = depth * np.tan(np.radians(fov) / 2)[:, None]  # of the frame, in metres at that depth
    share = reach / np.maximum(half, 1e-3)
    framed = (depth > 0.4) & (np.abs(image).max(-1) < 1 - 0.5 * np.minimum(share, 0.8))
    # An object counts most if it takes a third of the frame. One that is too near costs points.
    score = (framed * np.clip(1.25 - 0.45 * np.abs(np.log(share / 0.33)), 0.15, 1)).sum(1)
    score -= 0.8 * ((depth > 0) & (share > 1)).sum(1) + (away < 0.7)
    best = score.argmax()
    return look_at(position[best], target[best], fov[best])


def view_cameras(scene, n=8):
    """n cameras around the room, counter-clockwise, that look inward."""
    rng, room = stream(scene, 8), np.array(scene.polygon[2])
    points, free = _free_floor(room, scene.objects)
    spots, start = points[free], rng.uniform(0, 2 * np.pi)
    height, fov = _lens(scene, rng)
    cameras = []
    for angle in start + 2 * np.pi * np.arange(n) / n:
        direction = np.array([np.cos(angle), np.sin(angle)])
        wish = room / 2 + direction * (room / 2 - 0.5) / np.abs(direction).max()
        spot = spots[np.argmin(((spots - wish) ** 2).sum(1))]
        # Furniture may push a spot towards the middle. It looks inward still if it aims past it.
        target = room / 2 - direction * 0.25 * room.min() + rng.normal(0, 0.1, 2)
        cameras.append(look_at(np.append(spot, height), [*target, 0.55], fov))
    return cameras


def _steps_from(free, start):
    """Steps [X, Y] from a start cell over free cells, by a growing wavefront.

    -1 where no path leads.
    """
    steps = np.where(free, -1, -2)
    front, count = np.zeros_like(free), 0
    front[start] = True
    while front.any():
        steps[front] = count
        grown = front.copy()
        grown[1:] |= front[:-1]
        grown[:-1] |= front[1:]
        grown[:, 1:] |= front[:, :-1]
        grown[:, :-1] |= front[:, 1:]
        front, count = grown & (steps == -1), count + 1
    return np.maximum(steps, -1)


def _free_path(scene, rng, length):
    """A smooth path [K, 2] over the free floor, at most `length` metres long."""
    points, free = _free_floor(scene.polygon[2], scene.objects)
    cells = np.argwhere(free)
    starts = [tuple(cells[rng.integers(len(cells))]) for _ in range(4)]
    steps = max((_steps_from(free, start) for start in starts), key=lambda s: (s >= 0).sum())
    end = np.unravel_index(steps.argmax(), steps.shape)  # the far end of the largest free part
    steps = _steps_from(free, end)
    far = np.argwhere(steps >= 0.6 * steps.max())
    cell = tuple(far[rng.integers(len(far))])
    path = [cell]
    while steps[cell] > 0:  # down to the end, first along the axis with the longer way left
        around = [(cell[0] + dx, cell[1] + dy) for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1))]
        cell = min(
            (c for c in around if steps[c] == steps[cell] - 1),
            key=lambda c: max(abs(c[0] - end[0]), abs(c[1] - end[1])),
        )
        path.append(cell)
    path = points[tuple(np.array(path).T)]
    for _ in range(40):  # move inner points towards their neighbours, as far as the floor is free
        moved = path.copy()
        moved[1:-1] = 0.5 * path[1:-1] + 0.25 * (path[:-2] + path[2:])
        cells = (moved / CELL).astype(int)
        path = np.where(free[cells[:, 0], cells[:, 1]][:, None], moved, path)
    return path[_run(path) <= length]


def _run(path):
    """Metres [K] along a path [K, 2] up to each of its points."""
    return np.append(0, np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1)))


def walk_cameras(scene, n=16, step=0.3, turn_deg=15.0):
    """n cameras of a walk that never goes through furniture.

    Neighbours are at most `step` metres and `turn_deg` degrees apart.
    """
    rng, room = stream(scene, 16), np.array(scene.polygon[2])
    path = _free_path(scene, rng, step * (n - 1))
    at = np.linspace(0, _run(path)[-1], n)
    spots = np.stack([np.interp(at, _run(path), path[:, i]) for i in range(2)], 1)
    height, fov = _lens(scene, rng)
    middle = 0.6 * np.mean([obj.center[:2] for obj in scene.objects], axis=0) + 0.2 * room
    sweep = rng.choice((-1, 1)) * np.linspace(
        -0.7, 0.7, n
    )  # radians; a slow sweep across the furniture
    wish = np.arctan2(*(middle - spots).T[::-1]) + sweep
    yaw, cameras = wish[0], []
    for spot, goal in zip(spots, wish):
        turn = (goal - yaw + np.pi) % (2 * np.pi) - np.pi
        yaw += np.clip(turn, -np.radians(turn_deg), np.radians(turn_deg))
        position = np.append(spot, height)
        cameras.append(look_at(position, position + (np.cos(yaw), np.sin(yaw), -0.22), fov))
    return cameras


# ---------------------------------------------------------------- JSON


def camera_to_json(camera):
    return {
        "position": camera.position.tolist(),
        "rotation": camera.rotation.tolist(),
        "fov_deg": camera.fov_deg,
    }


def camera_from_json(row):
    return Camera(np.array(row["position"]), np.array(row["rotation"]), row["fov_deg"])


def scene_to_json(scene):
    """The whole truth of a room in JSON types, without its solids, which make_scene draws again."""
    row = asdict(scene)
    del row["solids"]
    return row


def scene_from_json(row):
    """(scene, cameras) of a value of scene_to_json with "cameras", those of camera_to_json.

    ValueError where this code draws another room than the value describes.
    """
    scene = make_scene(row["seed"], row["split"], row["index"], row["level"])
    if scene_to_json(scene)["objects"] != row["objects"]:
        raise ValueError(f"{row['id']}: this room was made by another version of data/rooms")
    return scene, [camera_from_json(camera) for camera in row["cameras"]]
