"""Rows: which are accepted, which are refused and how, which are held out, and fixed subsets."""

import json
import math
import random
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nanoladder.command import UserError
from nanoladder.image import ImageConfig
from nanoladder.prompts import prompt_text, target_text
from nanoladder.rewards import reward
from nanoladder.schema import PAPER_CHOICES, PAPER_UNITS, check_images, check_row, read_rows
from nanoladder.splits import (
    connected,
    data_name,
    fingerprint,
    kinds_in,
    kinds_to_learn,
    parse_mixture,
    read_kinds,
    read_split,
    read_splits,
    subset,
)

BOXES = {
    "question_id": 1,
    "question": "Locate the chair.",
    "answer": [{"bbox_2d": [4, 5, 20, 30], "label": "chair"}],
    "image": ["a.png"],
    "data_type": "single_image",
    "level": 2,
}
LINE = json.dumps(BOXES).removesuffix("2}")  # it ends in `"level": `
CHOICE = BOXES | {
    "question_type": "relative distance",
    "options": ["A. chair", "B. lamp"],
    "answer": "B",
}
NUMBER = BOXES | {"question_type": "object size", "options": None, "answer": "87"}
TRACE = {key: value for key, value in BOXES.items() if key not in ("question", "answer")} | {
    "prompt": "Which is nearer?",
    "solution": "<think>The lamp is.</think><answer>lamp</answer>",
}


