"""Measure what can be scored on the spatial questions without looking at a picture.

    python -m data.rooms.baselines --data datasets/rooms

Prints a table and writes it to baselines.json in the data folder. It has a part for every benchmark
(rooms-si, rooms-mv, rooms-video: the rows of test by data_type; NAME-ood: those of ood) and a line
for every question type. Guesses are fitted on train and scored on the benchmark; numbers score MRA.

chance       one over the number of options
constant     always the letter, the direction (one for each difficulty) or the number that scores
             best on train
by category  a number: the number that scores best on train for the asked category; if several are
             asked, the mean of their logarithms. A choice: the option whose categories, at their
             places in the question, were most often right on train
"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.rooms.spatial import option_texts, right_option
from nanoladder.command import UserError, parse, setting
from nanoladder.files import read_jsonl, write_json
from nanoladder.process import run_script
from nanoladder.rewards import relative_accuracy
from nanoladder.summaries import best_number

BENCHMARKS = {"rooms-si": "single_image", "rooms-mv": "multi_view", "rooms-video": "video"}
PRIOR_ROWS = 5  # a category's rate starts at chance, which weighs as much as this many rows


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
            train, asked = (
                [r for r in rows[s] if r["data_type"] == data_type] for s in ("train", split)
            )
            if not train or not asked:
                continue
            table[name + suffix] = {
                kind: baselines(of_kind(train, kind), of_kind(asked, kind))
                for kind in sorted({r["question_type"] for r in asked})
            }
            print(name + suffix)
            for kind, scores in table[name + suffix].items():
                cells = [f"{100 * v:.1f}" if v is not None else "" for v in scores.values()]
                print(f"  {kind:32}{scores['n']:6}" + "{:>9}{:>10}{:>13}".format(*cells[1:]))
    if not table:
        raise UserError(
            f"{root}: no data_type has spatial rows both in train and in test or ood; "
            "make the rooms with data.rooms.prepare"
        )
    write_json(root / "baselines.json", table)


def of_kind(rows, kind):
    return [r for r in rows if r["question_type"] == kind]


def baselines(train, test):
    """{"n", "chance", "constant", "by_category"}: scores in [0, 1] of guesses at the rows of
    `test`.

    train, test: rows of one question type and one data_type. "chance" is None for numbers.
    """
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
    overall = best_number(_answers(train))[0]  # for a category that train does not ask about
    guesses = [
        np.exp(np.mean([np.log(best.get(c, overall)) for c in r["asked"] or [""]])) for r in test
    ]
    return float(relative_accuracy(np.array(guesses), _answers(test)).mean())


# ---------------------------------------------------------------- choices


def _constant_choice(train, test):
    """The best of always the same letter and, for directions, always the same words.

    Only directions have the same words as options in every row.
    """

    def hits(rows, guess):
        return np.mean([guess(row) == right_option(row) for row in rows])

    guesses = [lambda row, k=k: k for k in range(4)]
    if train[0]["question_type"] == "relative direction":
        commonest = {}  # {difficulty: its commonest direction}
        for difficulty in sorted({row["difficulty"] for row in train}):
            said = [
                option_texts(row)[right_option(row)]
                for row in train
                if row["difficulty"] == difficulty
            ]
            commonest[difficulty] = max(sorted(set(said)), key=said.count)

        def same_words(row):
            words = commonest.get(row["difficulty"])
            return [*option_texts(row), words].index(
                words
            )  # no option's index where the words are absent

        guesses.append(same_words)
    return float(hits(test, max(guesses, key=lambda guess: hits(train, guess))))


def _clues(row, text):
    """What may reveal whether an option is right: its names, or the names in the question."""
    if row["question_type"] == "relative direction":
        return [(role, category, text) for role, category in enumerate(row["asked"])]
    return list(enumerate(text.split(", ")))  # a nearest object, or the places in an order


def _choice_by_category(train, test):
    offered, right = defaultdict(float), defaultdict(float)
    for row in train:
        for k, text in enumerate(option_texts(row)):
            for clue in _clues(row, text):
                offered[clue] += 1
                right[clue] += (k == right_option(row)) - 1 / len(row["options"])  # above chance

    def rate(row, text):
        return sum(right[clue] / (offered[clue] + PRIOR_ROWS) for clue in _clues(row, text))

    guesses = [np.argmax([rate(row, text) for text in option_texts(row)]) for row in test]
    return float(np.mean([guess == right_option(row) for guess, row in zip(guesses, test)]))


if __name__ == "__main__":
    run_script(main)
