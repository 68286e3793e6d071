"""An exact ray caster for furnished rooms, numpy only: about 4 ms for 96 x 96 pixels on one core.

Every primitive is a unit cube, tube or ball under a 3 x 3 matrix. A frame flattens all (primitive, pixel)
pairs inside the primitives' projected rectangles into ragged flat arrays, intersects each kind in one pass in
unit space, keeps the nearest hit of every pixel and shades only that one.

Pictures:  python -m data.rooms.render rooms.png        rooms of each level, views, a walk, depth and ids
           python -m data.rooms.render catalogue.png    every category in every variant
"""
import sys
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw

from data.rooms import furniture as looks
from data.rooms.furniture import BOX, CATEGORIES, GLOW, TUBE, build, draw_paints
from data.rooms.scene import (
    LEVELS,
    Object,
    flatten,
    footprint_distance,
    look_at,
    make_scene,
    single_camera,
    view_cameras,
    walk_cameras,
)

FLOOR, WALL, CEILING = -1, -2, -3
NEAR = .05  # metres
F = np.float32
# inward normals of walls 0-3, floor, ceiling
_NORMALS = np.array([[0, 1, 0], [-1, 0, 0], [0, -1, 0], [1, 0, 0], [0, 0, 1], [0, 0, -1]], F)
# linear light 0 to _LIGHT_MAX -> sRGB byte: a soft shoulder instead of clipping, and gamma 2, cheap to undo
_LIGHT_MAX = 2.
_TONE = np.linspace(0, _LIGHT_MAX, 4096)
_TONE = np.where(_TONE < .6, _TONE, .6 + .4 * np.tanh((_TONE - .6) / .4))
_TONE = (255 * np.sqrt(_TONE) + .5).astype(np.uint8)


@dataclass
class Frame:
    """One square picture. rgb uint8 [H, W, 3]; depth float32 [H, W], metres along the optical axis; points float32
    [H, W, 3], where in the room that is, in metres;
    ids int16 [H, W], an object's id or FLOOR, WALL, CEILING; silhouettes int [objects]: how many pixels
    each object would cover with nothing in front of it."""
    rgb: np.ndarray
    depth: np.ndarray
    points: np.ndarray
    ids: np.ndarray
    silhouettes: np.ndarray


# ---------------------------------------------------------------- intersection

def _rectangles(solids, which, camera, size, pad):
    """Pixel rectangles x0, x1, y0, y1 [P], ends exclusive, around the projected primitives `which` [P]."""
    center = (solids.center[which] - camera.position) @ camera.rotation.T
    axes = camera.rotation @ solids.axes[which]                          # [P, 3, 3]
    signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)
    corners = center[:, None] + signs @ axes.transpose(0, 2, 1)          # [P, 8, 3]
    # an edge that crosses the near plane contributes its crossing, so that the hull stays finite
    a, b = np.array([[i, i ^ bit] for i in range(8) for bit in (1, 2, 4) if not i & bit]).T
    za, zb = corners[:, a, 2], corners[:, b, 2]
    crosses = (za > NEAR) != (zb > NEAR)
    share = np.where(crosses, (NEAR - za) / np.where(crosses, zb - za, 1), 0)[..., None]
    points = np.concatenate([corners, corners[:, a] + share * (corners[:, b] - corners[:, a])], 1)
    usable = np.concatenate([corners[..., 2] > NEAR, crosses], 1)[..., None]
    scale = size / 2 / np.tan(np.radians(camera.fov_deg) / 2)
    xy = points[..., :2] / np.maximum(points[..., 2:], NEAR) * scale + size / 2
    low = np.ceil(np.where(usable, xy, 1e6).min(1) - .5)                 # first pixel whose centre is inside
    high = np.floor(np.where(usable, xy, -1e6).max(1) - .5) + 1
    low, high = (np.clip(edge, -pad, size + pad).astype(int) for edge in (low, high))
    return low[:, 0], np.maximum(high, low)[:, 0], low[:, 1], np.maximum(high, low)[:, 1]


