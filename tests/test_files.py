"""JSON files: what is read, what is refused and where, what a kill leaves; and the lock."""

import json
import os
import random
import subprocess
import sys

import pytest
from conftest import ROOT

from nanoladder import files
from nanoladder.command import UserError
from nanoladder.files import (
    is_unused,
    json_line,
    lock,
    parse_json,
    read_json,
    read_jsonl,
    read_log,
    write_json,
    write_jsonl,
)
from nanoladder.schema import read_rows

ROW = '{"question": "Wo ist der grüne Stuhl?"}'


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_utf8_is_read_with_and_without_a_mark(tmp_path, encoding):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(f"{ROW}\r\n\n{ROW}".encode(encoding))  # a blank line, and no last newline
    assert read_jsonl(path) == [json.loads(ROW)] * 2
    path.write_bytes(ROW.encode(encoding))
    assert read_json(path) == json.loads(ROW)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "cp1252", "gb18030"])
def test_other_encodings_are_named_with_their_remedy(tmp_path, encoding):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(f"{ROW}\n{ROW}\n".encode(encoding))
    for read in (read_json, read_jsonl, read_rows):
        with pytest.raises(UserError, match="save the file as UTF-8") as error:
            read(path)
        assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


@pytest.mark.parametrize("line, complaint", [
    (b"{", "not valid JSON"),
    (b'{"a": "\0"}', "not valid JSON"),
    (b"[" * 100_000, "nested too deeply"),
    (b'{"a":' * 100_000, "nested too deeply"),
])  # fmt: skip
def test_damage_is_named_with_its_place(tmp_path, line, complaint):
    path = tmp_path / "rows.jsonl"
    for before, read in ((b'{"a": 1}\n', read_jsonl), (b"\n", read_rows)):
        path.write_bytes(before + line + b"\n")
        with pytest.raises(UserError, match=complaint) as error:
            read(path)
        told = str(error.value)
        assert told.startswith(f"{path}:2: ") and "\n" not in told and len(told) < 300


@pytest.mark.parametrize("line, complaint", [
    (b'{"a": NaN}', "NaN is no number"),
    (b'{"a": [-Infinity]}', "-Infinity is no number"),
    (b'{"a": 1, "a": 2}', "the same key twice"),
    (b'{"a": "\\ud800"}', "half of a surrogate pair"),
    (b'{"a": {"\\udc00": 1}}', "half of a surrogate pair"),
])  # fmt: skip
def test_rows_are_read_strictly(line, complaint):
    with pytest.raises(UserError, match=rf"rows.jsonl:7: .*{complaint}"):
        parse_json(line, "rows.jsonl:7", strict=True)
    parse_json(line, "run.json")  # our own files may hold what a model said


def test_whole_pairs_and_escapes_are_read(tmp_path):
    line = rb'{"a": "\ud83d\ude00 \u00fc \\ud800"}'
    assert parse_json(line, "rows.jsonl:1", strict=True) == {"a": "\U0001f600 ü \\ud800"}


def test_lines_end_at_a_newline_only(tmp_path):
    rows = [{"text": f"a{mark}b"} for mark in "\u2028\u2029\x85\x0b\x0c\x1c\r"]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    assert read_jsonl(tmp_path / "rows.jsonl") == rows == read_log(tmp_path / "rows.jsonl")


@pytest.mark.skipif(os.name == "nt", reason="makes a FIFO, and takes a right away")
def test_what_is_no_file_is_refused(tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    write_json(tmp_path / "locked", {})
    for name, complaint in (
        ("gone", "no such file"),
        ("folder", "not a regular file"),
        ("fifo", "not a regular file"),
        ("loop", "not a regular file"),
        ("gone/rows.jsonl", "no such file"),
        ("a\0b", "no such file"),
    ):
        for read in (read_json, read_jsonl):
            with pytest.raises(UserError, match=complaint):
                read(tmp_path / name)

    def refuse(path, mode):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files, "open", refuse, raising=False)  # a superuser may read all files
    with pytest.raises(UserError, match="locked: cannot be read .Permission denied"):
        read_json(tmp_path / "locked")


