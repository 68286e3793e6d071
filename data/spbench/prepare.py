"""Convert SPBench, SpatialLadder's own benchmark (arXiv 2510.08531), of images and of views.

    hf download hongxingli/SPBench --repo-type dataset --local-dir downloads/SPBench
    (cd downloads/SPBench && unzip -n SPBench-SI-images.zip && unzip -n SPBench-MV-images.zip)
    python -m data.spbench.prepare                # -> datasets/spbench/test

SPBench-SI asks about a single image, and its rows get the data_type single_image. SPBench-MV asks
about several views of a scene, and its rows get multi_view. Both have the fields of VSI-Bench and
are scored like it. Each part numbers its questions from 1. This converter needs
pip install -e '.[bench]'.
"""

from functools import partial
from pathlib import Path

from data.convert import (
    ParquetRows,
    convert,
    field,
    find_image,
    keep_file,
    need,
    read_settings,
    strings,
    vsi_row,
)
from nanoladder.process import run_script

PUBLISHED = 1009 + 319
PARTS = {"SPBench-SI": "single_image", "SPBench-MV": "multi_view"}
FETCH = "fetch hongxingli/SPBench as --help says"


def main(argv):
    s = read_settings(argv, __doc__, "SPBench", "spbench")
    source = Path(s.source)
    paths = {part: need(source / f"{part}.parquet", FETCH) for part in PARTS}
    rows = [
        (where, raw | {"part": part})  # the download's rows do not state their part
        for part, path in paths.items()
        for where, raw in ParquetRows([path])
    ]
    files = {"spatial.jsonl": (rows, partial(to_row, source))}
    convert(s, "test", files, PUBLISHED)


def to_row(source, folder, number, raw):
    part, scene = raw["part"], field(raw, "scene_name", str)
    images = []
    for frame in strings(raw, "images"):
        name, roots = f"{scene}/{frame}", (f"{part}-images", f"{part}/images", "images")
        path = find_image(source, [f"{root}/{name}" for root in roots])  # unpacked in three ways
        images.append(keep_file(path, folder, f"{part}/{name}"))
    return vsi_row(raw) | {"image": images, "data_type": PARTS[part]}


if __name__ == "__main__":
    run_script(main)
