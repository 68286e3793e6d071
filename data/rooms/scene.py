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
LEVELS = {1: (1, 3), 2: (3, 6), 3: (5, 9)}  # objects in a room, ends included; the ood split adds 1 to 3
MARGIN = .05      # metres between footprints
CLEARANCE = .35   # metres from a camera to any footprint or wall
CELL = .1         # metres, grid of free floor

FLOORS = {"train": ("planks", "tiles", "checker", "carpet", "plain"),
          "ood": ("diamonds", "bricks", "stripes")}
WALLS = {"train": ("plain", "plain", "stripes", "panel"), "ood": ("bricks", "checker", "tiles")}
FLOOR_TONES = {"train": ((.66, .50, .34), (.48, .34, .23), (.72, .66, .58), (.55, .55, .56), (.44, .48, .54),
                         (.60, .47, .43)),
               "ood": ((.30, .36, .32), (.80, .76, .70), (.52, .30, .26), (.28, .30, .42))}
WALL_TONES = {"train": ((.90, .88, .83), (.82, .86, .88), (.86, .80, .72), (.78, .83, .76), (.88, .80, .80),
                        (.80, .79, .86)),
              "ood": ((.62, .44, .38), (.42, .56, .60), (.68, .64, .40), (.50, .44, .60))}


@dataclass
class Object:
    """One piece of furniture and its tight oriented box; yaw turns its front, its own +x, from world x."""
    id: int          # its place in scene.objects
    category: str
    variant: int
    colour: str
    center: list   # [3] metres
    size: list     # [3] metres along its own x, y, z (depth, width, height)
    yaw: float     # radians, 0 to 2 pi
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
    """All P primitives of a room: boxes first, then tubes, then balls."""
    kind: np.ndarray    # [P]
    owner: np.ndarray   # [P] object id
    center: np.ndarray  # [P, 3]
    axes: np.ndarray    # [P, 3, 3] columns: half axes in metres
    unit: np.ndarray    # [P, 3, 3] inverse of axes: world offset from center -> unit space
    radii: np.ndarray   # [P, 2]
    rgb: np.ndarray     # [P, 3] sRGB
    look: np.ndarray    # [P]


@dataclass
class Camera:
    """A square pinhole camera. rotation @ (world - position) gives x right, y down, z forward.

    The fields of K cameras may be stacked, [K, 3], [K, 3, 3] and [K]: project then puts a K before its shapes.
    """
    position: np.ndarray  # [3] metres
    rotation: np.ndarray  # [3, 3]
    fov_deg: float        # horizontal and vertical

    def project(self, points):
        """World points [N, 3] -> (image x, y in -1..1 at the frame's edges [N, 2], depth in metres [N])."""
        local = (np.asarray(points) - self.position[..., None, :]) @ np.swapaxes(self.rotation, -1, -2)
        depth, half = local[..., 2], np.tan(np.radians(self.fov_deg) / 2)
        return local[..., :2] / (np.maximum(depth, 1e-6) * np.asarray(half)[..., None])[..., None], depth


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
    if level == 1:
        count = 1 if rng.random() < .1 else rng.integers(2, 4)
    else:
        count = rng.integers(LEVELS[level][0], LEVELS[level][1] + 1)
    return int(count + (rng.integers(1, 4) if split == "ood" else 0))


def _categories(rng, count):
    """Draw names; one in ten repeats one already drawn, so that counting is a real question."""
    names = []
    for _ in range(count):
        repeat = names and rng.random() < 1 / 10
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
            square = rng.integers(4) * np.pi / 2 + rng.normal(0, .12)
            yaw = square if rng.random() < .5 else rng.uniform(0, 2 * np.pi)
            x, y = rng.uniform(.2, room[0] - .2), rng.uniform(.2, room[1] - .2)
        corners = footprint((x, y), size, yaw)
        if corners.min() < .01 or (corners > np.array(room) - .01).any():
            continue
        grown = footprint((x, y), size, yaw, MARGIN)
        if not any(overlap(grown, other) for other in taken):
            return float(x), float(y), float(yaw % (2 * np.pi))
    return None


def _on_top(rng, size, support, top):
    """A random place on a support's free top (see furniture.build): x, y, yaw."""
    slack = np.maximum(np.array(top[3:]) - np.hypot(*size[:2]), 0) / 2
    spot = np.append(top[1:3] + rng.uniform(-1, 1, 2) * slack, 0)
    x, y, _ = rotation_z(support.yaw) @ spot + support.center
    return float(x), float(y), float((support.yaw + rng.uniform(-.6, .6)) % (2 * np.pi))


