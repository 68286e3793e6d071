"""The layout of the house: imports, sizes that keep it teachable, and --help of every script."""

import ast
import dataclasses
import os
import re
import subprocess
import sys

import pytest
from conftest import POOR, ROOT

import rl
import train
from data.rooms.furniture import CATEGORIES

PACKAGES = {"torch", "numpy", "PIL", "safetensors", "tokenizers", "tqdm"}
OPTIONAL = {  # pip install -e '.[bench]'
    "data/convert.py": {"pyarrow"},
    "data/videos.py": {"av"},
}
LEAVES = {
    "model",
    "motion",
    "lora",
    "muon",
    "command",
}  # import no other
SCRIPTS = [ROOT / name for name in ("train.py", "rl.py", "eval.py")]
CORE = [*SCRIPTS, *sorted(ROOT.glob("nanoladder/*.py"))]
FOLDERS = [ROOT / name for name in ("nanoladder", "data", "tests", "docs")]
TREE = [*SCRIPTS, *(path for folder in FOLDERS for path in sorted(folder.rglob("*.py")))]
FILES = [*CORE, *sorted(ROOT.glob("data/**/*.py"))]
# What the course reads, in order. The README quotes their lines.
PATH = ["model", "image", "tokenizer", "prompts", "batches", "generate", "rewards"]
PATH = [ROOT / "nanoladder" / f"{name}.py" for name in PATH] + [ROOT / "train.py", ROOT / "rl.py"]
CONVERTERS = ["spatialladder", "spbench", "vsibench", "cvbench", "sparbench", "viewspatial"]
MODULES = [
    *(f"data.rooms.{name}" for name in ("prepare", "baselines", "traces", "hints")),
    *(f"data.{name}.prepare" for name in CONVERTERS),
    *("nanoladder.ask", "train", "rl", "eval"),
]
# Names of SpatialLadder's and VSI-Bench's own question types, which the core may know.
PUBLISHED_NAMES = {"room size", "room_size_estimation"}
NOUNS = ["room", "floor", *(name for name in CATEGORIES if name not in ("ladder", "table"))]
WORLD = re.compile("|".join(rf"\b{noun}s?\b" for noun in NOUNS))


def relative(path):
    return str(path.relative_to(ROOT))


def lines(path):
    return len(path.read_text(encoding="utf-8").splitlines())


def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(nodes):
    """Dotted names of the modules that some nodes import."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            whole = node.module == "nanoladder"
            names = [f"nanoladder.{alias.name}" for alias in node.names]
            yield from names if whole else [node.module]


# ---------------------------------------------------------------- imports


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_imports(path):
    names = list(imported(ast.walk(tree(path))))
    outside = {n.split(".")[0] for n in names} - set(sys.stdlib_module_names)
    allowed = PACKAGES | {"nanoladder", "data"} | OPTIONAL.get(relative(path), set())
    assert outside <= allowed, f"{path.name} imports {outside - allowed}"
    top = {n.split(".")[0] for n in imported(tree(path).body)}
    assert not top & {"pyarrow", "av"}, "an optional package is imported where it is used"
    if path in CORE:
        assert not any(n.split(".")[0] == "data" for n in names), "the core knows no data set"
    if path.parent.name == "nanoladder" and path.stem in LEAVES:
        assert not any(n.startswith("nanoladder") for n in names), f"{path.name} imports no other"


def test_no_import_runs_in_a_circle():
    needs = {}
    for path in ROOT.glob("nanoladder/*.py"):
        names = imported(tree(path).body)
        needs[path.stem] = {n.split(".")[1] for n in names if n.startswith("nanoladder.")}
    while free := {name for name, others in needs.items() if not others}:
        needs = {name: others - free for name, others in needs.items() if name not in free}
    assert not needs, f"in a circle: {sorted(needs)}"


def test_making_rooms_and_showing_help_need_no_torch():
    for module in ("data.rooms.prepare", "nanoladder.process", "nanoladder.files"):
        code = f"import sys, {module}; assert 'torch' not in sys.modules"
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("path", CORE, ids=relative)
def test_the_core_names_nothing_of_the_rooms(path):
    docs = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                docs.add(first.value)
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            is_doc = any(node.value == doc.value for doc in docs)  # docstrings may give examples
            found = WORLD.findall(node.value)
            assert is_doc or node.value in PUBLISHED_NAMES or not found, (node.lineno, node.value)
        for field in ("id", "attr", "name", "arg"):
            value = getattr(node, field, None)
            words = value.lower().split("_") if isinstance(value, str) else []
            assert not {"room", "rooms"} & {*words}, (node.lineno, value)


# ---------------------------------------------------------------- sizes


def test_sizes():
    """HOUSE: what a person reads in one go."""
    sizes = {path.name: lines(path) for path in SCRIPTS}
    assert sizes["train.py"] <= 300 and sizes["rl.py"] <= 330 and sizes["eval.py"] <= 200, sizes
    total = sum(map(lines, PATH))
    assert total <= 2300, {path.name: lines(path) for path in PATH}
    assert len(dataclasses.fields(train.Settings)) <= 32
    assert len(dataclasses.fields(rl.Settings)) <= 27


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_functions_and_lines_are_short(path):
    functions = (n for n in ast.walk(tree(path)) if isinstance(n, ast.FunctionDef))
    sizes = {f.name: f.end_lineno - f.lineno + 1 for f in functions}
    assert not {name: size for name, size in sizes.items() if size > 60}
    text = path.read_text(encoding="utf-8").splitlines()
    assert not [n for n, line in enumerate(text, 1) if len(line) > 100]


@pytest.mark.parametrize("path", TREE, ids=relative)
def test_text_is_read_and_written_as_utf_8(path):
    """Without an encoding, Python takes that of the machine, which on Windows is another one."""
    for call in (n for n in ast.walk(tree(path)) if isinstance(n, ast.Call)):
        named = {keyword.arg: getattr(keyword.value, "value", None) for keyword in call.keywords}
        name = getattr(call.func, "attr", getattr(call.func, "id", ""))
        mode = "".join(str(a.value) for a in call.args[1:] if isinstance(a, ast.Constant))
        opens = isinstance(call.func, ast.Name) and name == "open" and "b" not in mode
        if opens or name in ("read_text", "write_text") or named.get("text") is True:
            assert "encoding" in named, (path.name, call.lineno)


# ---------------------------------------------------------------- command lines


SHOW_HELP = """
import importlib, sys
from nanoladder.command import UserError

for name in sys.argv[1:]:
    main = importlib.import_module(name).main
    for flags in (["--help"], ["--no-such-flag", "x"]):
        try:
            main(flags)
        except SystemExit as end:
            print(f"{name} ends with {end.code}")
        except UserError as error:
            print(f"{name} refuses: {error}")
"""


def test_help_and_unknown_flags():
    command = [sys.executable, "-c", SHOW_HELP, *MODULES]
    options = dict(cwd=ROOT, env=os.environ | POOR, capture_output=True, encoding="utf-8")
    shown = subprocess.run(command, check=True, **options).stdout
    refused = "refuses: unknown argument --no-such-flag: --help lists all flags"
    for name in MODULES:
        assert f"{name} ends with 0\n" in shown and f"{name} {refused}\n" in shown
    assert shown.count("show this help message") == len(MODULES)
