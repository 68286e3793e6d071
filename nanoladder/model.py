"""Qwen2.5-VL from scratch: vision transformer, decoder, KV cache, M-RoPE (arXiv 2502.13923).

The same code runs a model of 2 million parameters and the published 3B and 7B; only the Config
differs. Parameters have the names of the published Hugging Face checkpoints. There is no dropout,
so train() and eval() change nothing. Read it from the bottom up: the whole model, the decoder, the
vision transformer, rotary positions.

Shapes: B batch, T tokens, S tokens attended to, D width, H heads, K key/value heads, Dh head width,
        N patches of all images, M merged patches (image tokens), L patches a segment, C channels.
"""

from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Grid = tuple[int, int, int]  # frames, rows and columns of one image or video, counted in patches


@dataclass(frozen=True)
class VisionConfig:
    """Shape of the vision transformer; fields are named as in Hugging Face's `vision_config`."""

    depth: int = 32
    hidden_size: int = 1280
    intermediate_size: int = 3420
    num_heads: int = 16
    out_hidden_size: int = 2048
    patch_size: int = 14  # pixels
    temporal_patch_size: int = 2  # frames
    spatial_merge_size: int = 2  # patches a side that become one image token
    window_size: int = 112  # pixels
    fullatt_block_indexes: tuple[int, ...] = (7, 15, 23, 31)
    tokens_per_second: int = 2  # time positions a second of video
    in_channels: int = 3


@dataclass(frozen=True)
class Config:
    """Shape of the whole model. The defaults are the published 3B's."""

    vision: VisionConfig = field(default_factory=VisionConfig)
    vocab_size: int = 151936
    hidden_size: int = 2048
    intermediate_size: int = 11008
    num_hidden_layers: int = 36
    num_attention_heads: int = 16
    num_key_value_heads: int = 2
    rope_theta: float = 1e6
    mrope_section: tuple[int, int, int] = (16, 24, 24)  # frequencies of time, height, width
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = True
    max_position_embeddings: int = 128000
    image_token_id: int = 151655
    video_token_id: int = 151656
    vision_start_token_id: int = 151652
    vision_end_token_id: int = 151653
    eos_token_id: int = 151645
    pad_token_id: int = 151643

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads


# A narrow head has few rotary frequencies. A word is compared with image tokens at any distance, so
# most frequencies must be slow (theta 10,000), and time gets the fastest. The width axis is
# then too slow to tell columns apart, and no token says which picture it belongs to. Therefore nano
# and small read three more channels: each pixel's x and y, and its picture's number
# (ImageConfig.coordinates).
PRESETS = {
    "nano": Config(
        VisionConfig(
            depth=4, hidden_size=128, intermediate_size=256, num_heads=4, out_hidden_size=128,
            patch_size=8, window_size=48, fullatt_block_indexes=(1, 3), in_channels=6,
        ),
        vocab_size=1024, hidden_size=128, intermediate_size=384, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=2, rope_theta=1e4, mrope_section=(2, 3, 11),
        max_position_embeddings=4096,
    ),
    "small": Config(
        VisionConfig(
            depth=8, hidden_size=384, intermediate_size=1024, num_heads=6, out_hidden_size=512,
            patch_size=8, window_size=48, fullatt_block_indexes=(3, 7), in_channels=6,
        ),
        vocab_size=1024, hidden_size=512, intermediate_size=1408, num_hidden_layers=8,
        num_attention_heads=8, num_key_value_heads=4, rope_theta=1e4, mrope_section=(4, 6, 22),
        max_position_embeddings=8192,
    ),
}  # fmt: skip


# ---------------------------------------------------------------------------- rotary positions


