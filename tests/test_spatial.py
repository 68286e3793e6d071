"""Spatial questions: answers are true and not ambiguous, and guessing does not pay."""

import json
from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np
import pytest
from test_prepare import contents, in_process

from data.rooms import balance, baselines, prepare, spatial
from data.rooms.questions import MAX_TRUNCATION, MIN_SIDE, MIN_VISIBILITY
from data.rooms.scene import (
    Object,
    camera_to_json,
    make_scene,
    scene_to_json,
    single_camera,
    view_cameras,
    walk_cameras,
)
from nanoladder.command import UserError
from nanoladder.files import write_json
from nanoladder.schema import check_images, read_rows

SIZE = 64
MODALITIES = ("single_image", "multi_view", "video")


def truth(index):
    """A row as in scenes.jsonl, made without rendering.

    What its frames show comes from projected boxes and from visibilities that are drawn at random,
    so there are many objects of which little shows.
    """
    scene, rng = make_scene(5, "test", index, index % 3 + 1), np.random.default_rng(index)
    cameras = {
        "single_image": [single_camera(scene, rng, tries=8)],
        "multi_view": view_cameras(scene),
        "video": walk_cameras(scene),
    }
    frames = []
    for modality, poses in cameras.items():
        for number, camera in enumerate(poses):
            visible = {}
            for o in scene.objects:
                image, depth = camera.project(o.corners())
                low, high = (
                    (np.clip(edge, -1, 1) + 1) * SIZE / 2 for edge in (image.min(0), image.max(0))
                )
                if depth.min() > 0.1 and (high > low).all():
                    whole = np.prod(image.max(0) - image.min(0)) * SIZE**2 / 4
                    visible[str(o.id)] = {
                        "bbox": [*low, *high],
                        "truncation": 1 - np.prod(high - low) / whole,
                        "pixels": 9,
                        "depth": float(np.median(depth)),
                        "visibility": rng.choice([0.02, 0.39, 0.41, 1.0], p=[0.05, 0.05, 0.2, 0.7]),
                    }
            name = f"images/{index}_{modality}_{number:02d}.png"
            frames.append(
                {
                    "image": name,
                    "data_type": modality,
                    "camera": camera_to_json(camera),
                    "visible": visible,
                    "farthest": 10.0,
                }
            )
    return scene_to_json(scene) | {"frames": frames}


@pytest.fixture(scope="module")
def world():
    truths = [truth(index) for index in range(180)]
    rooms = [spatial.room_facts(row, SIZE) for row in truths]
    rows = balance.balance(rooms, dict.fromkeys(MODALITIES, 2 * len(truths)), 5, "test")
    return {row["id"]: row for row in truths}, rooms, rows


def of(world, kind):
    """Of every row of a type (row, truth of its room, {category: visible object}, its frames)."""
    truths, _, rows = world
    found = [row for row in rows if row["question_type"] == kind]
    assert len(found) > 20, kind
    for row in found:
        room = truths[row["scene"]]
        frames = [frame for frame in room["frames"] if frame["image"] in row["image"]]
        shown = {
            room["objects"][int(i)]["id"]: room["objects"][int(i)]
            for frame in frames
            for i in frame["visible"]
        }
        yield row, room, {o["category"]: o for o in shown.values()}, frames


def chosen(row):
    return row["options"]["ABCD".index(row["answer"])].split(". ", 1)[1]


# ---------------------------------------------------------------- answers by other means


def gaps(pairs):
    """Metres [N] between boxes, by alternating projection onto the two convex sets."""

    def side(k):
        center, half = (np.array([p[k][key] for p in pairs]) for key in ("center", "size"))
        yaw = np.array([p[k]["yaw"] for p in pairs])
        turn = np.zeros((len(pairs), 3, 3))
        turn[:, 0, 0] = turn[:, 1, 1] = np.cos(yaw)
        turn[:, 1, 0], turn[:, 0, 1], turn[:, 2, 2] = np.sin(yaw), -np.sin(yaw), 1

        def project(points):
            local = np.einsum("nji,nj->ni", turn, points - center)
            return np.einsum("nij,nj->ni", turn, np.clip(local, -half / 2, half / 2)) + center

        return project

    onto_a, onto_b = side(0), side(1)
    points = np.array([p[0]["center"] for p in pairs])
    for _ in range(3000):
        points = onto_a(onto_b(points))
    return np.linalg.norm(points - onto_b(points), axis=1)