def write_rows(folder, *rows, name="rows"):
    """FOLDER/NAME.jsonl with these rows or lines, and a picture a.png of noise."""
    noise = np.random.default_rng(0).integers(0, 255, (96, 96, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "a.png")
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path = folder / f"{name}.jsonl"
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


# ---------------------------------------------------------------- rows that are refused


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
    ({"image": ["gone.png"]}, "gone.png: no such image"),
    ({"image": ["cut.png"]}, "cut.png: cannot be read as an image"),
    ({"image": ["link/a.png"]}, "leaves the data folder"),
    ({"image": ["a.png\0"]}, "image path 'a.png.x00' is none"),
    ({"image": [""]}, "image path '' is none"),
    ({"image": ["."]}, "image path '.' is none"),
    ({"image": [["a.png"]]}, r"image path \['a.png'\] is none"),
    ({"image": ["loop.png"]}, "image path 'loop.png' is none|no such image"),
    ({"question": " "}, "the question is empty"),
    ({"question_id": True}, "field 'question_id'"),
    ({"question_id": 1 << 60}, "question_id and level must be smaller numbers"),
    ({"level": True}, "field 'level' must be of type int"),
    ({"level": [1]}, "field 'level' must be of type int"),
    (LINE + "1e400}", "field 'level' must be of type int"),
    (LINE + "NaN}", "NaN is no number"),
    (LINE + '1, "level": 2}', "the same key twice"),
    ({"question": "half \ud800"}, "half of a surrogate pair"),
    ({"answer": [{"bbox_2d": [True, 2, 3, 4], "label": "chair"}]}, "four numbers"),
    ({"answer": [{"bbox_2d": [1, 2, math.inf, 4], "label": "chair"}]}, "Infinity is no number"),
    ({"answer": [{"bbox_2d": [1, 2, 10**400, 4], "label": "chair"}]}, "outside its image"),
    ({"answer": [{"bbox_2d": [1, 2, 3, 4], "label": " "}]}, "needs a label"),
    ({"image": ["a.png", "a.png"], "data_type": "multi_view"}, "boxes are of one picture"),
    ({"question_type": ["object size"]}, "field 'question_type' must be of type str"),
    ({"options": ["A. chair", "B. lamp"]}, "options beside an answer of boxes"),
    (CHOICE | {"options": None}, "a choice needs its options"),
    (CHOICE | {"options": ["A. chair"], "answer": "A"}, "two or more"),
    (CHOICE | {"options": ["A. chair", 2]}, "two or more strings"),
    (CHOICE | {"options": ["A. chair", "B. "]}, "option 'B. ' must start with 'B. ' and go on"),
    (CHOICE | {"options": ["A. Lamp", "B. lamp "]}, "the words of option B, .* do not tell it"),
    (CHOICE | {"options": [f"{chr(65 + k)}. {k}" for k in range(27)]}, "26 at most"),
    (CHOICE | {"options": ["chair", "lamp"]}, "option 'chair' must start with 'A. '"),
    (CHOICE | {"answer": "C"}, "answer 'C' is none of the options' letters A, B"),
    (CHOICE | {"answer": "B. lamp"}, "none of the options' letters"),
    (CHOICE | {"answer": ""}, "none of the options' letters"),
    (CHOICE | {"unit": "m"}, "options or a unit, not both"),
    (NUMBER | {"options": ["A. 1", "B. 2"]}, "answer '87' is none of the options' letters A, B"),
    (NUMBER | {"unit": 5}, "field 'unit' must be of type str"),
    (NUMBER | {"answer": "87 cm"}, "must be a number, 0 or more, without its unit"),
    (NUMBER | {"answer": "-1"}, "must be a number, 0 or more"),
    (NUMBER | {"answer": "nan"}, "must be a number, 0 or more"),
    (NUMBER | {"answer": "inf"}, "must be a number, 0 or more"),
    (NUMBER | {"unit": "", "answer": "-2"}, "must be a number, 0 or more"),
    (NUMBER | {"unit": "square feet", "answer": "-2"}, "must be a number, 0 or more"),
    (NUMBER | {"answer": "9" * 41}, "must be a number, 0 or more"),
    (NUMBER | {"unit": "k" * 41}, "unit 'k+' is too long"),
    (NUMBER | {"question_type": "what", "answer": " "}, "the answer is empty"),
    (NUMBER | {"unit": "degrees", "answer": "left"}, "answer 'left' must be a number without"),
    ({"source": 3}, "field 'source' must be of type str"),
    ({"rationale": ["It is."]}, "field 'rationale' must be of type str"),
    ({"level": "hard"}, "field 'level' must be of type int"),
    ({"sft_only": 1}, "field 'sft_only' must be of type bool"),
    (TRACE | {"solution": 3}, "field 'solution' must be of type str"),
    (TRACE | {"solution": "<think>Hm.</think><answer> </answer>"}, "the answer is empty"),
    (TRACE | {"solution": "lamp"}, "a solution must be <think>...</think><answer>"),
    (TRACE | {"prompt": None}, "field 'question'"),
    (NUMBER | {"image": ["a.png", "wide.png"], "data_type": "video"},
     r"frames of mixed sizes \(96x96, 128x96\); resize"),
])  # fmt: skip
def test_a_bad_row_is_named_in_one_line(tmp_path, change, complaint):
    inside = tmp_path / "data"
    inside.mkdir()
    path = write_rows(inside, BOXES, change if isinstance(change, str) else BOXES | change)
    (inside / "cut.png").write_bytes((inside / "a.png").read_bytes()[:2000])
    (inside / "link").symlink_to(tmp_path)
    (inside / "loop.png").symlink_to("loop.png")
    Image.new("RGB", (128, 96)).save(inside / "wide.png")
    (tmp_path / "a.png").write_bytes((inside / "a.png").read_bytes())
    with pytest.raises(UserError, match=complaint) as error:
        check_images(read_rows(path))
    assert str(error.value).startswith(f"{path}:2: ") and "\n" not in str(error.value)


# What a field of a hostile row may hold.
ODD = [None, True, False, 0, -1, 1 << 70, 10**400, 0.5, math.inf, math.nan, "", " ", "\0", "a\0b"]
ODD += [".", "..", "../a.png", "/etc/passwd", "a.png", "a" * 5000, "\ud800", "grün", "A", "1e400"]
ODD += ["-3", "９", "9" * 400, "move_up:1", "move_up:" + "9" * 400, "m^2", "kg", "video", "cold"]
ODD += ["object size", "<think>a</think><answer></answer>", [], [[]], [1], ["a.png", 1], {}]
ODD += [["A. x", "B. x"], ["A. ", "B. y"], [f"{chr(65 + k)}. {k}" for k in range(27)], ["A. x", 2]]
BOX = [[True, 2, 3, 4], [0, 0, math.inf, 9], [0, math.nan, 9, 9], [0, 0, 10**400, 9], "abcd", [[]]]
ODD += [[{"bbox_2d": box, "label": "chair"}] for box in [*BOX, [1, 2, 3, 4]]]
ODD += [[{"bbox_2d": [1, 2, 3, 4], "label": label}] for label in ("", 3, "\ud800")]
ODD += [{"a": {"a": ODD}}]


