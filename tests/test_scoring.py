"""Summaries and tables against their definitions, also for types of questions that are new."""

import json
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import eval as script
from nanoladder import predict
from nanoladder.batches import Dataset
from nanoladder.benchmarks import SPAR_TASKS
from nanoladder.checkpoint import BASE, Policy
from nanoladder.command import UserError
from nanoladder.compare import read_answers
from nanoladder.files import read_json, read_jsonl, write_jsonl
from nanoladder.image import ImageConfig
from nanoladder.predict import describe, score_one
from nanoladder.prompts import prompt_text, target_text
from nanoladder.report import write_report
from nanoladder.rewards import reward
from nanoladder.runtime import start_runtime
from nanoladder.schema import PAPER_UNITS, check_row
from nanoladder.scoring import Scorer, Summary, shuffled, write_scores
from nanoladder.splits import read_kinds
from nanoladder.summaries import (
    best_number,
    constant_scores,
    overall_interval,
    set_beside,
    summarize_benchmark,
    summarize_spatial,
)
from nanoladder.tables import as_text, overview, tables

TYPES = ("object size", "object count", "relative direction", "appearance order")


def make_row(question_type, answer, options=0, number=0, image=None, **fields):
    """A row of a video question; a number's unit is the paper's."""
    raw = {"question_id": number, "question": "?", "data_type": "video"}
    raw |= {"image": [image or f"{number}.png"], "question_type": question_type, "answer": answer}
    if options:
        raw["options"] = [f"{letter}. {letter * 3}" for letter in "ABCD"[:options]]
    return check_row(raw | fields, Path("data"), "rows.jsonl:1")


def random_rows(rng, n):
    rows = []
    for i in range(n):
        name = str(rng.choice(TYPES))
        if name in PAPER_UNITS:
            size = round(float(rng.lognormal(2, 1)) + 0.1, 1)
            rows.append(make_row(name, str(size), number=i))
        else:
            count = int(rng.integers(2, 5)) if name == "relative direction" else 4
            rows.append(make_row(name, str(rng.choice(list("AAB"))), count, number=i))
    return rows


def predictions_of(rows, rng):
    """Predictions as predict makes them, with accuracies that are drawn at random."""

    def accuracy(row):
        return float(rng.random() < 0.4) if row.options else float(rng.random())

    return [
        {
            **{"question_type": row.question_type, "form": row.form, "options": row.options},
            **{"truth": row.answer, "scores": {"accuracy": accuracy(row)}},
        }
        for row in rows
    ]


def mra(predicted, truth):
    return np.mean([abs(predicted - truth) / truth <= 1 - t / 100 for t in range(50, 100, 5)])


# ---------------------------------------------------------------- summaries


def test_a_table_is_its_definition():
    rng = np.random.default_rng(0)
    train, asked = random_rows(rng, 400), random_rows(rng, 300)
    predictions = predictions_of(asked, rng)
    table = summarize_spatial(predictions, train)

    def score(name, options):
        accuracies = [
            p["scores"]["accuracy"]
            for p in predictions
            if (p["question_type"], len(p["options"])) == (name, options)
        ]
        return np.mean(accuracies)

    size, count = score("object size", 0), score("object count", 0)
    order = score("appearance order", 4)
    direction = np.mean([score("relative direction", k) for k in (2, 3, 4)])
    types = table["types"]
    assert types["relative direction"]["accuracy"] == pytest.approx(direction)
    assert table["nq"] == pytest.approx((size + count) / 2)
    assert table["mcq"] == pytest.approx((direction + order) / 2)
    assert table["avg"] == pytest.approx((size + count + direction + order) / 4)
    assert table["n"] == 300 == sum(t["n"] for t in types.values())
    assert table["micro"] == pytest.approx(np.mean([p["scores"]["accuracy"] for p in predictions]))
    for name, low_high in (("avg", "interval"), ("nq", "nq_interval"), ("mcq", "mcq_interval")):
        assert table[low_high][0] < table[name] < table[low_high][1]

    letters = [row.answer for row in train if row.question_type == "appearance order"]
    letter = max("ABCD", key=letters.count)
    truth = [row.answer for row in asked if row.question_type == "appearance order"]
    constant = np.mean([t == letter for t in truth])
    assert types["appearance order"]["constant"] == pytest.approx(constant)
    train_sizes, sizes = (
        [float(row.answer) for row in rows if row.question_type == "object size"]
        for rows in (train, asked)
    )
    guess, _ = best_number(train_sizes)
    constant = np.mean([mra(guess, t) for t in sizes])
    assert types["object size"]["constant"] == pytest.approx(constant)


