"""report.html: what a run did, on one page that needs no network and no other file, under 5 MB.

    write_report("runs/stage2")      # -> runs/stage2/report.html

All of it comes from the run folder: settings and machine (run.json), tables (scores.json), curves
(metrics.jsonl, also of the runs that led to this one), answers with pictures (predictions.jsonl),
attention maps (attention.jsonl), answers that GRPO sampled (completions.jsonl). A section whose
file does not exist is left out.
"""

import base64
import io
import json
import re
from collections import defaultdict
from html import escape
from math import inf
from pathlib import Path

from PIL import Image, ImageColor

from nanoladder.checkpoint import BASE
from nanoladder.command import UserError
from nanoladder.files import read_json, read_log
from nanoladder.photos import ImageError, load_image
from nanoladder.pictures import COLOURS, boxes_in_view
from nanoladder.process import run_script
from nanoladder.run_folder import run_settings
from nanoladder.tables import HEADINGS, overview, percent, tables

PICTURE_BYTES = 4_000_000  # of all pictures in base64; the page stays below 5 MB
GALLERY = 32  # answers shown, at most
FRAMES = 8  # pictures shown of an answer about more
POINTS = 40  # of a curve, each a mean over neighbouring steps, because single steps are noisy

HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><style>
:root { color-scheme: light dark; } .wide { overflow-x: auto; } .quiet { opacity: .7; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 0 auto; padding: 1rem; }
.tables { display: flex; flex-wrap: wrap; gap: 0 3rem; } .tables > div { max-width: 100%; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .15rem .6rem; text-align: right; border-bottom: 1px solid #8884; }
td { white-space: nowrap; } th:first-child, td:first-child { text-align: left; }
.text td { text-align: left; white-space: normal; overflow-wrap: anywhere; vertical-align: top; }
.cards { display: grid; gap: 1rem; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 17rem), 1fr)); }
.card { border: 1px solid #8886; padding: .6rem; min-width: 0; font-size: .85rem; }
.card p { margin: .3rem 0; white-space: pre-wrap; overflow-wrap: anywhere; }
.card svg { width: 100%; height: auto; display: block; } .frames img { width: 24%; }
svg text { fill: currentColor; font-size: 11px; } polyline { fill: none; stroke-width: 1.5; }
rect { fill: none; vector-effect: non-scaling-stroke; }
</style>
"""
FILL = 'width="100%" height="100%" preserveAspectRatio="none"'  # of an <image> in its <svg>


def write_report(run_folder, scores=None):
    """Write run_folder/report.html, and return its path. scores: what scores.json will hold."""
    folder = Path(run_folder)
    about, kept = read_json(folder / "run.json"), folder / "scores.json"
    scores = scores or (read_json(kept) if kept.exists() else {})
    sections = [f"<p>{escape(opening(about, scores))}</p>", score_section(scores)]
    sections += map(curve_section, earlier_runs(folder))
    sections += [gallery(folder), sampled_section(folder), settings_section(about)]
    title, body = escape(f"nanoladder: {folder}"), "\n".join(filter(None, sections))
    page = f"{HEAD}<title>{title}</title></head><body>\n<h1>{title}</h1>\n{body}\n</body></html>\n"
    (folder / "report.html").write_text(page, encoding="utf-8", errors="backslashreplace")
    return folder / "report.html"


def try_report(run_folder, say, scores=None):
    """Write the page and tell where it is. No fault of the page may end the run it is about."""
    try:
        say(f"done: {write_report(run_folder, scores)}")
    except Exception as error:
        again = f"python -m nanoladder.report {run_folder}"
        say(f"done, but report.html failed ({type(error).__name__}: {error}); {again} tries again")


def main(argv):
    if len(argv) != 1 or not Path(argv[0]).is_dir():
        raise UserError("name a run folder: python -m nanoladder.report runs/stage1")
    print(write_report(argv[0]))


def earlier_runs(folder):
    """The run folders that led to this one, the first stage first, as each run.json names them."""
    found = []
    while folder not in found and (folder / "run.json").exists():
        found.insert(0, folder)
        settings = run_settings(folder)
        start = Path(settings.get("model") or settings.get("init") or "scratch")
        start = start.parent if start.name == "checkpoint" else start
        folder = BASE if str(start) == "base" else start
    return found


def opening(about, scores):
    """What was trained, from what, how long, its main score, and what to look at."""
    s, minutes = about["settings"], about.get("minutes", {}).get("train")
    start, stage = s.get("model") or s.get("init"), s.get("stage")
    if "init" not in s:
        return f"eval.py scored {start} on held-out rows. {headline(scores)}"
    names = {start: start, stage: f"stage {stage}", "cold": "the cold start"}
    names |= {"base": "the shipped base", "scratch": "random weights"}
    names |= {start: names["base"]} if Path(start).resolve() == BASE.resolve() else {}
    what = f"in {names[stage]}" if stage else f"by GRPO on {s.get('task')} questions"
    what += " with blank pictures" if s.get("blank_images") else ""
    run = "This run" if minutes is None else f"In {minutes:.1f} minutes this run"
    return f"{run} trained a model {what}, starting from {names[start]}. {headline(scores)}"


def headline(scores):
    """The main score of scores.json, from a table's row all or average, and what to look at."""
    found, overall = tables(scores), scores.get("overall")
    if not found:
        return "It has no scores, so look at the curves."
    wanted = "mean IoU" if overall is None else "shuffled"
    table = next((t for t in found if wanted in t.columns), found[0])
    rows = {name: score for name, score, *_ in table.rows}
    score = f"{table.columns[1]} ({table.title}) is {rows.get('all') or rows.get('average')}"
    if overall is not None:
        score = f"mean over the spatial benchmarks is {percent(overall)} %"
    guesses = [f"“{c}”" for c in table.columns if c in ("constant box", "constant", "shuffled")]
    beside = " and ".join(guesses) or "published scores"
    look = "Then look at the held-out answers, which are shown with their pictures."
    return f"Its {score}. Compare it with {beside}. {look}"


# ---------------------------------------------------------------- tables, settings, curves


def html_table(columns, rows, kind=""):
    """A table whose cells are escaped here, all of them."""
    head = "".join(f"<th>{escape(str(cell))}</th>" for cell in columns)
    lines = ("".join(f"<td>{escape(str(cell))}</td>" for cell in row) for row in rows)
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="wide"><table class="{kind}"><tr>{head}</tr>\n{body}</table></div>'


def score_section(scores):
    found = overview(scores) + tables(scores)
    parts = (f"<div><h3>{escape(t.title)}</h3>{html_table(t.columns, t.rows)}</div>" for t in found)
    names = "\n".join(c for t in found for c in (t.title, *t.columns, *(row[0] for row in t.rows)))
    found_in = (name for name in HEADINGS if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", names))
    known = (f"<b>{escape(name)}</b>: {HEADINGS[name]}." for name in found_in)
    notes = f'<p class="quiet">{"<br>".join(known)}</p>'
    return f'<h2>Scores</h2><div class="tables">{"".join(parts)}</div>{notes}' if found else ""


def settings_section(about):
    rows = [*about["settings"].items(), *about.get("environment", {}).items()]
    rows += [(k, json.dumps(v)) for k, v in about.items() if k not in ("settings", "environment")]
    return "<h2>Settings</h2>" + html_table(("name", "value"), rows, "text")


# The panel of each number of metrics.jsonl that is drawn, and what the panels show.
PANELS = {"loss": "loss", "auxiliary_loss": "auxiliary loss"}
PANELS |= dict.fromkeys(("reward", "accuracy", "format", "idle"), "reward")
PANELS |= {"kl": "KL", "entropy": "entropy", "length": "length"}
SHOWN = {
    "loss": "Cross-entropy of the answers' tokens.",
    "auxiliary loss": "What the recipe adds to the loss, such as stage 0's dense loss.",
    "reward": "Of sampled answers; it is the sum of accuracy and format. Idle is the share of "
    "prompts whose answers all got the same reward, so that they teach nothing.",
    "KL": "How far the model has moved from the reference: an estimate of the KL divergence.",
    "entropy": "Of the next token's distribution, in nats. At 0 all answers to a prompt are equal.",
    "length": "Tokens of a sampled answer.",
    "validation": "Greedy answers to a few validation rows: mean IoU of boxes, else accuracy.",
}


def curve_section(folder):
    """The curves of one run, without values that are not finite, and curves that are always 0."""
    panels = defaultdict(lambda: defaultdict(list))
    for m in read_log(folder / "metrics.jsonl", skip=True):
        drawn = [(PANELS[name], name, m.get(name)) for name in PANELS]
        for kind, s in m.get("val", {}).items():
            score = next((s[name] for name in ("iou", "avg", "accuracy") if name in s), None)
            drawn.append(("validation", kind, score))
        for title, name, value in drawn:
            if all(isinstance(v, (int, float)) and abs(v) < inf for v in (m.get("step"), value)):
                panels[title][name].append((m["step"], value))
    charts = ""
    for title, panel in panels.items():
        series = {k: p for k, p in panel.items() if len(p) > 1 and any(value for _, value in p)}
        charts += chart(title, series) if series else ""
    shown = f'<h2>Curves of {escape(folder.name)}</h2><div class="cards">{charts}</div>'
    return shown if charts else ""


def chart(title, series):
    """An SVG panel of lines {name: [(x, y), ...]}; each point is a mean of neighbouring ones."""
    series = {name: thinned(points) for name, points in series.items()}
    xs, ys = zip(*(point for points in series.values() for point in points))
    # A loss starts far above where it ends, so its first steps may lie outside the panel.
    low, last, high = min(0, *ys), max(xs), min(max(ys), 1.2 * sorted(ys)[int(0.98 * len(ys))])
    high = high if high > low else low + 1

    def place(x, y):  # in a panel of 340 x 190
        return 42 + 290 * x / last, 166 - 158 * (min(y, high) - low) / (high - low)

    parts, legend = [], []
    for k in range(5):
        value, y = low + (high - low) * k / 4, 166 - 158 * k / 4
        parts.append(f'<path d="M42 {y}H332" stroke="#8884"/>')
        label = f"{value:.{4 if high > 99 else 2}g}"
        parts.append(f'<text x="38" y="{y + 4}" text-anchor="end">{label}</text>')
    parts.append(f'<text x="332" y="184" text-anchor="end">{last} steps</text>')
    for colour, (name, points) in zip(COLOURS, series.items()):
        line = " ".join("{:.1f},{:.1f}".format(*place(*point)) for point in points)
        parts.append(f'<polyline points="{line}" stroke="{colour}"/>')
        legend.append(f'<span style="color:{colour}">&#9632;</span>&nbsp;{escape(name)}')
    drawn = f'<svg viewBox="0 0 340 190" role="img">{"".join(parts)}</svg>'
    drawn += " &nbsp; ".join(legend) + f'<p class="quiet">{SHOWN[title]}</p>'
    return f'<div class="card"><b>{escape(title)}</b>{drawn}</div>'


def thinned(points):
    """At most POINTS points, each the last x and the mean y of neighbours."""
    step = -(-len(points) // POINTS)
    groups = (points[i : i + step] for i in range(0, len(points), step))
    return [(group[-1][0], sum(y for _, y in group) / len(group)) for group in groups]


# ---------------------------------------------------------------- answers


def gallery(folder):
    """Cards of answers of every question type and split in turn, whatever their scores."""
    groups = defaultdict(list)
    for p in read_log(folder / "predictions.jsonl"):
        groups[p["split"], p["question_type"], len(p["images"])].append(p)
    if not groups:
        return ""
    maps = {key(m): m["attention"] for m in read_log(folder / "attention.jsonl")}
    rounds = -(-GALLERY // len(groups))
    picks = [evenly(group, rounds) for group in groups.values()]
    chosen = [group[n] for n in range(rounds) for group in picks if n < len(group)]
    cards, left = [], PICTURE_BYTES
    for number, p in enumerate(chosen[:GALLERY]):
        side = 320 if len(p["images"]) == 1 else 160
        pictures = [jpeg(path, side) for path in evenly(p["images"], FRAMES)]
        left -= sum(map(len, pictures))
        if left < 0:
            break
        cards.append(card(p, pictures, maps.get(key(p)), number))
    note = "White boxes are true, coloured ones predicted. Rows are not chosen by their scores."
    return f'<h2>Held-out answers</h2>{note}<div class="cards">{"".join(cards)}</div>'


def key(record):
    return record["split"], record["question_id"], record["prompt"], record["images"][0]


def evenly(items, most):
    return [items[len(items) * n // most] for n in range(most)] if len(items) > most else items


def jpeg(path, side):
    """A data: link that holds the picture, at most `side` pixels; "" where its file is gone."""
    try:
        image = load_image(path)
    except ImageError:
        return ""
    image.thumbnail((side, side))
    return link_to(image, "jpeg", quality=85)


def link_to(image, kind, **options):
    stored = io.BytesIO()
    image.save(stored, kind, **options)
    return f"data:image/{kind};base64," + base64.b64encode(stored.getvalue()).decode()


def card(p, pictures, attention, number):
    """A prediction as HTML: pictures, question, answer, what was read in it, truth, scores."""
    if not all(pictures):
        shown = f'<p class="quiet">no picture {escape(p["images"][0])}</p>'
    elif len(pictures) > 1:
        shown = "".join(f'<img src="{link}" alt="">' for link in pictures)
        shown = f'<div class="frames">{shown}</div>'
    else:
        shown = boxed(p, pictures[0], number)
        shown += attention_map(p, attention, number) if attention else ""
    parts = r"\s*(?:<think>\s*(.*?)\s*(?:</think>|\Z))?\s*(.*)"
    rationale, answer = re.match(parts, p["answer"], re.DOTALL).groups("")
    read, truth = (v if isinstance(v, str) else json.dumps(v) for v in (p["parsed"], p["truth"]))
    scores = ", ".join(f"{name} {value:.2f}" for name, value in p["scores"].items())
    said = f'<p class="quiet">{escape(rationale)}</p>' if rationale else ""
    what = escape(f"{p['question_type']}, {p['split']}")
    return (
        f'<div class="card">{shown}<p class="quiet">{what}</p>'
        f"<p>{escape(p['prompt'])}</p>{said}<p><b>{escape(answer) or '(nothing)'}</b></p>"
        f"<p>read as: {escape(read)}<br>true: {escape(truth)}<br>{escape(scores)}</p></div>\n"
    )


def boxed(p, link, number):
    """The picture with true and predicted boxes, in pixels of the picture as the model saw it."""
    width, height = p["input_size"]
    parts = [f'<image id="i{number}" href="{link}" {FILL}/>']
    truth, said = (p["truth"], p["parsed"] or []) if p["form"] == "boxes" else ([], [])
    for item in truth:
        parts += [rectangle(item["bbox_2d"], "#000", 4), rectangle(item["bbox_2d"], "#fff", 2)]
    for colour, (label, box) in zip(COLOURS, boxes_in_view(said, p["input_size"])):
        place = f'x="{box[0] + height / 60:.1f}" y="{box[1] + height / 16:.1f}"'
        style = f"fill:{colour};font-size:{height / 18:.1f}px"
        parts.append(rectangle(box, colour, 2))
        parts.append(f'<text {place} style="{style}">{escape(label)}</text>')
    return f'<svg viewBox="0 0 {width} {height}" role="img">{"".join(parts)}</svg>'


def rectangle(box, colour, thick):
    x1, y1, x2, y2 = box
    place = f'x="{x1:g}" y="{y1:g}" width="{x2 - x1:g}" height="{y2 - y1:g}"'
    return f'<rect {place} stroke="{colour}" stroke-width="{thick}"/>'


def attention_map(p, attention, number):
    """The same picture again, red where an image token got much attention."""
    width, height = p["input_size"]
    red, highest = ImageColor.getrgb(COLOURS[0]), max(map(max, attention))
    heat = Image.new("RGBA", (len(attention[0]), len(attention)))  # one pixel for each image token
    heat.putdata([(*red, round(200 * weight / highest)) for row in attention for weight in row])
    link, style = link_to(heat, "png"), 'style="image-rendering:pixelated"'
    parts = f'<use href="#i{number}"/><image href="{link}" {style} {FILL}/>'
    shown = f'<svg viewBox="0 0 {width} {height}" role="img">{parts}</svg>'
    return f'<p class="quiet">Attention while answering; red is high:</p>{shown}'


def sampled_section(folder):
    """The last answers that GRPO kept of what it sampled, with the parts of their reward."""
    kept = read_log(folder / "completions.jsonl", skip=True)[-16:]
    if not kept:
        return ""
    first, names = ("step", "prompt", "answer"), list(kept[-1])
    parts = names[names.index("answer") + 1 :]
    rows = [(*(c[n] for n in first), *(f"{c[n]:.2f}" for n in parts)) for c in kept]
    note = f"The last of the sampled answers. The parts of their reward: {', '.join(parts)}."
    return f"<h2>Sampled while training</h2>{note}{html_table((*first, *parts), rows, 'text')}"


if __name__ == "__main__":
    run_script(main)
