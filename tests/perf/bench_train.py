"""How much of the machine a nano training step reaches, beside a plain matrix product in the same process.

    python tests/perf/bench_train.py                 # threads as torch chooses, fp32, bf16 and torch.compile
    OMP_NUM_THREADS=1 python tests/perf/bench_train.py --no-compile

The step is train.py's own: forward, loss, backward, clipping, Muon and AdamW, on stage-1-shaped batches of random
pixels and tokens. Model FLOPs are counted once (Qwen2_5_VL.flops); the ceiling is fp32 2048x2048 matmul, or bf16 for
the bf16 rows. Nothing else should run meanwhile.
"""

import argparse
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from nanoladder.dataset import IGNORE_INDEX
from nanoladder.model import PRESETS, Qwen2_5_VL
from train import Settings, losses, make_optimizers

QUESTIONS, LENGTH = 4, 26  # tokens of one question with its answer


def seconds(work, repeats):
    """Median seconds of a call, after one to warm up."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


def matmul_rate(dtype):
    """FLOP a second of a square product: the ceiling."""
    a, b = (torch.randn(2048, 2048).to(dtype) for _ in range(2))
    return 2 * 2048**3 / seconds(lambda: a @ b, 10)


def make_batch(config, size):
    """A stage-1-shaped batch: one 96-pixel image, its prefix, and four questions each."""
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
    return {
        "input_ids": ids, "labels": labels, "segments": segments,
        "position_ids": torch.arange(total).expand(3, size, total),
        "pixel_values": torch.randn(size * side**2, 2 * 3 * config.vision.patch_size**2),
        "grid_thw": [(1, side, side)] * size,
    }  # fmt: skip


def step_rate(size, amp, compiled, repeats):
    """(sequences a second, FLOP a second) of a whole training step."""
    torch.manual_seed(0)
    config = PRESETS["nano"].__class__(**PRESETS["nano"].__dict__ | {"image_token_id": 5, "video_token_id": 6})
    model, settings = Qwen2_5_VL(config), Settings()
    if compiled:
        model.visual.encode = torch.compile(model.visual.encode, dynamic=True)
        model.model.compile(dynamic=True)
    optimizers, batch = make_optimizers(model, settings), make_batch(config, size)

    def step():
        with torch.autocast("cpu", torch.bfloat16, enabled=amp):
            loss, _ = losses(model, model, batch, None, 0.0)
        (loss / size).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    took = seconds(step, repeats)
    return size / took, model.flops(batch["grid_thw"], [batch["input_ids"].shape[1]] * size) / took


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--no-compile", action="store_true", help="leave out the rows with torch.compile")
    parser.add_argument("--repeats", type=int, default=7, help="steps a row; the median counts")
    args = parser.parse_args()
    ceilings = {False: matmul_rate(torch.float32), True: matmul_rate(torch.bfloat16)}
    print(f"{torch.get_num_threads()} thread(s), torch {torch.__version__}")
    print(f"matmul 2048: fp32 {ceilings[False] / 1e9:.0f} GFLOP/s, bf16 {ceilings[True] / 1e9:.0f} GFLOP/s")
    for size, amp, compiled in [(8, False, False), (16, False, False), (32, False, False), (16, True, False),
                                (16, False, True), (16, True, True)]:  # fmt: skip
        if compiled and args.no_compile:
            continue
        sequences, rate = step_rate(size, amp, compiled, args.repeats)
        how = f"batch {size:3d}  {'bf16' if amp else 'fp32'}  {'compile' if compiled else 'eager  '}"
        share = f"{rate / ceilings[False]:.0%} of the fp32 ceiling"
        print(f"{how}  {sequences:6.1f} sequences/s  {rate / 1e9:6.1f} GFLOP/s  {share}")


if __name__ == "__main__":
    main()