def _box_hit(o, d):
    """Depth at which rays o + t d enter the unit cube, inf where they miss; o, d: three arrays [K]."""
    near, leave = F(-np.inf), F(np.inf)
    for start, step in zip(o, d):
        inverse = 1 / step
        middle, half = start * inverse, np.abs(inverse)
        near, leave = np.maximum(near, -middle - half), np.minimum(leave, half - middle)
    return np.where((near < leave) & (near > NEAR), near, F(np.inf))


def _tube_hit(o, d, mid, slope):
    """The same for |z| <= 1, x^2 + y^2 <= (mid + slope z)^2. Origins lie outside the solid."""
    (ox, oy, oz), (dx, dy, dz) = o, d
    grow, radius = slope * dz, mid + slope * oz
    b = ox * dx + oy * dy - grow * radius
    c = ox * ox + oy * oy - radius * radius
    disc = b * b - (dx * dx + dy * dy - grow * grow) * c
    side = c / (np.sqrt(np.maximum(disc, 0)) - b)  # the root where the ray goes inwards, for any sign of b
    side = np.where((disc > 0) & (side > NEAR) & (np.abs(oz + side * dz) <= 1), side, F(np.inf))
    end = np.sign(oz)                              # only the end disc that faces the origin can be entered
    cap = (end - oz) / dz
    x, y, reach = ox + cap * dx, oy + cap * dy, mid + slope * end
    return np.where((np.abs(oz) > 1) & (cap > NEAR) & (x * x + y * y <= reach * reach), cap, side)


def _ball_hit(o, d):
    a, b = sum(x * x for x in d), sum(x * y for x, y in zip(o, d))
    c = sum(x * x for x in o) - 1
    disc = b * b - a * c
    t = c / (np.sqrt(np.maximum(disc, 0)) - b)
    return np.where((disc > 0) & (t > NEAR), t, F(np.inf))


def _cast(solids, which, camera, size, pad=0):
    """Intersect primitives `which` (indices, sorted by kind) with the frame grown by `pad` pixels all around.

    Returns flat arrays of all hits, nearest or not: pixel (row-major in the grown frame), primitive, depth.
    """
    x0, x1, y0, y1 = _rectangles(solids, which, camera, size, pad)
    keep = (x1 > x0) & (y1 > y0)
    which, x0, x1, y0, y1 = which[keep], x0[keep], x1[keep], y0[keep], y1[keep]
    step = 2 * np.tan(np.radians(camera.fov_deg) / 2) / size
    unit = solids.unit[which]
    ray = unit @ camera.rotation.T                                        # [P, 3, 3] camera ray -> unit space
    origin = np.einsum("pij,pj->ip", unit, camera.position - solids.center[which]).astype(F)
    # a span is one row of pixels of one primitive; along it the ray changes by `across` per pixel
    tall, wide = y1 - y0, (x1 - x0)
    span = np.repeat(np.arange(len(which)), tall)
    row = np.arange(len(span)) - np.repeat(np.cumsum(tall) - tall, tall) + y0[span]
    u, v = (x0 + .5 - size / 2)[span] * step, (row + .5 - size / 2) * step
    first = (ray[span, :, 0] * u[:, None] + ray[span, :, 1] * v[:, None] + ray[span, :, 2]).astype(F).T
    across = (ray[:, :, 0] * step).astype(F).T
    pixel = (row + pad) * (size + 2 * pad) + x0[span] + pad
    kinds, radii = solids.kind[which], solids.radii[which].astype(F)
    hits = [(np.zeros(0, int), np.zeros(0, int), np.zeros(0, F))]
    for kind in range(3):
        prims, spans = (slice(*np.searchsorted(k, [kind, kind + 1])) for k in (kinds, kinds[span]))
        count, run = (tall * wide)[prims], wide[span[spans]]
        if not len(run):
            continue
        along = np.arange(run.sum()) - np.repeat(np.cumsum(run) - run, run)
        d = [np.repeat(start, run) + np.repeat(change, count) * along.astype(F)
             for start, change in zip(first[:, spans], across[:, prims])]
        o = [np.repeat(x, count) for x in origin[:, prims]]
        if kind == TUBE:
            low, high = radii[prims].T
            t = _tube_hit(o, d, np.repeat((high + low) / 2, count), np.repeat((high - low) / 2, count))
        else:
            t = _box_hit(o, d) if kind == BOX else _ball_hit(o, d)
        hit = np.flatnonzero(t < np.inf)
        where = np.repeat(pixel[spans], run) + along
        hits.append((where[hit], np.repeat(which[prims], count)[hit], t[hit]))
    return [np.concatenate(column) for column in zip(*hits)]


