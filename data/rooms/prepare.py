"""Make the rooms: pictures, exact truth and questions, in SpatialLadder-26k's schema.

    python -m data.rooms.prepare                                      # the paper's numbers of rows
    python -m data.rooms.prepare --pictures 500 --size 128 --out DIR  # fewer, in its proportions
    python -m data.rooms.prepare --pictures 12000 --view-sets 0 --videos 0
    python -m data.rooms.prepare --held-out 400 --questions 8  # 1,000 rows a spatial benchmark
    python -m data.rooms.prepare --questions 4 --traces 1255        # and traces for the cold start

A data folder has a folder for each of train, val, test and ood. Each of them holds:

    scenes.jsonl          the room, its objects' oriented boxes and, for every frame, its camera and
                          what it shows; all questions are made from this truth
    localization.jsonl    stage 1's questions
    spatial.jsonl         stage 2's questions; those of train have rationales (rationales.py)
    floor.jsonl           questions about the floor map (floor.py)
    map_arithmetic.jsonl  questions about maps that are drawn at random (floor.py)
    seeing.jsonl          stage 0's questions (seeing.py), with --seeing
    cold.jsonl            traces for the cold start (rationales.py), in train alone, with --traces
    images/               the frames; with --index-images four more images beside each of them

A room gives a picture, eight views and a walk, as far as they are asked for. Each of these gets
--questions spatial rows on average, or fewer where more would unbalance the answers. In val, test
and ood each modality has 1,000 spatial rows at most. The benchmarks rooms-si, rooms-mv and
rooms-video are the spatial rows of test by data_type. Those of ood are their out-of-domain twins.
data.rooms.baselines measures what can be guessed in them.

An interrupted command goes on where it was if it is started again. Every file is written beside
its place and then renamed, and those of train come last: what is there is whole. --traces may also
be added later. The same settings give the same bytes, whatever --workers is.
"""

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from data.rooms.balance import balance
from data.rooms.floor import floor_rows, floor_squares, map_arithmetic_rows
from data.rooms.questions import NAMES, localization_rows
from data.rooms.rationales import rationale, traces_from_truth
from data.rooms.render import contact_sheet, render, visible_objects
from data.rooms.scene import (
    LEVELS,
    SPLITS,
    camera_to_json,
    make_scene,
    scene_to_json,
    single_camera,
    stream,
    view_cameras,
    walk_cameras,
)
from data.rooms.seeing import ALBUM, Sight, album_rows, depth_levels, seeing_rows, tour_rows
from data.rooms.spatial import ORIGIN, room_facts
from data.rooms.workers import run_jobs
from nanoladder.command import Stopped, UserError, parse, progress, setting
from nanoladder.files import is_unused, lock, read_json, read_jsonl, write_json, write_jsonl
from nanoladder.process import cpu_cores, run_script

VERSION = 3  # raise it when rows change meaning, so that older folders are refused
# Rows of each modality in val, test and ood, at most. Where there are more facts than that, rare
# types make up a larger share, because all of their facts are taken.
HELD_OUT_ROWS = 1000
PAPER = {"pictures": 5929, "view_sets": 5752, "videos": 9000}  # SpatialLadder-26k, section 3
SHARD = 50  # rooms that a worker makes at a time; a finished shard is never made again
ROOMS = {"low": 0, "high": 10**7}
ALBUM_EVERY = 10  # rooms for each album, which asks about the pictures of up to ALBUM of them


@dataclass
class Settings:
    out: str = setting("datasets/rooms", "data folder to write", writes="folder")
    pictures: int = setting(PAPER["pictures"], "training rooms with a single picture", **ROOMS)
    view_sets: int | None = setting(
        None, "training rooms with eight views; by default in the paper's proportion", **ROOMS
    )
    videos: int | None = setting(
        None, "training rooms with a 16-frame walk; by default in the paper's proportion", **ROOMS
    )
    held_out: int = setting(500, "rooms in each of val, test and ood, as those of train", **ROOMS)
    size: int = setting(96, "side of a frame in pixels", low=16, high=4096)
    questions: int = setting(
        1, "spatial rows for each picture, view set and walk, on average", low=1, high=1000
    )
    seeing: bool = setting(False, "write stage 0's questions as well")
    index_images: bool = setting(
        False, "write the targets of stage 0's dense loss: what each pixel shows, and where it is"
    )
    traces: int = setting(0, "rows of train/cold.jsonl, if there is no such file yet", **ROOMS)
    seed: int = setting(0, "seed of all rooms; splits never share a room", low=0, high=2**31)
    workers: int = setting(cpu_cores(), "processes", low=1, high=1024)


