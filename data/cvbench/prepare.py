"""Convert CV-Bench (Cambrian-1, arXiv 2406.16860): count, relation, depth, distance in a picture.

    hf download nyu-visionx/CV-Bench --repo-type dataset --local-dir downloads/CV-Bench
    python -m data.cvbench.prepare                # -> datasets/cvbench/test

The parquet files hold the pictures themselves. Every question is a choice, and the answer "(A)"
becomes "A". This converter needs pip install -e '.[bench]'.
"""

from pathlib import Path

from data.convert import (
    ParquetRows,
    convert,
    field,
    keep_bytes,
    known,
    lettered,
    need,
    read_settings,
    strings,
)
from nanoladder.benchmarks import CV_SOURCES, CV_TASKS
from nanoladder.process import run_script

PUBLISHED = 1438 + 1200
FETCH = "fetch nyu-visionx/CV-Bench as --help says"


def main(argv):
    s = read_settings(argv, __doc__, "CV-Bench", "cvbench")
    paths = [need(Path(s.source) / name, FETCH) for name in ("test_2d.parquet", "test_3d.parquet")]
    files = {"spatial.jsonl": (ParquetRows(paths), to_row)}
    convert(s, "test", files, PUBLISHED)


def to_row(folder, number, raw):
    task = known(raw, "task", CV_TASKS)
    picture = field(field(raw, "image", dict), "bytes", bytes)
    return {
        "question_id": number,
        "question": field(raw, "question", str),
        "options": lettered(strings(raw, "choices")),
        "answer": field(raw, "answer", str).strip(" ()"),
        "image": [keep_bytes(picture, folder, f"{number:06d}")],
        "data_type": "single_image",
        "question_type": CV_TASKS[task],
        "task": task,
        "source": known(raw, "source", CV_SOURCES),
        "prompt": raw.get("prompt"),  # the question and its choices in the benchmark's own words
    }


if __name__ == "__main__":
    run_script(main)