def test_any_row_is_read_or_refused_in_one_line():
    """2,000 rows with odd values in one field or two; what is accepted can be asked and scored."""
    rng, read = random.Random(0), 0
    motion = NUMBER | {"question_type": "view", "answer": "move_left:1"}
    good = [BOXES, CHOICE, NUMBER, TRACE, motion, NUMBER | {"unit": ""}]
    fields = [*BOXES, *CHOICE, *TRACE, "unit", "task", "source", "rationale", "sft_only"]
    for _ in range(2000):
        raw = rng.choice(good) | {rng.choice(fields): rng.choice(ODD) for _ in range(2)}
        file = rng.choice(["spatial", "localization", "cold"])
        try:
            row = check_row(raw, Path("data"), "rows.jsonl:1", file)
        except UserError as error:
            told = str(error)
            assert told.startswith("rows.jsonl:1: ") and len(told.splitlines()) == 1
            assert len(told.encode()) < 400  # it can be printed, and read
            continue
        read += 1
        row.sizes = ((96, 96),) * len(row.images)
        assert prompt_text(row)
        truth = row.solution or target_text(replace(row, rationale=""), ImageConfig())
        scores = reward(truth, row, row.answer if row.form == "boxes" else None)
        assert scores["format"] == 1 and scores["accuracy"] > 0.5, raw
    assert 100 < read < 1900


def test_an_absurdly_large_image_is_refused_unread(tmp_path):
    path = write_rows(tmp_path, BOXES)
    Image.new("1", (20_000, 5001)).save(tmp_path / "a.png", compress_level=1)
    with pytest.raises(UserError, match="rows.jsonl:1"):
        check_images(read_rows(path))


