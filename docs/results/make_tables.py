"""Write the tables and excerpts in README.md and docs/*.md:  python docs/results/make_tables.py

A generated block stands between "<!-- KIND ARGUMENTS -->" and "<!-- end -->", and the function of
that name below makes it: from scores.json and run.json of runs in docs/results, or from the source.
A test fails when a block is stale, so a page cannot tell what no run has measured.
"""

import ast
import re
import textwrap
from pathlib import Path
from statistics import mean

from nanoladder.files import read_json
from nanoladder.ladder import ladder_table
from nanoladder.tables import percent

ROOT = Path(__file__).parent.parent.parent
PAGES = ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))
MARKED = re.compile(r"(<!-- (\w+) (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)


def read_run(folder):
    """scores.json of a run's folder, with its "run" (run.json) and its "name"."""
    folder = ROOT / folder
    scores, run = read_json(folder / "scores.json"), read_json(folder / "run.json")
    return scores | {"run": run, "name": folder.name}


def markdown(columns, rows):
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(str(cell) for cell in line)} |\n" for line in lines)


# ---------------------------------------------------------------- tables of runs


ASKED = {  # an example of each type of the base's questions (data/rooms/seeing.py)
    "colour": "What colour is the bed?",
    "count": "How many of these are in view: bed, lamp?",
    "describe": "Tell the square and depth of the bed and the lamp.",
    "first": "Tell the first picture of the bed.",
    "list": "What is in view, from left to right?",
    "next": "What is next to the bed on the left?",
    "order": "Which is closer, the bed or the lamp?",
    "pick": "Which of these is in view?",
    "place": "In which part of the picture is the bed?",
    "point": "What is at (12,40)?",
    "side": "On which side of the bed is (12,40)?",
    "which": "Which of (12,40) and (60,20) is on the bed?",
}


def seeing(folder):
    """The base's questions: the share of answers that are right to the letter."""
    scores = read_run(folder)["seeing"]
    test, ood = scores["test"], scores["ood"]
    named = {
        f"{kind}: {ASKED[kind]}": (own, ood["types"].get(kind, {}))
        for kind, own in test["types"].items()
    }
    named[f"**all** ({test['n']} questions)"] = test, ood
    rows = [
        (name, percent(own["accuracy"]), percent(own["constant"]), percent(other.get("accuracy")))
        for name, (own, other) in named.items()
    ]
    return markdown(("% of answers exactly right", "test", "most frequent answer", "ood"), rows)


def runs(*folders):
    """Boxes of several runs, on all levels together and on each."""
    rows, levels = [], []
    for folder in folders:
        scores = read_run(folder)
        test, ood = scores["localization"]["test"], scores["localization"]["ood"]
        settings, minutes = scores["run"]["settings"], scores["run"]["minutes"]["train"]
        low, high = test["interval"]
        levels = [f"level {level}" for level in test["levels"]]
        ious = [f"{level['iou']:.3f}" for level in test["levels"].values()]
        first = (settings["init"], settings["steps"], round(minutes), f"**{test['iou']:.3f}**")
        rows.append((*first, f"{low:.3f}-{high:.3f}", *ious, f"{ood['iou']:.3f}"))
    return markdown(("from", "steps", "minutes", "mean IoU", "95 %", *levels, "ood"), rows)


def ladder(*folders):
    """The stages, one below the other: every benchmark, their mean, and boxes."""
    table = ladder_table({run["name"]: run for run in map(read_run, folders)})
    return markdown(table.columns, table.rows)


def seeds(path, *stages):
    """The stages' scores, means over whole ladders of several seeds (make_ladder.py)."""
    rows, found = [], read_json(ROOT / path)
    for stage in stages:
        scores = found[stage]
        nq, mcq, average, *beside = (
            percent(mean(scores[name])) for name in ("nq", "mcq", "overall", "constant", "shuffled")
        )
        each = ", ".join(map(percent, scores["overall"]))
        iou = f"{mean(scores['iou']):.3f}" if "iou" in scores else ""
        rows.append((stage, nq, mcq, f"**{average}**", each, *beside, iou))
    beside = ("best constant", "shuffled pictures", "IoU")
    return markdown(("%", "NQ", "MCQ", "overall", "each seed", *beside), rows)


TAUGHT = {  # {stage: (command, what it teaches, minutes of training)}
    "base": ("", "what all starts from", ""),
    "stage1": ("python train.py --stage 1", "perception: boxes of the objects in a question", 8),
    "stage2": ("python train.py --stage 2", "understanding: seven types of spatial questions", 16),
    "cold": (
        "python train.py --stage cold",
        "cold start: a rationale in tags before each answer",
        17,
    ),
    "rl": ("python rl.py", "GRPO: answers with more reward become likelier", 26),
}


def stages(path):
    """What each stage is, and its scores over all seeds."""
    rows, found = [], read_json(ROOT / path)
    for stage, (command, taught, minutes) in TAUGHT.items():
        names = ("nq", "mcq", "overall", "shuffled", "constant")
        nq, mcq, average, *beside = (percent(mean(found[stage][name])) for name in names)
        named = f"`{command}`" if command else stage
        iou = f"{mean(found[stage]['iou']):.2f}"
        rows.append((named, taught, minutes, f"**{average}**", nq, mcq, *beside, iou))
    beside = ("shuffled pictures", "best constant", "IoU")
    return markdown(
        ("command", "what it teaches", "minutes", "overall", "NQ", "MCQ", *beside), rows
    )


def gains(path, stage):
    """What a stage adds to the one before with each seed, row by row, in points."""
    found = read_json(ROOT / path)[stage]["gain"]
    rows = [
        (n, percent(mean), f"{percent(a)}-{percent(b)}") for n, (mean, a, b) in enumerate(found)
    ]
    return markdown(("seed", "gain", "95 %"), rows)


