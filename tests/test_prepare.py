"""Preparing the rooms: the same bytes in any order, also after a kill, and true questions."""

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, prepare
from PIL import Image

from data.rooms import prepare as module
from data.rooms import recipe
from data.rooms.floor import Sights
from data.rooms.questions import (
    MAX_AREA,
    MAX_TRUNCATION,
    MIN_SIDE,
    MIN_VISIBILITY,
    NAMES,
    clearly_seen,
    localization_rows,
)
from data.rooms.render import render, visible_objects
from data.rooms.scene import (
    camera_from_json,
    make_scene,
    scene_from_json,
    single_camera,
    view_cameras,
    walk_cameras,
)
from data.rooms.seeing import APART, DEPTHS, Sight, album_rows, seeing_rows, tour_rows
from nanoladder.command import UserError
from nanoladder.files import lock, read_json, read_jsonl, write_json, write_jsonl
from nanoladder.splits import read_splits

# Flags of one small room for each split, made in a single process.
TINY = ["--pictures", "1", "--view-sets", "0", "--videos", "0", "--held-out", "1", "--size", "32"]
TINY += ["--workers", "1"]


def contents(folder):
    """{path: bytes} of a data folder, but for the lock, which holds the number of a process."""
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != ".lock")
    return {p.relative_to(folder): p.read_bytes() for p in files}


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_same_bytes_with_another_number_of_workers_and_after_a_kill(rooms, tmp_path, monkeypatch):
    settings = ["--pictures", "24", "--held-out", "8", "--view-sets", "2", "--videos", "2"]
    settings += ["--seeing", "--index-images"]
    again = tmp_path / "again"
    done = []

    def make_and_die(s, split, shard):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(split)
        make_shard(s, split, shard)

    make_shard = module.make_shard
    monkeypatch.setattr(module, "run_jobs", in_process)
    monkeypatch.setattr(module, "make_shard", make_and_die)
    with pytest.raises(KeyboardInterrupt):
        module.main(["--out", str(again), *settings])
    monkeypatch.setattr(module, "make_shard", make_shard)
    module.main(["--out", str(again), *settings])
    assert contents(again) == contents(rooms)


def in_process(function, jobs, workers):
    """Stands in for run_jobs. It does the jobs here, so that a test can interrupt them."""
    for job in jobs:
        yield function(*job)


@pytest.fixture
def quick(monkeypatch):
    """Makes tiny folders quick: no worker processes, and no contact sheet."""
    monkeypatch.setattr(module, "run_jobs", in_process)
    monkeypatch.setattr(module, "contact_sheet", lambda path, seed: path.touch())


def test_other_settings_never_mix_with_what_is_there(rooms):
    with pytest.raises(UserError, match="differs in .*seed.*made with other settings"):
        module.main(["--out", str(rooms), "--pictures", "24", "--seed", "5"])


def test_a_folder_of_an_older_version_is_refused(quick, tmp_path):
    path = tmp_path / "prepare.json"
    module.main(["--out", str(tmp_path), *TINY])
    now = read_json(path)
    assert (now["recipe"], now["version"]) == ("rooms", module.VERSION)
    write_json(path, {key: value for key, value in now.items() if key not in ("recipe", "version")})
    with pytest.raises(UserError, match="differs in recipe, version.*Delete it"):
        module.main(["--out", str(tmp_path), *TINY])


def test_nothing_is_written_into_a_folder_that_holds_other_things(tmp_path):
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match="holds other files: name another folder with --out"):
        module.main(["--out", str(tmp_path), *TINY])
    with pytest.raises(UserError, match="notes.txt"):
        module.main(["--out", str(tmp_path / "notes.txt"), *TINY])
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(UserError, match="no rooms to make"):
        module.main(["--out", str(tmp_path / "rooms"), *TINY, "--pictures", "0"])


