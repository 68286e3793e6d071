"""The whole ladder in one command: every stage is a run, scored on every benchmark, then one table.

    python train.py --stage all                      # base, stages 1 and 2, cold start, GRPO
    python train.py --stage all --init runs/stage0   # the same from a base of your own
    python train.py --stage 2,cold,3                 # without perception, an ablation of the paper
    python train.py --stage all --data-types video   # without single images and views, another one

The runs are folders of --out (runs/ladder): base, stage1, stage2, cold, rl. A finished one is kept
and a killed one goes on from its last saved state, so after any interruption the same command goes
on. ladder.json keeps the scores of all of them.
"""

import os
import sys
from pathlib import Path

import torch

from nanoladder.checkpoint import BASE
from nanoladder.command import UserError, flag, refuse_changes
from nanoladder.files import lock, read_json, write_json
from nanoladder.process import cpu_cores, run_child
from nanoladder.recipe import find_recipe
from nanoladder.run_folder import RunFolder
from nanoladder.tables import Table, as_text, percent, percents, plain, spatial

ROOT = Path(__file__).parent.parent
# Each stage's folder, its command, and the flags with which it is scored.
STAGES = {
    "1": ("stage1", ["train.py", "--stage", "1"], []),
    "2": ("stage2", ["train.py", "--stage", "2"], []),
    "cold": ("cold", ["train.py", "--stage", "cold"], ["--think"]),
    "3": ("rl", ["rl.py"], ["--think"]),
}
FORWARDED = ("data", "data_types", "steps", "eval_rows", "seed")  # settings that every stage gets
KEPT = ("init", *FORWARDED)
EVAL_ROWS = 300  # of each benchmark, always the same subset


def ladder_settings(given):
    """The values between train.py's defaults and the given flags, for several stages."""
    stages_of(given["stage"])
    if given.get("resume"):
        raise UserError("a ladder goes on by itself: give the same command without --resume")
    if given.get("init") == "scratch":
        raise UserError("--init scratch: make a base with --stage 0, and name its folder instead")
    if own := given.keys() - {"stage", "out", "device", *KEPT}:
        known = ", ".join(map(flag, (*KEPT, "device")))
        raise UserError(f"{flag(min(own))} is of one stage alone: a ladder takes {known}")
    return {"out": "runs/ladder", "steps": None, "eval_rows": 100}


def stages_of(text):
    """The stages in --stage: "all", or a list such as "1,cold,3". UserError for any other text."""
    names = [*STAGES] if text == "all" else text.split(",")
    if text == "3":
        raise UserError("--stage 3: the script of stage 3 is rl.py")
    if names != [name for name in STAGES if name in names]:
        raise UserError(
            f"--stage {text}: name one of 0, 1, 2 and cold; or several of 1, 2, cold and 3 in this "
            "order, with commas between; or all"
        )
    return names


def climb_ladder(s):
    """Train and score what is missing, and print the table. s: train.py's settings."""
    out, stages, forwarded = Path(s.out), stages_of(s.stage), []
    out.mkdir(parents=True, exist_ok=True)
    held = lock(out)  # a second ladder in this folder is refused
    keep_settings(out, {"stage": ",".join(stages)} | {name: getattr(s, name) for name in KEPT})
    for name in FORWARDED:
        if (value := getattr(s, name)) is not None:
            values = value if isinstance(value, tuple) else [value]
            forwarded += [flag(name), *map(str, values)]
    # A policy that never learned to think in tags answers directly.
    direct = "cold" not in stages
    before = BASE if s.init == "base" else s.init
    runs = [("base", before, out / "base", [])]  # name, checkpoint, scores, how asked
    for stage in stages:
        name, command, asked = STAGES[stage]
        run = RunFolder(out / name)
        if not run.finished:
            start = ["--resume"] if run.state.exists() else ["--init", str(before), *forwarded]
            think = ["--no-think"] if direct and stage == "3" else []
            call([*command, "--out", str(run.path), *start, *think], s.device)
        runs.append((name, run.path, run.path / "eval", [] if direct else asked))
        before = run.path
    rows = {name: score(s, *run) for name, *run in runs}  # only now is all data made
    write_json(out / "ladder.json", rows)
    print(as_text([ladder_table(rows)]))
    held.close()


def keep_settings(out, settings):
    """Write settings.json. UserError where the folder holds a ladder with other settings."""
    path = out / "settings.json"
    if path.exists():
        what = f"{out} holds a ladder with other settings:"
        refuse_changes(read_json(path), settings, what, "name another folder with --out")
    write_json(path, settings)


def score(s, model, folder, asked):
    """The content of scores.json in the folder; the model is scored now if it was not."""
    if not (folder / "scores.json").exists():
        data = s.data or find_recipe().settings("eval").get("data")
        flags = ["--model", str(model), "--out", str(folder), "--rows", str(EVAL_ROWS)]
        call(["eval.py", *flags, *(["--data", data] if data else []), *asked], s.device)
    return read_json(folder / "scores.json")


def ladder_table(rows):
    """A row for each stage of {name: scores.json}.

    Every benchmark, their mean with its interval, and the mean of their out-of-domain twins in
    percent; and the mean IoU of boxes in and out of domain.
    """
    first = next(iter(rows.values()))
    benchmarks = [name for name in spatial(first) if not name.endswith("-ood")]
    lines = []
    for name, scores in rows.items():
        averages = [*(scores[benchmark]["avg"] for benchmark in benchmarks), scores.get("overall")]
        low_high = percents(scores.get("intervals", {}).get("overall", ()))
        boxes = plain(scores).get("localization", {})
        ious = [f"{boxes[split]['iou']:.3f}" if split in boxes else "" for split in ("test", "ood")]
        ood = percent(scores.get("overall-ood"))
        lines.append((name, *map(percent, averages), low_high, ood, *ious))
    columns = ("%", *benchmarks, "overall", "95 %", "overall-ood", "IoU", "IoU-ood")
    return Table("the ladder", columns, lines)


def call(command, device=None):
    """Run a script on every GPU, or on a CPU in two processes. device: of the flag --device.

    A small model's steps are too short for one process to use two cores well.
    """
    cores, command = cpu_cores(), [*command, *(["--device", device] if device else [])]
    few = 1 if os.name == "nt" else 2  # torchrun may lack libuv on Windows
    gpus = torch.cuda.device_count() if device in (None, "cuda") else 0
    found = 1 if device == "mps" else gpus or min(few, cores)
    ranks = max(n for n in (1, 2, 4, 8) if n <= found)  # numbers that divide a batch
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
    start = torchrun if ranks > 1 else []
    print("\n$ python " + " ".join([*start, *command]), flush=True)
    script = [str(ROOT / command[0]), *command[1:]]
    environment = os.environ | {"OMP_NUM_THREADS": str(max(1, cores // ranks))}
    environment["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] = "600"  # seconds to save after Ctrl-C
    if run_child([sys.executable, *start, *script], env=environment):
        raise UserError(f"{command[0]} failed; the reason is above. The same command goes on here.")
