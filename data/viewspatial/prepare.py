"""Convert ViewSpatial-Bench (arXiv 2505.21500): directions as the camera or a person sees them.

    hf download lidingm/ViewSpatial-Bench --repo-type dataset \\
        --local-dir downloads/ViewSpatial-Bench
    (cd downloads/ViewSpatial-Bench && unzip -n scannetv2_val.zip && unzip -n val2017.zip)
    python -m data.viewspatial.prepare            # -> datasets/viewspatial/test

The image paths in ViewSpatial-Bench.json start with the folder of the download itself
("ViewSpatial-Bench/val2017/..."). The choices of a question are one text, with one choice a line.
The answer "A. left" becomes "A".
"""

from functools import partial
from pathlib import Path

from data.convert import (
    convert,
    field,
    find_image,
    keep_file,
    known,
    lettered,
    need,
    read_settings,
    strings,
)
from nanoladder.benchmarks import VIEW_TASKS
from nanoladder.files import read_json
from nanoladder.process import run_script

PUBLISHED = 5712
FETCH = "fetch lidingm/ViewSpatial-Bench as --help says"


def main(argv):
    s = read_settings(argv, __doc__, "ViewSpatial-Bench", "viewspatial")
    source = Path(s.source)
    path = need(source / "ViewSpatial-Bench.json", FETCH)
    questions = enumerate(read_json(path, of=list))
    rows = [(f"{path}: row {number}", raw) for number, raw in questions]
    files = {"spatial.jsonl": (rows, partial(to_row, source))}
    convert(s, "test", files, PUBLISHED)


def to_row(source, folder, number, raw):
    task = known(raw, "question_type", VIEW_TASKS)
    names = [name.removeprefix("ViewSpatial-Bench/") for name in strings(raw, "image_path")]
    return {
        "question_id": number,
        "question": field(raw, "question", str),
        "options": lettered(field(raw, "choices", str).strip().split("\n")),
        "answer": field(raw, "answer", str).strip().split(".")[0],
        "image": [keep_file(find_image(source, [name]), folder, name) for name in names],
        "data_type": "single_image" if len(names) == 1 else "multi_view",
        "question_type": VIEW_TASKS[task],
        "task": task,
    }


if __name__ == "__main__":
    run_script(main)
