"""What README.md and docs/*.md tell: commands, tables and links are right, exercises come out."""

import contextlib
import importlib
import inspect
import io
import json
import re
import runpy
import shlex
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

import rl
import train
from data.convert import Settings as ConverterSettings
from data.rooms.prepare import VERSION
from docs.results.make_tables import PAGES, rewritten
from nanoladder import answers, ask, batches, prompts, rewards
from nanoladder.checkpoint import BASE
from nanoladder.command import parse
from nanoladder.files import read_json

TEXTS = {page: page.read_text(encoding="utf-8") for page in PAGES}
README, TOGETHER = TEXTS[ROOT / "README.md"], "\n".join(TEXTS.values())
START = r"(?:python|torchrun --nproc_per_node 2) (train\.py|rl\.py|eval\.py|-m data\.[\w.]+)"
FOLD = r"(?:<details><summary>Answer</summary>\n\n)?"
EXERCISE = re.compile(rf"```python\n((?:(?!```).)*)```\n\n{FOLD}`(.*?)`\n", re.DOTALL)
EXERCISES = {
    f"{page.stem}-{number}": found
    for page, text in TEXTS.items()
    for number, found in enumerate(EXERCISE.findall(text))
}
NOTEBOOK = (ROOT / "docs/ladder.ipynb").read_text(encoding="utf-8")
CELLS = [cell for cell in json.loads(NOTEBOOK)["cells"] if cell["cell_type"] == "code"]


def shell_commands(cells):
    """The shell commands of a notebook's cells, with the values of what they name."""
    names, commands = {"sys": SimpleNamespace(executable="python")}, []
    for cell in cells:
        for line in "".join(cell["source"]).replace("\\\n", "").splitlines():
            if re.match("[A-Z]+ = ", line):  # DATA and FEW
                exec(line, names)
            elif line.startswith("!"):
                commands.append(line[1:].format_map(defaultdict(str, names)))
    return commands


PROSE_AND_CELLS = "\n".join([TOGETHER, *shell_commands(CELLS)])
COMMANDS = sorted(set(re.findall(START + r"((?: +[\w,=/-][\w.,=/-]*)*)", PROSE_AND_CELLS)))


@pytest.mark.parametrize("script, flags", COMMANDS)
def test_commands_are_accepted(script, flags):
    module = importlib.import_module(script.removeprefix("-m ").removesuffix(".py"))
    settings = getattr(module, "Settings", ConverterSettings)
    presets = getattr(module, "presets", None)
    flags = shlex.split(flags.replace("PATH", str(BASE)))  # a folder with a model
    assert parse(settings, flags, presets, module.__doc__)


@pytest.mark.parametrize("code, answer", EXERCISES.values(), ids=EXERCISES)
def test_exercises_have_the_answers_given(code, answer):
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        exec(code, {})
    assert shown.getvalue().split() == answer.split()  # a page may break the line


# What an exercise lets one change: its script, the function, the old and the new code, the output.
CHANGES = [
    (
        "0-model-2",
        (batches, "attention_mask", "causal & ((key == 0) | (key == query))", "causal[None, None]"),
        "95",
    ),
    (
        "1-perception-1",
        (
            prompts,
            "boxes_in_input",
            'rescale_box(item["bbox_2d"], size, resized)',
            'item["bbox_2d"]',
        ),
        "1.0 0.0",
    ),
    ("3a-cold-start-1", (answers, "answer_block", 'else ""', "else text"), "['left', 'left']"),
    (
        "3b-grpo-1",
        (rl, "advantages", "centered / (rewards.std(dim=1, keepdim=True) + 1e-4)", "centered"),
        "0.3",
    ),
    (
        "4-measuring-1",
        (rewards, "exact_match", "float(plain(text) == plain(truth))", "float(text in truth)"),
        "[1.0, 1.0, 1.0]",
    ),
]


@pytest.mark.parametrize("exercise, change, output", CHANGES, ids=[c[0] for c in CHANGES])
def test_changed_lines_do_what_the_chapter_says(exercise, change, output, monkeypatch):
    (module, name, old, new), (code, before) = change, EXERCISES[exercise]
    source = inspect.getsource(getattr(module, name))
    assert source.count(old) == 1 and before != output
    exec(source.replace(old, new), changed := dict(vars(module)))
    monkeypatch.setattr(module, name, changed[name])
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        exec(code, {})
    assert shown.getvalue().strip() == output
    page = " ".join(TEXTS[ROOT / f"docs/{exercise[:-2]}.md"].replace("`", "").split())
    assert f"After the change it prints {output}" in page


