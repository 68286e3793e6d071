"""Score a checkpoint on held-out rows; or compare two that were scored.

    python eval.py --model runs/stage2                              # every benchmark of its data
    python eval.py --model RUN --data FOLDER --rows 300             # another data folder, quickly
    python eval.py --model RUN --bench localization rooms-si-ood    # some of them
    python eval.py --model PATH --bench vsibench spbench-si         # published ones, once converted
    python eval.py --model runs/cold --think                        # ask to think before answering
    python eval.py --compare runs/stage1/eval runs/stage2/eval      # row by row, with intervals

Where --bench names a published benchmark, a model with patches of 14 pixels, as Qwen2.5-VL, gets
pictures of 16x28x28 to 512x28x28 pixels, as in the paper. Else the checkpoint's limits hold. The
tables of published benchmarks have two scores of the same answers. "score" reads them as our reward
does, and "strict" as SpatialLadder's released evaluation does (nanoladder/strict.py). Compare
"strict" with the paper.

Decoding is greedy, or samples at --temperature; the paper's evaluation does so at 0.01. Both use
the repetition penalty and the end tokens of generation_config.json.

A benchmark is a kind of rows (localization, or the name of another file), or the spatial rows of
one modality: NAME-si, NAME-mv, NAME-video, where NAME is the recipe's or the folder's. NAME-ood is
the same out of domain.

It prints the paper's tables and leaves in --out (MODEL/eval): report.html to read, scores.json,
predictions.jsonl (each prompt, its pictures, the answer as written and as read, and the score),
shuffled.jsonl (the same with other rows' pictures), and samples.png where boxes were asked for. The
same command goes on after a kill. --rows takes a fixed subset (by default 1,000 rows, and all of a
published benchmark) in which types and levels keep their shares. Two ranks use two cores best:
OMP_NUM_THREADS=1 torchrun --nproc_per_node 2 eval.py ...

From the paper, one flag each:

    --samples 8     semantic entropy of 8 answers to each row at temperature 1, their mean score,
                    and the score of the answer that most of them agree on (samples.jsonl)
    --attention     where the model looks while it writes the true boxes: the share of its attention
                    on the picture that lies inside them (attention.jsonl, attention.png)
"""

import dataclasses
from pathlib import Path

from nanoladder.checkpoint import EVAL_PIXELS, PixelLimits, Policy, find, load_image_config
from nanoladder.command import UserError, parse, refuse_changes, setting, show
from nanoladder.compare import compare
from nanoladder.files import read_json, write_json
from nanoladder.image import ImageConfig
from nanoladder.process import run_script
from nanoladder.recipe import find_recipe
from nanoladder.report import try_report
from nanoladder.run_folder import RunFolder, run_settings
from nanoladder.runtime import cuda_presets, environment, start_runtime
from nanoladder.scoring import PUBLISHED, Scorer, Summary, asked_kinds, write_scores
from nanoladder.splits import (
    data_name,
    expect_rationales,
    read_kinds,
    read_split,
    rows_for_constants,
    subset,
)

TOKENS = "192, of a large model 1024; on published benchmarks 128, or 1024 with --think"
ROWS = 1000  # of each benchmark that is not published, if --rows does not say


@dataclasses.dataclass
class Settings(PixelLimits):
    model: str | None = setting(None, "run folder or Qwen2.5-VL folder to score")
    bench: tuple = setting((), "benchmarks; default: localization and spatial questions of --data")
    data: str | None = setting(None, "data folder; default the shipped world's")
    real: str = setting("datasets", "folder that holds the converted published benchmarks")
    rows: int | None = setting(None, "of each benchmark; default 1000, or all", low=1, high=10**7)
    think: bool = setting(False, "ask spatial questions to be thought about first")
    prompts: str | None = setting(None, "prompt set, a JSON file; default the checkpoint's own")
    out: str | None = setting(None, "folder for what is found; default MODEL/eval", writes="folder")
    batch_size: int | None = setting(
        None,
        "answers decoded together, by all ranks; default 128, or 8 a rank of a large model",
        low=1,
        high=10**5,
    )
    max_new_tokens: int | None = setting(
        None, f"tokens of an answer; default {TOKENS}", low=1, high=10**5
    )
    temperature: float = setting(0.0, "of sampling; 0 is greedy decoding", low=0, high=100)
    samples: int = setting(0, "answers to each row of --data; 0 is off", low=0, high=1000)
    attention: bool = setting(False, "measure where the model looks for boxes")
    blank: str | None = setting(None, "scored folder of a model trained on blank pictures, to show")
    device: str | None = setting(None, "default: a GPU if any", choices=["cpu", "cuda", "mps"])
    amp: bool = setting(False, "bf16 automatic mixed precision")
    compare: tuple = setting((), "two scored folders: the second minus the first, row by row")


