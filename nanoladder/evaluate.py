"""The one evaluation loop: ask every row, decode, score with nanoladder/rewards.py, keep every answer.

predictions = predict(model, tokenizer, image_config, rows, start_runtime())
scores = Summary(train_rows, image_config)("localization", predictions)
"""

import dataclasses
import json
import time
from collections import Counter, defaultdict
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from nanoladder.attention import image_attention, share_in_boxes
from nanoladder.benchmarks import BENCHMARKS as REAL
from nanoladder.common import UserError, progress, read_jsonl, write_json, write_jsonl
from nanoladder.dataset import TEXTS, boxes_in_input, encode_prompt, prompt_text, rows_of, target_text
from nanoladder.generate import generate
from nanoladder.image import fit
from nanoladder.pictures import draw_attention, draw_samples
from nanoladder.rewards import UNITS, final, parse_boxes, read_answer, score_answer, score_boxes
from nanoladder.tables import (
    as_text,
    best_constant_box,
    extras,
    overall_interval,
    overview,
    set_beside,
    summarize_answers,
    summarize_benchmark,
    summarize_localization,
    summarize_spatial,
    tables,
)

BENCHMARKS = {"single_image": "rooms-si", "multi_view": "rooms-mv", "video": "rooms-video"}  # spatial rows, by kind

# ---------------------------------------------------------------- asking


class Journal:
    """Answers in the order they were asked for; with a path they are kept in a JSONL file, batch by batch.

    A scoring that was killed and is started again replays the file's whole batches and asks only from there on. It puts
    the same rows into the same batches, so the file ends up the same, byte for byte. Of several ranks one writes it.
    """

    def __init__(self, path=None, writes=True):
        self.path, self.writes, self.file, self.records = path, writes, None, []
        self.found = []
        if path is not None and path.exists():
            lines = path.read_bytes().split(b"\n")[:-1]  # what follows the last line's end was cut by the kill
            try:
                self.found = [json.loads(line) for line in lines]
            except ValueError as error:
                raise UserError(f"{path} is damaged ({error}); delete its folder to score anew") from None

    def replay(self, batch):
        """The kept answers to a batch of rows, or None where they must be asked for."""
        kept = self.found[len(self.records) :][: len(batch)]
        if len(kept) < len(batch):
            return None
        for number, (record, row) in enumerate(zip(kept, batch), len(self.records) + 1):
            if (record["question_id"], record["prompt"]) != (row.question_id, prompt_text(row)):
                raise UserError(f"{self.path}:{number} answers another question than {row.where}: the rows have "
                                "changed since; delete the folder to score them anew")  # fmt: skip
        self.records += kept
        return kept

    def keep(self, answers):
        """Write new answers behind those replayed, before anything is made of them."""
        if self.path is not None and self.writes:
            if self.file is None:
                write_jsonl(self.path, self.records)  # without the part of a batch that a kill may have left
                self.file, self.found = open(self.path, "a", encoding="utf-8"), []
            self.file.writelines(json.dumps(answer, ensure_ascii=False) + "\n" for answer in answers)
            self.file.flush()
        self.records += answers
        return answers


