"""report.html: well-formed, self-contained, small, escaped, and complete whatever a run left."""

import json
import os
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from nanoladder import report
from nanoladder.checkpoint import BASE
from nanoladder.command import UserError
from nanoladder.files import write_json, write_jsonl
from nanoladder.report import chart, earlier_runs, opening, write_report
from nanoladder.summaries import summarize_localization, summarize_spatial

EMPTY = {"meta", "br", "img"}  # elements without an end tag
EVIL = "<script>alert('x')</script> & \"more\""


class Page(HTMLParser):
    """Elements, text and attributes of a page; asserts that elements are closed in order."""

    def __init__(self, path):
        super().__init__()
        self.open, self.tags, self.words, self.attributes = [], [], "", []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag

    def handle_data(self, data):
        self.words += data


def picture(path, side=64):
    noise = np.random.default_rng(len(path.name)).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return str(path)


def box_prediction(folder, number, split="test", side=64):
    """A localization prediction; its picture is noise, which JPEG cannot make small."""
    truth = [{"label": "bed", "bbox_2d": [8, 8, 40, 40]}]
    said = [{"label": EVIL, "bbox_2d": [4, 4, 36, 90]}]
    return {
        "split": split,
        "question_id": number,
        "question_type": "localization",
        "form": "boxes",
        "level": 1,
        "input_size": [64, 64],
        "images": [picture(folder / f"{number}{split}.png", side)],
        "prompt": f"Locate {EVIL}.",
        "options": [],
        "answer": json.dumps(said),
        "parsed": said,
        "truth": truth,
        "scores": {"iou": 0.4, "acc50": 0.0, "valid_json": 1.0, "label_f1": 0.0},
    }


def choice_prediction(folder, number):
    """A prediction about sixteen pictures, answered after a rationale."""
    return {
        "split": "test",
        "question_id": number,
        "question_type": "relative distance",
        "form": "choice",
        "level": 1,
        "options": ["A. bed", "B. sofa"],
        "images": [picture(folder / f"{number}_{k}.png") for k in range(16)],
        "input_size": [64, 64],
        "prompt": "Which is nearer?\nOptions: A. bed B. desk",
        "parsed": "A",
        "truth": "A",
        "answer": f"<think>The {EVIL} is near.</think><answer>A</answer>",
        "scores": {"accuracy": 1.0},
    }


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "runs" / "rl"
    folder.mkdir(parents=True)
    start = str(tmp_path / "runs" / "stage1" / "checkpoint")
    settings = {"init": start, "model": None, "task": "spatial", "lr": 1e-3, "out": EVIL}
    about = {"settings": settings, "environment": {"torch": "2"}, "minutes": {"train": 1.5}}
    write_json(folder / "run.json", about)
    return folder


def test_page_of_a_whole_run(run, tmp_path):
    earlier = tmp_path / "runs" / "stage1"
    earlier.mkdir()
    write_json(earlier / "run.json", {"settings": {"init": "base"}})
    losses = [{"step": 10 * k, "loss": 5 / (k + 1)} for k in range(1, 1000)]
    write_jsonl(earlier / "metrics.jsonl", losses)
    assert [folder.name for folder in earlier_runs(run)] == ["base", "stage1", "rl"]

    predictions = [box_prediction(tmp_path, k) for k in range(3)] + [choice_prediction(tmp_path, 9)]
    predictions[2]["images"] = ["gone.png"]
    write_jsonl(run / "predictions.jsonl", predictions)
    look = {k: predictions[0][k] for k in ("split", "question_id", "images", "prompt")}
    write_jsonl(run / "attention.jsonl", [look | {"attention": [[0.1, 0.2], [0.3, 0.05]]}])
    same = {"format": 1.0, "idle": 0.1, "kl": 0.01, "entropy": 1.0, "length": 5.0}
    rewards = [
        {"step": k, "reward": k / 20, "accuracy": k / 30, "val": {"localization": {"iou": k / 40}}}
        for k in range(1, 20)
    ]
    write_jsonl(run / "metrics.jsonl", [same | record for record in rewards])
    sampled = {"step": 5, "prompt": "?", "answer": EVIL, "format": 1.0, "accuracy": 0.5}
    write_jsonl(run / "completions.jsonl", [sampled])
    summary = summarize_localization(predictions[:2], [0, 0, 32, 32])
    summary |= {"attention": {"inside": 0.6, "area": 0.25}, "semantic_entropy": 0.7}
    write_json(run / "scores.json", {"localization": {"test": summary}})

    page = Page(write_report(run))
    assert "script" not in page.tags and page.words.count(EVIL) > 5
    assert ("name", "viewport") in page.attributes and "width=device-width" in page.source
    links = [value for name, value in page.attributes if name in ("src", "href")]
    inside = ("data:image/jpeg;base64,", "data:image/png;base64,", "#i")
    assert links and all(value.startswith(inside) for value in links)
    assert [page.tags.count(tag) for tag in ("img", "image", "use")] == [8, 3, 1]
    for words in (
        *("localization, test", "0.400", "Curves of base", "Curves of stage1", "Curves of rl"),
        *("an estimate of the KL", "60.0", "no picture gone.png", f"The {EVIL} is near."),
        *("<answer>A</answer>", "1.5", "trained a model by GRPO on spatial questions"),
        *("label F1: F1 score", "area of boxes: share of the picture"),
    ):
        assert words in page.words, words
    assert "shuffled:" not in page.words  # only headings that occur are explained
    assert page.tags.count("polyline") >= 8


