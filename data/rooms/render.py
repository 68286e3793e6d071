"""An exact ray caster for furnished rooms, in numpy: about 4 ms for 96 x 96 pixels on one core.

Every solid is a unit cube, tube or ball under a 3 x 3 matrix. A frame takes these steps:

1. Project every solid and note the rectangle of pixels that it may cover.
2. Write all pairs (solid, pixel) of these rectangles one after another into flat arrays.
3. Intersect the rays of all pairs with their solids, one kind of solid at a time, in unit space.
4. Keep the nearest hit of every pixel, and shade only that.

To see pictures:

    python -m data.rooms.render rooms.png        # rooms of each level, views, a walk, depth and ids
    python -m data.rooms.render catalogue.png    # every category in every variant
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
NEAR = 0.05  # metres; nothing nearer to the camera is drawn
F = np.float32
# The inward normals of walls 0 to 3, of the floor and of the ceiling.
_NORMALS = np.array([[0, 1, 0], [-1, 0, 0], [0, -1, 0], [1, 0, 0], [0, 0, 1], [0, 0, -1]], F)
# From linear light, 0 to _LIGHT_MAX, to an sRGB byte. Bright light is compressed instead of
# clipped. The gamma is 2, which is cheap to undo.
_LIGHT_MAX = 2.0
_TONE = np.linspace(0, _LIGHT_MAX, 4096)
_TONE = np.where(_TONE < 0.6, _TONE, 0.6 + 0.4 * np.tanh((_TONE - 0.6) / 0.4))
_TONE = (255 * np.sqrt(_TONE) + 0.5).astype(np.uint8)


@dataclass
class Frame:
    """One square picture of H x W pixels."""

    rgb: np.ndarray  # uint8 [H, W, 3]
    depth: np.ndarray  # float32 [H, W], metres along the optical axis
    points: np.ndarray  # float32 [H, W, 3], world coordinates of what each pixel shows, in metres
    ids: np.ndarray  # int16 [H, W], the id of an object, or FLOOR, WALL or CEILING
    silhouettes: np.ndarray  # int [objects], pixels that each would cover with nothing before it


# ---------------------------------------------------------------- intersection


def _rectangles(solids, which, camera, size, pad):
    """Rectangles of pixels x0, x1, y0, y1 [P] around the projected solids `which` [P].

    Ends are exclusive. The frame is grown by `pad` pixels on all sides.
    """
    center = (solids.center[which] - camera.position) @ camera.rotation.T
    axes = camera.rotation @ solids.axes[which]  # [P, 3, 3]
    signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)
    corners = center[:, None] + signs @ axes.transpose(0, 2, 1)  # [P, 8, 3]
    # Of an edge that crosses the near plane the crossing counts, so that the rectangle stays
    # finite.
    a, b = np.array([[i, i ^ bit] for i in range(8) for bit in (1, 2, 4) if not i & bit]).T
    za, zb = corners[:, a, 2], corners[:, b, 2]
    crosses = (za > NEAR) != (zb > NEAR)
    share = np.where(crosses, (NEAR - za) / np.where(crosses, zb - za, 1), 0)[..., None]
    points = np.concatenate([corners, corners[:, a] + share * (corners[:, b] - corners[:, a])], 1)
    usable = np.concatenate([corners[..., 2] > NEAR, crosses], 1)[..., None]
    scale = size / 2 / np.tan(np.radians(camera.fov_deg) / 2)
    xy = points[..., :2] / np.maximum(points[..., 2:], NEAR) * scale + size / 2
    low = np.ceil(np.where(usable, xy, 1e6).min(1) - 0.5)  # the first pixel whose centre is inside
    high = np.floor(np.where(usable, xy, -1e6).max(1) - 0.5) + 1
    low, high = (np.clip(edge, -pad, size + pad).astype(int) for edge in (low, high))
    return low[:, 0], np.maximum(high, low)[:, 0], low[:, 1], np.maximum(high, low)[:, 1]


def _box_hit(o, d):
    """The t [K] at which rays o + t d enter the unit cube, inf where they miss it.

    o, d: three arrays [K] each. Because d is 1 along the optical axis, t is the depth.
    """
    near, leave = F(-np.inf), F(np.inf)
    for start, step in zip(o, d):
        inverse = 1 / step
        middle, half = start * inverse, np.abs(inverse)
        near, leave = np.maximum(near, -middle - half), np.minimum(leave, half - middle)
    return np.where((near < leave) & (near > NEAR), near, F(np.inf))


def _tube_hit(o, d, mid, slope):
    """_box_hit of the tube |z| <= 1, x^2 + y^2 <= (mid + slope z)^2. Rays start outside of it."""
    (ox, oy, oz), (dx, dy, dz) = o, d
    grow, radius = slope * dz, mid + slope * oz
    b = ox * dx + oy * dy - grow * radius
    c = ox * ox + oy * oy - radius * radius
    disc = b * b - (dx * dx + dy * dy - grow * grow) * c
    # The root at which the ray goes inwards, whatever the sign of b is.
    side = c / (np.sqrt(np.maximum(disc, 0)) - b)
    side = np.where((disc > 0) & (side > NEAR) & (np.abs(oz + side * dz) <= 1), side, F(np.inf))
    end = np.sign(oz)  # a ray can only enter the end disc that faces its origin
    cap = (end - oz) / dz
    x, y, reach = ox + cap * dx, oy + cap * dy, mid + slope * end
    return np.where((np.abs(oz) > 1) & (cap > NEAR) & (x * x + y * y <= reach * reach), cap, side)


def _ball_hit(o, d):
    """_box_hit of the unit ball."""
    a, b = sum(x * x for x in d), sum(x * y for x, y in zip(o, d))
    c = sum(x * x for x in o) - 1
    disc = b * b - a * c
    t = c / (np.sqrt(np.maximum(disc, 0)) - b)
    return np.where((disc > 0) & (t > NEAR), t, F(np.inf))


def _cast(solids, which, camera, size, pad=0):
    """All hits of the solids `which` (indices, sorted by kind) with the rays of a frame.

    The frame is grown by `pad` pixels on all sides. Returns three flat arrays: the pixel (row-major
    in the grown frame), the solid and the depth of every hit, whether it is the nearest or not.
    """
    x0, x1, y0, y1 = _rectangles(solids, which, camera, size, pad)
    keep = (x1 > x0) & (y1 > y0)
    which, x0, x1, y0, y1 = which[keep], x0[keep], x1[keep], y0[keep], y1[keep]
    step = 2 * np.tan(np.radians(camera.fov_deg) / 2) / size
    unit = solids.unit[which]
    ray = unit @ camera.rotation.T  # [P, 3, 3], from a ray of the camera to unit space
    origin = np.einsum("pij,pj->ip", unit, camera.position - solids.center[which]).astype(F)
    # A span is one row of pixels of one solid. Along it the ray changes by `across` at each pixel.
    tall, wide = y1 - y0, (x1 - x0)
    span = np.repeat(np.arange(len(which)), tall)
    row = np.arange(len(span)) - np.repeat(np.cumsum(tall) - tall, tall) + y0[span]
    u, v = (x0 + 0.5 - size / 2)[span] * step, (row + 0.5 - size / 2) * step
    first = ray[span, :, 0] * u[:, None] + ray[span, :, 1] * v[:, None] + ray[span, :, 2]
    first = first.astype(F).T
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
        d = [
            np.repeat(start, run) + np.repeat(change, count) * along.astype(F)
            for start, change in zip(first[:, spans], across[:, prims])
        ]
        o = [np.repeat(x, count) for x in origin[:, prims]]
        if kind == TUBE:
            low, high = radii[prims].T
            mid, slope = np.repeat((high + low) / 2, count), np.repeat((high - low) / 2, count)
            t = _tube_hit(o, d, mid, slope)
        else:
            t = _box_hit(o, d) if kind == BOX else _ball_hit(o, d)
        hit = np.flatnonzero(t < np.inf)
        where = np.repeat(pixel[spans], run) + along
        hits.append((where[hit], np.repeat(which[prims], count)[hit], t[hit]))
    return [np.concatenate(column) for column in zip(*hits)]


# ---------------------------------------------------------------- looks


def _stripe(x, share, width):
    """A square wave of period 1: 1 in the first `share` of it, 0 in the rest.

    It is averaged over `width`, so that it never aliases.
    """
    width = np.maximum(width, 1e-3)

    def area(x):
        whole = np.floor(x)
        return whole * share + np.minimum(x - whole, share)

    return (area(x + width / 2) - area(x - width / 2)) / width


def _noise(*cells):
    """Random numbers [K] from 0 to 1 for integer cells [K]; the same on every machine."""
    h = np.zeros(cells[0].shape, np.uint32)
    for cell, prime in zip(cells, (73856093, 19349663)):
        h ^= cell.astype(np.int32).view(np.uint32) * np.uint32(prime)
    h = (h ^ (h >> np.uint32(13))) * np.uint32(1274126177)
    return ((h ^ (h >> np.uint32(16))) & np.uint32(0xFFFF)).astype(F) / F(65535)


def _pattern(surface, u, v, blur):
    """sRGB [K, 3] of a wall or floor at u, v in metres; blur [K]: size of a pixel there."""
    u, v, w = u / F(surface.period), v / F(surface.period), blur / F(surface.period)
    name, tone, mix = surface.pattern, None, np.zeros_like(u)
    if name == "stripes":
        mix = _stripe(u, 0.5, w)
    elif name == "panel":  # panels up to a metre, under a rail
        z = v * F(surface.period)
        mix = (z < 0.95) * (0.8 + 0.2 * _stripe(u, 0.94, w)) + 1.3 * (np.abs(z - 0.97) < 0.03)
    elif name == "carpet":
        mix = 0.25 + 0.5 * _noise(np.floor(u * 9), np.floor(v * 9)) * np.clip(1.5 - 9 * w, 0, 1)
    elif name in ("planks", "bricks"):
        long, rows, joint = (0.35, 2, 0.07) if name == "planks" else (2, 4, 0.13)
        row = np.floor(v * rows)
        shift = u * F(long) + (_noise(row) * 7 if name == "planks" else row * F(0.5))
        tone = (_noise(row, np.floor(shift)) - F(0.5)) * F(0.17) * np.clip(1.5 - long * w, 0, 1)
        ends = _stripe(shift, joint * 0.25 * long, long * w)
        mix = 1.5 * np.maximum(_stripe(v * rows, joint, rows * w), ends)
    elif name == "tiles":
        tone = (_noise(np.floor(u), np.floor(v)) - F(0.5)) * F(0.07) * np.clip(1.5 - w, 0, 1)
        mix = 1.3 * np.maximum(_stripe(u, 0.06, w), _stripe(v, 0.06, w))
    elif name in ("checker", "diamonds"):
        if name == "diamonds":
            u, v = (u + v) * F(0.7), (u - v) * F(0.7)
        across, along = (2 * _stripe(x / 2, 0.5, w / 2) - 1 for x in (u, v))
        mix = 0.5 - 0.5 * across * along
    first, second = np.array(surface.colour, F), np.array(surface.second, F)
    rgb = first + (second - first) * mix.astype(F)[:, None]
    return rgb if tone is None else rgb + tone[:, None]


def _decorate(scene, wall, u, z, rgb):
    """Paint windows, doors, pictures and the baseboard over the walls' rgb [K, 3], in place."""
    for decor in scene.decor:
        (u0, z0), (u1, z1) = decor.low, decor.high
        at = np.flatnonzero(
            (wall == decor.wall)
            & (np.abs(u - (u0 + u1) / 2) < (u1 - u0) / 2)
            & (np.abs(z - (z0 + z1) / 2) < (z1 - z0) / 2)
        )
        if not len(at):
            continue
        x, y = (u[at] - F(u0)) / F(u1 - u0), (z[at] - F(z0)) / F(z1 - z0)
        colour, trim = np.array(decor.colour, F), np.array((0.94, 0.93, 0.89), F)
        inner = np.repeat(colour[None], len(at), 0)
        if decor.kind == "window":  # sky over a hill, and a bar in the middle
            inner += (0.2 * y)[:, None]
            inner[y < 0.28 + 0.1 * np.sin(5 * x)] = (0.45, 0.62, 0.36)
            inner[np.abs(x - 0.5) < 0.03] = trim
        elif decor.kind == "picture":
            inner[y < 0.4 + 0.2 * np.sin(7 * x + 9 * colour[0])] = colour[[2, 0, 1]] * F(0.8)
            trim = np.array((0.30, 0.21, 0.14), F)
        else:
            inner[(np.abs(x - 0.5) < 0.3) & (np.abs(np.abs(y - 0.5) - 0.22) < 0.17)] *= F(0.86)
            inner[np.hypot(x - 0.88, (y - 0.48) * 2) < 0.05] = 0.85
        tall = np.minimum(y if z0 else 1, 1 - y) * (z1 - z0)  # a door has no frame at the floor
        edge = np.minimum(np.minimum(x, 1 - x) * (u1 - u0), tall)
        inner[edge < 0.06] = trim
        rgb[at] = inner
    rgb[z < 0.1] = (0.94, 0.93, 0.90)


