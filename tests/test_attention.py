"""Attention weights against transformers' own, and shares inside boxes against counted pixels."""

import numpy as np
import pytest
import torch

from nanoladder.attention import image_attention, share_in_boxes
from nanoladder.checkpoint import flat_name
from nanoladder.hf_config import config_to_hf
from nanoladder.model import Config, Qwen2_5_VL, VisionConfig, mrope_position_ids

IMAGE = 5
TINY = Config(
    VisionConfig(2, 32, 48, 2, 48, patch_size=4, window_size=16, fullatt_block_indexes=(1,)),
    **{"vocab_size": 40, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512},
    **{"rope_theta": 100.0, "mrope_section": (2, 2, 2), "eos_token_id": 1, "pad_token_id": 0},
    **{"image_token_id": IMAGE, "video_token_id": 6},
    **{"vision_start_token_id": 7, "vision_end_token_id": 8},
)


def test_weights_equal_transformers():
    transformers = pytest.importorskip("transformers", minversion="5.3")
    torch.manual_seed(0)
    model = Qwen2_5_VL(TINY)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    grid, answer = (1, 4, 6), [20, 21, 22, 1]
    ids = [9, 7, *[IMAGE] * 6, 8, 12, 13, 14]
    positions, following = mrope_position_ids(ids, [grid], [], [], TINY)
    prompt = {
        "input_ids": ids,
        "position_ids": positions,
        "next_position": following,
        "grid_thw": [grid],
        "pixel_values": torch.randn(24, 96),
    }
    ours = image_attention(model, prompt, answer)

    theirs = transformers.Qwen2_5_VLForConditionalGeneration._from_config(
        transformers.Qwen2_5_VLConfig(**config_to_hf(TINY)), attn_implementation="eager"
    ).eval()
    state = model.state_dict()
    theirs.load_state_dict({name: state[flat_name(name)] for name in theirs.state_dict()})
    whole = torch.tensor([ids + answer[:-1]])
    with torch.no_grad():
        out = theirs(
            input_ids=whole,
            mm_token_type_ids=(whole == IMAGE).int(),
            pixel_values=prompt["pixel_values"],
            image_grid_thw=torch.tensor([grid]),
            output_attentions=True,
        )
    weights = torch.stack(out.attentions)[:, 0, :, len(ids) - 1 :]  # [layers, H, answer tokens, T]
    expected = weights.mean(dim=(0, 1, 2))[2:8]
    assert ours.shape == (6,) and ours == pytest.approx(expected.numpy(), abs=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        half = image_attention(model, prompt, answer)
    assert half == pytest.approx(expected.numpy(), abs=0.01)
    assert not any(layer.self_attn._forward_pre_hooks for layer in model.model.layers)


def test_shares_equal_those_of_counted_pixels():
    rng = np.random.default_rng(1)
    weights = rng.random((3, 4))
    pixels = np.kron(weights, np.ones((8, 8)))  # 24 x 32
    boxes = [(3, 2, 17, 20), (10, 15, 32, 24)]
    inside = np.zeros((24, 32), bool)
    for x1, y1, x2, y2 in boxes:
        inside[y1:y2, x1:x2] = True
    share, area = share_in_boxes(weights, boxes, (32, 24))
    assert share == pytest.approx(pixels[inside].sum() / pixels.sum())
    assert area == pytest.approx(inside.mean())
    assert share_in_boxes(np.ones((3, 4)), boxes, (32, 24))[0] == pytest.approx(area)
