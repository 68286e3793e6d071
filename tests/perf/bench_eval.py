"""eval.py's scoring loop beside a plain loop over transformers' generate, one row at a time.

    python tests/perf/bench_eval.py --data datasets/rooms-spatial        # the base that ships
    python tests/perf/bench_eval.py --model runs/stage2 --rows 300
    OMP_NUM_THREADS=1 torchrun --nproc_per_node 2 tests/perf/bench_eval.py

Both loops have the same weights and rows. They load and preprocess the pictures with the same code,
decode greedily and score every answer. So they differ in batching, in the cache and in the model's
code. The script prints the rows a second of each, their ratio, and how many answers are the same;
rounding can change a greedy choice.

The loops take turns, and the median turn counts. Nothing else should run meanwhile. Under torchrun
our loop shares the rows among the ranks, as train.py --stage all scores, while the other loop has
all cores for its one process.

Video is left out. In transformers 5.23 the text after a video begins at a position that the video
still occupies, so the two models would get different questions.
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
from nanoladder.command import progress  # noqa: E402
from nanoladder.predict import predict, score_one  # noqa: E402
from nanoladder.process import run_script  # noqa: E402
from nanoladder.runtime import start_runtime  # noqa: E402
from nanoladder.schema import rows_of  # noqa: E402
from nanoladder.splits import read_kinds  # noqa: E402

KINDS = ["localization", "single_image", "multi_view"]
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def arguments(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=checkpoint.BASE, help="run folder or checkpoint folder")
    parser.add_argument("--data", default="datasets/rooms-spatial", help="data folder with test")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="kinds of rows")
    parser.add_argument("--rows", type=int, default=300, help="rows of each kind")
    parser.add_argument("--max-new-tokens", type=int, default=128, help="tokens of an answer")
    parser.add_argument("--turns", type=int, default=3, help="turns of each loop")
    return parser.parse_args(argv)


@torch.no_grad()
def plain_loop(theirs, policy, rows, max_new_tokens):
    """What one writes first: for each row, encode, generate, decode, score."""
    (model, tokenizer, image_config, _), predictions = policy, []
    for row in progress(rows, desc="transformers", unit="row"):
        prompt = encode_prompt(row, tokenizer, image_config, model.config, ask=True)
        ids = torch.tensor([prompt["input_ids"]], device=DEVICE)
        out = theirs.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            mm_token_type_ids=(ids == model.config.image_token_id).int(),
            pixel_values=prompt["pixel_values"].to(DEVICE),
            image_grid_thw=torch.tensor(prompt["grid_thw"], device=DEVICE),
            do_sample=False,
            max_new_tokens=max_new_tokens,
        )
        answer = [i for i in out[0, ids.shape[1] :].tolist() if i not in tokenizer.eos_ids]
        predictions.append(score_one(tokenizer.decode(answer), row, image_config))
    return predictions


def make_loops(args, runtime):
    """{"eval.py": loop, "transformers": loop}; each loop answers a list of rows."""
    from transformers import Qwen2_5_VLForConditionalGeneration

    policy, folder = Policy.load(args.model, device=DEVICE), checkpoint.find(args.model)
    theirs = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    theirs, threads = theirs.to(DEVICE).eval(), torch.get_num_threads()

    def ours(rows):
        kinds = [own for kind in args.kinds if (own := rows_of(rows, kind))]
        limit = {"max_new_tokens": args.max_new_tokens}
        return [answer for own in kinds for answer in predict(policy, own, runtime, **limit)]

    def plain(rows):
        if not runtime.main:
            return []
        torch.set_num_threads(threads * runtime.world)
        answers = plain_loop(theirs, policy, rows, args.max_new_tokens)
        torch.set_num_threads(threads)
        return answers

    return {"eval.py": ours, "transformers": plain}


def main(argv):
    args, runtime = arguments(argv), start_runtime()
    rows = read_kinds(Path(args.data) / "test", args.kinds, args.rows)
    loops = make_loops(args, runtime)
    seconds, answers = {name: [] for name in loops}, {}
    for loop in loops.values():
        loop(rows[:2])  # to warm up
    for _ in range(args.turns):
        for name, loop in loops.items():
            runtime.wait()
            start = time.perf_counter()
            answers[name] = loop(rows)
            seconds[name].append(time.perf_counter() - start)
    speeds = {name: len(rows) / median(times) for name, times in seconds.items()}
    same = sum(a["answer"] == b["answer"] for a, b in zip(*answers.values()))
    ranks = f"{runtime.world} rank(s) of {torch.get_num_threads()} thread(s)"
    runtime.say(f"{DEVICE}, {ranks}, torch {torch.__version__}")
    runtime.say(f"{len(rows)} rows of {', '.join(args.kinds)}")
    for name, speed in speeds.items():
        runtime.say(f"{name:12}  {speed:8.1f} rows/s")
    runtime.say(f"ratio         {speeds['eval.py'] / speeds['transformers']:8.1f}")
    runtime.say(f"same answers  {same} of {len(rows)}")


if __name__ == "__main__":
    run_script(main)
