"""JSON files and logs that survive a kill, and a lock on a folder. Imports no torch."""

import errno
import json
import os
import re
from pathlib import Path

from nanoladder.command import UserError


def json_line(value, indent=None):
    """JSON, in one line without an indent, that UTF-8 can hold and parse_json reads back.

    Letters of every script stand for themselves. Half of a surrogate pair, which an answer can hold
    and UTF-8 cannot, is written as its escape.
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return re.sub("[\ud800-\udfff]", lambda half: f"\\u{ord(half[0]):04x}", text)


def write_json(path, value):
    """Write JSON beside `path` and rename it into place: a reader never sees half of it."""
    _replace(path, [json_line(value, indent=2)])


def write_jsonl(path, rows):
    """The same with one JSON value a line."""
    _replace(path, map(json_line, rows))


def _replace(path, lines):
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    try:
        with open(partial, "w", encoding="utf-8", newline="\n") as file:
            file.writelines(line + "\n" for line in lines)
        partial.replace(path)
    finally:  # there is nothing left unless the disk is full, or Ctrl-C came
        partial.unlink(missing_ok=True)


def _constant(name):
    raise ValueError(f"{name} is no number")


def _object(pairs):
    if len(value := dict(pairs)) < len(pairs):
        raise ValueError("an object has the same key twice")
    return value


STRICT = json.JSONDecoder(parse_constant=_constant, object_pairs_hook=_object)


def parse_json(data, where, strict=False):
    """The value of JSON in bytes. UserError, which begins with `where`, where it is broken.

    strict: for rows. It also refuses what would fail later: NaN and Infinity, a key that an object
    has twice, and half of a surrogate pair.
    """
    try:
        value = (STRICT.decode if strict else json.loads)(data.decode("utf-8-sig"))
        if strict and b"\\u" in data:
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except UnicodeDecodeError:
        raise UserError(f"{where}: this is not UTF-8 text; save the file as UTF-8") from None
    except UnicodeEncodeError:
        raise UserError(f"{where}: half of a surrogate pair, which is no character") from None
    except RecursionError:
        raise UserError(f"{where}: lists or objects are nested too deeply") from None
    except ValueError as error:
        hint = "; save the file as UTF-8" if b"\0" in data else ""  # as in UTF-16
        raise UserError(f"{where}: not valid JSON ({error}){hint}") from None


def _open(path):
    """A regular file, open for reading bytes. UserError where that is not possible."""
    if not os.path.isfile(path):  # a FIFO would make the reader wait for ever
        there = "not a regular file" if os.path.lexists(path) else "no such file"
        raise UserError(f"{path}: {there}")
    try:
        return open(path, "rb")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def read_json(path, of=dict):
    """The value of a JSON file, of type `of`. UserError, naming the file, where it is not."""
    with _open(path) as file:
        value = parse_json(file.read(), path)
    if not isinstance(value, of):
        found = type(value).__name__
        raise UserError(f"{path}: must hold JSON of type {of.__name__}, not {found}")
    return value


def json_lines(path, strict=False):
    """(line number, value) of a JSONL file's lines that are not blank. UserError names the line.

    Lines end at a newline only: other line breaks of Unicode may stand inside a string.
    """
    with _open(path) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, parse_json(line, f"{path}:{number}", strict)


def read_jsonl(path):
    """The values of a JSONL file, as json_lines."""
    return [value for _, value in json_lines(path)]


def read_log(path, skip=False):
    """The JSON objects of a log that a kill may have torn; [] where there is no such file.

    It ends before the first line that is no whole object, or with `skip` leaves out such lines.
    What is added to the file must not come behind one, so write the objects that were read first.
    """
    found = []
    for line in _open(path) if os.path.lexists(path) else ():
        try:
            value = parse_json(line, path)
        except UserError:
            value = None
        if isinstance(value, dict):
            found.append(value)
        elif not skip:
            break
    return found


def is_unused(folder):
    """Whether there is no such folder, or nothing in it but what a kill can leave."""
    path = Path(folder)
    names = [other.name for other in path.iterdir()] if path.is_dir() else []
    return all(name == ".lock" or name.endswith(".partial") for name in names)


def lock(folder):
    """Keep other processes out of `folder` until the returned file is closed (use `with`).

    The operating system also frees the lock when the process ends, however it ends. The folder
    keeps a small file ".lock" with the process's number. UserError where another process holds the
    lock. On a file system without locks there is no protection, and no error.
    """
    file = open(Path(folder) / ".lock", "a+b", buffering=0)
    try:
        _lock_file(file)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
            file.seek(0)
            holder = file.read().decode("ascii", "replace") or "unknown"
            file.close()
            raise UserError(f"{folder} is in use by another process (pid {holder})") from None
    file.truncate(0)
    file.write(str(os.getpid()).encode())
    return file


def _lock_file(file):
    """OSError where another process has locked the file. Forked children share the lock."""
    if os.name == "nt":
        import msvcrt

        file.seek(1 << 30)  # a locked byte cannot be read, so it lies behind the number
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
