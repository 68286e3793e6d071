"""Score a checkpoint on held-out rows; or compare two that were scored.

    python eval.py --model runs/stage2 --data datasets/rooms-spatial                 # every benchmark of the rooms
    python eval.py --model PATH --bench rooms-si localization-ood --rows 300         # a run folder or a Qwen2.5-VL's
    python eval.py --model runs/cold --think --out runs/cold/eval-think              # spatial questions, thinking first
    python eval.py --compare runs/stage1/eval runs/stage2/eval                       # paired, with intervals

--out (MODEL/eval by default) ends up with scores.json, predictions.jsonl (every prompt, picture, answer and score) and,
where boxes were asked for, samples.png. NAME-ood is a benchmark's out-of-domain twin.
"""

import dataclasses
from pathlib import Path

import numpy as np

from nanoladder import checkpoint
from nanoladder.common import RunFolder, UserError, autocast, parse, read_jsonl, run_script, setting, start_runtime
from nanoladder.dataset import read_kinds
from nanoladder.evaluate import BENCHMARKS, Summary, score_splits, write_scores
from nanoladder.tokenizer import Tokenizer

KINDS = {"localization": "localization", "seeing": "seeing"} | {name: kind for kind, name in BENCHMARKS.items()}
NAMES = [name + suffix for name in KINDS for suffix in ("", "-ood")]
SCORE = {"localization": "iou"}  # what is compared; "accuracy" of all else


@dataclasses.dataclass
class Settings:
    model: str | None = setting(None, "run folder or Qwen2.5-VL folder to score")
    bench: tuple = setting(tuple(n for n in NAMES if "seeing" not in n), "benchmarks", choices=NAMES)
    data: str = setting("datasets/rooms-spatial", "data folder with train, test and ood")
    rows: int = setting(1000, "rows of each benchmark, the first ones")
    think: bool = setting(False, "ask spatial questions to be thought about first, and score the answer block")
    max_new_tokens: int = setting(128, "an answer that has not ended by then is cut; the paper: 1024 when thinking")
    temperature: float = setting(0.0, "of sampling; 0 is greedy decoding")
    out: str | None = setting(None, "folder for scores.json and predictions.jsonl; default MODEL/eval")
    amp: bool = setting(False, "bf16 automatic mixed precision")
    compare: tuple = setting((), "two folders that were scored: the second minus the first, row by row")


def main(argv):
    s = parse(Settings, argv, doc=__doc__)
    if s.compare:
        return compare(s.compare)
    if s.model is None:
        raise UserError("name a checkpoint with --model, or two scored folders with --compare")
    runtime = start_runtime()
    run = RunFolder(s.out or Path(s.model) / "eval")
    run.refuse_if_used(resume=False)
    asked = {
        "test": [KINDS[name] for name in s.bench if not name.endswith("-ood")],
        "ood": [KINDS[name.removesuffix("-ood")] for name in s.bench if name.endswith("-ood")],
    }
    splits = {
        split: read_kinds(Path(s.data) / split, kinds, s.rows, s.think) for split, kinds in asked.items() if kinds
    }
    kinds = dict.fromkeys(kind for kinds in asked.values() for kind in kinds)
    folder = checkpoint.find(s.model)
    model, _ = checkpoint.load(folder, device=runtime.device)
    tokenizer, image_config = Tokenizer.load(folder), checkpoint.load_image_config(folder)
    summarize = Summary(read_kinds(Path(s.data) / "train", kinds), image_config)
    with autocast(runtime.device, s.amp):
        decoding = {"max_new_tokens": s.max_new_tokens, "temperature": s.temperature}
        scores, answers = score_splits(model, tokenizer, image_config, splits, summarize, runtime.say, **decoding)
    run.path.mkdir(parents=True, exist_ok=True)
    write_scores(run.path, scores, answers)
    runtime.say(run.path)


def compare(folders, resamples=2000, seed=0):
    """Print, for each kind and split that both folders answered, the mean difference of the scores of the same rows
    and its 95 % interval by a paired bootstrap over rows."""
    if len(folders) != 2:
        raise UserError("--compare takes two folders")
    first, second = ({key(p): p for p in read_jsonl(Path(folder) / "predictions.jsonl")} for folder in folders)
    groups, rng = {}, np.random.default_rng(seed)
    for k in [k for k in first if k in second]:  # in the file's order, so that the seed means something
        kind = first[k]["question_type"]
        measure = SCORE.get(kind, "accuracy")
        gain = second[k]["scores"][measure] - first[k]["scores"][measure]
        groups.setdefault((first[k]["split"], kind), []).append((first[k]["scores"][measure], gain))
    if not groups:
        raise UserError(f"{folders[0]} and {folders[1]} answered no row in common")
    for (split, kind), pairs in sorted(groups.items()):
        before, gains = np.array(pairs).T
        means = gains[rng.integers(0, len(gains), (resamples, len(gains)))].mean(axis=1)
        low, high = np.quantile(means, (0.025, 0.975))
        print(f"{split:4} {kind:18} {before.mean():.3f} {gains.mean():+.3f} [{low:+.3f}, {high:+.3f}]  n {len(gains)}")


def key(prediction):
    return prediction["split"], prediction["question_id"], prediction["question_type"], tuple(prediction["images"])


if __name__ == "__main__":
    run_script(main)
