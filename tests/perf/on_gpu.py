"""What there is to measure on a GPU, in one command of about ten minutes.

    python tests/perf/on_gpu.py --out docs/results/gpu
    python tests/perf/on_gpu.py --out docs/results/gpu --policy runs/ladder/cold --minutes 20
    python tests/perf/on_gpu.py --out FOLDER --tiny --device cpu     # a rehearsal without a GPU

Each step is a process of its own with its own limit of seconds, and a step that fails does not stop
the others. The script prints what each step found, writes --out/STEP.json as it goes, and
--out/README.md at the end. The runs and their logs stay in runs/gpu-TIME. --policy is what rl.py
starts from. With the base, which was never taught to answer in tags, only its speed means anything.

--data is made where it is missing, which takes about a minute on 16 cores. The last
step trains `small` for the time that is left.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from statistics import median

from flops import flops
from turns import BASE, ROOT

import train
from nanoladder.batches import Dataset, plan_mixture
from nanoladder.checkpoint import Policy
from nanoladder.files import read_json, read_log, write_json
from nanoladder.process import run_script
from nanoladder.splits import parse_mixture, read_kinds

GRACE = 15  # seconds in which a run may save after its time is over
PATIENCE = 20  # by which --tiny multiplies the limits, because its machine may be slow
# cuDNN's attention stays on, although start_runtime turns it off.
CUDNN = """import torch
torch.backends.cuda.enable_cudnn_sdp = lambda on: None
import train
train.run_script(train.main)"""


def steps(a, work):
    """(name, seconds at most, command of python, function of (run folder, output) -> figures)."""
    rooms, several, held_out = (24, 2, 4) if a.tiny else (4000, 500, 100)
    made = f"--pictures {rooms} --view-sets {several} --videos {several} --held-out {held_out}"
    made += " --seeing --index-images --questions 8 --traces 250000"
    check = ["tests/perf/check_device.py", "--data", a.data, "--device", a.device]
    bare = ["--data", a.data, "--device", a.device, "--eval-rows", "0", "--save-every", "0"]
    sft = ["--eval-every", "0", *bare]
    short = "--steps 2 --batch-size 2 --micro-batch-size 1".split() if a.tiny else []
    grpo = [*bare, "--init", a.policy, "--steps", "20"]
    if a.tiny:
        grpo += "--steps 2 --prompts-per-step 2 --group-size 2 --max-new-tokens 8".split()

    def run(name, seconds, *command):
        return name, seconds, [*command, "--out", str(work / name)], read_run

    def stage(number, count):
        return ["--stage", number, "--init", "base", "--steps", str(count), *sft, *short]

    ladder = ["train.py", "--stage", "all", "--data", a.data]
    ladder += "--steps 1 --eval-rows 2".split() if a.tiny else []
    full = ["tests/perf/full_size.py", "--device", a.device, *(["--tiny"] if a.tiny else [])]
    small = ["train.py", "--stage", "0", "--preset", "small", *sft, *short]
    rest = ("--eval-every", "0" if a.tiny else "200")
    return [
        ("data", 150, ["-m", "data.rooms.prepare", "--out", a.data, *made.split()], None),
        ("versions", 45, [*check, "versions"], last_line),
        ("tests", 60, "-m pytest -n0 tests/test_model.py -k cuda".split(), read_tests),
        ("agreement", 60, [*check, "agreement"], last_line),
        run("stage1-eager", 90, "train.py", *stage("1", 150), "--no-compile"),
        run("stage1-compiled", 120, "train.py", *stage("1", 150), "--compile"),
        run("stage2-compiled", 90, "train.py", *stage("2", 60), "--compile"),
        run("stage2-cudnn", 60, "-c", CUDNN, *stage("2", 60), "--no-compile"),
        run("rl-eager", 60, "rl.py", *grpo, "--no-compile"),
        run("rl-compiled", 90, "rl.py", *grpo, "--compile"),
        ("ladder", 240, [*ladder, "--out", str(work / "ladder")], read_ladder),
        ("full-size", 120, full, last_line),
        run("small-short", 60, *small, "--steps", "2" if a.tiny else "40"),
        run("small", 3600, *small, *rest),
    ]


# ---------------------------------------------------------------- what a step found


def last_line(folder, output):
    return json.loads(output.strip().splitlines()[-1])


def read_tests(folder, output):
    return {"tests": output.strip().splitlines()[-1].strip("= ")}


def read_run(folder, output):
    """Figures of a run of train.py or rl.py, from its own files; the median of its second half."""
    records, finite = read_log(folder / "metrics.jsonl"), "not finite" not in output
    if not records:
        return {"steps": 0, "finite": finite}
    run, late = read_json(folder / "run.json"), records[len(records) // 2 :]
    found = {"steps": records[-1]["step"], "finite": finite}
    if "rollout_seconds" in late[0]:
        for name in ("rollout_seconds", "update_seconds", "length"):
            found[name] = round(median(record[name] for record in late), 3)
        found["off_policy"] = max(record["off_policy"] for record in records)
    else:
        ends = [(0, 0.0), *((record["step"], record["seconds"]) for record in records)]
        seconds = [(t2 - t1) / (s2 - s1) for (s1, t1), (s2, t2) in zip(ends, ends[1:])]
        found["step_seconds"] = round(median(seconds[len(seconds) // 2 :]), 4)
        found["last_loss"] = round(records[-1]["loss"], 4)
        found["first_steps_seconds"] = round(ends[1][1], 1)  # compiling is among them
        if run["settings"]["stage"] in ("1", "2"):
            found["flop_rate"] = flops_of_step(run["settings"]) / found["step_seconds"]
            found["amp"] = run["settings"]["amp"]
    found["peak_memory_gib"] = run.get("peak_memory_gib")
    found["recompiles"] = output.count("Recompiling function")
    found["graph_breaks"] = output.count("Graph break in user code")
    validated = [record["val"] for record in records if "val" in record]
    return found | ({"val": validated[-1]} if validated else {})


def flops_of_step(settings):
    """Floating-point operations of a step, from 64 sequences of validation rows in its mixture.

    A frozen vision encoder has no backward pass, which is two thirds of the operations.
    """
    s, policy = train.Settings(**settings), Policy.load(BASE)
    model, shares = policy.model, parse_mixture(s.mix)
    rows = read_kinds(Path(s.data) / "val", [*shares])
    dataset = Dataset(rows, *policy[1:3], model.config)
    plan = plan_mixture(dataset.groups, shares, 64, seed=0)
    examples = [dataset[(*member, s.questions_per_sequence)] for member in plan]
    lengths = [len(example["input_ids"]) for example in examples]
    decoder = flops(model, [], lengths)
    vision = flops(model, [g for e in examples for g in e["grid_thw"]], lengths) - decoder
    whole = decoder + vision / (3 if s.freeze_vision else 1)
    return whole * s.batch_size / len(examples)


def read_ladder(folder, output):
    """Minutes of training and scores of each stage."""
    found = {}
    for stage in ("base", "stage1", "stage2", "cold", "rl"):
        own, scores = folder / stage, {}
        for path in (own / "eval/scores.json", own / "scores.json"):  # the base has the second
            scores = scores or (read_json(path) if path.exists() else {})
        if (own / "run.json").exists() and "minutes" in (run := read_json(own / "run.json")):
            found[f"{stage} minutes"] = run["minutes"]
        if "overall" in scores:
            found[f"{stage} overall"] = round(scores["overall"], 4)
    return found


# ---------------------------------------------------------------- the script


def run_step(name, limit, command, read, work):
    """Run a step -> {"name", "rc", "seconds", "figures" or "error", ...}."""
    log, start = work / f"{name}.log", time.time()
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    if "--compile" in command:
        environment["TORCH_LOGS"] = "recompiles,graph_breaks"
    options = {"cwd": ROOT, "env": environment, "stderr": subprocess.STDOUT}
    options["start_new_session"] = True
    with open(log, "wb") as out:
        child = subprocess.Popen([sys.executable, *command], stdout=out, **options)
        try:
            with suppress(subprocess.TimeoutExpired):
                child.wait(limit)
            child.send_signal(signal.SIGTERM)  # a run that is not done saves after its current step
            with suppress(subprocess.TimeoutExpired):
                child.wait(GRACE)
        finally:
            with suppress(ProcessLookupError):  # what it started ends too
                os.killpg(child.pid, signal.SIGKILL)
    status = child.wait()
    output = log.read_text(encoding="utf-8", errors="replace")
    shown = ["python", *(part.replace(f"{ROOT}/", "") for part in command)]
    found = {"name": name, "command": " ".join(shown), "rc": status, "limit": round(limit)}
    found["seconds"] = round(time.time() - start, 1)
    try:
        found["figures"] = read(work / name, output) if read else {}
    except Exception as error:  # a step may have left nothing to read
        found["error"] = f"{type(error).__name__}: {error}"
    if status or "error" in found:
        found["tail"] = output.splitlines()[-12:]
    return found


def in_words(figures):
    """A dict as "name value, name value"; a dict in it stands in brackets."""
    words = []
    for name, value in figures.items():
        if isinstance(value, dict):
            words.append(f"{name} ({in_words(value)})")
        else:
            words.append(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}")
    return ", ".join(words)


HEAD = "| step | seconds | exit status | figures |\n| --- | --- | --- | --- |"


def markdown(results):
    lines = [HEAD]
    for result in results:
        figures = result.get("figures", {"error": result.get("error")})
        cells = result["name"], result["seconds"], result["rc"], in_words(figures)
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def main(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("docs/results/gpu"), help="folder")
    parser.add_argument("--minutes", type=float, default=10, help="of the whole script")
    parser.add_argument("--policy", default=str(BASE), help="checkpoint that rl.py starts from")
    parser.add_argument("--data", help="data folder; default datasets/gpu, with --tiny gpu-tiny")
    parser.add_argument("--device", default="cuda", choices=["cpu", "cuda"], help="default cuda")
    parser.add_argument("--tiny", action="store_true", help="the least work, for a rehearsal")
    parser.add_argument("--only", nargs="+", help="names of the steps to run")
    a = parser.parse_args(argv)
    a.data = a.data or ("datasets/gpu-tiny" if a.tiny else "datasets/gpu")
    end, results, products = time.time() + 60 * a.minutes, [], {}
    work = ROOT / "runs" / time.strftime("gpu-%Y%m%d-%H%M%S")
    for folder in (work, a.out):
        folder.mkdir(parents=True, exist_ok=True)
    print(f"{work}\n\n{HEAD}", flush=True)
    for name, limit, command, read in steps(a, work):
        left = end - time.time()
        if a.only and name not in a.only:
            continue
        if left < 2 * GRACE:
            results.append({"name": name, "seconds": 0, "rc": "", "error": "no time was left"})
            continue
        limit = min(limit * (PATIENCE if a.tiny else 1), left - GRACE)
        result = run_step(name, limit, command, read, work)
        figures = result.get("figures", {})
        products = figures if "product_bfloat16" in figures else products
        if products and "flop_rate" in figures:
            product = "product_bfloat16" if figures.pop("amp") else "product_float32"
            figures[f"share of {product}"] = figures["flop_rate"] / products[product]
        results.append(result)
        write_json(a.out / f"{name}.json", result)
        print(
            markdown([result]).removeprefix(HEAD).strip(),
            *result.get("tail", []),
            sep="\n",
            flush=True,
        )
    command = " ".join(["python tests/perf/on_gpu.py", *argv])
    page = f"# What a GPU does\n\n    {command}\n\n{markdown(results)}\n"
    (a.out / "README.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    run_script(main)