def _dress(look, rgb, unit, local, blur):
    """Paint the looks of surfaces over rgb [K, 3], in place.

    unit, local: the points [K, 3] in unit space, and in metres. blur: as in _pattern.
    """
    for kind in np.unique(look[look > GLOW]):
        at = np.flatnonzero(look == kind)
        (x, y, z), (ux, uy, uz), soft = local[at].T, unit[at].T, blur[at]
        if kind == looks.STRIPES:
            rgb[at] *= (1 - 0.3 * _stripe(x * 5, 0.4, soft * 5))[:, None]
        elif kind == looks.KEYS:
            rgb[at] *= (1 - 0.85 * _stripe(y * 14, 0.3, soft * 14))[:, None]
        elif kind == looks.BRICK:
            row = np.floor(z * 12)
            ends = _stripe((y + x) * 6 + 0.5 * row, 0.08, soft * 6)
            rgb[at] *= (1 - 0.35 * np.maximum(_stripe(z * 12, 0.16, soft * 12), ends))[:, None]
        elif kind == looks.SHEEN:  # glass: two bright diagonal bands
            slant = uy * 0.6 + uz
            bands = (np.abs(slant - 0.35) < 0.3) | (np.abs(slant + 0.4) < 0.1)
            rgb[at] += (0.07 + 0.15 * bands)[:, None]
        elif kind == looks.LAND:
            land = np.sin(5 * ux + 1) + np.sin(6 * uy + 2) + np.sin(5.5 * uz + 3 * ux)
            rgb[at[land > 0.6]] = (0.82, 0.76, 0.52)
        elif kind == looks.BOOKS:
            book = np.floor(y * 18)
            hue = np.stack([_noise(book), _noise(book + 900), _noise(book + 1700)], 1)
            rgb[at] = 0.12 + 0.7 * hue


