"""The hints experiment: what hints tell is true, and rows and images stay the same otherwise."""

import re
from dataclasses import replace

import pytest
from conftest import prepare

from data.rooms import hints
from data.rooms.spatial import SECTORS
from nanoladder import checkpoint
from nanoladder.checkpoint import BASE
from nanoladder.command import UserError
from nanoladder.files import read_jsonl
from nanoladder.splits import read_kinds


@pytest.fixture(scope="module")
def spatial_rooms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "rooms"
    prepare(folder, "--pictures", "1", "--held-out", "12", "--questions", "4", "--size", "64")
    return folder


def numbers(text):
    return [int(value) for value in re.findall(r"-?\d+", text)]


def test_hints_tell_what_the_truth_says(spatial_rooms):
    shipped = checkpoint.load_image_config(BASE)
    image_config = replace(shipped, max_pixels=48 * 48)  # boxes must be rescaled
    checked = 0
    for split in ("test", "ood"):
        plain = {
            row["question_id"]: row for row in read_jsonl(spatial_rooms / split / "spatial.jsonl")
        }
        rows = hints.with_hints(spatial_rooms / split, image_config, directions=True)
        for row in rows:
            hint, question = row["question"].rsplit("\n", 1)
            assert row | {"question": question} == plain[row["question_id"]]
            boxes = [numbers(box) for box in re.findall(r"\[(.*?)\]", hint)]
            assert len(boxes) == 3
            assert all(0 <= x1 < x2 <= 48 and 0 <= y1 < y2 <= 48 for x1, y1, x2, y2 in boxes)
            told = re.findall(r"(\d+) degrees to the (\w+)", hint)
            ahead, there = (int(n) if side == "left" else -int(n) for n, side in told)
            sectors = SECTORS[row["difficulty"]].items()
            (answer,) = (name for name, (a, b) in sectors if a < (there - ahead) % 360 < b)
            assert f"{row['answer']}. {answer}" in row["options"]
            checked += 1
        boxes_only = hints.with_hints(spatial_rooms / split, image_config)
        assert [row["question_id"] for row in boxes_only] == [row["question_id"] for row in rows]
        assert not any("degrees to the" in row["question"] for row in boxes_only)
    assert checked > 10


def test_a_folder_with_hints_is_written_and_read(spatial_rooms, tmp_path, capsys, monkeypatch):
    out = tmp_path / "hints"
    flags = ["--data", str(spatial_rooms), "--out", str(out)]

    def stop(source, target):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(hints, "_link", stop)
        with pytest.raises(KeyboardInterrupt):
            hints.main(flags)
    assert not list(tmp_path.iterdir())  # nothing half made stays
    hints.main([*flags, "--hints", "boxes"])
    printed = capsys.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == ["ood", "test"]
    for split in ("test", "ood"):
        rows = read_kinds(out / split, ["single_image"])
        assert rows and f"{split} {len(rows)} rows" in printed
        assert {row.question_type for row in rows} == {"relative direction"}
        for row in rows:
            name = row.images[0].relative_to(out)
            assert row.images[0].read_bytes() == (spatial_rooms / name).read_bytes()
    with pytest.raises(UserError, match="exists already"):
        hints.main(flags)
    with pytest.raises(UserError, match="no such file"):
        hints.main(["--data", str(out), "--out", str(tmp_path / "other")])
    assert not (tmp_path / "other").exists()
