"""The tables: macro averages as the benchmarks define them, constants fitted on train alone, honest intervals."""

import numpy as np
import pytest

from nanoladder.dataset import Row
from nanoladder.evaluate import best_number, shuffled, summarize_spatial


def row(number, kind, answer, options=()):
    return Row(number, "?", answer, (f"{number}.png",), kind, "video", 1, "rows:1", options=options)


def options(count):
    return tuple(f"{letter}. {letter * 3}" for letter in "ABCD"[:count])


def random_rows(rng, n):
    rows = []
    for i in range(n):
        kind = str(rng.choice(["object size", "object count", "relative direction", "appearance order"]))
        if kind in ("object size", "object count"):
            rows.append(row(i, kind, str(round(float(rng.lognormal(2, 1)) + 0.1, 1))))
        else:
            count = int(rng.integers(2, 5)) if kind == "relative direction" else 4
            rows.append(row(i, kind, str(rng.choice(list("AAB"))), options(count)))
    return rows


def predictions_of(rows, rng):
    return [
        {"question_type": r.question_type, "options": len(r.options), "truth": r.answer,
         "scores": {"accuracy": float(rng.random() < 0.4) if r.options else float(rng.random())}}
        for r in rows
    ]  # fmt: skip


def mra(predicted, truth):
    return np.mean([abs(predicted - truth) / truth <= 1 - t / 100 for t in range(50, 100, 5)])


def test_a_table_is_what_its_definition_says():
    rng = np.random.default_rng(0)
    train, asked = random_rows(rng, 400), random_rows(rng, 300)
    predictions = predictions_of(asked, rng)
    table = summarize_spatial(predictions, train)

    def score(kind, count):
        return np.mean([p["scores"]["accuracy"] for p in predictions
                        if p["question_type"] == kind and p["options"] == count])  # fmt: skip

    size, count, order = score("object size", 0), score("object count", 0), score("appearance order", 4)
    direction = np.mean([score("relative direction", k) for k in (2, 3, 4)])
    assert table["types"]["relative direction"]["accuracy"] == pytest.approx(direction)
    assert table["nq"] == pytest.approx((size + count) / 2) and table["mcq"] == pytest.approx((direction + order) / 2)
    assert table["avg"] == pytest.approx((size + count + direction + order) / 4)
    assert table["n"] == 300 == sum(t["n"] for t in table["types"].values())

    letters = [r.answer for r in train if r.question_type == "appearance order"]
    letter = max("ABCD", key=letters.count)
    truth = [r.answer for r in asked if r.question_type == "appearance order"]
    constant = np.mean([t == letter for t in truth])
    assert table["types"]["appearance order"]["constant"] == pytest.approx(constant)
    guess = best_number([float(r.answer) for r in train if r.question_type == "object size"])[0]
    sizes = [float(r.answer) for r in asked if r.question_type == "object size"]
    assert table["types"]["object size"]["constant"] == pytest.approx(np.mean([mra(guess, t) for t in sizes]))


def test_an_interval_is_as_wide_as_chance_makes_it():
    rng = np.random.default_rng(1)
    train = [row(0, "appearance order", "A", options(4))]
    asked = [row(i, "appearance order", "A", options(4)) for i in range(400)]
    low, high = summarize_spatial(predictions_of(asked, rng), train)["interval"]
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.4 * 0.6 / 400), rel=0.15)


def test_the_best_number_is_best():
    answers = np.random.default_rng(2).lognormal(1, 0.7, 200)
    guess, score = best_number(answers)
    assert score == pytest.approx(np.mean([mra(guess, a) for a in answers]))
    assert all(np.mean([mra(other, a) for a in answers]) <= score + 0.01 for other in np.linspace(0.2, 12, 200))


def test_shuffled_rows_keep_all_but_their_pictures():
    rows = [row(i, "object size", str(i + 1)) for i in range(5)]
    mixed = shuffled(rows)
    assert sorted(r.images for r in mixed) == [r.images for r in rows]
    assert all(a.images != b.images and a.answer == b.answer for a, b in zip(rows, mixed))