def read_settings(argv):
    """The Settings of a command line, with the paper's proportions where it names no numbers."""
    s = parse(Settings, argv, doc=__doc__)
    for name in ("view_sets", "videos"):
        if getattr(s, name) is None:
            setattr(s, name, round(s.pictures * PAPER[name] / PAPER["pictures"]))
    if not _rooms(s, "train"):
        raise UserError("no rooms to make: --pictures, --view-sets and --videos are all 0")
    return s


def main(argv):
    s = read_settings(argv)
    root = Path(s.out)
    if not (is_unused(root) or (root / "prepare.json").exists()):
        raise UserError(f"{root} holds other files: name another folder with --out")
    if keys := other_settings(root, s):
        raise UserError(
            f"{root / 'prepare.json'} differs in {', '.join(keys)}: the folder was made with other "
            "settings, or by another version of data/rooms. Delete it, or name another --out."
        )
    root.mkdir(parents=True, exist_ok=True)
    with lock(root):
        write_json(root / "prepare.json", about(s))
        try:
            make_rooms(s, root)
        except Stopped as stop:
            raise Stopped(stop.signal, f"{root}: the same command goes on from here") from None
    print(f"{root}: " + ", ".join(f"{split} {_rooms(s, split)} rooms" for split in SPLITS))


def about(s):
    """What prepare.json holds: all that decides what is written, but for the traces."""
    told = {"recipe": "rooms", "version": VERSION} | asdict(s) | {"names": list(NAMES)}
    return {name: v for name, v in told.items() if name not in ("out", "workers", "traces")}


def other_settings(root, s):
    """Names of the settings in which a folder's prepare.json differs from `s`; none without it."""
    path, now = root / "prepare.json", about(s)
    made = read_json(path) if path.exists() else now
    return [key for key in now | made if now.get(key) != made.get(key)]