# ---------------------------------------------------------------- looks

def _stripe(x, share, width):
    """Square wave of period 1, up for its first `share`, averaged over width so that it never aliases."""
    width = np.maximum(width, 1e-3)

    def area(x):
        whole = np.floor(x)
        return whole * share + np.minimum(x - whole, share)
    return (area(x + width / 2) - area(x - width / 2)) / width


def _noise(*cells):
    """Hash integer cells [K] to 0..1, the same on every machine."""
    h = np.zeros(cells[0].shape, np.uint32)
    for cell, prime in zip(cells, (73856093, 19349663)):
        h ^= cell.astype(np.int32).view(np.uint32) * np.uint32(prime)
    h = (h ^ (h >> np.uint32(13))) * np.uint32(1274126177)
    return ((h ^ (h >> np.uint32(16))) & np.uint32(0xFFFF)).astype(F) / F(65535)


def _pattern(surface, u, v, blur):
    """sRGB [K, 3] of a wall or floor at u, v metres; blur [K] is the pixel's size there in metres."""
    u, v, w = u / F(surface.period), v / F(surface.period), blur / F(surface.period)
    name, tone, mix = surface.pattern, None, np.zeros_like(u)
    if name == "stripes":
        mix = _stripe(u, .5, w)
    elif name == "panel":  # a wainscot a metre high under a rail
        z = v * F(surface.period)
        mix = (z < .95) * (.8 + .2 * _stripe(u, .94, w)) + 1.3 * (np.abs(z - .97) < .03)
    elif name == "carpet":
        mix = .25 + .5 * _noise(np.floor(u * 9), np.floor(v * 9)) * np.clip(1.5 - 9 * w, 0, 1)
    elif name in ("planks", "bricks"):
        long, rows, joint = (.35, 2, .07) if name == "planks" else (2, 4, .13)
        row = np.floor(v * rows)
        shift = u * F(long) + (_noise(row) * 7 if name == "planks" else row * F(.5))
        tone = (_noise(row, np.floor(shift)) - F(.5)) * F(.17) * np.clip(1.5 - long * w, 0, 1)
        ends = _stripe(shift, joint * .25 * long, long * w)
        mix = 1.5 * np.maximum(_stripe(v * rows, joint, rows * w), ends)
    elif name == "tiles":
        tone = (_noise(np.floor(u), np.floor(v)) - F(.5)) * F(.07) * np.clip(1.5 - w, 0, 1)
        mix = 1.3 * np.maximum(_stripe(u, .06, w), _stripe(v, .06, w))
    elif name in ("checker", "diamonds"):
        if name == "diamonds":
            u, v = (u + v) * F(.7), (u - v) * F(.7)
        mix = .5 - .5 * (2 * _stripe(u / 2, .5, w / 2) - 1) * (2 * _stripe(v / 2, .5, w / 2) - 1)
    first, second = np.array(surface.colour, F), np.array(surface.second, F)
    rgb = first + (second - first) * mix.astype(F)[:, None]
    return rgb if tone is None else rgb + tone[:, None]