def rope_frequencies(theta: float, dim: int, device=None) -> Tensor:
    """Radians a step for each of the dim/2 rotating pairs: theta^(-2i/dim). -> [dim/2]"""
    return 1.0 / theta ** (torch.arange(0, dim, 2, device=device, dtype=torch.float32) / dim)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs (i, i + Dh/2) of x [..., Dh] by angles with cos, sin [..., Dh/2], in fp32."""
    a, b = x.float().chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1).type_as(x)


def mrope_position_ids(
    input_ids,
    image_grids: list[Grid],
    video_grids: list[Grid],
    second_per_grid_ts: list[float],
    config: Config,
) -> tuple[Tensor, int]:
    """Time, height and width position of every token of one sequence (Qwen2-VL, section 2.1).

    Text advances all three axes together. A picture's tokens stand at (start + time, start + row,
    start + column), rows and columns in merged patches. A still image takes no time scaling; a
    video's time is tokens_per_second * seconds in float32, as in transformers, truncated only at
    the end. What follows starts one past the largest position so far.

    input_ids: T ids. Grids in order of appearance. second_per_grid_ts: seconds of each video's
    steps. Returns position_ids [3, T] and the position of the next token. ValueError where
    placeholders and grids disagree.
        text, text, image of 2x2 tokens, text -> time   0 1 2 2 2 2 4
                                                 height 0 1 2 2 3 3 4
                                                 width  0 1 2 3 2 3 4
    """
    ids, merge = np.asarray(input_ids), config.vision.spatial_merge_size
    intervals = np.float32(config.vision.tokens_per_second) * np.float32(second_per_grid_ts)
    waiting = {  # the grids of pictures that are still to come, with the time between their frames
        config.image_token_id: [(grid, np.float32(1)) for grid in image_grids],
        config.video_token_id: list(zip(video_grids, intervals, strict=True)),
    }
    is_vision, parts, done, start = np.isin(ids, list(waiting)), [], 0, 0
    while done < len(ids):
        if not is_vision[done]:
            length = int(np.append(is_vision[done:], True).argmax())  # up to the next picture
            where = np.broadcast_to(np.arange(length), (3, length))
        else:
            known = waiting[ids[done]]
            (t, h, w), interval = known.pop(0) if known else ((0, 0, 0), 0)
            where = np.indices((t, h // merge, w // merge)).reshape(3, -1)  # [3, its tokens]
            length = where.shape[1]
            if not 0 < length == (ids[done : done + length] == ids[done]).sum():
                raise ValueError(f"placeholders from {done} on do not match their grid {(t, h, w)}")
            where[0] = (where[0].astype(np.float32) * interval).astype(np.int64)
        parts.append(where + start)
        done, start = done + length, start + int(where.max()) + 1
    if any(waiting.values()):
        raise ValueError("more image or video grids than runs of placeholder tokens")
    return torch.from_numpy(np.concatenate(parts or [np.zeros((3, 0), np.int64)], axis=1)), start


def mrope_tables(position_ids: Tensor, config: Config) -> tuple[Tensor, Tensor]:
    """position_ids [3, B, T] -> cos, sin [B, 1, T, Dh/2]; a section of frequencies has one axis."""
    frequencies = rope_frequencies(config.rope_theta, config.head_dim, position_ids.device)
    angle = position_ids[..., None] * frequencies  # [3, B, T, Dh/2]
    sections = angle.split(config.mrope_section, dim=-1)
    angle = torch.cat([section[axis] for axis, section in enumerate(sections)], dim=-1)
    return angle.cos()[:, None], angle.sin()[:, None]


# ---------------------------------------------------------------------------- vision


class Segments(NamedTuple):
    """Which patches attend to one another: runs of one length, or padded to the longest."""

    length: int  # L, of the longest
    gather: Tensor | None  # [segments * L] patch at each padded place; None if all are L long
    scatter: Tensor | None  # [N] padded place of each patch
    mask: Tensor | None  # [segments, 1, 1, L] true where a place holds a patch


class VisionPlan(NamedTuple):
    """What depends on the images' sizes alone; patches are in the order of their windows."""

    order: Tensor  # [M] merged patches, window after window
    inverse: Tensor  # [M] back to the order of reading
    cos: Tensor  # [N, 1, 1, Dh/2]
    sin: Tensor  # [N, 1, 1, Dh/2]
    windows: Segments
    frames: Segments


def make_segments(lengths: Tensor, device) -> Segments:
    """Segments of consecutive runs of the given lengths."""
    longest = int(lengths.max())
    if bool((lengths == longest).all()):
        return Segments(longest, None, None, None)
    mask = torch.arange(longest) < lengths[:, None]  # [segments, L]
    scatter = mask.flatten().nonzero()[:, 0]  # [N]
    gather = torch.zeros(mask.numel(), dtype=torch.long)
    gather[scatter] = torch.arange(len(scatter))
    return Segments(longest, gather.to(device), scatter.to(device), mask[:, None, None].to(device))