def test_a_second_making_of_one_folder_is_refused(tmp_path):
    with lock(tmp_path):
        with pytest.raises(UserError, match=rf"{tmp_path} is in use by .* \(pid {os.getpid()}\)"):
            module.main(["--out", str(tmp_path), *TINY])
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_what_is_there_is_whole_wherever_it_was_killed(quick, tmp_path, monkeypatch, capsys):
    """The files of train come last, and the parts that a kill left are never joined again."""
    merge = module._merge

    def die_at_train(s, root, split):
        if split == "train":
            raise KeyboardInterrupt
        merge(s, root, split)

    monkeypatch.setattr(module, "_merge", die_at_train)
    with pytest.raises(KeyboardInterrupt):
        module.main(["--out", str(tmp_path), *TINY])
    assert "4 parts of up to 50 rooms, 0 made before" in capsys.readouterr().out
    left = {path.parent.name for path in tmp_path.glob("*/spatial.jsonl")}
    assert left == {"val", "test", "ood"}
    with pytest.raises(UserError, match="train/spatial.jsonl: no such file"):
        read_splits(tmp_path, ["single_image"], {"val": 1, "test": 1})
    monkeypatch.setattr(module, "_merge", merge)
    module.main(["--out", str(tmp_path), *TINY])
    assert ", 4 made before" in capsys.readouterr().out
    whole = contents(tmp_path)
    parts = tmp_path / "train" / "parts"
    parts.mkdir()
    write_jsonl(parts / "spatial-00000.jsonl", [])  # the kill came while parts were deleted
    module.main(["--out", str(tmp_path), *TINY])
    assert contents(tmp_path) == whole and not parts.exists()


WORKERS = """
import os, sys, time
from data.rooms import workers
def wait(seconds):
    os.write(1, b"ready\\n")
    time.sleep(seconds)
if __name__ == "__main__":
    if sys.argv[1:]:
        workers.end_with_stdin()
    list(workers.run_jobs(wait, [(60,), (60,), (60,)], 2))
"""


@pytest.mark.skipif(os.name == "nt", reason="sends POSIX signals")
def test_workers_end_with_their_parent(tmp_path):
    """However it ends; their output, which is the parent's, then comes to its end."""
    script = tmp_path / "script.py"
    script.write_text(WORKERS, encoding="utf-8")
    pipe, env = subprocess.PIPE, os.environ | {"PYTHONPATH": str(ROOT)}
    endings = [
        ([], lambda process: process.kill()),
        ([], lambda process: process.send_signal(signal.SIGINT)),
        (["child"], lambda process: process.stdin.close()),  # its own parent has ended
    ]
    started = [
        subprocess.Popen(
            [sys.executable, str(script), *flags], env=env, stdin=pipe, stdout=pipe, stderr=pipe
        )
        for flags, _ in endings
    ]
    for process, (_, end) in zip(started, endings):
        assert [process.stdout.readline() for _ in range(2)] == [b"ready\n"] * 2
        end(process)
    for process in started:
        process.stdin = None
        process.communicate(timeout=20)
        assert process.returncode


def test_a_training_completes_only_its_own_folder(quick, tmp_path, monkeypatch):
    """recipe.make names the missing file, and the command that makes a whole folder."""
    rooms, data, started = recipe.Rooms(), tmp_path / "rooms", []
    monkeypatch.setattr(recipe, "run_child", lambda *args, **options: started.append(args) or 0)
    module.main(["--out", str(data), *TINY])  # without --seeing
    rooms.make(data, "1", ["localization"])
    assert not started
    with pytest.raises(UserError) as error:
        rooms.make(data, "1", ["localization", "seeing"])
    told = str(error.value)
    assert told.startswith(f"{data / 'train' / 'seeing.jsonl'} is missing, and {data} was begun")
    assert "data.rooms.prepare" in told and "--seeing" in told and "\n" not in told
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    with pytest.raises(UserError, match="holds other files, so no rooms are made there"):
        rooms.make(tmp_path / "mine", "1", ["seeing"])
    with pytest.raises(UserError, match="this is a file; name a folder"):
        rooms.make(tmp_path / "mine" / "notes.txt", "1", ["seeing"])
    assert not started
    rooms.make(tmp_path / "new", "1", ["seeing"])
    assert started[0][0][-1] == "--seeing"


