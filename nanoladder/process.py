"""How a script ends, its signals and child processes, and the cores it may use. Needs no torch."""

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

from tqdm import tqdm

from nanoladder.command import Stopped, UserError

ROOT = Path(__file__).parent.parent
STOPS = (signal.SIGINT, signal.SIGTERM)  # of Ctrl-C; of kill, of torchrun, of a job's end
CALM = 10  # seconds in which a second signal is ignored, because torchrun repeats those it gets
EXTRAS = {"pyarrow": "bench", "av": "bench", "matplotlib": "plots", "transformers": "test"}
# What a user can do, for numbers of the operating system's errors and names of exceptions.
REMEDIES = {
    "free space on the disk": {errno.ENOSPC},
    "name another path": {errno.ENOENT, errno.ENAMETOOLONG, errno.EEXIST, errno.EROFS}
    | {errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR},
    "allow more open files (ulimit -n), or use fewer processes": {errno.EMFILE, errno.ENFILE},
    "memory is too small: lower --micro-batch-size or --batch-size (rl.py: --micro-prompts), "
    "--max-pixels, or --workers": {"MemoryError", "OutOfMemoryError", "BrokenProcessPool"},
    "an input is nested too deeply: mend it": {"RecursionError"},
    "a file of weights is damaged or incomplete: copy it again": {"SafetensorError"},
    "set PYTHONUTF8=1, because this locale lacks a letter": {"UnicodeEncodeError"},
}


def run_script(main):
    """Call main(argv). Whatever it raises ends in one line on stderr and an exit status.

    The status is 2 where the user can mend it, 130 and 143 after Ctrl-C and SIGTERM, and 1 after a
    fault of our own. With NANOLADDER_DEBUG set in the environment the traceback is shown too.
    Under torchrun the first rank speaks for all, except where another one alone has failed.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # a terminal may know ASCII only
    catch_signals()
    try:
        main(sys.argv[1:])
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:
        line, status = explain(error)
        if os.environ.get("NANOLADDER_DEBUG"):
            traceback.print_exc()
        shared = isinstance(error, (UserError, KeyboardInterrupt))  # by all ranks
        if isinstance(error, BrokenPipeError):  # of `| head`: nobody reads what is still buffered
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        elif not shared or os.environ.get("RANK", "0") == "0":
            tqdm.write(line, file=sys.stderr)
        sys.exit(status)


def catch_signals():
    """Ctrl-C and SIGTERM raise Stopped in this process, so that it can save. Its forks just end.

    A signal that was ignored when the script started stays so, as for a job in the background.
    """
    parent, last = os.getpid(), -CALM

    def stop(number, frame):
        nonlocal last
        if os.getpid() != parent:
            os._exit(128 + number)  # a forked worker has nothing to save
        if time.monotonic() - last > CALM:
            last = time.monotonic()
            raise Stopped(number)

    on_signals(stop)


def on_signals(handler):
    """Let a function handle the signals that are not ignored -> {number: what did so before}."""
    heard = [n for n in STOPS if signal.getsignal(n) is not signal.SIG_IGN]
    return {number: signal.signal(number, handler) for number in heard}


class Deferred:
    """From entering to `release`, Ctrl-C and SIGTERM are noted in `signal`, so a step can end.

    A signal that comes more than CALM seconds after the first acts at once.
    """

    def __enter__(self):
        self.signal = None
        self.before = on_signals(self.note)
        return self

    def note(self, number, frame):
        if self.signal is None:
            self.signal, self.noted = number, time.monotonic()
            if os.environ.get("RANK", "0") == "0":  # print could not interrupt another print
                os.write(2, b"\nstopping after this step; a signal in 10 s stops at once\n")
        elif time.monotonic() - self.noted > CALM:
            raise Stopped(number)

    def release(self):
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}


def leave_process_group(worker):
    """Spare a DataLoader's worker the signals to its whole group: the step still needs it."""
    if hasattr(os, "setpgrp"):  # not on Windows
        os.setpgrp()


def run_child(command, **options):
    """Run a command -> its exit status. A signal that ends this process first ends the child."""
    with subprocess.Popen(command, **options) as child:
        try:
            return child.wait()
        except KeyboardInterrupt as error:
            child.send_signal(getattr(error, "signal", signal.SIGTERM))
            child.wait()  # it may have to save
            raise


def cpu_cores():
    """How many cores this process may use, which can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def loader_processes(world, batch_bytes):
    """How many processes load batches ahead on each of `world` ranks, as torch's DataLoader does.

    Finished batches wait in /dev/shm, two for each process. In a container it may be small.
    """
    cores = min(8, max(1, cpu_cores() // world))
    if not os.path.isdir("/dev/shm"):
        return cores
    free = shutil.disk_usage("/dev/shm").free // world
    return min(cores, free // (3 * max(1, batch_bytes)))  # a third batch is under way


def explain(error):
    """The line that tells a user what ended a script, and the script's exit status."""
    text = " ".join(str(error).splitlines())
    frames = traceback.extract_tb(error.__traceback__)
    inside = (f for f in frames if Path(f.filename).is_relative_to(ROOT))
    ours = [f for f in inside if "site-packages" not in f.filename]
    if isinstance(error, KeyboardInterrupt):
        number = getattr(error, "signal", signal.SIGINT)
        return f"stopped: {text or signal.Signals(number).name}", 128 + number
    if isinstance(error, BrokenPipeError):
        return "error: the program that reads the output has ended", 141
    if isinstance(error, UserError) or type(error) is ValueError and ours[-1:] == frames[-1:]:
        return f"error: {text}", 2
    package = (getattr(error, "name", None) or "").partition(".")[0]
    if isinstance(error, ModuleNotFoundError) and not (ROOT / package).exists():
        extra = f"'.[{EXTRAS[package]}]'" if package in EXTRAS else "."
        return f"error: the package {package} is missing: pip install -e {extra}", 2
    causes = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, OSError):
        causes.add(error.errno)
        names = [str(name) for name in (error.filename, error.filename2) if name]
        text = ": ".join([*names, error.strerror or text])
    elif code := re.search(r"\(os error (\d+)\)", text):  # how libraries in Rust tell of it
        causes.add(int(code[1]))
    elif "can't allocate memory" in text:  # a RuntimeError of torch on a CPU
        causes.add("MemoryError")
    remedies = [remedy for remedy, kinds in REMEDIES.items() if kinds & causes]
    if remedies or isinstance(error, OSError):
        return "error: " + ": ".join([text or type(error).__name__, *remedies[:1]]), 2
    at = (ours or frames)[-1]
    place = f"{type(error).__name__} at {Path(at.filename).name}:{at.lineno}"
    return f"error: {text} ({place}), a fault of ours: NANOLADDER_DEBUG=1 shows the traceback", 1
