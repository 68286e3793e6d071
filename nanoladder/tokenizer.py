"""Text to ids and back, and Qwen's ChatML layout: one wrapper around a `tokenizers` byte-level BPE.

The nano tokenizer is trained on the rooms' own texts (`Tokenizer.train`); a Qwen folder's tokenizer.json loads with
the same class. Special tokens are looked up by name, so no id is written anywhere in this project.
"""

import json
from pathlib import Path

import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

# Qwen2.5-VL's own names. The first is padding, the third ends an assistant's turn.
SPECIAL_TOKENS = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>",
    "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>",
]  # fmt: skip

SYSTEM = "You are a helpful assistant."  # of Qwen's chat template, where a conversation names none
# What lies beside tokenizer.json and is kept as it is: how transformers opens it, and the chat template.
COMPANIONS = ("tokenizer_config.json", "chat_template.json", "chat_template.jinja")
CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "eos_token": "<|im_end|>",
    "pad_token": "<|endoftext|>",
    "clean_up_tokenization_spaces": False,
    "model_max_length": 32768,
}

# Words keep the space before them and their hyphens; digits stand alone (coordinates must be read digit by digit), and
# so does a capital before another (of a square of the floor, DS, the file); a JSON key keeps its punctuation, so that
# BPE can learn `","bbox_2d":[` as one token: a box is then 14 tokens, not 21.
SPLIT = r"""[\[\]{}":,]*"\w+":[\[{"]*|\p{Lu}(?=\p{Lu})| ?\p{L}+(?:-\p{L}+)*|\p{N}| ?[^\s\p{L}\p{N}]+|\s+"""


class Tokenizer:
    """ids for text, ChatML pieces for conversations.

    >>> tok.decode(tok.question("Locate the bed."))
    'Locate the bed.<|im_end|>\\n<|im_start|>assistant\\n'
    """

    def __init__(self, bpe, companions=None):
        self.bpe = bpe
        self.companions = companions or {COMPANIONS[0]: json.dumps(CONFIG, indent=2)}  # texts by file name
        self.has_system = any(SYSTEM in text for text in self.companions.values())
        bpe.encode_special_tokens = True  # a special token's name inside a user's text stays text
        missing = [name for name in SPECIAL_TOKENS if bpe.token_to_id(name) is None]
        if missing:
            raise ValueError(f"tokenizer lacks {', '.join(missing)}: this is not a Qwen2.5-VL vocabulary")
        self.pad_id, self.im_start_id, self.im_end_id, self.vision_start_id, self.vision_end_id, \
            self.image_id, self.video_id = map(bpe.token_to_id, SPECIAL_TOKENS)  # fmt: skip
        self.eos_ids = (self.im_end_id, self.pad_id)
        # What a completion may never contain: the places that images fill, and their brackets.
        self.vision_ids = (self.vision_start_id, self.vision_end_id, self.image_id, self.video_id)

    @classmethod
    def train(cls, texts, vocab_size=1024):
        """A new byte-level BPE of at most `vocab_size` tokens from an iterable of texts."""
        bpe = tokenizers.Tokenizer(models.BPE())
        bpe.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ])
        bpe.decoder = decoders.ByteLevel()
        bpe.train_from_iterator(texts, trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=SPECIAL_TOKENS,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ))
        return cls(bpe)

    @classmethod
    def load(cls, folder):
        """The tokenizer of a Hugging Face folder."""
        folder = Path(folder)
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise ValueError(f"{path}: no such file; a checkpoint folder holds its tokenizer.json")
        found = {name: (folder / name).read_text(encoding="utf-8") for name in COMPANIONS if (folder / name).is_file()}
        return cls(tokenizers.Tokenizer.from_file(str(path)), found)

    def save(self, folder):
        """Write tokenizer.json and what belongs beside it, so that transformers opens the folder."""
        self.bpe.save(str(Path(folder) / "tokenizer.json"))
        for name, text in self.companions.items():
            (Path(folder) / name).write_text(text, encoding="utf-8")

    def __len__(self):
        return self.bpe.get_vocab_size()

    def encode(self, text):
        """Ids of plain text; the names of special tokens inside it are text, never tokens."""
        return self.bpe.encode(text, add_special_tokens=False).ids

    def decode(self, ids):
        """Text of ids, special tokens shown by name."""
        return self.bpe.decode(list(ids), skip_special_tokens=False)

    def pieces(self, other, i):
        """Ids here that spell another tokenizer's token i; of a token of both, its own."""
        own = self.bpe.token_to_id(other.bpe.id_to_token(i))
        return self.encode(other.decode([i])) if own is None else [own]

    # ChatML, in the three pieces that training and generation put together:
    #   <|im_start|>user\n<|vision_start|>..<|vision_end|>   prefix, shared by every question about the images;
    #                                                        a published Qwen's begins with a system's turn
    #   question<|im_end|>\n<|im_start|>assistant\n           question
    #   answer<|im_end|>                                      answer, the only piece with a loss

    def prefix(self, token_counts, is_video=False):
        """Opening of the user's turn with one run of places for each image, or for the video."""
        ids = []
        if self.has_system:
            ids += [self.im_start_id, *self.encode("system\n" + SYSTEM), self.im_end_id, *self.encode("\n")]
        ids += [self.im_start_id, *self.encode("user\n")]
        place = self.video_id if is_video else self.image_id
        for count in token_counts:
            ids += [self.vision_start_id, *[place] * count, self.vision_end_id]
        return ids

    def question(self, text):
        """The user's text and the opening of the assistant's turn."""
        return [*self.encode(text), self.im_end_id, *self.encode("\n"), self.im_start_id, *self.encode("assistant\n")]

    def answer(self, text):
        """The assistant's text and the token that ends it."""
        return [*self.encode(text), self.im_end_id]