def test_seeing_rows_where_some_rooms_have_no_picture(quick, tmp_path):
    flags = ["--pictures", "9", "--view-sets", "12", "--seeing"]
    module.main(["--out", str(tmp_path), *TINY, *flags])
    found = read_jsonl(tmp_path / "train" / "seeing.jsonl")
    rooms = {Path(name).name[:6] for row in found for name in row["image"]}
    assert len(rooms) == 12 and any(len(row["image"]) not in (1, 8) for row in found)


def test_three_modalities_of_one_room_in_the_papers_proportions(tmp_path):
    prepare(
        tmp_path / "r",
        "--pictures",
        "6",
        "--view-sets",
        "5",
        "--videos",
        "3",
        "--held-out",
        "1",
        "--size",
        "32",
    )
    scenes = rows(tmp_path / "r" / "train" / "scenes.jsonl")
    kinds = [Counter(frame["data_type"] for frame in scene["frames"]) for scene in scenes]
    assert kinds[0] == {"single_image": 1, "multi_view": 8, "video": 16} and kinds[5] == {
        "single_image": 1
    }
    assert module.PAPER == {"pictures": 5929, "view_sets": 5752, "videos": 9000}
    scene, _ = scene_from_json(
        {k: v for k, v in scenes[0].items() if k != "frames"} | {"cameras": []}
    )
    assert scene.id == scenes[0]["id"]  # the truth on disk is the truth of the room


def test_benchmarks_leave_facts_over_so_that_rare_types_get_their_share(
    quick, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "HELD_OUT_ROWS", 5)
    few = ["--view-sets", "0", "--videos", "0", "--size", "24", "--questions", "4"]
    module.main(["--out", str(tmp_path), "--pictures", "8", "--held-out", "8", *few])
    counts = {
        split: len(rows(tmp_path / split / "spatial.jsonl"))
        for split in ("train", "val", "test", "ood")
    }
    assert counts["val"] == counts["test"] == counts["ood"] == 5 < counts["train"]


def test_rows_carry_levels_and_splits_share_no_room(rooms):
    seen = {}
    for split in ("train", "val", "test", "ood"):
        found = rows(rooms / split / "localization.jsonl")
        assert {row["level"] for row in found} == {1, 2, 3}
        seen[split] = {(rooms / split / row["image"][0]).read_bytes() for row in found}
    assert not seen["train"] & (seen["val"] | seen["test"] | seen["ood"])


def shots(count):
    for i in range(count):
        scene, rng = make_scene(11, "train", i, i % 3 + 1), np.random.default_rng(i)
        camera = single_camera(scene, rng)
        frame = render(scene, camera, 96)
        yield scene, frame, visible_objects(scene, camera, frame), rng


def test_localization_asks_only_for_what_is_unique_and_seen():
    asked = 0
    for scene, frame, visible, rng in shots(60):
        for row in localization_rows(scene, visible, 96, rng):
            for item in row["answer"]:
                same = [
                    o.id for o in scene.objects if o.category == item["label"] and o.id in visible
                ]
                assert len(same) == 1 and f"the {item['label']}" in row["question"]
                ys, xs = np.nonzero(frame.ids == same[0])
                x1, y1, x2, y2 = item["bbox_2d"]
                assert [x1, y1, x2, y2] == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
                assert (
                    min(x2 - x1, y2 - y1) >= MIN_SIDE * 96
                    and (x2 - x1) * (y2 - y1) <= MAX_AREA * 96**2
                )
                assert visible[same[0]]["visibility"] >= MIN_VISIBILITY
                assert visible[same[0]]["truncation"] <= MAX_TRUNCATION
                asked += 1
    assert asked > 60


