"""Batched sampling with a KV cache.

Prompts are padded on the left, so that all completions start in the same column. Each prompt's
pictures and text are computed once for its whole group of samples. `python -m nanoladder.ask` shows
an answer while it is decoded.
"""

from bisect import bisect_right
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from nanoladder.model import KVCache, Qwen2_5_VL
from nanoladder.repetition import penalize, said_in

# Patches encoded at once: as many as a CPU's cache, or a GPU's memory, holds.
CPU_PATCHES, GPU_PATCHES = 1200, 100_000


class Completions(NamedTuple):
    """All G samples of the first prompt, then of the second; C is the length of the longest."""

    ids: Tensor  # [B*G, C], filled with the first end id after the end
    mask: Tensor  # [B*G, C], true up to and including the first end token
    logprobs: Tensor  # [B*G, C] of policy_logprobs, 0 after the end

    def texts(self, tokenizer) -> list[str]:
        """The text of each sample, without the token that ends it."""
        ends, lengths = tokenizer.eos_ids, self.mask.sum(dim=1).tolist()
        kept = [own[:length] for own, length in zip(self.ids.tolist(), lengths)]
        return [tokenizer.decode([token for token in own if token not in ends]) for own in kept]

    def cut(self, eos_ids) -> list[bool]:
        """Whether the limit on new tokens ended each sample, which then holds no end token."""
        return (~torch.isin(self.ids, self.ids.new_tensor(eos_ids)).any(dim=1)).tolist()


def policy_logprobs(logits: Tensor, temperature: float = 1.0, banned_ids=()) -> Tensor:
    """Log-probabilities [..., V] of the policy in fp32, the same for the sampler and the trainer.

    Banned ids get probability 0: vision placeholders, whose places no picture could fill.
    """
    banned = torch.as_tensor(banned_ids, dtype=torch.long, device=logits.device)
    return (logits.float() / temperature).index_fill(-1, banned, -torch.inf).log_softmax(dim=-1)


