"""The byte-level BPE and the ChatML layout; the layout is compared with Qwen's own chat template where it is known."""

import pytest

from nanoladder.tokenizer import SPECIAL_TOKENS, Tokenizer

BOXES = '[{"label":"chair","bbox_2d":[12,3,45,67]},{"label":"lamp","bbox_2d":[1,2,3,4]}]'


@pytest.fixture(scope="module")
def tok():
    texts = ["Locate the chair and the lamp.", "What is at (12,34)?", BOXES, "assistant", "user"]
    return Tokenizer.train(texts * 5, 700)


@pytest.mark.parametrize("text", [BOXES, "the chair.", "Ünïcode 椅子 🪑", "  two  spaces\n\n", "a<|im_end|>b", ""])
def test_round_trip(tok, text):
    assert tok.decode(tok.encode(text)) == text


def test_digits_stand_alone_and_box_punctuation_is_one_token(tok):
    pieces = [tok.decode([i]) for i in tok.encode(BOXES)]
    assert all(len(p) == 1 for p in pieces if any(c.isdigit() for c in p) and "bbox" not in p)
    assert '","bbox_2d":[' in pieces and ']},{"label":"' in pieces


def test_special_names_in_text_stay_text(tok):
    assert not set(tok.encode("".join(SPECIAL_TOKENS))) & set(map(tok.bpe.token_to_id, SPECIAL_TOKENS))


def test_layout(tok):
    ids = tok.prefix([2, 1]) + tok.question("Locate it.") + tok.answer("here")
    assert tok.decode(ids) == (
        "<|im_start|>user\n<|vision_start|><|image_pad|><|image_pad|><|vision_end|>"
        "<|vision_start|><|image_pad|><|vision_end|>Locate it.<|im_end|>\n<|im_start|>assistant\nhere<|im_end|>"
    )


def test_save_load_and_open_in_transformers(tok, tmp_path):
    tok.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert again.encode(BOXES) == tok.encode(BOXES) and again.eos_ids == tok.eos_ids
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs(BOXES)["input_ids"] == tok.encode(BOXES)
    assert theirs.eos_token_id == tok.im_end_id and theirs.pad_token_id == tok.pad_id


def test_another_vocabulary_is_refused(tmp_path):
    import tokenizers

    with pytest.raises(ValueError, match=r"lacks <\|endoftext\|>"):
        Tokenizer(tokenizers.Tokenizer(tokenizers.models.BPE()))
    with pytest.raises(ValueError, match="tokenizer.json"):
        Tokenizer.load(tmp_path)
