"""The byte-level BPE, and the ChatML layout against Qwen's own chat template."""

import json
from dataclasses import asdict, replace

import pytest
import tokenizers

from nanoladder.model import PRESETS
from nanoladder.prompts import DEFAULT
from nanoladder.tokenizer import SPECIAL_TOKENS, SYSTEM, Tokenizer, config_for_tokenizer

BOXES = '[{"label":"chair","bbox_2d":[12,3,45,67]},{"label":"lamp","bbox_2d":[1,2,3,4]}]'


@pytest.fixture(scope="module")
def tok():
    texts = ["Locate the chair and the lamp.", "What is at (12,34)?", BOXES, "assistant", "user"]
    return Tokenizer.train(texts * 5, 700)


@pytest.mark.parametrize(
    "text", [BOXES, "the chair.", "Ünïcode 椅子 🪑", "  two  spaces\n\n", "a<|im_end|>b", ""]
)
def test_round_trip(tok, text):
    assert tok.decode(tok.encode(text)) == text


def test_digits_stand_alone_and_box_punctuation_is_one_token(tok):
    pieces = [tok.decode([i]) for i in tok.encode(BOXES)]
    assert all(len(p) == 1 for p in pieces if any(c.isdigit() for c in p) and "bbox" not in p)
    assert '","bbox_2d":[' in pieces and ']},{"label":"' in pieces


def test_special_names_in_text_stay_text(tok):
    special = set(map(tok.bpe.token_to_id, SPECIAL_TOKENS))
    assert not set(tok.encode("".join(SPECIAL_TOKENS))) & special


def test_layout(tok):
    ids = tok.prefix([2, 1]) + tok.question("Locate it.") + tok.answer("here")
    assert tok.decode(ids) == (
        "<|im_start|>user\n<|vision_start|><|image_pad|><|image_pad|><|vision_end|>"
        "<|vision_start|><|image_pad|><|vision_end|>Locate it.<|im_end|>\n"
        "<|im_start|>assistant\nhere<|im_end|>"
    )


def test_config_for_a_tokenizer_has_its_ids(tok):
    config = config_for_tokenizer(PRESETS["nano"], tok)
    assert config.vocab_size == len(tok) and config.hidden_size == PRESETS["nano"].hidden_size
    assert (config.image_token_id, config.video_token_id) == (tok.image_id, tok.video_id)
    assert (config.eos_token_id, config.pad_token_id) == (tok.im_end_id, tok.pad_id)
    brackets = config.vision_start_token_id, config.vision_end_token_id
    assert brackets == (tok.vision_start_id, tok.vision_end_id)


def test_save_load_and_open_in_transformers(tok, tmp_path):
    tok.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert again.encode(BOXES) == tok.encode(BOXES) and again.eos_ids == tok.eos_ids
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs(BOXES)["input_ids"] == tok.encode(BOXES)
    assert theirs.eos_token_id == tok.im_end_id and theirs.pad_token_id == tok.pad_id


def test_a_prompt_set_is_kept_with_the_tokenizer(tok, tmp_path):
    """A checkpoint is asked in the set with which it was trained; a file overrides it."""
    tok.save(tmp_path)
    assert Tokenizer.load(tmp_path).prompts == DEFAULT
    other = replace(DEFAULT, system="Be brief.", number="{question} How many?")
    Tokenizer(tok.bpe, prompts=other).save(tmp_path)
    again = Tokenizer.load(tmp_path)
    again.use_prompts(None)
    assert again.prompts == other
    (tmp_path / "set.json").write_text(json.dumps(asdict(DEFAULT)), encoding="utf-8")
    again.use_prompts(tmp_path / "set.json")
    assert again.prompts == DEFAULT
    (tmp_path / "prompts.json").unlink()
    assert Tokenizer.load(tmp_path).prompts == DEFAULT


def test_the_system_line_of_a_set_wins_over_the_chat_templates(tok):
    def begin(template, system):
        prompts = replace(DEFAULT, system=system)
        return tok.decode(Tokenizer(tok.bpe, {"chat_template.jinja": template}, prompts).prefix([]))

    user = "<|im_start|>user\n"
    assert begin("", None) == user
    assert begin(SYSTEM, None) == f"<|im_start|>system\n{SYSTEM}<|im_end|>\n{user}"
    for template in ("", SYSTEM):
        wanted = f"<|im_start|>system\nBe brief.<|im_end|>\n{user}"
        assert begin(template, "Be brief.") == wanted


def test_another_vocabulary_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"lacks <\|endoftext\|>"):
        Tokenizer(tokenizers.Tokenizer(tokenizers.models.BPE()))
    with pytest.raises(ValueError, match="tokenizer.json"):
        Tokenizer.load(tmp_path)


# ---------------------------------------------------------------- Qwen's own vocabulary

MIXED = [
    "Locate the chair, the 2nd lamp & the TV at 3.25 m.",
    "请问椅子在哪里？ 桌子的左边有 12 本书。",
    "def f(x):\n\treturn x**2  # squares\n\n\n    pass\r\n",
    '[{"bbox_2d": [12, 345, 6789, 10], "label": "chair"}]',
    "🪑🛋️ naïve café … I'LL don't WE'VE   \u00a0 end ",
    "e\u0301 ﬁ Ⅷ ½ ١٢٣ नमस्ते 안녕하세요 <think>\n</think>",
]


def test_ids_and_encoding_of_qwens_tokenizer_equal_transformers(qwen):
    folder, theirs = qwen
    ours = Tokenizer.load(folder)
    assert (ours.pad_id, ours.im_start_id, ours.im_end_id) == (151643, 151644, 151645)
    assert (ours.vision_start_id, ours.vision_end_id) == (151652, 151653)
    assert (ours.image_id, ours.video_id) == (151655, 151656)
    for text in MIXED:
        assert ours.encode(text) == theirs(text)["input_ids"]
        assert ours.decode(ours.encode(text)) == theirs.decode(ours.encode(text))


def test_conversation_equals_that_of_qwens_chat_template(qwen, tmp_path):
    folder, theirs = qwen
    Tokenizer.load(folder).save(tmp_path)
    ours = Tokenizer.load(tmp_path)  # the template survives a save
    content = "<|vision_start|><|image_pad|><|image_pad|><|vision_end|>Where is it?"
    asked = [{"role": "user", "content": content}]
    expected = theirs.apply_chat_template(asked, add_generation_prompt=True, return_dict=False)
    assert ours.prefix([2]) + ours.question("Where is it?") == expected
