"""Procedural furnished rooms: one seed, one room, with every 3D truth about it.

make_scene(seed, split, index, level) draws a rectangular room, its looks and light, and furniture that never
intersects; single_camera, view_cameras and walk_cameras place cameras in the free floor. Metres throughout;
x, y span the floor and z points up, the floor is z = 0 and the room's corner is the origin. Camera axes are
x right, y down, z forward. See rooms:  python -m data.rooms.render rooms.png
"""
from dataclasses import asdict, dataclass

import numpy as np

from data.rooms.furniture import BALL, BOX, CATEGORIES, TUBE, VARIANTS, build, draw_paints, draw_size

SPLITS = ("train", "val", "test", "ood")
LEVELS = {1: (1, 3), 2: (3, 6), 3: (5, 9)}  # objects in a room, both ends included; ood adds 1 to 3
MARGIN = .05      # metres between footprints
CLEARANCE = .35   # metres between a camera and any footprint or wall
CELL = .1         # metres, grid of free floor

FLOORS = {"train": ("planks", "tiles", "checker", "carpet", "plain"), "ood": ("diamonds", "bricks", "stripes")}
WALLS = {"train": ("plain", "plain", "stripes", "panel"), "ood": ("bricks", "checker", "tiles")}
FLOOR_TONES = {"train": ((.66, .50, .34), (.48, .34, .23), (.72, .66, .58), (.55, .55, .56), (.44, .48, .54),
                         (.60, .47, .43)),
               "ood": ((.30, .36, .32), (.80, .76, .70), (.52, .30, .26), (.28, .30, .42))}
WALL_TONES = {"train": ((.90, .88, .83), (.82, .86, .88), (.86, .80, .72), (.78, .83, .76), (.88, .80, .80),
                        (.80, .79, .86)),
              "ood": ((.62, .44, .38), (.42, .56, .60), (.68, .64, .40), (.50, .44, .60))}


@dataclass
class Object:
    """One piece of furniture. center, size: its tight oriented box; yaw turns its x axis (front) from world x."""
    id: int
    category: str
    variant: int
    colour: str
    center: list   # [3] metres
    size: list     # [3] metres along its own x, y, z
    yaw: float     # radians
    on: int | None  # id of the object it stands on

    def corners(self):
        """[8, 3] world corners of the oriented box."""
        signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) / 2
        return signs * self.size @ rotation_z(self.yaw).T + self.center


@dataclass
class Surface:
    """The look of a floor or of the walls: pattern name, two sRGB colours, pattern period in metres."""
    pattern: str
    colour: list
    second: list
    period: float


@dataclass
class Decor:
    """A flat picture, window or door on wall 0 (y=0), 1 (x=max), 2 (y=max) or 3 (x=0), from low to high."""
    kind: str
    wall: int
    low: list    # [2] metres along the wall's running axis, and up
    high: list
    colour: list


@dataclass
class Solids:
    """All primitives of a room, boxes first, then tubes, then balls; `unit` maps world offsets to unit space."""
    kind: np.ndarray    # [P]
    owner: np.ndarray   # [P] object id
    center: np.ndarray  # [P, 3]
    axes: np.ndarray    # [P, 3, 3] columns: half axes in metres
    unit: np.ndarray    # [P, 3, 3] inverse of axes
    radii: np.ndarray   # [P, 2]
    rgb: np.ndarray     # [P, 3] sRGB
    look: np.ndarray    # [P]
    main: np.ndarray    # [P] whether it wears the object's main colour


@dataclass
class Camera:
    """A square pinhole camera. rotation @ (world - position) gives x right, y down, z forward."""
    position: np.ndarray  # [3] metres
    rotation: np.ndarray  # [3, 3]
    fov_deg: float        # horizontal and vertical

    def project(self, points):
        """World points [N, 3] -> (image x, y in -1..1 at the frame's edges [N, 2], depth in metres [N])."""
        local = (np.asarray(points) - self.position) @ self.rotation.T
        depth = local[:, 2]
        return local[:, :2] / (np.maximum(depth, 1e-6) * np.tan(np.radians(self.fov_deg) / 2))[:, None], depth


@dataclass
class Scene:
    """A furnished room and what regenerates it (seed, split, index, level)."""
    seed: int
    split: str
    index: int
    level: int
    id: str
    polygon: list        # [[x, y], ...] counter-clockwise, metres
    height: float
    floor: Surface
    wall: Surface
    ceiling: list        # sRGB
    decor: list
    light: list          # [3] metres
    light_colour: list   # [3]
    fill: float
    objects: list
    solids: Solids


