"""JSON files that a kill never leaves half written, and the folder of a run. Imports no torch."""

import json
import time
from pathlib import Path

from nanoladder.command import UserError


def write_json(path, value):
    """Write JSON beside `path` and rename it into place: a reader never sees half of it."""
    _replace(path, [json.dumps(value, indent=2, ensure_ascii=False)])


def write_jsonl(path, rows):
    """The same with one JSON value a line."""
    _replace(path, (json.dumps(row, ensure_ascii=False) for row in rows))


def _replace(path, lines):
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    with open(partial, "w", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in lines)
    partial.replace(path)


def read_json(path):
    """The value of a JSON file. UserError, naming the file, where it is missing or broken."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error})") from None


def read_jsonl(path):
    """The values of a JSONL file. UserError, naming file and line, if it is missing or broken."""
    try:
        lines = Path(path).read_bytes().split(b"\n")  # splitlines would also cut inside a string
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    values = []
    for number, line in enumerate(lines[:-1] if lines[-1] == b"" else lines, 1):
        try:
            values.append(json.loads(line))
        except ValueError as error:
            raise UserError(f"{path}:{number}: not valid JSON ({error})") from None
    return values


class RunFolder:
    """A folder such as runs/stage1.

    While a run trains it holds run.json, metrics.jsonl and state.safetensors; at the end also
    checkpoint/ and scores.json, which marks the run as finished.
    """

    def __init__(self, path):
        self.path = Path(path)
        self.state, self.checkpoint = self.path / "state.safetensors", self.path / "checkpoint"

    def refuse_if_used(self, resume):
        """UserError where starting would overwrite a run, or where there is nothing to resume."""
        if (self.path / "scores.json").exists():
            raise UserError(
                f"{self.path} holds a finished run: name another folder with --out, or delete it"
            )
        if self.state.exists() and not resume:
            raise UserError(
                f"{self.path} holds an unfinished run: go on with --resume, or name another --out"
            )
        if resume and not self.state.exists():
            raise UserError(f"{self.path} holds nothing to resume: start without --resume")

    def open_log(self, name, step):
        """A JSONL file to append to, cut back to the lines of the steps up to `step`.

        A killed run may have logged steps after its last saved state; a resumed run logs them
        again.
        """
        path = self.path / name
        kept = []
        if path.exists():
            lines = path.read_text(encoding="utf-8").split("\n")[:-1]  # a torn one has no end
            kept = [row for row in map(json.loads, lines) if row["step"] <= step]
        write_jsonl(path, kept)
        return open(path, "a", buffering=1, encoding="utf-8")


class Timer:
    """Seconds since it was made, plus those that earlier parts of a resumed run took."""

    def __init__(self, before=0.0):
        self.start = time.time() - before

    def __call__(self):
        return time.time() - self.start
