"""Convert SPAR-Bench (arXiv 2503.22976): 20 spatial tasks, each over one to three views.

    hf download jasonzhango/SPAR-Bench --repo-type dataset --local-dir downloads/SPAR-Bench
    python -m data.sparbench.prepare              # -> datasets/sparbench/test

The parquet files hold the pictures themselves. The options of a choice stand inside the question's
text, and the converter moves them out of it. A number is in metres. A view change is answered by
the camera's motions, "move_right:0.4,rotate_up:5". This converter needs pip install -e '.[bench]'.
"""

import re
from pathlib import Path
from string import ascii_uppercase

from data.convert import (
    Damaged,
    ParquetRows,
    convert,
    field,
    keep_bytes,
    known,
    need,
    read_settings,
)
from nanoladder.benchmarks import SPAR_TASKS
from nanoladder.command import UserError
from nanoladder.process import run_script

PUBLISHED = 7211
FETCH = "fetch jasonzhango/SPAR-Bench as --help says"
# SPAR-Bench's own prompts say this for the tasks whose options hold coordinates.
COORDINATES = "Coordinates are on a scale of 0 to 1000, from the top-left corner of an image."
WITH_COORDINATES = ("position_matching", "camera_motion_infer")


def main(argv):
    s = read_settings(argv, __doc__, "SPAR-Bench", "sparbench")
    paths = sorted(need(Path(s.source) / "data", FETCH).glob("test-*.parquet"))
    if not paths:
        raise UserError(f"{s.source}/data has no test-*.parquet: {FETCH}")
    files = {"spatial.jsonl": (ParquetRows(paths), to_row)}
    convert(s, "test", files, PUBLISHED)


def to_row(folder, number, raw):
    task, question, options = known(raw, "task", SPAR_TASKS), field(raw, "question", str), None
    question_type, own_prompt = SPAR_TASKS[task], question
    if question_type == "choice":
        question, options = split_options(question)
    if task in WITH_COORDINATES:
        question, own_prompt = (f"{text}\n{COORDINATES}" for text in (question, own_prompt))
    pictures = [field(picture, "bytes", bytes) for picture in field(raw, "image", list)]
    names = [f"{number:06d}-{k}" for k in range(len(pictures))]
    return {
        "question_id": field(raw, "id", int),
        "question": question,
        "options": options,
        "answer": field(raw, "answer", str).strip(),
        "image": [keep_bytes(data, folder, name) for data, name in zip(pictures, names)],
        "data_type": "single_image" if len(pictures) == 1 else "multi_view",
        "question_type": question_type,
        "task": task,
        **({"prompt": own_prompt} if options else {}),
        **({"unit": "m"} if question_type == "absolute distance" else {}),
    }


def split_options(text):
    """(the question without its options, the options).

    The options are what stands between the last "A. " and the sentence that follows them.

    >>> split_options("Nearer?\\nA. lamp\\nB. bed\\nYour answer can only include one of A or B.")
    ('Nearer?', ['A. lamp', 'B. bed'])
    """
    text = re.sub(r"\s*Your answer can only include[^\n]*$", "", text)
    marks = list(re.finditer(r"(?:^|(?<=\s))([A-Z])\.(?=\s|$)", text))
    first = max((k for k, mark in enumerate(marks) if mark[1] == "A"), default=len(marks))
    marks = marks[first:]
    letters = "".join(mark[1] for mark in marks)
    if len(letters) < 2 or not ascii_uppercase.startswith(letters):
        raise Damaged("a choice without options in its text", repr(text[-80:]))
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    options = [f"{mark[1]}. {text[mark.end() : end].strip()}" for mark, end in zip(marks, ends)]
    return text[: marks[0].start()].strip(), options


if __name__ == "__main__":
    run_script(main)