def rotation_z(yaw):
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def footprint(center, size, yaw, margin=0.):
    """[4, 2] corners of an oriented rectangle on the floor, grown by margin metres."""
    half = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]) * (np.asarray(size[:2]) / 2 + margin)
    return half @ rotation_z(yaw)[:2, :2].T + np.asarray(center[:2])


def overlap(a, b):
    """Whether two convex quadrilaterals [4, 2] intersect, by the separating-axis test."""
    edges = np.concatenate([a[1:3] - a[:2], b[1:3] - b[:2]])
    normals = np.stack([-edges[:, 1], edges[:, 0]], 1)
    pa, pb = a @ normals.T, b @ normals.T
    return bool(np.all((pa.max(0) > pb.min(0)) & (pb.max(0) > pa.min(0))))


def _count(rng, split, level):
    low, high = LEVELS[level]
    count = (1 if rng.random() < .1 else int(rng.integers(2, 4))) if level == 1 else int(rng.integers(low, high + 1))
    return count + (int(rng.integers(1, 4)) if split == "ood" else 0)


def _categories(rng, count):
    """Draw names; one in six repeats one already drawn, so that counting is a real question."""
    names = []
    for _ in range(count):
        repeat = names and rng.random() < 1 / 6
        names.append(str(rng.choice(names if repeat else sorted(CATEGORIES))))
    return names


def _on_floor(rng, spec, size, room, taken):
    """Find a free place: (x, y, yaw), or None after 40 tries."""
    for _ in range(40):
        if spec.wall or rng.random() < .25:
            side = int(rng.integers(4))
            yaw = side * np.pi / 2 + np.pi / 2  # wall 0 is y = 0, its inward normal is +y
            along, gap = room[side % 2], size[0] / 2 + .02 + .04 * rng.random()
            if along < size[1] + .1:
                continue
            run = rng.uniform(size[1] / 2 + .02, along - size[1] / 2 - .02)
            x, y = ((run, gap), (room[0] - gap, run), (run, room[1] - gap), (gap, run))[side]
        else:
            yaw = rng.uniform(0, 2 * np.pi) if rng.random() < .5 else rng.integers(4) * np.pi / 2 + rng.normal(0, .12)
            x, y = rng.uniform(.2, room[0] - .2), rng.uniform(.2, room[1] - .2)
        corners = footprint((x, y), size, yaw)
        if corners.min() < .01 or (corners > np.array(room) - .01).any():
            continue
        grown = footprint((x, y), size, yaw, MARGIN)
        if not any(overlap(grown, other) for other in taken):
            return float(x), float(y), float(yaw % (2 * np.pi))
    return None


def _on_top(rng, size, support, top):
    """Find a place on a support's free top: (x, y, yaw), or None where the object does not fit."""
    z, x, y, length, width = top
    radius = np.hypot(size[0], size[1]) / 2
    if 2 * radius > min(length, width) + .12 or z > 1.35:
        return None
    slack = np.maximum(np.array([length, width]) / 2 - radius, 0)
    spot = np.array([x, y, 0]) + np.append(rng.uniform(-1, 1, 2) * slack, 0)
    place = rotation_z(support.yaw) @ spot + support.center
    return float(place[0]), float(place[1]), float((support.yaw + rng.uniform(-.6, .6)) % (2 * np.pi))


def _furnish(rng, split, names, room, height):
    """Place every named object, biggest first. Returns (objects, parts per object), or None where one fails."""
    drawn = []
    for name in names:
        variant = int(rng.choice(VARIANTS[split]))
        drawn.append((name, variant, *draw_paints(rng, split), draw_size(rng, name)))
    drawn.sort(key=lambda d: (CATEGORIES[d[0]].perch, -d[4][0] * d[4][1]))
    objects, pieces, tops, taken = [], [], {}, []
    for name, variant, colour, paints, wish in drawn:
        spec, place, on = CATEGORIES[name], None, None
        if spec.perch and tops and rng.random() < .6:
            on = int(rng.choice(sorted(tops)))
            top = tops[on]
            shrink = min(1., .62 / wish[2], .8 * min(top[3:]) / np.hypot(*wish[:2]))
            parts, size, _ = build(name, np.array(wish) * shrink, paints, variant)
            if shrink > .35 and top[0] + size[2] < height - .1:
                place = _on_top(rng, size, objects[on], top)
        if place:
            base = objects[on].center[2] - objects[on].size[2] / 2 + tops.pop(on)[0]
        else:
            parts, size, top = build(name, wish, paints, variant)
            on, base = None, 0.
            place = _on_floor(rng, spec, size, room, taken)
            if place is None or size[2] > height - .05:
                return None
            taken.append(footprint(place, size, place[2]))
            if top:
                tops[len(objects)] = top
        center = [place[0], place[1], float(base + size[2] / 2)]
        objects.append(Object(len(objects), name, variant, colour, center, size.tolist(), place[2], on))
        pieces.append(parts)
    return objects, pieces