def make_rooms(s, root):
    """Make what the folder lacks."""
    shards = [(split, k) for split in SPLITS for k in range(-(-_rooms(s, split) // SHARD))]
    jobs = [(s, *shard) for shard in shards if not _done_file(root, *shard).exists()]
    before = len(shards) - len(jobs)
    print(f"{root}: {len(shards)} parts of up to {SHARD} rooms, {before} made before", flush=True)
    with progress(total=len(jobs) * SHARD, desc="rooms", unit="room", smoothing=0.1) as bar:
        for _ in run_jobs(make_shard, jobs, s.workers):
            bar.update(SHARD)
    for split in reversed(SPLITS):  # train last, so that nobody trains without the other splits
        _merge(s, root, split)
    cold = root / "train" / "cold.jsonl"
    if s.traces and not cold.exists():
        write_jsonl(cold, traces_from_truth(root / "train", s.traces, s.seed))
    if not (sheet := root / "contact_sheet.png").exists():
        partial = sheet.with_name("contact_sheet.partial.png")
        contact_sheet(partial, seed=s.seed)
        partial.replace(sheet)


def _wanted(s, split):
    """{data_type: how many rooms of a split have it}; they are the first rooms."""
    counts = {"single_image": s.pictures, "multi_view": s.view_sets, "video": s.videos}
    if split == "train":
        return counts
    return {data_type: s.held_out * (count > 0) for data_type, count in counts.items()}


def _rooms(s, split):
    """How many rooms a split needs; one room gives one of each modality."""
    return max(_wanted(s, split).values())


def _kinds(s):
    """Names of a split's files.

    They are written in reverse. scenes.jsonl comes last and so marks that all are there.
    """
    kinds = ["scenes", "localization", "spatial", "floor", "map_arithmetic"]
    return [*kinds, "seeing"] if s.seeing else kinds


def _part(root, split, kind, shard):
    return root / split / "parts" / f"{kind}-{shard:05d}.jsonl"


def _done_file(root, split, shard):
    """The file that exists if the shard is finished."""
    merged = root / split / "scenes.jsonl"
    return merged if merged.exists() else _part(root, split, "scenes", shard)


# ---------------------------------------------------------------- one shard of rooms


def make_shard(s, split, shard):
    """Render SHARD rooms and write their rows to the split's folder `parts`."""
    root, rows = Path(s.out), {kind: [] for kind in _kinds(s)}
    (root / split / "parts").mkdir(parents=True, exist_ok=True)
    (root / split / "images" / f"{shard:05d}").mkdir(parents=True, exist_ok=True)
    indices = range(shard * SHARD, min((shard + 1) * SHARD, _rooms(s, split)))
    rooms = [_make_room(s, split, shard, index, rows) for index in indices]
    if s.seeing:
        shown = [room for room in rooms if room]  # the first rooms, if not all have a picture
        for first in range(0, len(shown) - ALBUM + 1, ALBUM_EVERY):
            _make_album(s, split, indices[first], shown[first:], rows)
    for kind in reversed(_kinds(s)):
        write_jsonl(_part(root, split, kind, shard), rows[kind])


def _make_room(s, split, shard, index, rows):
    """Render a room and append its rows to `rows`, {kind: rows}.

    Returns (Sight, file name) of its single picture, or None where it has none.
    """
    scene = make_scene(s.seed, split, index, index % len(LEVELS) + 1)
    frames, shots = _photograph(s, scene, shard)
    truth = scene_to_json(scene) | {"frames": frames}
    rows["scenes"].append(truth)
    rows["spatial"].append(room_facts(truth, s.size))

    def add(kind, data_type, questions, first=0):
        """Append rows with the question_ids `first`, first + 1, ... within the room."""
        images = [name for _, name in shots[data_type]]
        row = {"image": images, "data_type": data_type, "level": scene.level, "scene": scene.id}
        for number, question in enumerate(questions, first):
            rows[kind].append({"question_id": index * 100 + number} | question | row)

    for number, data_type in enumerate(_wanted(s, split)):
        if data_type not in shots:
            continue
        asked = floor_rows(truth, data_type, s.size, stream(scene, 20 + number))
        add("floor", data_type, asked, 10 * number)
        if s.seeing and data_type != "single_image":
            pace = 2 if data_type == "video" else 1  # an image token of a video covers two frames
            sights = [sight for sight, _ in shots[data_type]]
            pictures = [sights[i : i + pace] for i in range(0, len(sights), pace)]
            asked = tour_rows(pictures, stream(scene, 11 + number))
            add("seeing", data_type, asked, 55 + 15 * number)
    if "single_image" not in shots:
        return None
    ((sight, name),) = shots["single_image"]
    asked = localization_rows(scene, sight.visible, s.size, stream(scene, 2))
    add("localization", "single_image", asked)
    add("map_arithmetic", "single_image", map_arithmetic_rows(stream(scene, 11)), 30)
    if s.seeing:
        add("seeing", "single_image", seeing_rows(sight, stream(scene, 3)))
    return sight, name


def _photograph(s, scene, shard):
    """Render and save a room's frames. Returns (frames, shots).

    frames: as scenes.jsonl has them. shots: {data_type: (Sight, file name) of each frame}.
    """
    cameras = {
        "single_image": lambda: [single_camera(scene, stream(scene, 1))],
        "multi_view": lambda: view_cameras(scene),
        "video": lambda: walk_cameras(scene),
    }
    frames, shots = [], {}
    for data_type, count in _wanted(s, scene.split).items():
        if scene.index >= count:
            continue
        poses = cameras[data_type]()
        for number, camera in enumerate(poses):
            name = f"images/{shard:05d}/{scene.index:06d}_{data_type}_{number:02d}.png"
            frame = render(scene, camera, s.size)
            visible = visible_objects(scene, camera, frame)
            path = Path(s.out) / scene.split / name
            Image.fromarray(frame.rgb).save(path, compress_level=1)
            entry = {"image": name, "data_type": data_type, "camera": camera_to_json(camera)}
            farthest = round(float(frame.depth.max()), 3)
            frames.append(entry | {"visible": visible, "farthest": farthest})
            shots.setdefault(data_type, []).append((Sight(scene, frame, visible), name))
            if s.index_images:
                _save_index_images(scene, frame, poses[ORIGIN[data_type]], path)
    return frames, shots


def _save_index_images(scene, frame, map_camera, path):
    """Save the targets of the dense loss beside the image `path`, as four uint8 images of its size.

    IMAGE.names.png: for each pixel the index in NAMES of what it shows. IMAGE.depths.png: the index
    in DEPTHS of its depth. IMAGE.across.png and IMAGE.along.png: column and row of its square on
    the floor map of `map_camera`; all pixels of an object have the square of its centre.
    """
    # Object ids are 0, 1, ...; -1, -2 and -3 are floor, wall and ceiling, and index from the end.
    shown = [NAMES.index(o.category) for o in scene.objects] + [2, 1, 0]
    points = frame.points[..., :2].copy()
    for o in scene.objects:
        points[frame.ids == o.id] = o.center[:2]
    squares = floor_squares(map_camera, points).astype(np.uint8)
    indices = {
        "names": np.array(shown, dtype=np.uint8)[frame.ids],
        "depths": depth_levels(frame.depth, frame.depth.max()),
        "across": squares[..., 0],
        "along": squares[..., 1],
    }
    for kind, index in indices.items():
        Image.fromarray(index).save(path.with_suffix(f".{kind}.png"), compress_level=1)


def _make_album(s, split, index, shown, rows):
    """Append rows about the first two to ALBUM pictures of `shown`; `index` is the first room."""
    rng = np.random.default_rng([s.seed, SPLITS.index(split), index, 7])
    sights, names = zip(*shown[: rng.integers(2, ALBUM + 1)])
    level = max(sight.scene.level for sight in sights)
    row = {"image": names, "data_type": "multi_view", "level": level}
    for number, question in enumerate(album_rows(sights, rng), 50):
        rows["seeing"].append({"question_id": index * 100 + number} | question | row)


# ---------------------------------------------------------------- a whole split


def _merge(s, root, split):
    """Join the shards' rows in order and delete the parts.

    The spatial parts hold room_facts. balance() chooses among them here, because it needs all
    rooms.
    """
    folder = root / split
    for kind in reversed(_kinds(s)):
        if (folder / "scenes.jsonl").exists():  # the last kind, so all are joined already
            break
        parts = sorted((folder / "parts").glob(f"{kind}-*.jsonl"))
        if parts and kind == "spatial":
            write_jsonl(folder / "spatial.jsonl", _spatial_rows(s, split, parts))
        elif parts:
            partial = folder / f"{kind}.partial"
            with open(partial, "wb") as out:
                for part in parts:
                    out.write(part.read_bytes())
            partial.replace(folder / f"{kind}.jsonl")
    shutil.rmtree(folder / "parts", ignore_errors=True)


def _spatial_rows(s, split, parts):
    """The balanced rows of a split; those of train have rationales. parts: files of room_facts."""
    rooms = [room for part in parts for room in read_jsonl(part)]
    wanted = {data_type: count * s.questions for data_type, count in _wanted(s, split).items()}
    if split != "train":
        wanted = {data_type: min(most, HELD_OUT_ROWS) for data_type, most in wanted.items()}
    rows = balance(rooms, wanted, s.seed, split)
    if split != "train":
        return rows
    rng, scenes = np.random.default_rng([s.seed, 8]), {}
    for part in parts[0].parent.glob("scenes-*.jsonl"):
        scenes |= {scene["id"]: scene for scene in read_jsonl(part)}
    return [row | {"rationale": rationale(row, scenes[row["scene"]], s.size, rng)} for row in rows]


if __name__ == "__main__":
    run_script(main)
