"""How README.md and docs/*.md are written: short sentences with few numbers.

    python tests/test_prose.py      # prints every sentence that breaks a rule

A sentence has at most 30 words and at most two numbers. Exercises and sums (1 + 1 = 2) may hold
more numbers, because they are there to be worked out. EXCEPTIONS holds the sentences that may
break a rule, each with its reason. Every abbreviation and every heading is in the glossary.
"""

import dataclasses
import importlib
import json
import re
import sys
from pathlib import Path

import pytest

from nanoladder.tables import HEADINGS

ROOT = Path(__file__).parent.parent
GLOSSARY = (ROOT / "docs/glossary.md").read_text(encoding="utf-8").lower()
# Abbreviations and headings that every reader knows, or that name a thing.
COMMON = {"CPU", "GPU", "CUDA", "EPYC", "README", "CSV", "ICLR", "EU", "JSON", "PNG", "TRL"}
PLAIN = """change changed changes chapter command directions earns edit exactly fools happen left
lines machine minutes notice oneself operations points seconds should tags was work""".split()
SCRIPTS = ("train", "rl", "eval", "nanoladder.ask")
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
MOST_WORDS, MOST_NUMBERS = 30, 2
EXCEPTIONS = {  # {beginning of the sentence: why it may break a rule}
}
NOT_PROSE = [  # removed before sentences are counted
    r"```[\s\S]*?```",  # code
    r"<!--[\s\S]*?-->",  # marks of generated blocks
    r"^\s*\|.*$",  # tables
    r"^#.*$",  # headings
    r"^ {4}.*$",  # formulas and shapes
]
# A number that names a thing (stage 1, chapter 3b, arXiv 2510.08531, 3B) is no figure to remember.
NAMES = (
    r"\b(?:stage|chapter|base-|step|seed|level|section|Equation|arXiv|commit|appendix)s? ?[\w.]+"
)
NUMBER = re.compile(r"(?<![\w.])[-+]?\d[\d,]*(?:\.\d+)?(?:\s?%)?(?![\w])")


def sentences(page):
    """Every sentence of a page's prose, with code spans as one word and links as their text."""
    text = page.read_text(encoding="utf-8").partition("\n## Exercises")[0]
    for pattern in NOT_PROSE:
        text = re.sub(pattern, "\n\n", text, flags=re.MULTILINE)
    text = re.sub(r"`[^`]*`", "CODE", text)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    for paragraph in re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.) )", text):
        joined = " ".join(re.sub(r"^\s*(?:[-*]|\d+\.) ", "", paragraph).split())
        joined = re.sub(r"\b(e\.g|i\.e|et al|vs|cf)\.", r"\1", joined).replace("*", "")
        yield from (s for s in re.split(r"(?<=[.!?:])[\"')]?\s+(?=[A-Z\"'(])", joined) if s)


def faults(sentence):
    if any(sentence.startswith(start) for start in EXCEPTIONS):
        return []
    words = [w for w in sentence.split() if re.search(r"\w", w)]
    numbers = NUMBER.findall(re.sub(NAMES, "NAME", sentence))
    found = [f"{len(words)} words"] if len(words) > MOST_WORDS else []
    is_sum = re.search(r"\d.* = ", sentence)
    return found + (
        [f"{len(numbers)} numbers"] if len(numbers) > MOST_NUMBERS and not is_sum else []
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_sentences_are_short_and_hold_few_numbers(page):
    assert [(faults(s), s) for s in sentences(page) if faults(s)] == []


def without_code(text):
    return re.sub(r"```[\s\S]*?```|`[^`]*`|\]\([^)]*\)| {4}.*", "", text)


def helps():
    for name in SCRIPTS:
        module = importlib.import_module(name)
        yield from (f.metadata["help"] for f in dataclasses.fields(module.Settings))


def test_the_glossary_has_every_abbreviation():
    texts = [without_code(page.read_text(encoding="utf-8")) for page in PAGES]
    found = set(re.findall(r"\b[A-Z][A-Z-]+[A-Z]\b", "\n".join([*texts, *helps()])))
    assert not {name for name in found - COMMON if name.lower() not in GLOSSARY}


def test_the_glossary_has_the_headings_of_tables():
    found = set()
    for page in PAGES:
        tables = re.findall(
            r"^\|(.+)\|\n\|[ :-]+\|", page.read_text(encoding="utf-8"), re.MULTILINE
        )
        found |= {heading.strip(" *").lower() for line in tables for heading in line.split("|")}
    words = {word for heading in found for word in re.findall(r"[a-z-]{2,}", heading)}
    assert sorted(word for word in words - {*PLAIN} if word not in GLOSSARY) == []


def test_the_glossary_has_what_reports_and_logs_show():
    """The headings of tables that scripts print, and the names in a run's metrics.jsonl."""
    shown = {
        *HEADINGS,
        "acc50",
        "valid_json",
        "label_f1",
        "constant_iou",
        "avg",
        "micro",
        "lr_factor",
    }
    log = (ROOT / "docs/results/ladder/rl/metrics.jsonl").read_text(encoding="utf-8").splitlines()
    shown |= json.loads(log[0]).keys() - {"step", "seconds", "rollout_seconds", "update_seconds"}
    assert [
        name
        for name in sorted(shown)
        if not re.search(rf"(?<!\w){re.escape(name.lower())}", GLOSSARY)
    ] == []


if __name__ == "__main__":
    for page in PAGES:
        for sentence in sentences(page):
            if found := faults(sentence):
                sys.stdout.write(f"{page.name}: {', '.join(found)}: {sentence}\n")
