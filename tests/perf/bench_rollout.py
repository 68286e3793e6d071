"""rl.py's rollout beside transformers' generate in batches: same weights, same prompts, samples at temperature 1.

    python tests/perf/bench_rollout.py --model runs/cold/checkpoint --data datasets/rooms-spatial
    OMP_NUM_THREADS=1 torchrun --nproc_per_node 2 tests/perf/bench_rollout.py      # as train.py --stage all rolls out

Both are given the same encoded prompts, questions to be thought about first, and sample --group answers to each. Ours
computes a prompt once for its group and drops answers that have ended; generate is called the usual way, on all
prompts at once with num_return_sequences. Prints sampled tokens a second of each, up to and with the end token, and
their ratio. The two take turns and the median turn counts; nothing else should run meanwhile. Under torchrun our ranks
share the prompts, while generate has all cores for its one process. Video is left out, as in bench_eval.py.
"""

import argparse
import sys
import time
from pathlib import Path
from statistics import median

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from nanoladder.common import run_script, start_runtime  # noqa: E402
from nanoladder.dataset import encode_prompt, read_kinds  # noqa: E402

from nanoladder import checkpoint  # noqa: E402
from nanoladder.generate import generate, left_pad  # noqa: E402
from nanoladder.tokenizer import Tokenizer  # noqa: E402

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def count(ids, eos_ids):
    """Tokens of each row up to and with the first end token, all together."""
    is_end = torch.isin(ids, torch.tensor(eos_ids, device=ids.device)).long()
    return int((is_end.cumsum(1) - is_end == 0).sum())


def main(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="runs/cold/checkpoint", help="checkpoint folder")
    parser.add_argument("--data", default="datasets/rooms-spatial", help="data folder with test")
    parser.add_argument(
        "--kinds", nargs="+", choices=["single_image", "multi_view"], default=["single_image"]
    )
    parser.add_argument("--prompts", type=int, default=16, help="prompts of each kind")
    parser.add_argument("--group", type=int, default=8, help="answers to each prompt")
    parser.add_argument("--max-new-tokens", type=int, default=112)
    parser.add_argument("--turns", type=int, default=5, help="of each")
    args = parser.parse_args(argv)

    from transformers import Qwen2_5_VLForConditionalGeneration

    runtime, threads = start_runtime(), torch.get_num_threads()
    model, config = checkpoint.load(args.model, device=DEVICE)
    theirs = (
        Qwen2_5_VLForConditionalGeneration.from_pretrained(args.model, dtype=torch.float32)
        .to(DEVICE)
        .eval()
    )
    tokenizer, image_config = Tokenizer.load(args.model), checkpoint.load_image_config(args.model)
    rows = read_kinds(Path(args.data) / "test", args.kinds, args.prompts, think=True)
    prompts = [encode_prompt(row, tokenizer, image_config, config, ask=True) for row in rows]
    ids, _, valid = left_pad(prompts, tokenizer.pad_id, DEVICE)
    pixel_values = torch.cat([prompt["pixel_values"] for prompt in prompts]).to(DEVICE)
    grids = torch.tensor([grid for prompt in prompts for grid in prompt["grid_thw"]], device=DEVICE)

    def ours():
        share, banned = prompts[runtime.rank :: runtime.world], tokenizer.vision_ids
        return generate(
            model, share, args.max_new_tokens, tokenizer.eos_ids, 1.0, banned, args.group
        ).ids

    @torch.no_grad()
    def plain():
        if not runtime.main:
            return ids[:0]
        torch.set_num_threads(threads * runtime.world)
        out = theirs.generate(
            input_ids=ids, attention_mask=valid.long(), mm_token_type_ids=(ids == config.image_token_id).int(),
            pixel_values=pixel_values, image_grid_thw=grids, do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
            num_return_sequences=args.group, max_new_tokens=args.max_new_tokens,
            eos_token_id=list(tokenizer.eos_ids), pad_token_id=tokenizer.pad_id,
        )  # fmt: skip
        torch.set_num_threads(threads)
        return out[:, ids.shape[1] :]

    rates = {ours: [], plain: []}
    for turn in range(-1, args.turns):  # the first is to warm up
        for loop, measured in rates.items():
            torch.manual_seed(turn * runtime.world + runtime.rank)
            runtime.wait()
            start = time.perf_counter()
            tokens = runtime.sum(count(loop(), tokenizer.eos_ids))  # waits for all ranks
            if turn >= 0:
                measured.append(tokens / (time.perf_counter() - start))
    speeds = {loop: median(measured) for loop, measured in rates.items()}
    runtime.say(
        f"{DEVICE}, {runtime.world} rank(s) of {threads} thread(s), torch {torch.__version__}"
    )
    runtime.say(f"{len(prompts)} prompts of {', '.join(args.kinds)}, {args.group} answers each")
    runtime.say(
        f"rollout       {speeds[ours]:8.0f} tokens/s\ntransformers  {speeds[plain]:8.0f} tokens/s"
    )
    runtime.say(f"ratio         {speeds[ours] / speeds[plain]:8.1f}")


if __name__ == "__main__":
    run_script(main)