# ---------------------------------------------------------------- shading


def _shade_room(scene, surface, points, blur):
    """sRGB [K, 3] and occlusion [K] of the room's own surfaces at points [3, K].

    surface: 0 to 3 are the walls, 4 is the floor, 5 the ceiling. Occlusion is the share of the
    light that arrives.
    """
    rgb, occlusion = np.empty((len(surface), 3), F), np.empty(len(surface), F)
    x, y, z = points
    (long, deep), height = scene.polygon[2], scene.height

    def corner(a, b):
        """Less light reaches a corner; a, b: metres to the two neighbouring surfaces."""
        return (1 - F(0.25) * np.exp(a * F(-5))) * (1 - F(0.25) * np.exp(b * F(-5)))

    at = np.flatnonzero(surface == 4)
    if len(at):
        px, py = x[at], y[at]
        rgb[at] = _pattern(scene.floor, px, py, blur[at])
        shade = corner(np.minimum(px, long - px), np.minimum(py, deep - py))
        for obj in scene.objects:
            if obj.on is not None:
                continue
            # A narrow dark shadow of contact, and a softer one that lies away from the lamp.
            away = np.array(obj.center[:2]) - scene.light[:2]
            push = away / max(np.linalg.norm(away), 0.5) * min(0.3, 0.25 * obj.size[2])
            reach = np.hypot(*obj.size[:2]) / 2 + 0.8
            cx, cy, _ = obj.center
            near = np.flatnonzero((np.abs(px - cx) < reach) & (np.abs(py - cy) < reach))
            spot = np.stack([px[near], py[near]], 1)
            contact = 0.4 * np.exp(-((footprint_distance(spot, obj) / 0.08) ** 2))
            shadow = 0.38 * np.exp(-((footprint_distance(spot - push, obj) / 0.22) ** 2))
            shade[near] *= (1 - contact) * (1 - shadow)
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
    """Normals [3, K], sRGB [K, 3] and occlusion [K] of points [3, K] on the solids `prim` [K]."""
    inverse = solids.unit.astype(F)[prim]
    unit = np.einsum("kij,jk->ki", inverse, points - solids.center.astype(F)[prim].T)
    kind, normal = solids.kind[prim], unit.copy()  # of a ball the point is the normal
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
    normal = np.einsum("kji,kj->ik", inverse, normal)  # by the inverse transpose
    normal /= np.sqrt((normal * normal).sum(0)) + F(1e-9)
    rgb = solids.rgb.astype(F)[prim]
    local = unit * np.linalg.norm(solids.axes, axis=1).astype(F)[prim]
    _dress(solids.look[prim], rgb, unit, local, blur)
    return normal, rgb, 1 - F(0.35) * np.exp(points[2] * F(-9))  # darker within 0.1 m of the floor