def controls(path, *runs):
    """Runs of one seed that tell what a gain is worth: their scores, and their paired gains."""
    rows, found = [], read_json(ROOT / path)
    for run in runs:
        scores = found[run]
        cells = (percent(scores[name][0]) for name in ("nq", "mcq", "overall", "shuffled"))
        gained = "", "", ""
        if "gain" in scores:
            gain, low, high = map(percent, scores["gain"][0])
            gained = scores["over"][0], gain, f"{low} to {high}"
        rows.append((run, *cells, *gained))
    columns = ("%", "NQ", "MCQ", "overall", "shuffled pictures", "gain over", "gain", "95 %")
    return markdown(columns, rows)


def ood(path, *stages):
    """Scores out of domain, means over the seeds, of each benchmark's 100 rows."""
    rows, found = [], read_json(ROOT / path)
    for stage in stages:
        names = ("ood", "ood-constant", "ood-shuffled")
        rows.append((stage, *(percent(mean(found[stage][name])) for name in names)))
    return markdown(("%", "overall-ood", "best constant", "shuffled pictures"), rows)


def by_type(path, *stages):
    """Every type of question: its rows in all benchmarks, and their mean score in each stage.

    In brackets the same with shuffled pictures.
    """
    found, lines = read_json(ROOT / path), []
    for kind, entry in found[stages[0]]["types"].items():
        cells = (found[stage]["types"][kind] for stage in stages)
        shown = (f"{percent(mean(c['accuracy']))} ({percent(mean(c['shuffled']))})" for c in cells)
        lines.append((kind, entry["rows"][0], *shown))
    return markdown(("% (shuffled pictures)", "rows", *stages), lines)


def ratios(path):
    """Speeds beside other libraries, as tests/perf/run_all.py found them."""
    rows = [
        (r["what"], r["peer"], f"**{r['ratio']:.1f}**", f"{r['lowest']:.1f}-{r['highest']:.1f}")
        for r in read_json(ROOT / path)["results"]
    ]
    return markdown(("what", "beside", "ratio", "of single turns"), rows)


def shares(path):
    """Where the time goes, as tests/perf/breakdown.py found it: shares of the profiled time."""
    rows = []
    for r in read_json(ROOT / path)["results"]:
        python = 1 - r["products"] - r["others"]
        parts = (percent(share) for share in (r["products"], r["others"], python))
        rows.append((r["what"], f"{r['seconds']:.2f}", *parts, f"{r['operations'] // 1000},000"))
    columns = ("work", "seconds", "matrix products, %", "other operations, %", "Python, %")
    return markdown((*columns, "operations"), rows)


# ---------------------------------------------------------------- excerpts of the source


def row(path, name, *parts):
    """A row of data (make_rows.py): its picture, and its prompt and answer, or only those parts."""
    told = read_json(ROOT / path)[name]
    texts = [line for part in parts or ("prompt", "answer") for line in told[part].split("\n")]
    # Lists of boxes have no spaces, so lines may also end between two of their items.
    filled = (textwrap.fill(t.replace("},{", "}, {"), 96, break_on_hyphens=False) for t in texts)
    shown = "\n".join(filled).replace("}, {", "},{")
    return f"![the picture of this row]({told['picture']})\n\n```\n{shown}\n```\n"


def lines(*paths):
    """How many lines each file has, and what its docstring says first."""
    rows, total = [], 0
    for path in paths:
        text = (ROOT / path).read_text(encoding="utf-8")
        count = len(text.splitlines())
        first = ast.get_docstring(ast.parse(text)).split("\n")[0]
        rows.append((f"[{path}]({path})", count, first))
        total += count
    return markdown(("file", "lines", "what it is"), [*rows, ("together", total, "")])


def shown(path):
    """A file as it is."""
    return f"```{Path(path).suffix[1:]}\n{(ROOT / path).read_text(encoding='utf-8').strip()}\n```\n"


def code(path, name):
    """The source of a function or class, at most 20 lines, without its docstring."""
    text = (ROOT / path).read_text(encoding="utf-8")
    node = ast.parse(text)
    for part in name.split("."):
        node = next(n for n in node.body if getattr(n, "name", None) == part)
    first = node.body[0]
    has_doc = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    skip = range(first.lineno, first.end_lineno + 1) if has_doc else ()
    source = text.splitlines()
    shown = [source[n - 1] for n in range(node.lineno, node.end_lineno + 1) if n not in skip]
    indent = len(shown[0]) - len(shown[0].lstrip())
    if len(shown) > 20:
        raise ValueError(f"{path}: {name} has {len(shown)} lines, an excerpt at most 20")
    body = "\n".join(line[indent:] for line in shown)
    return f"```python\n{body}\n```\n"


def refusals(path):
    """The table NAMED of a test, a list of tuples: an input comes first, what it gets last."""
    body = ast.parse((ROOT / path).read_text(encoding="utf-8")).body
    made = (node for node in body if isinstance(node, ast.Assign))
    named = next(node.value for node in made if ast.unparse(node.targets[0]) == "NAMED")
    cells = [[ast.literal_eval(row.elts[i]) for i in (0, -1)] for row in named.elts]
    return markdown(("input", "what it gets"), [(what, f"`{line}`") for what, line in cells])


def rewritten(text):
    """The text of a page with its generated blocks made anew."""
    return MARKED.sub(lambda m: m[1] + globals()[m[2]](*m[3].split()) + m[4], text)


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(rewritten(page.read_text(encoding="utf-8")), encoding="utf-8")