def _furnish(rng, split, names, room, height):
    """Place every named object, large pieces first: (objects, parts of each), or None if one has no room."""
    drawn = [(name, int(rng.choice(VARIANTS[split])), *draw_paints(rng, split), draw_size(rng, name))
             for name in names]
    drawn.sort(key=lambda d: (CATEGORIES[d[0]].perch, -d[4][0] * d[4][1]))
    objects, pieces, tops, taken = [], [], {}, []
    for name, variant, colour, paints, wish in drawn:
        spec, on, base = CATEGORIES[name], None, 0.
        if spec.perch and tops and rng.random() < .85:
            chosen = int(rng.choice(sorted(tops)))
            shrink = min(1., .62 / wish[2], .75 * min(tops[chosen][3:]) / np.hypot(*wish[:2]))
            on = chosen if shrink > .35 else None  # a doll's house version would puzzle anyone
        parts, size, top = build(name, wish if on is None else wish * shrink, paints, variant)
        if on is None:
            place = _on_floor(rng, spec, size, room, taken)
            if place is None or size[2] > height - .05:
                return None
            taken.append(footprint(place, size, place[2]))
            if top and top[0] < 1.35:
                tops[len(objects)] = top
        else:
            top = tops.pop(on)
            place, base = _on_top(rng, size, objects[on], top), top[0]
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
                  np.array([p.look for p in parts]))


def _decorate(rng, room, objects):
    """Hang pictures, windows and a door where no tall furniture hides them and none overlap."""
    decor, busy = [], [[] for _ in range(4)]
    for obj in objects:
        corners = obj.corners()
        for side, axis, far in ((0, 1, False), (1, 0, True), (2, 1, True), (3, 0, False)):
            gap = (room[axis] - corners[:, axis].max()) if far else corners[:, axis].min()
            if gap < .3 and obj.size[2] > .7:
                busy[side].append((corners[:, 1 - axis].min(), corners[:, 1 - axis].max()))
    for kind in ["door"] + ["window"] * int(rng.integers(1, 3)) + ["picture"] * int(rng.integers(1, 4)):
        width, low, high, colour = {
            "door": (rng.uniform(.8, 1.), 0., 2.05, np.array((.62, .45, .30)) * rng.uniform(.8, 1.35)),
            "window": (rng.uniform(.8, 1.8), .85, 2.1, np.array((.62, .78, .92))),
            "picture": (rng.uniform(.4, .9), 1.25, rng.uniform(1.65, 2.), rng.uniform(.15, .85, 3))}[kind]
        for _ in range(10):
            side = int(rng.integers(4))
            start = rng.uniform(.15, room[side % 2] - width - .15)
            if all(start > b + .05 or start + width < a - .05 for a, b in busy[side]):
                busy[side].append((start, start + width))
                decor.append(Decor(kind, side, [start, low], [start + width, high], colour.tolist()))
                break
    return decor


def make_scene(seed, split, index, level):
    """Draw a room. split: one of SPLITS; level: 1, 2 or 3. Equal arguments give equal rooms, byte for byte.

    The ood split differs in four ways: larger rooms with 1 to 3 more objects, unseen palettes and unseen wall
    and floor patterns, unseen shape variants, and eye heights and fields of view outside training's ranges.
    """
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    ood = split == "ood"
    count, slack = _count(rng, split, level), 0.
    while True:  # until everything fits and leaves a fifth of the floor to stand on
        low, high = (5., 6. + .6 * count) if ood else (3., 3.6 + .6 * count)
        room = [float(min(rng.uniform(low, high) + slack, 12. if ood else 9.)) for _ in range(2)]
        height = float(rng.uniform(3.3, 4.2) if ood else rng.uniform(2.5, 3.2))
        placed = _furnish(rng, split, _categories(rng, count), room, height)
        if placed and _free_floor(room, placed[0])[1].mean() > .2:
            break
        slack += .1  # the next draw is a little larger

    def surface(patterns, tones):
        tone = np.array(tones[rng.integers(len(tones))]) * rng.uniform(.92, 1.06) + rng.normal(0, .012, 3)
        tone, second = np.clip(tone, 0, 1), np.clip(tone * rng.uniform(.72, .9), 0, 1)
        return Surface(str(rng.choice(patterns)), tone.tolist(), second.tolist(), float(rng.uniform(.28, .6)))
    look, warmth = "ood" if ood else "train", float(rng.uniform(-.06, .08))
    return Scene(
        seed, split, index, level, f"{split}-{index:06d}",
        polygon=[[0., 0.], [room[0], 0.], [room[0], room[1]], [0., room[1]]], height=height,
        floor=surface(FLOORS[look], FLOOR_TONES[look]), wall=surface(WALLS[look], WALL_TONES[look]),
        ceiling=[float(rng.uniform(.86, .96))] * 3, decor=_decorate(rng, room, placed[0]),
        light=[float(rng.uniform(.25, .75) * room[0]), float(rng.uniform(.25, .75) * room[1]), height - .15],
        light_colour=[1 + warmth, 1., 1 - warmth], fill=float(rng.uniform(.42, .58)),
        objects=placed[0], solids=flatten(*placed))