@lru_cache(maxsize=1024)
def plan_grid(config: VisionConfig, grid: Grid) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One picture's window order [M], patches a window and a frame, and rows and columns [N, 2]."""
    (t, h, w), m = grid, config.spatial_merge_size
    if h % m or w % m or min(grid) < 1:
        raise ValueError(f"grid {grid} is not made of whole {m} x {m} blocks of patches")
    side = config.window_size // (config.patch_size * m)  # of a window, in merged patches
    # Of each merged patch, [t, h/m, w/m]; flattened in the order of reading it is [M].
    frame, row, col = torch.meshgrid(*map(torch.arange, (t, h // m, w // m)), indexing="ij")
    tall, wide = -(-h // (m * side)), -(-w // (m * side))  # windows a column, a row: none is empty
    window = ((frame * tall + row // side) * wide + col // side).flatten()  # [M]
    order = window.argsort(stable=True)
    inner = torch.cartesian_prod(torch.arange(m), torch.arange(m))  # [m*m, 2]
    place = torch.stack((row, col), dim=-1).view(-1, 1, 2) * m + inner  # [M, m*m, 2]
    return order, window.bincount() * m * m, torch.full((t,), h * w), place[order].view(-1, 2)


@lru_cache(maxsize=16)  # a plan of large pictures takes 30 MB
@torch.inference_mode(False)  # a plan made while generating serves training too
@torch.no_grad()
def plan_vision(config: VisionConfig, grids: tuple[Grid, ...], device: torch.device) -> VisionPlan:
    """The plan of a list of pictures, made on the CPU and copied to the device."""
    orders, windows, frames, places = zip(*(plan_grid(config, grid) for grid in grids), strict=True)
    starts = np.cumsum([0] + [len(order) for order in orders[:-1]])
    order = torch.cat([order + int(start) for order, start in zip(orders, starts, strict=True)])
    frequencies = rope_frequencies(10000.0, config.hidden_size // config.num_heads // 2)  # [Dh/4]
    angle = (torch.cat(places)[..., None] * frequencies).view(-1, 1, 1, 2 * len(frequencies))
    angle = angle.to(device)
    return VisionPlan(
        order.to(device), order.argsort().to(device), angle.cos(), angle.sin(),
        make_segments(torch.cat(windows), device), make_segments(torch.cat(frames), device),
    )  # fmt: skip


class SwiGLU(nn.Module):
    def __init__(self, width: int, hidden: int, bias: bool):
        super().__init__()
        self.gate_proj = nn.Linear(width, hidden, bias=bias)
        self.up_proj = nn.Linear(width, hidden, bias=bias)
        self.down_proj = nn.Linear(hidden, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class PatchEmbed(nn.Module):
    """A convolution whose stride is its kernel, so a linear layer; its stored weight is 5-D."""

    def __init__(self, c: VisionConfig):
        super().__init__()
        kernel = (c.temporal_patch_size, c.patch_size, c.patch_size)
        self.proj = nn.Conv3d(c.in_channels, c.hidden_size, kernel, stride=kernel, bias=False)

    def forward(self, pixel_values: Tensor) -> Tensor:
        weight = self.proj.weight.flatten(1)  # [D, C*2*p*p]
        return F.linear(pixel_values.to(weight.dtype), weight).to(weight.dtype)  # [N, D]


class VisionAttention(nn.Module):
    def __init__(self, c: VisionConfig):
        super().__init__()
        self.num_heads = c.num_heads
        self.qkv = nn.Linear(c.hidden_size, 3 * c.hidden_size)
        self.proj = nn.Linear(c.hidden_size, c.hidden_size)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, segments: Segments) -> Tensor:
        """x [N, D] -> [N, D], each patch attending to those of its segment."""
        length, gather, scatter, mask = segments
        qkv = self.qkv(x).view(len(x), 3, self.num_heads, -1)  # [N, 3, H, Dh]
        qkv = torch.cat((rotate(qkv[:, :2], cos, sin), qkv[:, 2:]), dim=1)
        if gather is not None:
            qkv = qkv[gather]  # [segments * L, 3, H, Dh]
        qkv = qkv.view(-1, length, *qkv.shape[1:])  # [segments, L, 3, H, Dh]
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each [segments, H, L, Dh]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        y = y.transpose(1, 2).reshape(-1, x.shape[1])  # [segments * L, D]
        return self.proj(y if scatter is None else y[scatter])


class VisionBlock(nn.Module):
    def __init__(self, c: VisionConfig):
        super().__init__()
        self.norm1 = nn.RMSNorm(c.hidden_size, eps=1e-6)
        self.norm2 = nn.RMSNorm(c.hidden_size, eps=1e-6)
        self.attn = VisionAttention(c)
        self.mlp = SwiGLU(c.hidden_size, c.intermediate_size, bias=True)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, segments: Segments) -> Tensor:
        x = x + self.attn(self.norm1(x), cos, sin, segments)
        return x + self.mlp(self.norm2(x))


class PatchMerger(nn.Module):
    """Each block of merge x merge neighbouring patches becomes one token of the decoder's width."""

    def __init__(self, c: VisionConfig):
        super().__init__()
        self.width = c.hidden_size * c.spatial_merge_size**2
        self.ln_q = nn.RMSNorm(c.hidden_size, eps=1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(self.width, self.width), nn.GELU(), nn.Linear(self.width, c.out_hidden_size)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(self.ln_q(x).view(-1, self.width))  # [N, Dv] -> [M, D]


class VisionTransformer(nn.Module):
    """Patches of images and videos -> image tokens; most blocks attend inside windows only."""

    def __init__(self, c: VisionConfig):
        super().__init__()
        self.config, self.activation_checkpointing = c, False
        self.patch_embed = PatchEmbed(c)
        self.blocks = nn.ModuleList(VisionBlock(c) for _ in range(c.depth))
        self.merger = PatchMerger(c)

    def forward(self, pixel_values: Tensor, grid_thw: list[Grid]) -> Tensor:
        """pixel_values [N, C*2*p*p] and grids of all pictures -> image_embeds [M, D]."""
        grids = tuple(tuple(map(int, grid)) for grid in grid_thw)
        if (expected := sum(t * h * w for t, h, w in grids)) != len(pixel_values):
            raise ValueError(f"pixel_values has {len(pixel_values)} patches, not {expected}")
        return self.encode(pixel_values, plan_vision(self.config, grids, pixel_values.device))

    def encode(self, pixel_values: Tensor, plan: VisionPlan) -> Tensor:
        """The part that torch.compile takes: tensors in, tensors out."""
        unit = self.config.spatial_merge_size**2
        x = self.patch_embed(pixel_values)  # [N, Dv]
        x = x.view(-1, unit, x.shape[1])[plan.order].flatten(0, 1)  # [N, Dv], window after window
        for i, block in enumerate(self.blocks):
            segments = plan.frames if i in self.config.fullatt_block_indexes else plan.windows
            x = call(block, self.activation_checkpointing, x, plan.cos, plan.sin, segments)
        return self.merger(x)[plan.inverse]  # [M, D]


def call(layer, recompute: bool, *args):
    """Call a layer; with recompute its activations are computed again in the backward pass."""
    if recompute and torch.is_grad_enabled():
        return checkpoint(layer, *args, use_reentrant=False)
    return layer(*args)


# ---------------------------------------------------------------------------- decoder


class KVCache:
    """Keys and values of every layer [layers, B, K, S, Dh], of which the first `length` are used.

    prompt: a full cache of P rows, or None. The first B/P sequences continue its first row, the
    next ones its second row, and so on. So a prompt that a whole group answers is held only once.
    """

    def __init__(self, keys: Tensor, values: Tensor, prompt=None, length: int = 0):
        self.keys, self.values, self.prompt, self.length = keys, values, prompt, length

    @classmethod
    def empty(cls, c: Config, batch_size: int, max_length: int, device, dtype, prompt=None):
        shape = (c.num_hidden_layers, batch_size, c.num_key_value_heads, max_length, c.head_dim)
        return cls(*(torch.empty(shape, device=device, dtype=dtype) for _ in range(2)), prompt)

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store k, v [B, K, T, Dh] after what is there -> all so far [B, K, length + T, Dh]."""
        end = self.length + k.shape[2]
        self.keys[layer, :, :, self.length : end] = k
        self.values[layer, :, :, self.length : end] = v
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def select(self, rows: Tensor, prompts: Tensor) -> "KVCache":
        """A cache of some prompts and some rows of the batch, equally many rows of each prompt."""
        layers, _, *rest = self.keys.shape
        keys, values = (x.new_empty(layers, len(rows), *rest) for x in (self.keys, self.values))
        keys[..., : self.length, :] = self.keys[:, rows, :, : self.length]
        values[..., : self.length, :] = self.values[:, rows, :, : self.length]
        prompt = KVCache(self.prompt.keys[:, prompts], self.prompt.values[:, prompts])
        return KVCache(keys, values, prompt, self.length)


def shared_prompt_attention(
    q: Tensor, k: Tensor, v: Tensor, prompt_k: Tensor, prompt_v: Tensor, mask: Tensor | None
) -> Tensor:
    """Attention of one new token of each of B sequences to its prompt and to its own sequence.

    q [B, H, 1, Dh]; k, v [B, K, S, Dh] of the sequences; prompt_k, prompt_v [P, K, T, Dh] of their
    P shared prompts; mask bool [P, 1, 1, T], true where a prompt may be seen, or None. -> [B, H, 1,
    Dh]. All sequences of a prompt and all heads that share its keys are rows of one matrix product.
    """
    (B, H, _, Dh), (P, K, T, _) = q.shape, prompt_k.shape

    def by_prompt(x):  # [B, K, H/K, N] -> [P, K, B/P * H/K, N]
        return x.reshape(P, B // P, K, H // K, -1).transpose(1, 2).flatten(2, 3)

    def by_sequence(x):  # and back
        return x.reshape(P, K, B // P, H // K, -1).transpose(1, 2).flatten(0, 1)

    q = q.reshape(B, K, H // K, Dh) * Dh**-0.5
    before = by_prompt(q) @ prompt_k.transpose(2, 3)
    if mask is not None:
        before = before.masked_fill(~mask, float("-inf"))
    scores = torch.cat((before, by_prompt(q @ k.transpose(2, 3))), dim=-1)
    weights = scores.softmax(-1, dtype=torch.float32).to(q.dtype)
    y = by_sequence(weights[..., :T] @ prompt_v) + by_sequence(weights[..., T:]) @ v
    return y.reshape(B, H, 1, Dh)


LONG, BLOCK = 512, 128  # tokens from which on attention is divided, and queries of a block


def attention_blocks(mask: Tensor | None) -> list[tuple]:
    """Attention's work as (queries, keys, mask) blocks, without keys that no query of one sees.

    mask: bool [B, 1, T, S] or None. Questions about the same pictures do not see each other, so
    most of a long sequence's T x S products would be masked. On a GPU, and in a compiled graph,
    whose shapes must not change, one large product is cheaper than many small ones: there is one
    block.
    """
    if torch.compiler.is_compiling() or mask is None or mask.shape[2] < LONG or mask.is_cuda:
        return [(slice(None), slice(None), mask)]
    blocks = []
    for start in range(0, mask.shape[2], BLOCK):
        queries = slice(start, start + BLOCK)
        keys = mask[:, 0, queries].flatten(0, 1).any(0).nonzero()[:, 0]
        blocks.append((queries, keys, mask[:, :, queries, keys]))
    return blocks


class Attention(nn.Module):
    def __init__(self, c: Config):
        super().__init__()
        self.head_dim, kv_width = c.head_dim, c.num_key_value_heads * c.head_dim
        self.q_proj = nn.Linear(c.hidden_size, c.hidden_size)
        self.k_proj = nn.Linear(c.hidden_size, kv_width)
        self.v_proj = nn.Linear(c.hidden_size, kv_width)
        self.o_proj = nn.Linear(c.hidden_size, c.hidden_size, bias=False)

    def forward(self, x: Tensor, rotation, mask, blocks: list, cache, layer: int) -> Tensor:
        """x [B, T, D] -> [B, T, D]. rotation: cos, sin [B, 1, T, Dh/2]; blocks: those of mask."""
        B, T, D = x.shape
        projected = (project(x) for project in (self.q_proj, self.k_proj, self.v_proj))
        q, k, v = (y.view(B, T, -1, self.head_dim).transpose(1, 2) for y in projected)
        q, k = rotate(q, *rotation), rotate(k, *rotation)
        if cache is not None:
            k, v = cache.append(layer, k, v)  # [B, K, S, Dh]
        if cache is not None and cache.prompt is not None:
            prompt_k, prompt_v = cache.prompt.keys[layer], cache.prompt.values[layer]
            y = shared_prompt_attention(q, k, v, prompt_k, prompt_v, mask)
        else:
            group = q.shape[1] // k.shape[1]  # query heads that share a key/value head
            k = k.repeat_interleave(group, dim=1)  # [B, H, S, Dh]
            v = v.repeat_interleave(group, dim=1)
            attend = partial(F.scaled_dot_product_attention, is_causal=mask is None)
            done = [attend(q[:, :, i], k[:, :, j], v[:, :, j], attn_mask=m) for i, j, m in blocks]
            y = torch.cat(done, dim=2) if len(done) > 1 else done[0]
        return self.o_proj(y.transpose(1, 2).reshape(B, T, D))


class DecoderLayer(nn.Module):
    def __init__(self, c: Config):
        super().__init__()
        self.self_attn = Attention(c)
        self.mlp = SwiGLU(c.hidden_size, c.intermediate_size, bias=False)
        self.input_layernorm = nn.RMSNorm(c.hidden_size, eps=c.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(c.hidden_size, eps=c.rms_norm_eps)

    def forward(self, x: Tensor, *where) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), *where)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    def __init__(self, c: Config):
        super().__init__()
        self.config, self.activation_checkpointing = c, False
        self.embed_tokens = nn.Embedding(c.vocab_size, c.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(c) for _ in range(c.num_hidden_layers))
        self.norm = nn.RMSNorm(c.hidden_size, eps=c.rms_norm_eps)

    def forward(
        self, x: Tensor, position_ids: Tensor, mask: Tensor | None, cache: KVCache | None
    ) -> Tensor:
        """Embedded tokens x [B, T, D] -> hidden states after the final norm [B, T, D]."""
        rotation = mrope_tables(position_ids, self.config)
        blocks, recompute = attention_blocks(mask), self.activation_checkpointing
        for i, layer in enumerate(self.layers):
            x = call(layer, recompute, x, rotation, mask, blocks, cache, i)
        if cache is not None:
            cache.length += x.shape[1]
        return self.norm(x)


# ---------------------------------------------------------------------------- the whole


class Qwen2_5_VL(nn.Module):
    """Vision transformer, decoder and head: lm_head(model(ids, positions, model.visual(...)))."""

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.visual = VisionTransformer(config.vision)
        self.model = Decoder(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight
        self.init_weights()

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        image_embeds: Tensor | None = None,
        attention_mask: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """input_ids [B, T], position_ids [3, B, T] -> hidden states after the final norm [B, T, D].

        image_embeds [M, D] replace the batch's image and video tokens in order, row after row.
        attention_mask: bool [B, 1, T, S], true where a token may attend; None means causal. S
        includes the tokens of the cache; after a filled cache a mask is needed. Where the cache has
        a prompt, T is 1 and the mask is that of the prompt alone (shared_prompt_attention).
        """
        x = self.model.embed_tokens(input_ids)  # [B, T, D]
        if image_embeds is not None:
            c, B, T = self.config, *input_ids.shape
            ids = input_ids.flatten()
            is_vision = (ids == c.image_token_id) | (ids == c.video_token_id)  # [B*T]
            table = torch.cat((x.flatten(0, 1), image_embeds.to(x.dtype)))  # [B*T + M, D]
            own = torch.arange(B * T, device=ids.device)
            x = table[torch.where(is_vision, B * T + is_vision.cumsum(0) - 1, own)].view(B, T, -1)
        return self.model(x, position_ids, attention_mask, cache)

    def init_weights(self):
        """Normal with std 1/sqrt(fan in), which is 0.02 at the width of the 3B; embeddings 0.02.

        Projections back into the residual stream shrink by sqrt(2 layers), as in GPT-2. Biases 0,
        norms 1.
        """
        for name, parameter in self.named_parameters():
            if parameter.ndim == 1:
                nn.init.constant_(parameter, 0.0 if name.endswith("bias") else 1.0)
                continue
            std = 0.02 if name == "model.embed_tokens.weight" else parameter[0].numel() ** -0.5
            if name.endswith(("o_proj.weight", "attn.proj.weight", "down_proj.weight")):
                layers = self.visual.blocks if name.startswith("visual") else self.model.layers
                std /= (2 * len(layers)) ** 0.5
            nn.init.normal_(parameter, std=std)

    def set_activation_checkpointing(self, on: bool):
        """Trade compute for memory: keep only each block's input for the backward pass."""
        self.visual.activation_checkpointing = self.model.activation_checkpointing = on

    def num_parameters(self) -> int:
        """Parameters, a tied weight counted once."""
        return sum(p.numel() for p in self.parameters())
