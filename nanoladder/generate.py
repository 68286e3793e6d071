"""Batched sampling with a KV cache. A prompt's pictures and text are computed once for its whole group.

Prompts are padded on the left so that all completions start in the same column; every token's position is
given, nothing is guessed from the padding.
"""

from bisect import bisect_right
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from nanoladder.model import KVCache, Qwen2_5_VL

# Patches that go through the vision tower at once. What stays in a CPU's cache is twice as fast; a GPU wants many, but
# its memory ends somewhere.
CPU_PATCHES, GPU_PATCHES = 1200, 100_000


class Completions(NamedTuple):
    """Rows: all samples of the first prompt, then of the second; C is the length of the longest."""

    ids: Tensor  # [B*G, C] filled with the first end id behind the end
    mask: Tensor  # [B*G, C] true up to and including the first end token
    logprobs: Tensor  # [B*G, C] under policy_logprobs, 0 behind the end

    def texts(self, tokenizer) -> list[str]:
        """What each sample says, without the token that ends it."""
        said = [ids[mask].tolist() for ids, mask in zip(self.ids, self.mask)]
        return [tokenizer.decode([token for token in own if token not in tokenizer.eos_ids]) for own in said]


def policy_logprobs(logits: Tensor, temperature: float = 1.0, banned_ids=()) -> Tensor:
    """Log-probabilities [..., V] of the policy, in fp32: one definition for the sampler and the trainer.

    Banned ids (vision placeholders: nothing could be put in their places) get probability 0.
    """
    logits = logits.float() / temperature
    if len(banned_ids):
        banned = torch.zeros(logits.shape[-1], dtype=torch.bool, device=logits.device)
        banned[torch.as_tensor(list(banned_ids), device=logits.device)] = True
        logits = logits.masked_fill(banned, float("-inf"))
    return logits.log_softmax(dim=-1)


def left_pad(prompts: list[dict], pad_id: int, device) -> tuple[Tensor, Tensor, Tensor]:
    """input_ids [B, T], position_ids [3, B, T] and bool valid [B, T] of prompts moved to the right edge."""
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
    """image_embeds [M, D] of every prompt with pictures, so many encoded at a time as the device holds well.

    Prompts that share one pixel_values tensor ask about the same pictures, which are encoded once; a prompt that brings
    its image_embeds keeps them.
    """
    limit = GPU_PATCHES if device.type == "cuda" else CPU_PATCHES
    shown = [prompt for prompt in prompts if prompt.get("grid_thw")]
    embeds = {id(prompt["pixel_values"]): prompt["image_embeds"] for prompt in shown if "image_embeds" in prompt}
    waiting = list({key: prompt for prompt in shown if (key := id(prompt["pixel_values"])) not in embeds}.values())
    while waiting:
        reach = list(accumulate(len(prompt["pixel_values"]) for prompt in waiting))
        few = waiting[: max(1, bisect_right(reach, limit))]
        waiting = waiting[len(few) :]
        pixel_values = torch.cat([prompt["pixel_values"] for prompt in few]).to(device)
        encoded = model.visual(pixel_values, [grid for prompt in few for grid in prompt["grid_thw"]])
        merged = model.config.vision.spatial_merge_size**2  # patches in an image token
        lengths = [len(prompt["pixel_values"]) // merged for prompt in few]
        embeds |= {id(prompt["pixel_values"]): own for prompt, own in zip(few, encoded.split(lengths))}
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
) -> Completions:
    """Complete each prompt group_size times; greedy at temperature 0, else from the pure softmax.

    prompts: dicts of input_ids [T], position_ids [3, T] (mrope_position_ids), and for those with pictures
    pixel_values [N, ...] and grid_thw, and image_embeds where they are known already. generator: on the model's device,
    for samples that can be repeated.
    """
    device, dtype = model.lm_head.weight.device, model.lm_head.weight.dtype
    ids, positions, valid = left_pad(prompts, eos_ids[0], device)
    (B, T), G = ids.shape, group_size
    image_embeds = encode_pictures(model, prompts, device)
    image_embeds = torch.cat(image_embeds) if image_embeds else None
    causal = torch.ones(T, T, dtype=torch.bool, device=device).tril()
    itself = torch.eye(T, dtype=torch.bool, device=device)  # padding must see something, or it turns into NaN
    mask = None if bool(valid.all()) else ((causal & valid[:, None]) | itself)[:, None]  # [B, 1, T, T]
    prompt = KVCache.empty(model.config, B, T, device, dtype)
    hidden = model(ids, positions, image_embeds, mask, prompt)[:, -1]  # [B, D]

    cache = KVCache.empty(model.config, B * G, max_new_tokens, device, dtype, prompt)
    hidden = hidden.repeat_interleave(G, dim=0)
    position = (positions.amax(dim=(0, 2)) + 1).repeat_interleave(G)  # [B*G]
    seen = None if mask is None else valid[:, None, None]  # [B, 1, 1, T]
    ends = torch.tensor(eos_ids, device=device)
    alive = torch.ones(B * G, dtype=torch.bool, device=device)
    rows = torch.arange(B * G, device=device)  # of the result, still carried along
    ids = torch.full((B * G, max_new_tokens), eos_ids[0], device=device)
    chosen = torch.zeros(B * G, max_new_tokens, device=device)
    for step in range(max_new_tokens):
        logprobs = policy_logprobs(model.lm_head(hidden), temperature or 1.0, banned_ids)  # [rows, V]
        if temperature:
            # One random number a row: torch.multinomial draws V of them, which takes nano a sixth of its time.
            heaped = logprobs.exp().cumsum(dim=-1)
            drawn = torch.rand(len(heaped), 1, generator=generator, device=device) * heaped[:, -1:]
            token = torch.searchsorted(heaped, drawn, right=True)  # [rows, 1]
        else:
            token = logprobs.argmax(dim=-1, keepdim=True)
        ids[rows, step], chosen[rows, step] = token[:, 0], logprobs.gather(1, token)[:, 0]
        alive = alive & ~torch.isin(token[:, 0], ends)
        groups = alive.view(-1, G)
        most = int(groups.sum(dim=1).max())
        if most == 0 or step + 1 == max_new_tokens:
            break
        asked = groups.any(dim=1)
        if 2 * int(asked.sum()) * most <= len(alive):  # half of the places can be freed, as many of each prompt
            first = torch.arange(0, len(alive), G, device=device)[:, None]
            keep = (first + groups.int().argsort(dim=1, descending=True, stable=True)[:, :most])[asked].flatten()
            rows, alive, token, position = rows[keep], alive[keep], token[keep], position[keep]
            cache, seen, G = cache.select(keep, asked), None if seen is None else seen[asked], most
        hidden = model(token, position.expand(3, -1)[..., None], None, seen, cache)[:, -1]
        position = position + 1
    is_end = torch.isin(ids, ends)
    mask = is_end.cumsum(dim=1) - is_end.long() == 0  # what follows the first end is no answer
    ids, chosen = ids.masked_fill(~mask, eos_ids[0]), chosen.masked_fill(~mask, 0.0)
    return Completions(ids[:, : step + 1], mask[:, : step + 1], chosen[:, : step + 1])
