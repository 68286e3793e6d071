"""eval.py's scoring loop beside a plain loop over transformers' generate, one row at a time.

    python tests/perf/bench_eval.py --data datasets/rooms-spatial        # the base that ships
    python tests/perf/bench_eval.py --model runs/cold --rows 300
    OMP_NUM_THREADS=1 torchrun --nproc_per_node 2 tests/perf/bench_eval.py

Both loops have the same weights and rows. They load and preprocess the pictures with the same code,
decode greedily and score every answer. So they differ in batching, in the cache and in the model's
code. First come short answers: boxes, and spatial questions that are answered directly. Then come
long answers: spatial questions that ask to think first, for which --model should be a checkpoint
after the cold start. The script counts the answers that are equal; rounding can change a choice.

Under torchrun our loop shares the rows among the ranks, as train.py --stage all scores, while the
other loop has all cores for its one process.

Video is left out. In transformers 5.23 the text after a video begins at a position that the video
still occupies, so the two models would get different questions.
"""

from pathlib import Path

import torch
from turns import DEVICE, OURS, Turns, arguments, load_theirs

from nanoladder import checkpoint
from nanoladder.batches import encode_prompt
from nanoladder.checkpoint import Policy
from nanoladder.predict import predict, score_one
from nanoladder.process import run_script
from nanoladder.runtime import start_runtime
from nanoladder.schema import rows_of
from nanoladder.splits import read_kinds

SHORT, LONG = ["localization", "single_image", "multi_view"], ["single_image", "multi_view"]


@torch.no_grad()
def plain_loop(theirs, policy, rows, max_new_tokens):
    """What one writes first: for each row, encode, generate, decode, score."""
    (model, tokenizer, image_config, _), predictions = policy, []
    for row in rows:
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


def bench(args, kinds, think, policy, theirs, runtime):
    """The result of short or of long answers."""
    rows = read_kinds(Path(args.data) / "test", kinds, args.rows, think)
    threads, answers = torch.get_num_threads(), {"transformers": []}

    def ours():
        parts = [own for kind in kinds if (own := rows_of(rows, kind))]
        limit = {"max_new_tokens": args.max_new_tokens}
        answers[OURS] = [a for own in parts for a in predict(policy, own, runtime, **limit)]
        return len(rows) if runtime.main else 0

    def plain():
        if not runtime.main:
            return 0
        torch.set_num_threads(threads * runtime.world)
        answers["transformers"] = plain_loop(theirs, policy, rows, args.max_new_tokens)
        torch.set_num_threads(threads)
        return len(rows)

    turns = Turns("rows/s", runtime)
    turns.take_all({OURS: ours, "transformers": plain}, args.turns)
    same = sum(a["answer"] == b["answer"] for a, b in zip(answers[OURS], answers["transformers"]))
    what = f"scoring {len(rows)} rows, {'long' if think else 'short'} answers"
    return turns.result(what, "transformers", f"{same} of {len(rows)} answers are equal")


def main(argv):
    rows, length = (100, "rows of each kind"), (192, "tokens of an answer")
    args = arguments(__doc__, argv, rows=rows, max_new_tokens=length)
    runtime = start_runtime()
    policy, folder = Policy.load(args.model, device=DEVICE), checkpoint.find(args.model)
    theirs = load_theirs(folder).eval()
    asked = [(SHORT, False), (LONG, True)]
    return [bench(args, kinds, think, policy, theirs, runtime) for kinds, think in asked]


if __name__ == "__main__":
    run_script(main)
