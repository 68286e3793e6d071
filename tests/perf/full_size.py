"""Our model beside transformers' own at the size of Qwen2.5-VL-3B, with random weights.

    python tests/perf/full_size.py                        # on a GPU; training all weights: 80 GB
    python tests/perf/full_size.py --tiny --device cpu    # the same code with nano's shapes

Both models use the same tensors, so that one copy of the weights is in memory. Each case prints a
line, and the last line of the output is all of them as JSON:

    decode    bf16: the largest difference of the logits, and greedy decoding of 64 tokens
    lora      one SFT step: frozen weights in bf16, LoRA of rank 16, activation checkpointing
    full      one SFT step: all weights, in fp32 with AMP, AdamW, activation checkpointing

A ratio is transformers' seconds divided by ours. The peak memory holds everything on the GPU. A
case that does not fit into it is reported as an error, and the next one is tried.
"""

import argparse
import dataclasses
import gc
import json
import time

import torch
from turns import missing

from nanoladder.batches import IGNORE_INDEX, collate
from nanoladder.generate import generate
from nanoladder.hf_config import config_to_hf
from nanoladder.loop import CLIP_NORM
from nanoladder.lora import LINEARS, add_lora
from nanoladder.model import PRESETS, Config, Qwen2_5_VL, mrope_position_ids
from nanoladder.muon import make_optimizers
from nanoladder.process import run_script
from nanoladder.runtime import autocast, start_runtime, to_device
from train import AnswerLoss

RANK, NEW_TOKENS, REPEATS = 16, 64, 3
PROMPT, ANSWER = 60, 100  # tokens of text before and of the answer


def make_config(tiny):
    if not tiny:
        return Config()
    tokens = dict(image_token_id=5, video_token_id=6, pad_token_id=0, eos_token_id=1)
    tokens |= dict(vision_start_token_id=7, vision_end_token_id=8)
    return dataclasses.replace(PRESETS["nano"], **tokens)


def make_examples(config, size, grid):
    """Random sequences of one picture, a question and an answer."""
    generator, examples = torch.Generator().manual_seed(0), []
    tokens = grid[1] * grid[2] // config.vision.spatial_merge_size**2
    start, end = config.vision_start_token_id, config.vision_end_token_id
    values = config.vision.in_channels * 2 * config.vision.patch_size**2
    for _ in range(size):
        text = torch.randint(10, 1000, (PROMPT + ANSWER,), generator=generator).tolist()
        ids = [start, *[config.image_token_id] * tokens, end, *text]
        positions, following = mrope_position_ids(ids, [grid], [], [], config)
        prefix = len(ids) - len(text)
        example = {"input_ids": ids, "position_ids": positions, "next_position": following}
        example["labels"] = [IGNORE_INDEX] * (len(ids) - ANSWER) + ids[-ANSWER:]
        example["segments"] = [0] * prefix + [1] * len(text)
        example["pixel_values"] = torch.randn(grid[1] * grid[2], values, generator=generator)
        examples.append(example | {"grid_thw": [grid], "clips": []})
    return examples


