"""Scores against other implementations, tables against their definitions, and a scoring that is killed and goes on."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from math import log
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from nanoladder.common import UserError, write_jsonl
from nanoladder.dataset import CHOICES, NUMBERS, Row, read_kinds, subset
from nanoladder.evaluate import consensus, judge, shuffled, spread

import eval as script
from data.rooms.hints import with_hints
from data.rooms.spatial import SECTORS
from nanoladder import checkpoint, evaluate
from nanoladder.image import ImageConfig
from nanoladder.rewards import LENGTHS
from nanoladder.tables import (
    as_text,
    best_number,
    overall_interval,
    overview,
    set_beside,
    summarize_spatial,
    tables,
)

BASE = ROOT / "nanoladder" / "base"


def row(number, kind, answer, options=()):
    return Row(number, "?", answer, (f"{number}.png",), kind, "video", 1, "rows:1", options=options)


def options(count):
    return tuple(f"{letter}. {letter * 3}" for letter in "ABCD"[:count])


def random_rows(
    rng, n, kinds=("object size", "object count", "relative direction", "appearance order")
):
    rows = []
    for i in range(n):
        kind = str(rng.choice(kinds))
        if kind in NUMBERS:
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


# ---------------------------------------------------------------- row by row, by other means


def random_choice(rng, asked):
    """A random answer to a choice, and whether it says the right thing: by its making, not by reading it."""
    letters, texts = zip(*(option.split(". ") for option in asked.options))
    i, j = rng.permutation(len(letters))[:2]
    form = rng.integers(10)
    if form < 6:
        letter = letters[i].lower() if rng.random() < 0.3 else letters[i]
        said = [
            letter,
            f"({letter})",
            f"{letter}.",
            f" {letter}\n",
            f"{letter}. {texts[i]}",
            f"({letter}) {texts[i]}.",
        ]
        return said[form], letters[i] == asked.answer
    wrong = [
        f"{letters[i]} or {letters[j]}",
        f"{letters[i]}. {texts[j]}",
        "",
        f"{letters[i]}{letters[j]}",
    ]
    return wrong[form - 6], False


def random_number(rng, asked):
    """A random answer to a numeric question, and the exact score by MRA's definition."""
    truth = Fraction(asked.answer)
    cents = max(1, round(float(truth) * 100 * float(np.exp(rng.normal(0, 0.35)))))
    value, text = Fraction(cents, 100), f"{cents / 100:.2f}"
    unit = str(rng.choice(["m", "cm", "ft", "inch"]))
    size, own = (
        Fraction(str(LENGTHS[u]))
        for u in (unit, "m" if asked.question_type == "absolute distance" else "cm")
    )
    form, is_length = rng.integers(7), asked.question_type in ("absolute distance", "object size")
    if form == 4 and is_length:
        text, value = f"about {text} {unit}.", value * size / own
    elif form == 5:
        return f"{text} or {cents / 100 + 1:.2f}", 0
    elif form == 6:
        return "I can't tell", 0
    else:
        text = [text, f"It is {text}", f" {text}. ", f"~{text}"][form % 4]
    error = abs(value - truth) / truth
    if any(abs(error - Fraction(k, 100)) < Fraction(1, 10**9) for k in range(5, 55, 5)):
        return text, None  # on a threshold, where rounding decides
    return text, sum(error <= 1 - Fraction(t, 100) for t in range(50, 100, 5)) / 10


def test_answers_score_what_their_making_says():
    rng, compared = np.random.default_rng(4), 0
    for asked in random_rows(
        rng, 3000, ["absolute distance", "object size", "object count", *CHOICES]
    ):
        text, wanted = (random_choice if asked.options else random_number)(rng, asked)
        if wanted is not None:
            scored = judge(text, asked, ImageConfig())
            assert scored["scores"]["accuracy"] == pytest.approx(float(wanted)), (text, asked)
            assert scored["parsed"] is not None or not wanted
            assert not asked.options or (scored["parsed"] == asked.answer) == wanted
            compared += 1
    assert compared > 2500


