"""Convert SpatialLadder-26k (arXiv 2510.08531), the training data of the paper's stages 1 and 2.

    hf download hongxingli/SpatialLadder-26k --repo-type dataset \\
        --local-dir downloads/SpatialLadder-26k
    (cd downloads/SpatialLadder-26k && unzip -n images.zip)
    python -m data.spatialladder.prepare          # -> datasets/spatialladder/train

The download holds two files of rows, and the images of each scene in a folder. The rows of
spld_grounding_data.jsonl ask for boxes. The rows of spld_spatial_data.jsonl ask spatial questions
about a single image, eight views or the frames of a video. nanoladder's schema has the same fields,
so the rows hardly change. Boxes stay in pixels of the original image, and training rescales them
when it loads and resizes the image.
"""

from functools import partial
from pathlib import Path

from data.convert import (
    convert,
    field,
    find_image,
    json_rows,
    keep_file,
    known,
    need,
    options_or_unit,
    read_settings,
    strings,
)
from nanoladder.process import run_script
from nanoladder.schema import DATA_TYPES, PAPER_CHOICES, PAPER_UNITS

PUBLISHED = 5928 + 20_680  # as published; the paper counts 26,610
FETCH = "fetch hongxingli/SpatialLadder-26k as --help says"


def main(argv):
    s = read_settings(argv, __doc__, "SpatialLadder-26k", "spatialladder")
    source = Path(s.source)
    boxes = need(source / "spld_grounding_data.jsonl", FETCH)
    spatial = need(source / "spld_spatial_data.jsonl", FETCH)
    files = {
        "localization.jsonl": (json_rows(boxes), partial(localization_row, source)),
        "spatial.jsonl": (json_rows(spatial), partial(spatial_row, source)),
    }
    convert(s, "train", files, PUBLISHED)


def localization_row(source, folder, number, raw):
    answer = [
        {
            "bbox_2d": field(item, "bbox_2d", list),
            "label": field(item, "label", str).strip().lower(),  # scoring compares lower case
        }
        for item in field(raw, "answer", list)
    ]
    return _shared(source, folder, raw) | {"answer": answer}


def spatial_row(source, folder, number, raw):
    question_type = known(raw, "question_type", (*PAPER_CHOICES, *PAPER_UNITS))
    return _shared(source, folder, raw) | {
        "answer": str(field(raw, "answer", (str, int, float))).strip(),
        **options_or_unit(raw, question_type),
        "question_type": question_type,
    }


def _shared(source, folder, raw):
    """The fields that both kinds of rows have."""
    images = []
    for name in strings(raw, "image"):
        name = name.removeprefix("images/")  # one release of the archive has the folder, one not
        images.append(keep_file(find_image(source, [f"images/{name}", name]), folder, name))
    return {
        "question_id": field(raw, "question_id", int),
        # Where an image goes is marked in some questions. Here all images come first.
        "question": field(raw, "question", str).replace("<image>", "").strip(),
        "image": images,
        "data_type": known(raw, "data_type", DATA_TYPES),
    }


if __name__ == "__main__":
    run_script(main)