def test_every_chapter_has_exercises():
    chapters = [page.stem for page in PAGES if page.stem[0].isdigit()]
    assert len(chapters) == 7
    assert all(sum(name.startswith(c) for name in EXERCISES) >= 2 for c in chapters if c[0] != "5")


def test_the_notebook_was_run_from_top_to_bottom():
    assert [cell["execution_count"] for cell in CELLS] == list(range(1, len(CELLS) + 1))
    assert not any(out["output_type"] == "error" for cell in CELLS for out in cell["outputs"])
    assert not re.search(r"error:|/home/|/root/|/tmp/", NOTEBOOK)  # nor does it show its machine


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 180


def test_tables_and_excerpts_are_fresh():
    assert TOGETHER.count("<!-- end -->") >= 4
    assert [page.name for page, text in TEXTS.items() if rewritten(text) != text] == []


def test_links_and_named_files_exist():
    links = [
        (page, *re.fullmatch(r"([^#]*)#?(.*)", link).groups())
        for page, text in TEXTS.items()
        for link in re.findall(r"\]\(((?!http)[^)]+)\)", text)
    ]
    assert len(links) > 10
    assert [
        page.parent / name for page, name, _ in links if not (page.parent / name).exists()
    ] == []
    for page, name, anchor in links:
        text = (page.parent / name).read_text(encoding="utf-8") if anchor else ""
        headings = re.findall(r"^#+ (.*)", text, re.MULTILINE)
        anchors = [re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings]
        assert not anchor or anchor in anchors


def test_the_rows_in_chapters_are_of_these_rooms():
    """Where the rooms have changed, docs/results/make_rows.py must read the rows anew."""
    assert read_json(ROOT / "docs/results/rows.json")["version"] == VERSION


def test_every_recorded_run_has_a_line_and_is_quoted():
    """docs/results holds runs that a page quotes, each with its line in docs/results/README.md."""
    listed = (ROOT / "docs/results/README.md").read_text(encoding="utf-8")
    for path in sorted((ROOT / "docs/results").glob("**/run.json")):
        name = str(path.parent.relative_to(ROOT / "docs/results"))
        assert f"`{name}`" in listed, name
        assert f"docs/results/{name}" in TOGETHER or name.startswith("base-"), name


def test_chapter_5_from_photographs_to_boxes_in_a_picture(tmp_path, monkeypatch, capsys):
    """Every line of "your own data": the script and its three commands, on twenty photographs."""
    page = TEXTS[ROOT / "docs/5-your-own.md"]
    script = re.search(r"```python\n(import csv.*?)```", page, re.DOTALL)[1]
    commands = re.search(r"## Run it\n\n((?:    .*\n)+)", page)[1].splitlines()
    monkeypatch.chdir(tmp_path)
    rng, lines = np.random.default_rng(0), ["picture,label,x1,y1,x2,y2"]
    Path("PHOTOS").mkdir()
    for number in range(20):
        width, height = int(rng.integers(60, 200)), int(rng.integers(60, 200))
        noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        exif = Image.Exif()
        exif[0x0112] = 6 if number % 4 == 0 else 1  # taken with the camera on its side
        name = f"photo {number:02d}.jpg"
        Image.fromarray(noise).save(Path("PHOTOS", name), exif=exif)
        for label in ("Cup", "Stühlchen") if number % 2 else ("Cup",):
            lines.append(f"{name},{label},5.5,6,40,50")
    Path("boxes.csv").write_text("\n".join(lines), encoding="utf-8")
    Path("boxes.py").write_text(script, encoding="utf-8")
    for command in (line.strip().removeprefix("python ") for line in commands):
        picture = next(Path("datasets/desk/test/images").glob("*"), "FILE")
        words = shlex.split(command.replace("FILE", str(picture)).replace("300", "2"))
        monkeypatch.setattr("sys.argv", words[words[0] == "-m" :])
        if words[0] == "boxes.py":
            runpy.run_path("boxes.py", run_name="__main__")
        elif words[0] == "train.py":
            train.main([*words[1:], "--eval-rows", "2"])
        else:
            ask.main(words[2:])
    shown = capsys.readouterr().out
    assert "localization, test" in shown and "a.png: " in shown
    assert Image.open("a.png").size[0] and Path("runs/desk/samples.png").exists()
