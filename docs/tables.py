"""Write the measured tables of README.md and docs/*.md anew, from the scores that ship:  python docs/tables.py

A table stands between "<!-- KIND FOLDER ... -->" and "<!-- end -->", and is made by the function of that name from
scores.json and run.json of the runs in these folders. A test holds the pages to what this makes, so a table can't say
what no run has measured.
"""

import re
from pathlib import Path

import numpy as np

from nanoladder.common import read_json
from nanoladder.evaluate import BENCHMARKS
from nanoladder.ladder import table
from nanoladder.tables import percent

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))
MARKED = re.compile(r"(<!-- (\w+) (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)
STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}  # two-sided 95 %, by degrees of freedom
SPATIAL = tuple(BENCHMARKS.values())
BESIDE = {"constant": "best constant", "shuffled": "shuffled images", "blind": "blind"}  # what not looking earns
# Run: what it leaves out, and the points that this costs the paper.
DROPPED = {"rl": ("nothing", 0.0), "skip-1": ("rung 1", -1.8), "skip-2": ("rung 2", -9.4), "cold": ("GRPO", -2.1),
           "no-think": ("thinking", -0.8), "video": ("single images and views", -16.4)}  # fmt: skip


def markdown(columns, rows):
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(str(cell) for cell in line)} |\n" for line in lines)


def seeing(scores):
    """What the base was asked: share of answers that are right to the letter."""
    test, ood = scores["seeing"]["test"], scores["seeing"]["ood"]
    named = {kind: (entry, ood["types"].get(kind, {})) for kind, entry in test["types"].items()}
    named[f"**all** ({test['n']} questions)"] = test, ood
    rows = [(name, percent(own["accuracy"]), percent(own["constant"]), percent(beyond.get("accuracy")))
            for name, (own, beyond) in named.items()]  # fmt: skip
    return markdown(("% of answers exactly right", "test", "most frequent answer", "ood"), rows)


def localization(scores):
    """Boxes, by split and level."""
    parts = ("iou", "acc50", "label_f1", "valid_json", "constant_iou")
    rows = []
    for split, entry in scores["localization"].items():
        named = {f"**{split}**": entry} | {f"{split}, level {k}": level for k, level in entry["levels"].items()}
        for name, own in named.items():
            low, high = own["interval"]
            rows.append((name, f"{own['iou']:.3f}", f"{low:.3f}-{high:.3f}", *(f"{own[p]:.3f}" for p in parts[1:]),
                         own["n"]))  # fmt: skip
    return markdown(("boxes", "mean IoU", "95 %", "IoU >= 0.5", "label F1", "valid JSON", "constant box", "n"), rows)


def runs(*scores):
    """Boxes of several runs, on all levels together and on each."""
    rows = []
    for one in scores:
        test, ood, run = one["localization"]["test"], one["localization"]["ood"], one["run"]
        low, high = test["interval"]
        rows.append((run["settings"]["init"], run["settings"]["steps"], round(run["minutes"]["train"]),
                     f"**{test['iou']:.3f}**", f"{low:.3f}-{high:.3f}",
                     *(f"{level['iou']:.3f}" for level in test["levels"].values()), f"{ood['iou']:.3f}"))  # fmt: skip
    levels = [f"level {k}" for k in scores[0]["localization"]["test"]["levels"]]
    return markdown(("from", "steps", "minutes", "mean IoU", "95 %", *levels, "ood"), rows)


def spatial(scores, blind=None):
    """Every spatial benchmark, beside what not looking earns; blind: scores of a model trained without pictures."""
    rows, beside = [], ("constant", "shuffled", *(["blind"] if blind else []))
    for twin in ("", "-ood"):
        own = {name + twin: scores[name + twin] for name in SPATIAL}
        if blind:
            own = {name: entry | {"blind": blind[name]["avg"]} for name, entry in own.items()}
        low_high = scores["intervals"]["overall" + twin]
        own[f"**overall{twin}**"] = {"avg": scores["overall" + twin], "interval": low_high} | {
            name: sum(entry[name] for entry in own.values()) / len(own) for name in beside
        }
        for name, entry in own.items():
            cells = [percent(entry.get(key)) for key in ("nq", "mcq", "avg", *beside)]
            rows.append((name, *cells[:3], "-".join(map(percent, entry["interval"])), *cells[3:]))
    return markdown(("%", "NQ", "MCQ", "average", "95 %", *(BESIDE[name] for name in beside)), rows)


