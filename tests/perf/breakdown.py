"""Where the time goes in a rollout, in a step of GRPO and in scoring.

    python tests/perf/breakdown.py --model runs/ladder/cold --out FILE.json

The work is that of bench_rollout.py, bench_grpo.py and bench_eval.py. Each kind is done three
times: to warm up, to be timed, and under torch's profiler. The profiler tells how much of its time
lies in matrix products and in all other operations; the rest is Python. It makes small operations
seem slower than they are. Work could be at most 100 / (share of matrix products) times as fast,
unless it did fewer products. Nothing else should run meanwhile.
"""

import time
from pathlib import Path

from bench_eval import SHORT
from bench_grpo import make_step
from run_all import machine
from torch.profiler import ProfilerActivity, profile
from turns import arguments

from nanoladder.batches import encode_prompt
from nanoladder.checkpoint import Policy
from nanoladder.files import write_json
from nanoladder.generate import generate
from nanoladder.predict import predict
from nanoladder.process import run_script
from nanoladder.runtime import start_runtime
from nanoladder.schema import rows_of
from nanoladder.splits import read_kinds

PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "_scaled_dot_product_flash_attention_for_cpu")
PRODUCTS += ("_scaled_dot_product_flash_attention_for_cpu_backward", "convolution")


def break_down(what, work):
    """{"what", "seconds", share of "products" and of "others", number of "operations"}."""
    work()
    start = time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        work()
        slowed = time.perf_counter() - start
    events = [e for e in profiled.key_averages() if e.key.startswith("aten::")]
    spent = {e.key.removeprefix("aten::"): e.self_cpu_time_total / 1e6 for e in events}
    products = sum(spent.get(name, 0.0) for name in PRODUCTS)
    found = {"what": what, "seconds": seconds, "products": products / slowed}
    found["others"] = (sum(spent.values()) - products) / slowed
    found["operations"] = sum(e.count for e in events if e.self_cpu_time_total)
    print(found, flush=True)
    return found


def rollout(args, policy, kind):
    """bench_rollout.py's work on one kind of prompts."""
    model, tokenizer, image_config, _ = policy
    rows = read_kinds(Path(args.data) / "test", [kind], args.prompts, think=True)
    prompts = [encode_prompt(row, tokenizer, image_config, model.config, True) for row in rows]
    sampling = (args.max_new_tokens, tokenizer.eos_ids, 1.0, tokenizer.vision_ids, args.group)
    return lambda: generate(model, prompts, *sampling)


def score(args, policy, runtime):
    """bench_eval.py's work on short answers."""
    rows = read_kinds(Path(args.data) / "test", SHORT, args.rows)
    parts = [rows_of(rows, kind) for kind in SHORT]
    limit = {"max_new_tokens": args.max_new_tokens}
    return lambda: [predict(policy, part, runtime, **limit) for part in parts]


def main(argv):
    args = arguments(
        __doc__,
        argv,
        prompts=(16, "prompts of a rollout"),
        group=(8, "answers to each prompt"),
        rows=(100, "rows of each kind to score"),
        max_new_tokens=(192, "tokens of an answer, at most"),
    )
    runtime, policy = start_runtime("cpu"), Policy.load(args.model)
    work = {
        "rollout about a picture": rollout(args, policy, "single_image"),
        "rollout about eight views": rollout(args, policy, "multi_view"),
        "GRPO step": make_step(args, max_new_tokens=96, micro_prompts=4)[0],
        "scoring, short answers": score(args, policy, runtime),
    }
    results = [break_down(what, do) for what, do in work.items()]
    write_json(args.out, {"machine": machine(), "results": results})


if __name__ == "__main__":
    run_script(main)