def test_absolute_distance(world):
    rows, pairs = [], []
    for row, _, objects, _ in of(world, "absolute distance"):
        rows.append(row)
        pairs.append([objects[c] for c in row["asked"]])
    answers = np.array([float(row["answer"]) for row in rows])
    np.testing.assert_allclose(answers, gaps(pairs), atol=0.0501)
    assert answers.min() >= spatial.MIN_DISTANCE


def test_box_distance_of_stacked_touching_and_nested_boxes():
    def box(center, size, yaw=0.0):
        return Object(0, "box", 0, "red", center, size, yaw, None)

    cube = box([0, 0, 0.5], [1, 1, 1])
    assert spatial.box_distance(cube, box([0.1, 0, 2.0], [1, 1, 1], 0.4)) == pytest.approx(
        0.5
    )  # one above the other
    assert spatial.box_distance(cube, box([1, 0, 0.5], [1, 1, 1])) == 0
    assert spatial.box_distance(cube, box([0, 0, 0.5], [0.1, 0.1, 0.1], 1.0)) == 0
    assert (
        spatial.box_distance(cube, box([0, 0, 0.5], [0.1, 4, 0.1])) == 0
    )  # a cross: no corner inside the other
    assert spatial.box_distance(cube, box([2, 2, 2.5], [1, 1, 1])) == pytest.approx(np.sqrt(3))


def test_relative_distance(world):
    cases = list(of(world, "relative distance"))
    names = [[option.split(". ", 1)[1] for option in row["options"]] for row, *_ in cases]
    pairs = [
        [o[row["asked"][0]], o[name]]
        for (row, _, o, _), offered in zip(cases, names)
        for name in offered
    ]
    far, start = gaps(pairs), 0
    for (row, *_), offered in zip(cases, names):
        ours, start = far[start : start + len(offered)], start + len(offered)
        assert len(set(offered)) == len(offered) in (3, 4) and row["asked"][0] not in offered
        assert offered[ours.argmin()] == chosen(row)
        near, second = np.sort(ours)[:2]
        assert (
            second - near > spatial.NEARER_BY - 0.005
            and second > near * spatial.NEARER_TIMES - 0.01
        )


def test_relative_direction(world):
    """The asker is moved to the origin to face +y; then the signs of x and y give the answer."""
    for row, _, objects, _ in of(world, "relative direction"):
        a, b, c = (np.array(objects[name]["center"][:2]) for name in row["asked"])
        ahead = (b - a) / np.linalg.norm(b - a)
        x, y = np.array([[ahead[1], -ahead[0]], [ahead[0], ahead[1]]]) @ (c - a)
        side = "left" if x < 0 else "right"
        behind = np.degrees(np.arctan2(-y, abs(x)))  # 90 straight behind, -90 straight ahead
        expected = {
            "easy": side,
            "medium": "back" if behind > 45 else side,
            "hard": f"{'front' if y > 0 else 'back'}-{side}",
        }[row["difficulty"]]
        assert chosen(row) == expected
        assert sorted(o[3:] for o in row["options"]) == sorted(spatial.SECTORS[row["difficulty"]])
        edges = {"easy": [90], "medium": [45], "hard": [0, 90]}[
            row["difficulty"]
        ]  # where answers change
        assert min(abs(behind - edge) for edge in [-90, *edges]) > spatial.ANGLE_MARGIN - 1e-6
        assert min(np.linalg.norm(b - a), np.linalg.norm(c - a)) >= spatial.STAND_APART


def test_object_size(world):
    for row, _, objects, frames in of(world, "object size"):
        o = objects[row["asked"][0]]
        corners = Object(**o).corners()
        edges = [np.linalg.norm(corners[0] - corners[k]) for k in (1, 2, 4)]
        assert abs(100 * max(edges) - float(row["answer"])) <= 0.5
        seen = [
            frame["visible"][str(o["id"])] for frame in frames if str(o["id"]) in frame["visible"]
        ]
        assert any(
            s["truncation"] <= spatial.WHOLE_TRUNCATION
            and s["visibility"] >= spatial.WHOLE_VISIBILITY
            for s in seen
        )


def test_room_size(world):
    for row, room, _, _ in of(world, "room size"):
        corners = np.round(room["polygon"], 2)  # sides in whole centimetres, as rationales say them
        area = sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in pairwise([*corners, corners[0]])) / 2
        assert row["data_type"] == "video" and abs(area - float(row["answer"])) <= 0.0501


