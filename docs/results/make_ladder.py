"""Collect the scores of whole ladders, one a seed:  python docs/results/make_ladder.py FILE RUN ...

Each RUN is a folder of `train.py --stage all`. Each stage in it was scored anew by `eval.py --model
RUN/STAGE --rows 1000`, with --think after the cold start and GRPO. RUN/base holds the scores of
nanoladder/base. Other runs in such a folder are controls. Writes FILE: {stage: {score: [one for
each RUN that has it]}}, in "types" the same for each type of question, and in "gain" what a run
adds to the one in "over", with the paired 95 % interval.
"""

import sys
from pathlib import Path

from nanoladder.compare import average_of_types, read_answers
from nanoladder.files import read_json, write_json
from nanoladder.schema import DATA_TYPES
from nanoladder.summaries import overall_interval
from nanoladder.tables import plain, spatial

STAGES = ("base", "stage1", "stage2", "cold", "rl")
# Over which run a run gains.
GAINS = {"cold": "stage2", "cold-1255": "stage2", "cold-5000": "stage2"}
GAINS |= {"rl": "cold", "rl-longer": "cold", "cold-longer": "cold", "expert2": "cold"}
GAINS |= {"rl-1255": "cold-1255", "rl-5000": "cold-5000", "rl-after-longer": "cold-longer"}


def types_of(scores):
    """{type of question: its rows and mean score over the rows of all benchmarks in domain}."""
    own = [s["types"] for name, s in spatial(scores).items() if not name.endswith("-ood")]
    found = {}
    for kind in sorted({kind for types in own for kind in types}):
        entries = [types[kind] for types in own if kind in types]
        rows = sum(entry["n"] for entry in entries)
        found[kind] = {
            key: sum(entry["n"] * entry[key] for entry in entries) / rows
            for key in ("accuracy", "shuffled")
        } | {"rows": rows}
    return found


def means(scores, names, is_ood):
    """{name: mean over the benchmarks}, in domain or out of domain; {} where none was scored."""
    own = [s for name, s in spatial(scores).items() if name.endswith("-ood") == is_ood]
    return {name: sum(s[name] for s in own) / len(own) for name in names if own}


def scored(run, stage):
    """The folder with the scores of 1,000 rows."""
    return run / stage if stage == "base" else run / stage / "eval"


def scores_of(run, stage):
    """The headline scores of one stage: means over the benchmarks, and the mean IoU of boxes.

    Those out of domain are of the training run's own rows, which are fewer.
    """
    folder = scored(run, stage)
    scores = read_json(folder / "scores.json")
    found = {"overall": scores["overall"], "types": types_of(scores)}
    if "localization" in scores:
        found["iou"] = plain(scores)["localization"]["test"]["iou"]
    found |= {name: s["avg"] for name, s in spatial(scores).items() if not name.endswith("-ood")}
    found |= means(scores, ("nq", "mcq", "constant", "shuffled"), is_ood=False)
    ood = means(
        read_json(run / stage / "scores.json"), ("avg", "constant", "shuffled"), is_ood=True
    )
    if stage in GAINS:
        found["over"] = GAINS[stage]
        found["gain"] = gain(scored(run, GAINS[stage]), folder)
    return found | {f"ood-{name}".removesuffix("-avg"): score for name, score in ood.items()}


def gain(first, second):
    """[mean, low, high]: what the second scored folder adds over the benchmarks, row by row."""
    before, after, parts = read_answers(first), read_answers(second), {}
    for key, own in before.items():
        if own["kind"] in DATA_TYPES and own["split"] == "test":
            more = after[key]["scores"]["accuracy"] - own["scores"]["accuracy"]
            parts.setdefault(own["kind"], []).append(own | {"scores": {"accuracy": more}})
    return [float(average_of_types(parts.values())), *overall_interval([*parts.values()])]


def beside(values):
    """[{name: value}, ...] -> {name: [value, ...]}, for dicts in dicts as well."""
    if not isinstance(values[0], dict):
        return values
    return {name: beside([value[name] for value in values]) for name in values[0]}


def main(out, *runs):
    runs, found = [Path(run) for run in runs], {}
    others = {path.parent.parent.name for run in runs for path in run.glob("*/eval/scores.json")}
    for stage in [*STAGES, *sorted(others - {*STAGES})]:
        if own := [run for run in runs if (scored(run, stage) / "scores.json").exists()]:
            found[stage] = beside([scores_of(run, stage) for run in own])
    write_json(Path(out), found)


if __name__ == "__main__":
    main(*sys.argv[1:])
