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


def scores_of(run, stage):
    """The headline scores of one stage: means over the benchmarks, and the mean IoU of boxes."""
    folder = run / stage if stage == "base" else run / stage / "eval"
    scores = read_json(folder / "scores.json")
    benchmarks = [own for name, own in spatial(scores).items() if not name.endswith("-ood")]
    found = {"overall": scores["overall"], "iou": plain(scores)["localization"]["test"]["iou"]}
    for name in ("nq", "mcq", "constant", "shuffled"):
        found[name] = sum(own[name] for own in benchmarks) / len(benchmarks)
    return found | ({"ood": scores["overall-ood"]} if "overall-ood" in scores else {})


def main(*runs):
    ladder = {}
    for stage in STAGES:
        seeds = [scores_of(Path(run), stage) for run in runs]
        ladder[stage] = {name: [seed[name] for seed in seeds] for name in seeds[0]}
    write_json(OUT, ladder)


if __name__ == "__main__":
    main(*sys.argv[1:])
