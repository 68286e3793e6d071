"""Make the rooms: pictures, exact truth and questions, in SpatialLadder-26k's schema.

    python -m data.rooms.prepare                                        # the paper's composition, in datasets/rooms
    python -m data.rooms.prepare --pictures 500 --size 128 --out DIR    # the same proportions, smaller
    python -m data.rooms.prepare --pictures 12000 --view-sets 0 --videos 0
    python -m data.rooms.prepare --held-out 1200                        # 1,200 rows in every spatial benchmark
    python -m data.rooms.prepare --questions 4 --traces 1255            # with traces for the cold start

A data folder holds, for each of train, val, test and ood: scenes.jsonl (room, oriented boxes, and for every frame the
camera and what it shows: all that later questions need), localization.jsonl (stage 1), spatial.jsonl (stage 2; in
train with workings, traces.py) and floor.jsonl (its maps, floor.py), with --seeing also seeing.jsonl, and the images,
with --index-images four more beside each; with --traces train has cold.jsonl too, which may be asked for later. One
room gives a picture, eight views and a walk, as far as each was asked for, and each of these --questions spatial rows
on average; fewer where more would unbalance the answers.
The benchmarks rooms-si, rooms-mv and rooms-video are the spatial rows of test by data_type, and those of ood their
out-of-domain twins; data.rooms.baselines measures what can be guessed in them.
Interrupted and started again it goes on where it was. The same settings give the same bytes, whatever --workers is.
"""

import os
import shutil
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from data.rooms.balance import balance
from data.rooms.floor import ORIGIN, floor_rows, floor_squares, reckoning_rows
from data.rooms.questions import NAMES, localization_rows
from data.rooms.render import contact_sheet, render, visible_objects
from data.rooms.scene import (
    LEVELS,
    SPLITS,
    camera_to_json,
    make_scene,
    scene_to_json,
    single_camera,
    view_cameras,
    walk_cameras,
)
from data.rooms.seeing import ALBUM, Sight, album_rows, depth_levels, seeing_rows, tour_rows
from data.rooms.spatial import room_facts
from data.rooms.traces import traces_from_truth, workings
from nanoladder.common import (
    UserError,
    parse,
    progress,
    read_json,
    read_jsonl,
    run_script,
    setting,
    write_json,
    write_jsonl,
)

PAPER = {"pictures": 5929, "view_sets": 5752, "videos": 9000}  # SpatialLadder-26k, section 3 of the paper
SHARD = 50  # rooms a worker makes at a time; a finished shard is never made again
ALBUM_EVERY = 10  # rooms for each album, which asks about the pictures of the first two to ALBUM of them together


@dataclass
class Settings:
    out: str = setting("datasets/rooms", "data folder")
    pictures: int = setting(PAPER["pictures"], "training rooms with a single picture")
    view_sets: int | None = setting(None, "training rooms with eight views; the paper's share of --pictures")
    videos: int | None = setting(None, "training rooms with a 16-frame walk; the paper's share of --pictures")
    held_out: int = setting(500, "rooms in each of val, test and ood, with the same modalities")
    size: int = setting(96, "side of a frame in pixels")
    questions: int = setting(1, "spatial rows for each picture, view set and walk, on average")
    seeing: bool = setting(False, "write stage 0's questions too")
    index_images: bool = setting(False, "write what stage 0's dense loss is held to: what and where each pixel shows")
    traces: int = setting(0, "thinking traces to write for the cold start, where there are none yet")
    seed: int = setting(0, "seed of all rooms; splits never share one")
    workers: int = setting(os.cpu_count() or 1, "processes")


