"""What the converters of real data share: read a download, keep its pictures, write checked rows.

data/NAME/prepare.py says how one row of its download becomes a row of nanoladder/schema.py, and
convert() does this for all rows. All is written into a hidden folder, which gets its name when it
is whole. A run that is killed leaves that folder, and continues in it when it is started again. The
same download always gives the same bytes.

A row that cannot be used stops the run, and the message names the row. Nothing stays then. With
--skip-damaged such rows are left out. prepare.json and the table at the end then say how many were
left out and why, because scores over different rows cannot be compared.
"""

import os
import re
import shutil
from collections import Counter
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from string import ascii_uppercase

from nanoladder import schema
from nanoladder.benchmarks import VSI_CHOICES, VSI_TASKS
from nanoladder.command import UserError, parse, progress, setting, shown
from nanoladder.files import (
    is_unused,
    json_line,
    lock,
    parse_json,
    read_json,
    write_json,
    write_jsonl,
)
from nanoladder.photos import ImageError, image_size
from nanoladder.schema import PAPER_UNITS, check_row, check_sizes

PACKAGES = "pip install -e '.[bench]'"
REMEDY = "fetch or unpack it again, or leave such rows out with --skip-damaged"


@dataclass
class Settings:
    source: str | None = setting(
        None, "folder that holds the download; by default where the commands above put it"
    )
    out: str | None = setting(
        None, "data folder to write; by default the one named above", writes="folder"
    )
    skip_damaged: bool = setting(
        False, "leave out the rows that cannot be used and count them, instead of stopping"
    )


def read_settings(argv, doc, download, name, cls=Settings):
    """The settings of a converter, an instance of `cls`, read from its command line.

    The default folders are downloads/DOWNLOAD and datasets/NAME. UserError where the download's
    folder does not exist. doc: the text of --help.
    """
    folders = {"source": f"downloads/{download}", "out": f"datasets/{name}"}
    s = parse(cls, argv, lambda given: folders, doc)
    need(Path(s.source), "fetch it as --help says, or name its folder with --source")
    return s


class Damaged(UserError):
    """A row that cannot be used. Such rows are counted by `reason`."""

    def __init__(self, reason, detail):
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


# ---------------------------------------------------------------- the conversion


def convert(s, split, files, published):
    """Write OUT/SPLIT/FILE for each {FILE: (rows, to_row)}, and print how many rows it has.

    rows: the rows of the download, as (where, raw) pairs. `where` names the row in messages.
    to_row(folder, number, raw) keeps a row's pictures in the folder and returns the row in the
    schema of nanoladder/schema.py, or raises Damaged. published: how many rows the whole data set
    has. A line is printed where the download has another number.
    """
    folder = Path(s.out) / split
    settings = {name: value for name, value in asdict(s).items() if name not in ("source", "out")}
    if not (folder / "prepare.json").exists():
        _size.cache_clear()
        with whole_folder(folder, settings) as new:
            found = {
                file: _convert_file(new, file, rows, to_row, s.skip_damaged)
                for file, (rows, to_row) in files.items()
            }
            write_json(new / "prepare.json", {"settings": settings, "found": found})
    done = read_json(folder / "prepare.json")
    if done["settings"] != settings:
        raise UserError(
            f"{folder} was made with other settings, which its prepare.json lists: "
            "name another folder with --out, or delete this one"
        )
    total = 0
    for file, found in done["found"].items():
        print(folder / file)
        for kind, count in found["rows"].items():
            print(f"{count:8}  {kind}")
        for reason, count in found["skipped"].items():
            print(f"{count:8}  SKIPPED: {reason}")
        total += sum(found["rows"].values()) + sum(found["skipped"].values())
    if total != published:
        print(
            f"The download has {total} rows, but the published data set has {published}. "
            "Check that the download is complete."
        )