def _decorate(scene, wall, u, z, rgb):
    """Paint windows, doors, pictures and the baseboard over wall colours rgb [K, 3], in place."""
    for decor in scene.decor:
        (u0, z0), (u1, z1) = decor.low, decor.high
        at = np.flatnonzero((wall == decor.wall) & (np.abs(u - (u0 + u1) / 2) < (u1 - u0) / 2)
                            & (np.abs(z - (z0 + z1) / 2) < (z1 - z0) / 2))
        if not len(at):
            continue
        x, y = (u[at] - F(u0)) / F(u1 - u0), (z[at] - F(z0)) / F(z1 - z0)
        colour, trim = np.array(decor.colour, F), np.array((.94, .93, .89), F)
        inner = np.repeat(colour[None], len(at), 0)
        if decor.kind == "window":  # sky over a hill, and a mullion
            inner += (.2 * y)[:, None]
            inner[y < .28 + .1 * np.sin(5 * x)] = (.45, .62, .36)
            inner[np.abs(x - .5) < .03] = trim
        elif decor.kind == "picture":
            inner[y < .4 + .2 * np.sin(7 * x + 9 * colour[0])] = colour[[2, 0, 1]] * F(.8)
            trim = np.array((.30, .21, .14), F)
        else:
            inner[(np.abs(x - .5) < .3) & (np.abs(np.abs(y - .5) - .22) < .17)] *= F(.86)
            inner[np.hypot(x - .88, (y - .48) * 2) < .05] = .85
        edge = np.minimum(np.minimum(x, 1 - x) * (u1 - u0), np.minimum(y if z0 else 1, 1 - y) * (z1 - z0))
        inner[edge < .06] = trim
        rgb[at] = inner
    rgb[z < .1] = (.94, .93, .90)


def _dress(look, rgb, unit, local, blur):
    """Surface looks over sRGB rgb [K, 3], in place; unit, local: points in unit space and metres [K, 3]."""
    for kind in np.unique(look[look > GLOW]):
        at = np.flatnonzero(look == kind)
        (x, y, z), (ux, uy, uz), soft = local[at].T, unit[at].T, blur[at]
        if kind == looks.STRIPES:
            rgb[at] *= (1 - .3 * _stripe(x * 5, .4, soft * 5))[:, None]
        elif kind == looks.KEYS:
            rgb[at] *= (1 - .85 * _stripe(y * 14, .3, soft * 14))[:, None]
        elif kind == looks.BRICK:
            row = np.floor(z * 12)
            ends = _stripe((y + x) * 6 + .5 * row, .08, soft * 6)
            rgb[at] *= (1 - .35 * np.maximum(_stripe(z * 12, .16, soft * 12), ends))[:, None]
        elif kind == looks.SHEEN:  # glass: two bright diagonal bands
            slant = uy * .6 + uz
            rgb[at] += (.07 + .15 * ((np.abs(slant - .35) < .3) | (np.abs(slant + .4) < .1)))[:, None]
        elif kind == looks.LAND:
            land = np.sin(5 * ux + 1) + np.sin(6 * uy + 2) + np.sin(5.5 * uz + 3 * ux)
            rgb[at[land > .6]] = (.82, .76, .52)
        elif kind == looks.BOOKS:
            book = np.floor(y * 18)
            hue = np.stack([_noise(book), _noise(book + 900), _noise(book + 1700)], 1)
            rgb[at] = .12 + .7 * hue


# ---------------------------------------------------------------- shading

