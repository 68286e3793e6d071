"""What train.py shows before it starts, in signs that every terminal has."""

import dataclasses

import pytest
from PIL import Image

from nanoladder.batches import Dataset, load_bytes
from nanoladder.checkpoint import PixelLimits, Policy
from nanoladder.image import ImageConfig
from nanoladder.model import PRESETS, Qwen2_5_VL
from nanoladder.preview import estimate_memory, explain, largest_pictures, picture_bytes
from nanoladder.schema import check_images, check_row
from nanoladder.tokenizer import Tokenizer, config_for_tokenizer

CONFIG = ImageConfig(patch_size=8, coordinates=True)


@dataclasses.dataclass
class Settings:
    """What the memory estimate reads of train.py's settings."""

    amp: bool = False
    recompute: bool = False
    muon_lr: float = 0.0
    lora_rank: int = 0
    micro_batch_size: int = 1


def shown(tmp_path, sizes, **limits):
    """The lines of the preview for one row about a picture of each size, by name of the line."""
    rows = []
    for k, size in enumerate(sizes):
        Image.new("RGB", size).save(tmp_path / f"{k}.jpg")
        raw = {"question_id": k, "question": "Wo ist der Stuhl?", "answer": "\u6905\u5b50 links"}
        raw |= {"image": [f"{k}.jpg"], "data_type": "single_image"}
        rows.append(check_row(raw, tmp_path, f"rows.jsonl:{k}"))
    check_images(rows)
    tokenizer = Tokenizer.train(text for row in rows for text in (row.question, row.answer))
    model = Qwen2_5_VL(config_for_tokenizer(PRESETS["nano"], tokenizer))
    policy = Policy(model, tokenizer, CONFIG).limit_pixels(PixelLimits(**limits))
    dataset, lines = Dataset(rows, *policy[1:3], model.config), []
    explain(Settings(), dataset, dataset.encode(rows[:1]), policy, lines.append)
    return {line.partition(":")[0].split()[0]: line for line in lines}, "\n".join(lines)


def memory(lines):
    return float(lines["memory"].partition("GiB")[0].split()[-1])


def test_the_example_is_shown_in_plain_signs(tmp_path):
    _, text = shown(tmp_path, [(96, 96)])
    assert "<|vision_start|>(36 image tokens)<|vision_end|>Wo ist der Stuhl?" in text
    assert text.count("[[\u6905\u5b50 links<|im_end|>") == 1 and text.count("]]") == 2
    assert "pictures:" not in text  # which are small
    assert text.replace("\u6905\u5b50", "").isascii()


def test_large_pictures_are_counted_although_the_example_is_small(tmp_path):
    small, _ = shown(tmp_path, [(96, 96)])
    large, _ = shown(tmp_path, [(96, 96), (4000, 3000)])
    wanted = "pictures: 3,888 image tokens each at most (4000 x 3000); --max-pixels 131072 makes"
    assert large["pictures"] == f"{wanted} that 494"
    assert memory(large) > 10 * memory(small)
    limited, text = shown(tmp_path, [(96, 96), (4000, 3000)], max_pixels=131072)
    assert "pictures" not in limited and memory(small) < memory(limited) < memory(large) / 4


@pytest.mark.parametrize("data_type, tokens", [("multi_view", 5 * 36), ("video", 3 * 36)])
def test_a_sequence_costs_what_all_its_pictures_cost(tmp_path, data_type, tokens):
    Image.new("RGB", (96, 96)).save(tmp_path / "a.png")
    raw = {"question_id": 1, "question": "?", "answer": "a", "image": ["a.png"] * 5}
    row = check_row(raw | {"data_type": data_type}, tmp_path, "rows.jsonl:1")
    check_images([row])
    assert largest_pictures([[row]], CONFIG) == (tokens, 36, (96, 96))
    clips = sum(clip.numel() for clip in load_bytes(row.images, data_type == "video", CONFIG)[0])
    assert picture_bytes([[row]], CONFIG, Settings(micro_batch_size=3)) == 3 * clips


def test_the_larger_preset_needs_less_than_24_gib():
    """By the estimate: sequences of eight views with all questions, sixteen in a pass."""
    model = Qwen2_5_VL(PRESETS["small"])
    for amp in (True, False):
        s = Settings(amp=amp, muon_lr=1e-3, micro_batch_size=16)
        assert sum(estimate_memory(model, s, 1000, 8 * 36, 500).values()) < 24
