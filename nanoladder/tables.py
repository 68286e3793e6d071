"""Tables that people read, made from what scores.json holds.

print(as_text(tables(scores) + overview(scores)))      # as SpatialLadder's paper prints them
"""

from typing import NamedTuple

from nanoladder.summaries import macro


class Table(NamedTuple):
    """One table of a report. The first cell of each row is its name; a note explains columns."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    note: str = ""


# Columns beside a benchmark's score, where they were measured: what answers earn without looking
# at the right pictures, and what answers sampled at temperature 1 earn.
BESIDE = ("constant", "shuffled", "blank", "sampled", "consensus")
PARTS = {
    "iou": "mean IoU",
    "acc50": "IoU >= 0.5",
    "label_f1": "label F1",
    "valid_json": "valid JSON",
    "constant_iou": "constant box",
    "accuracy": "accuracy",
    "constant": "constant",
}
READINGS = (
    "score: as nanoladder reads the answers. strict: as SpatialLadder's released evaluation reads "
    "the same answers, so compare this column with its paper."
)


# What the headings of columns and rows mean; a report explains those that occur.
HEADINGS = {
    "average": "the mean over the question types, so that each type counts the same",
    "NQ": "the mean over numeric questions, which are scored by mean relative accuracy (MRA)",
    "MCQ": "the mean over multiple-choice questions, where an answer is right or wrong",
    "right format": "share of answers with one think block and then one answer block",
    "mean IoU": "mean intersection over union of the true and the predicted boxes",
    "IoU >= 0.5": "share of the asked objects whose IoU is at least 0.5",
    "label F1": "F1 score of the object names in the answers",
    "valid JSON": "share of answers that are a list of boxes in valid JSON",
    "accuracy": "the mean score of the answers, between 0 and 1",
    "95 %": "the 95 % confidence interval, from a bootstrap over the rows",
    "constant": "the score of the one answer, or box, that is best on the training rows",
    "shuffled": "the score when each question gets the pictures of another one",
    "blank": "the score of a model that was trained on blank pictures",
    "sampled": "the mean score of answers sampled at temperature 1",
    "consensus": "the score of the sampled answer on which most samples agree",
    "entropy": "semantic entropy of the sampled answers; 0 when all of them mean the same",
    "attention in boxes": "share of the attention on the picture that the asked objects' boxes get",
    "area of boxes": "share of the picture in these boxes, which even attention would give them",
    "level": "difficulty of the picture; a higher level is harder",
    "ood": "rows out of domain, which differ from the training rows",
    "strict": "the score of the same answers as SpatialLadder's released evaluation reads them",
    "cut answers": "number of answers that the limit on new tokens ended (--max-new-tokens)",
    "n": "number of rows",
}


def spatial(scores):
    """The entries of spatial benchmarks, {name: summary}."""
    return {name: s for name, s in scores.items() if isinstance(s, dict) and "avg" in s}


def plain(scores):
    """The entries of all other kinds of rows, {kind: {split: summary}}."""
    return {
        name: entry
        for name, entry in scores.items()
        if isinstance(entry, dict) and ({"test", "ood"} & entry.keys())
    }


def tables(scores):
    """A table for each entry of scores.json."""
    found = []
    for name, entry in scores.items():
        if name in plain(scores):
            found += [plain_table(f"{name}, {split}", summary) for split, summary in entry.items()]
        elif name in spatial(scores):
            found.append(spatial_table(name, entry))
        elif isinstance(entry, dict) and "tasks" in entry:
            found.append(benchmark_table(name, entry))
    return found + extras(scores)


def overview(scores):
    """[the table of all spatial benchmarks together], or [] where none was scored."""
    rows = [
        (name, percent(s["nq"]), percent(s["mcq"]), percent(s["avg"]), percents(s["interval"]))
        for name, s in spatial(scores).items()
    ]
    for name, low_high in scores.get("intervals", {}).items():
        rows.append((name, "", "", percent(scores[name]), percents(low_high)))
    columns = ("", "NQ", "MCQ", "average", "95 %")
    return [Table("spatial benchmarks, %", columns, rows)] if rows else []


def extras(scores):
    """[the table of semantic entropy and attention], or [] where neither was measured."""
    named = {f"{kind}, {split}": s for kind, e in plain(scores).items() for split, s in e.items()}
    rows = []
    for name, entry in {**named, **spatial(scores)}.items():
        entropy, attention = entry.get("semantic_entropy"), entry.get("attention", {})
        if entropy is not None or attention:
            shown = "" if entropy is None else f"{entropy:.3f}"
            shares = (percent(attention.get("inside")), percent(attention.get("area")))
            rows.append((name, shown, *shares))
    columns = ("", "entropy, nats", "attention in boxes, %", "area of boxes, %")
    return [Table("semantic entropy, attention", columns, rows)] if rows else []


def plain_table(title, summary):
    """Boxes by level, or answers by type."""
    shown = [part for part in PARTS if part in summary]
    named = {"all": summary} | {f"level {k}": v for k, v in summary.get("levels", {}).items()}
    rows = []
    for name, s in (named | summary.get("types", {})).items():
        low, high = s["interval"]
        cells = [f"{s[part]:.3f}" for part in shown]
        rows.append((name, *cells, f"{low:.3f}-{high:.3f}", str(s["n"])))
    columns = ("", *(PARTS[part] for part in shown), f"95 % of {PARTS[shown[0]]}", "n")
    return Table(title, columns, rows + cut_row(summary, columns))


def spatial_table(title, summary):
    """Types, NQ, MCQ and average in percent, and beside them the columns of BESIDE."""
    types, beside, rows = summary["types"], [name for name in BESIDE if name in summary], []

    def add(name, score, low_high=(), others=(), n=summary["n"]):
        cells = list(map(percent, others)) or [""] * len(beside)
        rows.append((name, percent(score), percents(low_high), *cells, str(n)))

    for form, key in (("number", "nq"), ("choice", "mcq"), ("text", None), ("motion", None)):
        of_form = {kind: t for kind, t in types.items() if t["form"] == form}
        for kind, t in of_form.items():
            add(kind, t["accuracy"], t["interval"], [t.get(b) for b in beside], t["n"])
        if key and of_form:
            others = [macro(types, b, form) for b in beside]
            n = sum(t["n"] for t in of_form.values())
            add(key.upper(), summary[key], summary[f"{key}_interval"], others, n)
    add("average", summary["avg"], summary["interval"], [macro(types, b) for b in beside])
    add("mean over rows (micro)", summary["micro"])
    if "format" in summary:
        add("right format", summary["format"])
    columns = ("", "score", "95 %", *beside, "n")
    return Table(f"{title}, %", columns, rows + cut_row(summary, columns))


def benchmark_table(title, summary):
    """Tasks of a published benchmark, the parts that its authors tell apart, and its averages."""
    columns, strict, rows = ("", "score", "strict", "95 %", "n"), summary["strict"], []
    for task, t in summary["tasks"].items():
        readings = t["score"], strict["tasks"][task]["score"]
        rows.append((task, *map(percent, readings), "", str(t["n"])))
    parts = [name for name, v in summary.items() if isinstance(v, float) and name != "average"]
    rows += [(name, percent(summary[name]), percent(strict[name]), "", "") for name in parts]
    average = percent(summary["average"]), percent(strict["average"])
    rows.append(("average", *average, percents(summary["interval"]), str(summary["n"])))
    return Table(f"{title}, %", columns, rows + cut_row(summary, columns), READINGS)


def cut_row(summary, columns):
    """[the row that counts answers which the limit on new tokens ended], or [] without any."""
    number = summary.get("cut")
    return [("cut answers", *[""] * (len(columns) - 2), str(number))] if number else []


def percent(value):
    """A share as text, in percent; "" for None."""
    return "" if value is None else f"{100 * value:.1f}"


def percents(low_high):
    """An interval of shares as text, in percent."""
    return "-".join(map(percent, low_high))


def as_text(found):
    """Tables as aligned lines for a terminal."""
    lines = []
    for table in found:
        every = (table.columns, *table.rows)
        widths = [max(len(row[i]) for row in every) for i in range(len(table.columns))]
        lines += ["", table.title, *filter(None, [table.note])]
        for name, *cells in every:
            numbers = "".join(f"  {cell:>{width}}" for cell, width in zip(cells, widths[1:]))
            lines.append(f"  {name:<{widths[0]}}{numbers}".rstrip())
    return "\n".join(lines)
