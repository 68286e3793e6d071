"""The model against transformers' own Qwen2.5-VL on random weights, and against itself."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from perf.flops import flops
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from nanoladder.batches import attention_mask
from nanoladder.checkpoint import config_from_hf, flat_name
from nanoladder.hf_config import config_to_hf
from nanoladder.model import (
    PRESETS,
    Config,
    KVCache,
    Qwen2_5_VL,
    VisionConfig,
    attention_blocks,
    mrope_position_ids,
    plan_vision,
    shared_prompt_attention,
)

IMAGE, VIDEO, START, END = 5, 6, 7, 8

TINY = Config(
    VisionConfig(3, 32, 48, 2, 48, patch_size=4, window_size=16, fullatt_block_indexes=(1,)),
    **{"vocab_size": 64, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512},
    **{"rope_theta": 100.0, "mrope_section": (2, 2, 2), "eos_token_id": 1, "pad_token_id": 0},
    **{"image_token_id": IMAGE, "video_token_id": VIDEO},
    **{"vision_start_token_id": START, "vision_end_token_id": END},
)

# name: (pictures as (kind, grid), videos' seconds a step, changes to TINY)
# A window has 4 x 4 patches.
CASES = {
    "text only": ([], [], {}),
    "one image of whole windows": ([(IMAGE, (1, 8, 8))], [], {}),
    "one image of broken windows": ([(IMAGE, (1, 6, 10))], [], {}),
    "smaller than a window": ([(IMAGE, (1, 2, 2))], [], {}),
    "several images of one size": ([(IMAGE, (1, 4, 8))] * 3, [], {"num_key_value_heads": 4}),
    "several images of any size": (
        [(IMAGE, (1, 6, 4)), (IMAGE, (1, 2, 10)), (IMAGE, (1, 8, 8))],
        [],
        {},
    ),
    "extremely wide": ([(IMAGE, (1, 2, 80))], [], {"num_key_value_heads": 1}),
    "extremely tall": ([(IMAGE, (1, 80, 2))], [], {"tie_word_embeddings": False}),
    "video": ([(VIDEO, (3, 10, 8))], [1.0], {}),
    "video of fractional seconds": ([(VIDEO, (4, 6, 10))], [0.75], {"rms_norm_eps": 1e-4}),
    "image, video, image": (
        [(IMAGE, (1, 4, 4)), (VIDEO, (2, 4, 6)), (IMAGE, (1, 6, 6))],
        [0.5],
        {},
    ),
    "two videos": (
        [(VIDEO, (2, 4, 4)), (VIDEO, (3, 6, 8))],
        [0.5, 0.3],
        {"mrope_section": (1, 2, 3)},
    ),
}


def example(pictures, seconds=(), config=TINY, text=5):
    """A sequence with pictures.

    Returns ids [T], positions [3, T], the next position, pixel_values [N, 96], and grids.
    """
    ids = torch.randint(10, config.vocab_size, (text,)).tolist()
    for kind, (t, h, w) in pictures:
        ids += [START, *[kind] * (t * h * w // 4), END]
        ids += torch.randint(10, config.vocab_size, (2,)).tolist()
    grids = [grid for _, grid in pictures]
    of = {kind: [grid for k, grid in pictures if k == kind] for kind in (IMAGE, VIDEO)}
    positions, following = mrope_position_ids(ids, of[IMAGE], of[VIDEO], list(seconds), config)
    return ids, positions, following, torch.randn(sum(np.prod(g) for g in grids), 96), grids


def randomize(model):
    """The model with random norms and biases too, so that a test notices if one is left out."""
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    return model


def reference(model):
    """transformers' model with the same weights."""
    transformers = pytest.importorskip("transformers", minversion="5.3")
    config = transformers.Qwen2_5_VLConfig(**config_to_hf(model.config))
    theirs = transformers.Qwen2_5_VLForConditionalGeneration(config)
    ours = model.state_dict()
    theirs.load_state_dict({name: ours[flat_name(name)] for name in theirs.state_dict()})
    return theirs.eval()


