"""Questions behind hints, after SpatialLadder's figure 1 (arXiv 2510.08531), as a data folder.

    python -m data.rooms.hints --hints boxes --out datasets/rooms-hints-boxes
    python eval.py --model RUN --data datasets/rooms-hints-boxes --out RUN/eval-boxes

Does a model fail at spatial questions because it cannot see, or because it cannot reason? The
questions of relative direction about single pictures are asked again, behind a hint. The hint tells
what a model with perfect vision would see: the boxes of the asked objects and, with --hints
directions, the direction of two of them from the one at which the asker stands. Then only reasoning
is left: both directions are relative to the camera's, and the answer is the turn between them.

The paper draws its hints into the picture, and ours are text before the question, so the scores do
not compare with the paper's. If the hints raise a model's score, its vision is the weak part. If
they do not, it does not need them or cannot use them. Rows keep their question_ids, so eval.py
--compare pairs them with the rows without hints. The boxes are in pixels of the picture as the
model sees it, so the folder is made for the image settings of one model.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from data.rooms.scene import camera_from_json
from data.rooms.spatial import angle
from nanoladder.command import UserError, parse, setting, shown
from nanoladder.files import read_jsonl, write_jsonl
from nanoladder.process import run_script
from nanoladder.schema import inside


@dataclass
class Settings:
    data: str = setting("datasets/rooms-spatial", "data folder of the rooms, with scenes.jsonl")
    model: str | None = setting(
        None, "run folder or checkpoint with the image settings; by default the shipped base"
    )
    hints: str = setting(
        "boxes", "what the hint tells: boxes, or boxes and directions", ("boxes", "directions")
    )
    out: str | None = setting(
        None, "data folder to write; by default datasets/rooms-hints-HINTS", writes="folder"
    )


def main(argv):
    s = parse(Settings, argv, doc=__doc__)
    data, out = Path(s.data), Path(s.out or f"datasets/rooms-hints-{s.hints}")
    if out.exists():
        raise UserError(f"{out} exists already: delete it, or name another folder with --out")
    from nanoladder import checkpoint  # here, because it imports torch

    image_config = checkpoint.load_image_config(checkpoint.find(s.model or checkpoint.BASE))
    splits = [split for split in ("test", "ood") if split == "test" or (data / split).is_dir()]
    hinted = {
        split: with_hints(data / split, image_config, s.hints == "directions") for split in splits
    }
    if not any(hinted.values()):
        raise UserError(f"{data}: no row asks for a relative direction in a single picture")
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f"{out.name}.", dir=out.parent) as partial:
        new = Path(partial, "new")
        for split, rows in hinted.items():
            for name in sorted({name for row in rows for name in row["image"]}):
                source = inside(data / split, name)
                if source is None:
                    raise UserError(f"{data / split}: {shown(name)} leads out of this folder")
                (new / split / name).parent.mkdir(parents=True, exist_ok=True)
                _link(source, new / split / name)
            if rows:
                write_jsonl(new / split / "spatial.jsonl", rows)
        new.rename(out)  # a folder that is there is whole
    print(f"{out}: " + ", ".join(f"{split} {len(rows)} rows" for split, rows in hinted.items()))


def _link(source, target):
    """A hard link, or a copy where the file system does not allow the link."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def with_hints(folder, image_config, directions=False):
    """The rows of relative direction about single pictures, their questions behind hints.

    folder: of a split; its scenes.jsonl holds the truth. directions: whether to tell directions.
    """
    frames = {}
    for scene in read_jsonl(folder / "scenes.jsonl"):
        frames |= {frame["image"]: (frame, scene["objects"]) for frame in scene["frames"]}
    hinted = []
    for row in read_jsonl(folder / "spatial.jsonl"):
        if row["question_type"] != "relative direction" or len(row["image"]) != 1:
            continue
        frame, objects = frames[row["image"][0]]
        seen = {
            objects[int(i)]["category"]: (objects[int(i)], v) for i, v in frame["visible"].items()
        }
        asked = [seen[category] for category in row["asked"]]
        with Image.open(folder / frame["image"]) as image:
            hint = _boxes(asked, image.size, image_config)
        hint += _directions(asked, frame) if directions else ""
        hinted.append(row | {"question": f"{hint}\n{row['question']}"})
    return hinted


def _boxes(asked, size, image_config):
    """Boxes in pixels of the resized picture; asked: (object, its entry of "visible") of each."""
    from nanoladder.image import rescale_box, resized_size

    parts = []
    for thing, entry in asked:
        box = rescale_box(entry["bbox"], size, resized_size(size, image_config))
        x1, y1, x2, y2 = (round(v) for v in box)
        parts.append(f"the {thing['category']} is at [{x1},{y1},{x2},{y2}]")
    return "In the picture, " + ", ".join(parts) + "."


def _directions(asked, frame):
    """Directions of the second and third object from the first, in degrees from the camera's."""
    stand, *others = (thing for thing, _ in asked)
    ahead = [a + b for a, b in zip(stand["center"], camera_from_json(frame["camera"]).rotation[2])]
    parts = []
    for other in others:
        turn = round(angle(stand["center"], ahead, other["center"]))  # counter-clockwise, 0 to 360
        side = (
            f"{turn} degrees to the left" if turn <= 180 else f"{360 - turn} degrees to the right"
        )
        parts.append(f"the {other['category']} is {side}")
    return (
        f" Looking from the {stand['category']} in the camera's direction, "
        + " and ".join(parts)
        + "."
    )


if __name__ == "__main__":
    run_script(main)
