"""train.py --stage all: which commands it runs, that it goes on where it stopped, and its table."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import ROOT

import train
from data.rooms import recipe
from nanoladder import ladder
from nanoladder.command import UserError
from nanoladder.files import read_json

NAMES = ("mine-si", "mine-mv", "mine-video")
BENCHMARKS = [name + suffix for name in NAMES for suffix in ("", "-ood")]


@pytest.fixture
def calls(monkeypatch):
    """Commands that the ladder runs; each leaves scores that grow from one to the next."""
    given = []

    def call(command, device):
        assert device is None
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


def climb(out, *flags, stages="all"):
    train.main(["--stage", stages, "--out", str(out), *flags])


def value_of(flag, command):
    return command[command.index(flag) + 1]


def trained(calls):
    """(stage, what it starts from) of each training."""
    return [
        (c[2] if c[0] == "train.py" else "3", value_of("--init", c))
        for c in calls
        if c[0] != "eval.py"
    ]


@pytest.mark.parametrize("gpus, ranks", [(1, 1), (3, 2), (4, 4), (6, 4), (16, 8)])
def test_as_many_gpus_climb_as_divide_a_batch(gpus, ranks, monkeypatch):
    commands = []

    def run_child(command, env):
        commands.append(command)
        assert int(env["OMP_NUM_THREADS"]) >= 1

    monkeypatch.setattr(ladder.torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(ladder, "run_child", run_child)
    ladder.call(["train.py", "--stage", "2"], "cpu")
    assert commands.pop()[-2:] == ["--device", "cpu"]
    ladder.call(["train.py", "--stage", "2"])
    assert (f"--nproc_per_node={ranks}" in commands[0]) == (ranks > 1)
    for stage in ("1", "2", "cold"):
        train.check(train.Settings(**recipe.SETTINGS[stage]), SimpleNamespace(world=ranks))
    with pytest.raises(UserError, match="--batch-size 16 is no multiple of the 3 ranks"):
        train.check(train.Settings(batch_size=16), SimpleNamespace(world=3))


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
    for stages in ("all", "1,2,cold,3"):
        climb(tmp_path, "--seed", "3", "--data-types", "video", stages=stages)
    assert calls == []  # nothing is done twice
    with pytest.raises(UserError, match="other settings: --data-types .'video'., not .'single_i"):
        climb(tmp_path, "--seed", "3")
    with pytest.raises(UserError, match="other settings: --stage 1,2,cold,3, not 2,cold"):
        climb(tmp_path, "--seed", "3", "--data-types", "video", stages="2,cold")
    assert calls == []


def test_a_folder_of_ones_own_is_handed_to_every_command(calls, tmp_path):
    climb(tmp_path, "--data", "mine", "--steps", "2", "--eval-rows", "7")
    assert [value_of("--data", command) for command in calls] == ["mine"] * 9
    calls.clear()
    climb(tmp_path / "own", "--data", "mine", "--init", "runs/stage0")
    assert trained(calls)[0] == ("1", "runs/stage0")
    assert value_of("--model", calls[4]) == "runs/stage0"
    calls.clear()
    climb(tmp_path / "again", "--data", "mine", "--steps", "2", "--eval-rows", "7")
    for command in calls[:4]:
        assert (value_of("--steps", command), value_of("--eval-rows", command)) == ("2", "7")


def test_a_skipped_stage_and_a_killed_one(calls, tmp_path):
    (tmp_path / "stage2").mkdir()
    (tmp_path / "stage2" / "state.safetensors").touch()
    climb(tmp_path, stages="2,3")
    second, third = calls[:2]
    assert second[:3] == ["train.py", "--stage", "2"]
    assert "--resume" in second and "--init" not in second
    assert "--no-think" in third and value_of("--init", third) == str(tmp_path / "stage2")
    assert not any("--think" in command for command in calls)


def test_flags_that_belong_to_a_stage_are_refused(calls, tmp_path):
    for flags in (["--lr", "1"], ["--recipe", "rooms"], ["--resume"], ["--init", "scratch"]):
        for stages in ("all", "1,cold"):
            with pytest.raises(UserError, match="a ladder (takes|goes on by itself)|make a base"):
                climb(tmp_path, *flags, stages=stages)
    assert not calls


@pytest.mark.parametrize("stages", ["1,x", "2,1", "1,1", "1,", ",", "0,1", "all,1", "1, 2", "x"])
def test_odd_lists_of_stages_are_refused(calls, tmp_path, stages):
    with pytest.raises(UserError, match=f"--stage {stages}: name one of 0, 1, 2 and cold") as error:
        climb(tmp_path, stages=stages)
    assert not calls and "\n" not in str(error.value) and not list(tmp_path.iterdir())


def test_stage_3_is_named_by_its_script(calls, tmp_path):
    with pytest.raises(UserError, match="the script of stage 3 is rl.py"):
        climb(tmp_path, stages="3")


def test_relative_paths_mean_where_the_user_stands(tmp_path, monkeypatch):
    """In the scripts of a ladder, and where the rooms are made."""
    started = []
    for module in (ladder, recipe):
        monkeypatch.setattr(module, "run_child", lambda *a, **o: started.append((*a, o)) or 0)
    monkeypatch.chdir(tmp_path)
    ladder.call(["train.py", "--data", "mine"])
    recipe.Rooms().make("mine", "1", ["localization"])
    (script, options), (maker, _) = started
    assert str(ROOT / "train.py") in script and "mine" in script and "cwd" not in options
    assert str(tmp_path / "mine") in maker


@pytest.mark.skipif(os.name == "nt", reason="Windows ends a process without a signal")
def test_a_signal_ends_the_child_before_its_parent(tmp_path):
    """The child is a script that saves when it is stopped, and so does the parent after it."""
    save = "lambda argv: (open(argv[0], 'w').close(), time.sleep(60))"
    child = f"import sys, time; from nanoladder.process import run_script; run_script({save})"
    started, printed = tmp_path / "started", tmp_path / "printed"
    parent = (
        "import sys; from nanoladder.process import run_child, run_script\n"
        f"run_script(lambda argv: run_child([sys.executable, '-c', {child!r}, *argv]))"
    )
    with open(printed, "wb") as stream:
        command = [sys.executable, "-c", parent, str(started)]
        process = subprocess.Popen(command, cwd=ROOT, stderr=stream)
        while not started.exists() and process.poll() is None:
            time.sleep(0.05)
        process.terminate()
        assert process.wait(20) == 143
    assert printed.read_text(encoding="utf-8").split() == ["stopped:", "SIGTERM"] * 2
