"""eval.py's scoring loop beside a plain loop over transformers' generate, one row at a time: same weights, same rows.

    python tests/perf/bench_eval.py --data datasets/rooms-spatial                      # the base that ships
    python tests/perf/bench_eval.py --model runs/stage2/checkpoint --rows 300
    OMP_NUM_THREADS=1 torchrun --nproc_per_node 2 tests/perf/bench_eval.py             # as train.py --stage all scores

Both loops load and preprocess the pictures with the same code, decode greedily and score every answer; so what differs
is batching, the cache and the model's code. Prints rows a second of each, their ratio, and how many answers agree
(rounding can tip a greedy choice). The loops take turns and the median turn counts; nothing else should run meanwhile.
Under torchrun our loop shares the rows among the ranks, while the other has all cores for its one process.
Video is left out: transformers 5.23 lets the text behind a video begin at a position that the video still occupies, so
the two would be asked different things.
"""

import argparse
import sys
import time
from pathlib import Path
from statistics import median

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from nanoladder.common import progress, run_script, start_runtime  # noqa: E402
from nanoladder.dataset import encode_prompt, read_kinds, rows_of  # noqa: E402
from nanoladder.evaluate import judge, predict  # noqa: E402

from nanoladder import checkpoint  # noqa: E402
from nanoladder.tokenizer import Tokenizer  # noqa: E402

KINDS = ["localization", "single_image", "multi_view"]
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@torch.no_grad()
def plain_loop(theirs, tokenizer, image_config, config, rows, max_new_tokens):
    """What one writes first: for each row, encode, generate, decode, score."""
    predictions = []
    for row in progress(rows, desc="transformers", unit="row"):
        prompt = encode_prompt(row, tokenizer, image_config, config, ask=True)
        ids = torch.tensor([prompt["input_ids"]], device=DEVICE)
        out = theirs.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), mm_token_type_ids=(ids == config.image_token_id).int(),
            pixel_values=prompt["pixel_values"].to(DEVICE), do_sample=False, max_new_tokens=max_new_tokens,
            image_grid_thw=torch.tensor(prompt["grid_thw"], device=DEVICE),
        )  # fmt: skip
        answer = [
            token for token in out[0, ids.shape[1] :].tolist() if token not in tokenizer.eos_ids
        ]
        predictions.append(judge(tokenizer.decode(answer), row, image_config))
    return predictions


def main(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", default=str(ROOT / "nanoladder" / "base"), help="checkpoint folder"
    )
    parser.add_argument("--data", default="datasets/rooms-spatial", help="data folder with test")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--rows", type=int, default=300, help="rows of each kind")
    parser.add_argument("--max-new-tokens", type=int, default=128)
    parser.add_argument("--turns", type=int, default=3, help="of each loop")
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
    rows = read_kinds(Path(args.data) / "test", args.kinds, args.rows)

    def ours(asked):
        kinds = [own for kind in args.kinds if (own := rows_of(asked, kind))]
        asking, limit = (model, tokenizer, image_config), {"max_new_tokens": args.max_new_tokens}
        return [answer for own in kinds for answer in predict(*asking, own, runtime, **limit)]

    def plain(asked):
        if not runtime.main:
            return []
        torch.set_num_threads(threads * runtime.world)
        answers = plain_loop(theirs, tokenizer, image_config, config, asked, args.max_new_tokens)
        torch.set_num_threads(threads)
        return answers

    seconds, answers = {ours: [], plain: []}, {}
    for loop in seconds:
        loop(rows[:2])  # to warm up
    for _ in range(args.turns):
        for loop, times in seconds.items():
            runtime.wait()
            start = time.perf_counter()
            answers[loop] = loop(rows)
            times.append(time.perf_counter() - start)
    speeds = {loop: len(rows) / median(times) for loop, times in seconds.items()}
    same = sum(a["answer"] == b["answer"] for a, b in zip(answers[ours], answers[plain]))
    runtime.say(
        f"{DEVICE}, {runtime.world} rank(s) of {threads} thread(s), torch {torch.__version__}"
    )
    runtime.say(f"{len(rows)} rows of {', '.join(args.kinds)}")
    runtime.say(
        f"eval.py       {speeds[ours]:8.1f} rows/s\ntransformers  {speeds[plain]:8.1f} rows/s"
    )
    runtime.say(
        f"ratio         {speeds[ours] / speeds[plain]:8.1f}\nsame answers  {same} of {len(rows)}"
    )


if __name__ == "__main__":
    run_script(main)