@contextmanager
def whole_folder(folder, settings):
    """A new folder to write into, which is renamed to `folder` at the end.

    A UserError leaves nothing behind. A run that is killed leaves the new folder, and the next run
    goes on in it, if it has the same settings. UserError where `folder` holds something, or another
    process makes it.
    """
    if not is_unused(folder):
        raise UserError(f"{folder} holds something else: name another folder with --out")
    new = folder.with_name(f".{folder.name}.partial")
    made = [parent for parent in new.parents if not parent.exists()]
    new.mkdir(parents=True, exist_ok=True)
    held = lock(new)
    note = new / "prepare.json"
    if note.exists() and read_json(note) != {"settings": settings}:
        shutil.rmtree(new / "images", ignore_errors=True)
    write_json(note, {"settings": settings})
    try:
        yield new
    except UserError:
        held.close()
        shutil.rmtree(new)
        for parent in made:
            parent.rmdir()
        raise
    finally:
        held.close()
    (new / ".lock").unlink()
    shutil.rmtree(folder, ignore_errors=True)  # an unused one
    new.rename(folder)


def _convert_file(folder, file, rows, to_row, skip_damaged):
    """Write one file. Returns how many rows of each kind it has, and how many were left out."""
    written, skipped = [], Counter()
    for number, (where, raw) in enumerate(progress(rows, desc=file, unit="row")):
        try:
            row = to_row(folder, number, raw)
            _check(row, folder, where, Path(file).stem)
            written.append(row)
        except Damaged as error:
            if not skip_damaged:
                raise UserError(f"{where}: {error}; {REMEDY}") from None
            skipped[error.reason] += 1
    if not written:
        raise UserError(f"{folder / file}: the download has no row for it that can be used")
    write_jsonl(folder / file, written)
    kinds = Counter(_kind(row) for row in written)
    return {"rows": dict(sorted(kinds.items())), "skipped": dict(sorted(skipped.items()))}


def _kind(row):
    """The words under which a row is counted: its data type, its question type and its task."""
    words = [row["data_type"], row.get("question_type", "localization"), row.get("task")]
    return ", ".join(filter(None, words))


def _check(row, folder, where, file):
    """Damaged where the row breaks the schema, or where its answer is a free text.

    No data set here asks for a free text. But the schema reads a broken motion as one.
    """
    try:
        parse_json(json_line(row).encode(), where, strict=True)  # as it will be read
        checked = check_row(row, folder, where, file)
        checked.sizes = tuple(_size(path) for path in checked.images)  # already known
        check_sizes(checked)
    except UserError as error:
        raise Damaged("breaks the schema", str(error).removeprefix(f"{where}: ")) from None
    if checked.form == "text":
        raise Damaged(
            "breaks the schema",
            f"answer {checked.answer!r} of a row without options or unit must be motions "
            "such as 'move_right:0.4'",
        )


_size = cache(image_size)  # so every picture is decoded once


# ---------------------------------------------------------------- reading downloads


def need(path, remedy):
    """The path itself. UserError with the remedy where nothing is there."""
    if not path.exists():
        raise UserError(f"{path} is not there: {remedy}")
    return path


def json_rows(path):
    """(where, value) of each line of a JSONL file. The value of a broken line is None."""
    rows = []
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                rows.append((f"{path}:{number}", parse_json(line, path, strict=True)))
            except UserError:
                rows.append((f"{path}:{number}", None))
    return rows


class ParquetRows:
    """(where, dict) of each row of parquet files. Only a few rows are in memory at a time."""

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
                batches = file.iter_batches(batch_size=16)
                rows = (row for batch in batches for row in batch.to_pylist())
                for number, row in enumerate(rows):
                    yield f"{path}: row {number}", row


@contextmanager
def _reading(path):
    """Turn the errors of reading a parquet file into a UserError that names the file."""
    try:
        yield
    except (ValueError, OSError) as error:  # pyarrow's errors are subclasses of these
        raise UserError(f"{path}: not a readable parquet file ({error}); fetch it again") from None


