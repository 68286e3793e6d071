"""report.html: what a run did, on one page that needs no network and no other file, under 5 MB.

    write_report("runs/stage2")      # -> runs/stage2/report.html

Read from the run folder alone: settings and machine (run.json), curves (metrics.jsonl, and those of the runs it began
from, as far as they are still there), tables (scores.json), answers with their pictures (predictions.jsonl), where the
model looked (attention.jsonl), answers sampled by GRPO (completions.jsonl). What a run did not leave is left out.
"""

import base64
import io
import json
import math
import re
from html import escape
from pathlib import Path

from PIL import Image, ImageColor

from nanoladder.checkpoint import BASE
from nanoladder.common import read_json, read_jsonl
from nanoladder.pictures import COLOURS, boxes_in_view
from nanoladder.tables import extras, overview, tables

PICTURE_BYTES = 3_000_000  # of all pictures together, before base64 makes 4 bytes of 3: the page stays below 5 MB
GALLERY = 32  # answers shown, at most
FRAMES = 8  # of a row that has more
POINTS = 40  # of a curve: what a single step of GRPO earns is mostly noise

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2rem; } h3 { font-size: 1rem; margin: 1rem 0 .3rem; }
.tables { display: flex; flex-wrap: wrap; gap: 0 3rem; } .tables > div { max-width: 100%; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .15rem .6rem; text-align: right; white-space: nowrap; border-bottom: 1px solid #8884; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
.text td { text-align: left; white-space: normal; overflow-wrap: anywhere; vertical-align: top; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 17rem), 1fr)); gap: 1rem; }
.cards { align-items: start; }
.card { border: 1px solid #8886; border-radius: .4rem; padding: .6rem; min-width: 0; font-size: .85rem; }
.card p { margin: .3rem 0; white-space: pre-wrap; overflow-wrap: anywhere; }
.card svg, .curve svg { width: 100%; height: auto; display: block; }
.frames { display: grid; grid-template-columns: repeat(4, 1fr); gap: 2px; }
.frames img { width: 100%; display: block; }
.quiet { opacity: .7; } .thinking { border-left: 3px solid #8888; padding-left: .5rem; }
@media (max-width: 480px) { th, td { padding: .15rem .3rem; } table { font-size: .78rem; } }
svg text { fill: currentColor; font-size: 11px; }
"""


def write_report(run_folder):
    """Write run_folder/report.html, and return its path."""
    folder = Path(run_folder)
    about = read_json(folder / "run.json")
    sections = [
        _tables(folder),
        *(_curves(rung) for rung in rungs(folder)),
        _gallery(folder),
        _sampled(folder),
        _settings(about),
    ]
    title = escape(f"nanoladder: {folder}")
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n"
        + "\n".join(filter(None, sections))
        + "\n</body></html>\n"
    )
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def rungs(folder):
    """The run folders that led to this one, the first rung first, by what each run.json says it began from."""
    found = []
    while folder not in found and (folder / "run.json").exists():
        found.insert(0, folder)
        settings = read_json(folder / "run.json")["settings"]
        start = Path(settings.get("model") or settings.get("init") or "scratch")
        start = start.parent if start.name == "checkpoint" else start
        folder = BASE if str(start) == "base" else start
    return found


# ---------------------------------------------------------------- tables and settings


def _html_table(columns, rows, kind=""):
    """Cells are escaped here, all of them."""
    head = "".join(f"<th>{escape(str(cell))}</th>" for cell in columns)
    body = "\n".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table class="{kind}"><tr>{head}</tr>\n{body}</table></div>'


def _tables(folder):
    if not (folder / "scores.json").exists():
        return ""
    scores = read_json(folder / "scores.json")
    parts = [f"<div><h3>{escape(table.title)}</h3>{_html_table(table.columns, table.rows)}</div>"
             for table in overview(scores) + extras(scores) + tables(scores)]  # fmt: skip
    note = ('<p class="quiet">95 %: bootstrap over rows. constant: the best constant answer of the training rows. '
            "shuffled: the model with other rows' pictures. blind: a model trained without pictures. "
            "sampled: answers drawn at temperature 1, and consensus the one of them that most agree on. "
            "in boxes: attention on the picture that falls inside the asked objects' boxes; spread evenly it would be "
            "their share of the area.</p>")  # fmt: skip
    return f'<h2>Scores</h2><div class="tables">{"".join(parts)}</div>{note}'


def _settings(about):
    rows = [*about["settings"].items(), *about.get("environment", {}).items()]
    rows += [(k, json.dumps(v)) for k, v in about.items() if k not in ("settings", "environment")]
    return "<h2>Settings</h2>" + _html_table(("", ""), rows, "text")


# ---------------------------------------------------------------- curves

PANELS = {
    "loss": ("loss", "dense_loss"),
    "reward of sampled answers": ("reward", "accuracy", "format", "idle"),
    "KL to the reference": ("kl",),
    "entropy of sampling, nats": ("entropy",),
    "length of answers, tokens": ("length",),
}


def _curves(folder):
    if not (folder / "metrics.jsonl").exists():
        return ""
    metrics = read_jsonl(folder / "metrics.jsonl")
    panels = {title: {name: [(m["step"], m[name]) for m in metrics if name in m] for name in names}
              for title, names in PANELS.items()}  # fmt: skip
    scored = [m for m in metrics if m.get("val")]
    panels["greedy score on validation rows"] = {
        kind: [(m["step"], next(s[k] for k in ("iou", "avg", "accuracy") if k in s))
               for m in scored if (s := m["val"].get(kind))]
        for kind in (scored[0]["val"] if scored else ())
    }  # fmt: skip
    charts = [chart(title, {name: points for name, points in series.items() if len(points) > 1})
              for title, series in panels.items() if any(len(points) > 1 for points in series.values())]  # fmt: skip
    return f'<h2>Curves of {escape(folder.name)}</h2><div class="cards">{"".join(charts)}</div>' if charts else ""


def chart(title, series, width=340, height=190):
    """One panel of lines {name: [(x, y), ...]}, as SVG; long ones are drawn as means of neighbouring points."""
    series = {name: _thinned(points) for name, points in series.items()}
    xs, ys = zip(*(point for points in series.values() for point in points))
    # A loss starts far above where it ends up: its first steps may leave the panel.
    low, last, high = min(0, *ys), max(xs), min(max(ys), 1.2 * sorted(ys)[int(0.98 * len(ys))])
    high = high if high > low else low + 1
    left, bottom, top = 42, 24, 8

    def place(x, y):
        across = left + (width - left - 8) * x / last
        up = (height - bottom - top) * (min(y, high) - low) / (high - low)
        return f"{across:.1f},{height - bottom - up:.1f}"

    parts, legend = [], []
    power = 10.0 ** math.floor(math.log10((high - low) / 4))
    step = next(power * k for k in (1, 2, 5, 10) if power * k >= (high - low) / 4)
    for k in range(math.ceil(low / step), math.floor(high / step) + 1):
        value = k * step
        at = place(0, value).split(",")[1]
        parts.append(f'<path d="M{left} {at}H{width - 8}" stroke="#8884"/>'
                     f'<text x="{left - 4}" y="{float(at) + 4:.1f}" text-anchor="end">{value:g}</text>')  # fmt: skip
    parts.append(f'<text x="{width - 8}" y="{height - 6}" text-anchor="end">{last} steps</text>')
    for colour, (name, points) in zip(COLOURS, series.items()):
        line = " ".join(place(*point) for point in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        legend.append(f'<span style="color:{colour}">&#9632;</span>&nbsp;{escape(name)}')
    return (f'<div class="card curve"><b>{escape(title)}</b><svg viewBox="0 0 {width} {height}" role="img">'
            f'{"".join(parts)}</svg>{" &nbsp; ".join(legend)}</div>')  # fmt: skip


def _thinned(points):
    step = -(-len(points) // POINTS)
    groups = [points[i : i + step] for i in range(0, len(points), step)]
    return [(group[-1][0], sum(y for _, y in group) / len(group)) for group in groups]


# ---------------------------------------------------------------- gallery


def _gallery(folder):
    """Answers of every type and split in turn, evenly from all of them, whatever their scores."""
    if not (folder / "predictions.jsonl").exists():
        return ""
    groups, looks = {}, {}
    for p in read_jsonl(folder / "predictions.jsonl"):
        groups.setdefault((p["split"], p["question_type"], len(p["images"])), []).append(p)
    if (folder / "attention.jsonl").exists():
        looks = {_key(look): look["attention"] for look in read_jsonl(folder / "attention.jsonl")}
    rounds = -(-GALLERY // len(groups))
    picks = [_evenly(group, rounds) for group in groups.values()]
    chosen = [group[n] for n in range(rounds) for group in picks if n < len(group)]
    cards, left = [], PICTURE_BYTES
    for number, p in enumerate(chosen[:GALLERY]):
        pictures = [_jpeg(path, 320 if len(p["images"]) == 1 else 160) for path in _evenly(p["images"], FRAMES)]
        left -= sum(map(len, pictures))
        if left < 0:
            break
        cards.append(_card(p, pictures, looks.get(_key(p)), number))
    note = '<p class="quiet">White: true boxes; coloured: predicted. Chosen evenly from all rows, not by score.</p>'
    return f'<h2>Held-out answers</h2>{note}<div class="cards">{"".join(cards)}</div>'


def _key(record):
    return record["split"], record["question_id"], record["prompt"], record["images"][0]


def _evenly(items, most):
    return [items[len(items) * n // most] for n in range(most)] if len(items) > most else items


def _jpeg(path, side):
    """The picture's bytes as a JPEG of at most `side` pixels; b"" where its file is no longer there."""
    try:
        with Image.open(path) as image:
            image = image.convert("RGB")
    except OSError:
        return b""
    image.thumbnail((side, side))
    stored = io.BytesIO()
    image.save(stored, "JPEG", quality=85)
    return stored.getvalue()


def _uri(stored, kind="jpeg"):
    return f"data:image/{kind};base64," + base64.b64encode(stored).decode()


def _card(p, pictures, attention, number):
    if not all(pictures):
        shown = f'<p class="quiet">no picture {escape(p["images"][0])}</p>'
    elif len(pictures) > 1:
        shown = '<div class="frames">' + "".join(f'<img src="{_uri(jpeg)}" alt="">' for jpeg in pictures) + "</div>"
    else:
        shown = _boxed(p, pictures[0], number)
        if attention:
            shown += _attended(p, attention, number)
    thinking, answer = _thinking(p["answer"])
    read, truth = (value if isinstance(value, str) else json.dumps(value) for value in (p["parsed"], p["truth"]))
    scores = ", ".join(f"{name} {value:.2f}" for name, value in p["scores"].items())
    said = f'<p class="thinking">{escape(thinking)}</p>' if thinking else ""
    return (
        f'<div class="card">{shown}<p class="quiet">{escape(p["question_type"])}, {escape(p["split"])}</p>'
        f"<p>{escape(p['prompt'])}</p>{said}<p><b>{escape(answer) or '(nothing)'}</b></p>"
        f"<p>read as: {escape(read)}<br>true: {escape(truth)}<br>{escape(scores)}</p></div>\n"
    )


def _thinking(text):
    """(thinking, the rest) of an answer; thinking that never ended is all there is."""
    found = re.match(r"\s*<think>(.*?)(?:</think>|\Z)\s*(.*)", text, re.DOTALL)
    return (found[1].strip(), found[2]) if found else ("", text)


def _boxed(p, jpeg, number):
    """The picture with true and predicted boxes, in pixels of the picture as the model saw it."""
    width, height = p["input_size"]
    parts = [f'<image id="i{number}" href="{_uri(jpeg)}" width="{width}" height="{height}" '
             'preserveAspectRatio="none"/>']  # fmt: skip
    truth = p["truth"] if isinstance(p["truth"], list) else []
    parts += [_rectangle(item["bbox_2d"], colour, thick)
              for item in truth for colour, thick in (("#000", 4), ("#fff", 2))]  # fmt: skip
    if isinstance(p["parsed"], list):
        for colour, (label, box) in zip(COLOURS, boxes_in_view(p)):
            parts.append(_rectangle(box, colour, 2))
            parts.append(f'<text x="{box[0] + height / 60:.1f}" y="{box[1] + height / 16:.1f}" '
                         f'style="fill:{colour};font-size:{height / 18:.1f}px">{escape(label)}</text>')  # fmt: skip
    return f'<svg viewBox="0 0 {width} {height}" role="img">{"".join(parts)}</svg>'


def _rectangle(box, colour, thick):
    x1, y1, x2, y2 = box
    return (f'<rect x="{x1:g}" y="{y1:g}" width="{x2 - x1:g}" height="{y2 - y1:g}" fill="none" stroke="{colour}" '
            f'stroke-width="{thick}" vector-effect="non-scaling-stroke"/>')  # fmt: skip


def _attended(p, attention, number):
    """The same picture again, each image token's cell the redder the more it was looked at."""
    width, height = p["input_size"]
    red, highest = ImageColor.getrgb(COLOURS[0]), max(map(max, attention))
    heat = Image.new("RGBA", (len(attention[0]), len(attention)))  # one pixel a cell, its opacity the attention
    heat.putdata([(*red, round(200 * weight / highest)) for row in attention for weight in row])
    stored = io.BytesIO()
    heat.save(stored, "PNG")
    return (f'<p class="quiet">looked at while answering:</p><svg viewBox="0 0 {width} {height}" role="img">'
            f'<use href="#i{number}"/><image href="{_uri(stored.getvalue(), "png")}" width="{width}" '
            f'height="{height}" preserveAspectRatio="none" style="image-rendering:pixelated"/></svg>')  # fmt: skip


def _sampled(folder):
    """The last answers that GRPO kept of what it sampled, with the parts of their reward."""
    if not (folder / "completions.jsonl").exists():
        return ""
    kept = read_jsonl(folder / "completions.jsonl")[-16:]
    rows = [(c["step"], c["prompt"], c["answer"], f"{c['format']:.2f}", f"{c['accuracy']:.2f}") for c in kept]
    columns = ("step", "prompt", "sampled answer", "format", "accuracy")
    return "<h2>Sampled while training</h2>" + _html_table(columns, rows, "text") if rows else ""