def _shade_room(scene, surface, points, blur):
    """sRGB [K, 3] and occlusion [K] of room surfaces (0-3 walls, 4 floor, 5 ceiling) at points [3, K]."""
    rgb, occlusion = np.empty((len(surface), 3), F), np.empty(len(surface), F)
    x, y, z = points
    (long, deep), height = scene.polygon[2], scene.height

    def corner(a, b):  # light reaches corners less: distances to the two neighbouring surfaces in metres
        return (1 - F(.25) * np.exp(a * F(-5))) * (1 - F(.25) * np.exp(b * F(-5)))

    at = np.flatnonzero(surface == 4)
    if len(at):
        px, py = x[at], y[at]
        rgb[at] = _pattern(scene.floor, px, py, blur[at])
        shade = corner(np.minimum(px, long - px), np.minimum(py, deep - py))
        for obj in scene.objects:
            if obj.on is not None:
                continue
            # a tight dark contact, and a softer shadow that the lamp pushes away from itself
            away = np.array(obj.center[:2]) - scene.light[:2]
            push = away / max(np.linalg.norm(away), .5) * min(.3, .25 * obj.size[2])
            reach = np.hypot(*obj.size[:2]) / 2 + .8
            cx, cy, _ = obj.center
            near = np.flatnonzero((np.abs(px - cx) < reach) & (np.abs(py - cy) < reach))
            spot = np.stack([px[near], py[near]], 1)
            shade[near] *= ((1 - .4 * np.exp(-(footprint_distance(spot, obj) / .08) ** 2))
                            * (1 - .38 * np.exp(-(footprint_distance(spot - push, obj) / .22) ** 2)))
        occlusion[at] = shade
    at = np.flatnonzero(surface == 5)
    rgb[at] = scene.ceiling
    occlusion[at] = corner(np.minimum(x[at], long - x[at]), np.minimum(y[at], deep - y[at]))
    at = np.flatnonzero(surface < 4)
    if len(at):
        wall, up = surface[at], z[at]
        run, side = np.where(wall % 2, y[at], x[at]), np.where(wall % 2, F(deep), F(long))
        paint = _pattern(scene.wall, run, up, blur[at])
        _decorate(scene, wall, run, up, paint)
        rgb[at] = paint
        occlusion[at] = corner(np.minimum(run, side - run), np.minimum(up, height - up))
    return rgb, occlusion


def _shade_solids(solids, prim, points, blur):
    """Normals [3, K], sRGB [K, 3] and occlusion [K] where points [3, K] lie on primitives prim [K]."""
    inverse = solids.unit.astype(F)[prim]
    unit = np.einsum("kij,jk->ki", inverse, points - solids.center.astype(F)[prim].T)
    kind, normal = solids.kind[prim], unit.copy()               # the unit point itself is right for balls
    at = np.flatnonzero(kind == BOX)
    axis = np.abs(unit[at]).argmax(1)
    normal[at] = 0
    normal[at, axis] = np.sign(unit[at, axis])
    at = np.flatnonzero(kind == TUBE)
    (low, high), (x, y, z) = solids.radii[prim[at]].astype(F).T, unit[at].T
    radius = (low + high) / 2 + (high - low) / 2 * z
    end = (np.abs(z) > 1 - 1e-3) & (np.hypot(x, y) < radius - 1e-3)
    normal[at, 2] = np.where(end, np.sign(z), radius * (low - high) / 2)
    normal[at, :2] *= ~end[:, None]
    normal = np.einsum("kji,kj->ik", inverse, normal)           # normals turn by the inverse transpose
    normal /= np.sqrt((normal * normal).sum(0)) + F(1e-9)
    rgb = solids.rgb.astype(F)[prim]
    _dress(solids.look[prim], rgb, unit, unit * np.linalg.norm(solids.axes, axis=1).astype(F)[prim], blur)
    return normal, rgb, 1 - F(.35) * np.exp(points[2] * F(-9))  # the floor's own shade climbs a hand's width


def render(scene, camera, size_px):
    """Render a square picture of size_px pixels a side; returns a Frame."""
    with np.errstate(all="ignore"):  # rays parallel to a face divide by zero, and the comparisons allow it
        return _render(scene, camera, size_px)


