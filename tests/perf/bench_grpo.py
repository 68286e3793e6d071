"""A whole step of rl.py beside the same step of TRL's GRPOTrainer, on a CPU.

    pip install trl                                              # written for version 1.16
    python tests/perf/bench_grpo.py --data datasets/rooms-spatial
    python tests/perf/bench_grpo.py --model runs/cold --max-new-tokens 192

A step samples --group answers to each of --prompts questions about single pictures. It rewards each
answer by how many different characters it has, and computes the advantages. Then it updates all
weights once, also those of the vision encoder, in fp32 and with the KL to a reference model.

Both have the same weights, prompts, objective, AdamW, learning rate, clipping and size of
micro-batches. The end token cannot be sampled, so every answer has --max-new-tokens tokens. The
main difference is this: our code computes a prompt once for its group, in the rollout and in the
update, and TRL computes it once for each answer.

The script prints the seconds a step of each, and their ratio. The two take turns, and the median
turn counts. Nothing else should run meanwhile. Not compared are:

    reading pictures             the published processor cannot feed a model as small as ours, so
                                 both get what encode_prompt made beforehand
    answers of several lengths   our code drops those that have ended
    logging, and TRL's vLLM
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import rl  # noqa: E402
from nanoladder import checkpoint  # noqa: E402
from nanoladder.batches import encode_prompt, pack  # noqa: E402
from nanoladder.checkpoint import Policy  # noqa: E402
from nanoladder.command import UserError  # noqa: E402
from nanoladder.generate import left_pad  # noqa: E402
from nanoladder.loop import CLIP_NORM  # noqa: E402
from nanoladder.muon import make_optimizers  # noqa: E402
from nanoladder.process import run_script  # noqa: E402
from nanoladder.prompts import prompt_text  # noqa: E402
from nanoladder.splits import read_kinds  # noqa: E402


def arguments(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=checkpoint.BASE, help="run folder or checkpoint folder")
    parser.add_argument("--data", default="datasets/rooms-spatial", help="data folder with test")
    parser.add_argument("--prompts", type=int, default=16, help="prompts a step")
    parser.add_argument("--group", type=int, default=8, help="answers to each prompt")
    passes = "prompts whose answers go through one forward and backward pass"
    parser.add_argument("--micro-prompts", type=int, default=4, help=passes)
    parser.add_argument("--max-new-tokens", type=int, default=96, help="tokens of every answer")
    parser.add_argument("--turns", type=int, default=5, help="turns of each")
    return parser.parse_args(argv)


def variety(text):
    """The reward, which is cheap and differs within a group."""
    return float(len(set(text)))


class OurStep:
    """What rl.train does in a step, without its records. Call it with a seed."""

    def __init__(self, s, policy, ref_model, prompts):
        self.s, self.policy, self.prompts = s, policy, prompts
        banned = policy.tokenizer.vision_ids
        self.loss = rl.GRPOLoss(s, policy.model, ref_model.requires_grad_(False), banned)
        (self.adamw,) = make_optimizers(policy.model, s.lr, muon_lr=0.0, weight_decay=0.0)

    def __call__(self, seed):
        s, model = self.s, self.policy.model
        completions, texts = rl.rollout(s, self.policy, self.prompts, seed)
        ids, mask, old_logprobs = (
            t.view(s.prompts_per_step, s.group_size, -1) for t in completions
        )
        assert ids.shape[-1] == s.max_new_tokens and bool(mask.all()), "an answer of another length"
        rewards = torch.tensor([variety(text) for text in texts])
        advantage = rl.advantages(rewards.view(s.prompts_per_step, s.group_size))
        model.train()
        for first in range(0, s.prompts_per_step, s.micro_prompts):
            part = slice(first, first + s.micro_prompts)
            batch = pack(self.prompts[part], ids[part], mask[part], torch.device("cpu"))
            loss, _ = self.loss(batch, ids[part], mask[part], advantage[part], old_logprobs[part])
            (loss * (s.micro_prompts / s.prompts_per_step)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        self.adamw.step()
        self.adamw.zero_grad(set_to_none=True)


def trl_settings(trl, s, folder, turns, banned):
    """The settings under which TRL does the same as OurStep."""
    return trl.GRPOConfig(
        **{"output_dir": folder, "use_cpu": True, "bf16": False, "gradient_checkpointing": False},
        max_steps=turns + 1,  # the first step is to warm up
        num_generations=s.group_size,
        per_device_train_batch_size=s.micro_prompts * s.group_size,
        gradient_accumulation_steps=s.prompts_per_step // s.micro_prompts,
        max_completion_length=s.max_new_tokens,
        temperature=rl.TEMPERATURE,
        generation_kwargs={"suppress_tokens": list(banned)},
        **{"beta": s.kl_coef, "use_bias_correction_kl": False, "epsilon": rl.CLIP_EPS},
        **{"loss_type": "grpo", "scale_rewards": "group"},
        **{"optim": "adamw_torch_fused", "adam_beta2": 0.95, "weight_decay": 0.0},
        **{"learning_rate": s.lr, "lr_scheduler_type": "constant", "max_grad_norm": CLIP_NORM},
        **{"report_to": [], "logging_strategy": "no", "save_strategy": "no", "disable_tqdm": True},
        **{"dataloader_pin_memory": False, "log_multimodal": False},
    )


def encoded_processor(transformers, folder, prompts, policy):
    """An object in the place of TRL's processor. To TRL, the picture of prompt i is i."""
    pad_id, image_id = policy.tokenizer.pad_id, policy.model.config.image_token_id

    class Encoded(transformers.ProcessorMixin):
        def __init__(self):
            self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)

        def apply_chat_template(self, conversation, tokenize, **_):
            if not tokenize:
                return ""  # for __call__, which needs no text
            asked = [turn["content"][0]["image"] for (turn,) in conversation]
            ids = {"input_ids": [prompts[i]["input_ids"] for i in asked]}
            return ids | self([[i] for i in asked])

        def __call__(self, images, **_):
            asked = [prompts[i] for (i,) in images]
            grids = [grid for prompt in asked for grid in prompt["grid_thw"]]
            ids, _, _ = left_pad(asked, pad_id, "cpu")
            return {
                "mm_token_type_ids": (ids == image_id).int(),
                "pixel_values": torch.cat([prompt["pixel_values"] for prompt in asked]),
                "image_grid_thw": torch.tensor(grids),
            }

    return Encoded()