def main(argv):
    s = parse(Settings, argv, presets, __doc__)
    if s.compare:
        return compare(s.compare)
    if s.model is None:
        raise UserError("name a checkpoint with --model, or two scored folders with --compare")
    if s.samples == 1 or 0 < s.temperature < 0.01:
        raise UserError("--samples must be 0, or at least 2; --temperature 0, or at least 0.01")
    runtime = start_runtime(s.device)
    with RunFolder(s.out or Path(s.model) / "eval").claimed(False, runtime.main) as run:
        refuse_other_settings(s, run.path)
        runtime.say(show(s))
        score_in(run, s, runtime)


def score_in(run, s, runtime):
    """The whole scoring, from the rows to the report."""
    find_recipe(None, s.data)  # refuses data of an older version
    asked = asked_kinds(s.data, s.bench)
    policy = Policy.load(s.model, keep_bf16=s.amp, device=runtime.device).limit_pixels(s)
    policy.tokenizer.use_prompts(s.prompts)
    splits = {
        split: read_split(Path(s.data), split, kinds, s.rows or ROWS, s.think)
        for split, kinds in asked.items()
    }
    kinds = sorted({row.kind for rows in splits.values() for row in rows})
    every = [row for rows in splits.values() for row in rows]
    known = rows_for_constants(s.data or "", kinds, every)
    expect_rationales(every, known)
    summarize = Summary(known, policy.image_config)
    for name in dict.fromkeys(name for name in s.bench if name in PUBLISHED):
        folder, kinds = PUBLISHED[name]
        rows = read_kinds(Path(s.real) / folder / "test", kinds, None, s.think)
        splits[name] = subset(rows, s.rows)
    if empty := [split for split, rows in splits.items() if not rows]:
        raise UserError(f"{s.data}: no rows of {', '.join(s.bench)} in {empty[0]}")
    runtime.wait()  # until all ranks have seen what a killed scoring left
    if runtime.main:
        about = {"settings": dataclasses.asdict(s), "environment": environment(runtime.device)}
        about |= {"ranks": runtime.world, "parameters": policy.model.num_parameters()}
        about["prompts"] = dataclasses.asdict(policy.tokenizer.prompts)
        write_json(run.path / "run.json", about)
    scorer = Scorer(
        policy,
        summarize,
        runtime,
        data_name(s.data) if asked else "",
        folder=run.path,
        samples=s.samples,
        attention=s.attention,
        blank=read_json(Path(s.blank) / "scores.json") if s.blank else None,
        batch_size=s.batch_size,
        max_new_tokens=s.max_new_tokens,
        temperature=s.temperature,
        amp=s.amp,
    )
    scores, answers = scorer.score(splits)
    if runtime.main:
        try_report(run.path, runtime.say, scores)
        write_scores(run.path, scores, answers)


def presets(given):
    """The data of the run in --model, if it is there, else the shipped world's; and the pixels."""
    run = Path(given.get("model", ""), "run.json")
    values = {"amp": cuda_presets(given).get("amp", False)}
    if "model" in given and PUBLISHED.keys() & given.get("bench", ()):
        patch_size = load_image_config(find(given["model"])).patch_size
        values |= EVAL_PIXELS if patch_size == ImageConfig.patch_size else {}
    if "model" in given and run.is_file():
        data = run_settings(run.parent).get("data")
        if isinstance(data, str) and data and Path(data).is_dir():
            return values | {"data": data}
    return values | find_recipe(None, given.get("data")).settings("eval")


def refuse_other_settings(s, folder):
    """UserError where a killed scoring in the folder had other settings than this one."""
    if not (folder / "run.json").exists():
        return
    now = {name: value for name, value in dataclasses.asdict(s).items() if name != "out"}
    remedy = "go on with its settings (run.json), or name another folder with --out"
    before = run_settings(folder)
    refuse_changes(before, now, f"{folder} holds a scoring with", remedy)


if __name__ == "__main__":
    run_script(main)
