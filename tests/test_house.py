"""The layout of the house: who may import whom, which packages the core may use, and that every script has --help."""

import ast
import subprocess
import sys

import pytest
from conftest import ROOT

PACKAGES = {"torch", "numpy", "PIL", "safetensors", "tokenizers", "tqdm"}
LEAVES = {"model", "image", "tokenizer", "rewards", "muon", "lora"}
OPTIONAL = {"data/convert.py": {"pyarrow"}, "data/vsibench/prepare.py": {"av"}}  # pip install -e '.[bench]'
FILES = [*ROOT.glob("*.py"), *ROOT.glob("nanoladder/*.py"), *ROOT.glob("data/**/*.py")]
CONVERTERS = ["spatialladder", "spbench", "vsibench", "cvbench", "sparbench", "viewspatial"]
MODULES = [*(f"data.rooms.{name}" for name in ("prepare", "baselines", "traces")),
           *(f"data.{name}.prepare" for name in CONVERTERS)]  # fmt: skip
SCRIPTS = [["train.py"], ["rl.py"], ["eval.py"], *(["-m", name] for name in MODULES)]


def imported(path, nodes=None):
    """Dotted names of all modules that a file imports, or that some of its nodes do."""
    for node in nodes or ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            whole = node.module == "nanoladder"
            yield from [f"nanoladder.{alias.name}" for alias in node.names] if whole else [node.module]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports(path):
    names = list(imported(path))
    outside = {n.split(".")[0] for n in names} - set(sys.stdlib_module_names) - {"nanoladder", "data"}
    allowed = PACKAGES | OPTIONAL.get(str(path.relative_to(ROOT)), set())
    assert outside <= allowed, f"{path.name} imports {outside - allowed}"
    top = {n.split(".")[0] for n in imported(path, ast.parse(path.read_text()).body)}
    assert not top & {"pyarrow", "av"}, f"{path.name} must import optional packages where it uses them"
    if path.parent.name == "nanoladder":
        assert not any(n.split(".")[0] == "data" for n in names), "the package knows no data set"
        if path.stem in LEAVES:
            assert not any(n.startswith("nanoladder") for n in names), f"{path.name} is a leaf"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: s[-1])
def test_help_and_unknown_flags(script):
    asked = [
        subprocess.Popen([sys.executable, *script, flag], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                         text=True)
        for flag in ("--help", "--no-such-flag")
    ]  # fmt: skip
    (shown, _), (_, refused) = (process.communicate() for process in asked)
    assert [process.returncode for process in asked] == [0, 2]
    assert "--help" in shown and "default" in shown
    assert "unrecognized arguments: --no-such-flag" in refused
