"""What the README tells: its commands are accepted, its exercises have the answers it gives, its files exist."""

import contextlib
import importlib
import io
import re
import shlex

import pytest
from conftest import ROOT

from data.convert import Settings as ConverterSettings
from docs.tables import rewritten
from nanoladder.common import parse

TEXT = (ROOT / "README.md").read_text()
EXERCISES = re.findall(r"```python\n(.*?)```\n\n`(.*?)`\n", TEXT, re.DOTALL)
START, FLAGS = r"(?:python|torchrun --nproc_per_node 2) ", r"((?: [\w,=/-][\w.,=/-]*)*)"
COMMANDS = sorted(set(re.findall(START + r"(train\.py|rl\.py|eval\.py|-m data\.[\w.]+)" + FLAGS, TEXT)))


def test_every_chapter_has_an_exercise():
    assert len(EXERCISES) == 4 == TEXT.count("**Exercise.**")


@pytest.mark.parametrize("code, answer", EXERCISES)
def test_exercises_have_the_answers_given(code, answer):
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        exec(code, {})
    assert shown.getvalue().strip() == answer


@pytest.mark.parametrize("script, flags", COMMANDS)
def test_commands_are_accepted(script, flags):
    module = importlib.import_module(script.removeprefix("-m ").removesuffix(".py"))
    settings = getattr(module, "Settings", ConverterSettings)
    assert parse(settings, shlex.split(flags), getattr(module, "presets", None), module.__doc__)


def test_tables_are_made_from_the_scores_that_ship():
    assert TEXT.count("<!-- end -->") >= 4 and rewritten(TEXT) == TEXT


def test_what_is_named_is_there():
    files = re.findall(r"^\| ([\w/]+\.py) \|", TEXT, re.MULTILINE) + re.findall(r"\]\((docs/[^)]+)\)", TEXT)
    assert len(files) > 30
    assert [name for name in files if not (ROOT / name).exists()] == []
