"""Why the nano decoder is shaped as it is: boxes behind a perfect eye.

    python docs/binding.py --data datasets/rooms-base                  # the shipped shape
    python docs/binding.py --data datasets/rooms-base --theta 10 --sections 2,7,7 --no-alike --no-places

The vision tower is replaced by the truth: an image token is the sum of its cell's names' embeddings by share of
pixels, and of the embeddings of its square's letter and digit. What is left is what a decoder needs for a box: to match
a word with the right tokens and to carry their place to the answer. Rooms with a few objects, from random weights, at
the rates of stage 1; prints the mean loss of the last 100 steps. One core, about five minutes. One seed tells little.
"""

import dataclasses
import sys
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))

import train  # noqa: E402
from data.rooms.questions import NAMES  # noqa: E402
from nanoladder import checkpoint  # noqa: E402
from nanoladder.common import parse, progress, run_script, seed_everything, setting  # noqa: E402
from nanoladder.dataset import (  # noqa: E402
    FILES,
    IGNORE_INDEX,
    Dataset,
    attention_mask,
    check_images,
    collate,
    plan_mixture,
    read_rows,
)
from nanoladder.model import Qwen2_5_VL  # noqa: E402
from nanoladder.tokenizer import Tokenizer  # noqa: E402


@dataclasses.dataclass
class Settings:
    """What the decoder is given and how it starts."""

    data: str = setting("datasets/rooms-base", "rooms with index images (data.rooms.prepare --seeing)")
    theta: float = setting(1e4, "rope_theta")
    sections: str = setting("2,3,11", "mrope_section: frequencies of time, height, width")
    alike: bool = setting(True, "queries begin like their keys, or independent of them")
    places: bool = setting(True, "image tokens say their square, or only what they show")
    steps: int = setting(800, "steps of 16 pictures")
    seed: int = setting(0, "seed of weights and order")


def main(argv):
    s = parse(Settings, argv, lambda given: {}, __doc__)
    seed_everything(s.seed)
    folder = checkpoint.find(checkpoint.BASE)
    tokenizer, image_config = Tokenizer.load(folder), checkpoint.load_image_config(folder)
    shape = dataclasses.replace(checkpoint.load(folder)[0].config, rope_theta=s.theta,
                                mrope_section=tuple(map(int, s.sections.split(","))))  # fmt: skip
    model = Qwen2_5_VL(shape)
    if not s.alike:
        for layer in model.model.layers:
            torch.nn.init.normal_(layer.self_attn.q_proj.weight, std=shape.hidden_size**-0.5)
    words = [" " + name for name in NAMES] + list("abcdefgh12345678")
    word_ids = torch.tensor([tokenizer.encode(word)[0] for word in words])

    rows = read_rows(Path(s.data) / "train" / FILES["localization"])
    check_images(rows)
    dataset = Dataset(rows, tokenizer, image_config, shape, s.seed, NAMES)
    dataset.groups = [rows for rows in dataset.groups if rows[0].level <= 2 and train.objects_asked(rows) >= 2]
    order = plan_mixture(dataset.groups, {"localization": 1}, 16 * s.steps, 0.0, s.seed)
    optimizers = train.make_optimizers(model, train.Settings())
    losses = []
    for step in progress(range(s.steps), desc="behind a perfect eye", unit="step"):
        batch = collate([dataset[(epoch, i, 4)] for epoch, i in order[16 * step : 16 * step + 16]])
        said = batch["dense_targets"].clone()
        said[:, len(NAMES) :] *= s.places
        eye = said @ model.model.embed_tokens.weight[word_ids]
        hidden = model(batch["input_ids"], batch["position_ids"], eye, attention_mask(batch["segments"]))
        supervised = batch["labels"][:, 1:] != IGNORE_INDEX
        loss = F.cross_entropy(model.lm_head(hidden[:, :-1][supervised]), batch["labels"][:, 1:][supervised])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        losses.append(float(loss.detach()))
        if (step + 1) % 100 == 0:
            print(f"{16 * (step + 1):6d} pictures  loss {sum(losses[-100:]) / 100:.3f}", flush=True)


if __name__ == "__main__":
    run_script(main)
