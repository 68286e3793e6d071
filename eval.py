"""Score a checkpoint on held-out rows; or compare two that were scored.

    python eval.py --model runs/stage2 --data datasets/rooms-spatial                 # every benchmark of the rooms
    python eval.py --model PATH --bench rooms-si localization-ood --rows 300         # a run folder or a Qwen2.5-VL's
    python eval.py --model PATH --bench vsibench spbench-si spbench-mv               # real ones, once converted
    python eval.py --model runs/cold --think --out runs/cold/eval-think              # spatial questions, thinking first
    python eval.py --compare runs/stage1/eval runs/stage2/eval                       # paired, with intervals

It prints the tables of SpatialLadder's paper and leaves them in --out (MODEL/eval by default): report.html to read,
scores.json, predictions.jsonl (every prompt, picture, answer, what the scorer read in it, and score), shuffled.jsonl
(the same with other rows' pictures) and, where boxes were asked for, samples.png. NAME-ood is a benchmark's
out-of-domain twin. Killed and started again with the same settings it goes on where it was, and ends with the same
files. --rows takes a fixed subset of each benchmark in which types, forms and levels keep their shares; a smaller one
lies inside a larger one. --rows 300 is the quick run. Ranks share the rows: `OMP_NUM_THREADS=1 torchrun
--nproc_per_node 2 eval.py ...` uses two cores better than one process does.

Also from the paper, one flag each:

    --hints boxes | directions     directions in rooms-si with the asked objects' boxes in the prompt, or boxes and
                                   directions too; compare the folders eval, eval-boxes and eval-directions
    --samples 8                    semantic entropy of 8 answers to each row at temperature 1, their mean score and that
                                   of the one they agree on most (samples.jsonl)
    --attention                    how much of a localization answer's attention on the picture lies inside the asked
                                   objects' boxes (attention.jsonl, attention.png)
"""

import dataclasses
import json
from pathlib import Path

import numpy as np

from data.rooms.hints import with_hints
from nanoladder import checkpoint
from nanoladder.common import (
    RunFolder,
    UserError,
    autocast,
    environment,
    parse,
    read_json,
    read_jsonl,
    run_script,
    setting,
    show,
    start_runtime,
    write_json,
)
from nanoladder.dataset import read_kinds
from nanoladder.evaluate import BENCHMARKS, Summary, score_splits, write_scores
from nanoladder.report import write_report
from nanoladder.tables import PLAIN, interval, overall_interval, resample, type_scores
from nanoladder.tokenizer import Tokenizer

# The real benchmarks: the folder that data/NAME/prepare.py wrote, and the kinds of its rows that belong to it.
REAL = {
    "vsibench": ("vsibench", ["video"]),
    "spbench-si": ("spbench", ["single_image"]),
    "spbench-mv": ("spbench", ["multi_view"]),
    "cvbench": ("cvbench", ["single_image"]),
    "sparbench": ("sparbench", ["single_image", "multi_view"]),
    "viewspatial": ("viewspatial", ["single_image", "multi_view"]),
}
KINDS = {kind: kind for kind in PLAIN} | {name: kind for kind, name in BENCHMARKS.items()}
NAMES = [name + suffix for name in KINDS for suffix in ("", "-ood")]
SCORED = tuple(name for name in NAMES if name.startswith(("localization", "rooms")))  # where nothing is named
SCORE = {"localization": "iou"}  # what is compared; "accuracy" of all else


@dataclasses.dataclass
class Settings:
    model: str | None = setting(None, "run folder or Qwen2.5-VL folder to score")
    bench: tuple = setting(SCORED, "benchmarks", choices=[*NAMES, *REAL])
    data: str = setting("datasets/rooms-spatial", "data folder with train, test and ood")
    real: str = setting("datasets", "folder that holds the converted real benchmarks")
    rows: int | None = setting(None, "rows of each benchmark, a fixed subset; default 1000 of rooms, all of real ones")
    think: bool = setting(False, "ask spatial questions to be thought about first, and score the answer block")
    out: str | None = setting(None, "folder for what is found; default MODEL/eval, with hints MODEL/eval-HINTS")
    batch_size: int = setting(128, "answers decoded together, by all ranks")
    max_new_tokens: int = setting(192, "an answer that has not ended by then is cut; the paper: 1024 when thinking")
    temperature: float = setting(0.0, "of sampling; 0 is greedy decoding")
    hints: str = setting("none", "what the prompt tells of the asked objects", choices=["none", "boxes", "directions"])
    samples: int = setting(0, "answers to each row at temperature 1, for entropy and consensus; 0 is off")
    attention: bool = setting(False, "measure where localization answers look")
    blind: str | None = setting(None, "scored folder of a model trained without pictures, to show beside")
    amp: bool = setting(False, "bf16 automatic mixed precision")
    compare: tuple = setting((), "two folders that were scored: the second minus the first, row by row")