def field(raw, name, kind):
    """raw[name]. Damaged where it is missing or not of the given type."""
    value = raw.get(name) if isinstance(raw, dict) else None
    if not isinstance(value, kind):
        raise Damaged("a field is missing or of the wrong type", name)
    return value


def strings(raw, name):
    """raw[name]. Damaged where it is not a list of strings."""
    values = field(raw, name, list)
    if not all(isinstance(value, str) for value in values):
        raise Damaged("a field is missing or of the wrong type", name)
    return values


def known(raw, name, names):
    """raw[name]. Damaged where it is not one of `names`."""
    value = field(raw, name, str)
    if value not in names:
        raise Damaged(f"unknown {name}", repr(value))
    return value


def lettered(options):
    """The options, each with its letter, whether or not the download has the letters.

    >>> lettered(["chair", "lamp"]) == lettered(["(A) chair", "(B) lamp"])
    True
    """
    pairs = [(letter, option.strip()) for letter, option in zip(ascii_uppercase, options)]
    marks = [re.match(rf"\(?{letter}[.):] ?(?=\S)", option) for letter, option in pairs]
    starts = [mark.end() for mark in marks] if all(marks) else [0] * len(marks)
    return [f"{letter}. {option[start:]}" for (letter, option), start in zip(pairs, starts)]


def options_or_unit(raw, question_type):
    """The fields that say how a question of VSI-Bench's types is answered, as a dict.

    A choice has "options". A number has a "unit", which the download does not state.
    """
    if question_type in VSI_CHOICES:
        return {"options": lettered(strings(raw, "options"))}
    return {"options": None, "unit": PAPER_UNITS[question_type]}


def vsi_row(raw):
    """A row of VSI-Bench or SPBench in the schema, without the images and the data type."""
    task = known(raw, "question_type", VSI_TASKS)
    return {
        "question_id": field(raw, "id", int),
        "question": field(raw, "question", str),
        **options_or_unit(raw, VSI_TASKS[task]),
        "answer": str(field(raw, "ground_truth", (str, int, float))).strip(),
        "question_type": VSI_TASKS[task],
        "task": task,
        "source": field(raw, "dataset", str),
    }


# ---------------------------------------------------------------- keeping pictures


def inside(root, name):
    """root/name. Damaged where a name from the download, or a link in it, leads out of root."""
    path = schema.inside(root, name)
    if path is None:
        raise Damaged("a path leads out of the folder", shown(name))
    return path


def find_image(source, names):
    """The path of the first of the names under which the download holds a file."""
    paths = [inside(source, name) for name in names]
    for path in paths:
        if path.is_file():
            return path
    raise Damaged("no such image", " or ".join(map(str, paths)))


def keep_file(path, folder, name):
    """Put the picture at `path` into FOLDER/images/NAME, and return what a row calls it.

    Damaged where the picture cannot be decoded. The new file is a hard link where the file system
    allows one, so that the disk does not hold the download twice.
    """

    def write(target):
        try:
            os.link(path.resolve(), target)
        except OSError:
            shutil.copyfile(path, target)

    return keep(folder, name, write, path)


def keep_bytes(data, folder, name):
    """The same for the bytes of a JPEG or PNG file. `name` has no suffix yet."""
    name += ".jpg" if data.startswith(b"\xff\xd8") else ".png"
    return keep(folder, name, lambda target: target.write_bytes(data), name)


def keep(folder, name, write, source):
    """Let write(path) make the picture FOLDER/images/NAME unless it is there -> "images/NAME".

    Damaged, naming its source, where the picture cannot be decoded as a whole.
    """
    target = inside(folder / "images", name)
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        partial = target.with_name(target.name + ".partial")
        partial.unlink(missing_ok=True)
        write(partial)
        partial.replace(target)
    try:
        _size(target)
    except ImageError as error:
        target.unlink()
        reason = str(error).removeprefix(f"{target}: ")
        raise Damaged("an image cannot be read", f"{source}: {reason}") from None
    return f"images/{name}"
