"""The one evaluation loop: ask every row, decode, score with nanoladder/rewards.py, keep every answer.

    predictions = predict(model, tokenizer, image_config, rows)
    scores = summarize_localization(predictions, constant_box=best_constant_box(train_rows))
"""

import time
from collections import Counter

import numpy as np
import torch
from PIL import Image, ImageDraw

from nanoladder.common import progress
from nanoladder.dataset import boxes_in_input, encode_prompt, prompt_text, target_text
from nanoladder.generate import generate
from nanoladder.image import fit
from nanoladder.rewards import box_iou, exact_match, parse_boxes, score_answer, score_boxes


@torch.no_grad()
def predict(model, tokenizer, image_config, rows, batch_size=128, max_new_tokens=128, say=None, title="evaluate"):
    """Greedy answers to `rows` with their scores: a list of dicts in the rows' order, ready for predictions.jsonl."""
    model.eval()
    start, predictions = time.time(), [None] * len(rows)
    # Alike answers together: a batch runs until its longest is done.
    order = sorted(range(len(rows)), key=lambda i: (len(rows[i].images), len(target_text(rows[i], image_config)), i))
    bar = progress(total=len(rows), desc=title, unit="row")
    for first in range(0, len(order), batch_size):
        batch = order[first : first + batch_size]
        prompts = [encode_prompt(rows[i], tokenizer, image_config, model.config, ask=True) for i in batch]
        completions = generate(
            model, prompts, max_new_tokens=max_new_tokens, eos_ids=tokenizer.eos_ids, banned_ids=tokenizer.vision_ids
        )
        for i, ids, mask in zip(batch, completions.ids, completions.mask):
            answer = [token for token in ids[mask].tolist() if token not in tokenizer.eos_ids]
            predictions[i] = _prediction(rows[i], tokenizer.decode(answer), image_config)
            predictions[i]["decoding"] = {"temperature": 0, "max_new_tokens": max_new_tokens}
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
        "answer": answer,
    }
    if row.is_localization:
        truth = boxes_in_input(row, image_config)
        return record | {"truth": truth, "scores": score_boxes(answer, truth)}
    return record | {"truth": row.answer, "scores": score_answer(answer, row)}


# ---------------------------------------------------------------- summaries


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
