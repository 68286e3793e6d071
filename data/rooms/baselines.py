"""What can be scored without looking: chance, the best constant answer, and the best guess from the asked names.

    python -m data.rooms.baselines --data datasets/rooms

Prints them for every benchmark (rooms-si, rooms-mv, rooms-video: the rows of test by data_type; NAME-ood: those of
ood) and type, and writes baselines.json into the data folder. Guesses are fitted on train and scored on the benchmark:

chance       one over the number of options
constant     the letter, the direction (for each difficulty) or the number that scores best on train; numbers by MRA
by category  a number: the best one for each category, several asked averaged in logarithms; an option: the one whose
             categories, at their places in the question, were most often right on train
"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nanoladder.common import UserError, parse, read_jsonl, run_script, setting, write_json
from nanoladder.rewards import relative_accuracy
from nanoladder.tables import best_number

BENCHMARKS = {"rooms-si": "single_image", "rooms-mv": "multi_view", "rooms-video": "video"}
SEEN_ENOUGH = 5  # a category's rate starts at chance with the weight of so many rows


@dataclass
class Settings:
    data: str = setting("datasets/rooms", "data folder with train, test and ood")


def main(argv):
    root = Path(parse(Settings, argv, doc=__doc__).data)
    rows = {split: read_jsonl(root / split / "spatial.jsonl") for split in ("train", "test", "ood")}
    table = {}
    print(f"{'':34}{'n':>6}{'chance':>9}{'constant':>10}{'by category':>13}")
    for split, suffix in (("test", ""), ("ood", "-ood")):
        for name, data_type in BENCHMARKS.items():
            train, asked = ([r for r in rows[s] if r["data_type"] == data_type] for s in ("train", split))
            if not train or not asked:
                continue
            table[name + suffix] = {kind: baselines(*(of_kind(half, kind) for half in (train, asked)))
                                    for kind in sorted({r["question_type"] for r in asked})}  # fmt: skip
            print(name + suffix)
            for kind, scores in table[name + suffix].items():
                cells = (f"{100 * v:.1f}" if v is not None else "" for v in list(scores.values())[1:])
                print(f"  {kind:32}{scores['n']:6}" + "{:>9}{:>10}{:>13}".format(*cells))
    if not table:
        raise UserError(f"{root}: no spatial rows in both train and test or ood; make them: data.rooms.prepare")
    write_json(root / "baselines.json", table)


def of_kind(rows, kind):
    return [r for r in rows if r["question_type"] == kind]


def baselines(train, test):
    """Scores in 0..1 of guessing at `test` after reading `train`, rows of one type and modality; chance may be None."""
    choices = test[0]["options"] is not None
    return {
        "n": len(test),
        "chance": float(np.mean([1 / len(r["options"]) for r in test])) if choices else None,
        "constant": (_constant_choice if choices else _constant_number)(train, test),
        "by_category": (_choice_by_category if choices else _number_by_category)(train, test),
    }


# ---------------------------------------------------------------- numbers


def _answers(rows):
    return np.array([float(r["answer"]) for r in rows])


def _constant_number(train, test):
    return float(relative_accuracy(best_number(_answers(train))[0], _answers(test)).mean())


def _number_by_category(train, test):
    met = defaultdict(list)
    for row in train:
        for category in row["asked"]:
            met[category].append(float(row["answer"]))
    best = {category: best_number(answers)[0] for category, answers in met.items()}
    anywhere = best_number(_answers(train))[0]
    guesses = [np.exp(np.mean([np.log(best.get(c, anywhere)) for c in r["asked"] or [""]])) for r in test]
    return float(relative_accuracy(np.array(guesses), _answers(test)).mean())


# ---------------------------------------------------------------- choices


def _texts(row):
    return [option.split(". ", 1)[1] for option in row["options"]]


def _right(row):
    return "ABCD".index(row["answer"])


def _constant_choice(train, test):
    """Of always the same letter, and always the same words where the options are words of every row (directions)."""

    def hits(rows, guess):
        return np.mean([guess(row) == _right(row) for row in rows])

    guesses = [lambda row, k=k: k for k in range(4)]
    if train[0]["question_type"] == "relative direction":
        common = {}  # difficulty -> its commonest direction
        for difficulty in sorted({row["difficulty"] for row in train}):
            said = [_texts(row)[_right(row)] for row in train if row["difficulty"] == difficulty]
            common[difficulty] = max(sorted(set(said)), key=said.count)
        guesses.append(lambda row: [*_texts(row), common.get(row["difficulty"])].index(common.get(row["difficulty"])))
    return float(hits(test, max(guesses, key=lambda guess: hits(train, guess))))


def _clues(row, text):
    """What the names in an option, or with it in the question, may give away."""
    if row["question_type"] == "relative direction":
        return [(role, category, text) for role, category in enumerate(row["asked"])]
    return list(enumerate(text.split(", ")))  # a nearest object, or the places in an order


def _choice_by_category(train, test):
    offered, right = defaultdict(float), defaultdict(float)
    for row in train:
        for k, text in enumerate(_texts(row)):
            for clue in _clues(row, text):
                offered[clue] += 1
                right[clue] += (k == _right(row)) - 1 / len(row["options"])  # over chance

    def promise(row, text):
        return sum(right[clue] / (offered[clue] + SEEN_ENOUGH) for clue in _clues(row, text))

    return float(np.mean([np.argmax([promise(row, text) for text in _texts(row)]) == _right(row) for row in test]))


if __name__ == "__main__":
    run_script(main)
