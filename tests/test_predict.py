"""Asking a model: scores against other implementations, and a scoring that is killed goes on."""

import json
import os
import shutil
import subprocess
from dataclasses import replace
from fractions import Fraction
from math import log
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, torchrun
from PIL import Image
from test_attention import TINY

import eval as script
from nanoladder import predict
from nanoladder.answers import LENGTHS
from nanoladder.batches import Dataset, encode_prompt
from nanoladder.checkpoint import BASE, CheckpointError, Policy, save
from nanoladder.command import UserError
from nanoladder.files import read_jsonl, write_json
from nanoladder.image import ImageConfig
from nanoladder.model import Qwen2_5_VL
from nanoladder.predict import consensus, score_one, score_samples
from nanoladder.prompts import DEFAULT, prompt_text
from nanoladder.runtime import Runtime
from nanoladder.schema import PAPER_CHOICES, check_images, check_row
from nanoladder.tokenizer import Tokenizer, config_for_tokenizer


def make_row(question_type, answer, options=0, **fields):
    """A row of a video question; a number's unit is the paper's."""
    raw = {"question_id": 1, "question": "?", "image": ["0.png"], "data_type": "video"}
    raw |= {"question_type": question_type, "answer": answer}
    if options:
        raw["options"] = [f"{letter}. {letter * 3}" for letter in "ABCD"[:options]]
    return check_row(raw | fields, Path("data"), "rows.jsonl:1")


# ---------------------------------------------------------------- answer by answer, by other means


def random_row(rng):
    numbers = ["absolute distance", "object size", "object count"]
    name = str(rng.choice([*numbers, *PAPER_CHOICES, "a new choice"]))
    if name in numbers:
        return make_row(name, str(round(float(rng.lognormal(2, 1)) + 0.1, 1)))
    count = int(rng.integers(2, 5)) if name == "relative direction" else 4
    return make_row(name, str(rng.choice(list("AAB"))), count)


def random_choice(rng, asked):
    """A random answer to a choice, and whether it is right: known from how it is made."""
    letters, texts = zip(*(option.split(". ") for option in asked.options))
    i, j = rng.permutation(len(letters))[:2]
    form = rng.integers(10)
    if form < 6:
        x = letters[i].lower() if rng.random() < 0.3 else letters[i]
        said = [x, f"({x})", f"{x}.", f" {x}\n", f"{x}. {texts[i]}", f"({x}) {texts[i]}."]
        return said[form], letters[i] == asked.answer
    wrong = [f"{letters[i]} or {letters[j]}", f"{letters[i]}. {texts[j]}", ""]
    return [*wrong, f"{letters[i]}{letters[j]}"][form - 6], False


def random_number(rng, asked):
    """A random answer to a numeric question, and the exact score by MRA's definition."""
    truth = Fraction(asked.answer)
    cents = max(1, round(float(truth) * 100 * float(np.exp(rng.normal(0, 0.35)))))
    value, text = Fraction(cents, 100), f"{cents / 100:.2f}"
    unit = str(rng.choice(["m", "cm", "ft", "inch"]))
    own = "m" if asked.question_type == "absolute distance" else "cm"
    size, own_size = Fraction(str(LENGTHS[unit])), Fraction(str(LENGTHS[own]))
    form, is_length = rng.integers(7), asked.question_type in ("absolute distance", "object size")
    if form == 4 and is_length:
        text, value = f"about {text} {unit}.", value * size / own_size
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


def test_answers_get_the_scores_that_they_were_made_for():
    rng, compared = np.random.default_rng(4), 0
    for _ in range(3000):
        asked = random_row(rng)
        text, wanted = (random_choice if asked.options else random_number)(rng, asked)
        if wanted is not None:
            scored = score_one(text, asked, ImageConfig())
            assert scored["scores"]["accuracy"] == pytest.approx(float(wanted)), (text, asked)
            assert scored["parsed"] is not None or not wanted
            assert not asked.options or (scored["parsed"] == asked.answer) == wanted
            compared += 1
    assert compared > 2500


def random_box(rng):
    (x1, x2), (y1, y2) = (sorted(rng.permutation(64)[:2].tolist()) for _ in range(2))
    return [x1, y1, x2, y2]


