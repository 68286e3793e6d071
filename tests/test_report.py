"""report.html: well-formed, self-contained, small, everything escaped, and whole whatever a run left."""

import json
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from nanoladder import report
from nanoladder.common import UserError, write_json, write_jsonl
from nanoladder.report import chart, rungs, write_report
from nanoladder.tables import summarize_localization

EMPTY = {"meta", "br", "img"}  # elements without an end
EVIL = "<script>alert('x')</script> & \"more\""


class Page(HTMLParser):
    """Elements seen, all text, every attribute; asserts that elements are closed in order."""

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


def boxes(folder, number, split="test", side=64):
    """A localization prediction; its picture is noise, which a JPEG can't make small."""
    truth, said = [{"label": "bed", "bbox_2d": [8, 8, 40, 40]}], [{"label": EVIL, "bbox_2d": [4, 4, 36, 90]}]
    return {"split": split, "question_id": number, "question_type": "localization", "level": 1, "input_size": [64, 64],
            "images": [picture(folder / f"{number}{split}.png", side)], "prompt": f"Locate {EVIL}.", "options": 0,
            "answer": json.dumps(said), "parsed": said, "truth": truth,
            "scores": {"iou": 0.4, "acc50": 0.0, "valid_json": 1.0, "label_f1": 0.0}}  # fmt: skip


def views(folder, number):
    return {"split": "test", "question_id": number, "question_type": "relative distance", "level": 1, "options": 2,
            "images": [picture(folder / f"{number}_{k}.png") for k in range(16)], "input_size": [64, 64],
            "prompt": "Which is nearer?\nOptions: A. bed B. desk", "parsed": "A", "truth": "A",
            "answer": f"<think>The {EVIL} is near.</think><answer>A</answer>", "scores": {"accuracy": 1.0}}  # fmt: skip


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "runs" / "rl"
    folder.mkdir(parents=True)
    settings = {"init": str(tmp_path / "runs" / "stage1" / "checkpoint"), "lr": 1e-3, "out": EVIL}
    write_json(folder / "run.json", {"settings": settings, "environment": {"torch": "2"}, "minutes": {"train": 1.5}})
    return folder


def test_a_page_of_a_whole_run(run, tmp_path):
    earlier = tmp_path / "runs" / "stage1"
    earlier.mkdir()
    write_json(earlier / "run.json", {"settings": {"init": "base"}})
    write_jsonl(earlier / "metrics.jsonl", [{"step": 10 * k, "loss": 5 / (k + 1)} for k in range(1, 1000)])
    assert [folder.name for folder in rungs(run)] == ["base", "stage1", "rl"]

    predictions = [boxes(tmp_path, k) for k in range(3)] + [views(tmp_path, 9)]
    predictions[2]["images"] = ["gone.png"]
    write_jsonl(run / "predictions.jsonl", predictions)
    look = {k: predictions[0][k] for k in ("split", "question_id", "images", "prompt")}
    write_jsonl(run / "attention.jsonl", [look | {"attention": [[0.1, 0.2], [0.3, 0.05]]}])
    rewards = [{"step": k, "reward": k / 20, "accuracy": k / 30, "format": 1.0, "idle": 0.1, "kl": 0.0, "entropy": 1.0,
                "length": 5.0, "val": {"localization": {"iou": k / 40}}} for k in range(1, 20)]  # fmt: skip
    write_jsonl(run / "metrics.jsonl", rewards)
    write_jsonl(run / "completions.jsonl", [{"step": 5, "prompt": "?", "answer": EVIL, "format": 1.0, "accuracy": 0.5}])
    summary = summarize_localization(predictions[:2], [0, 0, 32, 32])
    summary |= {"attention": {"inside": 0.6, "area": 0.25}, "semantic_entropy": 0.7}
    write_json(run / "scores.json", {"localization": {"test": summary}})

    page = Page(write_report(run))
    assert "script" not in page.tags and page.words.count(EVIL) > 5
    assert ("name", "viewport") in page.attributes and "width=device-width" in page.source
    links = [value for name, value in page.attributes if name in ("src", "href")]
    assert links and all(
        value.startswith(("data:image/jpeg;base64,", "data:image/png;base64,", "#i")) for value in links
    )
    assert page.tags.count("img") == 8 and page.tags.count("image") == 3 and page.tags.count("use") == 1
    for words in ("localization, test", "0.400", "Curves of base", "Curves of stage1", "Curves of rl", "KL to the",
                  "60.0", "no picture gone.png", f"The {EVIL} is near.", "<answer>A</answer>", "1.5"):  # fmt: skip
        assert words in page.words, words
    assert page.tags.count("polyline") >= 8


def test_a_page_stays_below_five_megabytes(run, tmp_path, monkeypatch):
    write_jsonl(run / "predictions.jsonl", [boxes(tmp_path, k, split, side=320) for k in range(20)
                                            for split in ("test", "ood")])  # fmt: skip
    path = write_report(run)
    whole, shown = path.stat().st_size, Page(path).tags.count("image")
    assert 1_000_000 < whole < 5_000_000 and shown == report.GALLERY
    monkeypatch.setattr(report, "PICTURE_BYTES", whole // 4)
    write_report(run)
    assert path.stat().st_size < whole / 2 and 0 < Page(path).tags.count("image") < shown / 2


def test_a_page_of_a_run_that_left_next_to_nothing(run):
    page = Page(write_report(run))
    assert "Settings" in page.words and "Scores" not in page.words and "Held-out" not in page.words
    (run / "run.json").unlink()
    with pytest.raises(UserError, match="run.json: no such file"):
        write_report(run)


def test_a_chart_of_flat_or_single_lines():
    for points in ([(1, 0.0), (2, 0.0)], [(1, -1.0), (2, -1.0)], [(k, 3.0) for k in range(1, 1000)]):
        assert "nan" not in chart("title", {"a": points}) and chart("title", {"a": points}).count("polyline") == 1
