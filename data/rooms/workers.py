"""Worker processes that end when their parent ends, however it ends: Ctrl-C, SIGTERM or SIGKILL."""

import multiprocessing
import os
import signal
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, as_completed


def run_jobs(function, jobs, workers):
    """Call function(*job) for every job, in `workers` processes; yields None as each one is done.

    Where the caller stops, or a job fails, the jobs that are running are cut short.
    """
    with ProcessPoolExecutor(workers, initializer=_start_worker) as pool:
        try:
            for future in as_completed([pool.submit(function, *job) for job in jobs]):
                yield future.result()
        except BaseException:  # without this the pool would do all jobs before it closes
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in multiprocessing.active_children():
                worker.terminate()
            raise


def _start_worker():
    """Leave Ctrl-C to the parent process, and end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    end_after(multiprocessing.parent_process().join)


def end_with_stdin():
    """End this process when its standard input does.

    A parent that started it with a pipe thereby ends it when it ends itself.
    """
    end_after(lambda: os.read(sys.stdin.fileno(), 1))


def end_after(wait):
    """Call wait() in a thread, and end this process when it returns."""

    def watch():
        wait()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
