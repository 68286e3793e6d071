"""What the README and the pages in docs tell: commands are accepted, exercises have the answers given, files exist."""

import contextlib
import importlib
import io
import re
import shlex

import pytest
from conftest import ROOT

from data.convert import Settings as ConverterSettings
from docs.tables import PAGES, rewritten
from nanoladder.common import parse

TEXTS = {page: page.read_text() for page in PAGES}
TEXT, TOGETHER = TEXTS[ROOT / "README.md"], "\n".join(TEXTS.values())
EXERCISES = re.findall(r"```python\n(.*?)```\n\n`(.*?)`\n", TEXT, re.DOTALL)
START, FLAGS = r"(?:python|torchrun --nproc_per_node 2) ", r"((?: [\w,=/-][\w.,=/-]*)*)"
COMMANDS = sorted(set(re.findall(START + r"(train\.py|rl\.py|eval\.py|-m data\.[\w.]+)" + FLAGS, TOGETHER)))


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
    assert TOGETHER.count("<!-- end -->") >= 10
    assert [page.name for page, text in TEXTS.items() if rewritten(text) != text] == []


def test_what_is_named_is_there():
    files = [ROOT / name for name in re.findall(r"^\| ([\w/]+\.py) \|", TEXT, re.MULTILINE)]
    links = [(page, *re.fullmatch(r"([^#]*)#?(.*)", link).groups())
             for page, text in TEXTS.items() for link in re.findall(r"\]\(((?!http)[^)]+)\)", text)]  # fmt: skip
    files += [page.parent / name for page, name, _ in links]
    assert len(files) > 30
    assert [path for path in files if not path.exists()] == []
    for page, name, anchor in links:
        headings = re.findall(r"^#+ (.*)", (page.parent / name).read_text(), re.MULTILINE) if anchor else []
        assert not anchor or anchor in [re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings]
