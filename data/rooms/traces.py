"""The cold start's traces: rows of cold.jsonl that think before they answer.

    python -m data.rooms.traces --data datasets/rooms-spatial
    python -m data.rooms.traces --data datasets/rooms-spatial --traces-from CHECKPOINT

The first command makes traces from the rationales in train/spatial.jsonl (see rationales.py). The
second samples answers from a model. It keeps one answer for each question, and only if the answer
earns full marks for its form and its content.

DATA/train/cold.jsonl has the fields of SpatialLadder's cold start (prompt, solution, image,
data_type) and those of our rows (question_id, question_type, options, unit, level). The flag
--traces of prepare.py writes this file as well.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from data.rooms.rationales import shuffled, trace_row, traces_from_truth
from nanoladder.batches import encode_prompt
from nanoladder.checkpoint import Policy
from nanoladder.command import UserError, parse, progress, setting
from nanoladder.files import lock, read_jsonl, write_jsonl
from nanoladder.generate import generate
from nanoladder.process import run_script
from nanoladder.rewards import reward
from nanoladder.runtime import start_runtime
from nanoladder.schema import read_rows

PAPER = 1255  # traces of SpatialLadder's cold start


@dataclass
class Settings:
    data: str = setting("datasets/rooms-spatial", "data folder with train/spatial.jsonl")
    traces: int = setting(PAPER, "traces to write", low=1, high=10**7)
    traces_from: str | None = setting(
        None, "run folder or Qwen2.5-VL folder whose answers to take instead of the truth"
    )
    tries: int = setting(
        8, "answers to sample for each question, at temperature 1", low=1, high=1000
    )
    max_new_tokens: int = setting(
        1024, "length in tokens at which an answer is dropped", low=1, high=10**5
    )
    seed: int = setting(0, "seed of the choice of questions, and of sampling", low=0, high=2**31)


def traces_from_model(folder, s, batch_size=16):
    """At most `s.traces` rows of cold.jsonl: right answers of the model at s.traces_from.

    folder: of the training split. The questions are tried in a random order.
    """
    device = start_runtime().device
    policy = Policy.load(s.traces_from, device=device)
    model, tokenizer = policy.model, policy.tokenizer
    raw, rows = read_jsonl(folder / "spatial.jsonl"), read_rows(folder / "spatial.jsonl")
    for row in rows:
        row.think = True
    order, found = shuffled(raw, np.random.default_rng([s.seed, 6])), []
    generator = torch.Generator(device).manual_seed(s.seed)
    bar = progress(total=s.traces, desc="traces", unit="trace")
    for first in range(0, len(order), batch_size):
        asked = order[first : first + batch_size]
        prompts = [
            encode_prompt(rows[i], tokenizer, policy.image_config, model.config, ask=True)
            for i in asked
        ]
        texts = generate(
            model,
            prompts,
            s.max_new_tokens,
            tokenizer.eos_ids,
            temperature=1.0,
            banned_ids=tokenizer.vision_ids,
            group_size=s.tries,
            generator=generator,
        ).texts(tokenizer)
        for k, i in enumerate(asked):
            tried = texts[k * s.tries : (k + 1) * s.tries]
            full_marks = {"format": 1.0, "accuracy": 1.0}
            right = [text for text in tried if reward(text, rows[i]) == full_marks]
            found += [trace_row(raw[i], text) for text in right[:1]]
        bar.update(min(len(found), s.traces) - bar.n)
        if len(found) >= s.traces:
            break
    bar.close()
    return found[: s.traces]


def main(argv):
    s = parse(Settings, argv, doc=__doc__)
    folder = Path(s.data) / "train"
    if not (folder / "spatial.jsonl").is_file():
        raise UserError(f"{folder / 'spatial.jsonl'}: no such file; name the rooms with --data")
    with lock(s.data):
        write_traces(folder, s)


def write_traces(folder, s):
    """Write folder/cold.jsonl. UserError where it exists, or where there is no trace to write."""
    target = folder / "cold.jsonl"
    if target.exists():
        raise UserError(f"{target} exists already; delete it to make other traces")
    if s.traces_from:
        found = traces_from_model(folder, s)
        lack = f"{s.traces_from} answered no question rightly and in the form that was asked for"
    else:
        found = traces_from_truth(folder, s.traces, s.seed)
        lack = (
            f"{folder / 'spatial.jsonl'}: no row has a rationale; "
            "make the rooms anew with data.rooms.prepare, or name a model with --traces-from"
        )
    if not found:
        raise UserError(lack)
    write_jsonl(target, found)
    print(f"{target}: {len(found)} traces")


if __name__ == "__main__":
    run_script(main)