def _rays(camera, size):
    """World directions [3, size * size] of the pixels' rays; each is 1 along the optical axis."""
    step = 2 * np.tan(np.radians(camera.fov_deg) / 2) / size
    axis, (right, down, ahead) = (np.arange(size) + 0.5 - size / 2) * step, camera.rotation
    x, y = right[:, None, None] * axis, down[:, None, None] * axis[:, None]
    return (x + y + ahead[:, None, None]).reshape(3, size * size).astype(F)


def _bare_room(scene, rays, origin):
    """(depth, surface) at which rays [3, K] from the origin leave the room; see _shade_room."""
    room = np.array([*scene.polygon[2], scene.height], F)
    exits = (np.where(rays > 0, room[:, None], F(0)) - origin[:, None]) / rays
    depth = np.minimum(np.minimum(exits[0], exits[1]), exits[2])
    x_wall, y_wall = np.where(rays[0] > 0, 1, 3), np.where(rays[1] > 0, 2, 0)
    wall = np.where(depth == exits[0], x_wall, y_wall)
    return depth, np.where(depth == exits[2], np.where(rays[2] > 0, 5, 4), wall)


def _light(scene, points, normal, rays):
    """Light [K] that arrives at points [3, K] with the given normals, before occlusion."""
    light = np.array(scene.light, F)[:, None] - points
    lambert = np.maximum((normal * light).sum(0) / np.sqrt((light * light).sum(0)), 0)
    # Light comes from everywhere, a little more from above and from behind the camera.
    head_on = np.maximum(-(normal * rays).sum(0), 0) / np.sqrt((rays * rays).sum(0))
    fill = F(scene.fill) * (F(0.9) + F(0.1) * normal[2]) + F(0.12) * head_on
    return fill + F(0.6) * lambert


