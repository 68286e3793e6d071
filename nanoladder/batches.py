"""From rows to tensors: packing questions after their pictures, labels, batches, mixtures.

Questions about the same pictures become one sequence, so the pictures are encoded only once:

    prefix    <|im_start|>user <image>          segment 0, which everything after it attends to
    question  Locate the chair. ... answer      segment 1 attends to the prefix and to itself
    question  Locate the lamp.  ... answer      segment 2 likewise; it never sees segment 1

Each question starts at the position that follows the prefix. Its logits are therefore the same as
if it had been asked alone, and its words are the only cue to its answer.
"""

from collections import Counter
from functools import lru_cache
from itertools import cycle, islice

import numpy as np
import torch

from nanoladder.command import UserError
from nanoladder.image import grids_of, image_tokens, load_clips, pixel_values_of, preprocess
from nanoladder.model import mrope_position_ids
from nanoladder.photos import load_image
from nanoladder.prompts import prompt_text, target_text
from nanoladder.runtime import to_device

IGNORE_INDEX = -100  # a label without a loss, as in torch.nn.functional.cross_entropy
QUESTION = 30  # tokens of a question and a direct answer, about
PADDING_STEP = 16  # sequence lengths are rounded up to this, so that few shapes must be compiled


# ---------------------------------------------------------------- one sequence


