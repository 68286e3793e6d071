"""Scores of localization answers: hand-made cases and a check against a pixel count that shares no formula."""

import json

import numpy as np
import pytest

from nanoladder.rewards import box_iou, exact_match, parse_boxes, relative_accuracy, score_boxes

CHAIR = {"label": "chair", "bbox_2d": [10, 10, 30, 30]}
LAMP = {"label": "lamp", "bbox_2d": [40, 5, 50, 60]}


def test_iou_equals_counting_pixels():
    rng = np.random.default_rng(0)
    for _ in range(200):
        (ax, bx), (ay, by) = rng.integers(0, 30, (2, 2))
        a = [ax, ay, ax + rng.integers(1, 20), ay + rng.integers(1, 20)]
        b = [bx, by, bx + rng.integers(1, 20), by + rng.integers(1, 20)]
        grids = np.zeros((2, 64, 64), bool)
        for grid, box in zip(grids, (a, b)):
            grid[box[1] : box[3], box[0] : box[2]] = True
        assert box_iou(a, b) == pytest.approx((grids[0] & grids[1]).sum() / (grids[0] | grids[1]).sum())


@pytest.mark.parametrize("text", [
    "", "chair", "[", '{"label":"chair"}', '[{"label":"chair"}]', '[{"label":"chair","bbox_2d":[1,2,3]}]',
    '[{"label":"chair","bbox_2d":[30,10,10,30]}]', '[{"label":"chair","bbox_2d":["1",2,3,4]}]',
    '[{"label":"chair","bbox_2d":[NaN,2,3,4]}]', '[{"label":"chair","bbox_2d":[true,2,3,4]}]', "[" * 100_000,
    '[{"label":"chair","bbox_2d":[10,10,30,30]}] and more',
])  # fmt: skip
def test_broken_answers_earn_nothing(text):
    assert parse_boxes(text) is None
    assert set(score_boxes(text, [CHAIR]).values()) == {0.0}


def test_key_order_fences_and_order_of_objects_do_not_matter():
    text = '```json\n[{"bbox_2d":[40,5,50,60],"label":"Lamp"},{"bbox_2d":[10,10,30,30],"label":"chair"}]\n```'
    assert set(score_boxes(text, [CHAIR, LAMP]).values()) == {1.0}


def test_missing_extra_and_repeated_objects():
    one = score_boxes(json.dumps([CHAIR]), [CHAIR, LAMP])
    assert one == {"valid_json": 1.0, "label_f1": pytest.approx(2 / 3), "iou": 0.5, "acc50": 0.5}
    extra = score_boxes(json.dumps([CHAIR, LAMP]), [CHAIR])
    assert extra["iou"] == 1.0 and extra["label_f1"] == pytest.approx(2 / 3)
    wrong_first = score_boxes(json.dumps([{**CHAIR, "bbox_2d": [80, 80, 90, 90]}, CHAIR]), [CHAIR])
    assert wrong_first["iou"] == 0.0  # naming every place in turn is no way to score
    assert score_boxes("[]", [CHAIR]) == {"valid_json": 1.0, "label_f1": 0.0, "iou": 0.0, "acc50": 0.0}


def test_exact_match():
    assert exact_match(" Red. ", "red") == 1.0
    assert exact_match("red or blue", "red") == 0.0 and exact_match("", "red") == 0.0


def test_relative_accuracy_counts_thresholds():
    for predicted, truth, expected in [(3, 3, 1), (1.5, 1, 0.1), (1.6, 1, 0), (75, 100, 0.6), (0, 5, 0), (103, 100, 1)]:
        assert relative_accuracy(predicted, truth) == pytest.approx(expected)
    thresholds = np.arange(50, 100, 5) / 100
    predicted, truth = np.random.default_rng(0).uniform(1, 9, (2, 500))
    mean = np.mean([abs(predicted - truth) / truth <= 1 - t for t in thresholds], axis=0)
    np.testing.assert_allclose(relative_accuracy(predicted, truth), mean)