def counted_iou(*boxes):
    painted = np.zeros((2, 64, 64), bool)
    for canvas, (x1, y1, x2, y2) in zip(painted, boxes):
        canvas[y1:y2, x1:x2] = True
    return (painted[0] & painted[1]).sum() / (painted[0] | painted[1]).sum()


def test_boxes_get_the_scores_of_counted_pixels():
    rng = np.random.default_rng(5)
    config = ImageConfig(patch_size=8, min_pixels=1, max_pixels=10**6)

    def some(names, least):
        return [str(name) for name in rng.permutation(names)[: rng.integers(least, 4)]]

    for _ in range(200):
        boxes = {name: random_box(rng) for name in some(["bed", "lamp", "desk", "sofa"], 1)}
        answer = [{"bbox_2d": box, "label": name} for name, box in boxes.items()]
        asked = make_row("localization", answer, data_type="single_image")
        asked = replace(asked, sizes=((64, 64),))
        said = {name: random_box(rng) for name in some(["bed", "lamp", "desk", "door"], 0)}
        ious = [counted_iou(box, said[n]) if n in said else 0.0 for n, box in boxes.items()]
        right = len(said.keys() & boxes.keys())
        text = json.dumps([{"label": name, "bbox_2d": box} for name, box in said.items()])
        scores = score_one(text, asked, config)["scores"]
        assert scores["iou"] == pytest.approx(np.mean(ious))
        assert scores["acc50"] == pytest.approx(np.mean([iou >= 0.5 for iou in ious]))
        precision, recall = right / max(1, len(said)), right / len(boxes)
        f1 = 2 * precision * recall / (precision + recall) if right else 0
        assert scores["label_f1"] == pytest.approx(f1) and scores["valid_json"] == 1


# ---------------------------------------------------------------- decoding as the folder says

