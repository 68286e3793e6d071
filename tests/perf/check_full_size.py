"""Qwen2.5-VL-3B's real shapes with random bf16 weights: this model beside transformers' own, on the same folder.

    python tests/perf/check_full_size.py                    # needs 8 GB of disk and 10 GB of memory; minutes
    python tests/perf/check_full_size.py --layers 4         # the same shapes, fewer layers

Writes a checkpoint folder, opens it once with each in a process of its own, runs one forward pass over a picture and a
question, and prints seconds, peak memory and the largest difference of any logit. --keep leaves the folder.
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
from nanoladder.image import ImageConfig, preprocess  # noqa: E402
from nanoladder.model import PRESETS, Qwen2_5_VL, mrope_position_ids  # noqa: E402


def write_folder(folder, layers):
    """A checkpoint of the 3B's shapes, every tensor drawn in bf16: nothing is ever held in fp32."""
    config = PRESETS["3b"]
    if layers:
        vision = dataclasses.replace(
            config.vision, depth=layers, fullatt_block_indexes=(layers - 1,)
        )
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
    picture_ids = [
        config.vision_start_token_id,
        *[config.image_token_id] * tokens,
        config.vision_end_token_id,
    ]
    return text[:20] + picture_ids + text[20:], pixel_values, grid_thw


@torch.no_grad()
def answer(who, folder, out):
    """Open the folder, one forward pass, save the logits; prints seconds and peak memory."""
    config = checkpoint.config_from_hf(checkpoint.read_json(folder / "config.json"))
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
            input_ids=torch.tensor([ids]), pixel_values=pixel_values, image_grid_thw=torch.tensor(grid_thw),
            mm_token_type_ids=kinds,
        ).logits  # fmt: skip
    torch.save(logits.float(), out)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{who:>12}  {loaded - start:8.1f} {time.time() - loaded:8.1f} {peak:8.1f}", flush=True)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--layers", type=int, default=0, help="layers of each tower (default 0: as published)"
    )
    parser.add_argument(
        "--folder", type=Path, help="where to write the weights (default: a temporary folder)"
    )
    parser.add_argument("--keep", action="store_true", help="leave the folder")
    parser.add_argument("--who", choices=["nanoladder", "transformers"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.who:
        return answer(args.who, args.folder / "weights", args.folder / f"{args.who}.pt")
    folder = args.folder or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    print(
        f"{write_folder(folder / 'weights', args.layers):,} parameters in bf16, torch {torch.__version__}"
    )
    print(f"{'':>12}  {'load s':>8} {'run s':>8} {'peak GB':>8}", flush=True)
    for who in ("nanoladder", "transformers"):
        subprocess.run(
            [sys.executable, __file__, "--folder", str(folder), "--who", who], check=True
        )
    ours, theirs = (torch.load(folder / f"{who}.pt") for who in ("nanoladder", "transformers"))
    alike = (ours.argmax(-1) == theirs.argmax(-1)).float().mean()
    print(f"logits {tuple(ours.shape)}: largest difference {(ours - theirs).abs().max():.4f}, their spread "
          f"{theirs.std():.4f}, same first choice at {alike:.1%} of the places")  # fmt: skip
    if not args.keep:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
