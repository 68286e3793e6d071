"""The folder of a run: whether it is free, in use, unfinished or finished, and its logs.

Imports no torch.
"""

import shutil
import time
from contextlib import contextmanager, suppress
from pathlib import Path

from nanoladder.command import UserError, require
from nanoladder.files import is_unused, lock, read_json, read_log, write_jsonl


def run_settings(folder):
    """The settings that run.json in the folder of a run or a scoring tells. UserError without."""
    path = Path(folder) / "run.json"
    settings = read_json(path).get("settings")
    if not isinstance(settings, dict):
        raise UserError(f"{path}: lacks the settings of a run")
    return settings


class RunFolder:
    """A folder such as runs/stage1.

    While a run trains it holds run.json, metrics.jsonl and state.safetensors; at the end also
    checkpoint/ and scores.json. The state is removed last, so a run without one has finished.
    """

    def __init__(self, path):
        self.path = Path(path)
        self.state, self.checkpoint = self.path / "state.safetensors", self.path / "checkpoint"
        self.scores = self.path / "scores.json"

    @property
    def finished(self):
        """Whether a run, or a scoring, came to its end here."""
        return not self.state.exists() and (self.checkpoint.exists() or self.scores.exists())

    def refuse_if_used(self, resume):
        """UserError where starting would overwrite a run, or where there is nothing to resume."""
        ours, begun = is_unused(self.path) or (self.path / "run.json").exists(), self.state.exists()
        rules = [
            (ours, "other files: name another folder with --out"),
            (not self.finished, "a finished run: name another folder with --out, or delete it"),
            (resume or not begun, "an unfinished run: go on with --resume, or name another --out"),
            (begun or not resume, "nothing to resume: start without --resume"),
        ]
        require(rules, f"{self.path} holds ")

    @contextmanager
    def claimed(self, resume, main=True):
        """Inside, the folder exists and no other process can use it. `main`: on the first rank.

        A new folder in which nothing was written is removed again. UserError where the folder is
        in use, cannot be written, or may not be used (refuse_if_used).
        """
        if not main:
            self.refuse_if_used(resume)
            yield self
            return
        made = [path for path in (self.path, *self.path.parents) if not path.exists()]
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            held = lock(self.path)
        except OSError as error:
            raise UserError(f"--out {self.path} cannot be written: {error.strerror}") from None
        try:
            self.refuse_if_used(resume)
            yield self
        finally:
            held.close()
            if made and is_unused(self.path):
                with suppress(OSError):  # another process may use the outer folders by now
                    shutil.rmtree(self.path)
                    for path in made[1:]:
                        path.rmdir()

    def open_log(self, name, step):
        """A JSONL file to append to, cut back to the lines of the steps up to `step`.

        A killed run may have logged steps after its last saved state; a resumed run logs them
        again. Lines that a crash damaged are dropped.
        """
        path = self.path / name
        steps = ((row, row.get("step")) for row in read_log(path, skip=True))
        write_jsonl(path, [row for row, at in steps if isinstance(at, int) and at <= step])
        return open(path, "a", buffering=1, encoding="utf-8")


class Timer:
    """Seconds since it was made, plus those that earlier parts of a resumed run took."""

    def __init__(self, before=0.0):
        self.start = time.monotonic() - before

    def __call__(self):
        return time.monotonic() - self.start