def reference_inputs(ids, pixel_values, pictures, seconds):
    """Keyword arguments of transformers' forward for the same sequence."""
    ids = torch.tensor([ids])
    types = (ids == IMAGE).int() + 2 * (ids == VIDEO).int()
    kwargs = {"input_ids": ids, "mm_token_type_ids": types}
    patches = pixel_values.split([int(np.prod(grid)) for _, grid in pictures])
    names = {IMAGE: ("pixel_values", "image"), VIDEO: ("pixel_values_videos", "video")}
    for kind, (pixels, grid) in names.items():
        if any(k == kind for k, _ in pictures):
            own = [patch for patch, (k, _) in zip(patches, pictures) if k == kind]
            kwargs[pixels] = torch.cat(own)
            kwargs[f"{grid}_grid_thw"] = torch.tensor([g for k, g in pictures if k == kind])
    if seconds:
        kwargs["second_per_grid_ts"] = torch.tensor(seconds)
    return kwargs


@pytest.mark.parametrize("name", CASES)
def test_logits_positions_and_gradients_equal_transformers(name):
    pictures, seconds, changes = CASES[name]
    torch.manual_seed(len(name))
    model = randomize(Qwen2_5_VL(dataclasses.replace(TINY, **changes)))
    theirs = reference(model)
    ids, positions, _, pixel_values, grids = example(pictures, seconds, model.config)
    kwargs = reference_inputs(ids, pixel_values, pictures, seconds)
    if pictures:
        expected, _ = theirs.model.get_rope_index(
            kwargs["input_ids"],
            kwargs["mm_token_type_ids"],
            kwargs.get("image_grid_thw"),
            kwargs.get("video_grid_thw"),
            kwargs.get("second_per_grid_ts"),
        )
        assert torch.equal(positions, expected[:, 0])

    image_embeds = model.visual(pixel_values, grids) if grids else None
    logits = model.lm_head(model(kwargs["input_ids"], positions[:, None], image_embeds))
    wanted = theirs(**kwargs).logits
    assert wanted.std() > 0.1
    torch.testing.assert_close(logits, wanted, atol=1e-4, rtol=0)

    target = torch.randn_like(logits)
    (logits * target).mean().backward()
    (wanted * target).mean().backward()
    gradients = dict(model.named_parameters())
    for name, parameter in theirs.named_parameters():
        if parameter.grad is not None:  # without a picture the vision encoder has none
            ours = gradients[flat_name(name)].grad
            torch.testing.assert_close(ours, parameter.grad, atol=1e-4, rtol=1e-3)
            assert not pictures or parameter.grad.abs().max() > 0


def test_left_padded_batch_equals_transformers():
    torch.manual_seed(0)
    model = randomize(Qwen2_5_VL(TINY))
    pictures = [[(IMAGE, (1, 4, 6))], [(IMAGE, (1, 8, 4)), (IMAGE, (1, 4, 4))]]
    rows = [example(p, text=3) for p in pictures]
    T = max(len(row[0]) for row in rows)
    ids, valid = torch.zeros(2, T, dtype=torch.long), torch.zeros(2, T, dtype=torch.bool)
    positions = torch.zeros(3, 2, T, dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, T - len(row[0]) :], valid[i, T - len(row[0]) :] = torch.tensor(row[0]), True
        positions[:, i, T - len(row[0]) :] = row[1]
    pixel_values, grids = torch.cat([row[3] for row in rows]), rows[0][4] + rows[1][4]
    causal, itself = torch.ones(T, T, dtype=torch.bool).tril(), torch.eye(T, dtype=torch.bool)
    mask = causal & valid[:, None] | itself
    logits = model.lm_head(model(ids, positions, model.visual(pixel_values, grids), mask[:, None]))
    wanted = reference(model)(
        input_ids=ids,
        attention_mask=valid.long(),
        pixel_values=pixel_values,
        image_grid_thw=torch.tensor(grids),
        mm_token_type_ids=(ids == IMAGE).int(),
    ).logits
    assert not valid.all()
    torch.testing.assert_close(logits[valid], wanted[valid], atol=1e-4, rtol=0)


