"""What the converters of real data share: reading downloads, keeping pictures, and writing checked rows.

data/NAME/prepare.py turns one row of its download into one of nanoladder/dataset.py's; convert() does so for all of
them. Pictures are kept before the rows that name them are written, and prepare.json comes last: a run that was stopped
goes on where it was when it is started again. The same download always gives the same bytes.

A row that cannot be read stops the run and is named. --skip-damaged leaves such rows out instead; the table printed at
the end, and prepare.json, then say how many and why, because a score over fewer rows is another score.
"""

import json
import os
import shutil
from collections import Counter
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from string import ascii_uppercase

from PIL import Image

from nanoladder.benchmarks import VSI_TASKS
from nanoladder.common import UserError, parse, progress, read_json, setting, write_json, write_jsonl
from nanoladder.dataset import CHOICES, check_row, check_sizes
from nanoladder.image import ImageError, load_image

PACKAGES = "pip install -e '.[bench]'"
REMEDY = "fetch or unpack it again, or leave such rows out with --skip-damaged"


@dataclass
class Settings:
    source: str | None = setting(None, "folder of the download")
    out: str | None = setting(None, "data folder to write")
    skip_damaged: bool = setting(False, "leave out rows that cannot be read, and count them, instead of stopping")


def read_settings(argv, doc, download, name, cls=Settings):
    """The command line of a converter, whose folders are downloads/DOWNLOAD and datasets/NAME if none are given."""
    s = parse(cls, argv, lambda given: {"source": f"downloads/{download}", "out": f"datasets/{name}"}, doc)
    need(Path(s.source), "fetch it as --help says, or name its folder with --source")
    return s


class Damaged(UserError):
    """A row that cannot be used; `reason` is what it is counted under."""

    def __init__(self, reason, detail):
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


# ---------------------------------------------------------------- the conversion


