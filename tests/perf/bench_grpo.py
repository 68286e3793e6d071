"""A whole step of rl.py beside the same step of TRL's GRPOTrainer, on a CPU: same weights, same prompts, same lengths.

    pip install trl                                                                   # written for 1.16
    python tests/perf/bench_grpo.py --data datasets/rooms-spatial                     # the base that ships
    python tests/perf/bench_grpo.py --model runs/cold/checkpoint --max-new-tokens 192

A step is the rollout of --group answers to each of --prompts questions about single pictures, their rewards (how many
different characters they have) and advantages, and one update of all weights, vision tower included, with the KL to a
reference model, in fp32. No end token can be sampled, so every answer of both has --max-new-tokens. Objective, AdamW,
learning rate, clipping and the size of micro-batches are the same. What differs is above all that ours computes a
prompt once for its group, in the rollout as in the update, and TRL once for each answer.

Prints seconds a step of each and their ratio. The two take turns and the median turn counts; nothing else should run
meanwhile. Not compared: reading pictures (the published processor cannot feed a nano checkpoint, so both are given what
encode_prompt made beforehand), answers of different lengths (ours drops those that have ended), logging, TRL's vLLM.
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

from nanoladder.dataset import encode_prompt, prompt_text, read_kinds  # noqa: E402

import rl  # noqa: E402
from nanoladder import checkpoint  # noqa: E402
from nanoladder.generate import left_pad  # noqa: E402
from nanoladder.tokenizer import Tokenizer  # noqa: E402


def variety(text):
    """The reward: cheap, and different within a group."""
    return float(len(set(text)))


def our_step(s, loss_module, optimizer, tokenizer, prompts, seed):
    """What rl.train does in a step, without its records."""
    model = loss_module.model
    completions, texts = rl.rollout(s, model, tokenizer, prompts, seed)
    ids, mask, old = (t.view(s.prompts, s.group_size, -1) for t in completions)
    assert ids.shape[-1] == s.max_new_tokens and bool(mask.all()), "an answer of another length"
    advantage = rl.advantages(
        torch.tensor([variety(text) for text in texts]).view(s.prompts, s.group_size)
    )
    model.train()
    for at in range(0, s.prompts, s.micro_prompts):
        part = slice(at, at + s.micro_prompts)
        batch = rl.pack(prompts[part], ids[part], mask[part])
        loss, _ = loss_module(batch, ids[part], mask[part], advantage[part], old[part])
        (loss * (s.micro_prompts / s.prompts)).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), s.clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", default=str(ROOT / "nanoladder" / "base"), help="checkpoint folder"
    )
    parser.add_argument("--data", default="datasets/rooms-spatial", help="data folder with test")
    parser.add_argument("--prompts", type=int, default=16, help="prompts a step")
    parser.add_argument("--group", type=int, default=8, help="answers to each prompt")
    parser.add_argument(
        "--micro-prompts", type=int, default=4, help="prompts whose answers go through one pass"
    )
    parser.add_argument("--max-new-tokens", type=int, default=96, help="of every answer")
    parser.add_argument("--turns", type=int, default=5, help="of each")
    args = parser.parse_args()

    os.environ.setdefault(
        "HF_HUB_OFFLINE", "1"
    )  # everything is here, and no word of this run is sent anywhere
    import transformers
    import trl
    from datasets import Dataset

    s = rl.Settings(prompts=args.prompts, group_size=args.group, micro_prompts=args.micro_prompts,
                    max_new_tokens=args.max_new_tokens, freeze_vision=False)  # fmt: skip
    (model, config), (ref_model, _) = checkpoint.load(args.model), checkpoint.load(args.model)
    theirs = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(
        args.model, dtype=torch.float32
    )
    tokenizer, image_config = Tokenizer.load(args.model), checkpoint.load_image_config(args.model)
    tokenizer.vision_ids += tokenizer.eos_ids  # what rollout and GRPOLoss ban
    rows = read_kinds(Path(args.data) / "test", ["single_image"], args.prompts, think=True)
    prompts = [encode_prompt(row, tokenizer, image_config, config, ask=True) for row in rows]
    if len(prompts) < args.prompts or args.prompts % args.micro_prompts:
        parser.error(
            f"{len(prompts)} prompts in --data: --prompts must be no more, and a multiple of --micro-prompts"
        )
    loss_module = rl.GRPOLoss(s, model, ref_model.requires_grad_(False), tokenizer.vision_ids)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=s.lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True
    )

    class Encoded(transformers.ProcessorMixin):
        """In the place of TRL's processor. To TRL, the picture of prompt i is i."""

        def __init__(self):
            self.tokenizer = transformers.AutoTokenizer.from_pretrained(args.model)

        def apply_chat_template(self, conversation, tokenize, **_):
            if not tokenize:
                return ""  # for __call__, which needs no text
            asked = [turn["content"][0]["image"] for (turn,) in conversation]
            return {"input_ids": [prompts[i]["input_ids"] for i in asked]} | self(
                [[i] for i in asked]
            )

        def __call__(self, images, **_):
            asked = [prompts[i] for (i,) in images]
            return {
                "mm_token_type_ids": (
                    left_pad(asked, tokenizer.pad_id, "cpu")[0] == config.image_token_id
                ).int(),
                "pixel_values": torch.cat([prompt["pixel_values"] for prompt in asked]),
                "image_grid_thw": torch.tensor(
                    [grid for prompt in asked for grid in prompt["grid_thw"]]
                ),
            }

    class Turns(transformers.TrainerCallback):
        """Before each step of TRL one of ours, both timed."""

        ours, theirs = [], []

        def on_step_begin(self, _, state, control, **__):
            start = time.perf_counter()
            our_step(s, loss_module, optimizer, tokenizer, prompts, state.global_step)
            self.start = time.perf_counter()
            self.ours.append(self.start - start)

        def on_step_end(self, _, state, control, **__):
            self.theirs.append(time.perf_counter() - self.start)

    def reward(completions, completion_ids, **_):
        assert {len(ids) for ids in completion_ids} == {s.max_new_tokens}, (
            "an answer of another length"
        )
        return [variety(answer["content"]) for (answer,) in completions]

    asked = {"prompt": [[{"role": "user", "content": prompt_text(row)}] for row in rows],
             "images": [[i] for i in range(len(rows))]}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        settings = trl.GRPOConfig(
            output_dir=folder, use_cpu=True, bf16=False, gradient_checkpointing=False, max_steps=args.turns + 1,
            per_device_train_batch_size=s.micro_prompts * s.group_size, num_generations=s.group_size,
            gradient_accumulation_steps=s.prompts // s.micro_prompts, max_completion_length=s.max_new_tokens,
            temperature=s.temperature, generation_kwargs={"suppress_tokens": list(tokenizer.vision_ids)},
            beta=s.kl_coef, use_bias_correction_kl=False, epsilon=s.clip_eps, loss_type="grpo", scale_rewards="group",
            optim="adamw_torch_fused", learning_rate=s.lr, lr_scheduler_type="constant", adam_beta2=0.95,
            weight_decay=0.0, max_grad_norm=s.clip, report_to=[], logging_strategy="no", save_strategy="no",
            disable_tqdm=True, dataloader_pin_memory=False, log_multimodal=False,
        )  # fmt: skip
        turns = Turns()
        trainer = trl.GRPOTrainer(theirs, reward, settings, Dataset.from_dict(asked), processing_class=Encoded(),
                                  callbacks=[turns])  # fmt: skip
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()

    ours, plain = (
        median(seconds[1:]) for seconds in (turns.ours, turns.theirs)
    )  # the first is to warm up
    print(f"cpu, {torch.get_num_threads()} thread(s), torch {torch.__version__}, trl {trl.__version__}, {len(prompts)} "
          f"prompts, {args.group} answers each of {args.max_new_tokens} tokens")  # fmt: skip
    print(
        f"rl.py         {ours:8.2f} s/step\nTRL           {plain:8.2f} s/step\nratio         {plain / ours:8.1f}"
    )


if __name__ == "__main__":
    main()
