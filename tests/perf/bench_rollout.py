"""rl.py's rollout beside transformers' generate in batches, with samples at temperature 1.

    python tests/perf/bench_rollout.py --model runs/cold --data datasets/rooms-spatial
    OMP_NUM_THREADS=1 torchrun --nproc_per_node 2 tests/perf/bench_rollout.py

Both have the same weights and the same encoded prompts, which ask to think first, and both sample
--group answers to each prompt: first about single pictures, then about eight views. Our code
computes a prompt once for its group and drops answers that have ended. transformers' generate is
called the usual way, on all prompts at once with num_return_sequences. A speed is in sampled tokens
a second, up to and including each end token. Samples differ by chance, so the script first decodes
both greedily and counts the prompts to which both give the same tokens.

Under torchrun our ranks share the prompts, as train.py --stage all rolls out, while generate has
all cores for its one process. Video is left out, for the reason in bench_eval.py.
"""

from pathlib import Path

import torch
from turns import DEVICE, OURS, Turns, arguments, load_theirs

from nanoladder import checkpoint
from nanoladder.batches import encode_prompt
from nanoladder.checkpoint import Policy
from nanoladder.generate import generate, left_pad
from nanoladder.process import run_script
from nanoladder.runtime import start_runtime
from nanoladder.splits import read_kinds

KINDS = {"single_image": "a picture", "multi_view": "eight views"}


def answers(ids, eos_ids):
    """The tokens of each row, up to and including its first end token."""
    is_end = torch.isin(ids, torch.tensor(eos_ids, device=ids.device)).long()
    kept = is_end.cumsum(1) - is_end == 0
    return [row[own].tolist() for row, own in zip(ids, kept)]


def make_theirs(policy, folder, prompts):
    """A function of (answers a prompt, tokens of one) -> generate's ids; greedy for 0 answers."""
    model, tokenizer, *_ = policy
    theirs = load_theirs(folder).eval()
    ids, _, valid = left_pad(prompts, tokenizer.pad_id, DEVICE)
    inputs = {
        "input_ids": ids,
        "attention_mask": valid.long(),
        "mm_token_type_ids": (ids == model.config.image_token_id).int(),
        "pixel_values": torch.cat([prompt["pixel_values"] for prompt in prompts]).to(DEVICE),
        "image_grid_thw": torch.tensor([g for p in prompts for g in p["grid_thw"]], device=DEVICE),
    }
    ends = {"eos_token_id": list(tokenizer.eos_ids), "pad_token_id": tokenizer.pad_id}
    sampling = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}

    @torch.no_grad()
    def sample(group, max_new_tokens):
        how = sampling | {"num_return_sequences": group} if group else {"do_sample": False}
        out = theirs.generate(**inputs, **ends, **how, max_new_tokens=max_new_tokens)
        return out[:, ids.shape[1] :]

    return sample


def bench(args, kind, policy, runtime):
    """The result of one kind of prompts."""
    (model, tokenizer, image_config, _), threads = policy, torch.get_num_threads()
    ends, banned = tokenizer.eos_ids, tokenizer.vision_ids
    rows = read_kinds(Path(args.data) / "test", [kind], args.prompts, think=True)
    prompts = [encode_prompt(row, tokenizer, image_config, model.config, ask=True) for row in rows]
    theirs = make_theirs(policy, checkpoint.find(args.model), prompts)
    greedy = generate(model, prompts, args.max_new_tokens, ends, banned_ids=banned).ids
    pairs = zip(answers(greedy, ends), answers(theirs(0, args.max_new_tokens), ends))
    same = sum(a == b for a, b in pairs)

    def ours():
        share = prompts[runtime.rank :: runtime.world]
        ids = generate(model, share, args.max_new_tokens, ends, 1.0, banned, args.group).ids
        return sum(map(len, answers(ids, ends)))

    def plain():
        if not runtime.main:
            return 0
        torch.set_num_threads(threads * runtime.world)
        ids = theirs(args.group, args.max_new_tokens)
        torch.set_num_threads(threads)
        return sum(map(len, answers(ids, ends)))

    turns = Turns("tokens/s", runtime)
    turns.take_all({OURS: ours, "transformers": plain}, args.turns)
    what = f"rollout, {args.group} answers to each of {len(prompts)} prompts about {KINDS[kind]}"
    same = f"{same} of {len(prompts)} greedy answers are equal"
    return turns.result(what, "transformers", same)


def main(argv):
    args = arguments(
        __doc__,
        argv,
        prompts=(16, "prompts of each kind"),
        group=(8, "answers to each prompt"),
        max_new_tokens=(192, "tokens of an answer"),
    )
    runtime = start_runtime()
    policy = Policy.load(args.model, device=DEVICE)
    return [bench(args, kind, policy, runtime) for kind in KINDS]


if __name__ == "__main__":
    run_script(main)