def flatten(objects, pieces):
    """Flatten every part of every object into world-space arrays, sorted by kind."""
    rows = []
    for obj, parts in zip(objects, pieces):
        turn, foot = rotation_z(obj.yaw), np.array(obj.center) - (0, 0, obj.size[2] / 2)
        rows += [(p, obj.id, turn @ p.center + foot, turn @ (p.rot * p.half)) for p in parts]
    rows = [row for kind in (BOX, TUBE, BALL) for row in rows if row[0].kind == kind]
    parts, owner, center, axes = zip(*rows)
    return Solids(np.array([p.kind for p in parts]), np.array(owner), np.array(center), np.array(axes),
                  np.linalg.inv(axes), np.array([p.radii for p in parts]), np.array([p.rgb for p in parts]),
                  np.array([p.look for p in parts]), np.array([p.paint == "main" for p in parts]))


def _decorate(rng, room, height, objects):
    """Hang pictures, windows and a door where no tall furniture hides them and none overlap."""
    decor, busy = [], [[] for _ in range(4)]
    for obj in objects:
        corners = obj.corners()
        for side, axis, far in ((0, 1, False), (1, 0, True), (2, 1, True), (3, 0, False)):
            gap = (room[axis] - corners[:, axis].max()) if far else corners[:, axis].min()
            if gap < .3 and obj.size[2] > .7:
                busy[side].append((corners[:, 1 - axis].min(), corners[:, 1 - axis].max()))
    kinds = ["door"] + ["window"] * int(rng.integers(1, 3)) + ["picture"] * int(rng.integers(1, 4))
    for kind in kinds:
        width, low, high = {"door": (rng.uniform(.8, 1.), 0., 2.05),
                            "window": (rng.uniform(.8, 1.8), .85, min(2.1, height - .25)),
                            "picture": (rng.uniform(.4, .9), 1.25, rng.uniform(1.65, 2.))}[kind]
        for _ in range(10):
            side = int(rng.integers(4))
            start = rng.uniform(.15, room[side % 2] - width - .15)
            if all(start > b + .05 or start + width < a - .05 for a, b in busy[side]):
                busy[side].append((start, start + width))
                colour = rng.uniform(.15, .85, 3) if kind == "picture" else (
                    (.62, .78, .92) if kind == "window" else np.array((.62, .45, .30)) * rng.uniform(.8, 1.35))
                decor.append(Decor(kind, side, [start, low], [start + width, high], np.array(colour).tolist()))
                break
    return decor


def make_scene(seed, split, index, level):
    """Draw a room. split: one of SPLITS; level: 1, 2 or 3. The same arguments give the same room, to the byte.

    The ood split differs from training in four ways: larger rooms with 1 to 3 more objects, unseen wall and
    floor patterns and palettes, unseen shape variants, and other camera heights and fields of view.
    """
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    look = "ood" if split == "ood" else "train"
    count = _count(rng, split, level)
    grow = 0.
    while True:
        low, high = (6., 11.) if split == "ood" else (3., min(9., 4.6 + .5 * count))
        room = [float(min(rng.uniform(low, high) + grow, 9. if split != "ood" else 12.)) for _ in range(2)]
        height = float(rng.uniform(3.3, 4.2) if split == "ood" else rng.uniform(2.5, 3.2))
        placed = _furnish(rng, split, _categories(rng, count), room, height)
        grow += .15
        if placed and _free_floor(room, placed[0])[1].mean() > .2:
            break
    objects, pieces = placed

    def surface(patterns, tones):
        tone = np.clip(np.array(tones[rng.integers(len(tones))]) + rng.normal(0, .03, 3), 0, 1)
        second = np.clip(tone * rng.uniform(.72, .9) + rng.normal(0, .02, 3), 0, 1)
        return Surface(str(rng.choice(patterns)), tone.tolist(), second.tolist(), float(rng.uniform(.28, .6)))
    floor, wall = surface(FLOORS[look], FLOOR_TONES[look]), surface(WALLS[look], WALL_TONES[look])
    light = [float(rng.uniform(.25, .75) * room[0]), float(rng.uniform(.25, .75) * room[1]), height - .15]
    warmth = float(rng.uniform(-.06, .08))
    return Scene(seed, split, index, level, f"{split}-{index:06d}",
                 [[0., 0.], [room[0], 0.], [room[0], room[1]], [0., room[1]]], height, floor, wall,
                 [float(rng.uniform(.86, .96))] * 3, _decorate(rng, room, height, objects), light,
                 [1 + warmth, 1., 1 - warmth], float(rng.uniform(.42, .58)), objects, flatten(objects, pieces))