def time_steps(step, trainer):
    """(our seconds, TRL's seconds), one for each step of the trainer; one of ours precedes each."""
    import transformers

    ours, theirs = [], []

    class Turns(transformers.TrainerCallback):
        def on_step_begin(self, _, state, control, **__):
            start = time.perf_counter()
            step(state.global_step)
            self.start = time.perf_counter()
            ours.append(self.start - start)

        def on_step_end(self, _, state, control, **__):
            theirs.append(time.perf_counter() - self.start)

    trainer.add_callback(Turns)
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    return ours, theirs


def main(argv):
    args = arguments(argv)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # everything needed is here
    import transformers
    import trl
    from datasets import Dataset

    s = rl.Settings(
        prompts_per_step=args.prompts, group_size=args.group, micro_prompts=args.micro_prompts
    )
    s.max_new_tokens, s.model = args.max_new_tokens, "any"  # the encoder is trained too
    policy, ref_model = Policy.load(args.model), Policy.load(args.model).model
    model, tokenizer, image_config, _ = policy
    tokenizer.vision_ids += tokenizer.eos_ids  # rollout and GRPOLoss ban these
    rows = read_kinds(Path(args.data) / "test", ["single_image"], s.prompts_per_step, think=True)
    if len(rows) < s.prompts_per_step or s.prompts_per_step % s.micro_prompts:
        raise UserError(
            f"--prompts {args.prompts}: it must be a multiple of --micro-prompts {s.micro_prompts} "
            f"and at most {len(rows)}, the number of rows in --data"
        )
    prompts = [encode_prompt(row, tokenizer, image_config, model.config, ask=True) for row in rows]

    def reward(completions, completion_ids, **_):
        lengths = {len(ids) for ids in completion_ids}
        assert lengths == {s.max_new_tokens}, "an answer of another length"
        return [variety(answer["content"]) for (answer,) in completions]

    folder = checkpoint.find(args.model)
    processor = encoded_processor(transformers, folder, prompts, policy)
    load_theirs = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained
    theirs = load_theirs(folder, dtype=torch.float32)
    asked = [[{"role": "user", "content": prompt_text(row)}] for row in rows]
    data = Dataset.from_dict({"prompt": asked, "images": [[i] for i in range(len(rows))]})
    with tempfile.TemporaryDirectory() as out:
        settings = trl_settings(trl, s, out, args.turns, tokenizer.vision_ids)
        trainer = trl.GRPOTrainer(theirs, reward, settings, data, processing_class=processor)
        step = OurStep(s, policy, ref_model, prompts)
        ours, plain = (median(times[1:]) for times in time_steps(step, trainer))
    versions = f"torch {torch.__version__}, trl {trl.__version__}"
    print(f"cpu, {torch.get_num_threads()} thread(s), {versions}")
    print(f"{s.prompts_per_step} prompts, {s.group_size} answers each of {s.max_new_tokens} tokens")
    print(f"rl.py         {ours:8.2f} s/step\nTRL           {plain:8.2f} s/step")
    print(f"ratio         {plain / ours:8.1f}")


if __name__ == "__main__":
    run_script(main)