def test_missing_and_empty_files_are_refused(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_rows(tmp_path / "rows.jsonl")
    (tmp_path / "rows.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="no rows"):
        read_rows(tmp_path / "rows.jsonl")


# ---------------------------------------------------------------- what a row says about itself


@pytest.mark.parametrize("raw, form, unit", [
    (BOXES, "boxes", ""),
    (BOXES | {"question_type": "smell"}, "boxes", ""),  # any name of a type will do
    (CHOICE, "choice", ""),
    (CHOICE | {"question_type": "smell"}, "choice", ""),
    (NUMBER, "number", "cm"),
    (NUMBER | {"unit": "m"}, "number", "m"),  # a row's own unit comes before the paper's
    (NUMBER | {"question_type": "relative distance", "unit": "m"}, "number", "m"),
    (NUMBER | {"question_type": "weight", "unit": "kg", "answer": "-3.5"}, "number", "kg"),
    (NUMBER | {"question_type": "weight", "unit": ""}, "number", ""),
    (NUMBER | {"question_type": "weight"}, "text", ""),  # without a unit it may be a house number
    (NUMBER | {"answer": "move_right:0.4, rotate_up:5", "question_type": "view"}, "motion", ""),
    (NUMBER | {"answer": "move_right:\u22120.4", "question_type": "view"}, "motion", ""),
    (NUMBER | {"answer": "move_right:" + "9" * 400, "question_type": "view"}, "text", ""),
    (NUMBER | {"answer": "move_right:0.4 and stay", "question_type": "view"}, "text", ""),
    (NUMBER | {"answer": "to the left", "question_type": "view"}, "text", ""),
])  # fmt: skip
def test_a_row_has_the_form_of_its_answer(raw, form, unit):
    row = check_row(raw, Path("data"), "rows.jsonl:1")
    assert (row.form, row.unit, row.answer) == (form, unit, raw["answer"])
    assert row.options == tuple(raw.get("options") or ())
    assert row.question_type == raw.get("question_type", "localization")


def test_a_type_that_is_not_named_is_called_after_the_form():
    for raw, name in (
        (BOXES, "localization"),
        (CHOICE, "choice"),
        (NUMBER | {"unit": "m"}, "number"),
    ):
        unnamed = {key: value for key, value in raw.items() if key != "question_type"}
        assert check_row(unnamed, Path("data"), "rows.jsonl:1").question_type == name


def test_the_papers_types_need_neither_unit_nor_form(tmp_path):
    choices = [CHOICE | {"question_type": name} for name in PAPER_CHOICES]
    numbers = [NUMBER | {"question_type": name} for name in PAPER_UNITS]
    rows = read_rows(write_rows(tmp_path, *choices, *numbers))
    assert [row.form for row in rows] == ["choice"] * len(choices) + ["number"] * len(numbers)
    assert [row.unit for row in rows[len(choices) :]] == list(PAPER_UNITS.values())


def test_a_kind_is_the_name_of_its_file(tmp_path):
    for name, row in (("localization", BOXES), ("smells", CHOICE)):
        rows = read_rows(write_rows(tmp_path, row, row, name=name))
        assert [row.kind for row in rows] == [name, name]
    video = NUMBER | {"data_type": "video"}
    rows = read_rows(write_rows(tmp_path, CHOICE, video, name="spatial"))
    assert [row.kind for row in rows] == ["single_image", "video"]
    found = read_kinds(tmp_path, ["video", "smells"])
    assert [row.kind for row in found] == ["video", "smells", "smells"]
    assert all(row.sizes == ((96, 96),) for row in found)


def test_a_trace_has_the_answer_of_its_solution(tmp_path):
    choice = TRACE | {"options": ["A. chair", "B. lamp"], "question_id": None}
    del choice["question_id"]  # as the paper's rows
    number = TRACE | {"solution": "<think>3</think><answer> 3 </answer>", "unit": "m"}
    text, choice, number = read_rows(write_rows(tmp_path, TRACE, choice, number, name="cold"))
    assert [row.form for row in (text, choice, number)] == ["text", "choice", "number"]
    assert [row.answer for row in (text, choice, number)] == ["lamp", "B", "3"]
    assert choice.question_id == 2 and choice.question == "Which is nearer?"
    for row in (text, choice, number):
        assert row.think and row.kind == "cold" and row.question_type == "trace"


# ---------------------------------------------------------------- folders


def test_a_folder_without_held_out_rows_keeps_scenes_back(tmp_path, monkeypatch):
    """No scene is both trained on and scored, in a folder as data/spatialladder makes it."""
    monkeypatch.setattr("nanoladder.splits.HOLD_OUT", 4)
    train = tmp_path / "train"
    train.mkdir()
    names = [f"images/scene{k}/{shot}.png" for k in range(40) for shot in "ab"]
    write_rows(train, *(BOXES | {"image": [name]} for name in names), name="localization")
    for name in names:
        (train / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (96, 96)).save(train / name)
    limits = {"val": 4, "test": None, "ood": None}
    splits = read_splits(tmp_path, ["localization"], limits)
    scenes = {split: {row.images[0].parent for row in rows} for split, rows in splits.items()}
    assert set(splits) == {"train", "val", "test"} and len(splits["val"]) == 4
    assert not scenes["train"] & scenes["test"]
    assert len(splits["train"]) + len(splits["test"]) == len(names)
    assert 4 <= len(splits["test"]) <= 36
    (tmp_path / "ood").mkdir()  # ood is optional
    assert read_splits(tmp_path, ["localization"], limits)["ood"] == []


def test_a_wrong_data_folder_is_named_with_what_is_there(tmp_path):
    limits = {"val": 1, "test": 1}
    write_rows(tmp_path, BOXES, name="localization")
    for data, complaint in (
        ("", "name a folder of rows and pictures with --data"),
        (None, "name a folder of rows and pictures with --data"),
        (tmp_path / "gone", "gone: no such folder"),
        (tmp_path / "a.png", "a.png: this is a file, not a folder"),
        (tmp_path, "no folder train in it; move localization.jsonl and the pictures into .*train"),
    ):
        with pytest.raises(UserError, match=complaint) as error:
            read_splits(data, ["localization"], limits)
        assert "\n" not in str(error.value)
    (tmp_path / "train").mkdir()
    with pytest.raises(UserError, match=f"no folder train in it; name {tmp_path}$"):
        read_splits(tmp_path / "train", ["localization"], limits)
    with pytest.raises(UserError, match="smells.jsonl: no such file; name another data folder"):
        read_splits(tmp_path, ["smells"], limits)
    write_rows(tmp_path / "train", BOXES, name="localization")
    write_rows(tmp_path / "train", CHOICE, name="spatial")
    kinds = "has localization, single_image, multi_view, video: choose among these with --mix"
    with pytest.raises(UserError, match=kinds):
        read_splits(tmp_path, ["smells"], limits)


def boxes_about(folder, count, names="images/{}.png"):
    """A split with one box in each of `count` pictures."""
    folder.mkdir(parents=True)
    images = [names.format(k) for k in range(count)]
    write_rows(folder, *(BOXES | {"image": [image]} for image in images), name="localization")
    for image in images:
        (folder / image).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (96, 96)).save(folder / image)


def test_pictures_in_one_folder_are_held_out_one_by_one(tmp_path):
    boxes_about(tmp_path / "a" / "train", 40)
    limits = {"val": 200, "test": 1000, "ood": 1000}
    splits = read_splits(tmp_path / "a", ["localization"], limits)
    assert [len(splits[split]) for split in ("train", "val", "test")] == [35, 5, 5]
    shutil.move(tmp_path / "a", tmp_path / "b")  # the choice does not depend on where the data is
    again = read_splits(tmp_path / "b", ["localization"], limits)
    names = [[row.images[0].name for row in s["test"]] for s in (splits, again)]
    assert names[0] == names[1]
    boxes_about(tmp_path / "b" / "test", 6)  # now only val is missing
    splits = read_splits(tmp_path / "b", ["localization"], limits)
    assert [len(splits[split]) for split in ("train", "val", "test")] == [35, 5, 6]
    boxes_about(tmp_path / "few" / "train", 3)
    with pytest.raises(UserError, match="its rows are about 3 scene.s., too few"):
        read_splits(tmp_path / "few", ["localization"], limits)


def test_one_type_has_one_form_and_boxes_a_file_of_their_own(tmp_path):
    number = {"question_type": "weight", "unit": "kg", "answer": "3"}
    text = {"question_type": "weight", "answer": "heavy"}
    path = write_rows(tmp_path, BOXES | number, BOXES | text, name="mine")
    with pytest.raises(
        UserError, match="mine.jsonl:2: 'weight' is of the form text here and number"
    ):
        read_kinds(tmp_path, [path.stem])
    path = write_rows(tmp_path, BOXES, BOXES | number, name="both")
    write_rows(tmp_path, BOXES, name="spatial")
    with pytest.raises(UserError, match="spatial.jsonl:1: boxes belong in another file"):
        read_kinds(tmp_path, ["single_image"])
    with pytest.raises(UserError, match="both.jsonl:1: boxes here, other answers in .*:2"):
        read_kinds(tmp_path, [path.stem])


def test_the_images_of_rows_lie_inside_their_folder(rooms):
    found = read_rows(rooms / "test" / "localization.jsonl")
    assert all(Path(image).is_relative_to(rooms) for row in found for image in row.images)


def test_data_is_named_after_its_recipe_or_its_folder(rooms, tmp_path):
    assert data_name(rooms) == "rooms" and data_name(tmp_path / "mine") == "mine"


def test_a_subset_is_always_the_same_and_like_the_whole():
    rng, rows = np.random.default_rng(7), []
    for i in range(1000):
        count = int(rng.choice([0, 0, 2, 3, 4]))
        options = [f"{letter}. {letter}" for letter in "ABCD"[:count]]
        told = {"options": options, "answer": "A"} if count else {"unit": "m", "answer": "3"}
        name = f"type {rng.integers(2)}"
        raw = BOXES | told | {"question_type": name, "question_id": i, "level": 1 + i % 3}
        rows.append(check_row(raw, Path("data"), "rows.jsonl:1"))
    few, more = subset(rows, 300), subset(rows, 600)
    assert len(few) == 300 and few == subset(rows, 300)
    assert subset(rows, None) == rows == subset(rows, 5000)
    ids = [row.question_id for row in few]
    assert ids == sorted(ids) and set(ids) < {row.question_id for row in more}

    def stratum(row):
        return row.question_type, len(row.options), row.level

    for wanted in {stratum(row) for row in rows}:
        whole, part = (sum(stratum(row) == wanted for row in some) for some in (rows, few))
        assert abs(part - 0.3 * whole) <= 1
    assert subset([replace(row, level=0) for row in rows], 300) != few


def test_a_mixture_is_read_from_the_command_line():
    assert parse_mixture("localization=0.3,video=1") == {"localization": 0.3, "video": 1.0}
    assert parse_mixture("smells=2, video=1") == {"smells": 2.0, "video": 1.0}
    for text in ("localization", "localization=much", "localization=1,", "a=1=2", "=1", "a=1,a=2"):
        with pytest.raises(UserError, match="write it as localization=0.3,video=0.7"):
            parse_mixture(text)
    with pytest.raises(UserError, match="say single_image, multi_view, video in place of spatial"):
        parse_mixture("spatial=1")
    for share in ("0", "-1", "nan", "inf", "1e308"):
        with pytest.raises(UserError, match="the share of video must be above 0"):
            parse_mixture(f"localization=1,video={share}")


def test_pictures_in_two_folders_are_held_out_one_by_one(tmp_path):
    train = tmp_path / "train"
    train.mkdir()
    names = [f"images/{place}/{k}.png" for place in ("kitchen", "bath") for k in range(20)]
    write_rows(train, *(BOXES | {"image": [name]} for name in names), name="localization")
    for name in names:
        (train / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (96, 96)).save(train / name)
    splits = read_splits(tmp_path, ["localization"], {"val": None, "test": None})
    assert len(splits["train"]) == 35 and len(splits["test"]) == 5
    tested = {row.images for row in splits["test"]}
    few = read_split(tmp_path, "test", ["localization"], 3)  # as eval.py reads them
    assert len(few) == 3 and {row.images for row in few} <= tested
    assert kinds_in(train) == ["localization"]
    assert kinds_to_learn(tmp_path, ("localization", "video")) == ["localization"]
    assert kinds_to_learn(tmp_path, ("video",)) == ["localization"]  # all that there is
    assert kinds_to_learn(tmp_path, ("cold",)) == ["cold"]  # nothing stands for traces


def test_pictures_that_one_row_asks_about_are_held_out_together(tmp_path):
    """Eight views a room in one folder, and boxes of some of them: no row is lost."""
    train = tmp_path / "train"
    (train / "images").mkdir(parents=True)
    views = [[f"images/{room:02d}-{view}.png" for view in range(8)] for room in range(20)]
    for name in (name for names in views for name in names):
        Image.new("RGB", (96, 96)).save(train / name)
    several = NUMBER | {"data_type": "multi_view"}
    write_rows(train, *(several | {"image": names} for names in views), name="spatial")
    write_rows(train, *(BOXES | {"image": names[3:4]} for names in views), name="localization")
    for kind in ("multi_view", "localization"):
        splits = read_splits(tmp_path, [kind], {"val": None, "test": None})
        assert [len(splits[split]) for split in ("train", "val", "test")] == [15, 5, 5], kind
        rooms = {row.images[0].name[:2] for row in splits["train"]}
        assert rooms.isdisjoint(row.images[0].name[:2] for row in splits["test"])
    assert connected([["a", "b"], ["b", "c"], ["d"]]) == {"a": "a", "b": "a", "c": "a", "d": "d"}


def test_rows_have_a_fingerprint(tmp_path):
    rows = read_rows(write_rows(tmp_path, BOXES, BOXES | {"question": "Locate it."}))
    same = read_rows(write_rows(tmp_path, BOXES, BOXES | {"question": "Locate it."}))
    assert fingerprint(rows) == fingerprint(same) != fingerprint(rows[::-1])
    assert fingerprint(rows)["rows"] == 2
    taught = [replace(row, rationale="It stands on the left.") for row in rows]
    assert fingerprint(rows) != fingerprint(taught)