def test_the_best_constant_may_be_words_beside_any_letter():
    """Four of five answers are yes, and the letters are shuffled."""
    rng, rows = np.random.default_rng(3), []
    for said in ["yes"] * 80 + ["no"] * 20:
        first = ["yes", "no"][:: rng.choice((1, -1))]
        options = [f"{letter}. {words}" for letter, words in zip("AB", first)]
        answer = "AB"[first.index(said)]
        rows.append(SimpleNamespace(question_type="quiz", options=options, answer=answer))
    predictions = [vars(row) | {"form": "choice", "truth": row.answer} for row in rows]
    assert np.mean(constant_scores(rows, predictions)) == 0.8
    assert np.mean(constant_scores(rows[80:], predictions)) == pytest.approx(0.2)


def test_an_interval_has_the_width_of_the_normal_approximation():
    rng = np.random.default_rng(1)
    train = [make_row("appearance order", "A", 4)]
    asked = [make_row("appearance order", "A", 4, number=i) for i in range(400)]
    low, high = summarize_spatial(predictions_of(asked, rng), train)["interval"]
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.4 * 0.6 / 400), rel=0.15)


def test_the_best_number_is_best():
    answers = np.random.default_rng(2).lognormal(1, 0.7, 200)
    guess, score = best_number(answers)
    assert score == pytest.approx(np.mean([mra(guess, a) for a in answers]))
    for other in np.linspace(0.2, 12, 200):
        assert np.mean([mra(other, a) for a in answers]) <= score + 0.01
    assert best_number([0.003] * 5)[0] == pytest.approx(0.003, rel=0.05)  # kilograms of a spider
    assert best_number([0.0, 0.0]) == (pytest.approx(1, rel=0.6), 0.0)


@pytest.mark.parametrize("about", [(1, 1, 1, 1, 1), (3, 1, 2, 3), (1, 4, 2, 1), (5, 5)])
def test_shuffled_rows_keep_all_but_their_pictures(about):
    """Several rows about the same pictures stand side by side; none may be left with them."""
    pictures = [f"{k}.png" for k, count in enumerate(about) for _ in range(count)]
    rows = [make_row("object size", str(i), image=name) for i, name in enumerate(pictures, 1)]
    for row in rows:  # what belongs to a picture goes with it
        row.sizes, row.frame_seconds = ((int(row.images[0].stem) + 40, 30),), len(str(row.images))
    mixed = shuffled(rows)
    assert sorted(row.images for row in mixed) == [row.images for row in rows]
    sizes = {row.images: (row.sizes, row.frame_seconds) for row in rows}
    for before, after in zip(rows, mixed, strict=True):
        assert before.images != after.images
        assert (after.sizes, after.frame_seconds) == sizes[after.images]
        own = {"images": before.images, "sizes": before.sizes}
        assert replace(after, **own, frame_seconds=before.frame_seconds) == before


# ---------------------------------------------------------------- tables


def test_a_run_and_eval_answer_in_the_same_arithmetic(monkeypatch):
    seen, row = [], SimpleNamespace(think=False)
    answer = lambda *_, **__: seen.append(torch.is_autocast_enabled("cpu"))  # noqa: E731
    monkeypatch.setattr(predict, "predict", answer)
    for amp in (False, True):
        Scorer(None, None, start_runtime("cpu"), "mine", amp=amp).predict([row])
    assert seen == [False, True]