@torch.no_grad()
def predict(model, tokenizer, image_config, rows, runtime, batch_size=128, max_new_tokens=192, temperature=0.0,
            samples=0, journal=None, about=None, title="evaluate"):  # fmt: skip
    """Answers to `rows` with their scores: a list of dicts in the rows' order, ready for predictions.jsonl.

    Greedy at temperature 0. Rows to be thought about first (read_kinds(..., think=True)) are asked and scored so.
    With samples=N, N answers to each row at temperature 1 instead: "samples", and their "semantic_entropy". `about` is
    put into every dict; `journal` keeps them on the way. Every rank of the `runtime` must call this: each asks a share
    of every batch, and all return all answers.
    """
    model.eval()
    journal, predictions = journal or Journal(), [None] * len(rows)
    decoding = {"temperature": 1.0 if samples else temperature, "max_new_tokens": max_new_tokens}

    def alike(i):
        """Alike answers together, for a batch runs until its longest is done; but first, what shares many pictures."""
        images = rows[i].images
        return len(images), images if len(images) > 1 else (), len(target_text(rows[i], image_config)), i

    order = sorted(range(len(rows)), key=alike)
    bar, group = progress(total=len(rows), desc=title, unit="row", disable=not runtime.main), max(1, samples)
    size = max(1, batch_size // group)

    def ask(batch, seed):
        """Answers to a batch. It has its own seed, so that it does not matter how many were replayed before."""
        if not batch:
            return []
        generator = torch.Generator(model.lm_head.weight.device).manual_seed(seed)
        prompts = [encode_prompt(row, tokenizer, image_config, model.config, ask=True) for row in batch]
        completions = generate(
            model, prompts, max_new_tokens, tokenizer.eos_ids, decoding["temperature"], tokenizer.vision_ids,
            group, generator,
        )  # fmt: skip
        texts, answers = completions.texts(tokenizer), []
        for k, row in enumerate(batch):
            own = texts[k * group : (k + 1) * group]
            scored = spread(own, row) if samples else judge(own[0], row, image_config)
            answers.append({**(about or {}), **describe(row, image_config), **scored, "decoding": decoding})
        return answers

    for first in range(0, len(order), size):
        places = order[first : first + size]
        batch = [rows[i] for i in places]
        answers = journal.replay(batch)
        if answers is None:
            share = -(-len(batch) // runtime.world)
            own = batch[share * runtime.rank :][:share]  # side by side: what shares pictures stays together
            answers = journal.keep(runtime.gather(ask(own, first + runtime.rank)))
        for i, answer in zip(places, answers):
            predictions[i] = answer
        bar.update(len(batch))
    bar.close()
    return predictions


def describe(row, image_config):
    """What was asked, and about what."""
    return {
        "question_id": row.question_id,
        "kind": row.kind,
        "question_type": row.question_type,
        "task": row.task,
        "source": row.source,
        "level": row.level,
        "images": [str(path) for path in row.images],
        "input_size": fit(row.sizes[0], image_config),
        "prompt": prompt_text(row),
        "options": len(row.options),
    }


def judge(text, row, image_config):
    """An answer, what the scorer reads in it, the truth, and the scores."""
    truth = boxes_in_input(row, image_config) if row.is_localization else row.answer
    scores = score_boxes(text, truth) if row.is_localization else score_answer(text, row)
    return {"answer": text, "parsed": parse_answer(text, row), "truth": truth, "scores": scores}


def parse_answer(text, row):
    """Boxes, letter, number (in the asked unit), motion or words that an answer states; None where none can be read."""
    if row.is_localization:
        return parse_boxes(text)
    said = read_answer(final(text, row), row)
    return said if row.options or not isinstance(said, str) else said.strip().lower() or None


def spread(texts, row):
    """Sampled answers and their semantic entropy in nats: 0 where all say the same, ln N where all N differ.

    As Kuhn et al. (arXiv 2302.09664) have it, answers that mean the same count as one; here they mean the same if the
    scorer reads the same in them. All that it can't read counts as one, too. Of all but boxes also the truth, and
    "scores": the samples' mean "accuracy", and that of their "consensus".
    """
    said = Counter(json.dumps(parse_answer(text, row), sort_keys=True) for text in texts)
    shares = np.array(list(said.values())) / len(texts)
    found = {"samples": texts, "semantic_entropy": float((shares * np.log(1 / shares)).sum())}
    if row.is_localization:
        return found
    agreed, accuracies = consensus(texts, row), [score_answer(text, row)["accuracy"] for text in texts]
    scores = {"accuracy": float(np.mean(accuracies)), "consensus": score_answer(agreed, row)["accuracy"]}
    return found | {"truth": row.answer, "scores": scores}


def consensus(texts, row):
    """The sampled answer that would score best on average, were each of them the truth in turn: of choices the most
    frequent (self-consistency, arXiv 2203.11171), of numbers the one with the highest expected MRA."""
    truths = []
    for answer in (final(text, row) for text in texts):
        said = read_answer(answer, row)
        if said is not None:
            written = said if row.options else str(said) if row.question_type in UNITS else answer
            truths.append(dataclasses.replace(row, answer=written))
    return max(texts, key=lambda text: sum(score_answer(text, truth)["accuracy"] for truth in truths))


def watch(model, tokenizer, image_config, rows, predictions, journal, title="attention"):
    """Where the model looked while it gave its answers to localization rows: one dict a row, in the rows' order.

    "attention" holds a weight for each image token, [rows, columns]; "inside" the share of it inside the asked objects'
    boxes, which is "area" where it is spread evenly.
    """
    for row, prediction in progress(list(zip(rows, predictions)), desc=title, unit="row"):
        if journal.replay([row]) is None:
            prompt = encode_prompt(row, tokenizer, image_config, model.config, ask=True)
            _, height, width = prompt["grid_thw"][0]
            weights = image_attention(model, prompt, tokenizer.answer(prediction["answer"]))
            weights = weights.reshape(height // image_config.merge_size, width // image_config.merge_size)
            boxes = [item["bbox_2d"] for item in prediction["truth"]]
            inside, area = share_in_boxes(weights, boxes, prediction["input_size"])
            same = {k: prediction[k] for k in ("split", "question_id", "images", "input_size", "prompt", "truth")}
            rounded = [[float(f"{v:.3g}") for v in line] for line in weights.tolist()]
            journal.keep([same | {"inside": inside, "area": area, "attention": rounded}])
    return journal.records[-len(rows) :]


# ---------------------------------------------------------------- summaries


class Summary:
    """Scores of predictions of one kind, beside those of constant answers fitted on training rows."""

    def __init__(self, train_rows, image_config):
        self.rows, self.image_config = defaultdict(list), image_config
        for row in train_rows:
            self.rows[row.kind].append(row)

    @cached_property
    def constant_box(self):
        return best_constant_box(self.rows["localization"][:5000], self.image_config)

    def __call__(self, kind, predictions):
        if kind == "localization":
            return summarize_localization(predictions, self.constant_box)
        if kind in TEXTS:
            return summarize_answers(predictions, self.rows[kind])
        return summarize_spatial(predictions, self.rows[kind])


def shuffled(rows):
    """The rows with other pictures than their own, taken from one another: what is still answered right never needed
    them. Rows about the same pictures stand side by side, so each takes those of a row that is farther than any such
    neighbour. (If more than half of all are about the same ones, some must keep theirs.)"""
    order = sorted(range(len(rows)), key=lambda i: rows[i].images)
    most = max(Counter(row.images for row in rows).values())
    taken = dict(zip(order, order[most:] + order[:most]))
    return [dataclasses.replace(row, images=rows[taken[i]].images) for i, row in enumerate(rows)]


def line(scores):
    """Scores as words, numbers only."""
    numbers = {k: v for k, v in scores.items() if isinstance(v, (int, float))}
    return ", ".join(f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}" for k, v in numbers.items())


def validate(model, tokenizer, image_config, rows, summarize, step, runtime, **decoding):
    """Scores of a few rows on the way, one printed line for each of their kinds: {kind: summary}. All ranks call it."""
    scores = {}
    for kind in dict.fromkeys(row.kind for row in rows):
        asked = rows_of(rows, kind)
        answers = predict(model, tokenizer, image_config, asked, runtime, title="validate", **decoding)
        scores[kind] = summarize(kind, answers)
        if runtime.main:
            tqdm.write(f"step {step}: validation, {kind}: {line(scores[kind])}")
    return scores


# ---------------------------------------------------------------- all of a scoring


def score_splits(model, tokenizer, image_config, splits, summarize, runtime, folder=None, samples=0, attention=False,
                 blind=None, **asking):  # fmt: skip
    """Score rows of every kind in splits {"test": rows, "ood": rows}, printing the tables: (scores, predictions).
    All ranks call it and share the work.

    A split may also be a real benchmark, by its name, whose entry of scores is nanoladder/benchmarks.py's average.

    scores is what scores.json holds: {"localization": {"test", "ood"}, "seeing", "floor", "reckoning": likewise,
    "rooms-si", "rooms-si-ood", ..., "overall": mean of the benchmarks' averages, "overall-ood", "intervals": of these}.
    A benchmark's summary also has "shuffled", "blind" where `blind`, the scores of a model trained without pictures,
    has it, and with samples (answers to each row at temperature 1) "semantic_entropy", "sampled" and "consensus".
    folder: where answers are kept on the way, to go on from after a kill. attention: measure where localization answers
    look. asking: options of predict.
    """
    scores, blind = {}, blind or {}
    journals = {name: Journal(Path(folder) / f"{name}.jsonl" if folder else None, runtime.main)
                for name in ("predictions", "shuffled", "samples", "attention")}  # fmt: skip

    def ask(rows, split, title, name="predictions", **options):
        start, title = time.time(), f"{title}, {split}"
        answers = predict(model, tokenizer, image_config, rows, runtime, journal=journals[name],
                          about={"split": split}, title=title, **asking, **options)  # fmt: skip
        runtime.say(f"{title}: {len(rows)} rows in {time.time() - start:.1f} s")
        return answers

    for split, all_rows in splits.items():
        if split in REAL:
            scores[split] = summarize_benchmark(split, ask(all_rows, split, "score"))
            continue
        suffix, benchmarks = "-ood" if split == "ood" else "", {}
        for kind in dict.fromkeys(row.kind for row in all_rows):
            rows = rows_of(all_rows, kind)
            predictions = ask(rows, split, f"score {kind}")
            summary = summarize(kind, predictions)
            if kind in BENCHMARKS:
                name = BENCHMARKS[kind] + suffix
                mixed = ask(shuffled(rows), split, f"{kind} with shuffled images", "shuffled")
                set_beside(summary, "shuffled", summarize(kind, mixed))
                if name in blind:
                    set_beside(summary, "blind", blind[name])
                scores[name], benchmarks[name] = summary, predictions
            else:
                scores.setdefault(kind, {})[split] = summary
            if samples:
                sampled = ask(rows, split, f"sample {kind}", "samples", samples=samples)
                summary["semantic_entropy"] = float(np.mean([p["semantic_entropy"] for p in sampled]))
                if kind in BENCHMARKS:
                    set_beside(summary, "sampled", summarize(kind, sampled))
                    agreed = [p | {"scores": {"accuracy": p["scores"]["consensus"]}} for p in sampled]
                    set_beside(summary, "consensus", summarize(kind, agreed))
            if attention and kind == "localization" and runtime.main:  # row by row: one rank is enough
                looks = watch(model, tokenizer, image_config, rows, predictions, journals["attention"])
                summary["attention"] = {k: float(np.mean([look[k] for look in looks])) for k in ("inside", "area")}
        if benchmarks:
            scores["overall" + suffix] = float(np.mean([scores[name]["avg"] for name in benchmarks]))
            low_high = overall_interval(list(benchmarks.values()))
            scores.setdefault("intervals", {})["overall" + suffix] = low_high
    runtime.say(as_text(tables(scores) + extras(scores) + overview(scores)))
    return scores, journals["predictions"].records


def some(items, most=24):
    """At most so many of the items, evenly from all of them."""
    return items[:: -(-len(items) // most)] if items else []


def write_scores(folder, scores, answers):
    """Keep every answer, draw some boxes, and write scores.json last: it marks the folder as done."""
    write_jsonl(folder / "predictions.jsonl", answers)
    if boxes := [p for p in answers if p["split"] == "test" and p["question_type"] == "localization"]:
        draw_samples(some(boxes), folder / "samples.png")
    if (folder / "attention.jsonl").exists():
        draw_attention(some(read_jsonl(folder / "attention.jsonl")), folder / "attention.png")
    write_json(folder / "scores.json", scores)