def _render(scene, camera, size):
    solids, pixels = scene.solids, size * size
    step = 2 * np.tan(np.radians(camera.fov_deg) / 2) / size
    axis, rot, eye = (np.arange(size) + .5 - size / 2) * step, camera.rotation, camera.position.astype(F)
    rays = (rot[0][:, None, None] * axis + rot[1][:, None, None] * axis[:, None] + rot[2][:, None, None]
            ).reshape(3, pixels).astype(F)                      # world directions, 1 along the optical axis
    room = np.array([*scene.polygon[2], scene.height], F)
    exits = (np.where(rays > 0, room[:, None], F(0)) - eye[:, None]) / rays
    depth = np.minimum(np.minimum(exits[0], exits[1]), exits[2])
    surface = np.where(depth == exits[2], np.where(rays[2] > 0, 5, 4),
                       np.where(depth == exits[0], np.where(rays[0] > 0, 1, 3), np.where(rays[1] > 0, 2, 0)))
    pixel, prim, t = _cast(solids, np.arange(len(solids.kind)), camera, size)
    seen = np.zeros((len(scene.objects), pixels), bool)
    seen[solids.owner[prim], pixel] = True
    np.minimum.at(depth, pixel, t)
    best = np.flatnonzero(t == depth[pixel])
    winner = np.full(pixels, -1)
    winner[pixel[best]] = prim[best]
    on, off = np.flatnonzero(winner >= 0), np.flatnonzero(winner < 0)
    ids = np.array([WALL] * 4 + [FLOOR, CEILING], np.int16)[surface]
    ids[on] = solids.owner[winner[on]]

    points, blur = rays * depth + eye[:, None], depth * F(step)  # blur: a pixel's size at the hit, metres
    normal = _NORMALS.T[:, surface]
    facing = np.maximum(np.abs((normal * rays).sum(0)), F(.12))
    rgb, occlusion = np.empty((pixels, 3), F), np.empty(pixels, F)
    rgb[off], occlusion[off] = _shade_room(scene, surface[off], points[:, off], (blur / facing)[off])
    if len(on):
        normal[:, on], rgb[on], occlusion[on] = _shade_solids(solids, winner[on], points[:, on], blur[on])
    light = np.array(scene.light, F)[:, None] - points
    lambert = np.maximum((normal * light).sum(0) / np.sqrt((light * light).sum(0)), 0)
    # fill from everywhere, a little more from above and from behind the camera; the ceiling glows by bounce
    head_on = np.maximum(-(normal * rays).sum(0), 0) / np.sqrt((rays * rays).sum(0))
    fill = F(scene.fill) * (F(.9) + F(.1) * normal[2]) + F(.12) * head_on
    glow = (fill + F(.6) * lambert) * occlusion
    glow[off] += F(.18) * (surface[off] == 5)
    glow[on] += F(.5) * (solids.look[winner[on]] == GLOW)
    np.clip(rgb, 0, 1, out=rgb)
    rgb *= rgb * (glow[:, None] * np.array(scene.light_colour, F))  # squared: sRGB to about linear
    rgb = _TONE[np.minimum(rgb * F(4095 / _LIGHT_MAX), 4095).astype(np.int16)]
    return Frame(rgb.reshape(size, size, 3), depth.reshape(size, size), points.T.reshape(size, size, 3),
                 ids.reshape(size, size), seen.sum(1))


def visible_objects(scene, camera, frame):
    """What a frame shows of every object with at least one visible pixel.

    Returns {id: {"bbox": [x1, y1, x2, y2] pixels, ends exclusive; "pixels": visible ones; "depth": their median metres
    ahead of the camera; "visibility": their share of its silhouette in the frame; "truncation": share of its full
    silhouette outside the frame}}. The full silhouette is the one on a frame three times as wide and high around this.
    """
    size, result = len(frame.ids), {}
    for obj in np.unique(frame.ids[frame.ids >= 0]).tolist():
        rows, columns = np.nonzero(frame.ids == obj)
        whole = inside = int(frame.silhouettes[obj])
        which = np.flatnonzero(scene.solids.owner == obj)
        x0, x1, y0, y1 = _rectangles(scene.solids, which, camera, size, size)
        if min(x0.min(), y0.min()) < 0 or max(x1.max(), y1.max()) > size:
            with np.errstate(all="ignore"):
                whole = len(np.unique(_cast(scene.solids, which, camera, size, size)[0]))
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        depth = round(float(np.median(frame.depth[rows, columns])), 3)
        result[obj] = {"bbox": [int(edge) for edge in box], "pixels": len(rows), "depth": depth,
                       "visibility": len(rows) / inside, "truncation": 1 - inside / whole}
    return result


# ---------------------------------------------------------------- pictures

def _sheet(rows, tile, path):
    """Save labelled tiles: rows of (title, [(image array, caption), ...])."""
    columns = max(len(tiles) for _, tiles in rows)
    sheet = Image.new("RGB", (columns * (tile + 6) + 6, len(rows) * (tile + 38) + 6), (250, 249, 246))
    draw = ImageDraw.Draw(sheet)
    for j, (title, tiles) in enumerate(rows):
        y = 6 + j * (tile + 38)
        draw.text((8, y), title, (30, 30, 30))
        for i, (image, caption) in enumerate(tiles):
            x = 6 + i * (tile + 6)
            sheet.paste(Image.fromarray(image), (x, y + 14))
            draw.text((x + 2, y + 15 + tile), caption, (110, 110, 110))
    sheet.save(path)