def render(scene, camera, size_px):
    """The Frame of a camera, size_px pixels wide and high."""
    # Rays that are parallel to a face divide by zero. The comparisons are right for inf and nan.
    with np.errstate(all="ignore"):
        return _render(scene, camera, size_px)


def _render(scene, camera, size):
    solids, pixels = scene.solids, size * size
    origin, rays = camera.position.astype(F), _rays(camera, size)
    depth, surface = _bare_room(scene, rays, origin)
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

    points = rays * depth + origin[:, None]
    blur = depth * F(2 * np.tan(np.radians(camera.fov_deg) / 2) / size)  # a pixel's size in metres
    normal = _NORMALS.T[:, surface]
    facing = np.maximum(np.abs((normal * rays).sum(0)), F(0.12))
    rgb, occlusion = np.empty((pixels, 3), F), np.empty(pixels, F)
    size_there = (blur / facing)[off]  # larger on a surface that is seen at an angle
    rgb[off], occlusion[off] = _shade_room(scene, surface[off], points[:, off], size_there)
    if len(on):
        shaded = _shade_solids(solids, winner[on], points[:, on], blur[on])
        normal[:, on], rgb[on], occlusion[on] = shaded
    light = _light(scene, points, normal, rays) * occlusion
    light[off] += F(0.18) * (surface[off] == 5)  # the ceiling reflects light from below
    light[on] += F(0.5) * (solids.look[winner[on]] == GLOW)
    np.clip(rgb, 0, 1, out=rgb)
    # The square of an sRGB value is about linear in light.
    rgb *= rgb * (light[:, None] * np.array(scene.light_colour, F))
    rgb = _TONE[np.minimum(rgb * F(4095 / _LIGHT_MAX), 4095).astype(np.int16)]
    return Frame(
        rgb.reshape(size, size, 3),
        depth.reshape(size, size),
        points.T.reshape(size, size, 3),
        ids.reshape(size, size),
        seen.sum(1),
    )


