"""The folder of a run: whether it is free, in use, unfinished or finished, and its logs.

Imports no torch.
"""

import shutil
import time
from contextlib import contextmanager, suppress
from pathlib import Path

from nanoladder.command import UserError
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

    # What a run may have written before its run.json.
    written = {".lock", "checkpoint", "eval", "predictions.jsonl", "scores.json", "metrics.jsonl"}
    written |= {"state.safetensors", "samples.jsonl", "shuffled.jsonl", "attention.jsonl"}

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
        names = [path.name for path in self.path.iterdir()] if self.path.is_dir() else []
        others = [name for name in {*names} - self.written if not name.endswith(".partial")]
        if others and "run.json" not in names:
            raise UserError(f"{self.path} holds other files: name another folder with --out")
        if self.finished:
            raise UserError(
                f"{self.path} holds a finished run: name another folder with --out, or delete it"
            )
        if self.state.exists() and not resume:
            raise UserError(
                f"{self.path} holds an unfinished run: go on with --resume, or name another --out"
            )
        if resume and not self.state.exists():
            raise UserError(f"{self.path} holds nothing to resume: start without --resume")

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
        self.start = time.time() - before

    def __call__(self):
        return time.time() - self.start
