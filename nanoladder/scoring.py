"""Scoring a model on held-out rows: what is asked beside the plain questions, and scores.json.

scorer = Scorer(policy, Summary(train_rows, image_config), runtime, name="mydata")
scores, answers = scorer.score({"test": test_rows, "ood": ood_rows})
"""

import dataclasses
from collections import Counter, defaultdict
from functools import cached_property
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nanoladder import predict, summaries
from nanoladder.benchmarks import BENCHMARKS
from nanoladder.checkpoint import Policy
from nanoladder.command import UserError
from nanoladder.files import read_log, write_json, write_jsonl
from nanoladder.pictures import draw_attention, draw_samples
from nanoladder.predict import PUBLISHED_TOKENS, Journal
from nanoladder.run_folder import Timer
from nanoladder.runtime import Runtime, autocast
from nanoladder.schema import DATA_TYPES, rows_of
from nanoladder.splits import BOXES, data_name, kinds_in, rows_for_constants, scored_kinds
from nanoladder.strict import strict_accuracy
from nanoladder.tables import as_text, overview, tables

SHORT = {"single_image": "si", "multi_view": "mv", "video": "video"}  # as SPBench-SI and -MV
# Where the published benchmarks' rows lie in the folder --real, and of which kinds they are.
PUBLISHED = {
    "vsibench": ("vsibench", ["video"]),
    "spbench-si": ("spbench", ["single_image"]),
    "spbench-mv": ("spbench", ["multi_view"]),
    "cvbench": ("cvbench", ["single_image"]),
    "sparbench": ("sparbench", ["single_image", "multi_view"]),
    "viewspatial": ("viewspatial", ["single_image", "multi_view"]),
}
VAL_ROWS = 200  # rows of a score during training, all kinds together


class Summary:
    """Scores of predictions of one kind, beside constant answers fitted on training rows."""

    def __init__(self, train_rows, image_config):
        self.rows, self.image_config = defaultdict(list), image_config
        for row in train_rows:
            self.rows[row.kind].append(row)

    @cached_property
    def constant_box(self):
        every = (row for rows in self.rows.values() for row in rows)
        boxes = [row for row in every if row.form == "boxes"][:BOXES]
        return summaries.best_constant_box(boxes, self.image_config) if boxes else [0, 0, 0, 0]

    def __call__(self, kind, predictions):
        if predictions[0]["form"] == "boxes":
            return summaries.summarize_localization(predictions, self.constant_box)
        if kind in DATA_TYPES:
            return summaries.summarize_spatial(predictions, self.rows[kind])
        return summaries.summarize_answers(predictions, self.rows[kind])


def scorer_of_run(policy, splits, data, runtime, **options):
    """The Scorer of a run that trains on the data folder `data`; options: its further fields.

    Constant answers are fitted on training rows, also for kinds that the run does not train on.
    """
    others = {row.kind for row in splits["test"]} - {row.kind for row in splits["train"]}
    rows = splits["train"] + rows_for_constants(data, sorted(others), splits["test"])
    summarize = Summary(rows, policy.image_config)
    return Scorer(policy, summarize, runtime, data_name(data), **options)


