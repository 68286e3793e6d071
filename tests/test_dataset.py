"""Reading rows (every complaint names file, line and remedy) and packing several questions behind one image."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from nanoladder.common import UserError
from nanoladder.dataset import (
    IGNORE_INDEX,
    Dataset,
    attention_mask,
    board_squares,
    boxes_in_input,
    check_images,
    collate,
    dense_targets,
    encode_prompt,
    index_shares,
    is_alone,
    plan_mixture,
    plan_order,
    prompt_text,
    read_rows,
    read_splits,
    target_text,
)
from PIL import Image

from nanoladder import dataset
from nanoladder.image import ImageConfig
from nanoladder.model import PRESETS, Qwen2_5_VL
from nanoladder.rewards import read_answer
from nanoladder.tokenizer import Tokenizer

CONFIG = ImageConfig(patch_size=8, coordinates=True)
GOOD = {
    "question_id": 1, "question": "Locate the chair.", "answer": [{"bbox_2d": [4, 5, 20, 30], "label": "chair"}],
    "image": ["a.png"], "data_type": "single_image", "level": 2,
}  # fmt: skip


CHOICE = GOOD | {
    "question_type": "relative distance",
    "options": ["A. chair", "B. lamp"],
    "answer": "B",
}
NUMBER = GOOD | {"question_type": "object size", "options": None, "answer": "87"}


def folder_with(tmp_path, *rows, size=(96, 96)):
    noise = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    )
    return path


@pytest.mark.parametrize("change, complaint", [
    ("{broken", "not valid JSON"),
    ("[1, 2]", "must be a JSON object"),
    ({"question": None}, "field 'question'"),
    ({"question_id": "seven"}, "field 'question_id'"),
    ({"answer": 3}, "field 'answer'"),
    ({"answer": []}, "empty answer"),
    ({"answer": [{"label": "chair"}]}, "four numbers"),
    ({"answer": [{"bbox_2d": [1, 2, 3, 4]}]}, "needs a label"),
    ({"answer": [{"bbox_2d": [9, 2, 3, 4], "label": "chair"}]}, "inverted"),
    ({"answer": [{"bbox_2d": [-1, 2, 3, 4], "label": "chair"}]}, "outside its image"),
    ({"answer": [{"bbox_2d": [1, 2, 97, 4], "label": "chair"}]}, "reaches outside its 96x96 image"),
    ({"data_type": "hologram"}, "data_type is 'hologram', must be one of"),
    ({"image": []}, "no images"),
    ({"image": ["../a.png"]}, "leaves the data folder"),
    ({"image": ["/etc/passwd"]}, "leaves the data folder"),
    ({"image": ["gone.png"]}, "no image"),
    ({"image": ["cut.png"]}, "not a readable image"),
    ({"image": ["link/a.png"]}, "leaves the data folder"),
    ({"question_type": "smell"}, "question_type is 'smell', must be one of localization, relative distance"),
    ({"question_type": ["object size"]}, "question_type is"),
    ({"question_type": "object size"}, "answer to 'object size' must be a string"),
    (NUMBER | {"question_type": "localization"}, "answer to 'localization' must be boxes"),
    (CHOICE | {"options": None}, "a choice needs its options"),
    (CHOICE | {"options": ["A. chair"], "answer": "A"}, "two or more"),
    (CHOICE | {"options": ["chair", "lamp"]}, "option 'chair' must start with 'A. '"),
    (CHOICE | {"answer": "C"}, "answer 'C' is none of the options' letters A, B"),
    (CHOICE | {"answer": "B. lamp"}, "none of the options' letters"),
    (CHOICE | {"answer": ""}, "none of the options' letters"),
    (NUMBER | {"options": ["A. 1", "B. 2"]}, "which is no choice"),
    (NUMBER | {"answer": "87 cm"}, "must be a number, 0 or more, without its unit"),
    (NUMBER | {"answer": "-1"}, "must be a number, 0 or more"),
    (NUMBER | {"answer": "nan"}, "must be a number, 0 or more"),
    (NUMBER | {"answer": "inf"}, "must be a number, 0 or more"),
    (NUMBER | {"question_type": "view change", "answer": "to the left"}, "must be motions such as 'move_right:0.4'"),
    ({"source": 3}, "task, source and workings must be strings"),
    ({"foothold": 1}, "foothold must be true or false"),
    (NUMBER | {"image": ["a.png", "wide.png"], "data_type": "video"},
     r"frames of mixed sizes \(96x96, 128x96\); resize"),
])  # fmt: skip
def test_bad_rows_are_named(tmp_path, change, complaint):
    inside = tmp_path / "data"
    inside.mkdir()
    path = folder_with(inside, GOOD, change if isinstance(change, str) else GOOD | change)
    (inside / "cut.png").write_bytes((inside / "a.png").read_bytes()[:2000])
    (inside / "link").symlink_to(tmp_path)
    Image.new("RGB", (128, 96)).save(inside / "wide.png")
    (tmp_path / "a.png").write_bytes((inside / "a.png").read_bytes())
    with pytest.raises(UserError, match=complaint) as error:
        check_images(read_rows(path))
    assert str(error.value).startswith(f"{path}:2: ") and "\n" not in str(error.value)


def test_choices_and_numbers_are_read(tmp_path):
    choice, number = read_rows(folder_with(tmp_path, CHOICE, NUMBER))
    assert (choice.options, choice.answer) == (
        ("A. chair", "B. lamp"),
        "B",
    ) and not choice.is_localization
    assert (number.options, number.answer) == ((), "87")


def test_prompts_say_how_to_answer(tmp_path):
    choice, number, boxes = map(prompt_text, read_rows(folder_with(tmp_path, CHOICE, NUMBER, GOOD)))
    assert choice.endswith("\nOptions: A. chair B. lamp\nAnswer with one option.")
    assert number.endswith("\nAnswer with a number.") and boxes == GOOD["question"]


@pytest.mark.parametrize("data_type, frames, grids, times", [
    ("video", 5, [(3, 12, 12)], [0, 2, 4]),  # an odd frame is repeated; two frames are a second at two frames a second
    ("multi_view", 3, [(1, 12, 12)] * 3, [0]),
])  # fmt: skip
def test_frames_become_a_video_and_views_images(tmp_path, data_type, frames, grids, times):
    row = NUMBER | {"data_type": data_type, "image": ["a.png"] * frames}
    (row,) = read_rows(folder_with(tmp_path, row))
    tok = Tokenizer.train([row.question], 300)
    config = dataclasses.replace(
        PRESETS["nano"], image_token_id=tok.image_id, video_token_id=tok.video_id
    )
    prompt = encode_prompt(row, tok, CONFIG, config, ask=True)
    place = tok.video_id if data_type == "video" else tok.image_id
    assert prompt["grid_thw"] == grids and prompt["input_ids"].count(place) == 36 * sum(
        t for t, _, _ in grids
    )
    assert prompt["input_ids"].count(tok.vision_start_id) == len(grids)
    first = prompt["input_ids"].index(place)
    time = (
        prompt["position_ids"][0, first : first + 36 * grids[0][0]]
        - prompt["position_ids"][0, first]
    )
    assert time.unique().tolist() == times
    assert tok.decode(prompt["input_ids"]).endswith(
        "Answer with a number.<|im_end|>\n<|im_start|>assistant\n"
    )


def test_absurdly_large_image_is_refused_unread(tmp_path):
    path = folder_with(tmp_path, GOOD)
    Image.new("1", (20_000, 20_000)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match="rows.jsonl:1"):
        check_images(read_rows(path))


def test_missing_and_empty_files(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_rows(tmp_path / "rows.jsonl")
    (tmp_path / "rows.jsonl").write_text("")
    with pytest.raises(UserError, match="no rows"):
        read_rows(tmp_path / "rows.jsonl")


def test_a_choice_is_answered_in_words(tmp_path):
    rows = read_rows(folder_with(tmp_path, CHOICE))
    assert (
        target_text(rows[0], CONFIG) == "lamp"
        and read_answer("lamp", rows[0]) == rows[0].answer == "B"
    )


def test_boxes_are_rescaled_with_the_image(tmp_path):
    rows = read_rows(folder_with(tmp_path, GOOD, size=(100, 50)))
    check_images(rows)
    tiny = dataclasses.replace(
        CONFIG, min_pixels=16 * 16, max_pixels=48 * 32
    )  # 100 x 50 becomes 48 x 16
    assert boxes_in_input(rows[0], tiny) == [{"label": "chair", "bbox_2d": [2, 2, 10, 10]}]
    assert target_text(rows[0], tiny) == '[{"label":"chair","bbox_2d":[2,2,10,10]}]'


@pytest.fixture(scope="module")
def loaded(rooms):
    rows = read_rows(rooms / "train" / "seeing.jsonl")
    check_images(rows)
    tok = Tokenizer.train(text for row in rows for text in (row.question, row.answer))
    config = dataclasses.replace(PRESETS["nano"], vocab_size=len(tok), image_token_id=tok.image_id,
        video_token_id=tok.video_id, vision_start_token_id=tok.vision_start_id)  # fmt: skip
    return rows, tok, config


def test_questions_packed_behind_one_image_get_the_logits_they_have_alone(loaded):
    rows, tok, config = loaded
    torch.manual_seed(0)
    model = Qwen2_5_VL(config)
    dataset = Dataset(rows, tok, CONFIG, config)
    group = dataset.groups[0][:4]

    def supervised_logits(batch):
        with torch.no_grad():
            embeds = model.visual(batch["pixel_values"], batch["grid_thw"])
            hidden = model(
                batch["input_ids"], batch["position_ids"], embeds, attention_mask(batch["segments"])
            )
        return model.lm_head(hidden[:, :-1][batch["labels"][:, 1:] != IGNORE_INDEX])

    other = dataset.encode(
        dataset.groups[1][:2]
    )  # a batch mate of another length must not matter either
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
    assert set(a[(0, 2, 0)]["labels"]) == {IGNORE_INDEX}  # only looking


def test_index_shares_count_pixels(tmp_path):
    index = np.zeros((96, 96), np.uint8)
    index[:16, 16:24] = 5  # the left half of the second cell
    index[80:, 80:] = 2  # the last cell
    Image.fromarray(index).save(tmp_path / "a.names.png")
    shares = index_shares(tmp_path / "a.names.png", 6, 6, 16, 7)
    assert shares.shape == (36, 7) and torch.allclose(shares.sum(1), torch.ones(36))
    assert shares[1, 5] == 0.5 and shares[35, 2] == 1 and shares[0, 0] == 1


def test_a_videos_token_is_held_to_the_mean_of_its_two_frames(tmp_path):
    paths = [tmp_path / f"000001_video_{k}.png" for k in range(4)]
    for k, path in enumerate(paths):
        Image.fromarray(np.full((96, 96), k, np.uint8)).save(path.with_suffix(".names.png"))
    kinds = {"names": 5}
    film, album = (
        SimpleNamespace(images=tuple(paths), data_type=kind) for kind in ("video", "multi_view")
    )
    targets = dense_targets(film, [(2, 12, 12)], CONFIG, kinds)
    assert targets.shape == (72, 29) and torch.equal(targets[:36, :16], board_squares(6, 6))
    assert (
        targets[:36, 16].eq(1).all()
        and targets[36:, 17].eq(1).all()
        and (targets[:, 16:24].sum(1) == 1).all()
    )
    expected = torch.tensor([[0.5, 0.5, 0, 0, 0], [0, 0, 0.5, 0.5, 0]]).repeat_interleave(36, 0)
    assert torch.equal(targets[:, 24:], expected)
    apart = dense_targets(album, [(1, 12, 12)] * 4, CONFIG, kinds)
    assert (
        apart.shape == (144, 29) and apart[36:72, 17].eq(1).all() and apart[36:72, 25].eq(1).all()
    )


def test_an_album_of_different_rooms_has_no_common_floor(tmp_path):
    for room, n in (("000001", "00"), ("000001", "01"), ("000002", "00")):
        for kind in ("names", "across"):
            Image.fromarray(np.full((96, 96), 3, np.uint8)).save(
                tmp_path / f"{room}_multi_view_{n}.{kind}.png"
            )
    first, second, other = (tmp_path / f"{name}.png" for name in ("000001_multi_view_00", "000001_multi_view_01",
                                                                  "000002_multi_view_00"))  # fmt: skip
    for pictures, told in (((first, second), 1), ((first, other), 0)):
        row = SimpleNamespace(images=pictures, data_type="multi_view")
        targets = dense_targets(row, [(1, 12, 12)] * 2, CONFIG, {"names": 5, "across": 12})
        assert targets[:, 24:29].sum(1).eq(1).all() and targets[:, 29:].sum(1).eq(told).all()


def test_every_image_token_has_its_square_of_the_board():
    squares = board_squares(6, 8)  # six rows of eight tokens
    assert squares.shape == (48, 16)
    files, ranks = squares.view(6, 8, 2, 8).unbind(2)
    torch.testing.assert_close(files, torch.eye(8).expand(6, -1, -1))
    third = torch.zeros(8)
    third[2], third[3] = 1 / 4, 3 / 4  # the third of six rows reaches from 2 2/3 to 4 ranks
    torch.testing.assert_close(ranks[2, 5], third)
    torch.testing.assert_close(ranks.sum(-1), torch.ones(6, 8))


def test_order_climbs_covers_and_repeats():
    levels = np.array([1, 2, 3] * 10)
    order = plan_order(levels, 120, 0.5, seed=1)
    assert len(order) == 120 and order == plan_order(levels, 120, 0.5, 1) != plan_order(
        levels, 120, 0.5, 2
    )
    assert max(levels[i] for _, i in order[:60]) == 2 and {levels[i] for _, i in order[60:]} == {
        1,
        2,
        3,
    }
    assert sorted(i for _, i in plan_order(levels, 30, 0, 0)) == list(
        range(30)
    )  # one pass sees every room once
    assert len(set(order)) == 120  # no (epoch, room) twice: every visit draws its own questions


def test_a_mixture_keeps_its_shares_everywhere(tmp_path):
    boxes, numbers = read_rows(folder_with(tmp_path, GOOD, NUMBER))
    groups = [[dataclasses.replace(boxes, level=k % 3)] for k in range(9)] + [[numbers]] * 4
    shares = {"localization": 3, "single_image": 1}
    order = plan_mixture(groups, shares, 100, 0.5, seed=0)
    kinds = [groups[i][0].kind for _, i in order]
    assert (
        all(kinds[n : n + 4].count("localization") == 3 for n in range(0, 100, 4))
        and len(set(order)) == 100
    )
    assert all(groups[i][0].level < 2 for _, i in order[:50] if i < 9)  # each kind climbs by itself
    alone = plan_mixture(groups[:9], {"localization": 1}, 40, 0.5, seed=0)
    assert alone == plan_order([group[0].level for group in groups[:9]], 40, 0.5, 0)


def test_views_and_videos_join_late(tmp_path):
    boxes, numbers = read_rows(folder_with(tmp_path, GOOD, NUMBER))
    groups = (
        [[boxes]] * 3
        + [[numbers]] * 3
        + [[dataclasses.replace(numbers, data_type="video", images=numbers.images * 2)]] * 3
    )
    shares = {"localization": 0.25, "single_image": 0.25, "video": 0.5}
    kinds = [groups[i][0].kind for _, i in plan_mixture(groups, shares, 100, 0.0, seed=0, late=0.6)]
    assert "video" not in kinds[:60] and kinds[:60].count("localization") == 30
    assert [kinds[60:].count(kind) for kind in shares] == [10, 10, 20]
    both = [
        [dataclasses.replace(boxes, images=boxes.images * n)] for n in (1, 1, 1, 2)
    ]  # one kind, one group in four
    for share, later in ((None, 10), (0.75, 30)):
        order = plan_mixture(both, {"localization": 1}, 80, 0.0, 0, late=0.5, several=share)
        shown = [len(both[i][0].images) - 1 for _, i in order]
        assert sum(shown[:40]) == 0 and sum(shown[40:]) == later


def test_a_folder_without_held_out_rows_keeps_scenes_back(tmp_path, monkeypatch):
    """As data.spatialladder leaves it: no scene is both trained on and scored."""
    monkeypatch.setattr(dataset, "HOLD_OUT", 4)
    train = tmp_path / "train"
    names = [f"images/scene{k}/{shot}.png" for k in range(40) for shot in "ab"]
    train.mkdir()
    folder_with(train, *(GOOD | {"image": [name]} for name in names))
    for name in names:
        (train / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (96, 96)).save(train / name)
    (train / "rows.jsonl").rename(train / "localization.jsonl")
    splits = read_splits(tmp_path, ["localization"], {"val": 4, "test": None, "ood": None})
    scenes = {split: {row.images[0].parent for row in rows} for split, rows in splits.items()}
    assert set(splits) == {"train", "val", "test"} and len(splits["val"]) == 4
    assert not scenes["train"] & scenes["test"] and len(splits["train"]) + len(
        splits["test"]
    ) == len(names)
    assert 4 <= len(splits["test"]) <= 36
    assert is_alone(tmp_path)
    (
        train / "parts"
    ).mkdir()  # the making of rooms was interrupted while it had only training rooms
    assert not is_alone(tmp_path)


def test_paths_are_inside(rooms):
    found = read_rows(rooms / "test" / "localization.jsonl")
    assert all(Path(image).is_relative_to(rooms) for row in found for image in row.images)
