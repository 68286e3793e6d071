"""Asking a model: every row is answered, scored by nanoladder/rewards.py, and kept.

predictions = predict(policy, rows, start_runtime())      # policy: of checkpoint.Policy.load
"""

import dataclasses
import json
from collections import Counter

import numpy as np
import torch

from nanoladder.answers import answer_part, read_answer
from nanoladder.attention import image_attention, share_in_boxes
from nanoladder.batches import check_context, encode_prompt
from nanoladder.command import UserError, progress
from nanoladder.files import json_line, read_log, write_jsonl
from nanoladder.generate import generate
from nanoladder.image import resized_size
from nanoladder.prompts import boxes_in_input, prompt_text, target_text
from nanoladder.rewards import score_answer, score_boxes
from nanoladder.runtime import load_ahead

LARGE = 10**8  # parameters, above which few answers are decoded together
MAX_NEW_TOKENS = 192  # an answer that has not ended by then is cut; of a large model 1024
# On published benchmarks, without and with thinking, as SpatialLadder's evaluation has it.
PUBLISHED_TOKENS = {False: 128, True: 1024}


class Journal:
    """Answers in the order in which they were asked for; with a path, kept in a JSONL file.

    A scoring that was killed and is started again takes the file's answers and asks only for the
    rest. Its batches hold the same rows, so the file ends up the same. Only one rank writes.
    """

    def __init__(self, path=None, writes=True):
        self.path, self.writes, self.file, self.records, self.found = path, writes, None, [], []
        if path is not None:
            self.found = read_log(path)

    def replay(self, batch, prompts):
        """The kept answers to a batch of rows; None where they must be asked for."""
        kept = self.found[len(self.records) :][: len(batch)]
        if len(kept) < len(batch):
            return None
        for number, (record, row) in enumerate(zip(kept, batch), len(self.records) + 1):
            asked = row.question_id, prompt_text(row, prompts)
            if (record.get("question_id"), record.get("prompt")) != asked:
                raise UserError(
                    f"{self.path}:{number} answers another question than {row.where}: the rows "
                    "have changed since; delete the folder to score them anew"
                )
        self.records += kept
        return kept

    def keep(self, answers):
        """Add new answers, in the file first."""
        if self.path is not None and self.writes:
            if self.file is None:
                write_jsonl(self.path, self.records)  # without the part of a batch that a kill left
                self.file, self.found = open(self.path, "a", encoding="utf-8"), []
            self.file.writelines(json_line(answer) + "\n" for answer in answers)
            self.file.flush()
        self.records += answers
        return answers


