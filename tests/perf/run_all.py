"""Every benchmark beside a peer, one after another, and one table of their ratios.

    pip install -e '.[test]' trl
    python tests/perf/run_all.py --model RUN --data datasets/rooms-spatial --out FILE.json
    python tests/perf/run_all.py --tiny --data FOLDER --out FILE     # only to see that it works

The checkpoint should be one after the cold start, so that long answers are long. --out gets the
results as JSON, from which the table in docs/performance.md is filled in. A benchmark that fails is
reported, and the others go on. Nothing else should run meanwhile.
"""

import argparse
import platform
import sys
import time
from importlib.metadata import PackageNotFoundError, version

import bench_eval
import bench_grpo
import bench_rollout
import bench_sft
import torch
from check_device import commit
from turns import BASE, COLUMNS, DEVICE, cells

from nanoladder.files import write_json
from nanoladder.process import explain, run_script
from nanoladder.runtime import environment

# Each benchmark, and its flags with --tiny.
BENCHMARKS = {
    bench_sft: ["--sequences", "3", "--questions", "2"],
    bench_rollout: ["--prompts", "2", "--group", "2", "--max-new-tokens", "4"],
    bench_grpo: ["--prompts", "2", "--group", "2", "--micro-prompts", "1", "--max-new-tokens", "4"],
    bench_eval: ["--rows", "2", "--max-new-tokens", "4"],
}


def machine():
    """What the figures depend on."""
    found = environment(DEVICE) | {"system": platform.platform(), "date": time.strftime("%Y-%m-%d")}
    for package in ("transformers", "trl"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found | {"commit": commit()}


def markdown(results):
    lines = [COLUMNS, ["---"] * len(COLUMNS), *map(cells, results)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=BASE, help="run folder or checkpoint folder")
    parser.add_argument("--data", default="datasets/rooms-spatial", help="data folder with test")
    parser.add_argument("--turns", type=int, default=5, help="turns of each contestant")
    parser.add_argument("--out", required=True, help="JSON file to write")
    parser.add_argument("--tiny", action="store_true", help="the least work, for a rehearsal")
    args = parser.parse_args(argv)
    results, failed = [], []
    for bench, tiny in BENCHMARKS.items():
        print(f"\n{bench.__name__}", flush=True)
        flags = ["--model", str(args.model), "--data", args.data, "--turns", str(args.turns)]
        try:
            results += bench.main(flags + (tiny if args.tiny else []))
        except Exception as error:  # the other benchmarks still count
            failed.append(bench.__name__)
            print(explain(error)[0], file=sys.stderr, flush=True)
    about = {"machine": machine(), "command": " ".join(["run_all.py", *argv]), "failed": failed}
    write_json(args.out, about | {"results": results})
    print(f"\n{DEVICE}, {torch.get_num_threads()} thread(s)\n\n{markdown(results)}")
    sys.exit(bool(failed))


if __name__ == "__main__":
    run_script(main)
