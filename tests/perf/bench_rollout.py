"""rl.py's rollout beside transformers' generate in batches, with samples at temperature 1.

    python tests/perf/bench_rollout.py --model runs/cold --data datasets/rooms-spatial
    OMP_NUM_THREADS=1 torchrun --nproc_per_node 2 tests/perf/bench_rollout.py

Both have the same weights and the same encoded prompts, which ask to think first, and both sample
--group answers to each prompt. Our code computes a prompt once for its group and drops answers that
have ended. transformers' generate is called the usual way, on all prompts at once with
num_return_sequences. The script prints the sampled tokens a second of each, up to and including
the end token, and their ratio.

The two take turns, and the median turn counts. Nothing else should run meanwhile. Under torchrun
our ranks share the prompts, as train.py --stage all rolls out, while generate has all cores for its
one process. Video is left out, for the reason in bench_eval.py.
"""

import argparse
import sys
import time
from pathlib import Path
from statistics import median

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from nanoladder import checkpoint  # noqa: E402
from nanoladder.batches import encode_prompt  # noqa: E402
from nanoladder.checkpoint import Policy  # noqa: E402
from nanoladder.generate import generate, left_pad  # noqa: E402
from nanoladder.process import run_script  # noqa: E402
from nanoladder.runtime import start_runtime  # noqa: E402
from nanoladder.splits import read_kinds  # noqa: E402

KINDS = ["single_image", "multi_view"]
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def arguments(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="runs/cold", help="run folder or checkpoint folder")
    parser.add_argument("--data", default="datasets/rooms-spatial", help="data folder with test")
    parser.add_argument(
        "--kinds", nargs="+", choices=KINDS, default=KINDS[:1], help="kinds of rows"
    )
    parser.add_argument("--prompts", type=int, default=16, help="prompts of each kind")
    parser.add_argument("--group", type=int, default=8, help="answers to each prompt")
    parser.add_argument("--max-new-tokens", type=int, default=112, help="tokens of an answer")
    parser.add_argument("--turns", type=int, default=5, help="turns of each")
    return parser.parse_args(argv)


def count(ids, eos_ids):
    """Tokens of all rows together, each up to and including its first end token."""
    is_end = torch.isin(ids, torch.tensor(eos_ids, device=ids.device)).long()
    return int((is_end.cumsum(1) - is_end == 0).sum())


def make_loops(args, policy, prompts, runtime):
    """{"rollout": loop, "transformers": loop}; each returns the sampled ids."""
    from transformers import Qwen2_5_VLForConditionalGeneration

    (model, tokenizer, *_), folder = policy, checkpoint.find(args.model)
    theirs = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    theirs, threads = theirs.to(DEVICE).eval(), torch.get_num_threads()
    ids, _, valid = left_pad(prompts, tokenizer.pad_id, DEVICE)
    pixel_values = torch.cat([prompt["pixel_values"] for prompt in prompts]).to(DEVICE)
    grids = torch.tensor([grid for prompt in prompts for grid in prompt["grid_thw"]], device=DEVICE)

    def ours():
        share, banned = prompts[runtime.rank :: runtime.world], tokenizer.vision_ids
        sampling = (args.max_new_tokens, tokenizer.eos_ids, 1.0, banned, args.group)
        return generate(model, share, *sampling).ids

    @torch.no_grad()
    def plain():
        if not runtime.main:
            return ids[:0]
        torch.set_num_threads(threads * runtime.world)
        out = theirs.generate(
            input_ids=ids,
            attention_mask=valid.long(),
            mm_token_type_ids=(ids == model.config.image_token_id).int(),
            pixel_values=pixel_values,
            image_grid_thw=grids,
            **{"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0},
            num_return_sequences=args.group,
            max_new_tokens=args.max_new_tokens,
            eos_token_id=list(tokenizer.eos_ids),
            pad_token_id=tokenizer.pad_id,
        )
        torch.set_num_threads(threads)
        return out[:, ids.shape[1] :]

    return {"rollout": ours, "transformers": plain}


def main(argv):
    args, runtime = arguments(argv), start_runtime()
    policy = Policy.load(args.model, device=DEVICE)
    model, tokenizer, image_config, _ = policy
    rows = read_kinds(Path(args.data) / "test", args.kinds, args.prompts, think=True)
    prompts = [encode_prompt(row, tokenizer, image_config, model.config, ask=True) for row in rows]
    loops = make_loops(args, policy, prompts, runtime)
    rates = {name: [] for name in loops}
    for turn in range(-1, args.turns):  # the first is to warm up
        for name, loop in loops.items():
            torch.manual_seed(turn * runtime.world + runtime.rank)
            runtime.wait()
            start = time.perf_counter()
            tokens = runtime.sum(count(loop(), tokenizer.eos_ids))  # waits for all ranks
            if turn >= 0:
                rates[name].append(tokens / (time.perf_counter() - start))
    speeds = {name: median(measured) for name, measured in rates.items()}
    ranks = f"{runtime.world} rank(s) of {torch.get_num_threads()} thread(s)"
    runtime.say(f"{DEVICE}, {ranks}, torch {torch.__version__}")
    runtime.say(f"{len(prompts)} prompts of {', '.join(args.kinds)}, {args.group} answers each")
    for name, speed in speeds.items():
        runtime.say(f"{name:12}  {speed:8.0f} tokens/s")
    runtime.say(f"ratio         {speeds['rollout'] / speeds['transformers']:8.1f}")


if __name__ == "__main__":
    run_script(main)