def test_page_stays_below_five_megabytes(run, tmp_path, monkeypatch):
    predictions = [
        box_prediction(tmp_path, k, split, side=320) for k in range(20) for split in ("test", "ood")
    ]
    write_jsonl(run / "predictions.jsonl", predictions)
    path = write_report(run)
    whole, shown = path.stat().st_size, Page(path).tags.count("image")
    assert 1_000_000 < whole < 5_000_000 and shown == report.GALLERY
    monkeypatch.setattr(report, "PICTURE_BYTES", whole // 4)
    write_report(run)
    assert path.stat().st_size < whole / 2 and 0 < Page(path).tags.count("image") < shown / 2


def test_page_of_a_run_that_left_next_to_nothing(run):
    page = Page(write_report(run))
    assert "Settings" in page.words and "Scores" not in page.words and "Held-out" not in page.words
    (run / "run.json").unlink()
    with pytest.raises(UserError, match="run.json: no such file"):
        write_report(run)


# ---------------------------------------------------------------- the opening sentence


def spatial_scores(tmp_path):
    """scores.json with one spatial benchmark."""
    summary = summarize_spatial([choice_prediction(tmp_path, 1)], [])
    summary |= {"shuffled": 0.5}
    summary["types"]["relative distance"]["shuffled"] = 0.5
    return {"x-mv": summary, "overall": 1.0, "intervals": {"overall": [1.0, 1.0]}}


def test_opening_names_what_was_trained_from_what_and_the_score(tmp_path):
    boxes = summarize_localization([box_prediction(tmp_path, 1)], [0, 0, 32, 32])
    localization = {"localization": {"test": boxes}}
    spatial = spatial_scores(tmp_path)
    stage1 = {"settings": {"stage": "1", "init": "base", "model": None}, "minutes": {"train": 12.5}}
    assert opening(stage1, localization) == (
        "In 12.5 minutes this run trained a model in stage 1, starting from the shipped base. Its "
        "mean IoU (localization, test) is 0.400. Compare it with “constant box”. Then "
        "look at the held-out answers, which are shown with their pictures."
    )
    stage1["settings"]["init"] = os.path.relpath(BASE)  # as a ladder names it
    assert "starting from the shipped base. " in opening(stage1, localization)
    cold = {"settings": {"stage": "cold", "init": "runs/stage2", "model": None}}
    assert opening(cold, localization | spatial) == (
        "This run trained a model in the cold start, starting from runs/stage2. Its mean over the "
        "spatial benchmarks is 100.0 %. Compare it with “constant” and “shuffled”. "
        "Then look at the held-out answers, which are shown with their pictures."
    )
    qwen = {"settings": {"task": "spatial", "init": "runs/cold", "model": "Qwen"}}
    assert opening(qwen, spatial).startswith(
        "This run trained a model by GRPO on spatial questions, starting from Qwen. Its mean over"
    )
    scored = {"settings": {"model": "runs/stage2"}}
    assert opening(scored, spatial).startswith("eval.py scored runs/stage2 on held-out rows. Its")
    published = {"tasks": {"a": {"score": 0.3, "n": 1}}, "average": 0.3}
    published |= {"strict": published, "interval": [0, 1], "n": 1}
    found = opening(scored, {"vsibench": published})
    assert "Its score (vsibench, %) is 30.0. Compare it with published scores. " in found
    assert opening(stage1, {}).endswith("It has no scores, so look at the curves.")


def test_page_of_a_scored_checkpoint_explains_its_columns(tmp_path):
    write_json(tmp_path / "run.json", {"settings": {"model": "gone", "blank": None}})
    write_json(tmp_path / "scores.json", spatial_scores(tmp_path))
    page = Page(write_report(tmp_path))
    assert "eval.py scored gone" in page.words
    for heading in ("constant: ", "shuffled: ", "MCQ: ", "95 %: ", "n: "):
        assert heading in page.words, heading
    assert "blank: " not in page.words


# ---------------------------------------------------------------- curves


@pytest.mark.parametrize(
    "points",
    [
        [(1, 0.0), (2, 0.0)],
        [(1, -1.0), (2, -1.0)],
        [(k, 3.0) for k in range(1, 1000)],
        [(1, 5.0)],
    ],
)
def test_chart_of_flat_lines_and_of_one_point(points):
    shown = chart("loss", {"a": points})
    assert "nan" not in shown and shown.count("polyline") == 1


def test_curves_of_damaged_logs_of_older_runs(run):
    """A torn line, numbers that are none, and records without a step."""
    records = [{"step": k, "loss": 1.0, "auxiliary_loss": 4.0, "val": {"x": {}}} for k in (1, 2)]
    records += [{"step": 3, "loss": float("nan")}, {"loss": 1.0}, {"step": 4, "loss": None}]
    lines = [json.dumps(record) for record in records]
    lines.insert(1, '{"step": 1, "val": {"iou": 0.5}\x00')
    (run / "metrics.jsonl").write_text("\n".join(lines), encoding="utf-8")
    page = Page(write_report(run))
    assert page.tags.count("polyline") == 2
    assert "auxiliary_loss" in page.words and "Cross-entropy of the answers" in page.words
