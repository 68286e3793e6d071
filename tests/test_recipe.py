"""Recipes: the core works on anybody's own folder, and a recipe is found by its data."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

import eval as evaluate
import rl
import train
from data.rooms.recipe import Rooms
from nanoladder import predict
from nanoladder.checkpoint import BASE
from nanoladder.command import UserError
from nanoladder.files import read_json, read_jsonl, write_json, write_jsonl
from nanoladder.recipe import Recipe, find_recipe

CORE = ("train.py", "rl.py", "eval.py", "nanoladder", "data/__init__.py", "data/convert.py")
# What the child process of a test runs: main(argv) of several scripts, one after the other.
RUN_SCRIPTS = """
import importlib, json, os, sys
import train
assert train.__file__.startswith(os.environ["PYTHONPATH"])
from nanoladder import predict
predict.MAX_NEW_TOKENS = 8
for name, argv in json.loads(sys.argv[1]):
    importlib.import_module(name).main(argv)
assert not any(name.startswith("data.rooms") for name in sys.modules)
"""
TINY = ["--steps", "2", "--eval-rows", "4", "--no-amp", "--no-compile"]
SFT = [*TINY, "--batch-size", "2", "--eval-every", "2"]
GRPO = [*TINY, "--prompts-per-step", "2", "--group-size", "2"]
GRPO += ["--max-new-tokens", "8", "--save-every", "2"]


def rows_about(number):
    """{kind: rows} about the picture with this number, and about it and the next one."""
    about = {"image": [f"{number}.png"], "data_type": "single_image"}
    views = {"image": [f"{number}.png", f"{number ^ 1}.png"], "data_type": "multi_view"}
    side, letter = 10 + 5 * number, "AB"[number % 2]
    box = {"bbox_2d": [5, 8, 5 + side, 40], "label": "pear"}
    smell = {"question": "What does it smell of?", "options": ["A. pear", "B. plum"]}
    weight = {"question": "How heavy is the pear?", "unit": "kg"}
    thought = f"<think>It is a {letter}.</think><answer>{letter}</answer>"
    heavy = f"<think>Two and {number}.</think><answer>{number + 2}</answer>"
    return {
        "localization": [about | {"question": "Locate the pear.", "answer": [box]}],
        "spatial": [
            about | smell | {"answer": letter, "question_type": "smell"},
            about | weight | {"answer": str(number + 2), "question_type": "weight"},
            views | smell | {"answer": letter, "question_type": "smell"},
        ],
        "cold": [
            about | smell | {"prompt": smell["question"], "solution": thought},
            views | weight | {"prompt": weight["question"], "solution": heavy},
        ],
    }


def make_folder(folder):
    """Somebody's own data: four pictures of noise in each split, and rows about them."""
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test", "ood"):
        (folder / split).mkdir(parents=True)
        kinds = {}
        for number in range(4):
            noise = rng.integers(0, 255, (96, 96, 3), dtype=np.uint8)
            Image.fromarray(noise).save(folder / split / f"{number}.png")
            for kind, rows in rows_about(number).items():
                kinds.setdefault(kind, []).extend(rows)
        for kind, rows in kinds.items():
            if kind != "cold" or split == "train":
                numbered = [row | {"question_id": n} for n, row in enumerate(rows)]
                write_jsonl(folder / split / f"{kind}.jsonl", numbered)