@torch.no_grad()
def predict(
    policy,
    rows,
    runtime,
    batch_size=None,
    max_new_tokens=None,
    temperature=0.0,
    samples=0,
    journal=None,
    about=None,
    title="evaluate",
):
    """Answers to the rows with their scores: a list of dicts in the rows' order.

    Decoding is greedy at temperature 0, and uses the policy's repetition penalty. samples=N instead
    draws N answers to each row at temperature 1 and tells their "semantic_entropy". `about` is
    added to every dict, and `journal` keeps them on the way. Every rank must call this: each asks a
    share of every batch, all return all answers. UserError, before anything is decoded, where a
    question is longer than the model's context. batch_size and max_new_tokens depend on the model's
    size where they are None.
    """
    check_context(rows, *policy[1:3], policy.model.config)
    journal, predictions = journal or Journal(), [None] * len(rows)
    is_large = policy.model.num_parameters() > LARGE
    batch_size = batch_size or (8 * runtime.world if is_large else 128)
    max_new_tokens = max_new_tokens or (1024 if is_large else MAX_NEW_TOKENS)
    decoding = {"temperature": 1.0 if samples else temperature, "max_new_tokens": max_new_tokens}
    decoding["repetition_penalty"] = policy.repetition_penalty
    size, prompts = max(1, batch_size // max(1, samples)), policy.tokenizer.prompts
    order = asking_order(rows, policy.image_config, prompts)
    known = len(journal.found) - len(journal.records)  # rows whose answers are kept already

    def load(first):
        places = order[first : first + size]
        share = -(-len(places) // runtime.world)
        own = [rows[i] for i in places[share * runtime.rank :][:share]]  # neighbours stay together
        loaded = [] if first + len(places) <= known else own
        model = (policy.tokenizer, policy.image_config, policy.model.config)
        return first, places, own, [encode_prompt(row, *model, ask=True) for row in loaded]

    bar = progress(total=len(rows), desc=title, unit="row", disable=not runtime.main)
    for first, places, own, asked in load_ahead(load, range(0, len(order), size)):
        answers = journal.replay([rows[i] for i in places], prompts)
        if answers is None:
            answers = answer_batch(policy, own, asked, samples, decoding, first + runtime.rank)
            answers = [(about or {}) | answer for answer in answers]
            answers = journal.keep(runtime.gather(answers))
        for i, answer in zip(places, answers):
            predictions[i] = answer
        bar.update(len(places))
    bar.close()
    return predictions


def answer_batch(policy, batch, prompts, samples, decoding, seed):
    """Answers to a batch of rows, whose prompts encode_prompt has made.

    The batch's own seed makes it independent of the batches before it. "cut" is whether the limit
    on new tokens ended the answer; of N samples, how many it ended.
    """
    if not batch:
        return []
    (model, tokenizer, image_config, _), per_row = policy, max(1, samples)
    generator = torch.Generator(model.lm_head.weight.device).manual_seed(seed)
    ends, banned = tokenizer.eos_ids, tokenizer.vision_ids
    given = {"eos_ids": ends, "banned_ids": banned, "group_size": per_row, "generator": generator}
    completions = generate(model, prompts, **given, **decoding)
    texts, cut, answers = completions.texts(tokenizer), completions.cut(ends), []
    for k, row in enumerate(batch):
        own = slice(k * per_row, (k + 1) * per_row)
        if samples:
            scored = score_samples(texts[own], row) | {"cut": sum(cut[own])}
        else:
            scored = score_one(texts[k], row, image_config) | {"cut": cut[k]}
        question = describe(row, tokenizer, image_config)
        answers.append(question | scored | {"decoding": decoding})
    return answers


def asking_order(rows, image_config, prompts):
    """Indices of rows, sorted by their pictures and then by the length of the true answer.

    A batch runs until its longest answer is done, and encodes pictures that its rows share once.
    """

    def key(i):
        images = rows[i].images
        shared = images if len(images) > 1 else ()
        return len(images), shared, len(target_text(rows[i], image_config, prompts)), i

    return sorted(range(len(rows)), key=key)


def describe(row, tokenizer, image_config):
    """What was asked, and about what."""
    return {
        "question_id": row.question_id,
        "kind": row.kind,
        "question_type": row.question_type,
        "form": row.form,
        "task": row.task,
        "source": row.source,
        "level": row.level,
        "images": [str(path) for path in row.images],
        "input_size": resized_size(row.sizes[0], image_config),
        "prompt": prompt_text(row, tokenizer.prompts),
        "options": list(row.options),
    }


# ---------------------------------------------------------------- one answer, or several


def score_one(text, row, image_config):
    """An answer, what the scorer reads in it, the truth, and the scores."""
    truth = boxes_in_input(row, image_config) if row.form == "boxes" else row.answer
    scores = score_boxes(text, truth) if row.form == "boxes" else score_answer(text, row)
    return {"answer": text, "parsed": parse_answer(text, row), "truth": truth, "scores": scores}


def parse_answer(text, row):
    """What an answer states, as read_answer has it, texts in lower case; None where unreadable."""
    stated = read_answer(answer_part(text, row), row)
    if row.form == "text":
        return stated.strip().lower() or None
    return stated


def score_samples(texts, row):
    """Sampled answers to a row and their semantic entropy in nats.

    The entropy is 0 where all answers mean the same and ln N where all N differ. Answers mean the
    same if the scorer reads the same in them (after Kuhn et al., arXiv 2302.09664); those that it
    cannot read count as one meaning. Except for boxes there are also the truth and "scores": the
    mean "accuracy" of the samples, and the accuracy of their "consensus".
    """
    meanings = Counter(json.dumps(parse_answer(text, row), sort_keys=True) for text in texts)
    shares = np.array(list(meanings.values())) / len(texts)
    found = {"samples": texts, "semantic_entropy": float((shares * np.log(1 / shares)).sum())}
    if row.form == "boxes":
        return found
    accuracies = [score_answer(text, row)["accuracy"] for text in texts]
    agreed = score_answer(consensus(texts, row), row)["accuracy"]
    scores = {"accuracy": float(np.mean(accuracies)), "consensus": agreed}
    return found | {"truth": row.answer, "scores": scores}


def consensus(texts, row):
    """The sampled answer that would score best on average if each of them were the truth in turn.

    For choices it is the most frequent one (self-consistency, arXiv 2203.11171), for numbers the
    one with the highest expected MRA.
    """
    truths = []
    for answer in (answer_part(text, row) for text in texts):
        stated = read_answer(answer, row)
        if stated is not None:
            truth = str(stated) if row.form in ("choice", "number") else answer
            truths.append(dataclasses.replace(row, answer=truth))
    return max(texts, key=lambda text: sum(score_answer(text, t)["accuracy"] for t in truths))


# ---------------------------------------------------------------- attention


def measure_attention(policy, rows, predictions, journal):
    """Where the model looks while it writes the true boxes: one dict a row, in their order.

    All models write the same words here, so that one can compare them. "attention" is a weight for
    each image token, [rows, columns]. "inside" is the share of it that falls inside the asked
    objects' boxes, and "area" the share of the picture that these cover.
    """
    model, tokenizer, image_config, _ = policy
    for row, prediction in progress(list(zip(rows, predictions)), desc="attention", unit="row"):
        if journal.replay([row], tokenizer.prompts) is None:
            prompt = encode_prompt(row, tokenizer, image_config, model.config, ask=True)
            _, height, width = prompt["grid_thw"][0]
            answer = tokenizer.answer(target_text(row, image_config, tokenizer.prompts))
            weights = image_attention(model, prompt, answer)
            merge = image_config.merge_size
            weights = weights.reshape(height // merge, width // merge)
            boxes = [item["bbox_2d"] for item in prediction["truth"]]
            inside, area = share_in_boxes(weights, boxes, prediction["input_size"])
            names = ("split", "question_id", "images", "input_size", "prompt", "truth")
            same = {name: prediction[name] for name in names}
            rounded = [[float(f"{v:.3g}") for v in line] for line in weights.tolist()]
            journal.keep([same | {"inside": inside, "area": area, "attention": rounded}])
    return journal.records[-len(rows) :]
