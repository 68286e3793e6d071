"""train.py --stage all: which commands it gives, that it goes on where it stopped, and its table."""

import json
from pathlib import Path

import pytest

import train
from nanoladder import ladder
from nanoladder.common import UserError

BENCHMARKS = [name + suffix for name in ("rooms-si", "rooms-mv", "rooms-video") for suffix in ("", "-ood")]


@pytest.fixture
def calls(monkeypatch):
    """Commands that the ladder gives; each leaves scores that grow from one to the next."""
    given = []

    def call(command):
        given.append(command)
        folder = Path(command[command.index("--out") + 1])
        folder.mkdir(parents=True, exist_ok=True)
        value = len(given) / 100
        scores = {name: {"avg": value} for name in BENCHMARKS} | {"overall": value, "overall-ood": value / 2}
        scores["localization"] = {"test": {"iou": value}, "ood": {"iou": value}}
        scores["intervals"] = {"overall": [value, value]}
        (folder / "scores.json").write_text(json.dumps(scores))

    monkeypatch.setattr(ladder, "call", call)
    return given


def climb(out, *flags):
    train.main(["--stage", "all", "--out", str(out), *flags])


def trained(calls):
    return [(c[2] if c[0] == "train.py" else "3", c[c.index("--init") + 1]) for c in calls if c[0] != "eval.py"]


def test_each_rung_starts_from_the_one_before_and_all_are_scored(calls, tmp_path, capsys):
    climb(tmp_path, "--seed", "3", "--data-types", "video")
    folders = [str(tmp_path / name) for name in ("stage1", "stage2", "cold")]
    assert trained(calls) == list(zip(("1", "2", "cold", "3"), [str(ladder.BASE), *folders]))
    for command in calls[:4]:
        assert command[command.index("--seed") + 1] == "3" and command[command.index("--data-types") + 1] == "video"
    scored = {Path(c[c.index("--model") + 1]).name: "--think" in c for c in calls if c[0] == "eval.py"}
    assert scored == {"base": False, "stage1": False, "stage2": False, "cold": True, "rl": True}
    rows = json.loads((tmp_path / "ladder.json").read_text())
    assert list(rows) == ["base", "stage1", "stage2", "cold", "rl"]
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[4] for line in lines if line and line[0] == "rl"] == [f"{100 * rows['rl']['overall']:.1f}"]
    calls.clear()
    climb(tmp_path)
    assert calls == []  # nothing is done twice


def test_a_skipped_rung_and_a_killed_one(calls, tmp_path):
    (tmp_path / "stage2").mkdir()
    (tmp_path / "stage2" / "state.safetensors").touch()
    climb(tmp_path, "--skip", "1", "cold")
    second, third = calls[:2]
    assert second[:3] == ["train.py", "--stage", "2"] and "--resume" in second and "--init" not in second
    assert "--no-think" in third and third[third.index("--init") + 1] == str(tmp_path / "stage2")
    assert not any("--think" in command for command in calls)


def test_flags_that_belong_to_a_rung_are_refused(calls, tmp_path):
    for flags in (["--lr", "1"], ["--resume"]):
        with pytest.raises(UserError, match="--stage all"):
            climb(tmp_path, *flags)
    assert not calls
