"""The versions of this machine's GPU and its speed; or how its results agree with the CPU's.

    python tests/perf/check_device.py versions
    python tests/perf/check_device.py agreement --data datasets/rooms-spatial

The last line of the output is what was found, as JSON. on_gpu.py runs both.
"""

import argparse
import json
import platform
import subprocess
import time
from pathlib import Path

import torch
from bench_train import matmul_rate
from turns import BASE, ROOT

import rl
from nanoladder.batches import attention_mask, encode_prompt, pack
from nanoladder.checkpoint import Policy
from nanoladder.generate import generate
from nanoladder.process import run_script
from nanoladder.runtime import start_runtime
from nanoladder.splits import read_kinds

TOLERANCE = 0.02  # of the standard deviation of the logits, and of the gradient's norm


def commit():
    """The commit of this tree; None where git or its folder is missing."""
    head = ["git", "rev-parse", "--short", "HEAD"]
    try:
        shown = subprocess.run(head, cwd=ROOT, capture_output=True, encoding="utf-8").stdout
    except OSError:
        return None
    return shown.strip() or None


def versions(a, device):
    """The machine, and the speed of its plain matrix products."""
    found = {"python": platform.python_version(), "torch": torch.__version__}
    found |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    if device.type == "cuda":
        found["card"] = torch.cuda.get_device_name()
        found["memory_gib"] = round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1)
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        found["driver"] = subprocess.check_output(query, encoding="utf-8").splitlines()[0]
    found |= {"commit": commit(), "date": time.strftime("%Y-%m-%d")}
    for dtype in (torch.bfloat16, torch.float32):
        rate = matmul_rate(dtype, 8192 if device.type == "cuda" else 256)
        found[f"product_{str(dtype).removeprefix('torch.')}"] = rate
    return found


def outcome(device, rows, given=None):
    """The base on a device, in fp32: logits, greedy answers, norm of GRPO's gradient, its answers.

    given: two answers to each of the first two rows, from which the loss is computed; by default
    the device samples them.
    """
    policy = Policy.load(BASE, device=device)
    model, tokenizer, image_config, _ = policy
    prompts = [encode_prompt(row, tokenizer, image_config, model.config, True) for row in rows]
    done = generate(model, prompts, 32, tokenizer.eos_ids)
    if given is None:
        generator = torch.Generator(device).manual_seed(0)
        pairs = generate(model, prompts[:2], 32, tokenizer.eos_ids, 1.0, (), 2, generator)
        given = [t.view(2, 2, -1) for t in pairs]
    ids, mask, old = given
    batch = pack(prompts[:2], ids.cpu(), mask.cpu(), device)
    answers = [t.to(device) for t in (ids, mask, torch.tensor([[1.0, -1], [1, -1]]), old)]
    loss, _ = rl.GRPOLoss(rl.Settings(kl_coef=0.0), model, None, ())(batch, *answers)
    loss.backward()
    norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), 1e9))
    with torch.no_grad():
        embeds = model.visual(batch["pixel_values"], batch["grid_thw"])
        seen = attention_mask(batch["segments"])
        hidden = model(batch["input_ids"], batch["position_ids"], embeds, seen)
        logits = model.lm_head(hidden)[batch["segments"] >= 0].cpu()
    return logits, done.ids.tolist(), norm, (ids, mask, old)


def agreement(a, device):
    """The device beside the CPU: logits, greedy answers, and the gradient of a GRPO step."""
    rows = read_kinds(Path(a.data) / "test", ["single_image"], 4)
    logits, ids, norm, given = outcome(torch.device("cpu"), rows)
    other_logits, other_ids, other_norm, _ = outcome(device, rows, given)
    difference, spread = float((logits - other_logits).abs().max()), float(logits.std())
    same = sum(a == b for a, b in zip(ids, other_ids))
    found = {"largest_logit_difference": difference, "std": spread}
    found |= {"gradient_norm_ratio": other_norm / norm, "same_greedy": f"{same} of {len(rows)}"}
    # On CUDA products are in TF32, which keeps ten bits.
    close = difference < TOLERANCE * spread and abs(other_norm / norm - 1) < TOLERANCE
    return found | {"agree": close}


def main(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["versions", "agreement"])
    parser.add_argument("--data", default="datasets/rooms-spatial", help="data folder with test")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: a GPU if any")
    a = parser.parse_args(argv)
    print(json.dumps(globals()[a.what](a, start_runtime(a.device).device)))


if __name__ == "__main__":
    run_script(main)
