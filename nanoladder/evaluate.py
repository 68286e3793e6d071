"""The one evaluation loop: ask every row, decode, score with nanoladder/rewards.py, keep every answer.

    predictions = predict(model, tokenizer, image_config, rows)
    scores = Summary(train_rows, image_config)("localization", predictions)
"""

import dataclasses
import time
from collections import Counter, defaultdict
from functools import cached_property

import numpy as np
import torch
from PIL import Image, ImageDraw
from tqdm import tqdm

from nanoladder.common import progress, write_json, write_jsonl
from nanoladder.dataset import CHOICES, boxes_in_input, encode_prompt, prompt_text, rows_of, target_text
from nanoladder.generate import generate
from nanoladder.image import fit
from nanoladder.rewards import box_iou, exact_match, parse_boxes, relative_accuracy, score_answer, score_boxes


@torch.no_grad()
def predict(model, tokenizer, image_config, rows, batch_size=128, max_new_tokens=128, temperature=0.0, say=None,
            title="evaluate"):  # fmt: skip
    """Answers to `rows` with their scores: a list of dicts in the rows' order, ready for predictions.jsonl.

    Greedy at temperature 0. Rows to be thought about first (read_kinds(..., think=True)) are asked and scored so.
    """
    model.eval()
    generator = torch.Generator(model.lm_head.weight.device).manual_seed(0)
    start, predictions = time.time(), [None] * len(rows)
    # Alike answers together: a batch runs until its longest is done.
    order = sorted(range(len(rows)), key=lambda i: (len(rows[i].images), len(target_text(rows[i], image_config)), i))
    bar = progress(total=len(rows), desc=title, unit="row")
    for first in range(0, len(order), batch_size):
        batch = order[first : first + batch_size]
        prompts = [encode_prompt(rows[i], tokenizer, image_config, model.config, ask=True) for i in batch]
        completions = generate(
            model, prompts, max_new_tokens, tokenizer.eos_ids, temperature, tokenizer.vision_ids, generator=generator
        )
        for i, answer in zip(batch, completions.texts(tokenizer)):
            predictions[i] = _prediction(rows[i], answer, image_config)
            predictions[i]["decoding"] = {"temperature": temperature, "max_new_tokens": max_new_tokens}
        bar.update(len(batch))
    bar.close()
    if say is not None:
        say(f"{title}: {len(rows)} rows in {time.time() - start:.1f} s")
    return predictions


def _prediction(row, answer, image_config):
    record = {
        "question_id": row.question_id,
        "question_type": row.question_type,
        "level": row.level,
        "images": [str(path) for path in row.images],
        "input_size": fit(row.sizes[0], image_config),
        "prompt": prompt_text(row),
        "options": len(row.options),
        "answer": answer,
    }
    if row.is_localization:
        truth = boxes_in_input(row, image_config)
        return record | {"truth": truth, "scores": score_boxes(answer, truth)}
    return record | {"truth": row.answer, "scores": score_answer(answer, row)}


# ---------------------------------------------------------------- summaries

BENCHMARKS = {"single_image": "rooms-si", "multi_view": "rooms-mv", "video": "rooms-video"}  # spatial rows, by kind


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
        if kind == "seeing":
            return summarize_answers(predictions, self.rows[kind])
        return summarize_spatial(predictions, self.rows[kind])


def summarize_localization(predictions, constant_box):
    """Mean scores, all and per level, with those of answering every question by one and the same box.

    Returns {"iou", "acc50", "valid_json", "label_f1", "constant_iou", "n", "levels": {"1": {...}, ...}}.
    """

    kinds = ("iou", "acc50", "valid_json", "label_f1")

    def means(items):
        scores = {k: float(np.mean([p["scores"][k] for p in items])) for k in kinds}
        constant = [np.mean([box_iou(constant_box, t["bbox_2d"]) for t in p["truth"]]) for p in items]
        return scores | {"constant_iou": float(np.mean(constant)), "n": len(items)}

    levels = sorted({p["level"] for p in predictions})
    return means(predictions) | {"levels": {str(v): means([p for p in predictions if p["level"] == v]) for v in levels}}


