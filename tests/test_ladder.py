"""train.py --stage all: which commands it runs, that it goes on where it stopped, and its table."""

import json
from pathlib import Path

import pytest

import train
from nanoladder import ladder
from nanoladder.command import UserError
from nanoladder.files import read_json

NAMES = ("mine-si", "mine-mv", "mine-video")
BENCHMARKS = [name + suffix for name in NAMES for suffix in ("", "-ood")]


@pytest.fixture
def calls(monkeypatch):
    """Commands that the ladder runs; each leaves scores that grow from one to the next."""
    given = []

    def call(command):
        given.append(command)
        folder = Path(value_of("--out", command))
        folder.mkdir(parents=True, exist_ok=True)
        value = len(given) / 100
        scores = {name: {"avg": value} for name in BENCHMARKS}
        scores |= {"overall": value, "overall-ood": value / 2}
        scores["localization"] = {"test": {"iou": value}, "ood": {"iou": value}}
        scores["intervals"] = {"overall": [value, value]}
        (folder / "scores.json").write_text(json.dumps(scores), encoding="utf-8")

    monkeypatch.setattr(ladder, "call", call)
    return given


def climb(out, *flags):
    train.main(["--stage", "all", "--out", str(out), *flags])


def value_of(flag, command):
    return command[command.index(flag) + 1]


def trained(calls):
    """(stage, what it starts from) of each training."""
    return [
        (c[2] if c[0] == "train.py" else "3", value_of("--init", c))
        for c in calls
        if c[0] != "eval.py"
    ]


def test_each_stage_starts_from_the_one_before_and_all_are_scored(calls, tmp_path, capsys):
    climb(tmp_path, "--seed", "3", "--data-types", "video")
    folders = [str(tmp_path / name) for name in ("stage1", "stage2", "cold")]
    assert trained(calls) == list(zip(("1", "2", "cold", "3"), [str(ladder.BASE), *folders]))
    for command in calls[:4]:
        assert value_of("--seed", command) == "3" and value_of("--data-types", command) == "video"
    scored = {Path(value_of("--model", c)).name: "--think" in c for c in calls if c[0] == "eval.py"}
    assert scored == {"base": False, "stage1": False, "stage2": False, "cold": True, "rl": True}
    rows = read_json(tmp_path / "ladder.json")
    assert list(rows) == ["base", "stage1", "stage2", "cold", "rl"]
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    header = next(line for line in lines if line[:1] == ["%"])
    assert header[1:5] == [*NAMES, "overall"]
    overall = f"{100 * rows['rl']['overall']:.1f}"
    assert [line[4] for line in lines if line and line[0] == "rl"] == [overall]
    calls.clear()
    climb(tmp_path, "--seed", "3", "--data-types", "video")
    assert calls == []  # nothing is done twice
    for other in (["--seed", "3"], ["--seed", "3", "--data-types", "video", "--skip", "1"]):
        with pytest.raises(UserError, match="holds a ladder with --(data-types|skip)"):
            climb(tmp_path, *other)
    assert calls == []


def test_a_folder_of_ones_own_is_handed_to_every_command(calls, tmp_path):
    climb(tmp_path, "--data", "mine", "--steps", "2", "--eval-rows", "7")
    assert [value_of("--data", command) for command in calls] == ["mine"] * 9
    for command in calls[:4]:
        assert (value_of("--steps", command), value_of("--eval-rows", command)) == ("2", "7")


def test_a_skipped_stage_and_a_killed_one(calls, tmp_path):
    (tmp_path / "stage2").mkdir()
    (tmp_path / "stage2" / "state.safetensors").touch()
    climb(tmp_path, "--skip", "1", "cold")
    second, third = calls[:2]
    assert second[:3] == ["train.py", "--stage", "2"]
    assert "--resume" in second and "--init" not in second
    assert "--no-think" in third and value_of("--init", third) == str(tmp_path / "stage2")
    assert not any("--think" in command for command in calls)


def test_flags_that_belong_to_a_stage_are_refused(calls, tmp_path):
    for flags in (["--lr", "1"], ["--recipe", "rooms"], ["--resume"]):
        with pytest.raises(UserError, match="--stage all"):
            climb(tmp_path, *flags)
    assert not calls
