"""Convert VSI-Bench (arXiv 2412.14171): questions about videos of walks through real rooms.

    hf download nyu-visionx/VSI-Bench --repo-type dataset --local-dir downloads/VSI-Bench
    (cd downloads/VSI-Bench && for zip in *.zip; do unzip -n $zip; done)
    python -m data.vsibench.prepare               # -> datasets/vsibench/test, 32 frames a video

A video lies at DATASET/SCENE.mp4. It is decoded once, however many questions ask about it. Evenly
spaced frames are kept as JPEG files, with the first and the last frame among them. This converter
needs pip install -e '.[bench]'.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from data.convert import (
    PACKAGES,
    Damaged,
    ParquetRows,
    Settings,
    convert,
    field,
    inside,
    json_rows,
    need,
    read_settings,
    vsi_row,
)
from nanoladder.command import UserError, run_script, setting

PUBLISHED = 5130
FETCH = "fetch nyu-visionx/VSI-Bench as --help says"


@dataclass
class VideoSettings(Settings):
    frames: int = setting(32, "how many frames of each video to keep")


def main(argv):
    s = read_settings(argv, __doc__, "VSI-Bench", "vsibench", VideoSettings)
    if s.frames < 1:
        raise UserError("--frames must be 1 or more")
    source, folder = Path(s.source), Path(s.out) / "test"
    first = source / "test-00000-of-00001.parquet"  # later releases have test.jsonl instead
    rows = ParquetRows([first]) if first.exists() else json_rows(need(source / "test.jsonl", FETCH))
    files = {"spatial.jsonl": (rows, partial(to_row, source, folder, s.frames))}
    convert(s, "test", files, PUBLISHED)


def to_row(source, folder, frames, number, raw):
    row = vsi_row(raw)
    scene = f"{row['source']}/{field(raw, 'scene_name', str)}"
    images = [f"images/{scene}/{frames}/{k:03d}.jpg" for k in range(frames)]
    if not (folder / images[-1]).exists():  # the last frame is written last
        _keep_frames(inside(source, f"{scene}.mp4"), [folder / name for name in images])
    return row | {"image": images, "data_type": "video"}


def _keep_frames(path, targets):
    """Decode a video and write one of its evenly spaced frames to each target.

    Damaged where the video is missing, cannot be decoded, or ends before its last frame.
    """
    try:
        import av
    except ImportError:
        raise UserError(f"decoding videos needs av (PyAV): {PACKAGES}") from None
    if not path.is_file():
        raise Damaged("no such video", path)
    try:
        pictures, total = _decode_frames(av, path, len(targets))
    except (av.error.FFmpegError, IndexError) as error:  # IndexError: the file has no video stream
        raise Damaged("a video cannot be read", f"{path} ({error})") from None
    at = _evenly_spaced(total, len(targets))
    if len(pictures) < len(set(at)):
        raise Damaged("a video is cut short", f"{path}, of whose {total} frames not all decode")
    for k, target in zip(at, targets):
        target.parent.mkdir(parents=True, exist_ok=True)
        partial_file = target.with_name(target.name + ".partial")
        pictures[k].save(partial_file, format="JPEG", quality=95)
        partial_file.replace(target)


def _decode_frames(av, path, count):
    """({index: picture} of `count` evenly spaced frames, the number of frames in the video)."""
    with av.open(str(path)) as video:
        expected = video.streams.video[0].frames  # 0 where the header does not state it
        total = sum(packet.size > 0 for packet in video.demux(video=0))
    if total < 0.99 * expected:
        raise Damaged(
            "a video is cut short", f"{path}, {total} frames where its header says {expected}"
        )
    wanted = set(_evenly_spaced(total, count))
    with av.open(str(path)) as video:
        video.streams.video[0].thread_type = "AUTO"
        frames = enumerate(video.decode(video=0))
        return {k: frame.to_image() for k, frame in frames if k in wanted}, total


def _evenly_spaced(total, count):
    """Indices of `count` frames out of `total`; a short video gives some frames twice."""
    return np.linspace(0, total - 1, count).astype(int).tolist()


if __name__ == "__main__":
    run_script(main)