def left_pad(prompts: list[dict], pad_id: int, device) -> tuple[Tensor, Tensor, Tensor]:
    """input_ids [B, T], position_ids [3, B, T], bool valid [B, T] of prompts padded on the left."""
    longest = max(len(prompt["input_ids"]) for prompt in prompts)
    ids = torch.full((len(prompts), longest), pad_id)
    positions = torch.zeros(3, len(prompts), longest, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        length = len(prompt["input_ids"])
        ids[row, longest - length :] = torch.as_tensor(prompt["input_ids"])
        positions[:, row, longest - length :] = torch.as_tensor(prompt["position_ids"])
    lengths = torch.tensor([len(prompt["input_ids"]) for prompt in prompts])
    valid = torch.arange(longest) >= longest - lengths[:, None]
    return ids.to(device), positions.to(device), valid.to(device)


def encode_pictures(model: Qwen2_5_VL, prompts: list[dict], device) -> list[Tensor]:
    """image_embeds [M, D] of every prompt that has pictures.

    Prompts that share one pixel_values tensor ask about the same pictures, which are encoded once.
    A prompt that has image_embeds already keeps them.
    """
    limit = GPU_PATCHES if device.type == "cuda" else CPU_PATCHES
    shown = [prompt for prompt in prompts if prompt.get("grid_thw")]
    embeds = {id(p["pixel_values"]): p["image_embeds"] for p in shown if "image_embeds" in p}
    waiting = {id(p["pixel_values"]): p for p in shown if id(p["pixel_values"]) not in embeds}
    waiting = list(waiting.values())
    while waiting:
        reach = list(accumulate(len(prompt["pixel_values"]) for prompt in waiting))
        few = waiting[: max(1, bisect_right(reach, limit))]
        waiting = waiting[len(few) :]
        pixel_values = torch.cat([prompt["pixel_values"] for prompt in few]).to(device)
        grids = [grid for prompt in few for grid in prompt["grid_thw"]]
        encoded = model.visual(pixel_values, grids)
        merged = model.config.vision.spatial_merge_size**2  # patches in an image token
        lengths = [len(prompt["pixel_values"]) // merged for prompt in few]
        embeds |= {id(p["pixel_values"]): own for p, own in zip(few, encoded.split(lengths))}
    return [embeds[id(prompt["pixel_values"])] for prompt in shown]


@torch.no_grad()
def generate(
    model: Qwen2_5_VL,
    prompts: list[dict],
    max_new_tokens: int,
    eos_ids: list[int],
    temperature: float = 0.0,
    banned_ids=(),
    group_size: int = 1,
    generator: torch.Generator | None = None,
    on_token=None,
    repetition_penalty: float = 1.0,
) -> Completions:
    """Complete each prompt group_size times; greedy at temperature 0, else from the pure softmax.

    prompts: dicts of batches.encode_prompt(..., ask=True), with image_embeds where these are known
    already. generator: on the model's device, for samples that can be repeated. on_token(ids) gets
    the new tokens of the rows that are still carried along, so use it with one prompt and one
    sample. A repetition_penalty other than 1 changes what is sampled from (repetition.py).
    """
    device = model.lm_head.weight.device
    prompt, hidden, position, seen = prefill(model, prompts, eos_ids[0], device)
    B, G = len(prompts), group_size
    cache = KVCache.empty(model.config, B * G, max_new_tokens, device, prompt.keys.dtype, prompt)
    hidden, position = (x.repeat_interleave(G, dim=0) for x in (hidden, position))  # [B*G, ...]
    said = said_in(prompts, model.config.vocab_size).repeat_interleave(G, dim=0).to(device)
    ends, banned = (torch.tensor(part, device=device).long() for part in (eos_ids, banned_ids))
    rows = torch.arange(B * G, device=device)  # rows of the result that are still carried along
    alive = torch.ones(B * G, dtype=torch.bool, device=device)
    ids = torch.full((B * G, max_new_tokens), eos_ids[0], device=device)
    chosen = torch.zeros(B * G, max_new_tokens, device=device)
    for step in range(max_new_tokens):
        logits = penalize(model.lm_head(hidden), said, repetition_penalty)  # [rows, V]
        logprobs = policy_logprobs(logits, temperature or 1.0, banned)
        token = draw(logprobs, temperature, generator)  # [rows, 1]
        ids[rows, step], chosen[rows, step] = token[:, 0], logprobs.gather(1, token)[:, 0]
        if on_token:
            on_token(token[:, 0])
        alive = alive & ~torch.isin(token[:, 0], ends)
        groups = alive.view(-1, G).cpu()  # the only time a step that the CPU waits for a GPU
        if step + 1 == max_new_tokens or not groups.any():
            break
        keep, asked = unfinished(groups)
        if 2 * len(keep) <= len(rows):  # half of the rows can be dropped
            keep, asked = keep.to(device), asked.to(device)
            rows, alive, token, position = rows[keep], alive[keep], token[keep], position[keep]
            said, seen = said[keep], None if seen is None else seen[asked]
            cache, G = cache.select(keep, asked), len(keep) // len(asked)
        said.scatter_(1, token, True)
        hidden = model(token, position.expand(3, -1)[..., None], None, seen, cache)[:, -1]
        position = position + 1
    is_end = torch.isin(ids, ends)
    mask = is_end.cumsum(dim=1) - is_end.long() == 0  # true up to and including the first end
    ids, chosen = ids.masked_fill(~mask, eos_ids[0]), chosen.masked_fill(~mask, 0.0)
    return Completions(ids[:, : step + 1], mask[:, : step + 1], chosen[:, : step + 1])


def unfinished(groups: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and prompts to go on with, as indices; groups: bool [B, G], true for unfinished samples.

    All prompts that go on keep as many rows as the one with the most unfinished samples needs.
    """
    (B, G), most = groups.shape, int(groups.sum(dim=1).max())
    first = groups.int().argsort(dim=1, descending=True, stable=True)[:, :most]
    asked = groups.any(dim=1).nonzero()[:, 0]
    return (first + torch.arange(0, B * G, G)[:, None])[asked].flatten(), asked


def prefill(model, prompts, pad_id, device):
    """Run the prompts once -> their cache, last hidden state [B, D], next position [B], and mask.

    The mask [B, 1, 1, T] is true where a prompt has a token; None where no prompt is padded.
    """
    ids, positions, valid = left_pad(prompts, pad_id, device)
    B, T = ids.shape
    image_embeds = encode_pictures(model, prompts, device)
    image_embeds = torch.cat(image_embeds) if image_embeds else None
    causal = torch.ones(T, T, dtype=torch.bool, device=device).tril()
    itself = torch.eye(T, dtype=torch.bool, device=device)  # padding that sees nothing gives NaN
    padded = not bool(valid.all())
    mask = ((causal & valid[:, None]) | itself)[:, None] if padded else None  # [B, 1, T, T]
    cast = torch.is_autocast_enabled(device.type)  # then keys and values are of autocast's type
    dtype = torch.get_autocast_dtype(device.type) if cast else model.lm_head.weight.dtype
    cache = KVCache.empty(model.config, B, T, device, dtype)
    hidden = model(ids, positions, image_embeds, mask, cache)[:, -1]
    return cache, hidden, positions.amax(dim=(0, 2)) + 1, valid[:, None, None] if padded else None


def draw(logprobs: Tensor, temperature: float, generator) -> Tensor:
    """log-probabilities [rows, V] -> a token a row [rows, 1]; the likeliest at temperature 0."""
    if not temperature:
        return logprobs.argmax(dim=-1, keepdim=True)
    # One random number a row. torch.multinomial draws V of them, a sixth of a small model's time.
    heaped = logprobs.exp().cumsum(dim=-1)
    drawn = torch.rand(len(heaped), 1, generator=generator, device=heaped.device) * heaped[:, -1:]
    return torch.searchsorted(heaped, drawn, right=True)