# ---------------------------------------------------------------- cameras

def _free_floor(room, objects, clearance=CLEARANCE):
    """Grid of floor points: (points [X, Y, 2] metres, free [X, Y]: at least clearance from footprints, walls)."""
    axes = [np.arange(CELL / 2, side, CELL) for side in room]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    free = ((points > clearance) & (points < np.array(room) - clearance)).all(-1)
    for obj in objects:
        if obj.on is None:
            free &= footprint_distance(points, obj) > clearance
    return points, free


def footprint_distance(points, obj):
    """Distance in metres from floor points [..., 2] to an object's oriented footprint, 0 inside."""
    c, s = float(np.cos(obj.yaw)), float(np.sin(obj.yaw))
    x, y = points[..., 0] - obj.center[0], points[..., 1] - obj.center[1]
    return np.hypot(np.maximum(abs(c * x + s * y) - obj.size[0] / 2, 0),
                    np.maximum(abs(c * y - s * x) - obj.size[1] / 2, 0))


def look_at(position, target, fov_deg):
    """A level camera at position that looks at target."""
    forward = np.asarray(target, float) - position
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, (0, 0, 1))
    right /= np.linalg.norm(right)
    return Camera(np.asarray(position, float), np.stack([right, np.cross(forward, right), forward]), float(fov_deg))


def _lens(scene, rng):
    """Draw (eye height in metres, field of view in degrees); the ood split's ranges lie outside training's."""
    if scene.split != "ood":
        return rng.uniform(1.1, 1.8), rng.uniform(60, 80)
    high = rng.uniform(1.95, 2.5) if rng.random() < .5 else rng.uniform(.75, 1.)
    return high, rng.uniform(86, 98) if rng.random() < .5 else rng.uniform(50, 56)


def _room(scene):
    return scene.polygon[2]


def _rng(scene, stream):
    return np.random.default_rng([scene.seed, SPLITS.index(scene.split), scene.index, stream])


def single_camera(scene, rng, tries=20):
    """A pose on free floor that sees as many objects as the best of `tries` candidates."""
    points, free = _free_floor(_room(scene), scene.objects)
    spots = points[free]
    centers = np.array([o.center for o in scene.objects])
    reach = np.array([np.linalg.norm(o.size) / 2 for o in scene.objects])
    best, best_score = None, -np.inf
    for _ in range(tries):
        height, fov = _lens(scene, rng)
        position = np.append(spots[rng.integers(len(spots))] + rng.uniform(-.04, .04, 2), height)
        weights = rng.dirichlet(np.full(len(centers), .5))
        target = weights @ centers
        target[2] = .5 * target[2] + .3 + rng.normal(0, .1)
        if np.hypot(*(target - position)[:2]) < .8:
            continue
        camera = look_at(position, target, fov)
        image, depth = camera.project(centers)
        big = reach / np.maximum(depth * np.tan(np.radians(fov) / 2), 1e-6)  # half-frame shares
        seen = (depth > .5) & (np.abs(image) < .85).all(1)
        score = (seen * np.clip(1.5 - np.abs(np.log(np.clip(big, 1e-3, None) / .4)) * .8, .05, 1)).sum()
        score -= .7 * ((depth > .2) & (big > 1.1)).sum()
        if score > best_score:
            best, best_score = camera, score
    if best is None:  # every candidate stood on top of its target
        best = look_at(np.append(spots[0], 1.4), [*np.array(_room(scene)) / 2, .6], 70)
    return best


