"""Convert VSI-Bench (arXiv 2412.14171): questions about videos of walks through real rooms.

    hf download nyu-visionx/VSI-Bench --repo-type dataset --local-dir downloads/VSI-Bench
    (cd downloads/VSI-Bench && for zip in *.zip; do unzip -n $zip; done)
    python -m data.vsibench.prepare               # -> datasets/vsibench/test, 32 frames a video

A video lies at DATASET/SCENE.mp4. It is decoded once, however many questions ask about it. Evenly
spaced frames are kept as JPEG files, with the first and the last frame among them. They are resized
as SpatialLadder's evaluation does: to about 512x28x28 pixels by LANCZOS, and then to the nearest
multiples of 28 pixels a side. This converter needs pip install -e '.[bench]'.

Qwen2.5-VL is also told the seconds between frames, which a row has as frame_seconds. --times says
which ones. `fixed` is two frames a second, however long a video is. SpatialLadder's evaluation and
lmms-eval have it so, because they pass frames without their rate. `video` is the video's own length
divided by the number of frames, as transformers' processor does where it reads the video itself and
as the technical report of Qwen2.5-VL (arXiv 2502.13923) describes it.
"""

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from data.convert import (
    Damaged,
    ParquetRows,
    Settings,
    convert,
    field,
    inside,
    json_rows,
    keep,
    need,
    read_settings,
    vsi_row,
)
from data.videos import decode, probe
from nanoladder.command import setting
from nanoladder.process import run_script

PUBLISHED = 5130
FETCH = "fetch nyu-visionx/VSI-Bench as --help says"
FACTOR = 28  # pixels of a side of one of Qwen2.5-VL's image tokens


@dataclass
class VideoSettings(Settings):
    frames: int = setting(32, "how many frames of each video to keep", low=1, high=10**4)
    frame_pixels: int = setting(
        512 * FACTOR**2,
        "pixels of a kept frame, about; 0 keeps the video's size",
        low=0,
        high=10**8,
    )
    times: str = setting("fixed", "seconds of a frame: see above", choices=["fixed", "video"])


def main(argv):
    s = read_settings(argv, __doc__, "VSI-Bench", "vsibench", VideoSettings)
    source = Path(s.source)
    first = source / "test-00000-of-00001.parquet"  # later releases have test.jsonl instead
    rows = ParquetRows([first]) if first.exists() else json_rows(need(source / "test.jsonl", FETCH))
    convert(s, "test", {"spatial.jsonl": (rows, partial(to_row, source, s))}, PUBLISHED)


def to_row(source, s, folder, number, raw):
    row = vsi_row(raw)
    scene = f"{row['source']}/{field(raw, 'scene_name', str)}"
    path = inside(source, f"{scene}.mp4")
    total, rate = probe(path)
    at = np.linspace(0, total - 1, s.frames).astype(int).tolist()  # a short video repeats some
    names = [f"{scene}/{k:03d}.jpg" for k in range(s.frames)]
    if not (folder / "images" / names[-1]).exists():  # the last frame is written last
        pictures = decode(path, {*at})
        if len(pictures) < len({*at}):
            raise Damaged("a video is cut short", f"{path}, of whose {total} frames not all decode")
        for k, name in zip(at, names):
            picture = resized(pictures[k], s.frame_pixels)
            keep(folder, name, partial(picture.save, format="JPEG", quality=95), path)
    return row | {
        "image": [f"images/{name}" for name in names],
        "data_type": "video",
        "frame_seconds": 0.5 if s.times == "fixed" else total / rate / s.frames,
    }


def resized(picture, pixels):
    """A frame at about so many pixels; 0 leaves it as it is."""
    if not pixels:
        return picture
    scale = math.sqrt(pixels / (picture.width * picture.height))
    about = tuple(max(1, int(side * scale)) for side in picture.size)
    exact = tuple(max(1, round(side / FACTOR)) * FACTOR for side in about)
    return picture.resize(about, Image.Resampling.LANCZOS).resize(exact, Image.Resampling.BICUBIC)


if __name__ == "__main__":
    run_script(main)