# ---------------------------------------------------------------- cameras

def _free_floor(room, objects):
    """A grid over the floor: (points [X, Y, 2] metres, free [X, Y]: clear of every footprint and wall)."""
    axes = [np.arange(CELL / 2, side, CELL) for side in room]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    free = ((points > CLEARANCE) & (points < np.array(room) - CLEARANCE)).all(-1)
    for obj in objects:
        if obj.on is None:
            free &= footprint_distance(points, obj) > CLEARANCE
    return points, free


def footprint_distance(points, obj):
    """Distance in metres from floor points [..., 2] to an object's oriented footprint, 0 inside."""
    c, s = float(np.cos(obj.yaw)), float(np.sin(obj.yaw))
    x, y = points[..., 0] - obj.center[0], points[..., 1] - obj.center[1]
    return np.hypot(np.maximum(abs(c * x + s * y) - obj.size[0] / 2, 0),
                    np.maximum(abs(c * y - s * x) - obj.size[1] / 2, 0))


def look_at(position, target, fov_deg):
    """An upright camera at position that looks at target, both [3] metres; given K of each, K cameras stacked."""
    position, ahead = np.asarray(position, float), np.subtract(target, position)
    x, y, z = np.moveaxis(ahead / np.linalg.norm(ahead, axis=-1, keepdims=True), -1, 0)
    level = np.hypot(x, y)
    rows = (y / level, -x / level, 0 * z), (x * z / level, y * z / level, -level), (x, y, z)  # right, down, forward
    return Camera(position, np.stack([np.stack(row, -1) for row in rows], -2), fov_deg)


def _lens(scene, rng):
    """Draw (eye height in metres, field of view in degrees); no ood draw lies in training's ranges."""
    if scene.split != "ood":
        return rng.uniform(1.1, 1.8), rng.uniform(60, 80)
    return (rng.uniform(1.95, 2.5) if rng.random() < .5 else rng.uniform(.75, 1.),
            rng.uniform(84, 94) if rng.random() < .5 else rng.uniform(48, 56))


def _rng(scene, stream):
    return np.random.default_rng([scene.seed, SPLITS.index(scene.split), scene.index, stream])


def single_camera(scene, rng, tries=80):
    """Of `tries` random poses on free floor, the one that frames the most objects, near but not too near."""
    points, free = _free_floor(scene.polygon[2], scene.objects)
    spots = points[free]
    centers = np.array([obj.center for obj in scene.objects])
    reach = np.array([np.linalg.norm(obj.size) / 2 for obj in scene.objects])
    draws = []
    for _ in range(tries):
        height, fov = _lens(scene, rng)
        spot = spots[rng.integers(len(spots))] + rng.uniform(-.04, .04, 2)
        draws.append((*spot, height, fov, *rng.dirichlet(np.full(len(centers), .5)), rng.normal(0, .08)))
    draws = np.array(draws)  # [tries, ...]
    position, fov, target = draws[:, :3], draws[:, 3], draws[:, 4:-1] @ centers
    away = np.hypot(*(target - position)[:, :2].T)
    target[:, 2] = np.maximum(.6 * target[:, 2] + .25, position[:, 2] - .55 * away) + draws[:, -1]  # not steeply down
    image, depth = look_at(position, target, fov).project(centers)
    share = reach / np.maximum(depth * np.tan(np.radians(fov) / 2)[:, None], 1e-3)  # of half the frame
    framed = (depth > .4) & (np.abs(image).max(-1) < 1 - .5 * np.minimum(share, .8))
    score = (framed * np.clip(1.25 - .45 * np.abs(np.log(share / .33)), .15, 1)).sum(1)
    score -= .8 * ((depth > 0) & (share > 1)).sum(1) + (away < .7)
    best = score.argmax()
    return look_at(position[best], target[best], fov[best])