def best_constant_box(rows, image_config):
    """The box with the highest mean IoU against the rows' true boxes, by coordinate ascent from the median box.

    It is what a model gets that never looks: fitted on training rows, scored on held-out ones.
    """
    truth = np.array([item["bbox_2d"] for row in rows for item in boxes_in_input(row, image_config)], dtype=float)

    def mean_iou(box):
        low, high = np.maximum(truth[:, :2], box[:2]), np.minimum(truth[:, 2:], box[2:])
        inter = (high - low).clip(min=0).prod(axis=1)
        areas = (truth[:, 2:] - truth[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod()
        return (inter / (areas - inter)).mean()

    box = np.median(truth, axis=0)
    best = mean_iou(box)
    for step in (8, 4, 2, 1):
        improved = True
        while improved:
            improved = False
            for move in np.concatenate([np.eye(4), -np.eye(4)]) * step:
                candidate = box + move
                if (candidate[2:] > candidate[:2]).all() and mean_iou(candidate) > best + 1e-9:
                    box, best, improved = candidate, mean_iou(candidate), True
    return [round(v) for v in box.tolist()]


def summarize_answers(predictions, train_rows):
    """Exact-match accuracy, all and per question type, beside that of the type's most frequent training answer."""
    commonest = {}
    for kind in {p["question_type"] for p in predictions}:
        answers = Counter(row.answer for row in train_rows if row.question_type == kind)
        commonest[kind] = answers.most_common(1)[0][0] if answers else ""

    def means(items):
        return {
            "accuracy": float(np.mean([p["scores"]["accuracy"] for p in items])),
            "constant": float(np.mean([exact_match(commonest[p["question_type"]], p["truth"]) for p in items])),
            "n": len(items),
        }

    types = {kind: means([p for p in predictions if p["question_type"] == kind]) for kind in sorted(commonest)}
    return means(predictions) | {"types": types}


def best_number(answers):
    """The constant with the highest mean MRA over positive numbers [N], and that MRA."""
    grid = np.geomspace(min(answers) / 1.5, max(answers) * 1.5, 600)
    scores = relative_accuracy(grid[:, None], np.asarray(answers)[None]).mean(1)
    return float(grid[scores.argmax()]), float(scores.max())


def summarize_spatial(predictions, train_rows, resamples=1000, seed=0):
    """The table of SpatialLadder's paper for one benchmark, beside the best constant answer to each type.

    A type's score is its mean accuracy; relative direction's is the mean of easy, medium and hard, told by their number
    of options (VSI-Bench). nq and mcq are means over numeric and multiple-choice types, avg over all types: a macro
    average. interval: 95 % of a bootstrap over rows.
    Returns {"avg", "nq", "mcq", "constant", "interval", "n", "types": {type: {"accuracy", "constant", ...}}}, and where
    answers were thought about first "format": the share of completions of the right form.
    """
    rng, forms = np.random.default_rng(seed), {}
    for p in predictions:
        forms.setdefault(p["question_type"], {}).setdefault(p["options"], []).append(p)
    types, drawn = {}, {}
    for kind in sorted(forms):
        means, draws, constants = [], [], []
        for options, items in forms[kind].items():
            scores = np.array([p["scores"]["accuracy"] for p in items])
            met = [r.answer for r in train_rows if r.question_type == kind and len(r.options) == options]
            constants.append(_constant_score(met, [p["truth"] for p in items], choice=options > 0))
            means.append(scores.mean())
            draws.append(scores[rng.integers(0, len(scores), (resamples, len(scores)))].mean(axis=1))
        drawn[kind] = np.mean(draws, axis=0)
        types[kind] = {"accuracy": float(np.mean(means)), "constant": float(np.mean(constants)),
                       "interval": _interval(drawn[kind]), "n": sum(map(len, forms[kind].values()))}  # fmt: skip

    def mean(field, chosen):
        return float(np.mean([types[kind][field] for kind in chosen])) if chosen else None

    choices = [kind for kind in types if kind in CHOICES]
    formats = [p["scores"]["format"] for p in predictions if "format" in p["scores"]]
    thinking = {"format": float(np.mean(formats))} if formats else {}
    return thinking | {
        "avg": mean("accuracy", list(types)),
        "nq": mean("accuracy", [kind for kind in types if kind not in choices]),
        "mcq": mean("accuracy", choices),
        "constant": mean("constant", list(types)),
        "interval": _interval(np.mean(list(drawn.values()), axis=0)),
        "n": len(predictions),
        "types": types,
    }


def _constant_score(met, truth, choice):
    """Mean score on `truth` of the one answer that was best on `met`; 0 where training has no such question."""
    if not met:
        return 0.0
    if choice:
        guess = Counter(met).most_common(1)[0][0]
        return np.mean([t == guess for t in truth])
    guess, _ = best_number([float(a) for a in met])
    return np.mean([relative_accuracy(guess, float(t)) for t in truth])


def _interval(values):
    return [float(v) for v in np.quantile(values, (0.025, 0.975))]


def shuffled(rows):
    """The rows with one another's pictures: what is still answered right never needed them."""
    return [dataclasses.replace(row, images=other.images) for row, other in zip(rows, rows[1:] + rows[:1])]


def line(scores):
    """Scores as words, numbers only."""
    numbers = {k: v for k, v in scores.items() if isinstance(v, (int, float))}
    return ", ".join(f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}" for k, v in numbers.items())


def validate(model, tokenizer, image_config, rows, summarize, step, **decoding):
    """Scores of a few rows on the way, one printed line for each of their kinds: {kind: summary}."""
    scores = {}
    for kind in dict.fromkeys(row.kind for row in rows):
        asked = rows_of(rows, kind)
        scores[kind] = summarize(kind, predict(model, tokenizer, image_config, asked, title="validate", **decoding))
        tqdm.write(f"step {step}: validation, {kind}: {line(scores[kind])}")
    return scores


def score_splits(model, tokenizer, image_config, splits, summarize, say, **decoding):
    """Score rows of every kind in splits {"test": rows, "ood": rows}, printing the tables: (scores, predictions).

    scores is what scores.json holds: {"localization": {"test", "ood"}, "seeing": likewise, "rooms-si", "rooms-si-ood",
    ..., "overall": mean of the benchmarks' averages, "overall-ood"}; a benchmark's summary also has "shuffled".
    decoding: max_new_tokens and temperature of predict.
    """
    scores, answers = {}, []

    def ask(rows, title):
        return predict(model, tokenizer, image_config, rows, say=say, title=title, **decoding)

    for split, all_rows in splits.items():
        suffix, averages = "-ood" if split == "ood" else "", []
        for kind in dict.fromkeys(row.kind for row in all_rows):
            rows = rows_of(all_rows, kind)
            predictions = ask(rows, f"score {split}, {kind}")
            answers += [{"split": split} | p for p in predictions]
            summary = summarize(kind, predictions)
            if kind in BENCHMARKS:
                summary["shuffled"] = summarize(kind, ask(shuffled(rows), "with shuffled images"))["avg"]
                scores[BENCHMARKS[kind] + suffix] = summary
                averages.append(summary["avg"])
            else:
                scores.setdefault(kind, {})[split] = summary
            say(f"{kind}, {split}: {line(summary)}")
            for key, value in summary.get("levels", summary.get("types", {})).items():
                say(f"  {key:>18}: {line(value)}")
        if averages:
            scores["overall" + suffix] = sum(averages) / len(averages)
            say(f"overall, {split}: {scores['overall' + suffix]:.3f}")
    return scores, answers


def write_scores(folder, scores, answers):
    """Keep every answer, draw some boxes, and write scores.json last: it marks the folder as done."""
    write_jsonl(folder / "predictions.jsonl", answers)
    if boxes := [p for p in answers if p["split"] == "test" and p["question_type"] == "localization"]:
        draw_samples(boxes[:: max(1, len(boxes) // 24)][:24], folder / "samples.png")
    write_json(folder / "scores.json", scores)


# ---------------------------------------------------------------- pictures


def draw_samples(predictions, path, tile=192, columns=4):
    """One PNG of localization answers: true boxes in white, predicted ones in colour, IoU below."""
    colours = ["#ff5a5f", "#3fb6ff", "#ffc53d", "#5fd068", "#c58bff"]
    margin, caption = 8, 30
    rows = -(-len(predictions) // columns)
    sheet = Image.new("RGB", (columns * (tile + margin) + margin, rows * (tile + caption + margin) + margin), "#16181d")
    draw = ImageDraw.Draw(sheet)
    for k, p in enumerate(predictions):
        left = margin + k % columns * (tile + margin)
        top = margin + k // columns * (tile + caption + margin)
        with Image.open(p["images"][0]) as image:
            width, height = p["input_size"]  # boxes are in pixels of the picture as the model saw it
            scale = tile / max(width, height)
            size = (round(width * scale), round(height * scale))
            sheet.paste(image.convert("RGB").resize(size), (left, top))

        def place(box, scale=scale, left=left, top=top):
            return [left + box[0] * scale, top + box[1] * scale, left + box[2] * scale, top + box[3] * scale]

        for t in p["truth"]:
            draw.rectangle(place(t["bbox_2d"]), outline="white", width=1)
        for colour, item in zip(colours, parse_boxes(p["answer"]) or []):
            box = [min(max(v, 0), limit) for v, limit in zip(item["bbox_2d"], (width, height) * 2)]
            if box[0] < box[2] and box[1] < box[3]:
                draw.rectangle(place(box), outline=colour, width=2)
                draw.text((left + box[0] * scale + 3, top + box[1] * scale + 1), item["label"], fill=colour)
        draw.text((left, top + tile + 2), p["prompt"][:34], fill="#d8dbe2")
        draw.text((left, top + tile + 14), f"IoU {p['scores']['iou']:.2f}  level {p['level']}", fill="#8d93a1")
    sheet.save(path)