def convert(s, split, files, published):
    """Write OUT/SPLIT/FILE for each {FILE: (rows, to_row)}, and print what was found.

    rows: the download's, as (where, raw) pairs with a length. to_row(number, raw) gives a row of nanoladder/dataset.py
    and raises Damaged. published: how many rows there are in all, to tell a whole download from half of one.
    """
    folder = Path(s.out) / split
    settings = {name: value for name, value in asdict(s).items() if name not in ("source", "out")}
    if not (folder / "prepare.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        found = {file: _convert_file(folder, file, *work, s.skip_damaged) for file, work in files.items()}
        write_json(folder / "prepare.json", {"settings": settings, "found": found})
    done = read_json(folder / "prepare.json")
    if done["settings"] != settings:
        raise UserError(f"{folder} was made with other settings (its prepare.json): name another --out, or delete it")
    total = 0
    for file, found in done["found"].items():
        print(folder / file)
        for kind, count in found["rows"].items():
            print(f"{count:8}  {kind}")
        for reason, count in found["skipped"].items():
            print(f"{count:8}  SKIPPED: {reason}")
        total += sum(found["rows"].values()) + sum(found["skipped"].values())
    if total != published:
        print(f"The download has {total} rows, the published set {published}: is it whole?")


def _convert_file(folder, file, rows, to_row, skip_damaged):
    written, skipped = [], Counter()
    for number, (where, raw) in enumerate(progress(rows, desc=file, unit="row")):
        try:
            row = to_row(number, raw)
            _check(row, folder, where)
            written.append(row)
        except Damaged as error:
            if not skip_damaged:
                raise UserError(f"{where}: {error}; {REMEDY}") from None
            skipped[error.reason] += 1
    if not written:
        raise UserError(f"{folder / file}: the download has no row for it that can be read")
    write_jsonl(folder / file, written)
    kinds = Counter(_kind(row) for row in written)
    return {"rows": dict(sorted(kinds.items())), "skipped": dict(sorted(skipped.items()))}


def _kind(row):
    words = [row["data_type"], row.get("question_type", "localization"), row.get("task")]
    return ", ".join(filter(None, words))


def _check(row, folder, where):
    """Hold a row against nanoladder/dataset.py, which will read it."""
    try:
        checked = check_row(row, folder, where)
        checked.sizes = tuple(_size(path) for path in checked.images)
        check_sizes(checked)
    except UserError as error:
        raise Damaged("breaks the schema", str(error).removeprefix(f"{where}: ")) from None


@cache
def _size(path):
    with Image.open(path) as image:  # decoded as a whole when it was kept
        return image.size


# ---------------------------------------------------------------- reading downloads


def need(path, remedy):
    """The path itself; a UserError with the remedy where nothing is there."""
    if not path.exists():
        raise UserError(f"{path} is not there: {remedy}")
    return path


def json_rows(path):
    """(where, value) of each line of a JSONL file; of a broken line the value is None."""
    rows = []
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                rows.append((f"{path}:{number}", json.loads(line)))
            except ValueError:
                rows.append((f"{path}:{number}", None))
    return rows


class ParquetRows:
    """(where, dict) of each row of parquet files, a few in memory at a time."""

    def __init__(self, paths):
        try:
            from pyarrow.parquet import ParquetFile
        except ImportError:
            raise UserError(f"reading parquet files needs pyarrow: {PACKAGES}") from None
        self.files = []
        for path in paths:
            with _reading(path):
                self.files.append((path, ParquetFile(path)))

    def __len__(self):
        return sum(file.metadata.num_rows for _, file in self.files)

    def __iter__(self):
        for path, file in self.files:
            with _reading(path):
                rows = (row for batch in file.iter_batches(batch_size=16) for row in batch.to_pylist())
                for number, row in enumerate(rows):
                    yield f"{path}: row {number}", row


@contextmanager
def _reading(path):
    try:
        yield
    except (ValueError, OSError) as error:  # pyarrow's errors are kinds of these
        raise UserError(f"{path}: not a readable parquet file ({error}); fetch it again") from None


def field(raw, name, kind):
    """raw[name], which must be of the given type."""
    value = raw.get(name) if isinstance(raw, dict) else None
    if not isinstance(value, kind):
        raise Damaged("a field is missing or of the wrong type", name)
    return value


def strings(raw, name):
    """raw[name], which must be a list of strings."""
    values = field(raw, name, list)
    if not all(isinstance(value, str) for value in values):
        raise Damaged("a field is missing or of the wrong type", name)
    return values


def known(raw, name, names):
    """raw[name], which must be one of names."""
    value = field(raw, name, str)
    if value not in names:
        raise Damaged(f"unknown {name}", repr(value))
    return value


def lettered(options):
    """Options each with its letter, whether or not the download has them.

    >>> lettered(["chair", "lamp"]) == lettered(["A. chair", "B. lamp"]) == ["A. chair", "B. lamp"]
    True
    """
    pairs = [(f"{letter}. ", option.strip()) for letter, option in zip(ascii_uppercase, options)]
    have_letters = all(option.startswith(letter) for letter, option in pairs)
    return [option if have_letters else letter + option for letter, option in pairs]


def vsi_row(raw):
    """The fields that VSI-Bench's and SPBench's rows share, which are all but the images."""
    task = known(raw, "question_type", VSI_TASKS)
    is_choice = VSI_TASKS[task] in CHOICES
    return {
        "question_id": field(raw, "id", int),
        "question": field(raw, "question", str),
        "options": lettered(strings(raw, "options")) if is_choice else None,
        "answer": str(field(raw, "ground_truth", (str, int, float))).strip(),
        "question_type": VSI_TASKS[task],
        "task": task,
        "source": field(raw, "dataset", str),
    }


# ---------------------------------------------------------------- keeping pictures


def inside(root, name):
    """root/name; Damaged where a name that came with the download leads out of root."""
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise Damaged("a path leads out of the folder", repr(name))
    return root / name


def find_image(roots, name):
    """The picture called `name` in the first of the folders that has it."""
    paths = [inside(root, name) for root in roots]
    for path in paths:
        if path.is_file():
            return path
    raise Damaged("no such image", " or ".join(map(str, paths)))


def keep_file(path, folder, name):
    """Put a picture into folder/images/name, if it is sound; -> its name in a row.

    A hard link where the file system allows it, so that the download is not on the disk twice.
    """
    target = _target(folder, name)
    if not target.exists():
        _decode(path)
        partial = target.with_name(target.name + ".partial")
        partial.unlink(missing_ok=True)
        try:
            os.link(path.resolve(), partial)
        except OSError:
            shutil.copyfile(path, partial)
        partial.replace(target)
    return f"images/{name}"


def keep_bytes(data, folder, name):
    """The same for the bytes of a JPEG or PNG file; `name` has no suffix yet."""
    name += ".jpg" if data.startswith(b"\xff\xd8") else ".png"
    target = _target(folder, name)
    if not target.exists():
        partial = target.with_name(target.name + ".partial")
        partial.write_bytes(data)
        try:
            _decode(partial)
        except Damaged:
            partial.unlink()
            raise
        partial.replace(target)
    return f"images/{name}"


def _target(folder, name):
    path = inside(folder / "images", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _decode(path):
    try:
        load_image(path)
    except ImageError as error:
        raise Damaged("an image cannot be read", error) from None
