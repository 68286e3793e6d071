"""The rooms' order of training rows: easy rooms first, several pictures later, shares kept."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import train
from data.rooms.curriculum import asked_objects, plan_curriculum, plan_order
from data.rooms.recipe import LR_AFTER_VISION, MIN_OBJECTS, SETTINGS, Rooms
from nanoladder.schema import DATA_TYPES, check_row
from nanoladder.splits import read_kinds


def row_of(kind, images=1, **fields):
    raw = {"question_id": 1, "question": "?", "answer": "a", "data_type": "single_image"}
    names = [f"{k}.png" for k in range(images)]
    return check_row(raw | {"image": names} | fields, Path("data"), "rows.jsonl:1", kind)


BOXES = row_of("localization", answer=[{"bbox_2d": [4, 5, 20, 30], "label": "chair"}])


def test_an_order_starts_easy_covers_all_and_repeats():
    levels = np.array([1, 2, 3] * 10)
    order = plan_order(levels, 120, 0.5, seed=1)
    assert len(order) == 120
    assert order == plan_order(levels, 120, 0.5, 1) != plan_order(levels, 120, 0.5, 2)
    assert max(levels[i] for _, i in order[:60]) == 2
    assert {levels[i] for _, i in order[60:]} == {1, 2, 3}
    once = [i for _, i in plan_order(levels, 30, 0, 0)]
    assert sorted(once) == list(range(30))  # one pass has every room once
    assert len(set(order)) == 120  # every visit to a room draws its own questions


def test_a_curriculum_keeps_its_shares_everywhere():
    groups = [[replace(BOXES, level=k % 3)] for k in range(9)] + [[row_of("spatial")]] * 4
    shares = {"localization": 3, "single_image": 1}
    order = plan_curriculum(groups, shares, 100, seed=0, easy_first_share=0.5)
    kinds = [groups[i][0].kind for _, i in order]
    assert all(kinds[n : n + 4].count("localization") == 3 for n in range(0, 100, 4))
    assert len(set(order)) == 100
    assert all(groups[i][0].level < 2 for _, i in order[:50] if i < 9)  # each kind by itself
    alone = plan_curriculum(groups[:9], {"localization": 1}, 40, 0, easy_first_share=0.5)
    assert alone == plan_order([group[0].level for group in groups[:9]], 40, 0.5, 0)


def test_views_and_videos_join_later():
    video = row_of("spatial", images=2, data_type="video")
    groups = [[BOXES]] * 3 + [[row_of("spatial")]] * 3 + [[video]] * 3
    shares = {"localization": 0.25, "single_image": 0.25, "video": 0.5}
    order = plan_curriculum(groups, shares, 100, seed=0, multi_image_from=0.6)
    kinds = [groups[i][0].kind for _, i in order]
    assert "video" not in kinds[:60] and kinds[:60].count("localization") == 30
    assert [kinds[60:].count(kind) for kind in shares] == [10, 10, 20]
    # Of one kind, one group in four shows two pictures.
    both = [[replace(BOXES, images=BOXES.images * n)] for n in (1, 1, 1, 2)]
    for share, later in ((None, 10), (0.75, 30)):
        plan = {"multi_image_from": 0.5, "multi_image_share": share}
        order = plan_curriculum(both, {"localization": 1}, 80, 0, **plan)
        shown = [len(both[i][0].images) - 1 for _, i in order]
        assert sum(shown[:40]) == 0 and sum(shown[40:]) == later


# ---------------------------------------------------------------- the recipe


def test_stage_1_leaves_out_pictures_that_ask_for_one_object(rooms):
    assert MIN_OBJECTS == {"1": 2}
    rows = read_kinds(rooms / "train", ["localization", "seeing", "floor"])
    labels = {}
    for row in rows:
        if row.kind == "localization":
            labels.setdefault(row.images, set()).update(item["label"] for item in row.answer)
    assert asked_objects(rows) == {images: len(found) for images, found in labels.items()}
    assert 1 in asked_objects(rows).values() and max(asked_objects(rows).values()) > 2
    kept = Rooms().select(train.Settings(stage="1"), rows)
    few = {images for images, found in labels.items() if len(found) < 2}
    assert kept == [row for row in rows if not (row.kind == "localization" and row.images in few)]
    assert len(few) < len(labels) and len(kept) < len(rows)
    assert Rooms().select(train.Settings(stage="2"), rows) == rows


def test_maps_are_about_the_modalities_that_the_spatial_questions_have():
    rows = [row_of("floor", images=2, data_type=name) for name in DATA_TYPES]
    video, s = (
        row_of("spatial", data_type="video"),
        train.Settings(stage="2", data_types=("video",)),
    )
    kept = Rooms().select(s, [*rows, video])
    assert [(row.kind, row.data_type) for row in kept] == [("floor", "video"), ("video", "video")]
    assert Rooms().select(s, [*rows, BOXES]) == [*rows, BOXES]  # no spatial questions, all maps


def test_stage_0_first_shows_pictures_without_questions():
    groups = [[replace(BOXES, kind=kind, level=k % 3)] for kind in "ab" for k in range(9)]
    s = train.Settings(**SETTINGS["0"] | {"stage": "0", "steps": 40, "batch_size": 2})
    order = Rooms().order(s, groups, {"a": 1, "b": 1})
    assert [count for _, _, count in order] == [0] * 20 + [6] * 60
    assert {groups[i][0].level for _, i, _ in order[:20]} == {0, 1, 2}
    assert {groups[i][0].level for _, i, _ in order[20:50]} == {0, 1}  # half of the questions
    assert {groups[i][0].level for _, i, _ in order[50:]} == {0, 1, 2}
    rates = [Rooms().rate(replace(s, steps=400), step) for step in range(400)]
    assert rates[49] == pytest.approx(1) and rates[99] < 0.03  # the pictures' own cosine
    assert max(rates[100:]) == rates[149] == pytest.approx(LR_AFTER_VISION)
    assert rates[100] == pytest.approx(LR_AFTER_VISION / 50)  # it warms up again


def test_stage_1_keeps_the_vision_encoder_of_its_start():
    assert train.presets({})["freeze_vision"]
    assert not train.presets({"init": "scratch"})["freeze_vision"]