def encode_prompt(row, tokenizer, image_config, model_config, ask=False):
    """What the model gets of a row: its pictures and, if `ask`, its question, ready for an answer.

    Returns input_ids [T] (a list), position_ids [3, T], next_position, grid_thw, a list of (frames,
    rows, columns) in patches, and pixel_values [N, ...] or, unless `ask`, the uint8 clips of which
    on_device makes them. These are a sixteenth of the bytes for a process that loads ahead.
    """
    is_video = row.data_type == "video"
    load = load_pixel_values if ask else load_bytes
    pictures, grid_thw = load(row.images, is_video, image_config)
    counts = [t * h * w // image_config.merge_size**2 for t, h, w in grid_thw]
    ids = tokenizer.prefix(counts, is_video)
    if ask:
        ids = ids + tokenizer.question(prompt_text(row, tokenizer.prompts))
    seconds = [image_config.temporal_patch_size * row.frame_seconds]
    grids = ([], grid_thw, seconds) if is_video else (grid_thw, [], [])
    position_ids, next_position = mrope_position_ids(ids, *grids, model_config)
    return {
        "input_ids": ids,
        "position_ids": position_ids,
        "next_position": next_position,
        "pixel_values" if ask else "clips": pictures,
        "grid_thw": grid_thw,
    }


def load_bytes(paths, is_video, image_config):
    """A row's pictures as uint8 clips, and their grids."""
    clips = load_clips([load_image(path) for path in paths], image_config, is_video)
    return clips, grids_of(clips, image_config)


@lru_cache(maxsize=4)  # rows about the same pictures follow one another and share this tensor
def load_pixel_values(paths, is_video, image_config):
    return preprocess([load_image(path) for path in paths], image_config, is_video)


def check_context(rows, tokenizer, image_config, model_config, answers=False):
    """UserError, naming the row, where a row's text alone is longer than the model's context.

    answers: whether what the row teaches counts, too.
    """
    longest = model_config.max_position_embeddings
    for row in rows:
        text = prompt_text(row, tokenizer.prompts)
        text += target_text(row, image_config, tokenizer.prompts) if answers else ""
        # A token is at least one byte long, so that most texts need not be encoded.
        if 4 * len(text) > longest and (length := len(tokenizer.encode(text))) > longest:
            raise UserError(
                f"{row.where}: {length} tokens of text, but the model's context has {longest}; "
                "shorten the row, or leave it out"
            )


class Dataset(torch.utils.data.Dataset):
    """Rows grouped by their kind and what they show: self.groups is a list of lists of rows.

    Item (epoch, i, k) is a sequence about the pictures of group i that asks up to k of its rows.
    Which ones is drawn from (seed, epoch, i) alone, so a resumed run needs no random state.
    extra: a function of (row, grid_thw) that returns more tensors, one line for each image token.
    """

    def __init__(self, rows, tokenizer, image_config, model_config, seed=0, extra=None):
        check_context(rows, tokenizer, image_config, model_config, answers=True)
        groups = {}
        for row in rows:
            shown = (row.kind, row.data_type, row.images, row.frame_seconds)
            groups.setdefault(shown, []).append(row)
        self.groups = list(groups.values())
        self.tokenizer, self.image_config, self.model_config = tokenizer, image_config, model_config
        self.seed, self.extra = seed, extra

    def __len__(self):
        return len(self.groups)

    def __getitem__(self, key):
        epoch, i, count = key
        group = self.groups[i]
        rng = np.random.default_rng([self.seed, epoch, i])
        return self.encode([group[j] for j in rng.permutation(len(group))], count)

    def length(self, key):
        """About how many tokens the sequence of a key has."""
        group, row = self.groups[key[1]], self.groups[key[1]][0]
        frames = self.image_config.temporal_patch_size if row.data_type == "video" else 1
        seen = -(-len(row.images) // frames) * image_tokens(row.sizes[0], self.image_config)
        return seen + QUESTION * min(len(group), key[2])

    def encode(self, rows, count=None):
        """The sequence that asks the first `count` rows; None asks all, 0 only shows the pictures.

        Returns what encode_prompt returns, with labels [T] (IGNORE_INDEX but on answers) and
        segments [T], as lists.
        """
        tok = self.tokenizer
        example = encode_prompt(rows[0], tok, self.image_config, self.model_config)
        ids, start = example["input_ids"], example["next_position"]
        positions = [example["position_ids"]]
        labels, segments = [IGNORE_INDEX] * len(ids), [0] * len(ids)
        for number, row in enumerate(rows[:count], 1):
            question = tok.question(prompt_text(row, tok.prompts))
            answer = tok.answer(target_text(row, self.image_config, tok.prompts))
            length = len(question) + len(answer)
            ids = ids + question + answer
            labels += [IGNORE_INDEX] * len(question) + answer
            segments += [number] * length
            positions.append(torch.arange(start, start + length).expand(3, -1))
        example |= {"input_ids": ids, "labels": labels, "segments": segments}
        example["position_ids"] = torch.cat(positions, dim=1)
        return example | (self.extra(rows[0], example["grid_thw"]) if self.extra else {})


# ---------------------------------------------------------------- batches


def round_up(length):
    return -(-length // PADDING_STEP) * PADDING_STEP


def collate(examples):
    """Sequences padded on the right to one batch; a padding token's segment is -1.

    input_ids, labels, segments [B, T]; position_ids [3, B, T]; any extra tensors one after another;
    grid_thw one list; clips a list for each sequence.
    """
    longest = max(len(example["input_ids"]) for example in examples)
    B, T = len(examples), round_up(longest)
    batch = {
        "input_ids": torch.zeros(B, T, dtype=torch.long),
        "labels": torch.full((B, T), IGNORE_INDEX),
        "segments": torch.full((B, T), -1),
        "position_ids": torch.zeros(3, B, T, dtype=torch.long),
    }
    for b, example in enumerate(examples):
        n = len(example["input_ids"])
        for name in ("input_ids", "labels", "segments"):
            batch[name][b, :n] = torch.tensor(example[name])
        batch["position_ids"][:, b, :n] = example["position_ids"]
    for name in examples[0].keys() - batch.keys() - {"next_position", "grid_thw", "clips"}:
        batch[name] = torch.cat([example[name] for example in examples])
    batch["clips"] = [example["clips"] for example in examples]
    batch["grid_thw"] = [grid for example in examples for grid in example["grid_thw"]]
    return batch


def on_device(batch, image_config, device):
    """A batch of collate on the device, where its clips become pixel_values [N, ...]."""
    moved = to_device(batch, device)
    clips = ([clip.to(device, non_blocking=True) for clip in own] for own in moved.pop("clips"))
    moved["pixel_values"] = torch.cat([pixel_values_of(own, image_config) for own in clips])
    return moved


def pack(prompts, ids, mask, device):
    """Put each prompt and all G of its answers into one sequence, for one forward pass.

    Every answer is a segment of its own (attention_mask): it sees the prompt and itself,
    and its positions start where the prompt ends. So its log-probabilities are those of the prompt
    and the answer alone. prompts: B of encode_prompt(..., ask=True). ids, mask: [B, G, C] on the
    CPU. Returns the model's inputs [B, T] on the device, and `predictor` [B, G, C]: the place in
    the sequence of the token from which each answer token is predicted.
    """
    (B, G, C), lengths = ids.shape, [len(prompt["input_ids"]) for prompt in prompts]
    T = round_up(max(n + int(m.sum()) for n, m in zip(lengths, mask)))
    batch = {
        "input_ids": torch.zeros(B, T, dtype=torch.long),
        "segments": torch.full((B, T), -1),
        "position_ids": torch.zeros(3, B, T, dtype=torch.long),
        "predictor": torch.zeros(B, G, C, dtype=torch.long),
    }
    answer = torch.arange(1, G + 1)[:, None].expand(G, C)
    place = torch.arange(C).expand(G, C)
    for b, (prompt, n) in enumerate(zip(prompts, lengths)):
        kept = mask[b]  # what follows an answer's end takes no room
        end = n + int(kept.sum())
        batch["input_ids"][b, :n] = torch.as_tensor(prompt["input_ids"])
        batch["input_ids"][b, n:end] = ids[b][kept]
        batch["segments"][b, :n] = 0
        batch["segments"][b, n:end] = answer[kept]
        batch["position_ids"][:, b, :n] = prompt["position_ids"]
        batch["position_ids"][:, b, n:end] = prompt["next_position"] + place[kept]
        batch["predictor"][b][kept] = torch.arange(n - 1, end - 1)
        batch["predictor"][b, :, 0] = n - 1  # the prompt's last token predicts an answer's first
    pictures = "image_embeds" if "image_embeds" in prompts[0] else "pixel_values"
    batch[pictures] = torch.cat([prompt[pictures] for prompt in prompts])
    batch["grid_thw"] = [grid for prompt in prompts for grid in prompt["grid_thw"]]
    return to_device(batch, device)


def attention_mask(segments):
    """segments [B, T] -> bool [B, 1, T, T]: earlier tokens of the prefix and of one's segment."""
    query, key = segments[:, None, :, None], segments[:, None, None, :]
    causal = torch.ones(segments.shape[1:] * 2, dtype=torch.bool, device=segments.device).tril()
    return causal & ((key == 0) | (key == query))


# ---------------------------------------------------------------- which example when


def plan_mixture(groups, shares, total, seed):
    """(epoch, group index) of `total` examples: shuffled passes over each kind, mixed by shares.

    shares: {kind: weight}. The plan depends on the seed alone, so a resumed run needs only its
    step.
    """
    piles = {}
    for i, group in enumerate(groups):
        if group[0].kind in shares:
            piles.setdefault(group[0].kind, []).append(i)
    turns = take_turns({kind: shares[kind] for kind in piles}, total)
    passes = {
        kind: iter(shuffled_passes(piles[kind], count, seed))
        for kind, count in Counter(turns).items()
    }
    return [next(passes[kind]) for kind in turns]


def shuffled_passes(pool, total, seed, epoch=0):
    """(epoch, member) of `total` members of the pool, each pass over it in a new order."""
    order = []
    while len(pool) and len(order) < total:
        shuffled = np.random.default_rng([seed, epoch]).permutation(pool)
        order += [(epoch, int(i)) for i in shuffled[: total - len(order)]]
        epoch += 1
    return order


def take_turns(weights, total, start=None):
    """Which pile gives the next example, `total` times: always the one furthest behind its weight.

    weights: {pile: weight}. start: {pile: place from which on it takes part}, 0 where not given.
    """
    start = start or {}
    due, turns, taken = dict.fromkeys(weights, 0.0), [], Counter()
    for n in range(total):
        present = [pile for pile in weights if n >= start.get(pile, 0)] or list(weights)
        for pile in present:
            due[pile] += weights[pile] / sum(weights[p] for p in present)
        turns.append(max(present, key=lambda pile: due[pile] - taken[pile]))
        taken[turns[-1]] += 1
    return turns


def deal_prompts(rows, total, seed):
    """Indices of `total` rows to ask.

    The kinds of rows take turns, within a kind its question types, and within a type its numbers of
    options, as the benchmarks' averages weigh them. So rare questions come as often as common ones.
    """
    piles = {}
    for i in np.random.default_rng(seed).permutation(len(rows)):
        forms = piles.setdefault(rows[i].kind, {}).setdefault(rows[i].question_type, {})
        forms.setdefault(len(rows[i].options), []).append(int(i))

    def deal(pile):
        if isinstance(pile, list):
            return cycle(pile)
        decks = cycle([deal(part) for part in pile.values()])
        return (next(deck) for deck in decks)

    return list(islice(deal(piles), total))