def test_the_printed_numbers_are_the_scores():
    rng = np.random.default_rng(6)
    asked = random_rows(rng, 120)
    predictions = predictions_of(asked, rng)
    summary = summarize_spatial(predictions, asked)
    blank = summarize_spatial(predictions_of(asked, rng), asked)
    set_beside(summary, "blank", blank)
    scores = {"mine-si": summary, "overall": summary["avg"]}
    scores["intervals"] = {"overall": overall_interval([predictions])}
    text = as_text(tables(scores) + overview(scores))
    lines = {
        line.split("  ")[1]: line.split() for line in text.splitlines() if line.startswith("  ")
    }
    assert lines["NQ"][1] == f"{100 * summary['nq']:.1f}"
    assert lines["MCQ"][1] == f"{100 * summary['mcq']:.1f}"
    assert lines["MCQ"][-1] == str(sum(bool(row.options) for row in asked))
    assert lines["object size"][2] == f"{100 * summary['types']['object size']['accuracy']:.1f}"
    assert lines["average"][-2] == f"{100 * blank['avg']:.1f}"
    assert lines["overall"][1] == f"{100 * summary['avg']:.1f}"


def test_a_comparison_is_the_difference_of_the_averages(tmp_path, capsys):
    rng = np.random.default_rng(7)
    asked = {kind: random_rows(rng, 200) for kind in ("single_image", "video")}
    sides, averages = {"a": {}, "b": {}}, []
    for name, side in sides.items():
        side |= {kind: predictions_of(rows, rng) for kind, rows in asked.items()}
        kept = [
            p | {"split": "test", "kind": kind, "question_id": n, "images": [kind]}
            for kind, own in side.items()
            for n, p in enumerate(own)
        ]
        (tmp_path / name).mkdir()
        write_jsonl(tmp_path / name / "predictions.jsonl", kept)
        averages.append([summarize_spatial(own, [])["avg"] for own in side.values()])
    script.main(["--compare", str(tmp_path / "a"), str(tmp_path / "b")])
    printed = {line.split()[1]: line.split() for line in capsys.readouterr().out.splitlines()}
    before, after = ([*side, np.mean(side)] for side in averages)
    for name, first, second in zip(("single_image", "video", "overall"), before, after):
        low, high = (float(printed[name][k].strip("[,]")) for k in (4, 5))
        assert printed[name][2:4] == [f"{first:.3f}", f"{second - first:+.3f}"]
        assert low < second - first < high


def test_rows_of_two_kinds_may_share_an_id_but_rows_of_one_may_not(tmp_path):
    row = {"split": "test", "question_id": 1, "question_type": "quiz", "images": ["1.png"]}
    row |= {"scores": {"accuracy": 1.0}, "options": []}
    write_jsonl(tmp_path / "predictions.jsonl", [row | {"kind": kind} for kind in ("quiz", "sums")])
    assert len(read_answers(tmp_path)) == 2
    write_jsonl(tmp_path / "predictions.jsonl", [row | {"kind": "quiz"}] * 2)
    with pytest.raises(UserError, match="jsonl: two rows have one id, kind and pictures"):
        read_answers(tmp_path)
    write_jsonl(tmp_path / "predictions.jsonl", [row | {"kind": "quiz", "options": 4}])
    with pytest.raises(UserError, match="damaged or old .*score the model anew"):
        read_answers(tmp_path)


def test_a_published_benchmark_is_compared_by_its_own_average(tmp_path, capsys):
    """Not by the mean over its modalities, which no one reports."""
    rng, tasks, sides = np.random.default_rng(9), list(SPAR_TASKS), []
    for name in "ab":
        predictions = []
        for number in range(60):
            score = float(rng.random())
            about = {"split": "sparbench", "question_id": number, "images": ["0.png"], "source": ""}
            about |= {"kind": ["single_image", "multi_view"][number % 3 > 0], "options": []}
            about |= {"question_type": SPAR_TASKS[tasks[number % 20]], "task": tasks[number % 20]}
            predictions.append(about | {"scores": {"accuracy": score, "strict": score / 2}})
        (tmp_path / name).mkdir()
        write_jsonl(tmp_path / name / "predictions.jsonl", predictions)
        sides.append(np.mean([p["scores"]["accuracy"] for p in predictions]))
        summary = summarize_benchmark("sparbench", predictions)
        assert summary["average"] == pytest.approx(sides[-1])
        assert summary["strict"]["average"] == pytest.approx(sides[-1] / 2)
        assert summary["strict"]["low"] == pytest.approx(summary["low"] / 2)
    script.main(["--compare", str(tmp_path / "a"), str(tmp_path / "b")])
    printed = {line.split()[1]: line.split() for line in capsys.readouterr().out.splitlines()}
    assert "overall" not in printed and "multi_view" not in printed
    before, after = sides
    assert printed["average"][2:4] == [f"{before:.3f}", f"{after - before:+.3f}"]