def test_a_json_file_holds_what_its_reader_needs(tmp_path):
    write_json(tmp_path / "run.json", ["a"])
    with pytest.raises(UserError, match="run.json: must hold JSON of type dict, not list"):
        read_json(tmp_path / "run.json")
    assert read_json(tmp_path / "run.json", of=list) == ["a"]
    (tmp_path / "run.json").touch()
    (tmp_path / "run.json").write_bytes(b"")
    with pytest.raises(UserError, match="run.json: not valid JSON"):
        read_json(tmp_path / "run.json")


# ---------------------------------------------------------------- writing


def test_any_text_is_written_and_read_back(tmp_path):
    rng = random.Random(0)
    marks = ["\ud800", "\udfff", "\ud83d\ude00", "\u2028", "\x85", "\0", "\n", "ü", '"', "\\", "a"]
    texts = ["".join(rng.choices(marks, k=rng.randrange(12))) for _ in range(500)]
    rows = [{text: [text]} for text in texts]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    write_json(tmp_path / "rows.json", rows)
    whole = [json.loads(json.dumps(row)) for row in rows]  # two halves that meet are one character
    assert read_jsonl(tmp_path / "rows.jsonl") == whole == read_json(tmp_path / "rows.json", list)
    assert "\n" not in "".join(map(json_line, rows))
    assert json_line("grün") == '"grün"' and json_line("\ud800") == '"\\ud800"'


def test_half_a_file_is_never_there(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [1])

    def rows():
        yield 2
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_jsonl(path, rows())
    assert path.read_bytes() == b"1\n" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("torn", [
    b'{"step": 3, "val": {"iou": 0.5}',  # behind an inner brace
    b'{"step": 3, "text": "gr\xc3',  # inside a letter
    b"\0" * 4096,
    b"12",
    b"{}{",
    b"[" * 100_000,
    b"",
])  # fmt: skip
def test_a_log_ends_before_its_torn_line(tmp_path, torn):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1, "loss": NaN}\n{"step": 2, "loss": Infinity}\n' + torn)
    assert [row["step"] for row in read_log(path)] == [1, 2]
    assert read_log(tmp_path / "gone.jsonl") == []
    path.write_bytes(b'{"step": 1}\n' + torn + b'\n{"step": 2}\n')  # more was added behind it
    assert [row["step"] for row in read_log(path)] == [1]
    assert [row["step"] for row in read_log(path, skip=True)] == [1, 2]
    path.write_bytes(b'{"step": 1}')  # only its newline is missing
    assert read_log(path) == [{"step": 1}]


# ---------------------------------------------------------------- one process a folder


def test_a_folder_is_locked_until_it_is_left(tmp_path):
    with lock(tmp_path):
        with pytest.raises(UserError, match=f"{tmp_path.name} is in use .*pid {os.getpid()}"):
            lock(tmp_path)
    lock(tmp_path).close()
    assert is_unused(tmp_path) and is_unused(tmp_path / "gone")
    (tmp_path / "notes.txt").touch()
    assert not is_unused(tmp_path)


def test_the_lock_ends_with_its_process(tmp_path):
    code = "import sys, nanoladder.files as f; held = f.lock(sys.argv[1]); print(flush=True); "
    command = [sys.executable, "-c", code + "sys.stdin.read()", str(tmp_path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe) as process:
        process.stdout.readline()
        with pytest.raises(UserError, match=rf"another process \(pid {process.pid}\)"):
            lock(tmp_path)
        process.kill()
        process.wait()
        lock(tmp_path).close()


def test_a_file_system_without_locks_is_no_obstacle(tmp_path, monkeypatch):
    def fail(file):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(files, "_lock_file", fail)
    lock(tmp_path).close()