def published(**changes):
    """The published config.json of the 3B, in the flat layout."""
    vision = {
        **{"depth": 32, "hidden_act": "silu", "hidden_size": 1280, "intermediate_size": 3420},
        **{"num_heads": 16, "in_chans": 3, "out_hidden_size": 2048, "patch_size": 14},
        **{"spatial_merge_size": 2, "spatial_patch_size": 14, "window_size": 112},
        **{"fullatt_block_indexes": [7, 15, 23, 31], "tokens_per_second": 2},
        **{"temporal_patch_size": 2},
    }
    config = {
        **{"architectures": ["Qwen2_5_VLForConditionalGeneration"], "model_type": "qwen2_5_vl"},
        **{"attention_dropout": 0.0, "bos_token_id": 151643, "eos_token_id": 151645},
        **{"vision_start_token_id": 151652, "vision_end_token_id": 151653},
        **{"image_token_id": 151655, "video_token_id": 151656, "pad_token_id": 151643},
        **{"hidden_act": "silu", "hidden_size": 2048, "initializer_range": 0.02},
        **{"intermediate_size": 11008, "max_position_embeddings": 128000},
        **{"num_attention_heads": 16, "num_hidden_layers": 36, "num_key_value_heads": 2},
        **{"rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "sliding_window": 32768},
        **{"tie_word_embeddings": True, "torch_dtype": "bfloat16", "use_cache": True},
        **{"use_sliding_window": False, "vocab_size": 151936},
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
        "vision_config": vision,
    }
    vision["out_hidden_size"] = changes.get("hidden_size", 2048)
    return config | changes


SEVEN = {
    **{"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28},
    **{"num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064},
    **{"tie_word_embeddings": False},
}
CONFIGS = PRESETS | {"3b": Config(), "7b": Config(VisionConfig(out_hidden_size=3584), **SEVEN)}


@pytest.mark.parametrize("size, changes", [("3b", {}), ("7b", SEVEN)])
def test_names_and_shapes_of_the_published_sizes(size, changes):
    transformers = pytest.importorskip("transformers", minversion="5.3")
    assert config_from_hf(published(**changes)) == CONFIGS[size]
    with torch.device("meta"):
        ours = Qwen2_5_VL(CONFIGS[size])
        config = transformers.Qwen2_5_VLConfig(**published(**changes))
        theirs = transformers.Qwen2_5_VLForConditionalGeneration(config)
    shapes = {flat_name(name): p.shape for name, p in theirs.named_parameters()}
    assert {name: p.shape for name, p in ours.named_parameters()} == shapes


@pytest.mark.parametrize(
    "size, millions", [("nano", 2.0), ("small", 41.6), ("3b", 3754.6), ("7b", 8292.2)]
)
def test_sizes_of_the_presets_and_of_the_published_models(size, millions):
    with torch.device("meta"):
        parameters = Qwen2_5_VL(CONFIGS[size]).num_parameters()
    assert parameters / 1e6 == pytest.approx(millions, rel=0.03)


@pytest.mark.parametrize("size", PRESETS)
def test_windows_of_the_presets_hold_rooms_without_padding(size):
    vision = PRESETS[size].vision
    side = 96 // vision.patch_size
    plan = plan_vision(vision, ((1, side, side),), torch.device("cpu"))
    assert plan.windows.mask is None and side**2 % plan.windows.length == 0


def test_text_after_a_long_video_starts_past_its_time():
    """Qwen's own code does so, too.

    transformers 5.23 starts at max(rows, columns), which the video still occupies.
    """
    ids = [10, *[VIDEO] * 20, 11]
    positions, following = mrope_position_ids(ids, [], [(5, 4, 4)], [1.5], TINY)
    assert positions[0].tolist() == [0, *[1] * 4, *[4] * 4, *[7] * 4, *[10] * 4, *[13] * 4, 14]
    assert positions[1:, -1].tolist() == [14, 14] and following == 15


def test_positions_of_the_docstring():
    positions, following = mrope_position_ids([10, 11, *[IMAGE] * 4, 12], [(1, 4, 4)], [], [], TINY)
    assert positions[0].tolist() == [0, 1, 2, 2, 2, 2, 4]
    assert positions[1].tolist() == [0, 1, 2, 2, 3, 3, 4]
    assert positions[2].tolist() == [0, 1, 2, 3, 2, 3, 4]
    assert following == 5


@pytest.mark.parametrize(
    "ids, images",
    [([IMAGE] * 3, [(1, 4, 4)]), ([IMAGE] * 5, [(1, 4, 4)]), ([9], [(1, 4, 4)]), ([IMAGE], [])],
)
def test_placeholders_that_do_not_match_their_grids_are_refused(ids, images):
    with pytest.raises(ValueError, match="grid"):
        mrope_position_ids(ids, images, [], [], TINY)


def test_pixels_that_do_not_match_their_grids_are_refused():
    model = Qwen2_5_VL(TINY)
    with pytest.raises(ValueError, match="12 patches, not 16"):
        model.visual(torch.randn(12, 96), [(1, 4, 4)])
    with pytest.raises(ValueError, match="2 x 2"):
        model.visual(torch.randn(12, 96), [(1, 3, 4)])


def test_pictures_do_not_see_each_other_and_padding_changes_nothing():
    torch.manual_seed(0)
    model = randomize(Qwen2_5_VL(TINY))
    grids = [(1, 8, 8), (2, 6, 10), (1, 8, 8), (1, 4, 4)]
    pixels = [torch.randn(int(np.prod(grid)), 96) for grid in grids]
    # Windows and frames of different sizes are padded and masked; those of one size are not.
    together = model.visual(torch.cat(pixels), grids)
    alone = torch.cat([model.visual(x, [grid]) for x, grid in zip(pixels, grids)])
    plan = plan_vision(TINY.vision, ((1, 8, 8),), torch.device("cpu"))
    assert plan.windows.mask is None and plan.frames.mask is None
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_windows_filled_exactly_leave_no_empty_one():
    plan = plan_vision(TINY.vision, ((1, 8, 12), (1, 4, 4), (2, 6, 4)), torch.device("cpu"))
    assert plan.windows.mask.sum(dim=-1).flatten().tolist() == [16] * 6 + [16] + [16, 8] * 2
    # The first window has 4 x 4 patches, which are 2 x 2 of the 6 image tokens in a row.
    assert plan.order[:4].tolist() == [0, 1, 6, 7]
    assert torch.equal(plan.order[plan.inverse], torch.arange(len(plan.order)))


def test_packed_sequences_do_not_see_each_other():
    torch.manual_seed(0)
    model = randomize(Qwen2_5_VL(TINY))
    rows = [example([(IMAGE, (1, 4, 4))]), example([(IMAGE, (1, 4, 8))], text=9)]
    lengths = [len(row[0]) for row in rows]
    apart = [
        model(torch.tensor([ids]), positions[:, None], model.visual(x, grids))
        for ids, positions, _, x, grids in rows
    ]
    document = torch.arange(2).repeat_interleave(torch.tensor(lengths))
    causal = torch.ones(sum(lengths), sum(lengths), dtype=torch.bool).tril()
    mask = (document[:, None] == document) & causal
    packed = model(
        torch.tensor([rows[0][0] + rows[1][0]]),
        torch.cat([row[1] for row in rows], dim=1)[:, None],
        model.visual(torch.cat([row[3] for row in rows]), rows[0][4] + rows[1][4]),
        mask[None, None],
    )
    torch.testing.assert_close(packed, torch.cat(apart, dim=1), atol=1e-5, rtol=1e-4)


def test_cache_in_pieces_equals_one_pass():
    """A prompt in two pieces; then three sequences after each of two copies of it, left-padded."""
    torch.manual_seed(0)
    model = randomize(Qwen2_5_VL(TINY))
    ids, positions, _, x, grids = example([(IMAGE, (1, 4, 8))])
    ids, positions, T = torch.tensor([ids]), positions[:, None], len(ids)
    image_embeds = model.visual(x, grids)
    whole = model(ids, positions, image_embeds)
    cache = KVCache.empty(TINY, 1, T - 2, "cpu", torch.float32)
    mask = torch.ones(T, T, dtype=torch.bool).tril()[None, None]
    with torch.no_grad():
        one = model(ids[:, :3], positions[..., :3], None, None, cache)
        two = model(ids[:, 3:-2], positions[..., 3:-2], image_embeds, mask[:, :, 3:-2, :-2], cache)
        padded = (F.pad(kept, (0, 0, 1, 0), value=9.0) for kept in (cache.keys, cache.values))
        prompt = KVCache(*(kept.repeat(1, 2, 1, 1, 1) for kept in padded))
        wide = KVCache.empty(TINY, 6, 2, "cpu", torch.float32, prompt)
        valid = (torch.arange(T - 1) > 0).expand(2, 1, 1, -1)
        where = positions[..., -2:-1].expand(3, 6, 1)
        three = model(ids[:, -2:-1].expand(6, 1), where, None, valid, wide)
        few = wide.select(torch.tensor([4, 3]), torch.tensor([False, True]))
        where = positions[..., -1:].expand(3, 2, 1)
        four = model(ids[:, -1:].expand(2, 1), where, None, valid[1:], few)
    assert (cache.length, wide.length, few.length) == (T - 2, 1, 2)
    assert (few.keys.shape[1], few.prompt.keys.shape[1]) == (2, 1)
    torch.testing.assert_close(torch.cat((one, two), dim=1), whole[:, :-2], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(three, whole[:, -2:-1].expand(6, -1, -1), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(four, whole[:, -1:].expand(2, -1, -1), atol=1e-5, rtol=1e-4)


def test_shared_prompt_attention_equals_attention_to_copies_of_the_prompt():
    torch.manual_seed(0)
    B, P, H, K, S, T, Dh = 6, 2, 4, 2, 3, 5, 8
    q, k, v = (torch.randn(B, heads, n, Dh) for heads, n in ((H, 1), (K, S), (K, S)))
    prompt_k, prompt_v = (torch.randn(P, K, T, Dh) for _ in range(2))
    mask = torch.ones(P, 1, 1, T, dtype=torch.bool)
    mask[1, ..., :2] = False  # the second prompt is padded
    y = shared_prompt_attention(q, k, v, prompt_k, prompt_v, mask)

    copies = (x.repeat_interleave(B // P, dim=0) for x in (prompt_k, prompt_v))
    k, v = (torch.cat(pair, dim=2).repeat_interleave(H // K, 1) for pair in zip(copies, (k, v)))
    seen = F.pad(mask.repeat_interleave(B // P, dim=0), (0, S), value=True)
    torch.testing.assert_close(y, F.scaled_dot_product_attention(q, k, v, attn_mask=seen))


def gradients(model, ids, positions, x, grids):
    model.zero_grad()
    hidden = model(torch.tensor([ids]), positions[:, None], model.visual(x, grids))
    model.lm_head(hidden).square().mean().backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def test_attention_in_blocks_equals_attention_in_one(monkeypatch):
    torch.manual_seed(0)
    model = randomize(Qwen2_5_VL(TINY))
    ids, positions = torch.randint(10, 64, (2, 60)), torch.arange(60).expand(3, 2, -1)
    one = [0] * 12 + [1] * 9 + [2] * 30 + [-1] * 9
    other = [0] * 12 + [1] * 20 + [2] * 8 + [3] * 20
    segments = torch.tensor([one, other])
    mask, found = attention_mask(segments), []
    for long, block in ((999, 999), (60, 7)):
        monkeypatch.setattr("nanoladder.model.LONG", long)
        monkeypatch.setattr("nanoladder.model.BLOCK", block)
        model.zero_grad()
        hidden = model(ids, positions, None, mask)
        hidden.square().mean().backward()
        found.append([hidden, *(p.grad.clone() for p in model.model.parameters())])
    blocks = attention_blocks(mask)
    assert len(blocks) == 9 and sum(len(keys) for _, keys, _ in blocks) < 9 * 36  # of 60 each
    for one, divided in zip(*found):
        torch.testing.assert_close(divided, one, atol=1e-5, rtol=1e-4)


def test_activation_checkpointing_changes_no_gradient():
    torch.manual_seed(0)
    model = Qwen2_5_VL(TINY)
    ids, positions, _, x, grids = example([(IMAGE, (1, 6, 8))])
    kept = gradients(model, ids, positions, x, grids)
    calls = []
    model.visual.blocks[0].register_forward_pre_hook(lambda *_: calls.append("vision"))
    model.model.layers[0].register_forward_pre_hook(lambda *_: calls.append("decoder"))
    model.set_activation_checkpointing(True)
    recomputed = gradients(model, ids, positions, x, grids)
    assert sorted(calls) == ["decoder"] * 2 + ["vision"] * 2
    for name in kept:
        torch.testing.assert_close(recomputed[name], kept[name])


def test_plan_made_while_generating_serves_training():
    plan_vision.cache_clear()
    model = Qwen2_5_VL(TINY)
    with torch.inference_mode():
        model.visual(torch.randn(24, 96), [(1, 4, 6)])
    model.visual(torch.randn(24, 96), [(1, 4, 6)]).sum().backward()


def test_initial_scale():
    torch.manual_seed(0)
    config = dataclasses.replace(PRESETS["nano"], image_token_id=IMAGE)
    model = Qwen2_5_VL(config)
    ids = torch.randint(10, 1024, (2, 50))
    logits = model.lm_head(model(ids, torch.arange(50).expand(3, 2, -1)))
    loss = F.cross_entropy(logits.flatten(0, 1), torch.randint(0, 1024, (100,)))
    assert loss.item() == pytest.approx(np.log(1024), abs=0.1)
    q, o = model.model.layers[0].self_attn.q_proj, model.model.layers[0].self_attn.o_proj
    assert q.weight.std().item() == pytest.approx(128**-0.5, rel=0.05) and q.bias.abs().max() == 0
    assert o.weight.std().item() == pytest.approx(128**-0.5 / 8**0.5, rel=0.05)
    assert model.model.norm.weight.min() == 1
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_flops_are_those_counted():
    config = dataclasses.replace(PRESETS["nano"], image_token_id=IMAGE, video_token_id=VIDEO)
    model = Qwen2_5_VL(config)
    ids, positions, _, _, grids = example([(IMAGE, (1, 12, 12))] * 3, config=model.config)
    x = torch.randn(3 * 144, model.config.vision.in_channels * 2 * 8 * 8)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model.lm_head(model(torch.tensor([ids]), positions[:, None], model.visual(x, grids)))
    counted = 3 * counter.get_total_flops()  # a backward pass takes twice a forward pass
    assert flops(model, grids, [len(ids)]) == pytest.approx(counted, rel=0.03)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cpu_and_cuda_agree():
    torch.manual_seed(0)
    model = randomize(Qwen2_5_VL(TINY))
    ids, positions, _, x, grids = example([(IMAGE, (1, 8, 8)), (IMAGE, (1, 4, 6))])
    wanted = model(torch.tensor([ids]), positions[:, None], model.visual(x, grids))
    model.cuda()
    ids, positions, x = torch.tensor([ids]).cuda(), positions[:, None].cuda(), x.cuda()
    hidden = model(ids, positions, model.visual(x, grids))
    torch.testing.assert_close(hidden.cpu(), wanted, atol=1e-3, rtol=1e-3)
    with torch.autocast("cuda", torch.bfloat16):
        hidden = model(ids, positions, model.visual(x, grids))
    assert (hidden.cpu() - wanted).norm() / wanted.norm() < 0.1
