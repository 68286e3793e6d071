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

Samples differ by chance, so the script first gives both the same answers to one prompt. It compares
the norms of their gradients. Not compared are:

    reading pictures             the published processor cannot feed a model as small as ours, so
                                 both get what encode_prompt made beforehand
    answers of several lengths   our code drops those that have ended
    logging, and TRL's vLLM
"""

import os
import tempfile
from pathlib import Path

import torch
from turns import OURS, Turns, arguments, load_theirs, table

import rl
from nanoladder import checkpoint
from nanoladder.batches import encode_prompt, pack
from nanoladder.checkpoint import Policy
from nanoladder.command import UserError
from nanoladder.generate import left_pad
from nanoladder.loop import CLIP_NORM
from nanoladder.muon import make_optimizers
from nanoladder.process import run_script
from nanoladder.prompts import prompt_text
from nanoladder.splits import read_kinds

TOLERANCE = 1e-3  # between the norms of the two gradients


def variety(text):
    """The reward, which is cheap and differs within a group."""
    return float(len(set(text)))


class OurStep:
    """What rl.train does in a step, without its records; it counts as one unit of work."""

    def __init__(self, s, policy, ref_model, prompts):
        self.s, self.policy, self.prompts, self.seed = s, policy, prompts, 0
        banned = policy.tokenizer.vision_ids
        self.loss = rl.GRPOLoss(s, policy.model, ref_model.requires_grad_(False), banned)
        (self.adamw,) = make_optimizers(policy.model, s.lr, muon_lr=0.0, weight_decay=0.0)

    def __call__(self):
        s, model, self.seed = self.s, self.policy.model, self.seed + 1
        completions, texts = rl.rollout(s, self.policy, self.prompts, self.seed)
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
        return 1


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


def gradient_norms(trainer, step):
    """The norms of our gradient and of TRL's, for the same two answers to the first prompt.

    Nothing is banned here: our code takes the banned tokens out of the softmax, TRL does not.
    """
    s, prompt, model = step.s, step.prompts[0], step.policy.model
    ids = torch.randint(10, 200, (1, 2, 8), generator=torch.Generator().manual_seed(0))
    mask, advantage = torch.ones_like(ids, dtype=torch.bool), torch.tensor([[1.0, -0.5]])
    batch = pack([prompt], ids, mask, torch.device("cpu"))
    with torch.no_grad():
        old, _ = rl.answer_logprobs(model, batch, ids, mask, ())
    loss, _ = rl.GRPOLoss(s, model, step.loss.ref_model, ())(batch, ids, mask, advantage, old)
    asked = torch.tensor([prompt["input_ids"]] * 2)
    is_image = (asked == model.config.image_token_id).int()
    theirs = {
        **{"prompt_ids": asked, "prompt_mask": torch.ones_like(asked)},
        **{"completion_ids": ids[0], "completion_mask": mask[0].long()},
        **{"advantages": advantage[0], "ref_per_token_logps": old[0]},
        "pixel_values": torch.cat([prompt["pixel_values"]] * 2),
        "image_grid_thw": torch.tensor([*prompt["grid_thw"]] * 2),
        "num_images": [len(prompt["grid_thw"])] * 2,
        "mm_token_type_ids": torch.cat([is_image, torch.zeros_like(ids[0], dtype=torch.int)], 1),
    }
    trainer.current_gradient_accumulation_steps = 1  # which trainer.train() sets later
    pairs, norms = (
        [(loss, model), (trainer._compute_loss(trainer.model, theirs), trainer.model)],
        [],
    )
    for loss, trained in pairs:
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(trained.parameters(), 1e9)))
        trained.zero_grad(set_to_none=True)
    return norms


def make_trainer(args, s, policy, prompts, rows, out):
    """TRL's GRPOTrainer for the same prompts."""
    import transformers
    import trl

    def reward(completions, completion_ids, **_):
        lengths = {len(ids) for ids in completion_ids}
        assert lengths == {s.max_new_tokens}, "an answer of another length"
        return [variety(answer["content"]) for (answer,) in completions]

    folder = checkpoint.find(args.model)
    processor = encoded_processor(transformers, folder, prompts, policy)
    asked = [[{"role": "user", "content": prompt_text(row)}] for row in rows]
    data = table({"prompt": asked, "images": [[i] for i in range(len(rows))]})
    settings = trl_settings(trl, s, out, args.turns, policy.tokenizer.vision_ids)
    theirs = load_theirs(folder)
    return trl.GRPOTrainer(theirs, reward, settings, data, processing_class=processor)


def make_step(args, max_new_tokens, micro_prompts):
    """Our step on --prompts rows about single pictures, and these rows."""
    s = rl.Settings(prompts_per_step=args.prompts, group_size=args.group)
    s.micro_prompts, s.max_new_tokens = micro_prompts, max_new_tokens
    s.model = "any"  # the encoder is trained too
    policy, ref_model = Policy.load(args.model), Policy.load(args.model).model
    model, tokenizer, image_config, _ = policy
    tokenizer.vision_ids += tokenizer.eos_ids  # rollout and GRPOLoss ban these
    rows = read_kinds(Path(args.data) / "test", ["single_image"], s.prompts_per_step, think=True)
    prompts = [encode_prompt(row, tokenizer, image_config, model.config, ask=True) for row in rows]
    return OurStep(s, policy, ref_model, prompts), rows


def main(argv):
    args = arguments(
        __doc__,
        argv,
        prompts=(16, "prompts a step"),
        group=(8, "answers to each prompt"),
        micro_prompts=(4, "prompts whose answers go through one forward and backward pass"),
        max_new_tokens=(96, "tokens of every answer"),
    )
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # everything needed is here
    step, rows = make_step(args, args.max_new_tokens, args.micro_prompts)
    s, turns = step.s, Turns("steps/s")
    if len(rows) < s.prompts_per_step or s.prompts_per_step % s.micro_prompts:
        raise UserError(
            f"--prompts {args.prompts}: it must be a multiple of --micro-prompts {s.micro_prompts} "
            f"and at most {len(rows)}, the number of rows in --data"
        )
    with tempfile.TemporaryDirectory() as out:
        trainer = make_trainer(args, s, step.policy, step.prompts, rows, out)
        ours, theirs = gradient_norms(trainer, step)
        if not abs(ours / theirs - 1) < TOLERANCE:
            raise UserError(f"TRL's gradient has the norm {theirs}, ours {ours}")
        turns.train(trainer, {OURS: step})
    what = f"GRPO step, {args.group} answers to each of {args.prompts} prompts"
    what += f", {args.max_new_tokens} tokens each"
    return [turns.result(what, "TRL", f"norms of the gradients {ours:.5g} and {theirs:.5g}")]


if __name__ == "__main__":
    run_script(main)
