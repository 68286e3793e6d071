"""From rows to tensors: packed questions get the logits they have alone, mixtures keep shares."""

import dataclasses
from collections import Counter
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from nanoladder.batches import (
    IGNORE_INDEX,
    Dataset,
    attention_mask,
    collate,
    deal_prompts,
    encode_prompt,
    on_device,
    plan_mixture,
    take_turns,
)
from nanoladder.command import UserError
from nanoladder.image import ImageConfig
from nanoladder.model import PRESETS, Config, Qwen2_5_VL, VisionConfig, mrope_position_ids
from nanoladder.schema import check_images, check_row, read_rows
from nanoladder.tokenizer import Tokenizer, config_for_tokenizer

CONFIG = ImageConfig(patch_size=8, coordinates=True)


@pytest.mark.parametrize("data_type, frames, grids, seconds, times", [
    # An odd frame is repeated. Two frames are one second at two frames a second.
    ("video", 5, [(3, 12, 12)], {}, [0, 2, 4]),
    ("video", 5, [(3, 12, 12)], {"frame_seconds": 3}, [0, 12, 24]),
    ("video", 4, [(2, 12, 12)], {"frame_seconds": 0.4}, [0, 1]),
    ("multi_view", 3, [(1, 12, 12)] * 3, {"frame_seconds": 3}, [0]),
])  # fmt: skip
def test_frames_become_a_video_and_views_images(tmp_path, data_type, frames, grids, seconds, times):
    noise = np.random.default_rng(0).integers(0, 255, (96, 96, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    raw = {"question_id": 1, "question": "How high?", "image": ["a.png"] * frames} | seconds
    row = check_row(
        raw | {"answer": "87", "unit": "cm", "data_type": data_type}, tmp_path, "rows.jsonl:1"
    )
    tok = Tokenizer.train([row.question], 300)
    prompt = encode_prompt(row, tok, CONFIG, config_for_tokenizer(PRESETS["nano"], tok), ask=True)
    place = tok.video_id if data_type == "video" else tok.image_id
    ids, time = prompt["input_ids"], prompt["position_ids"][0]
    assert prompt["grid_thw"] == grids and ids.count(place) == 36 * sum(t for t, _, _ in grids)
    assert ids.count(tok.vision_start_id) == len(grids)
    first = ids.index(place)
    shown = time[first : first + 36 * grids[0][0]] - time[first]
    assert shown.unique().tolist() == times
    ending = "Answer with a number.<|im_end|>\n<|im_start|>assistant\n"
    assert tok.decode(ids).endswith(ending)


def test_the_times_of_a_video_equal_transformers():
    """In float32, at any rate of tokens and of frames (transformers' get_rope_index)."""
    theirs = pytest.importorskip("transformers", minversion="5.3").Qwen2_5_VLModel
    rng = np.random.default_rng(0)
    for trial in range(300):
        tokens = [int(rng.integers(1, 60)), float(rng.uniform(0.1, 60))][trial % 4 == 0]
        seconds = 2 / float(rng.choice([1, 2, 3, 7, 24, 25, 29.97, 30, rng.uniform(0.05, 60)]))
        steps = int(rng.integers(1, 400))
        model = dataclasses.replace(
            Config(), vision=dataclasses.replace(VisionConfig(), tokens_per_second=tokens)
        )
        ids = torch.tensor([[5, *[model.video_token_id] * steps]])
        vision = SimpleNamespace(spatial_merge_size=2, tokens_per_second=tokens)
        place = partial(theirs.get_vision_position_ids, None)
        own = SimpleNamespace(config=SimpleNamespace(vision_config=vision))
        own.get_vision_position_ids = place
        is_video = 2 * (ids == model.video_token_id).int()
        grids = torch.tensor([[steps, 2, 2]])
        wanted, _ = theirs.get_rope_index(own, ids, is_video, None, grids, torch.tensor([seconds]))
        found, _ = mrope_position_ids(ids[0], [], [(steps, 2, 2)], [seconds], model)
        assert torch.equal(found, wanted[:, 0]), (tokens, seconds, steps)


# ---------------------------------------------------------------- one sequence


@pytest.fixture(scope="module")
def loaded(rooms):
    rows = read_rows(rooms / "train" / "seeing.jsonl")
    check_images(rows)
    tok = Tokenizer.train(text for row in rows for text in (row.question, row.answer))
    return rows, tok, config_for_tokenizer(PRESETS["nano"], tok)


def test_questions_packed_behind_one_image_get_the_logits_they_have_alone(loaded):
    rows, tok, config = loaded
    torch.manual_seed(0)
    model = Qwen2_5_VL(config)
    dataset = Dataset(rows, tok, CONFIG, config)
    group = dataset.groups[0][:4]

    def supervised_logits(batch):
        batch = on_device(batch, CONFIG, torch.device("cpu"))
        inputs = batch["input_ids"], batch["position_ids"]
        with torch.no_grad():
            embeds = model.visual(batch["pixel_values"], batch["grid_thw"])
            hidden = model(*inputs, embeds, attention_mask(batch["segments"]))
        return model.lm_head(hidden[:, :-1][batch["labels"][:, 1:] != IGNORE_INDEX])

    other = dataset.encode(dataset.groups[1][:2])  # of another length, which must not matter
    together = supervised_logits(collate([dataset.encode(group)]))
    in_batch = supervised_logits(collate([dataset.encode(group), other]))[: len(together)]
    alone = torch.cat([supervised_logits(collate([dataset.encode([row])])) for row in group])
    torch.testing.assert_close(together, alone, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(in_batch, alone, atol=2e-5, rtol=1e-4)


def test_only_answers_and_their_end_are_supervised(loaded):
    rows, tok, config = loaded
    dataset = Dataset(rows, tok, CONFIG, config)
    group = dataset.groups[0][:3]
    example = dataset.encode(group)
    spans, last = [], -2
    for i, label in enumerate(example["labels"]):
        if label != IGNORE_INDEX:
            assert label == example["input_ids"][i]
            spans = spans + [[label]] if i != last + 1 else spans[:-1] + [spans[-1] + [label]]
            last = i
    assert [tok.decode(span) for span in spans] == [row.answer + "<|im_end|>" for row in group]


def test_examples_depend_on_seed_epoch_and_index_alone(loaded):
    rows, tok, config = loaded
    a, b = (Dataset(rows, tok, CONFIG, config, seed=3) for _ in range(2))
    b[(1, 1, 4)]
    assert a[(0, 2, 4)]["input_ids"] == b[(0, 2, 4)]["input_ids"] != a[(1, 2, 4)]["input_ids"]
    assert set(a[(0, 2, 0)]["labels"]) == {IGNORE_INDEX}  # the pictures without a question


def test_a_sequence_asks_rows_of_one_kind_about_the_same_pictures(loaded):
    rows, tok, config = loaded
    other = [dataclasses.replace(row, kind="smells") for row in rows]
    groups = Dataset(rows + other, tok, CONFIG, config).groups
    assert sum(map(len, groups)) == 2 * len(rows)
    assert all(len({(row.kind, row.images) for row in group}) == 1 for group in groups)
    assert len({(group[0].kind, group[0].images) for group in groups}) == len(groups)


@pytest.mark.parametrize("change", [{"frame_seconds": 2.0}, {"data_type": "video"}])
def test_rows_that_show_the_same_pictures_otherwise_are_not_packed(loaded, change):
    rows, tok, config = loaded
    other = dataclasses.replace(rows[0], **change)
    assert len(Dataset([rows[0], other], tok, CONFIG, config).groups) == 2


@pytest.mark.parametrize("seconds", [0, -1, True, "2", [1], float("inf"), 10**400])
def test_seconds_of_a_frame_that_make_no_sense_are_refused(seconds):
    raw = {"question_id": 1, "question": "?", "answer": "a", "image": ["a.png"]}
    raw |= {"data_type": "video", "frame_seconds": seconds}
    with pytest.raises(UserError, match="rows.jsonl:1: .*frame_seconds"):
        check_row(raw, Path("data"), "rows.jsonl:1")


def test_extra_tensors_of_a_recipe_reach_the_batch(loaded):
    rows, tok, config = loaded
    rows = [row for row in rows if row.data_type == "single_image"]
    numbers = {row.images: number for number, row in enumerate(rows)}

    def extra(row, grid_thw):
        tokens = sum(t * h * w for t, h, w in grid_thw) // CONFIG.merge_size**2
        return {"number": torch.full((tokens,), numbers[row.images])}

    dataset = Dataset(rows, tok, CONFIG, config, extra=extra)
    batch = collate([dataset[0, i, 1] for i in (0, 1)])
    first, second = (numbers[group[0].images] for group in dataset.groups[:2])
    assert first != second and batch["number"].tolist() == [first] * 36 + [second] * 36


# ---------------------------------------------------------------- mixtures


def row_of(kind):
    raw = {"question_id": 1, "question": "?", "answer": "a", "image": ["a.png"]}
    return check_row(raw | {"data_type": "single_image"}, Path("data"), "rows.jsonl:1", kind)


def test_a_mixture_keeps_its_shares_everywhere():
    groups = [[row_of("localization")]] * 9 + [[row_of("smells")]] * 4 + [[row_of("others")]]
    order = plan_mixture(groups, {"localization": 3, "smells": 1}, 100, seed=0)
    kinds = [groups[i][0].kind for _, i in order]
    assert all(kinds[n : n + 4].count("localization") == 3 for n in range(0, 100, 4))
    assert "others" not in kinds
    assert len(set(order)) == 100  # every visit to a group draws its own questions
    first_pass = [i for epoch, i in order if i < 9 and epoch == 0]
    assert sorted(first_pass) == list(range(9))
    assert order == plan_mixture(groups, {"localization": 3, "smells": 1}, 100, 0)
    assert order != plan_mixture(groups, {"localization": 3, "smells": 1}, 100, 1)


def test_piles_take_turns_by_weight_from_their_start_on():
    turns = take_turns({"a": 1, "b": 3, "c": 4}, 16, start={"c": 8})
    assert Counter(turns[:8]) == {"a": 2, "b": 6}
    assert Counter(turns[8:]) == {"a": 1, "b": 3, "c": 4}


def test_prompts_are_dealt_as_the_benchmarks_weigh_them():
    asked = [
        *([("single_image", "object size")] * 50 + [("single_image", "absolute distance")] * 5),
        *([("video", "room size")] * 2 + [("video", "object count")] * 9),
        *([("video", "object size")] * 30),
    ]
    rows = []
    for data_type, name in asked:
        raw = {"question_id": len(rows), "question": "?", "answer": "3", "image": ["a.png"]}
        about = {"data_type": data_type, "question_type": name}
        rows.append(check_row(raw | about, Path("data"), "rows.jsonl:1"))
    for k in range(66, 96):  # a tenth of these rows has three options, the others have two
        names = ("A. a", "B. b", "C. c")[: 2 + (k % 10 == 6)]
        rows[k] = dataclasses.replace(rows[k], form="choice", options=names)
    dealt = deal_prompts(rows, 60, seed=1)
    assert dealt == deal_prompts(rows, 60, 1) != deal_prompts(rows, 60, 2)
    counts = Counter((rows[i].kind, rows[i].question_type) for i in dealt)
    assert sorted(counts.values()) == [10, 10, 10, 15, 15]
    assert Counter(len(rows[i].options) for i in dealt if rows[i].options) == {2: 5, 3: 5}
    assert len({rows[i].kind for i in dealt[:2]}) == 2  # and so in every step
    # All rows of a pile are asked before one is asked again.
    assert sorted(Counter(dealt).values())[-2:] == [5, 5]
