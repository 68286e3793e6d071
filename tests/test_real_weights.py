"""From a download to a score with a Qwen2.5-VL folder as Hugging Face has it, against transformers.

The weights are random, and everything else is real: the layout of the folder, the miniatures of the
published data sets, a prompt set, and transformers' own processor as the reference.
"""

import json
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT
from test_real_data import MINIATURES, picture, prepare

import eval as evaluate
import train
from nanoladder import predict
from nanoladder.batches import encode_prompt
from nanoladder.checkpoint import Policy
from nanoladder.files import read_json, read_jsonl
from nanoladder.image import ImageConfig
from nanoladder.model import Config
from nanoladder.photos import load_image
from nanoladder.prompts import DEFAULT, PromptSet, prompt_text
from nanoladder.schema import check_images, check_row
from nanoladder.splits import read_kinds
from nanoladder.tokenizer import SYSTEM, Tokenizer

transformers = pytest.importorskip("transformers", minversion="5.3")
pil = pytest.importorskip("transformers.models.qwen2_vl.image_processing_pil_qwen2_vl")

EXAMPLE = ROOT / "docs" / "example-prompts.json"
BENCHMARKS = ["vsibench", "spbench-si", "spbench-mv", "cvbench", "sparbench", "viewspatial"]
FOLDERS = {"vsibench": ["--frames", "4"], "spbench": [], "cvbench": [], "sparbench": []}
FOLDERS |= {"viewspatial": [], "spatialladder": []}
# What Qwen2.5-VL's chat template does: a system's turn where there is none, and pictures as marks.
TEMPLATE = (
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}<|im_start|>system\n"
    + SYSTEM
    + "<|im_end|>\n{% endif %}<|im_start|>{{ m['role'] }}\n{% if m['content'] is string %}"
    "{{ m['content'] }}{% else %}{% for part in m['content'] %}{% if part['type'] == 'text' %}"
    "{{ part['text'] }}{% else %}<|vision_start|><|{{ part['type'] }}_pad|><|vision_end|>"
    "{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class Processor(transformers.Qwen2_5_VLProcessor):
    """transformers' processor; its own videos need torchvision, so Videos stands in for these."""

    def check_argument_for_proper_class(self, *args):
        pass