def test_object_count(world):
    for row, room, _, frames in of(world, "object count"):
        assert row["data_type"] != "single_image" and len(row["asked"]) == len(
            set(row["asked"])
        ) in (1, spatial.LISTED)
        counted = [o for o in room["objects"] if o["category"] in row["asked"]]
        assert len(counted) == int(row["answer"]) > 0
        for o in counted:
            assert any(
                str(o["id"]) in f["visible"] and clear(f["visible"][str(o["id"])]) for f in frames
            )


def test_appearance_order(world):
    for row, _, objects, frames in of(world, "appearance order"):
        assert row["data_type"] == "video" and sorted(chosen(row).split(", ")) == sorted(
            row["asked"]
        )
        assert len(set(row["options"])) == 4
        seen = set()
        order = chosen(row).split(", ")
        for place, name in enumerate(order):
            key = str(objects[name]["id"])
            first = next(
                k for k, f in enumerate(frames) if key in f["visible"] and clear(f["visible"][key])
            )
            later = {str(objects[n]["id"]) for n in order[place + 1 :]}
            assert not later & {i for f in frames[: first + 1] for i in f["visible"]}
            seen.add(first)
        assert len(seen) == len(order)


def clear(seen):
    x1, y1, x2, y2 = seen["bbox"]
    return (
        min(x2 - x1, y2 - y1) >= MIN_SIDE * SIZE
        and seen["visibility"] >= MIN_VISIBILITY
        and seen["truncation"] <= MAX_TRUNCATION
    )


@pytest.mark.parametrize(
    "kind",
    [
        "absolute distance",
        "object size",
        "relative distance",
        "relative direction",
        "appearance order",
    ],
)
def test_named_objects_are_the_only_ones_shown_and_clearly_seen(world, kind):
    for row, room, _, frames in of(world, kind):
        options = row["options"] if kind == "relative distance" else []
        for name in [*row["asked"], *(option[3:] for option in options)]:
            keys = {
                i
                for f in frames
                for i in f["visible"]
                if room["objects"][int(i)]["category"] == name
            }
            assert len(keys) == 1
            assert any(clear(f["visible"][i]) for i in keys for f in frames if i in f["visible"])


# ---------------------------------------------------------------- words and balance


def test_words_name_what_is_asked(world):
    phrasings = defaultdict(set)
    for row in world[2]:
        assert all(name in row["question"] for name in row["asked"]) and "{" not in row["question"]
        plain = row["question"]
        for name in row["asked"]:
            plain = plain.replace(name, "_")
        phrasings[row["question_type"], row.get("difficulty")].add(plain)
        assert (row["options"] is None) == (row["question_type"] in spatial.UNITS)
        assert row.get("unit") == spatial.UNITS.get(row["question_type"])
    assert min(len(found) for found in phrasings.values()) >= 2
    kinds = defaultdict(set)
    for row in world[2]:
        kinds[row["data_type"]].add(row["question_type"])
    single = {"absolute distance", "object size", "relative distance", "relative direction"}
    assert kinds == {
        "single_image": single,
        "multi_view": single | {"object count"},
        "video": single | {"object count", "room size", "appearance order"},
    }


def test_no_constant_answer_pays(world):
    groups = defaultdict(list)
    for row in world[2]:
        groups[row["data_type"], row["question_type"], row.get("difficulty")].append(row)
    for (data_type, kind, _), rows in groups.items():
        noise = balance.ALLOWANCE / len(rows)
        if kind in spatial.UNITS:
            forms = 2 if kind == "object count" else 1  # each form has its own allowance
            _, best = baselines.best_number([float(row["answer"]) for row in rows])
            assert best < 0.35 + noise * forms, (data_type, kind)
            continue
        chance = np.mean([1 / len(row["options"]) for row in rows])
        letters = Counter(row["answer"] for row in rows)
        assert max(letters.values()) / len(rows) < chance + 0.05 + noise, (data_type, kind, letters)
        if kind == "relative direction":
            common = Counter(chosen(row) for row in rows).most_common(1)[0][1]
            assert common / len(rows) < chance + 0.05 + noise, (data_type, kind)


def test_no_category_wins_or_comes_first(world):
    """Over all rows of a type, no category is right much more often than its share."""
    for kind in ("relative distance", "appearance order"):
        lead = Counter()
        for row, *_ in of(world, kind):
            fact = {
                "question_type": kind,
                "answer": chosen(row),
                "options": [option[3:] for option in row["options"]],
            }
            lead.update(balance.category_bias(fact))
        met = sum(abs(v) for v in lead.values()) / len(lead)
        assert met < 2.5, (kind, lead)