def types(scores, blind=None):
    """Every type of question: the score, and in brackets what not looking earns."""
    found, beside = {}, ("constant", "shuffled", *(["blind"] if blind else []))
    for name in SPATIAL:
        for kind, entry in scores[name]["types"].items():
            entry = entry | ({"blind": blind[name]["types"][kind]["accuracy"]} if blind else {})
            cell = f"{percent(entry['accuracy'])} ({', '.join(percent(entry[key]) for key in beside)})"
            found.setdefault(kind, {})[name] = cell
    rows = [(kind, *(cells.get(name, "") for name in SPATIAL)) for kind, cells in sorted(found.items())]
    return markdown((f"score ({', '.join(BESIDE[key] for key in beside)})", *SPATIAL), rows)


def ladder(*scores):
    """Rungs, one below the other."""
    found = table({one["name"]: one for one in scores})
    return markdown(found.columns, found.rows)


def seeds(*scores):
    """Runs that differ in their seed alone, those of one name in a row: each overall score, the mean of all and what a
    mean of so few may be, by Student's t."""
    named = {}
    for one in scores:
        named.setdefault(one["name"], []).append(one)
    rows, count = [], len(scores) // len(named)
    for name, own in named.items():
        overall = np.array([one["overall"] for one in own])
        reach = STUDENT[count - 1] * overall.std(ddof=1) / count**0.5
        means = [np.mean([one["overall-ood"] for one in own]),
                 np.mean([one["localization"]["test"]["iou"] for one in own])]  # fmt: skip
        interval = "-".join(percent(overall.mean() + side * reach) for side in (-1, 1))
        rows.append((name, *map(percent, overall), f"**{percent(overall.mean())}**", interval, percent(means[0]),
                     f"{means[1]:.3f}"))  # fmt: skip
    return markdown(("overall", *(f"seed {k}" for k in range(count)), "mean", "95 %", "out of domain", "IoU"), rows)


def answers(*scores):
    """Runs asked in several ways: every spatial benchmark, and of those that think the share of valid thoughts."""
    rows = []
    for one in scores:
        formats = [one[name]["format"] for name in SPATIAL if "format" in one[name]]
        rows.append((one["name"].replace("-", " "), *(percent(one[name]["avg"]) for name in SPATIAL),
                     f"**{percent(one['overall'])}**", "-".join(map(percent, one["intervals"]["overall"])),
                     percent(np.mean(formats)) if formats else ""))  # fmt: skip
    return markdown(("%", *SPATIAL, "overall", "95 %", "valid form"), rows)


def dropped(whole, *without):
    """What is lost where a part of the ladder is left out, beside what the paper lost."""
    rows = []
    for one in (whole, *without):
        part, paper = DROPPED[one["name"]]
        lost = [f"{100 * (one[name] - whole[name]):+.1f}" for name in ("overall", "overall-ood")]
        low_high = "-".join(map(percent, one["intervals"]["overall"]))
        rows.append((part, percent(one["overall"]), low_high, lost[0], f"{paper:+.1f}", lost[1]))
    return markdown(("left out", "overall", "95 %", "points", "points in the paper", "points out of domain"), rows)


def rewritten(text):
    def anew(match):
        folders = [ROOT / name for name in match[3].split()]
        scores = [read_json(folder / "scores.json") | {"run": read_json(folder / "run.json"), "name": folder.name}
                  for folder in folders]  # fmt: skip
        return match[1] + globals()[match[2]](*scores) + match[4]

    return MARKED.sub(anew, text)


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(rewritten(page.read_text()))