class Videos:
    """Frames in the size of transformers' stills; only their number matters for the ids."""

    merge_size, temporal_patch_size = 2, 2

    def __init__(self, images):
        self.images = images

    def __call__(self, videos, **_):
        (frames,) = videos
        _, rows, columns = self.images(frames[:1], return_tensors="pt")["image_grid_thw"][0]
        grid = torch.tensor([[-(-len(frames) // 2), rows, columns]])
        fps = [SimpleNamespace(sampled_fps=2.0)]
        return {"video_grid_thw": grid, "video_metadata": fps}


def processor_of(tokenizer, **limits):
    images = pil.Qwen2VLImageProcessorPil(**limits)
    return Processor(images, tokenizer, Videos(images), chat_template=TEMPLATE)


@pytest.fixture(scope="module")
def qwen_folder(tmp_path_factory):
    """A folder with the files of Qwen2.5-VL-3B-Instruct, small and random, and its processor."""
    folder = tmp_path_factory.mktemp("weights") / "Qwen2.5-VL-3B-Instruct"
    words = [*read_json(EXAMPLE, dict)["choice_think"].split(), "system user assistant", SYSTEM]
    ours = Tokenizer.train(words * 9, 600)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=ours.bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    text = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, vocab_size=len(ours))
    text |= dict(num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=True)
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e6}
    text |= dict(bos_token_id=ours.pad_id, rope_parameters=rope)
    vision = dict(depth=2, hidden_size=32, intermediate_size=48, num_heads=2, out_hidden_size=32)
    names = ["image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id"]
    ids = [ours.image_id, ours.video_id, ours.vision_start_id, ours.vision_end_id]
    config = transformers.Qwen2_5_VLConfig(
        text_config=text | {"eos_token_id": ours.im_end_id, "pad_token_id": ours.pad_id},
        vision_config=vision | {"fullatt_block_indexes": [1]},
        tie_word_embeddings=True,
        **dict(zip(names, ids)),
    )
    torch.manual_seed(0)
    model = transformers.Qwen2_5_VLForConditionalGeneration(config)
    ends = [ours.im_end_id, ours.pad_id]
    model.generation_config = transformers.GenerationConfig(
        repetition_penalty=1.05, do_sample=True, temperature=0.1, eos_token_id=ends
    )
    model.save_pretrained(folder)
    processor = processor_of(tokenizer, min_pixels=28 * 28 * 2, max_pixels=28 * 28 * 6)
    tokenizer.save_pretrained(folder)
    processor.image_processor.save_pretrained(folder)
    template = json.dumps({"chat_template": TEMPLATE})
    (folder / "chat_template.json").write_text(template, encoding="utf-8")
    return folder, processor


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """A folder with all converted miniatures, as datasets/ has the converted downloads."""
    root = tmp_path_factory.mktemp("real")
    for name, flags in FOLDERS.items():
        source = root / name / "source"
        source.mkdir(parents=True)
        MINIATURES[name](source)
        prepare(name, root / name, *flags, out=root / "datasets" / name)
    return root / "datasets"


def expected_ids(processor, row, text, system=None):
    """What transformers makes of a row's pictures and the given text."""
    pictures = [load_image(path) for path in row.images]
    is_video = row.data_type == "video"
    parts = [{"type": "video"}] if is_video else [{"type": "image"}] * len(pictures)
    asked = [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]
    if system:
        asked.insert(0, {"role": "system", "content": [{"type": "text", "text": system}]})
    shown = {"videos": [pictures]} if is_video else {"images": pictures}
    chat = processor.apply_chat_template(asked, add_generation_prompt=True, tokenize=False)
    return processor(text=[chat], return_tensors="pt", **shown)


def every_row(converted, think=False):
    for name in FOLDERS:
        split = converted / name / ("train" if name == "spatialladder" else "test")
        kinds = ["single_image", "multi_view", "video"]
        kinds += ["localization"] if name == "spatialladder" else []
        yield from read_kinds(split, kinds, None, think)


def test_ids_and_pixels_of_every_prompt_equal_transformers(qwen_folder, converted):
    folder, processor = qwen_folder
    model, tokenizer, image_config, *_ = Policy.load(folder)
    assert tokenizer.prompts == DEFAULT
    forms = set()
    for path, think in ((None, False), (EXAMPLE, False), (EXAMPLE, True)):
        tokenizer.use_prompts(path)
        for row in every_row(converted, think):
            ours = encode_prompt(row, tokenizer, image_config, model.config, ask=True)
            text = prompt_text(row, tokenizer.prompts)
            theirs = expected_ids(processor, row, text, tokenizer.prompts.system)
            assert ours["input_ids"] == theirs["input_ids"][0].tolist(), row.where
            if row.data_type != "video":
                assert torch.equal(ours["pixel_values"], theirs["pixel_values"]), row.where
            forms.add((row.form, row.data_type, think))
    assert len(forms) >= 14


def score(folder, converted, out, *flags):
    """Predictions and scores of all benchmarks."""
    flags = ["--model", str(folder), "--real", str(converted), "--out", str(out), *flags]
    flags += ["--min-pixels", str(28 * 28 * 2), "--max-pixels", str(28 * 28 * 6)]  # to be quick
    evaluate.main([*flags, "--bench", *BENCHMARKS, "--max-new-tokens", "3", "--no-amp"])
    return read_jsonl(out / "predictions.jsonl"), read_json(out / "scores.json")


@pytest.mark.parametrize("think", [False, True])
def test_every_benchmark_is_scored_with_a_prompt_set(qwen_folder, converted, tmp_path, think):
    flags = ["--prompts", str(EXAMPLE), *(["--think"] if think else [])]
    predictions, scores = score(qwen_folder[0], converted, tmp_path / "eval", *flags)
    assert set(BENCHMARKS) <= set(scores) and len(predictions) == 16
    words = read_json(EXAMPLE)
    shown = {json.dumps(p["task"]): p["prompt"] for p in predictions if p["split"] != "spbench-si"}
    end = "_think" if think else ""
    wanted = {
        "object_abs_distance": ("number", "How far?", []),
        "route_planning": ("choice", "How far?", ["A. left", "B. right"]),
        "Depth": ("own_prompt", "How many? (A) 2 (B) 3 (C) 4", []),
        "position_matching": ("own_prompt", "Which box? A. (1,2) B. (3,4) C. (5,6)", []),
        "view_change_infer": ("text", "How did the camera move?", []),
    }
    for task, (name, question, options) in wanted.items():
        before, after = words[name + end].split("{question}")
        after = after.replace("{options}", "\n".join(options))
        text = shown[json.dumps(task)]
        assert text.startswith(before + question) and text.endswith(after), task
        assert ("<think>" in text) == think
    settings = read_json(tmp_path / "eval" / "run.json")["settings"]
    assert settings["prompts"] == str(EXAMPLE)


def test_training_keeps_its_letter_set(qwen_folder, converted, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(predict, "MAX_NEW_TOKENS", 3)
    data, out = converted / "spatialladder", tmp_path / "run"
    for split in ("val", "test"):
        if not (data / split).exists():
            (data / split).symlink_to(data / "train", target_is_directory=True)
    flags = ["--stage", "2", "--model", str(qwen_folder[0]), "--data", str(data), "--out", str(out)]
    flags += ["--prompts", str(EXAMPLE), "--steps", "2", "--batch-size", "1", "--eval-rows", "1"]
    train.main([*flags, "--mix", "single_image=1", "--no-amp"])
    assert "Reply with the letter of the right one.<|im_end|>" in capsys.readouterr().out
    kept = Tokenizer.load(out / "checkpoint").prompts
    assert kept == PromptSet.load(EXAMPLE) and kept.choice_answer == "letter"
    (asked,) = read_jsonl(out / "predictions.jsonl")
    assert "These are the options:\nA. bed\nB. lamp\nReply" in asked["prompt"]


# ---------------------------------------------------------------- the table of docs/real-data.md

COLUMNS = ["template", "pictures", "at most, pixels", "tokens, ours", "pixels, ours"]
COLUMNS += ["tokens, transformers", "pixels, transformers"]
QUESTION = "Where is the chair, seen from the door?"
OPTIONS = ["A. to the left", "B. to the right", "C. behind you"]
ANSWERS = {
    "choice": {"options": OPTIONS, "answer": "B"},
    "number": {"unit": "m", "answer": "2"},
    "boxes": {"answer": [{"label": "chair", "bbox_2d": [10, 20, 300, 400]}]},
    "text": {"answer": "left"},
}
ANSWERS["own_prompt"] = ANSWERS["choice"] | {"prompt": f"{QUESTION} (A) left (B) right (C) behind"}


def table_rows(folder):
    """(template, picture limit, pictures, row) of each line."""
    picture(0, (1296, 968)).save(folder / "a.png")
    still = {"question_id": 1, "question": QUESTION, "image": ["a.png"]}
    for name in [n for n in read_json(EXAMPLE) if n.removesuffix("_think") in ANSWERS]:
        raw = still | ANSWERS[name.removesuffix("_think")] | {"data_type": "single_image"}
        row = check_row(raw, folder, "a.jsonl:1")
        row.think = name.endswith("_think")
        yield name, 512, "one", row
    row = check_row(still | ANSWERS["choice"] | {"data_type": "single_image"}, folder, "a.jsonl:1")
    yield "choice", 128, "one", row
    views = {"image": ["a.png"] * 2, "data_type": "multi_view"}
    yield "choice", 128, "two", check_row(still | ANSWERS["choice"] | views, folder, "a:1")


def test_the_table_of_the_docs_is_what_both_sides_count(qwen, tmp_path):
    """With Qwen's own vocabulary and the published preprocessing; a stale table is printed anew."""
    tokenizer, lines = Tokenizer.load(qwen[0]), [COLUMNS, ["---"] * len(COLUMNS)]
    tokenizer.use_prompts(EXAMPLE)
    for name, limit, pictures, row in table_rows(tmp_path):
        limits = {"min_pixels": 16 * 28 * 28, "max_pixels": limit * 28 * 28}
        check_images([row])
        ours = encode_prompt(row, tokenizer, ImageConfig(**limits), Config(), ask=True)
        text = prompt_text(row, tokenizer.prompts)
        theirs = expected_ids(processor_of(qwen[1], **limits), row, text, tokenizer.prompts.system)
        assert ours["input_ids"] == theirs["input_ids"][0].tolist()
        assert torch.equal(ours["pixel_values"], theirs["pixel_values"])
        cells = [f"`{name}`", pictures, f"{limit} x 28 x 28"]
        for side, ids in ((ours, ours["input_ids"]), (theirs, theirs["input_ids"][0])):
            cells += [len(ids), f"{len(side['pixel_values']) * 14 * 14:,}"]
        lines.append(cells)
    table = "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)
    page = (ROOT / "docs" / "real-data.md").read_text(encoding="utf-8")
    assert table in page, f"docs/real-data.md must hold this table:\n{table}"
