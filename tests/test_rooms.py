"""Tests of data/rooms: furniture, scenes, cameras and the exactness of the renderer."""

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from data.rooms.furniture import (
    BOX,
    CATEGORIES,
    COLOURS,
    TUBE,
    VARIANTS,
    Kit,
    build,
    draw_paints,
    draw_size,
)
from data.rooms.render import CEILING, FLOOR, WALL, render, visible_objects
from data.rooms.scene import (
    LEVELS,
    SPLITS,
    Camera,
    camera_to_json,
    flatten,
    footprint,
    footprint_distance,
    look_at,
    make_scene,
    overlap,
    rotation_z,
    scene_from_json,
    scene_to_json,
    single_camera,
    view_cameras,
    walk_cameras,
)


@cache
def rooms():
    """200 scenes: every split and level."""
    return [make_scene(5, SPLITS[i % 4], i, 1 + i // 4 % 3) for i in range(200)]


def shots(n, level=3, split="train"):
    for i in range(n):
        scene = make_scene(9, split, i, level)
        yield scene, single_camera(scene, np.random.default_rng(i))


def alone(scene, obj):
    """The scene with every other object taken away; ids stay."""
    keep = scene.solids.owner == obj
    return replace(
        scene, solids=type(scene.solids)(**{k: v[keep] for k, v in vars(scene.solids).items()})
    )


# ---------------------------------------------------------------- furniture


def test_categories_are_single_words_with_believable_sizes():
    assert len(CATEGORIES) >= 28
    assert all(name.isalpha() and name.islower() for name in CATEGORIES)
    assert all(
        set(VARIANTS["ood"]).isdisjoint(VARIANTS[split]) for split in ("train", "val", "test")
    )


@pytest.mark.parametrize("name", sorted(CATEGORIES))
def test_sizes_vary_twofold_and_boxes_are_tight(name):
    rng = np.random.default_rng(3)
    sizes = []
    for i in range(120):
        _, paints = draw_paints(rng, "train")
        parts, size, top = build(name, draw_size(rng, name), paints, i % 2)
        sizes.append(size)
        assert 4 <= len(parts) <= 24
        bounds = np.array([part.extent() for part in parts])
        np.testing.assert_allclose(bounds[:, 0].min(0), [-size[0] / 2, -size[1] / 2, 0], atol=1e-9)
        np.testing.assert_allclose(
            bounds[:, 1].max(0), [size[0] / 2, size[1] / 2, size[2]], atol=1e-9
        )
        if top:  # the free top is the highest thing there is above its middle
            above = [
                b for b in bounds if (b[0, :2] < top[1:3]).all() and (top[1:3] < b[1, :2]).all()
            ]
            assert max(b[1, 2] for b in above) == pytest.approx(top[0], abs=1e-9)
    longest = np.max(sizes, axis=1)
    assert longest.max() / longest.min() >= 2


@pytest.mark.parametrize("name", sorted(CATEGORIES))
def test_main_colour_covers_half_of_what_is_seen(name):
    rng, shares, base = np.random.default_rng(4), [], make_scene(0, "train", 0, 1)
    for i in range(9):
        _, paints = draw_paints(rng, "train")
        parts, size, _ = build(name, draw_size(rng, name), paints, i % 3)
        obj = replace(
            base.objects[0], id=0, center=[3.0, 3.0, size[2] / 2], size=size.tolist(), yaw=0.0
        )
        split = [[p for p in parts if p.paint == "main"], [p for p in parts if p.paint != "main"]]
        objects = [obj, replace(obj, id=1)]
        scene = replace(
            base,
            objects=objects,
            solids=flatten(objects, split),
            height=9.0,
            polygon=[[0, 0], [6, 0], [6, 6], [0, 6]],
        )
        yaw = -1 + i / 4
        eye = (
            np.array(obj.center)
            + np.array([np.cos(yaw), np.sin(yaw), 0.35]) * np.linalg.norm(size) * 1.3
        )
        ids = render(scene, look_at(eye, obj.center, 55), 48).ids
        shares.append((ids == 0).sum() / (ids >= 0).sum())
    assert np.mean(shares) > 0.45


def test_extent_is_tight_on_sampled_surfaces():
    rng = np.random.default_rng(0)
    ball = rng.normal(size=(20000, 3))
    ball /= np.linalg.norm(ball, axis=1, keepdims=True)
    _, paints = draw_paints(rng, "train")
    for name in ("lamp", "guitar", "teddy", "easel"):
        for part in build(name, draw_size(rng, name), paints, 1)[0]:
            if part.kind == BOX:
                unit = np.sign(ball)
            elif part.kind == TUBE:
                z = np.sign(ball[:, 2])
                ring = ball[:, :2] / np.linalg.norm(ball[:, :2], axis=1, keepdims=True)
                unit = np.column_stack(
                    [ring * np.where(z > 0, part.radii[1], part.radii[0])[:, None], z]
                )
            else:
                unit = ball
            points = unit * part.half @ part.rot.T + part.center
            found, size = np.array([points.min(0), points.max(0)]), part.half.max()
            np.testing.assert_allclose(found, part.extent(), atol=0.02 * size)


def test_colours_are_independent_of_category():
    table = {}
    for i in range(250):
        for obj in make_scene(1, "train", i, 3).objects:
            table.setdefault(obj.category, []).append(obj.colour)
    share = np.array(
        [[names.count(colour) / len(names) for colour in COLOURS] for names in table.values()]
    )
    assert len(table) == len(CATEGORIES)
    assert np.abs(share.mean(0) - 1 / len(COLOURS)).max() < 0.03
    assert share.max() < 0.35  # about 55 draws a category at 1/12: .08 +- .04


# ---------------------------------------------------------------- scenes


def test_same_seed_same_bytes_and_other_seeds_differ():
    def picture(seed, split, index):
        scene = make_scene(seed, split, index, 2)
        return render(scene, single_camera(scene, np.random.default_rng(0)), 48).rgb.tobytes()

    assert picture(0, "val", 7) == picture(0, "val", 7)
    assert (
        len(
            {
                picture(0, "val", 7),
                picture(1, "val", 7),
                picture(0, "val", 8),
                picture(0, "test", 7),
            }
        )
        == 4
    )


def test_level_counts():
    for scene in rooms():
        low, high = LEVELS[scene.level]
        extra = (1, 3) if scene.split == "ood" else (0, 0)
        assert low + extra[0] <= len(scene.objects) <= high + extra[1]
        assert [obj.id for obj in scene.objects] == list(range(len(scene.objects)))
    counts = [len(make_scene(2, "train", i, 1).objects) for i in range(150)]
    assert 0.03 < counts.count(1) / 150 < 0.18


def test_objects_stay_in_the_room_and_never_intersect():
    for scene in rooms():
        limit = np.array([*scene.polygon[2], scene.height])
        standing = [obj for obj in scene.objects if obj.on is None]
        for obj in scene.objects:
            assert (obj.corners() > -1e-6).all() and (obj.corners() < limit + 1e-6).all()
        feet = [footprint(obj.center, obj.size, obj.yaw) for obj in standing]
        assert not any(overlap(a, b) for i, a in enumerate(feet) for b in feet[:i])


def test_overlap_agrees_with_sampled_points():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        a, b = (
            (rng.uniform(0, 2, 2), rng.uniform(0.2, 1.5, 2), rng.uniform(0, 6)) for _ in range(2)
        )
        local = (
            (rng.uniform(-0.5, 0.5, (3000, 2)) * a[1]) @ rotation_z(a[2])[:2, :2].T + a[0] - b[0]
        )
        inside = (np.abs(local @ rotation_z(b[2])[:2, :2]) < b[1] / 2).all(1).any()
        hits += inside
        if inside:
            assert overlap(footprint(*a), footprint(*b))
        elif overlap(footprint(*a), footprint(*b)):  # only a sliver may escape 3000 samples
            assert not overlap(footprint(*a, margin=-0.06), footprint(*b, margin=-0.06))
    assert 20 < hits < 180


def test_perched_objects_stand_exactly_on_their_support():
    found = 0
    for scene in rooms():
        for obj in scene.objects:
            below = None if obj.on is None else scene.objects[obj.on]
            bottom = obj.center[2] - obj.size[2] / 2
            if below is None:
                assert bottom == pytest.approx(0, abs=1e-9)
                continue
            found += 1
            assert CATEGORIES[obj.category].perch and below.on is None
            assert bottom == pytest.approx(below.center[2] + below.size[2] / 2, abs=1e-6)
            assert footprint_distance(np.array(obj.center[:2]), below) == 0
            assert sum(other.on == below.id for other in scene.objects) == 1
    assert found > 20


def test_wall_furniture_faces_into_the_room():
    for scene in rooms():
        for obj in scene.objects:
            if CATEGORIES[obj.category].wall:
                back = np.array(obj.center) - rotation_z(obj.yaw) @ [obj.size[0] / 2 + 0.08, 0, 0]
                assert (back[:2] < 0).any() or (back[:2] > scene.polygon[2]).any()


def test_categories_repeat_so_that_counting_is_real():
    names = [[obj.category for obj in scene.objects] for scene in rooms() if scene.level == 3]
    assert 0.4 < np.mean([len(set(n)) < len(n) for n in names]) < 1


def test_ood_differs_as_stated():
    train = [make_scene(3, "train", i, 2) for i in range(40)]
    ood = [make_scene(3, "ood", i, 2) for i in range(40)]

    def mean(scenes, value):
        return np.mean([value(scene) for scene in scenes])

    assert mean(ood, lambda s: np.prod(s.polygon[2])) > 1.8 * mean(
        train, lambda s: np.prod(s.polygon[2])
    )
    assert mean(ood, lambda s: len(s.objects)) > mean(train, lambda s: len(s.objects)) + 1
    for look in ("floor", "wall"):
        patterns = [{getattr(s, look).pattern for s in scenes} for scenes in (train, ood)]
        assert patterns[0].isdisjoint(patterns[1])
    assert {o.variant for s in ood for o in s.objects} == {2}
    assert {o.variant for s in train for o in s.objects} == {0, 1}
    for scenes, inside in ((train, True), (ood, False)):
        for scene in scenes:
            camera = view_cameras(scene, 1)[0]
            assert (1.1 <= camera.position[2] <= 1.8) == inside
            assert (60 <= camera.fov_deg <= 80) == inside


def test_json_round_trip_renders_the_same():
    scene, camera = next(shots(1))
    row = json.loads(json.dumps(scene_to_json(scene) | {"cameras": [camera_to_json(camera)]}))
    again, (camera_again,) = scene_from_json(row)
    assert row["id"] == "train-000000"
    for a, b in zip(
        vars(render(scene, camera, 64)).values(), vars(render(again, camera_again, 64)).values()
    ):
        np.testing.assert_array_equal(a, b)
    row["objects"][0]["yaw"] += 0.1
    with pytest.raises(ValueError, match="another version"):
        scene_from_json(row)


# ---------------------------------------------------------------- cameras


def test_camera_axes_and_projection():
    camera = look_at(np.array([1.0, 1.0, 1.5]), [4.0, 1.0, 1.5], 90)
    np.testing.assert_allclose(camera.rotation @ camera.rotation.T, np.eye(3), atol=1e-12)
    image, depth = camera.project(
        [[3, 1, 1.5], [3, -1, 1.5], [3, 1, 2.5]]
    )  # ahead; to its right; up
    np.testing.assert_allclose(image, [[0, 0], [1, 0], [0, -0.5]], atol=1e-12)
    np.testing.assert_allclose(depth, [2, 2, 2])


def test_single_camera_sees_furniture_and_stands_free():
    seen = []
    for i, (scene, camera) in enumerate(shots(25, level=2)):
        distances = [
            footprint_distance(camera.position[:2], obj) for obj in scene.objects if obj.on is None
        ]
        assert min(distances) > 0.25, i
        seen.append(
            len(visible_objects(scene, camera, render(scene, camera, 48))) / len(scene.objects)
        )
    assert min(seen) > 0 and np.mean(seen) > 0.5


def test_views_surround_the_room():
    for scene in rooms()[:20]:
        cameras = view_cameras(scene)
        middle = np.array(scene.polygon[2]) / 2
        inward = [camera.rotation[2, :2] @ (middle - camera.position[:2]) for camera in cameras]
        assert len(cameras) == 8 and np.mean(np.array(inward) > -0.3) > 0.8
        angles = np.arctan2(*np.array([camera.rotation[2, :2] for camera in cameras]).T)
        assert abs(np.exp(1j * angles).mean()) < 0.6  # they look in all directions


def test_walk_is_smooth_and_keeps_out_of_furniture():
    lengths = []
    for scene in rooms()[:40]:
        cameras = walk_cameras(scene)
        spots = np.array([camera.position for camera in cameras])
        steps = np.linalg.norm(np.diff(spots, axis=0), axis=1)
        turns = [a.rotation[2] @ b.rotation[2] for a, b in zip(cameras, cameras[1:])]
        lengths.append(steps.sum())
        assert len(cameras) == 16 and steps.max() <= 0.3 + 1e-9
        assert np.degrees(np.arccos(np.clip(turns, -1, 1))).max() < 15.1
        between = np.concatenate(
            [spots[:-1, :2] * (1 - t) + spots[1:, :2] * t for t in np.linspace(0, 1, 5)]
        )
        assert (
            min(footprint_distance(between, o).min() for o in scene.objects if o.on is None) > 0.15
        )
    assert np.mean(lengths) > 1.5


# ---------------------------------------------------------------- rendering


def brute_force(scene, camera, size, rows, columns, step):
    """(depth, ids) of pixels [K] by float64 marching through every primitive's own inside test."""
    half = np.tan(np.radians(camera.fov_deg) / 2)
    local = np.stack(
        [
            ((columns + 0.5) / size * 2 - 1) * half,
            ((rows + 0.5) / size * 2 - 1) * half,
            np.ones(len(rows)),
        ]
    )
    rays = camera.rotation.T @ local  # [3, K]
    eye, room = camera.position[:, None], np.array([*scene.polygon[2], scene.height])[:, None]
    exits = np.where(rays > 0, room - eye, -eye) / rays
    depth, hit = exits.min(0), exits.argmin(0)
    ids = np.where(hit < 2, WALL, np.where(rays[2] > 0, CEILING, FLOOR))
    t = np.arange(0.05, depth.max(), step)
    for kind, center, axes, radii, obj in zip(
        *(getattr(scene.solids, name) for name in ("kind", "center", "axes", "radii", "owner"))
    ):
        start, along = np.linalg.solve(axes, eye - center[:, None]), np.linalg.solve(axes, rays)
        x, y, z = start[..., None] + along[..., None] * t  # [K, T] each
        if kind == BOX:
            inside = (abs(x) <= 1) & (abs(y) <= 1) & (abs(z) <= 1)
        elif kind == TUBE:
            inside = (abs(z) <= 1) & (
                np.hypot(x, y) <= radii[0] + (radii[1] - radii[0]) * (z + 1) / 2
            )
        else:
            inside = x * x + y * y + z * z <= 1
        entry = np.where(inside.any(1), t[inside.argmax(1)], np.inf)
        ids = np.where(entry < depth, obj, ids)
        depth = np.minimum(depth, entry)
    return depth, ids


def test_every_pixel_of_every_solid_agrees_with_brute_force():
    kit = Kit(draw_paints(np.random.default_rng(0), "train")[1])
    kit.box(0, -1.4, 0.1, 0.5, 0.4, 0.6, lean=0.5)
    kit.tube(0, -0.7, 0, 0.35, 0.5, top=0.1)  # seen from above: the small end
    kit.tube(0, 0.1, 0, 0.1, 0.5, top=0.35, squash=0.6)  # and the large end
    kit.rod((0.3, 0.5, 0.2), (-0.3, 1.0, 0.9), 0.12, top=0.2)
    kit.ball(0, 1.5, 0.1, 0.5, 0.7, 0.4)
    kit.rod((-0.9, -1.6, 0.1), (-0.9, 1.9, 0.9), 0.1)  # runs past the last camera
    base = make_scene(0, "train", 0, 1)
    objects = [
        replace(base.objects[0], id=i, center=[1.5, 2.5, 0.5], size=[1, 1, 1], yaw=0.2, on=None)
        for i in range(len(kit.parts))
    ]
    scene = replace(
        base,
        objects=objects,
        solids=flatten(objects, [[part] for part in kit.parts]),
        polygon=[[0, 0], [5, 0], [5, 5], [0, 5]],
        height=3.0,
    )
    rows, columns = (axis.ravel() for axis in np.mgrid[:40, :40])
    seen = set()
    for eye, target in (
        ((4.2, 2.5, 1.9), (1.5, 2.5, 0.5)),
        ((4.0, 1.0, 0.4), (1.5, 2.5, 0.5)),
        ((0.2, 4.0, 2.6), (1.5, 2.5, 0.5)),
        ((1.2, 2.3, 0.6), (1.0, 5.0, 0.5)),
    ):
        camera = look_at(np.array(eye), target, 75)
        frame = render(scene, camera, 40)
        depth, ids = brute_force(scene, camera, 40, rows, columns, step=0.004)
        seen |= set(ids.tolist())
        wrong = (ids != frame.ids.ravel()) | (np.abs(depth - frame.depth.ravel()) > 0.006)
        assert wrong.sum() <= 3  # 4 mm steps may jump over a grazed rim
    assert seen >= {FLOOR, WALL, *range(len(objects))}


def test_furnished_rooms_agree_with_brute_force():
    rng, wrong = np.random.default_rng(0), []
    for scene, camera in [*shots(4), *shots(2, split="ood")]:
        frame = render(scene, camera, 96)
        rows, columns = rng.integers(0, 96, (2, 25))
        depth, ids = brute_force(scene, camera, 96, rows, columns, step=0.003)
        wrong.append(
            (ids != frame.ids[rows, columns]) | (np.abs(depth - frame.depth[rows, columns]) > 0.005)
        )
    assert np.mean(wrong) <= 0.02


def test_silhouettes_lie_in_the_projected_box_and_its_depth_range():
    for scene, camera in shots(6):
        frame = render(scene, camera, 96)
        for obj, seen in visible_objects(scene, camera, frame).items():
            image, depth = camera.project(scene.objects[obj].corners())
            if depth.min() < 0.05:
                continue
            x1, y1, x2, y2 = seen["bbox"]
            low, high = ((image + 1) * 48).min(0), ((image + 1) * 48).max(0)
            assert (np.array([x1, y1]) + 0.5 >= low - 1e-3).all()
            assert (np.array([x2, y2]) - 0.5 <= high + 1e-3).all()
            values = frame.depth[frame.ids == obj]
            assert values.min() > depth.min() - 1e-3 and values.max() < depth.max() + 1e-3


def test_visible_objects_agree_with_ids_and_with_the_object_alone():
    hidden = cut = 0
    for scene, camera in shots(8):
        frame = render(scene, camera, 64)
        found = visible_objects(scene, camera, frame)
        assert set(found) == set(frame.ids[frame.ids >= 0].tolist())
        # the same optics on a frame three times as wide: its middle third is the frame itself
        wide = Camera(
            camera.position,
            camera.rotation,
            2 * np.degrees(np.arctan(3 * np.tan(np.radians(camera.fov_deg) / 2))),
        )
        for obj, seen in found.items():
            rows, columns = np.nonzero(frame.ids == obj)
            assert seen["bbox"] == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            lone = alone(scene, obj)
            inside = (render(lone, camera, 64).ids == obj).sum()
            whole = (render(lone, wide, 192).ids == obj).sum()
            assert seen["pixels"] == len(rows) and seen["visibility"] == pytest.approx(
                len(rows) / inside
            )
            assert seen["truncation"] == pytest.approx(
                1 - inside / whole, abs=0.01
            )  # float32 rays at the rim
            hidden, cut = hidden + (seen["visibility"] < 0.95), cut + (seen["truncation"] > 0.05)
    assert hidden > 3 and cut > 3


def test_room_surfaces_and_frame_types():
    scene, camera = next(shots(1))
    empty = replace(scene, solids=alone(scene, -9).solids)
    frame = render(empty, camera, 80)
    assert (frame.rgb.dtype, frame.depth.dtype, frame.ids.dtype) == (np.uint8, np.float32, np.int16)
    assert frame.rgb.shape == (80, 80, 3) and frame.ids.shape == frame.depth.shape == (80, 80)
    assert set(np.unique(frame.ids)) <= {FLOOR, WALL, CEILING} and frame.silhouettes.sum() == 0
    height = camera.position[2] + frame.depth * (
        camera.rotation[2, 2]
        + camera.rotation[1, 2]
        * ((np.arange(80) + 0.5) / 40 - 1)[:, None]
        * np.tan(np.radians(camera.fov_deg) / 2)
    )
    assert np.abs(height[frame.ids == FLOOR]).max() < 1e-3
    assert (height[frame.ids == WALL] > -1e-3).all()


def test_main_colour_is_what_the_picture_shows():
    rng = np.random.default_rng(2)
    scene = make_scene(0, "train", 0, 1)
    obj = replace(scene.objects[0], id=0, category="sofa", center=[1.5, 1.5, 0.4], yaw=0.0, on=None)
    means = {}
    for name, rgb in COLOURS.items():
        _, paints = draw_paints(rng, "train")
        parts, size, _ = build("sofa", [0.8, 1.8, 0.8], dict(paints, main=np.array(rgb)), 0)
        staged = replace(
            scene, objects=[replace(obj, size=size.tolist())], solids=flatten([obj], [parts])
        )
        frame = render(staged, look_at(np.array([3.6, 2.4, 1.5]), [1.5, 1.5, 0.4], 60), 64)
        means[name] = frame.rgb[frame.ids == 0].mean(0) / 255
    for name, shown in means.items():  # up to brightness, the nearest anchor is the right one
        errors = {
            other: np.linalg.norm(shown / shown.sum() - np.array(rgb) / sum(rgb))
            + 0.3 * abs(shown.sum() - sum(rgb))
            for other, rgb in COLOURS.items()
        }
        assert min(errors, key=errors.get) == name, (name, errors)