def main(argv):
    s = parse(Settings, argv, doc=__doc__)
    for name in ("view_sets", "videos"):
        if getattr(s, name) is None:
            setattr(s, name, round(s.pictures * PAPER[name] / PAPER["pictures"]))
    root, described = Path(s.out), {k: v for k, v in asdict(s).items() if k not in ("out", "workers", "traces")}
    described["names"] = list(NAMES)
    if (root / "prepare.json").exists() and read_json(root / "prepare.json") != described:
        raise UserError(f"{root} was made with other settings (see its prepare.json): name another --out, or delete it")
    root.mkdir(parents=True, exist_ok=True)
    write_json(root / "prepare.json", described)

    jobs = [
        (s, split, shard)
        for split in SPLITS
        for shard in range(-(-_rooms(s, split) // SHARD))
        if not _done_file(root, split, shard).exists()
    ]
    with ProcessPoolExecutor(s.workers) as pool:
        futures = [pool.submit(make_shard, *job) for job in jobs]
        with progress(total=len(jobs) * SHARD, desc="rooms", unit="room", smoothing=0.1) as bar:
            for future in as_completed(futures):
                future.result()
                bar.update(SHARD)
    for split in SPLITS:
        _merge(s, root, split)
    if s.traces and not (root / "train" / "cold.jsonl").exists():
        write_jsonl(root / "train" / "cold.jsonl", traces_from_truth(root / "train", s.traces, s.seed))
    if not (root / "contact_sheet.png").exists():
        contact_sheet(root / "contact_sheet.png", seed=s.seed)
    print(f"{root}: " + ", ".join(f"{split} {_rooms(s, split)} rooms" for split in SPLITS))


def _rooms(s, split):
    """How many rooms a split needs: a room gives one of each modality."""
    return max(_wanted(s, split).values())


def _wanted(s, split):
    """How many rooms of a split have each modality: the first ones."""
    counts = {"single_image": s.pictures, "multi_view": s.view_sets, "video": s.videos}
    return counts if split == "train" else {kind: s.held_out * (count > 0) for kind, count in counts.items()}


def _kinds(s):
    return ["scenes", "localization", "spatial", "floor", *(["seeing"] if s.seeing else [])]


def _part(root, split, kind, shard):
    return root / split / "parts" / f"{kind}-{shard:05d}.jsonl"


def _done_file(root, split, shard):
    merged = root / split / "scenes.jsonl"
    return merged if merged.exists() else _part(root, split, "scenes", shard)


def make_shard(s, split, shard):
    """Render SHARD rooms and write their rows; scenes-N.jsonl comes last and marks the shard as whole."""
    root, rows = Path(s.out), {kind: [] for kind in _kinds(s)}
    (root / split / "parts").mkdir(parents=True, exist_ok=True)
    (root / split / "images" / f"{shard:05d}").mkdir(parents=True, exist_ok=True)
    indices = range(shard * SHARD, min((shard + 1) * SHARD, _rooms(s, split)))
    shown = [_make_room(s, split, shard, index, rows) for index in indices]
    if s.seeing:
        for first in range(0, len(shown) - ALBUM + 1, ALBUM_EVERY):
            index = indices[first]
            rng = np.random.default_rng([s.seed, SPLITS.index(split), index, 7])
            sights, names = zip(*shown[first : first + rng.integers(2, ALBUM + 1)])
            questions = album_rows(sights, rng)
            album = {"image": names, "data_type": "multi_view", "level": max(sight.scene.level for sight in sights)}
            rows["seeing"] += [{"question_id": index * 100 + 50 + k} | q | album for k, q in enumerate(questions)]
    for kind in reversed(_kinds(s)):
        write_jsonl(_part(root, split, kind, shard), rows[kind])


def _make_room(s, split, shard, index, rows):
    """Render a room and add to `rows`; returns its single picture's Sight and name, where it has one."""
    level = index % len(LEVELS) + 1
    scene = make_scene(s.seed, split, index, level)

    def stream(number):  # the room itself is stream-less; what is drawn about it never shifts what else is drawn
        return np.random.default_rng([s.seed, SPLITS.index(split), index, number])

    cameras = {
        "single_image": lambda: [single_camera(scene, stream(1))],
        "multi_view": lambda: view_cameras(scene),
        "video": lambda: walk_cameras(scene),
    }
    frames, shots = [], {}  # as scenes.jsonl has them; by modality, Sights and names
    for modality, count in _wanted(s, split).items():
        if index >= count:
            continue
        poses = cameras[modality]()
        for number, camera in enumerate(poses):
            name = f"images/{shard:05d}/{index:06d}_{modality}_{number:02d}.png"
            frame = render(scene, camera, s.size)
            visible = visible_objects(scene, camera, frame)
            path = Path(s.out) / split / name
            Image.fromarray(frame.rgb).save(path, compress_level=1)
            frames.append({"image": name, "data_type": modality, "camera": camera_to_json(camera), "visible": visible,
                           "farthest": round(float(frame.depth.max()), 3)})  # fmt: skip
            shots.setdefault(modality, []).append((Sight(scene, frame, visible), name))
            if s.index_images:
                _save_index_images(scene, frame, poses[ORIGIN[modality]], path)
    truth = scene_to_json(scene)
    del truth["cameras"]
    rows["scenes"].append(truth | {"frames": frames})
    rows["spatial"].append(room_facts(rows["scenes"][-1], s.size))

    def add(kind, modality, questions, first=0):
        row = {"image": [name for _, name in shots[modality]], "data_type": modality, "level": level, "scene": scene.id}
        rows[kind] += [{"question_id": index * 100 + k} | q | row for k, q in enumerate(questions, first)]

    for number, modality in enumerate(cameras):
        if modality not in shots:
            continue
        add("floor", modality, floor_rows(rows["scenes"][-1], modality, s.size, stream(8 + number)), 10 * number)
        if s.seeing and number:
            pace = 2 if modality == "video" else 1  # one token of a video shows two frames: they are one picture
            sights = [sight for sight, _ in shots[modality][::pace]]
            add("seeing", modality, tour_rows(sights, stream(11 + number)), 55 + 15 * number)
    if "single_image" in shots:
        sight = shots["single_image"][0][0]
        add("localization", "single_image", localization_rows(scene, sight.visible, s.size, stream(2)))
        add("floor", "single_image", reckoning_rows(stream(11)), 30)
        if s.seeing:
            add("seeing", "single_image", seeing_rows(sight, stream(3)))
    return shots.get("single_image", [None])[0]


def _save_index_images(scene, frame, board, path):
    """What the dense loss is held to: for each pixel the place in NAMES of what it shows, in DEPTHS how far that is,
    and the file and rank of the `board` camera's floor where it is: of an object, where its centre stands."""
    table = np.array([NAMES.index(o.category) for o in scene.objects] + [2, 1, 0], dtype=np.uint8)  # -1 floor is last
    points = frame.points[..., :2].copy()
    for o in scene.objects:
        points[frame.ids == o.id] = o.center[:2]
    squares = floor_squares(board, points).astype(np.uint8)
    indices = {"names": table[frame.ids], "depths": depth_levels(frame.depth, frame.depth.max()),
               "across": squares[..., 0], "along": squares[..., 1]}  # fmt: skip
    for kind, index in indices.items():
        Image.fromarray(index).save(path.with_suffix(f".{kind}.png"), compress_level=1)


def _merge(s, root, split):
    """Join the shards' rows in order, then drop them; scenes.jsonl comes last, as the sign that all are joined.

    The spatial parts hold what may be asked about each room; which of it is asked is settled here, over all rooms.
    """
    folder = root / split
    for kind in reversed(_kinds(s)):
        parts = sorted((folder / "parts").glob(f"{kind}-*.jsonl"))
        if not parts:  # merged by an earlier call
            continue
        if kind == "spatial":
            rooms = [room for part in parts for room in read_jsonl(part)]
            wanted = {data_type: count * s.questions for data_type, count in _wanted(s, split).items()}
            rows = balance(rooms, wanted, s.seed, split)
            if split == "train":
                rng = np.random.default_rng([s.seed, 8])
                scenes = (scene for part in folder.glob("parts/scenes-*.jsonl") for scene in read_jsonl(part))
                scenes = {scene["id"]: scene for scene in scenes}
                rows = [row | {"workings": workings(row, scenes[row["scene"]], s.size, rng)} for row in rows]
            write_jsonl(folder / "spatial.jsonl", rows)
            continue
        partial = folder / f"{kind}.partial"
        with open(partial, "wb") as out:
            for part in parts:
                out.write(part.read_bytes())
        partial.replace(folder / f"{kind}.jsonl")
    shutil.rmtree(folder / "parts", ignore_errors=True)


if __name__ == "__main__":
    run_script(main)
