"""SpatialLadder-26k (arXiv 2510.08531) in nanoladder's schema: what stages 1 and 2 of the paper were trained on.

    hf download hongxingli/SpatialLadder-26k --repo-type dataset --local-dir downloads/SpatialLadder-26k
    (cd downloads/SpatialLadder-26k && unzip -n images.zip)
    python -m data.spatialladder.prepare          # -> datasets/spatialladder/train

The download holds spld_grounding_data.jsonl (localization), spld_spatial_data.jsonl (spatial questions over single
images, eight views and video frames) and the images, scene by scene. Its schema is nanoladder's own, so the rows hardly
change: boxes stay in pixels of the original image, and are rescaled with it when it is loaded.
"""

from functools import partial
from pathlib import Path

from data.convert import convert, field, find_image, json_rows, keep_file, known, lettered, need, read_settings, strings
from nanoladder.common import run_script
from nanoladder.dataset import CHOICES, DATA_TYPES, NUMBERS

PUBLISHED = 5928 + 20_680  # as published; the paper counts 26,610
FILES = {"localization.jsonl": "spld_grounding_data.jsonl", "spatial.jsonl": "spld_spatial_data.jsonl"}


def main(argv):
    s = read_settings(argv, __doc__, "SpatialLadder-26k", "spatialladder")
    source, folder = Path(s.source), Path(s.out) / "train"
    paths = [need(source / name, "fetch hongxingli/SpatialLadder-26k as --help says") for name in FILES.values()]
    to_row = {"localization.jsonl": localization_row, "spatial.jsonl": spatial_row}
    files = {file: (json_rows(path), partial(to_row[file], source, folder)) for file, path in zip(FILES, paths)}
    convert(s, "train", files, PUBLISHED)


def localization_row(source, folder, number, raw):
    answer = [
        # Labels are compared in lower case.
        {"bbox_2d": field(item, "bbox_2d", list), "label": field(item, "label", str).strip().lower()}
        for item in field(raw, "answer", list)
    ]
    return _shared(source, folder, raw) | {"answer": answer}


def spatial_row(source, folder, number, raw):
    kind = known(raw, "question_type", CHOICES + NUMBERS)
    return _shared(source, folder, raw) | {
        "answer": str(field(raw, "answer", (str, int, float))).strip(),
        "options": lettered(strings(raw, "options")) if kind in CHOICES else None,
        "question_type": kind,
    }


def _shared(source, folder, raw):
    names = [name.removeprefix("images/") for name in strings(raw, "image")]
    roots = [source / "images", source]  # the archive was packed with and without the folder
    return {
        "question_id": field(raw, "question_id", int),
        "question": field(raw, "question", str),
        "image": [keep_file(find_image(roots, name), folder, name) for name in names],
        "data_type": known(raw, "data_type", DATA_TYPES),
    }


if __name__ == "__main__":
    run_script(main)
