"""Collect the scores of whole ladders, one a seed:  python docs/results/make_ladder.py RUN ...

Each RUN is a folder of `train.py --stage all`. Writes docs/results/ladder.json: {stage: {score:
[one for each RUN]}}. `seeds` of make_tables.py makes a table of it.
"""

import sys
from pathlib import Path

from nanoladder.files import read_json, write_json
from nanoladder.tables import plain, spatial

OUT = Path(__file__).parent / "ladder.json"
STAGES = ("base", "stage1", "stage2", "cold", "rl")


def means(scores, names, is_ood):
    """{name: mean over the benchmarks}, in domain or out of domain; {} where none was scored."""
    own = [s for name, s in spatial(scores).items() if name.endswith("-ood") == is_ood]
    return {name: sum(s[name] for s in own) / len(own) for name in names if own}


def scores_of(run, stage):
    """The headline scores of one stage: means over the benchmarks, and the mean IoU of boxes.

    Those out of domain are of the training run's own rows, which are fewer.
    """
    folder = run / stage if stage == "base" else run / stage / "eval"
    scores = read_json(folder / "scores.json")
    found = {"overall": scores["overall"], "iou": plain(scores)["localization"]["test"]["iou"]}
    found |= means(scores, ("nq", "mcq", "constant", "shuffled"), is_ood=False)
    ood = means(
        read_json(run / stage / "scores.json"), ("avg", "constant", "shuffled"), is_ood=True
    )
    return found | {f"ood-{name}".removesuffix("-avg"): score for name, score in ood.items()}


def main(*runs):
    ladder = {}
    for stage in STAGES:
        seeds = [scores_of(Path(run), stage) for run in runs]
        ladder[stage] = {name: [seed[name] for seed in seeds] for name in seeds[0]}
    write_json(OUT, ladder)


if __name__ == "__main__":
    main(*sys.argv[1:])