def view_cameras(scene, n=8):
    """n poses around the room, counter-clockwise, looking inward."""
    rng, room = _rng(scene, 8), np.array(scene.polygon[2])
    points, free = _free_floor(room, scene.objects)
    spots, start = points[free], rng.uniform(0, 2 * np.pi)
    height, fov = _lens(scene, rng)
    cameras = []
    for angle in start + 2 * np.pi * np.arange(n) / n:
        direction = np.array([np.cos(angle), np.sin(angle)])
        wish = room / 2 + direction * (room / 2 - .5) / np.abs(direction).max()
        spot = spots[np.argmin(((spots - wish) ** 2).sum(1))]
        # aim past the middle, so that a spot pushed towards it by furniture still looks inward
        target = room / 2 - direction * .25 * room.min() + rng.normal(0, .1, 2)
        cameras.append(look_at(np.append(spot, height), [*target, .55], fov))
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
    points, free = _free_floor(scene.polygon[2], scene.objects)
    cells = np.argwhere(free)
    starts = [tuple(cells[rng.integers(len(cells))]) for _ in range(4)]
    steps = max((_steps_from(free, start) for start in starts), key=lambda s: (s >= 0).sum())
    end = np.unravel_index(steps.argmax(), steps.shape)      # the far end of the largest connected part
    steps = _steps_from(free, end)
    far = np.argwhere(steps >= .6 * steps.max())
    cell = tuple(far[rng.integers(len(far))])
    path = [cell]
    while steps[cell] > 0:  # down the wavefront, first along the axis with more left to go
        around = [(cell[0] + dx, cell[1] + dy) for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1))]
        cell = min((c for c in around if steps[c] == steps[cell] - 1),
                   key=lambda c: max(abs(c[0] - end[0]), abs(c[1] - end[1])))
        path.append(cell)
    path = points[tuple(np.array(path).T)]
    for _ in range(40):  # relax every inner point towards its neighbours where that stays on free floor
        moved = path.copy()
        moved[1:-1] = .5 * path[1:-1] + .25 * (path[:-2] + path[2:])
        cells = (moved / CELL).astype(int)
        path = np.where(free[cells[:, 0], cells[:, 1]][:, None], moved, path)
    return path[_run(path) <= length]


def _run(path):
    """[K] metres walked up to each point of a path [K, 2]."""
    return np.append(0, np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1)))


def walk_cameras(scene, n=16, step=.3, turn_deg=15.):
    """A walk of n frames, at most `step` metres and `turn_deg` degrees apart, never through furniture."""
    rng, room = _rng(scene, 16), np.array(scene.polygon[2])
    path = _free_path(scene, rng, step * (n - 1))
    at = np.linspace(0, _run(path)[-1], n)
    spots = np.stack([np.interp(at, _run(path), path[:, i]) for i in range(2)], 1)
    height, fov = _lens(scene, rng)
    middle = .6 * np.mean([obj.center[:2] for obj in scene.objects], axis=0) + .2 * room
    sweep = rng.choice((-1, 1)) * np.linspace(-.7, .7, n)  # radians, slowly across the furniture
    wish = np.arctan2(*(middle - spots).T[::-1]) + sweep
    yaw, cameras = wish[0], []
    for spot, goal in zip(spots, wish):
        turn = (goal - yaw + np.pi) % (2 * np.pi) - np.pi
        yaw += np.clip(turn, -np.radians(turn_deg), np.radians(turn_deg))
        position = np.append(spot, height)
        cameras.append(look_at(position, position + (np.cos(yaw), np.sin(yaw), -.22), fov))
    return cameras


# ---------------------------------------------------------------- JSON

def camera_to_json(camera):
    return {"position": camera.position.tolist(), "rotation": camera.rotation.tolist(),
            "fov_deg": camera.fov_deg}


def camera_from_json(row):
    return Camera(np.array(row["position"]), np.array(row["rotation"]), row["fov_deg"])


def scene_to_json(scene, cameras=()):
    """Every 3D truth as plain JSON types. Primitives are left out: seed, split, index, level redraw them."""
    row = asdict(scene)
    del row["solids"]
    row["cameras"] = [camera_to_json(camera) for camera in cameras]
    return row


def scene_from_json(row):
    """Rebuild (scene, cameras) from a row of scene_to_json; ValueError if this code draws another room."""
    scene = make_scene(row["seed"], row["split"], row["index"], row["level"])
    if scene_to_json(scene)["objects"] != row["objects"]:
        raise ValueError(f"{row['id']}: the row was written by another version of data/rooms")
    return scene, [camera_from_json(camera) for camera in row["cameras"]]