def labelled(scene, camera, size_px):
    """uint8 [H, W, 3]: the rendered picture with the boxes and names of well visible objects drawn on it."""
    frame = render(scene, camera, size_px)
    image = Image.fromarray(frame.rgb)
    draw = ImageDraw.Draw(image)
    for obj, seen in visible_objects(scene, camera, frame).items():
        if seen["visibility"] > .3 and seen["pixels"] > size_px * size_px / 900:
            x1, y1, x2, y2 = seen["bbox"]
            draw.rectangle((x1, y1, x2 - 1, y2 - 1), outline=(255, 230, 60))
            draw.text((x1 + 2, max(y1 - 10, 0)), scene.objects[obj].category, (255, 255, 255), stroke_width=1,
                      stroke_fill=(20, 20, 20))
    return np.asarray(image)


def contact_sheet(path, seed=0, tile=192):
    """Save one PNG: boxed rooms of each level, eight views, a walk, depth and ids, then the ood split."""
    rows = []
    for split in ("train", "ood"):
        for level in LEVELS:
            scenes = [make_scene(seed, split, i + 100 * level, level) for i in range(8)]
            rows.append((f"{split}, level {level}", [
                (labelled(scene, single_camera(scene, np.random.default_rng([seed, i])), tile), scene.id)
                for i, scene in enumerate(scenes)]))
    scene = make_scene(seed, "val", 3, 3)
    frames = [render(scene, camera, tile) for camera in view_cameras(scene)]
    palette = np.random.default_rng(1).integers(40, 255, (len(scene.objects) + 3, 3)).astype(np.uint8)
    maps = []
    for frame in frames[::2]:
        grey = (255 * np.exp(-(frame.depth / 4) ** 2)).astype(np.uint8)
        maps += [(np.repeat(grey[..., None], 3, 2), "depth"), (palette[frame.ids], "ids")]
    rows[3:3] = [("eight views of one room", [(f.rgb, f"view {i + 1}") for i, f in enumerate(frames)]),
                 ("depth and ids of views 1, 3, 5, 7", maps),
                 ("a walk, every second frame", [(render(scene, camera, tile).rgb, f"frame {2 * i + 1}")
                                                 for i, camera in enumerate(walk_cameras(scene)[::2])])]
    _sheet(rows, tile, path)


def catalogue(path, tile=128, per_row=4):
    """Save one PNG of every category at its middle size: variants 0, 1 and the ood variant."""
    rng, tiles, base = np.random.default_rng(0), [], make_scene(0, "train", 0, 1)
    for name, spec in CATEGORIES.items():
        for variant in range(3):
            colour, paints = draw_paints(rng, "train")
            middle = np.mean([spec.depth, spec.width, spec.height], axis=1)
            parts, size, _ = build(name, middle, paints, variant)
            obj = Object(0, name, variant, colour, [2., 2., size[2] / 2], size.tolist(), 0., None)
            scene = replace(base, objects=[obj], solids=flatten([obj], [parts]), height=3., decor=[],
                            polygon=[[0., 0.], [4., 0.], [4., 4.], [0., 4.]], light=[3.2, 1., 2.8])
            eye = np.array(obj.center) + np.array([.8, -.5, .42]) * np.linalg.norm(size) * 1.2
            tiles.append((render(scene, look_at(eye, obj.center, 55), tile).rgb, f"{name} {variant}"))
    _sheet([("", tiles[i:i + 3 * per_row]) for i in range(0, len(tiles), 3 * per_row)], tile, path)


if __name__ == "__main__":
    target = sys.argv[1] if len(sys.argv) > 1 else "rooms.png"
    (catalogue if "catalogue" in target else contact_sheet)(target)
    print("wrote", target)
