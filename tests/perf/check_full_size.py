"""Our model beside transformers' own at the size of Qwen2.5-VL-3B, with random bf16 weights.

    python tests/perf/check_full_size.py             # minutes, 8 GB of disk, 10 GB of memory
    python tests/perf/check_full_size.py --layers 4  # the same shapes, fewer layers

The script writes a checkpoint folder. Each model opens it in a process of its own and computes one
forward pass over a picture and a question. The script prints their seconds, their peak memory and
the largest difference between their logits.
"""

import argparse
import dataclasses
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from nanoladder import checkpoint  # noqa: E402
from nanoladder.files import read_json  # noqa: E402
from nanoladder.image import ImageConfig, preprocess  # noqa: E402
from nanoladder.model import Config, Qwen2_5_VL, mrope_position_ids  # noqa: E402


def write_folder(folder, layers):
    """Write a checkpoint of the 3B's shapes, and draw every tensor in bf16 to save memory."""
    config = Config()
    if layers:
        full = {"depth": layers, "fullatt_block_indexes": (layers - 1,)}
        vision = dataclasses.replace(config.vision, **full)
        config = dataclasses.replace(config, num_hidden_layers=layers, vision=vision)
    with torch.device("meta"):
        model = Qwen2_5_VL(config)
    torch.set_default_dtype(torch.bfloat16)
    model.to(torch.bfloat16).to_empty(device="cpu")
    torch.set_default_dtype(torch.float32)
    model.lm_head.weight = model.model.embed_tokens.weight  # to_empty unties them
    torch.manual_seed(0)
    model.init_weights()
    checkpoint.save(folder, model, image_config=ImageConfig())
    return model.num_parameters()


def inputs(config):
    """A random 448 x 336 picture and 60 tokens of text around it."""
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (336, 448, 3), dtype=np.uint8))
    pixel_values, grid_thw = preprocess([picture], ImageConfig())
    tokens = sum(t * h * w for t, h, w in grid_thw) // config.vision.spatial_merge_size**2
    text = rng.integers(0, 151000, 60).tolist()
    start, end = config.vision_start_token_id, config.vision_end_token_id
    ids = [*text[:20], start, *[config.image_token_id] * tokens, end, *text[20:]]
    return ids, pixel_values, grid_thw


@torch.no_grad()
def answer(who, folder, out):
    """Open the folder, compute and save the logits, and print seconds and peak memory."""
    config = checkpoint.config_from_hf(read_json(folder / "config.json"))
    ids, pixel_values, grid_thw = inputs(config)
    start = time.time()
    if who == "nanoladder":
        model, _ = checkpoint.load(folder, torch.bfloat16)
        loaded = time.time()
        positions, _ = mrope_position_ids(ids, grid_thw, [], [], config)
        embeds = model.visual(pixel_values, grid_thw)
        logits = model.lm_head(model(torch.tensor([ids]), positions[:, None], embeds))
    else:
        from transformers import Qwen2_5_VLForConditionalGeneration

        model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.bfloat16)
        loaded = time.time()
        kinds = torch.tensor([[int(i == config.image_token_id) for i in ids]])
        logits = model(
            input_ids=torch.tensor([ids]),
            pixel_values=pixel_values,
            image_grid_thw=torch.tensor(grid_thw),
            mm_token_type_ids=kinds,
        ).logits
    torch.save(logits.float(), out)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{who:>12}  {loaded - start:8.1f} {time.time() - loaded:8.1f} {peak:8.1f}", flush=True)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    layers = "layers of the vision encoder and of the decoder (default 0: as published)"
    parser.add_argument("--layers", type=int, default=0, help=layers)
    folder = "where to write the weights (default: a temporary folder)"
    parser.add_argument("--folder", type=Path, help=folder)
    parser.add_argument("--keep", action="store_true", help="do not delete the folder at the end")
    parser.add_argument("--who", choices=["nanoladder", "transformers"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.who:
        return answer(args.who, args.folder / "weights", args.folder / f"{args.who}.pt")
    folder = args.folder or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    parameters = write_folder(folder / "weights", args.layers)
    print(f"{parameters:,} parameters in bf16, torch {torch.__version__}")
    print(f"{'':>12}  {'load s':>8} {'run s':>8} {'peak GB':>8}", flush=True)
    for who in ("nanoladder", "transformers"):
        command = [sys.executable, __file__, "--folder", str(folder), "--who", who]
        subprocess.run(command, check=True)
    ours, theirs = (torch.load(folder / f"{who}.pt") for who in ("nanoladder", "transformers"))
    alike = (ours.argmax(-1) == theirs.argmax(-1)).float().mean()
    difference = f"largest difference {(ours - theirs).abs().max():.4f}"
    print(f"logits {tuple(ours.shape)}: {difference}, standard deviation {theirs.std():.4f}")
    print(f"the likeliest token is the same at {alike:.1%} of the places")
    if not args.keep:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