@pytest.fixture(scope="module")
def core(tmp_path_factory):
    """A copy of the repository without data/rooms, and beside it a folder of own data."""
    copy = tmp_path_factory.mktemp("core") / "repository"
    (copy / "data").mkdir(parents=True)
    for name in CORE:
        source, ignored = ROOT / name, shutil.ignore_patterns("__pycache__")
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=ignored)
        else:
            shutil.copy(source, copy / name)
    make_folder(copy.parent / "fruit")
    return copy


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run_scripts(copy, *commands):
    """The scripts of the copy, started from the folder above it: that is where paths are."""
    command = [sys.executable, "-c", RUN_SCRIPTS, json.dumps(commands)]
    options = {"capture_output": True, "text": True, "encoding": "utf-8"}
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(copy)}
    done = subprocess.run(command, cwd=copy.parent, env=environment, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_core_works_on_an_own_folder_without_the_rooms(core):
    fruit = core.parent / "fruit"
    before, data = contents(fruit), ["--data", "fruit"]

    def sft(stage, init, out):
        return "train", ["--stage", stage, "--init", init, "--out", out, *data, *SFT]

    def grpo(task, init, out):
        return "rl", ["--task", task, "--init", init, "--out", out, *data, *GRPO]

    printed = run_scripts(
        core,
        sft("1", "scratch", "runs/1"),
        sft("2", "runs/1", "runs/2"),
        sft("cold", "runs/2", "runs/cold"),
        grpo("spatial", "runs/cold", "runs/rl"),
        grpo("localization", "runs/1", "runs/rl-boxes"),
        ("eval", ["--model", "runs/rl", "--think", *data, "--max-new-tokens", "8"]),
    )
    assert not (core / "runs").exists()
    assert contents(fruit) == before  # an own folder is read, and never written into
    names = {"fruit-si", "fruit-mv"}
    spatial = names | {name + "-ood" for name in names} | {"overall", "overall-ood", "intervals"}
    for run, kinds in (
        ("1", {"localization"}),
        ("2", spatial),
        ("cold", spatial),
        ("rl", spatial),
        ("rl-boxes", {"localization"}),
        ("rl/eval", spatial | {"localization"}),
    ):
        scores = read_json(core.parent / "runs" / run / "scores.json")
        assert set(scores) == kinds, run
        if "fruit-si" in scores:
            forms = {name: t["form"] for name, t in scores["fruit-si"]["types"].items()}
            assert forms == {"smell": "choice", "weight": "number"}
            assert ("format" in scores["fruit-si"]) == (run != "2")  # all others think first
        if run != "rl/eval":
            record = read_jsonl(core.parent / "runs" / run / "metrics.jsonl")[-1]
            spatial_kinds = {"single_image", "multi_view"}
            wanted = kinds if kinds == {"localization"} else spatial_kinds
            assert record["step"] == 2 and set(record["val"]) == wanted
            settings = read_json(core.parent / "runs" / run / "run.json")["settings"]
            assert settings.get("recipe") is None
    assert "fruit-si, %" in printed and "fruit-mv-ood, %" in printed and "rooms" not in printed


OWN_RECIPE = """
from pathlib import Path

from nanoladder.recipe import Recipe

ROWS, DATA = {folders}


class Pears(Recipe):
    name, version = "pears", 3

    def settings(self, stage):
        return {{"data": DATA, "steps": 1}} if stage == "1" else {{}}

    def make(self, data, stage, kinds):
        print("making", stage, kinds)
        Path(data).symlink_to(ROWS)

    def order(self, s, groups, shares):
        return [(0, 1, 1)] * s.steps * s.batch_size

    def rate(self, s, step):
        return 0.25


RECIPE = Pears
"""


def test_one_file_swaps_the_world(core, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("nanoladder.recipe.DATA", tmp_path)
    monkeypatch.setattr("data.__path__", [str(tmp_path)])
    monkeypatch.setattr("data.DEFAULT_RECIPE", "pears")
    monkeypatch.setattr(predict, "MAX_NEW_TOKENS", 8)
    (tmp_path / "pears").mkdir()
    made = tmp_path / "made"
    text = OWN_RECIPE.format(folders=(str(core.parent / "fruit"), str(made)))
    (tmp_path / "pears" / "recipe.py").write_text(text, encoding="utf-8")
    tiny = ["--batch-size", "2", "--eval-rows", "1", "--no-amp", "--no-compile"]
    out = tmp_path / "out"
    train.main(["--stage", "1", "--init", "scratch", "--out", str(out), *tiny])
    assert "making 1 ['localization']" in capsys.readouterr().out
    settings = read_json(out / "run.json")["settings"]
    told = [settings[name] for name in ("recipe", "data", "steps")]
    assert told == ["pears", str(made), 1]
    (record,) = read_jsonl(out / "metrics.jsonl")
    assert record["step"] == 1 and record["lr_factor"] == 0.25


def test_the_recipe_is_the_named_one_or_that_of_the_data(rooms, tmp_path):
    assert type(find_recipe()) is Rooms  # the world that ships
    assert type(find_recipe(data=str(rooms))) is Rooms
    assert type(find_recipe(data=str(tmp_path))) is Recipe
    assert type(find_recipe("rooms", str(tmp_path))) is Rooms
    assert train.presets({"data": str(tmp_path)})["recipe"] is None
    assert train.presets({"data": str(rooms)})["recipe"] == "rooms"
    for script in (train, rl, evaluate):
        assert "data" not in script.presets({"data": str(tmp_path)})
        assert script.presets({})["data"].startswith("datasets/rooms")


@pytest.mark.parametrize("script", [train, rl, evaluate], ids=["train", "rl", "eval"])
@pytest.mark.parametrize("made, complaint", [
    ({"recipe": "rooms", "version": 1}, "made by version 1 of its recipe, and this is version"),
    ({"recipe": "kitchens", "version": 1}, "there is no data/kitchens/recipe.py"),
    ({"pictures": 24}, "no folder train in it|no rows in test"),  # made by no recipe
])  # fmt: skip
def test_data_of_another_version_is_refused_in_one_line(tmp_path, script, made, complaint):
    data, out = tmp_path / "rooms", tmp_path / "out"
    data.mkdir()
    write_json(data / "prepare.json", made)
    flags = ["--model", "nowhere"] if script is evaluate else []
    with pytest.raises(UserError, match=complaint) as error:
        script.main([*flags, "--data", str(data), "--out", str(out)])
    assert "\n" not in str(error.value) and not out.exists()
    assert list(contents(data)) == [data / "prepare.json"]


@pytest.mark.parametrize("script", [train, rl, evaluate], ids=["train", "rl", "eval"])
def test_the_default_data_is_refused_if_another_version_made_it(tmp_path, script, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("rooms", "rooms-spatial"):
        (tmp_path / "datasets" / name / "train").mkdir(parents=True)
        write_json(tmp_path / f"datasets/{name}/prepare.json", {"recipe": "rooms", "version": 1})
    flags = ["--model" if script is evaluate else "--init", str(BASE)]
    with pytest.raises(UserError, match="rooms.* was made by version 1 of its recipe"):
        script.main([*flags, "--out", str(tmp_path / "out")])


def test_an_unknown_recipe_is_refused_in_one_line(tmp_path):
    for flags in (["--recipe", "kitchens"], ["--recipe", "kitchens", "--data", str(tmp_path)]):
        with pytest.raises(UserError, match="there is no data/kitchens/recipe.py") as error:
            train.main([*flags, "--out", str(tmp_path / "out")])
        assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


def test_a_script_without_data_says_so(tmp_path, monkeypatch):
    """As in a repository that ships no recipe."""
    monkeypatch.setattr("nanoladder.recipe.DATA", tmp_path)
    out = ["--out", str(tmp_path / "out")]
    for script, flags in ((train, []), (rl, []), (evaluate, ["--model", str(BASE)])):
        with pytest.raises(UserError, match="name a folder of rows and pictures with --data"):
            script.main([*flags, *out])
    with pytest.raises(UserError, match="stage 0 needs --mix"):
        train.main(["--stage", "0", "--data", str(tmp_path), *out])
    assert not list(tmp_path.iterdir())