def make_models(config, dtype, device):
    """(our model, transformers' model); both use the same tensors."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    torch.manual_seed(0)
    with torch.device(device):
        model = Qwen2_5_VL(config).to(dtype)
        hf_config = Qwen2_5_VLConfig.from_dict(config_to_hf(config))
        theirs = Qwen2_5_VLForConditionalGeneration._from_config(hf_config, dtype=dtype)
    tensors = {}
    for name, tensor in model.state_dict().items():
        name = name.replace("model.", "model.language_model.", 1)
        tensors[f"model.{name}" if name.startswith("visual.") else name] = tensor
    theirs.load_state_dict(tensors, assign=True)
    theirs.tie_weights()
    return model, theirs


def their_inputs(batch, config):
    ids = batch["input_ids"]
    return {
        "input_ids": ids,
        "attention_mask": (batch["segments"] >= 0).long(),
        "mm_token_type_ids": (ids == config.image_token_id).int(),
        "pixel_values": batch["pixel_values"],
        "image_grid_thw": torch.tensor(batch["grid_thw"], device=ids.device),
    }


def measured(work, device):
    """(median seconds of work(), peak GiB of the GPU) after a call to warm up."""
    cuda, times = device.type == "cuda", []
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        work()
        if cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated() / 2**30 if cuda else 0.0
    return round(sorted(times[1:])[REPEATS // 2], 4), round(peak, 1)


def beside(makers, device):
    """Seconds and peak memory of ours and of theirs, one after the other.

    A maker returns what is measured. It is called only when its turn comes, because an optimizer's
    state takes much memory.
    """
    found = {}
    for name, make in zip(("ours", "theirs"), makers):
        found[f"{name}_s"], found[f"{name}_gib"] = measured(make(), device)
        gc.collect()
    return found | {"ratio": round(found["theirs_s"] / found["ours_s"], 3)}


@torch.no_grad()
def decode(config, examples, device):
    model, theirs = make_models(config, torch.bfloat16, device)
    batch = to_device(collate(examples), device)
    inputs, pad_id = their_inputs(batch, config), config.pad_token_id
    embeds = model.visual(batch["pixel_values"], batch["grid_thw"])
    hidden = model(batch["input_ids"], batch["position_ids"], embeds)
    real = batch["segments"] >= 0
    difference = (model.lm_head(hidden) - theirs(**inputs).logits)[real].float()
    spread = model.lm_head(hidden[real]).float().std()
    # Prompts of one length, without the padding of a batch.
    ids = torch.tensor([example["input_ids"] for example in examples], device=device)
    inputs |= {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    inputs["mm_token_type_ids"] = (ids == config.image_token_id).int()
    how = {"do_sample": False, "max_new_tokens": NEW_TOKENS, "pad_token_id": pad_id}

    def ours():
        return generate(model, examples, NEW_TOKENS, [pad_id]).ids

    def plain():
        return theirs.generate(**inputs, **how, eos_token_id=pad_id)[:, ids.shape[1] :]

    pairs = zip(ours().tolist(), plain().tolist())
    same = sum(a == b for own, other in pairs for a, b in zip(own, other))
    found = {"largest_logit_difference": float(difference.abs().max()), "std": float(spread)}
    found |= {"same_tokens": f"{same} of {len(examples) * NEW_TOKENS}"}
    return found | beside([lambda: ours, lambda: plain], device)


def sft_step(config, examples, device, lora):
    dtype = torch.bfloat16 if lora else torch.float32
    model, theirs = make_models(config, dtype, device)
    if lora:
        from peft import LoraConfig, get_peft_model

        add_lora(model, RANK)
        how = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=LINEARS)
        how.exclude_modules = ".*patch_embed.*"
        theirs = get_peft_model(theirs, how)
    theirs.gradient_checkpointing_enable({"use_reentrant": False})
    model.set_activation_checkpointing(True)
    batch, answer_loss = to_device(collate(examples), device), AnswerLoss(model)
    tokens, losses = ANSWER * len(examples), []
    inputs = their_inputs(batch, config) | {"labels": batch["labels"]}

    def make_step(trained, compute):
        (adamw,) = make_optimizers(trained, 1e-5, muon_lr=0.0)
        trained.train()

        def step():
            with autocast(device, True):
                loss = compute()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained.parameters(), CLIP_NORM)
            adamw.step()
            adamw.zero_grad(set_to_none=True)

        return step

    pairs = [(model, lambda: answer_loss(batch)[0] / tokens)]
    pairs += [(theirs, lambda: theirs(**inputs, use_cache=False).loss)]
    for _, compute in pairs:
        with torch.no_grad(), autocast(device, True):
            losses.append(float(compute()))
    found = {"losses_differ_by": abs(losses[0] - losses[1])}
    return found | beside([lambda p=pair: make_step(*p) for pair in pairs], device)


def main(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tiny", action="store_true", help="nano's shapes, to try the code")
    parser.add_argument("--device", help="default: a GPU if any", choices=["cpu", "cuda"])
    args = parser.parse_args(argv)
    device, config = start_runtime(args.device).device, make_config(args.tiny)
    if missing("transformers"):
        return print(json.dumps({"left out": "transformers is missing"}))
    examples = make_examples(config, *((2, (1, 8, 8)) if args.tiny else (4, (1, 24, 32))))
    cases = {"decode": lambda: decode(config, examples, device)}
    cases["lora"] = lambda: sft_step(config, examples, device, lora=True)
    cases["full"] = lambda: sft_step(config, examples, device, lora=False)
    found = {}
    for name, case in cases.items():
        try:
            found[name] = case()
        except (RuntimeError, ImportError) as error:  # too little memory; no peft
            found[name] = {"error": str(error).splitlines()[0]}
        print(name, found[name], flush=True)
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    print(json.dumps(found))


if __name__ == "__main__":
    run_script(main)