@dataclasses.dataclass
class Scorer:
    """How a model is scored on held-out rows. Every rank must call its methods.

    name: that of the data; its spatial rows become the benchmarks NAME-si, NAME-mv and NAME-video,
    and those of the split ood the same with -ood. folder: where answers are kept on the way.
    samples, batch_size, max_new_tokens and temperature: as predict takes them. attention: whether
    to measure where localization answers look. blank: scores.json of a model trained on blank
    pictures, to show beside. amp: whether answers are computed in bf16, as in training.
    """

    policy: Policy
    summarize: Summary
    runtime: Runtime
    name: str
    folder: Path | None = None
    samples: int = 0
    attention: bool = False
    blank: dict | None = None
    batch_size: int | None = None
    max_new_tokens: int | None = None
    temperature: float = 0.0
    amp: bool = False

    def __post_init__(self):
        names = ("predictions", "shuffled", "samples", "attention")
        paths = {name: self.folder / f"{name}.jsonl" if self.folder else None for name in names}
        self.journals = {name: Journal(path, self.runtime.main) for name, path in paths.items()}

    def validate(self, step, rows):
        """{kind: summary} of validation rows, and a printed line for each."""
        scores = {}
        for kind in dict.fromkeys(row.kind for row in rows):
            asked = rows_of(rows, kind)
            answers = self.predict(asked, title="validate")
            scores[kind] = self.summarize(kind, answers)
            if self.runtime.main:
                tqdm.write(f"step {step}: validation, {kind}: {in_words(scores[kind])}")
        return scores

    def score(self, splits):
        """(scores.json's content, predictions) of {split: rows}, with printed tables.

        A split may also be a published benchmark under its own name (nanoladder/benchmarks.py).
        """
        scores = {}
        for split, rows in splits.items():
            if split in BENCHMARKS:
                answers = self.ask(rows, split, "score", "predictions")
                for row, answer in zip(rows, answers):
                    answer["scores"]["strict"] = strict_accuracy(answer["answer"], row)
                scores[split] = summaries.summarize_benchmark(split, answers) | count_cut(answers)
                continue
            suffix, benchmarks = "-ood" if split == "ood" else "", {}
            for kind in dict.fromkeys(row.kind for row in rows):
                benchmark = f"{self.name}-{SHORT[kind]}{suffix}" if kind in SHORT else None
                summary, answers = self.score_kind(rows_of(rows, kind), kind, split, benchmark)
                if benchmark:
                    scores[benchmark], benchmarks[benchmark] = summary, answers
                else:
                    scores.setdefault(kind, {})[split] = summary
            if benchmarks:
                averages = [scores[benchmark]["avg"] for benchmark in benchmarks]
                scores["overall" + suffix] = float(np.mean(averages))
                low_high = summaries.overall_interval(list(benchmarks.values()))
                scores.setdefault("intervals", {})["overall" + suffix] = low_high
        self.runtime.say(as_text(tables(scores) + overview(scores)))
        return scores, self.journals["predictions"].records

    def predict(self, rows, split="", **options):
        """predict() with this scorer's decoding; by default a split has its own limit on tokens."""
        limit = PUBLISHED_TOKENS[rows[0].think] if split in BENCHMARKS else None
        options |= {"batch_size": self.batch_size, "temperature": self.temperature}
        options |= {"max_new_tokens": self.max_new_tokens or limit}
        with autocast(self.runtime.device, self.amp):
            return predict.predict(self.policy, rows, self.runtime, **options)

    def ask(self, rows, split, title, file, **options):
        clock, title = Timer(), f"{title}, {split}"
        options |= {"journal": self.journals[file], "about": {"split": split}, "title": title}
        answers = self.predict(rows, split, **options)
        self.runtime.say(f"{title}: {len(rows)} rows in {clock():.1f} s")
        for number in count_cut(answers).values():
            limit = answers[0]["decoding"]["max_new_tokens"]
            self.runtime.say(f"{title}: {number} answer(s) were cut at {limit} tokens")
        return answers

    def score_kind(self, rows, kind, split, benchmark):
        """(summary, predictions) of one kind of rows; of a benchmark also what guessing earns."""
        predictions = self.ask(rows, split, f"score {kind}", "predictions")
        summary = self.summarize(kind, predictions) | count_cut(predictions)
        if benchmark:
            mixed = self.ask(shuffled(rows), split, f"{kind} with shuffled pictures", "shuffled")
            summaries.set_beside(summary, "shuffled", self.summarize(kind, mixed))
            if self.blank and benchmark in self.blank:
                summaries.set_beside(summary, "blank", self.blank[benchmark])
        if self.samples:
            sampled = self.ask(rows, split, f"sample {kind}", "samples", samples=self.samples)
            entropies = [p["semantic_entropy"] for p in sampled]
            summary["semantic_entropy"] = float(np.mean(entropies))
            if benchmark:
                agreed = [p | {"scores": {"accuracy": p["scores"]["consensus"]}} for p in sampled]
                summaries.set_beside(summary, "sampled", self.summarize(kind, sampled))
                summaries.set_beside(summary, "consensus", self.summarize(kind, agreed))
        boxes = rows[0].form == "boxes"
        if self.attention and boxes and self.runtime.main:  # row by row, so one rank does it
            journal = self.journals["attention"]
            with autocast(self.runtime.device, self.amp):
                found = predict.measure_attention(self.policy, rows, predictions, journal)
            shares = {key: float(np.mean([f[key] for f in found])) for key in ("inside", "area")}
            summary["attention"] = shares
        return summary, predictions