def test_boxes_score_what_counting_pixels_says():
    rng, config = (
        np.random.default_rng(5),
        ImageConfig(patch_size=8, min_pixels=1, max_pixels=10**6),
    )
    for number in range(200):
        names = [
            str(n) for n in rng.permutation(["bed", "lamp", "desk", "sofa"])[: rng.integers(1, 4)]
        ]
        boxes = {name: random_box(rng) for name in names}
        answer = [{"bbox_2d": box, "label": name} for name, box in boxes.items()]
        asked = Row(
            number,
            "?",
            answer,
            ("0.png",),
            "localization",
            "single_image",
            1,
            "rows:1",
            sizes=((64, 64),),
        )
        said = {
            str(n): random_box(rng)
            for n in rng.permutation(["bed", "lamp", "desk", "door"])[: rng.integers(0, 4)]
        }
        ious = [counted_iou(boxes[n], said[n]) if n in said else 0.0 for n in names]
        right = len(said.keys() & boxes.keys())
        text = json.dumps([{"label": name, "bbox_2d": box} for name, box in said.items()])
        scored = judge(text, asked, config)["scores"]
        assert scored["iou"] == pytest.approx(np.mean(ious))
        assert scored["acc50"] == pytest.approx(np.mean([iou >= 0.5 for iou in ious]))
        precision, recall = right / max(1, len(said)), right / len(names)
        f1 = 2 * precision * recall / (precision + recall) if right else 0
        assert scored["label_f1"] == pytest.approx(f1) and scored["valid_json"] == 1


def random_box(rng):
    (x1, x2), (y1, y2) = (sorted(rng.permutation(64)[:2].tolist()) for _ in range(2))
    return [x1, y1, x2, y2]


def counted_iou(*boxes):
    painted = np.zeros((2, 64, 64), bool)
    for canvas, (x1, y1, x2, y2) in zip(painted, boxes):
        canvas[y1:y2, x1:x2] = True
    return (painted[0] & painted[1]).sum() / (painted[0] | painted[1]).sum()


# ---------------------------------------------------------------- tables


def test_a_table_is_what_its_definition_says():
    rng = np.random.default_rng(0)
    train, asked = random_rows(rng, 400), random_rows(rng, 300)
    predictions = predictions_of(asked, rng)
    table = summarize_spatial(predictions, train)

    def score(kind, count):
        return np.mean([p["scores"]["accuracy"] for p in predictions
                        if p["question_type"] == kind and p["options"] == count])  # fmt: skip

    size, count, order = (
        score("object size", 0),
        score("object count", 0),
        score("appearance order", 4),
    )
    direction = np.mean([score("relative direction", k) for k in (2, 3, 4)])
    assert table["types"]["relative direction"]["accuracy"] == pytest.approx(direction)
    assert table["nq"] == pytest.approx((size + count) / 2) and table["mcq"] == pytest.approx(
        (direction + order) / 2
    )
    assert table["avg"] == pytest.approx((size + count + direction + order) / 4)
    assert table["n"] == 300 == sum(t["n"] for t in table["types"].values())
    assert table["micro"] == pytest.approx(np.mean([p["scores"]["accuracy"] for p in predictions]))
    for name, low_high in (("avg", "interval"), ("nq", "nq_interval"), ("mcq", "mcq_interval")):
        assert table[low_high][0] < table[name] < table[low_high][1]

    letters = [r.answer for r in train if r.question_type == "appearance order"]
    letter = max("ABCD", key=letters.count)
    truth = [r.answer for r in asked if r.question_type == "appearance order"]
    constant = np.mean([t == letter for t in truth])
    assert table["types"]["appearance order"]["constant"] == pytest.approx(constant)
    guess = best_number([float(r.answer) for r in train if r.question_type == "object size"])[0]
    sizes = [float(r.answer) for r in asked if r.question_type == "object size"]
    assert table["types"]["object size"]["constant"] == pytest.approx(
        np.mean([mra(guess, t) for t in sizes])
    )


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
    assert all(
        np.mean([mra(other, a) for a in answers]) <= score + 0.01
        for other in np.linspace(0.2, 12, 200)
    )


@pytest.mark.parametrize("about", [(1, 1, 1, 1, 1), (3, 1, 2, 3), (1, 4, 2, 1), (5, 5)])
def test_shuffled_rows_keep_all_but_their_pictures(about):
    """Several rows about the same pictures stand side by side; none may be left with them."""
    pictures = [Path(f"{k}.png") for k, count in enumerate(about) for _ in range(count)]
    rows = [
        replace(row(i, "object size", str(i + 1)), images=(path,))
        for i, path in enumerate(pictures)
    ]
    mixed = shuffled(rows)
    assert sorted(r.images for r in mixed) == [r.images for r in rows]
    assert all(a.images != b.images and a.answer == b.answer for a, b in zip(rows, mixed))