def facts_of(scene, frame, visible):
    """What seeing questions may tell of each object, worked out from the pixels."""
    size, eighth = frame.ids.shape[0], frame.depth.max() / 8
    rows, cols = ("upper", "middle", "lower"), ("left", "centre", "right")
    facts = {}
    for o in scene.objects:
        if o.id in visible:
            ys, xs = np.nonzero(frame.ids == o.id)
            x, y = (xs.min() + xs.max() + 1) / 2, (ys.min() + ys.max() + 1) / 2
            facts[o.category] = {
                "square": "abcdefgh"[int(8 * x / size)] + "12345678"[int(8 * y / size)],
                "place": f"{rows[int(3 * y / size)]} {cols[int(3 * x / size)]}",
                "colour": o.colour,
                "depth": DEPTHS[min(7, int(np.median(frame.depth[ys, xs]) // eighth))],
                "x": x,
                "y": y,
                "low": ys.max(),
                "metres": np.median(frame.depth[ys, xs]),
            }
    return facts


def check_described(row, facts):
    told, asked = re.fullmatch(r"Tell the (.*?) of (the .*)\.", row["question"]).groups()
    items = json.loads(row["answer"])
    assert [item["label"] for item in items] == re.findall(r"the (\w+)", asked)
    for item in items:
        known = facts[item.pop("label")]
        assert list(item.items()) == [
            (fact, known[fact]) for fact in re.findall(r"\w+", told) if fact != "and"
        ]


def picked(row):
    """The right option's text and the others'."""
    texts = [option[3:] for option in row["options"]]
    assert (
        row["options"] == [f"{letter}. {text}" for letter, text in zip("ABCD", texts)]
        and len(set(texts)) > 1
    )
    right = texts.pop("ABCD".index(row["answer"]))
    return right, texts


def check_picked(row, facts):
    """Returns what the question is about."""
    right, wrong = picked(row)
    words = re.findall(r"\w+", row["question"])
    if "view" in words:
        assert right in facts and not facts.keys() & wrong
        return "view"
    if "nearest" in words:
        x, y = (facts[words[7]][axis] for axis in "xy")
        near, *far = (
            np.hypot(facts[name]["x"] - x, facts[name]["y"] - y) for name in [right, *wrong]
        )
        assert words[7] not in wrong and min(far) - near >= 96 * APART - 1e-6
        return "nearest"
    if words[0] == "Which":
        names = [right, *wrong]
        assert sorted(names) == sorted(re.findall(r"the (\w+)", row["question"].split(",", 1)[1]))
        x, low, far = ([facts[name][key] for name in names] for key in ("x", "low", "metres"))
        lead = {
            "left": np.subtract(x, x[0]),
            "right": np.subtract(x[0], x),
            "lower": np.subtract(low[0], low),
            "closer": 96 * np.log(np.divide(far, far[0])),
        }[words[3] if words[2] == "further" else words[2]]
        assert lead[0] == 0 and min(lead[1:]) >= 96 * APART - 1e-6
        return "compare"
    if words[0] == "Is":
        a, b = facts[words[2]], facts[words[-1]]
        rightly = {
            "left": a["x"] < b["x"],
            "right": a["x"] > b["x"],
            "front": a["metres"] < b["metres"],
            "back": a["metres"] > b["metres"],
        }
        assert rightly[right] and not rightly[wrong[0]]
        return "relate"
    fact = "colour" if "colour" in words else "place"
    assert right == facts[words[-1]][fact]
    return fact


def test_seeing_answers_are_what_the_pixels_say():
    checked, letters = Counter(), Counter()
    for scene, frame, visible, rng in shots(60):
        name = {o.id: o.category for o in scene.objects} | {-1: "floor", -2: "wall", -3: "ceiling"}
        boxes = {o.category: visible[o.id]["bbox"] for o in scene.objects if o.id in visible}
        facts = facts_of(scene, frame, visible)
        for row in seeing_rows(Sight(scene, frame, visible), rng):
            kind = row["question_type"]
            points = [(int(x), int(y)) for x, y in re.findall(r"\((\d+),(\d+)\)", row["question"])]
            assert not re.search(r"bbox|\d\.\d", row["answer"])
            if kind == "point":
                assert row["answer"] == ", ".join(name[frame.ids[y, x]] for x, y in points)
            elif kind == "which":
                category = re.search(r"on the (\w+)\?", row["question"])[1]
                on = [p for p in points if name[frame.ids[p[1], p[0]]] == category]
                (answer,) = json.loads(row["answer"])
                assert answer["label"] == category and set(on) == {tuple(answer["point_2d"])}
            elif kind == "describe":
                check_described(row, facts)
            elif kind == "pick":
                kind = check_picked(row, facts)
                letters[row["answer"]] += 1
            elif kind == "side":
                (x, y), box = points[0], boxes[re.search(r"of the (\w+) is", row["question"])[1]]
                assert (row["answer"] == "inside") == (
                    box[0] <= x < box[2] and box[1] <= y < box[3]
                )
                assert ("left" in row["answer"]) == (x < box[0]) and ("below" in row["answer"]) == (
                    y >= box[3]
                )
            elif kind == "count":
                asked = re.search(r": (.*)\?", row["question"])[1].split(", ")
                assert int(row["answer"]) == sum(name[i] in asked for i in visible)
            else:
                continue
            checked[kind] += 1
    assert set(checked) == {
        "point",
        "which",
        "describe",
        "side",
        "count",
        "view",
        "compare",
        "relate",
        "nearest",
        "colour",
        "place",
    }
    assert min(checked.values()) > 15 and min(letters.values()) > 0.08 * letters.total()


def test_album_answers_are_true_of_all_pictures_together():
    several, letters, checked = list(shots(60)), "ijklmnop", Counter()
    for first in range(0, 60, 4):
        album = several[first : first + 4]
        shown = Counter(
            o.category for scene, _, visible, _ in album for o in scene.objects if o.id in visible
        )
        facts = {}
        for number, (scene, frame, visible, _) in enumerate(album, 1):
            for name, told in facts_of(scene, frame, visible).items():
                facts[name] = told | {"picture": letters[number - 1]}
        for row in album_rows([Sight(*shot[:3]) for shot in album], np.random.default_rng(first)):
            kind = row["question_type"]
            if kind == "describe":
                check_described(row, facts)
                assert all(
                    shown[name] == 1
                    for name in re.findall(r"the (\w+)", row["question"].split(" of ")[1])
                )
            elif kind == "count":
                asked = re.findall(r"\w+", row["question"].split(":")[1])
                assert int(row["answer"]) == sum(shown[name] for name in asked)
            elif kind == "pick":
                name = re.search(r"is the (\w+)\?", row["question"])[1]
                assert picked(row)[0] == facts[name]["picture"] and shown[name] == 1
            else:
                number = letters.index(re.search(r"picture \((\w)\)", row["question"])[1]) + 1
                assert set(row["answer"].split(", ")) <= {name for name in shown}
                assert all(
                    any(o.category == name for o in album[number - 1][0].objects)
                    for name in row["answer"].split(", ")
                )
            checked[kind] += 1
    assert set(checked) == {"describe", "count", "pick", "list"} and min(checked.values()) >= 10


@pytest.mark.parametrize("cameras, pace", [(view_cameras, 1), (walk_cameras, 2)])
def test_tour_answers_are_true_of_each_picture(cameras, pace):
    """A walk's picture is two frames. What is said of it is true of both."""
    letters, checked = "ijklmnop", Counter()
    for index in range(12):
        scene = make_scene(5, "train", index, 1 + index % 3)
        frames = [(render(scene, camera, 96), camera) for camera in cameras(scene)]
        sights = [
            Sight(scene, frame, visible_objects(scene, camera, frame)) for frame, camera in frames
        ]
        pictures = [sights[i : i + pace] for i in range(0, len(sights), pace)]
        shown = {
            o.id: o.category
            for sight in sights
            for o in scene.objects
            if (sight.frame.ids == o.id).any()
        }

        clear_in = {
            i: [
                number
                for number, group in enumerate(pictures)
                if any(i in sight.visible and clearly_seen(sight.visible[i], 96) for sight in group)
            ]
            for i in shown
        }
        for row in tour_rows(pictures, np.random.default_rng(index)):
            if row["question_type"] == "first":
                for item in json.loads(row["answer"]):
                    (o,) = [
                        o for o in scene.objects if o.category == item["label"] and o.id in shown
                    ]
                    assert item["picture"] == letters[clear_in[o.id][0]]
            elif row["question_type"] == "describe":
                letter = re.search(r" in picture \((\w)\)\.$", row["question"])[1]
                asked = re.sub(r" in picture \(\w\)\.$", ".", row["question"])
                for sight in pictures[letters.index(letter)]:
                    facts = facts_of(scene, sight.frame, sight.visible)
                    check_described(row | {"question": asked}, facts)
            elif row["question_type"] == "list":
                letter = re.search(r"in picture \((\w)\),", row["question"])[1]
                for sight in pictures[letters.index(letter)]:
                    assert row["answer"] == sight.left_to_right()
            checked[row["question_type"]] += 1
    assert set(checked) == {"first", "describe", "list"} and min(checked.values()) >= 5


def test_index_images_name_every_pixel(rooms):
    for kind, values in (("names", NAMES), ("depths", DEPTHS)):
        path = next((rooms / "train" / "images").rglob(f"*.{kind}.png"))
        index = np.asarray(Image.open(path))
        assert index.shape == (96, 96) and index.max() < len(values) and len(np.unique(index)) > 2


def test_index_images_tell_where_on_the_floor_every_pixel_is(rooms):
    """Of objects the square that floor.py tells, of bare floor where the pixel's ray meets it."""
    matched = Counter()
    for row in read_jsonl(rooms / "train" / "scenes.jsonl")[:12]:
        for kind, origin in (("single_image", 0), ("multi_view", 0), ("video", 8)):
            frames = [frame for frame in row["frames"] if frame["data_type"] == kind]
            if not frames:
                continue
            sights, board = Sights(row, kind, 96), camera_from_json(frames[origin]["camera"])
            for frame in frames[::5]:
                path, camera = rooms / "train" / frame["image"], camera_from_json(frame["camera"])
                names, across, along = (
                    np.asarray(Image.open(path.with_suffix(f".{index}.png"))).astype(int)
                    for index in ("names", "across", "along")
                )
                for o in sights.named:
                    at = names == NAMES.index(o.category)
                    assert {*zip(across[at], along[at])} <= {sights.cell(o)}
                for y, x in np.argwhere(names == 0)[::97]:
                    half = np.tan(np.radians(camera.fov_deg) / 2)
                    ray = (
                        np.array([(2 * x + 1 - 96) / 96 * half, (2 * y + 1 - 96) / 96 * half, 1])
                        @ camera.rotation
                    )
                    point = camera.position - ray * camera.position[2] / ray[2] - board.position
                    ahead = board.rotation[2] * [1, 1, 0] / np.hypot(*board.rotation[2, :2])
                    square = np.floor(
                        [board.rotation[0] @ point / 0.8 + 6, ahead @ point / 0.8 + 2]
                    )
                    assert (np.clip(square, 0, (11, 9)) == (across[y, x], along[y, x])).all()
                    matched[kind] += 1
    assert len(matched) == 3 and min(matched.values()) > 20