def main(argv):
    s = parse(Settings, argv, doc=__doc__)
    if s.compare:
        return compare(s.compare)
    if s.model is None:
        raise UserError("name a checkpoint with --model, or two scored folders with --compare")
    if s.hints != "none" and not set(s.bench) <= {"rooms-si", "rooms-si-ood"}:
        raise UserError("--hints is about single pictures: add --bench rooms-si, or rooms-si-ood, or both")
    if s.samples == 1 or s.samples < 0:
        raise UserError(f"--samples {s.samples}: entropy needs two answers or more")
    runtime = start_runtime()
    run = RunFolder(s.out or Path(s.model) / ("eval" if s.hints == "none" else f"eval-{s.hints}"))
    run.refuse_if_used(resume=False)
    refuse_other_settings(s, run.path)
    blind = read_json(Path(s.blind) / "scores.json") if s.blind else None
    runtime.say(show(s))
    asked = {
        "test": [KINDS[name] for name in s.bench if name in KINDS],
        "ood": [KINDS[name.removesuffix("-ood")] for name in s.bench if name.endswith("-ood")],
    }
    splits = {split: read_kinds(Path(s.data) / split, kinds, s.rows or 1000, s.think)
              for split, kinds in asked.items() if kinds}  # fmt: skip
    for name in [name for name in s.bench if name in REAL]:
        folder, kinds = REAL[name]
        splits[name] = read_kinds(Path(s.real) / folder / "test", kinds, s.rows, s.think)
    kinds = dict.fromkeys(kind for kinds in asked.values() for kind in kinds)
    folder = checkpoint.find(s.model)
    model, _ = checkpoint.load(folder, device=runtime.device)
    tokenizer, image_config = Tokenizer.load(folder), checkpoint.load_image_config(folder)
    if s.hints != "none":
        splits = {split: with_hints(rows, Path(s.data) / split, image_config, s.hints == "directions")
                  for split, rows in splits.items()}  # fmt: skip
    summarize = Summary(read_kinds(Path(s.data) / "train", kinds), image_config)
    run.path.mkdir(parents=True, exist_ok=True)
    runtime.wait()  # until all have read what a killed scoring left
    if runtime.main:
        about = {"settings": dataclasses.asdict(s), "environment": environment(runtime.device), "ranks": runtime.world}
        write_json(run.path / "run.json", about | {"parameters": model.num_parameters()})
    with autocast(runtime.device, s.amp):
        scores, answers = score_splits(
            model, tokenizer, image_config, splits, summarize, runtime, run.path, s.samples, s.attention, blind,
            batch_size=s.batch_size, max_new_tokens=s.max_new_tokens, temperature=s.temperature,
        )  # fmt: skip
    if runtime.main:
        write_scores(run.path, scores, answers)
        runtime.say(write_report(run.path))


def refuse_other_settings(s, folder):
    """A UserError where a killed scoring in the folder had other settings: its answers are none of this one's."""
    if not (folder / "run.json").exists():
        return
    before, now = read_json(folder / "run.json")["settings"], json.loads(json.dumps(dataclasses.asdict(s)))
    for name in now.keys() - {"out"}:
        if name not in before or before[name] != now[name]:
            raise UserError(f"{folder} holds a run with --{name.replace('_', '-')} {before.get(name)}, not {now[name]}:"
                            " go on with its settings (run.json), or name another folder with --out")  # fmt: skip


def compare(folders):
    """Print what the second folder's scores have more than the first's, of the rows that both answered: of every type,
    each benchmark of the rooms and their mean, with 95 % intervals by a paired bootstrap over rows."""
    if len(folders) != 2:
        raise UserError("--compare takes two folders")
    first, second = ({key(p): p for p in read_jsonl(Path(folder) / "predictions.jsonl")} for folder in folders)
    types, benchmarks, rng = {}, {}, np.random.default_rng(0)

    def show_gain(split, name, before, gain, low_high, n):
        print(f"{split:4} {name:18} {before:.3f} {gain:+.3f} [{low_high[0]:+.3f}, {low_high[1]:+.3f}]  n {n}")

    for k in [k for k in first if k in second]:  # in the file's order, so that the seed means something
        own, measure = first[k], SCORE.get(first[k]["question_type"], "accuracy")
        gain = second[k]["scores"][measure] - own["scores"][measure]
        types.setdefault((own["split"], own["question_type"]), []).append((own["scores"][measure], gain))
        if name := BENCHMARKS.get(own.get("kind")):  # folders scored before answers told it have types alone
            benchmarks.setdefault(own["split"], {}).setdefault(name, []).append(
                (own, own | {"scores": {"accuracy": gain}})
            )
    if not types:
        raise UserError(f"{folders[0]} and {folders[1]} answered no row in common")
    for (split, kind), pairs in sorted(types.items()):
        before, gains = np.array(pairs).T
        show_gain(split, kind, before.mean(), gains.mean(), interval(resample(gains, rng)), len(gains))
    for split, found in benchmarks.items():
        groups = {name: [pairs] for name, pairs in found.items()}
        if len(found) > 1:
            groups["overall"] = list(found.values())
        for name, parts in groups.items():
            before, gains = ([[pair[side] for pair in pairs] for pairs in parts] for side in (0, 1))
            means = (np.mean([np.mean(list(type_scores(p).values())) for p in side]) for side in (before, gains))
            show_gain(split, name, *means, overall_interval(gains), sum(map(len, gains)))


def key(prediction):
    return prediction["split"], prediction["question_id"], prediction["question_type"], tuple(prediction["images"])


if __name__ == "__main__":
    run_script(main)