def test_what_is_printed_is_what_was_scored():
    rng = np.random.default_rng(6)
    asked = random_rows(rng, 120)
    predictions = predictions_of(asked, rng)
    summary, blind = (
        summarize_spatial(p, asked) for p in (predictions, predictions_of(asked, rng))
    )
    set_beside(summary, "blind", blind)
    scores = {
        "rooms-si": summary,
        "overall": summary["avg"],
        "intervals": {"overall": overall_interval([predictions])},
    }
    lines = {line.split("  ")[1]: line.split() for line in as_text(tables(scores) + overview(scores)).splitlines()
             if line.startswith("  ")}  # fmt: skip
    assert (
        lines["NQ"][1] == f"{100 * summary['nq']:.1f}"
        and lines["MCQ"][1] == f"{100 * summary['mcq']:.1f}"
    )
    assert lines["MCQ"][-1] == str(sum(bool(r.options) for r in asked))
    assert lines["object size"][2] == f"{100 * summary['types']['object size']['accuracy']:.1f}"
    assert (
        lines["average"][-2] == f"{100 * blind['avg']:.1f}"
        and lines["overall"][1] == f"{100 * summary['avg']:.1f}"
    )


def test_a_comparison_is_the_difference_of_the_averages(tmp_path, capsys):
    rng = np.random.default_rng(7)
    asked = {kind: random_rows(rng, 200) for kind in ("single_image", "video")}
    sides, averages = {"a": {}, "b": {}}, []
    for name, side in sides.items():
        side |= {kind: predictions_of(rows, rng) for kind, rows in asked.items()}
        kept = [p | {"split": "test", "kind": kind, "question_id": n, "images": [kind]}
                for kind, own in side.items() for n, p in enumerate(own)]  # fmt: skip
        (tmp_path / name).mkdir()
        write_jsonl(tmp_path / name / "predictions.jsonl", kept)
        averages.append([summarize_spatial(own, [])["avg"] for own in side.values()])
    script.main(["--compare", str(tmp_path / "a"), str(tmp_path / "b")])
    printed = {line.split()[1]: line.split() for line in capsys.readouterr().out.splitlines()}
    before, after = ([*side, np.mean(side)] for side in averages)
    for name, first, second in zip(("rooms-si", "rooms-video", "overall"), before, after):
        low, high = (float(printed[name][k].strip("[,]")) for k in (4, 5))
        assert (
            printed[name][2:4] == [f"{first:.3f}", f"{second - first:+.3f}"]
            and low < second - first < high
        )


def test_a_subset_is_always_the_same_and_like_the_whole():
    rows = random_rows(np.random.default_rng(7), 1000)
    rows = [replace(r, level=1 + r.question_id % 3) for r in rows]
    few, more = subset(rows, 300), subset(rows, 600)
    assert (
        len(few) == 300
        and few == subset(rows, 300)
        and subset(rows, None) == rows == subset(rows, 5000)
    )
    ids = [r.question_id for r in few]
    assert ids == sorted(ids) and set(ids) < {r.question_id for r in more}
    for form in {(r.question_type, len(r.options), r.level) for r in rows}:
        whole, part = (
            sum((r.question_type, len(r.options), r.level) == form for r in some)
            for some in (rows, few)
        )
        assert abs(part - 0.3 * whole) <= 1


def test_semantic_entropy_counts_what_answers_mean():
    order = row(0, "appearance order", "A", options(4))
    assert spread(["A", "(a)", "A. AAA", "a."], order)["semantic_entropy"] == 0
    assert spread(["A", "B", "C", "D"], order)["semantic_entropy"] == pytest.approx(log(4))
    assert spread(["A", "B", "what", "A or B"], order)["semantic_entropy"] == pytest.approx(
        1.5 * log(2)
    )
    distance = row(0, "absolute distance", "2.0")
    assert spread(["2 m", "200 cm", "2.0", "3"], distance)["semantic_entropy"] == pytest.approx(
        log(4) - 0.75 * log(3)
    )