# ---------------------------------------------------------------- eval.py


def test_a_published_benchmark_is_averaged_as_its_authors_do(rooms, tmp_path, monkeypatch, capsys):
    """Rows as data/cvbench/prepare.py writes them, about the rooms' pictures."""
    folder, asked = tmp_path / "cvbench" / "test", read_kinds(rooms / "test", ["localization"])
    (folder / "images").mkdir(parents=True)
    sources, rows = [("ADE20K", "Count"), ("COCO", "Relation"), ("Omni3D", "Depth")], []
    for number in range(6):
        (folder / "images" / f"{number}.png").write_bytes(asked[number].images[0].read_bytes())
        source, task = sources[number % 3]
        about = {"question_id": number, "image": [f"images/{number}.png"], "source": source}
        about |= {"data_type": "single_image", "question_type": "choice", "task": task}
        question = {"question": "Which?", "options": ["A. bed", "B. sofa"], "answer": "A"}
        rows.append(about | question)
    write_jsonl(folder / "spatial.jsonl", rows)
    out = tmp_path / "out"
    texts = cycle(["A", "(A)", "bed", "B"])  # all but the last are right, and two strictly

    def generate(model, prompts, max_new_tokens, group_size, **_):
        assert group_size == 1 and model.config.vocab_size > 100
        limits.add(max_new_tokens)
        said = [next(texts) for _ in prompts]
        return SimpleNamespace(texts=lambda _: said, cut=lambda _: [text == "bed" for text in said])

    monkeypatch.setattr(predict, "generate", generate)
    limits, flags = set(), ["--model", str(BASE), "--real", str(tmp_path), "--data", str(rooms)]
    script.main([*flags, "--bench", "cvbench", "localization", "--rows", "6", "--out", str(out)])
    script.main([*flags, "--bench", "cvbench", "--think", "--out", str(tmp_path / "thought")])
    assert limits == {128, 192, 1024}
    printed = capsys.readouterr().out
    answers = [a for a in read_jsonl(out / "predictions.jsonl") if a["split"] == "cvbench"]
    score = read_json(out / "scores.json")["cvbench"]
    readings = {a["answer"]: a["scores"] for a in answers}
    assert readings["(A)"] == readings["A"] == {"accuracy": 1.0, "strict": 1.0}
    assert readings["bed"] == {"accuracy": 1.0, "strict": 0.0}
    assert score["strict"]["micro"] < score["micro"] and score["strict"].keys() < score.keys()
    cut = sum(a["cut"] for a in answers)
    assert score["cut"] == cut == sum(a["answer"] == "bed" for a in answers) > 0
    assert f"score, cvbench: {cut} answer(s) were cut at 128 tokens" in printed
    table = printed.split("cvbench, %\n")[1].split("\n\n")[0].splitlines()
    assert "strict: as SpatialLadder's released evaluation" in table[0]
    assert table[1].split() == ["score", "strict", "95", "%", "n"]
    named = {line.split()[0]: line.split() for line in table}
    averages = score["average"], score["strict"]["average"]
    assert named["average"][1:3] == [f"{100 * average:.1f}" for average in averages]
    assert named["cut"][-1] == str(cut)
    part = {
        name: np.mean([a["scores"]["accuracy"] for a in answers if a["source"] == name])
        for name, _ in sources
    }
    assert score["n"] == len(answers) == 6
    average = ((part["ADE20K"] + part["COCO"]) / 2 + part["Omni3D"]) / 2
    assert score["average"] == pytest.approx(average)
    assert "cvbench" in (out / "report.html").read_text(encoding="utf-8")


# ---------------------------------------------------------------- a new type of question