def test_balance_takes_what_there_is_and_no_more(world):
    _, rooms, rows = world
    assert balance.balance(rooms, dict.fromkeys(MODALITIES, 360), 5, "test") == rows
    few = balance.balance(rooms, {"single_image": 31, "video": 17}, 5, "test")
    assert Counter(row["data_type"] for row in few) == {"single_image": 31, "video": 17}
    assert len({row["question_id"] for row in rows}) == len(rows)
    assert balance.balance([], {"video": 5}, 0, "test") == []


def test_training_directions_mostly_face_ahead_and_those_of_a_benchmark_any_way(world):
    truths, rooms, _ = world
    shares = {}
    for split in ("train", "train for rl.py", "test"):
        ahead = []
        for row in balance.balance(rooms, dict.fromkeys(MODALITIES, 360), 5, split.split()[0]):
            if row["question_type"] == "relative direction" and not (
                row.get("sft_only") and split != "train"
            ):
                room = truths[row["scene"]]
                camera = next(
                    frame["camera"] for frame in room["frames"] if frame["image"] == row["image"][0]
                )
                shown = {
                    o["category"]: o["center"] for o in room["objects"]
                }  # of several alike the asked one is one
                if Counter(o["category"] for o in room["objects"])[row["asked"][0]] == 1:
                    facing = np.subtract(shown[row["asked"][1]], shown[row["asked"][0]])[:2]
                    turn = np.arctan2(*facing) - np.arctan2(*np.array(camera["rotation"])[2, :2])
                    ahead.append(np.cos(turn) > 0.5)
        shares[split] = np.mean(ahead)
    assert shares["train"] > 0.55 and shares["test"] < 0.45 and shares["train for rl.py"] < 0.45, (
        shares
    )


# ---------------------------------------------------------------- through prepare, and read back


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make(tmp_path_factory.mktemp("spatial"))


def make(folder, by_hand=(), extra=()):
    """Prepare six training rooms in shards of two; make the shards `by_hand` first."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "SHARD", 2)
        patch.setattr(prepare, "run_jobs", in_process)
        patch.setattr(prepare, "contact_sheet", lambda path, seed: path.touch())
        flags = {
            "out": str(folder),
            "pictures": 6,
            "view_sets": 6,
            "videos": 6,
            "held_out": 4,
            "size": 32,
        }
        settings = prepare.Settings(**flags, questions=2)
        if by_hand:
            write_json(folder / "prepare.json", prepare.about(settings))
        for split, shard in by_hand:
            prepare.make_shard(settings, split, shard)
        prepare.main(
            [*(f"--{k.replace('_', '-')}={v}" for k, v in flags.items()), "--questions=2", *extra]
        )
    return folder


def test_same_bytes_in_whatever_order_shards_are_made(made, tmp_path):
    assert contents(make(tmp_path, [("train", 2), ("ood", 1), ("train", 0)])) == contents(made)


def test_rows_are_read_and_baselines_written(made, capsys):
    for split in ("train", "val", "test", "ood"):
        rows = read_rows(made / split / "spatial.jsonl")
        check_images(rows)
        assert {len(row.images) for row in rows} <= {1, 8, 16}
        assert len({row.question_id for row in rows}) == len(rows)
    baselines.main(["--data", str(made)])
    table = json.loads((made / "baselines.json").read_text(encoding="utf-8"))
    known = {f"{name}{twin}" for name in baselines.BENCHMARKS for twin in ("", "-ood")}
    assert set(table) <= known and len(table) > 3
    assert "rooms-video" in capsys.readouterr().out
    with pytest.raises(UserError, match="no such file"):
        baselines.main(["--data", str(made / "train")])


def test_baselines_of_rows_that_give_themselves_away():
    def row(asked, answer, options=None, kind="object size"):
        return {"question_type": kind, "asked": asked, "answer": answer, "options": options}

    sizes = [row(["vase"], "30"), row(["sofa"], "240")] * 10
    scores = baselines.baselines(sizes, sizes)
    assert scores["chance"] is None and scores["constant"] == 0.5 and scores["by_category"] == 1.0
    near = [
        row(["bed"], "A", ["A. rug", "B. fan"], "relative distance"),
        row(["bed"], "B", ["A. cup", "B. rug"], "relative distance"),
    ] * 10
    assert baselines.baselines(near, near) == {
        "n": 20,
        "chance": 0.5,
        "constant": 0.5,
        "by_category": 1.0,
    }
