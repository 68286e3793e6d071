"""SPBench (SpatialLadder's own benchmark, arXiv 2510.08531) in nanoladder's schema: single images and several views.

    hf download hongxingli/SPBench --repo-type dataset --local-dir downloads/SPBench
    (cd downloads/SPBench && unzip -n SPBench-SI-images.zip && unzip -n SPBench-MV-images.zip)
    python -m data.spbench.prepare                # -> datasets/spbench/test

Rows of SPBench-SI have data_type single_image, those of SPBench-MV multi_view; both have the fields and the scorer of
VSI-Bench, and each counts its ids from 1. Needs pip install -e '.[bench]'.
"""

from functools import partial
from pathlib import Path

from data.convert import ParquetRows, convert, field, find_image, keep_file, need, read_settings, strings, vsi_row
from nanoladder.common import run_script

PUBLISHED = 1009 + 319
PARTS = {"SPBench-SI": "single_image", "SPBench-MV": "multi_view"}


def main(argv):
    s = read_settings(argv, __doc__, "SPBench", "spbench")
    source = Path(s.source)
    paths = {part: need(source / f"{part}.parquet", "fetch hongxingli/SPBench as --help says") for part in PARTS}
    # Nothing in a row says which part it is of.
    rows = [(where, raw | {"part": part}) for part in PARTS for where, raw in ParquetRows([paths[part]])]
    convert(s, "test", {"spatial.jsonl": (rows, partial(to_row, source, Path(s.out) / "test"))}, PUBLISHED)


def to_row(source, folder, number, raw):
    part, scene = raw["part"], field(raw, "scene_name", str)
    roots = [source / f"{part}-images", source / part / "images", source / "images"]  # however it was unpacked
    names = [f"{scene}/{frame}" for frame in strings(raw, "images")]
    return vsi_row(raw) | {
        "image": [keep_file(find_image(roots, name), folder, f"{part}/{name}") for name in names],
        "data_type": PARTS[part],
    }


if __name__ == "__main__":
    run_script(main)
