"""How fast a training step computes, as a share of a plain matrix product in the same process.

    python tests/perf/bench_train.py                    # nano on a CPU, small with CUDA
    OMP_NUM_THREADS=1 python tests/perf/bench_train.py --no-compile
    TORCH_LOGS=recompiles,graph_breaks python tests/perf/bench_train.py --preset small

The step is train.py's own: forward, loss, backward, clipping, Muon and AdamW. The batches have the
shape of stage 1's, with random pixels and tokens. flops.py counts the operations, and does not
count recomputed ones. The ceiling is the speed of a square product of 2048 (CPU) or 8192 (CUDA).
Nothing else should run meanwhile.
"""

import argparse
import dataclasses
import time

import torch
from flops import flops
from turns import DEVICE

from nanoladder.batches import IGNORE_INDEX
from nanoladder.loop import CLIP_NORM
from nanoladder.model import PRESETS, Qwen2_5_VL
from nanoladder.muon import make_optimizers
from nanoladder.runtime import autocast, to_device
from train import AnswerLoss, Settings

QUESTIONS, LENGTH = 4, 26  # questions a sequence, and tokens of one with its answer


def seconds(work, repeats):
    """Median seconds of a call, after two calls to warm up and to compile."""
    times = []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        work()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return sorted(times[2:])[repeats // 2]


def matmul_rate(dtype, side=8192 if DEVICE.type == "cuda" else 2048):
    """Floating-point operations a second of a square product."""
    a, b = (torch.randn(side, side, device=DEVICE, dtype=dtype) for _ in range(2))
    return 2 * side**3 / seconds(lambda: a @ b, 10)


def make_batch(config, size):
    """A batch of the shape of stage 1's: sequences with one 96-pixel picture and four questions."""
    side = 96 // config.vision.patch_size
    image_tokens = (side // config.vision.spatial_merge_size) ** 2
    prefix = image_tokens + 5
    total = -(-(prefix + QUESTIONS * LENGTH) // 16) * 16
    ids = torch.randint(10, config.vocab_size - 10, (size, total))
    ids[:, 3 : 3 + image_tokens] = config.image_token_id
    segments = torch.zeros(size, total, dtype=torch.long)
    labels = torch.full_like(ids, IGNORE_INDEX)
    for q in range(QUESTIONS):
        start = prefix + q * LENGTH
        segments[:, start:] = q + 1
        labels[:, start + 9 : start + LENGTH] = ids[:, start + 9 : start + LENGTH]
    values = config.vision.in_channels * 2 * config.vision.patch_size**2
    batch = {
        "input_ids": ids,
        "labels": labels,
        "segments": segments,
        "position_ids": torch.arange(total).expand(3, size, total),
        "pixel_values": torch.randn(size * side**2, values),
    }
    return to_device(batch, DEVICE) | {"grid_thw": [(1, side, side)] * size}


def bench(preset, size, amp, compiled, repeats):
    """Print a line: speed of a step, its share of the ceiling, and with CUDA its peak memory."""
    torch.manual_seed(0)
    config = dataclasses.replace(PRESETS[preset], image_token_id=5, video_token_id=6)
    model, settings = Qwen2_5_VL(config).to(DEVICE), Settings()
    if compiled:
        model.visual.encode = torch.compile(model.visual.encode, dynamic=True)
        model.model.compile(dynamic=True)
    answer_loss, batch = AnswerLoss(model), make_batch(config, size)
    optimizers = make_optimizers(model, settings.lr, settings.muon_lr)

    def step():
        with autocast(DEVICE, amp):
            loss, _ = answer_loss(batch)
        (loss / size).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    took = seconds(step, repeats)
    tokens = batch["input_ids"].shape[1] * size
    rate = flops(model, batch["grid_thw"], [batch["input_ids"].shape[1]] * size) / took
    ceiling = matmul_rate(torch.bfloat16 if amp and DEVICE.type == "cuda" else torch.float32)
    how = f"{preset}  batch {size:3d}  {'bf16' if amp else 'fp32'}"
    how += f"  {'compile' if compiled else 'eager':7}"
    speed = f"{size / took:7.1f} sequences/s  {tokens / took:9.0f} tokens/s"
    share = f"{rate / 1e9:8.1f} GFLOP/s  {rate / ceiling:4.0%} of the product's {ceiling / 1e9:.0f}"
    if DEVICE.type == "cuda":
        share += f"  {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"
    print(f"{how}  {speed}  {share}", flush=True)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    usual = "small" if DEVICE.type == "cuda" else "nano"
    parser.add_argument("--preset", choices=["nano", "small"], default=usual, help="model size")
    parser.add_argument("--no-compile", action="store_true", help="no rows with torch.compile")
    parser.add_argument("--repeats", type=int, default=9, help="steps a row; the median counts")
    args = parser.parse_args()
    print(f"{DEVICE}, {torch.get_num_threads()} thread(s), torch {torch.__version__}")
    sizes = (64, 128, 256) if DEVICE.type == "cuda" else (8, 16, 32)
    rows = [(size, DEVICE.type == "cuda", False) for size in sizes]
    rows += [(sizes[1], amp, compiled) for amp in (False, True) for compiled in (False, True)]
    for size, amp, compiled in dict.fromkeys(rows):
        if not (compiled and args.no_compile):
            bench(args.preset, size, amp, compiled, args.repeats)


if __name__ == "__main__":
    main()