def test_consensus_is_what_the_others_would_score_best():
    order, distance = (
        row(0, "appearance order", "A", options(4)),
        row(0, "absolute distance", "2.0"),
    )
    turn = row(0, "view change", "move_left:0.4")
    assert (
        consensus(["B", "what", "what", "(a)", "what", "a."], order) == "(a)"
    )  # the unreadable have no say
    assert (
        consensus(["1", "1", "2 m", "240 cm", "2.5", "2.8", "10"], distance) == "240 cm"
    )  # not the commonest
    assert (
        consensus(["move_up:1", "move_left:0.4", "stay", "move_left: 0.40"], turn)
        == "move_left:0.4"
    )
    assert consensus(["what", "who"], order) == "what"
    found = spread(["B", "(a)", "a.", "what"], order)
    assert found["scores"] == {"accuracy": 0.5, "consensus": 1.0} and found["truth"] == "A"


# ---------------------------------------------------------------- eval.py


def flags_of(rooms, out):
    return ["--model", str(BASE), "--data", str(rooms), "--out", str(out), "--rows", "8", "--batch-size", "3",
            "--max-new-tokens", "6", "--bench", "rooms-si", "localization", "rooms-si-ood"]  # fmt: skip


def ask(rooms, out, *flags):
    script.main([*flags_of(rooms, out), *flags])


def kept(out):
    return {path.name: path.read_bytes() for path in out.iterdir() if path.suffix in (".jsonl", ".png") or
            path.name == "scores.json"}  # fmt: skip


def test_a_killed_scoring_goes_on_and_ends_the_same(rooms, tmp_path, monkeypatch):
    class Killed(Exception):
        pass

    flags = ["--samples", "2", "--attention"]
    ask(rooms, tmp_path / "whole", *flags)
    whole = kept(tmp_path / "whole")
    assert {
        "predictions.jsonl",
        "shuffled.jsonl",
        "samples.jsonl",
        "attention.jsonl",
        "attention.png",
    } <= set(whole)

    generate, look, calls = evaluate.generate, evaluate.image_attention, []

    def dying(work):
        def count(*args):
            calls.append(1)
            if len(calls) > 7:
                raise Killed
            return work(*args)

        return count

    starts = 0
    while True:  # killed at every eighth batch or look, whatever it is
        calls.clear()
        starts += 1
        monkeypatch.setattr(evaluate, "generate", dying(generate))
        monkeypatch.setattr(evaluate, "image_attention", dying(look))
        try:
            ask(rooms, tmp_path / "cut", *flags)
            break
        except Killed:
            path = tmp_path / "cut" / "predictions.jsonl"
            whole_lines = path.read_bytes()
            if starts == 1:  # as if the kill had come while a batch was written
                path.write_bytes(whole_lines[: len(whole_lines) - 700])
            with pytest.raises(UserError, match="--samples 2, not 3"):
                ask(rooms, tmp_path / "cut", "--samples", "3", "--attention")
    assert starts > 3 and kept(tmp_path / "cut") == whole
    with pytest.raises(UserError, match="finished run"):
        ask(rooms, tmp_path / "cut", *flags)

    (tmp_path / "cut" / "scores.json").unlink()
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([lines[1], lines[0], *lines[2:]]))
    with pytest.raises(
        UserError, match="predictions.jsonl:1 answers another question than .*jsonl:"
    ):
        ask(rooms, tmp_path / "cut", *flags)
    path.write_bytes(b"{broken\n" + path.read_bytes())
    with pytest.raises(UserError, match="is damaged"):
        ask(rooms, tmp_path / "cut", *flags)


def test_two_ranks_share_the_rows_and_end_the_same(rooms, tmp_path):
    """From the start, and from where one process was killed."""
    ask(rooms, tmp_path / "one")
    one = kept(tmp_path / "one")
    (tmp_path / "two").mkdir()
    (tmp_path / "cut").mkdir()
    lines = one["predictions.jsonl"].splitlines(keepends=True)
    (tmp_path / "cut" / "predictions.jsonl").write_bytes(b"".join(lines[:7]))
    for out in (tmp_path / "two", tmp_path / "cut"):
        command = [
            "-m",
            "torch.distributed.run",
            "--nproc_per_node",
            "2",
            "--standalone",
            "eval.py",
        ]
        subprocess.run([sys.executable, *command, *flags_of(rooms, out)], cwd=ROOT, check=True, capture_output=True,
                       env=os.environ | {"OMP_NUM_THREADS": "1"})  # fmt: skip
        assert kept(out) == one