def view_cameras(scene, n=8):
    """n poses around the room, counter-clockwise, looking inward."""
    rng = _rng(scene, 8)
    room = np.array(_room(scene))
    points, free = _free_floor(room, scene.objects)
    spots, start = points[free], rng.uniform(0, 2 * np.pi)
    height, fov = _lens(scene, rng)
    cameras = []
    for i in range(n):
        angle = start + 2 * np.pi * i / n
        direction = np.array([np.cos(angle), np.sin(angle)])
        wish = room / 2 + direction * (room / 2 - .5) / np.abs(direction).max()
        spot = spots[np.argmin(((spots - wish) ** 2).sum(1))]
        target = room / 2 - direction * .25 * room.min()  # past the middle, so a spot near it still looks inward
        cameras.append(look_at(np.append(spot, height), [*target + rng.normal(0, .15, 2), .55], fov))
    return cameras


def _steps_from(free, start):
    """[X, Y] wavefront distance in cells from a start cell over free floor; -1 where it cannot reach."""
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
    """A smooth path [K, 2] over free floor, at most `length` metres long."""
    points, free = _free_floor(_room(scene), scene.objects)
    cells = np.argwhere(free)
    steps = _steps_from(free, tuple(cells[rng.integers(len(cells))]))
    start = np.unravel_index(steps.argmax(), steps.shape)  # the far end of the room first
    steps = _steps_from(free, start)
    reach = np.argwhere((steps > .6 * steps.max()) & (steps >= 0))
    cell = tuple(reach[rng.integers(len(reach))])
    path = [cell]
    while steps[cell] > 0:  # walk back down the wavefront, turning as late as possible
        moves = [(cell[0] + dx, cell[1] + dy) for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1))]
        moves = [m for m in moves if 0 <= m[0] < free.shape[0] and 0 <= m[1] < free.shape[1]]
        cell = min((m for m in moves if steps[m] == steps[cell] - 1),
                   key=lambda m: abs(m[0] - start[0]) * (len(path) % 2) + abs(m[1] - start[1]) * (1 - len(path) % 2))
        path.append(cell)
    path = points[tuple(np.array(path).T)]
    for _ in range(40):  # relax every inner point towards its neighbours where that stays on free floor
        moved = path.copy()
        moved[1:-1] = .5 * path[1:-1] + .25 * (path[:-2] + path[2:])
        index = np.minimum((moved / CELL).astype(int), np.array(free.shape) - 1)
        path = np.where(free[tuple(index.T)][:, None], moved, path)
    run = np.append(0, np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1)))
    keep = run <= length
    return path[keep]


def walk_cameras(scene, n=16, step=.3, turn_deg=15.):
    """A walk of n frames: at most `step` metres and about `turn_deg` degrees apart, never inside furniture."""
    rng = _rng(scene, 16)
    path = _free_path(scene, rng, step * (n - 1))
    run = np.append(0, np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1)))
    at = np.linspace(0, run[-1], n)
    spots = np.stack([np.interp(at, run, path[:, i]) for i in range(2)], 1)
    height, fov = _lens(scene, rng)
    room = np.array(_room(scene))
    middle = np.mean([o.center[:2] for o in scene.objects], axis=0) * .6 + room / 2 * .4
    angles = [np.arctan2(*(middle - spot)[::-1]) for spot in spots]
    sweep = rng.choice((-1, 1)) * np.linspace(-.7, .7, n)  # the gaze sweeps across the furniture
    yaw, cameras = angles[0] + sweep[0], []
    for i in range(n):
        error = (angles[i] + sweep[i] - yaw + np.pi) % (2 * np.pi) - np.pi
        yaw += np.clip(error, -np.radians(turn_deg), np.radians(turn_deg))
        forward = np.array([np.cos(yaw), np.sin(yaw), -.22])
        position = np.append(spots[i], height)
        cameras.append(look_at(position, position + forward, fov))
    return cameras


# ---------------------------------------------------------------- JSON

def camera_to_json(camera):
    return {"position": camera.position.tolist(), "rotation": camera.rotation.tolist(), "fov_deg": camera.fov_deg}


def camera_from_json(row):
    return Camera(np.array(row["position"]), np.array(row["rotation"]), row["fov_deg"])


def scene_to_json(scene, cameras=()):
    """Every 3D truth as plain JSON types; primitives are left out, they follow from seed, split, index, level."""
    row = asdict(scene)
    del row["solids"]
    row["cameras"] = [camera_to_json(camera) for camera in cameras]
    return row


def scene_from_json(row):
    """Rebuild (scene, cameras) from scene_to_json's row. Raises ValueError if this code draws another room."""
    scene = make_scene(row["seed"], row["split"], row["index"], row["level"])
    if scene_to_json(scene)["objects"] != row["objects"]:
        raise ValueError(f"{row['id']}: the row was written by another version of data/rooms")
    return scene, [camera_from_json(camera) for camera in row["cameras"]]