PUBLISHED = {"repetition_penalty": 1.3, "do_sample": True, "temperature": 0.1, "top_k": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny random Qwen2.5-VL with a generation_config.json that has more ends."""
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("tiny") / "model"
    tokenizer = Tokenizer.train(["How many chairs are there? There are 3 of them."] * 9, 400)
    torch.manual_seed(3)
    config = replace(TINY, vision=replace(TINY.vision, in_channels=3), tie_word_embeddings=False)
    model = Qwen2_5_VL(config_for_tokenizer(config, tokenizer))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    ends = [tokenizer.im_end_id, tokenizer.pad_id, 55, 70]
    images = ImageConfig(patch_size=4, min_pixels=64, max_pixels=1024)
    save(path, model, tokenizer, images, PUBLISHED | {"eos_token_id": ends})
    for name in "ab":
        noise = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path.parent / f"{name}.png")
    return path


def asked_about(folder, question="How many chairs are there?"):
    raw = {"question_id": 1, "question": question, "answer": "3", "data_type": "single_image"}
    raw |= {"unit": "", "question_type": "object count"}
    rows = [
        check_row(raw | {"image": [f"{name}.png"]}, folder.parent, f"rows.jsonl:{line}")
        for line, name in enumerate("ab", 1)
    ]
    check_images(rows)
    return rows


def test_evaluation_decodes_as_generation_config_says_but_greedily(folder):
    transformers = pytest.importorskip("transformers", minversion="5.3")
    theirs = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(folder)
    policy, rows = Policy.load(folder), asked_about(folder)
    answers = predict.predict(policy, rows, Runtime(0, 1, torch.device("cpu")), max_new_tokens=24)
    tokenizer, ends = policy.tokenizer, policy.generation["eos_token_id"]
    for row, answer in zip(rows, answers):
        prompt = encode_prompt(row, *policy[1:3], policy.model.config, ask=True)
        ids = torch.tensor([prompt["input_ids"]])
        wanted = theirs.generate(
            input_ids=ids,
            mm_token_type_ids=(ids == tokenizer.image_id).int(),
            pixel_values=prompt["pixel_values"],
            image_grid_thw=torch.tensor(prompt["grid_thw"]),
            suppress_tokens=list(tokenizer.vision_ids),
            max_new_tokens=24,
            do_sample=False,
        )[0, ids.shape[1] :].tolist()
        assert answer["answer"] == tokenizer.decode([i for i in wanted if i not in ends])
        assert answer["cut"] == (wanted[-1] not in ends)
        assert answer["decoding"]["repetition_penalty"] == 1.3
    assert {answer["cut"] for answer in answers} == {True, False}


def test_generation_config_is_kept_and_checked(folder, tmp_path):
    policy = Policy.load(folder)
    assert policy.generation.items() >= PUBLISHED.items() and policy.repetition_penalty == 1.3
    assert {55, 70} < set(policy.tokenizer.eos_ids)
    save(tmp_path / "again", *policy)
    path = tmp_path / "again" / "generation_config.json"
    assert path.read_bytes() == (folder / "generation_config.json").read_bytes()
    for broken in (
        {"eos_token_id": 400_000},
        {"eos_token_id": [1, "x"]},
        {"repetition_penalty": 0},
        {"repetition_penalty": "1.05"},
    ):
        write_json(path, broken)
        with pytest.raises(CheckpointError, match=f"generation_config.json: {min(broken)}"):
            Policy.load(tmp_path / "again")
    path.unlink()
    policy = Policy.load(tmp_path / "again")
    assert policy.generation == {} and policy.repetition_penalty == 1
    assert policy.tokenizer.eos_ids == (policy.tokenizer.im_end_id, policy.tokenizer.pad_id)


def test_a_question_longer_than_the_context_is_refused_before_anything_is_decoded(folder):
    policy, runtime = Policy.load(folder), Runtime(0, 1, torch.device("cpu"))
    short, (_, long) = asked_about(folder), asked_about(folder, "Is it? " * 600)
    with pytest.raises(UserError, match=r"rows.jsonl:2: \d+ tokens .* context has 512"):
        predict.predict(policy, [*short, long], runtime)
    with pytest.raises(UserError, match=r"rows.jsonl:2: \d+ tokens .* context has 512"):
        Dataset([*short, long], *policy[1:3], policy.model.config)
    Dataset(short, *policy[1:3], policy.model.config)


def test_any_answer_can_be_kept_and_read_again(tmp_path):
    row = make_row("object count", "3")
    asked = {"question_id": row.question_id, "prompt": prompt_text(row)}
    said = [asked | {"answer": text} for text in ("\ud800", "a\u2028b\u0085c\x1c\n", "ü€😀")]
    path = tmp_path / "predictions.jsonl"
    predict.Journal(path).keep(said)
    assert predict.Journal(path).replay([row] * 3, DEFAULT) == said == read_jsonl(path)
    lines = path.read_bytes().split(b"\n")
    assert len(lines) == 4 and "ü€😀".encode() in lines[2]
    path.write_bytes(b"\n".join(lines)[:-9])  # a kill tore the last line
    again = predict.Journal(path)
    assert again.replay([row] * 3, DEFAULT) is None and again.replay([row] * 2, DEFAULT) == said[:2]
    again.keep(said[2:])
    assert read_jsonl(path) == said


# ---------------------------------------------------------------- several answers to a row


def test_semantic_entropy_counts_meanings():
    order, distance = make_row("appearance order", "A", 4), make_row("absolute distance", "2.0")
    for texts, asked, entropy in (
        (["A", "(a)", "A. AAA", "a."], order, 0),
        (["A", "B", "C", "D"], order, log(4)),
        (["A", "B", "what", "A or B"], order, 1.5 * log(2)),
        (["2 m", "200 cm", "2.0", "3"], distance, log(4) - 0.75 * log(3)),
    ):
        found = score_samples(texts, asked)
        assert found["semantic_entropy"] == pytest.approx(entropy) and found["samples"] == texts


def test_the_consensus_is_the_answer_that_the_others_would_score_best():
    order, distance = make_row("appearance order", "A", 4), make_row("absolute distance", "2.0")
    turn = make_row("view change", "move_left:0.4")
    assert turn.form == "motion"
    # Answers that cannot be read do not count.
    assert consensus(["B", "what", "what", "(a)", "what", "a."], order) == "(a)"
    # The most frequent number is not the best one.
    assert consensus(["1", "1", "2 m", "240 cm", "2.5", "2.8", "10"], distance) == "240 cm"
    motions = ["move_up:1", "move_left:0.4", "stay", "move_left: 0.40"]
    assert consensus(motions, turn) == "move_left:0.4"
    assert consensus(["what", "who"], order) == "what"
    found = score_samples(["B", "(a)", "a.", "what"], order)
    assert found["scores"] == {"accuracy": 0.5, "consensus": 1.0} and found["truth"] == "A"


# ---------------------------------------------------------------- eval.py


def flags_of(rooms, out):
    bench = ["--bench", "rooms-si", "localization", "rooms-si-ood", "--rows", "8"]
    folders = ["--model", str(BASE), "--data", str(rooms), "--out", str(out)]
    return [*folders, *bench, "--batch-size", "3", "--max-new-tokens", "6"]


def ask(rooms, out, *flags):
    script.main([*flags_of(rooms, out), *flags])


def kept(out):
    """{name: content} of the files that a scoring leaves, without those that hold times."""
    names = {path.name for path in out.iterdir() if path.suffix in (".jsonl", ".png")}
    return {name: (out / name).read_bytes() for name in names | {"scores.json"}}


def test_a_killed_scoring_goes_on_and_ends_the_same(rooms, tmp_path, monkeypatch):
    class Killed(Exception):
        pass

    flags, cut = ["--samples", "2", "--attention"], tmp_path / "cut"
    ask(rooms, tmp_path / "whole", *flags)
    whole = kept(tmp_path / "whole")
    logs = {f"{name}.jsonl" for name in ("predictions", "shuffled", "samples", "attention")}
    assert logs | {"attention.png"} <= set(whole)

    calls, path = [], cut / "predictions.jsonl"

    def dying(work):
        def count(*args, **options):
            calls.append(1)
            if len(calls) > 7:
                raise Killed
            return work(*args, **options)

        return count

    for name in ("generate", "image_attention"):
        monkeypatch.setattr(predict, name, dying(getattr(predict, name)))
    starts = 0
    while True:  # it is killed at every eighth batch or measurement of attention
        calls.clear()
        starts += 1
        try:
            ask(rooms, cut, *flags)
            break
        except Killed:
            lines = path.read_bytes()
            if starts == 1:  # as if the kill had come while a batch was written
                path.write_bytes(lines[: len(lines) - 700])
            with pytest.raises(UserError, match="--samples 2, not 3"):
                ask(rooms, cut, "--samples", "3", "--attention")
    assert starts > 3 and kept(cut) == whole
    with pytest.raises(UserError, match="finished run"):
        ask(rooms, cut, *flags)

    (cut / "scores.json").unlink()
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([lines[1], lines[0], *lines[2:]]))
    complaint = "predictions.jsonl:1 answers another question than .*jsonl:"
    with pytest.raises(UserError, match=complaint):
        ask(rooms, cut, *flags)


def test_two_ranks_share_the_rows_and_end_the_same(rooms, tmp_path):
    """They go on from where one process was killed."""
    ask(rooms, tmp_path / "one")
    one = kept(tmp_path / "one")
    (tmp_path / "cut").mkdir()
    lines = one["predictions.jsonl"].splitlines(keepends=True)
    (tmp_path / "cut" / "predictions.jsonl").write_bytes(b"".join(lines[:7]))
    shutil.copy(tmp_path / "one" / "run.json", tmp_path / "cut")
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [*torchrun(), "eval.py", *flags_of(rooms, tmp_path / "cut")]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, env=env)
    assert kept(tmp_path / "cut") == one


def test_refusals(rooms, tmp_path):
    for flags, complaint in (
        (["--samples", "1"], "--samples must be 0, or at least 2"),
        (["--bench", "kitchens"], "--bench kitchens is none of .*rooms-si, .*vsibench"),
        (["--data", str(tmp_path)], "no rows in test, train or ood"),
    ):
        with pytest.raises(UserError, match=complaint):
            ask(rooms, tmp_path / "out", *flags)
        assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="name a checkpoint with --model"):
        script.main([])
