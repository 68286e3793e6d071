"""The floor map: objects stand where rows say, and steps, bearings and turns are right."""

import json
import re
from collections import defaultdict

import numpy as np
import pytest
from test_spatial import SIZE, truth

from data.rooms import floor
from data.rooms.scene import camera_from_json
from data.rooms.spatial import ANGLE_MARGIN
from nanoladder.files import read_jsonl
from nanoladder.schema import DATA_TYPES, read_rows

SIGN = {"right": 1, "front": 1, "left": -1, "back": -1}


@pytest.fixture(scope="module")
def asked():
    """{question_type: [(row, its room)]} of rows about many rooms.

    The tuples of "floor" also hold the frame whose camera carries the map.
    """
    found = defaultdict(list)
    for index in range(100):
        room = truth(index)
        rng = np.random.default_rng(index)
        for row in floor.map_arithmetic_rows(rng):
            found[row["question_type"]].append((row, room))
        for kind, origin in (("single_image", 0), ("multi_view", 0), ("video", 8)):
            frames = [frame for frame in room["frames"] if frame["data_type"] == kind]
            found["floor"] += [
                (row, room, frames[origin]) for row in floor.floor_rows(room, kind, SIZE, rng)
            ]
    assert min(map(len, found.values())) > 100 and set(found) == {"floor", "way", "turn", "tour"}
    return found


def cells(text):
    """{label: (file, rank)} of "bed:DS, lamp:HQ"."""
    return {
        label: ("ABCDEFGHIJKL".index(cell[0]), "MNOPQRSTUV".index(cell[1]))
        for label, cell in (part.split(":") for part in text.split(", "))
    }


def steps(text):
    """(across, along) of "4 right 2 back"."""
    across, side, along, way = text.split()
    return int(across) * SIGN[side], int(along) * SIGN[way]


def unit(bearing):
    return np.array([np.sin(np.radians(bearing)), np.cos(np.radians(bearing))])


def test_objects_stand_where_the_row_says(asked):
    """The camera's own lens, tilted upright, against the corner points of the square."""
    inside, places = 0, set()
    for row, room, frame in asked["floor"]:
        found, objects = cells(row["answer"]), {o["category"]: o for o in room["objects"]}
        labels = re.fullmatch(r"On the floor: (.*)\?", row["question"])[1]
        assert labels == ", ".join(found) and 0 < len(found) <= 4
        camera = camera_from_json(frame["camera"])
        for label, cell in found.items():
            if [o["category"] for o in room["objects"]].count(label) > 1:
                continue  # the other one is out of sight
            yaw = np.arctan2(
                camera.rotation[2, 1], camera.rotation[2, 0]
            )  # of where the camera looks
            x, y = np.subtract(objects[label]["center"], camera.position)[:2]
            ahead, left = x * np.cos(yaw) + y * np.sin(yaw), y * np.cos(yaw) - x * np.sin(yaw)
            low = np.array([cell[0] - 6, cell[1] - 2]) * 0.8
            if (
                0 < cell[0] < 11 and 0 < cell[1] < 9
            ):  # beyond the board's edge all is in its last squares
                assert (low - 1e-6 <= [-left, ahead]).all() and (
                    [-left, ahead] <= low + 0.8 + 1e-6
                ).all()
                inside += 1
            places.add(cell)
    assert inside > 300 and len(places) > 30


def reckoned(question):
    """{label: square} of the map in a question, and the labels that it asks about."""
    laid, asked = re.fullmatch(r"On the floor (.*?)\. (.*)\?", question).groups()
    labels = re.fullmatch(
        r"Distance from (.*)|Standing at the (.*) and facing the (.*), where is the (.*)", asked
    )
    return cells(laid), [label for label in labels.groups() if label]


def check_ways(answer, stand, at):
    """Check that the squares are the map's and that the steps lead from `stand` to each label.

    Returns the labels.
    """
    start, *ends = re.findall(r"(?:from|to) ([a-z]+):([A-Z]{2})(?: (\d+ \w+ \d+ \w+))?", answer)
    assert start == (stand, "ABCDEFGHIJKL"[at[stand][0]] + "MNOPQRSTUV"[at[stand][1]], "")
    for label, square, way in ends:
        assert (
            cells(f"{label}:{square}")[label] == at[label] == tuple(np.add(at[stand], steps(way)))
        )
    return [label for label, *_ in ends]


def test_ways_lead_there(asked):
    for row, _ in asked["way"]:
        at, (stand,) = reckoned(row["question"])
        assert set(check_ways(row["answer"], stand, at)) == at.keys() - {stand}


def test_turns_end_at_the_bearing_and_are_the_shorter_way(asked):
    for row, _ in asked["turn"]:
        at, (stand, face, target) = reckoned(row["question"])
        assert check_ways(row["answer"], stand, at) == [face, target]
        bearings = [int(bearing) for bearing in re.findall(r": (\d+)", row["answer"])]
        for label, bearing in zip((face, target), bearings, strict=True):
            moved = np.subtract(at[label], at[stand])
            assert bearing % floor.TURN == 0 <= bearing < 360
            assert unit(bearing) @ moved >= np.linalg.norm(moved) * np.cos(
                np.radians(floor.TURN / 2 + 1e-6)
            )
        degrees, side = re.search(r"turn (\d+) (left|right)$", row["answer"]).groups()
        assert (
            (bearings[0] + int(degrees) * SIGN[side] - bearings[1]) % 360
            == 0
            <= int(degrees)
            <= 180
        )


def test_tours_meet_everything_in_its_picture(asked):
    for row, _ in asked["tour"]:
        first = {
            item["picture"]: item["label"]
            for item in json.loads(re.search(r"\[.*\]", row["question"])[0])
        }
        met = re.findall(r"\((\w)\)(?: ([a-z]+))?", row["answer"])
        assert met == [(letter, first.get(letter, "")) for letter in "ijklmnop"] and len(first) >= 3


def test_rounding_two_bearings_moves_no_turn_over_a_border():
    assert 2 * floor.TURN / 2 <= ANGLE_MARGIN


def test_rows_are_made_and_read(rooms):
    for split in ("train", "test"):
        kinds = [read_rows(rooms / split / f"{name}.jsonl") for name in ("floor", "map_arithmetic")]
        assert min(map(len, kinds)) > 20 and {row.data_type for row in kinds[0]} == {*DATA_TYPES}
        assert [{row.kind for row in rows} for rows in kinds] == [{"floor"}, {"map_arithmetic"}]
        numbers = [row.question_id for rows in kinds for row in rows]
        assert len(numbers) == len(set(numbers))
    types = [
        {row["question_type"] for row in read_jsonl(rooms / "train" / name)}
        for name in ("floor.jsonl", "map_arithmetic.jsonl")
    ]
    assert types == [{"floor"}, {"way", "turn", "tour"}]