def visible_objects(scene, camera, frame):
    """{id: what the frame shows of the object}, of every object with at least one visible pixel.

    bbox        [x1, y1, x2, y2] in pixels, ends exclusive
    pixels      number of its visible pixels
    depth       their median distance in metres along the optical axis
    visibility  their share of its silhouette in the frame
    truncation  share of its full silhouette that lies outside the frame; the full silhouette is
                that on a frame three times as wide and high around this one
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
        result[obj] = {
            "bbox": [int(edge) for edge in box],
            "pixels": len(rows),
            "depth": depth,
            "visibility": len(rows) / inside,
            "truncation": 1 - inside / whole,
        }
    return result


# ---------------------------------------------------------------- pictures


def _sheet(rows, tile, path):
    """Save an image of tiles. rows: (title, [(image array, caption), ...]) of each row."""
    columns, down = max(len(tiles) for _, tiles in rows), tile + 48
    sheet = Image.new("RGB", (columns * (tile + 8) + 8, len(rows) * down + 8), (250, 249, 246))
    draw = ImageDraw.Draw(sheet)
    for j, (title, tiles) in enumerate(rows):
        draw.text((8, 6 + j * down), title, (30, 30, 30), font_size=16)
        for i, (image, caption) in enumerate(tiles):
            x, y = 8 + i * (tile + 8), 28 + j * down
            sheet.paste(Image.fromarray(image), (x, y))
            draw.text((x, y + tile), caption, (90, 90, 90), font_size=13)
    sheet.save(path)


def labelled(scene, camera, size_px):
    """A picture uint8 [H, W, 3] with the boxes and names of its well visible objects."""
    frame = render(scene, camera, size_px)
    image = Image.fromarray(frame.rgb)
    draw = ImageDraw.Draw(image)
    for obj, seen in visible_objects(scene, camera, frame).items():
        if seen["visibility"] > 0.3 and seen["pixels"] > size_px * size_px / 900:
            x1, y1, x2, y2 = seen["bbox"]
            draw.rectangle((x1, y1, x2 - 1, y2 - 1), outline=(255, 230, 60))
            where, name = (x1 + 2, max(y1 - 10, 0)), scene.objects[obj].category
            draw.text(where, name, (255, 255, 255), stroke_width=1, stroke_fill=(20, 20, 20))
    return np.asarray(image)


def contact_sheet(path, seed=0, tile=256):
    """Save a PNG of training rooms and rooms out of domain with boxes, views, depth and a walk."""

    def rooms(split):
        scenes = [make_scene(seed, split, i + 100 * level, level) for i, level in enumerate(LEVELS)]
        scenes.append(make_scene(seed, split, 301, 3))
        cameras = [single_camera(s, np.random.default_rng([seed, s.index])) for s in scenes]
        levels = [f"level {s.level}: {len(s.objects)} objects in the room" for s in scenes]
        return [(labelled(*shown, tile), text) for *shown, text in zip(scenes, cameras, levels)]

    scene = make_scene(seed, "val", 3, 3)
    frames = [render(scene, camera, tile) for camera in view_cameras(scene)[::2]]
    walk = [render(scene, camera, tile) for camera in walk_cameras(scene)[::4]]
    palette = np.random.default_rng(1).integers(40, 255, (len(scene.objects) + 3, 3))
    palette, maps = palette.astype(np.uint8), []
    for frame, number in zip(frames, "13"):
        grey = (255 * np.exp(-((frame.depth / 4) ** 2))).astype(np.uint8)
        maps.append((np.repeat(grey[..., None], 3, 2), f"depth of view {number}"))
        maps.append((palette[frame.ids], f"objects of view {number}"))
    views = [(frame.rgb, f"view {number}") for frame, number in zip(frames, "1357")]
    steps = [(frame.rgb, f"frame {number}") for frame, number in zip(walk, (1, 5, 9, 13))]
    rows = [
        ("Training rooms", rooms("train")),
        ("Four of eight views of one room", views),
        ("What the program knows of views 1 and 3", maps),
        ("Four of sixteen frames of a walk through it", steps),
        ("Rooms out of domain", rooms("ood")),
    ]
    _sheet(rows, tile, path)


def catalogue(path, tile=128, per_row=4):
    """Save a PNG of every category at its middle size, in variants 0, 1 and the ood split's 2."""
    rng, tiles = np.random.default_rng(0), []
    square = [[0.0, 0.0], [4.0, 0.0], [4.0, 4.0], [0.0, 4.0]]
    base = replace(make_scene(0, "train", 0, 1), height=3.0, decor=[], polygon=square)
    base = replace(base, light=[3.2, 1.0, 2.8])
    for name, spec in CATEGORIES.items():
        for variant in range(3):
            colour, paints = draw_paints(rng, "train")
            middle = np.mean([spec.depth, spec.width, spec.height], axis=1)
            parts, size, _ = build(name, middle, paints, variant)
            center = [2.0, 2.0, size[2] / 2]
            obj = Object(0, name, variant, colour, center, size.tolist(), 0.0, None)
            scene = replace(base, objects=[obj], solids=flatten([obj], [parts]))
            away = np.array([0.8, -0.5, 0.42]) * np.linalg.norm(size) * 1.2
            camera = look_at(np.array(center) + away, center, 55)
            tiles.append((render(scene, camera, tile).rgb, f"{name} {variant}"))
    width = 3 * per_row
    _sheet([("", tiles[i : i + width]) for i in range(0, len(tiles), width)], tile, path)


if __name__ == "__main__":
    target = sys.argv[1] if len(sys.argv) > 1 else "rooms.png"
    (catalogue if "catalogue" in target else contact_sheet)(target)
    print("wrote", target)