@pytest.fixture
def new_types(tmp_path):
    """A folder with rows of types that no code knows, 4 of each form, and pictures of noise."""
    rng, rows = np.random.default_rng(8), []
    for number in range(12):
        noise = rng.integers(0, 255, (96, 96, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{number}.png")
        about = {"question_id": number, "image": [f"{number}.png"], "data_type": "single_image"}
        told = [
            {
                "question_type": "smell",
                "options": ["A. sweet", "B. sour"],
                "answer": "AB"[number % 2],
            },
            {"question_type": "weight", "unit": "kg", "answer": str(4 + number % 2)},
            {"question_type": "owner", "answer": ["Ada", "Bo"][number % 2]},
        ][number // 4]
        rows.append(about | told | {"question": f"What is its {told['question_type']}?"})
    for name in ("spatial", "feelings"):
        write_jsonl(tmp_path / f"{name}.jsonl", rows)
    return tmp_path


def answered(row, right):
    """A completion that answers a row rightly or wrongly, in other words than the truth's."""
    if row.form == "choice":
        return f"({row.answer})" if right else "AB".replace(row.answer, "")
    if row.form == "number":
        return f"about {row.answer}.0 {'kg' if right else 'm'}"
    return row.answer.upper() + "." if right else "nobody"


def test_a_new_type_needs_no_code(new_types):
    model, tokenizer, image_config, _ = Policy.load(BASE)
    for kind in ("single_image", "feelings"):
        rows = read_kinds(new_types, [kind])
        forms = {row.question_type: (row.form, row.unit) for row in rows}
        wanted = {"smell": ("choice", ""), "weight": ("number", "kg"), "owner": ("text", "")}
        assert forms == wanted and {row.kind for row in rows} == {kind}
        ends = {"smell": "Answer with one option.", "weight": "Answer with a number."}
        for row in rows:
            last = ends.get(row.question_type, "What is its owner?")
            assert prompt_text(row).endswith(last)
            target = target_text(row, image_config)
            assert target in ("sweet", "sour", "4", "5", "Ada", "Bo")
            assert reward(target, row) == {"format": 1.0, "accuracy": 1.0}
            assert reward(answered(row, True), row) == {"format": 1.0, "accuracy": 1.0}
            assert reward(answered(row, False), row)["accuracy"] == 0.0
        assert reward("4 m", rows[4])["format"] == 0.0  # no weight is in metres
        example = Dataset(rows, tokenizer, image_config, model.config)[0, 0, 1]
        assert tokenizer.decode(example["input_ids"]).endswith("sweet<|im_end|>")


def test_a_new_type_is_summed_up_and_printed_by_its_form(new_types, tmp_path):
    image_config, scores, every = ImageConfig(patch_size=8), {}, []
    tokenizer = Policy.load(BASE).tokenizer
    for kind in ("single_image", "feelings"):
        rows = read_kinds(new_types, [kind])
        predictions = []
        for number, row in enumerate(rows):  # three of the four rows of a type are right
            text = answered(row, number % 4 > 0)
            about = describe(row, tokenizer, image_config) | {"split": "test", "decoding": {}}
            predictions.append(about | score_one(text, row, image_config))
        summary = Summary(rows, image_config)(kind, predictions)
        types = summary["types"]
        assert {name: t["accuracy"] for name, t in types.items()} == dict.fromkeys(types, 0.75)
        assert types["smell"]["constant"] == types["owner"]["constant"] == 0.5
        assert types["weight"]["constant"] > 0.5  # 4.5 kg is near to both
        assert summary["n"] == 12 and set(types) == {"smell", "weight", "owner"}
        if kind == "single_image":
            assert summary["nq"] == summary["mcq"] == summary["avg"] == 0.75
            scores["mine-si"] = summary
        else:
            assert summary["accuracy"] == 0.75
            scores[kind] = {"test": summary}
        every += predictions
    text = as_text(tables(scores) + overview(scores))
    for title in ("mine-si, %", "feelings, test"):
        table = text.split(title)[1].split("\n\n")[0].splitlines()
        named = {line.split()[0]: line for line in table[1:] if line.strip()}
        for name in ("smell", "weight", "owner"):
            assert "75.0" in named[name] or "0.750" in named[name]
    (tmp_path / "run").mkdir()
    write_scores(tmp_path / "run", scores, every)
    (tmp_path / "run" / "run.json").write_text(json.dumps({"settings": {}}), encoding="utf-8")
    page = write_report(tmp_path / "run").read_text(encoding="utf-8")
    assert all(name in page for name in ("smell", "weight", "owner", "What is its owner?"))