def test_a_real_benchmark_is_averaged_as_its_authors_do(rooms, tmp_path):
    """Rows as data/cvbench/prepare.py leaves them, about the rooms' pictures."""
    folder, asked = tmp_path / "cvbench" / "test", read_kinds(rooms / "test", ["localization"])
    (folder / "images").mkdir(parents=True)
    sources = [("ADE20K", "Count"), ("COCO", "Relation"), ("Omni3D", "Depth")]
    with open(folder / "spatial.jsonl", "w") as file:
        for number in range(6):
            (folder / "images" / f"{number}.png").write_bytes(asked[number].images[0].read_bytes())
            source, task = sources[number % 3]
            file.write(json.dumps({
                "question_id": number, "question": "Which?", "options": ["A. bed", "B. sofa"], "answer": "A",
                "image": [f"images/{number}.png"], "data_type": "single_image", "question_type": "choice",
                "task": task, "source": source,
            }) + "\n")  # fmt: skip
    script.main(["--model", str(BASE), "--real", str(tmp_path), "--out", str(tmp_path / "out"), "--bench", "cvbench",
                 "--max-new-tokens", "6"])  # fmt: skip
    answers = [
        json.loads(line)
        for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
    ]
    score = json.loads((tmp_path / "out" / "scores.json").read_text())["cvbench"]
    part = {
        name: np.mean([a["scores"]["accuracy"] for a in answers if a["source"] == name])
        for name, _ in sources
    }
    assert score["n"] == len(answers) == 6 and {a["split"] for a in answers} == {"cvbench"}
    assert score["average"] == pytest.approx(
        ((part["ADE20K"] + part["COCO"]) / 2 + part["Omni3D"]) / 2
    )
    assert "cvbench" in (tmp_path / "out" / "report.html").read_text()


def test_hints_tell_what_the_truth_says(rooms):
    image_config = replace(
        checkpoint.load_image_config(BASE), max_pixels=48 * 48
    )  # boxes must be rescaled
    asked = [r for split in ("train", "test") for r in read_kinds(rooms / split, ["single_image"])]
    plain = {(r.where, r.images): r for r in asked if r.question_type == "relative direction"}
    hinted = [
        r
        for split in ("train", "test")
        for r in with_hints(
            [r for r in asked if f"/{split}/" in r.where], rooms / split, image_config, True
        )
    ]
    assert len(hinted) == len(plain) > 5
    for r in hinted:
        hint, question = r.question.rsplit("\n", 1)
        assert question == plain[r.where, r.images].question
        boxes = [[int(v) for v in box.split(",")] for box in re.findall(r"\[([\d,]+)\]", hint)]
        assert len(boxes) == 3 and all(
            0 <= x1 < x2 <= 48 and 0 <= y1 < y2 <= 48 for x1, y1, x2, y2 in boxes
        )
        turns = [
            int(n) if side == "left" else -int(n)
            for n, side in re.findall(r"(\d+) degrees to the (\w+)", hint)
        ]
        difficulty = {2: "easy", 3: "medium", 4: "hard"}[len(r.options)]
        told = [
            name
            for name, (low, high) in SECTORS[difficulty].items()
            if low < (turns[1] - turns[0]) % 360 < high
        ]
        assert [f"{r.answer}. {told[0]}"] == [
            option for option in r.options if option.split(". ")[1] == told[0]
        ]
    boxes_only = with_hints([r for r in asked if "/test/" in r.where], rooms / "test", image_config)
    assert boxes_only and not any("degrees to the" in r.question for r in boxes_only)


@pytest.mark.parametrize("flags, complaint", [
    (["--hints", "boxes"], "--hints is about single pictures"),
    (["--samples", "1"], "entropy needs two answers"),
])  # fmt: skip
def test_refusals(rooms, tmp_path, flags, complaint):
    with pytest.raises(UserError, match=complaint):
        ask(rooms, tmp_path / "out", *flags)
    assert not (tmp_path / "out").exists()