def asked_kinds(data, bench):
    """{split of the folder `data`: kinds of rows} that --bench names. UserError for odd names."""
    own = [name for name in dict.fromkeys(bench) if name not in PUBLISHED]
    if bench and not own:
        return {}
    if data is None:
        raise UserError("name a folder of rows and pictures with --data")
    names, asked = {}, defaultdict(list)
    held_out = "test" if Path(data, "test").is_dir() else "train"  # where test is made of train
    for split, folder, suffix in (("test", held_out, ""), ("ood", "ood", "-ood")):
        for kind in kinds_in(Path(data, folder)):
            name = f"{data_name(data)}-{SHORT[kind]}" if kind in SHORT else kind
            names[name + suffix] = split, kind
    if not names:
        raise UserError(f"{data}: no rows in test, train or ood; name another folder with --data")
    if odd := [name for name in own if name not in names]:
        raise UserError(f"--bench {odd[0]} is none of {', '.join([*names, *PUBLISHED])}")
    usual = [name for name, (_, kind) in names.items() if kind in ("localization", *DATA_TYPES)]
    for split, kind in map(names.get, own or usual or names):
        asked[split].append(kind)
    return asked


def val_limits(kinds, eval_rows):
    """The limits of splits.read_splits for a run that trains on these kinds."""
    each = VAL_ROWS // len(scored_kinds(kinds))
    return {"val": each, "test": eval_rows, "ood": eval_rows}


def in_words(summary):
    """The numbers of a summary in one line."""
    numbers = [(name, v) for name, v in summary.items() if isinstance(v, (int, float))]
    return ", ".join(
        f"{name} {v:.3f}" if isinstance(v, float) else f"{name} {v}" for name, v in numbers
    )


def count_cut(answers):
    """{"cut": how many answers the limit on new tokens ended}, or {} where there is none."""
    number = sum(answer["cut"] for answer in answers)
    return {"cut": number} if number else {}


def shuffled(rows):
    """The rows with the pictures of other rows: what is still answered right did not need its own.

    Rows about the same pictures stand side by side in the order used here, and each row takes the
    pictures of one farther away than any such neighbour. If more than half of all rows are about
    the same pictures, some must keep theirs.
    """
    order = sorted(range(len(rows)), key=lambda i: rows[i].images)
    most = max(Counter(row.images for row in rows).values())
    taken = dict(zip(order, order[most:] + order[:most]))
    return [
        dataclasses.replace(row, images=o.images, sizes=o.sizes, frame_seconds=o.frame_seconds)
        for row, o in ((row, rows[taken[i]]) for i, row in enumerate(rows))
    ]


def some(items, most=24):
    """At most so many of the items, evenly from all of them."""
    return items[:: -(-len(items) // most)] if items else []


def write_scores(folder, scores, answers):
    """Keep every answer, draw some boxes, and write scores.json last: it marks a finished run."""
    write_jsonl(folder / "predictions.jsonl", answers)
    if boxes := [p for p in answers if p["split"] == "test" and p["form"] == "boxes"]:
        draw_samples(some(boxes), folder / "samples.png")
    if attention := read_log(folder / "attention.jsonl"):
        draw_attention(some(attention), folder / "attention.png")
    write_json(folder / "scores.json", scores)
