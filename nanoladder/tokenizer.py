"""Text to ids and back, and Qwen's ChatML layout, around a byte-level BPE of `tokenizers`.

A small model's tokenizer is trained on its data's own texts (Tokenizer.train); a Qwen folder's
tokenizer.json loads with the same class. Special tokens are looked up by name, so this file
knows no ids.
"""

import dataclasses
import json
from pathlib import Path

import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

from nanoladder.command import UserError
from nanoladder.files import write_json
from nanoladder.prompts import DEFAULT, PromptSet

# Qwen2.5-VL's own names. The first is padding, the third ends an assistant's turn.
SPECIAL_TOKENS = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>",
    "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>",
]  # fmt: skip

SYSTEM = "You are a helpful assistant."  # what Qwen's chat template says by itself
# Files beside tokenizer.json that are kept as they are, because transformers opens them.
COMPANIONS = ("tokenizer_config.json", "chat_template.json", "chat_template.jinja")
PROMPTS = "prompts.json"  # the prompt set with which the checkpoint was trained
CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "eos_token": "<|im_end|>",
    "pad_token": "<|endoftext|>",
    "clean_up_tokenization_spaces": False,
    "model_max_length": 32768,
}

# Words keep the space before them and their hyphens. Digits stand alone, because coordinates must
# be read digit by digit, and so does a capital before another capital. A JSON key keeps its
# punctuation, so that BPE can learn `","bbox_2d":[` as one token: a box is then 14 tokens instead
# of 21.
SPLIT = (
    r"""[\[\]{}":,]*"\w+":[\[{"]*|\p{Lu}(?=\p{Lu})| ?\p{L}+(?:-\p{L}+)*|\p{N}"""
    r"""| ?[^\s\p{L}\p{N}]+|\s+"""
)


class Tokenizer:
    """ids for text, ChatML pieces for conversations, and the prompt set of the questions.

    >>> tok.decode(tok.question("Locate the bed."))
    'Locate the bed.<|im_end|>\\n<|im_start|>assistant\\n'
    """

    def __init__(self, bpe, companions=None, prompts=DEFAULT):
        self.bpe, self.prompts = bpe, prompts
        self.companions = companions or {COMPANIONS[0]: json.dumps(CONFIG, indent=2)}
        self.system = SYSTEM if any(SYSTEM in text for text in self.companions.values()) else None
        bpe.encode_special_tokens = True  # a special token's name in a user's text stays text
        missing = [name for name in SPECIAL_TOKENS if bpe.token_to_id(name) is None]
        if missing:
            raise ValueError(
                f"tokenizer lacks {', '.join(missing)}: this is not a Qwen2.5-VL vocabulary"
            )
        self.pad_id, self.im_start_id, self.im_end_id, self.vision_start_id, self.vision_end_id, \
            self.image_id, self.video_id = map(bpe.token_to_id, SPECIAL_TOKENS)  # fmt: skip
        self.eos_ids = (self.im_end_id, self.pad_id)
        # A completion must never contain the places that images fill, nor their brackets.
        self.vision_ids = (self.vision_start_id, self.vision_end_id, self.image_id, self.video_id)

    @classmethod
    def train(cls, texts, vocab_size=1024):
        """A new byte-level BPE of at most `vocab_size` tokens from an iterable of texts."""
        bpe = tokenizers.Tokenizer(models.BPE())
        split = pre_tokenizers.Split(Regex(SPLIT), behavior="isolated")
        spell = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        bpe.pre_tokenizer = pre_tokenizers.Sequence([split, spell])
        bpe.decoder = decoders.ByteLevel()
        known = {"special_tokens": SPECIAL_TOKENS, "initial_alphabet": spell.alphabet()}
        trainer = trainers.BpeTrainer(vocab_size=vocab_size, show_progress=False, **known)
        bpe.train_from_iterator(texts, trainer)
        return cls(bpe)

    @classmethod
    def load(cls, folder):
        """The tokenizer of a Hugging Face folder. UserError where it holds none."""
        folder = Path(folder)
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise UserError(f"{path}: no such file; a checkpoint folder holds its tokenizer.json")
        paths, found = [folder / name for name in COMPANIONS if (folder / name).is_file()], {}
        try:
            bpe = tokenizers.Tokenizer.from_file(str(path))
            for path in paths:
                found[path.name] = path.read_text(encoding="utf-8")
        except Exception as error:  # tokenizers raises nothing narrower
            raise UserError(f"{path}: damaged or not a tokenizer's ({error})") from None
        own = folder / PROMPTS
        prompts = PromptSet.load(own) if own.is_file() else DEFAULT
        try:
            return cls(bpe, found, prompts)
        except ValueError as error:
            raise UserError(f"{folder}: {error}") from None

    def use_prompts(self, path):
        """Ask in the prompt set of a JSON file from now on; None keeps the checkpoint's own."""
        if path is not None:
            self.prompts = PromptSet.load(path)

    def save(self, folder):
        """Write tokenizer.json, its companions and the prompts, so that transformers opens it."""
        self.bpe.save(str(Path(folder) / "tokenizer.json"))
        for name, text in self.companions.items():
            (Path(folder) / name).write_text(text, encoding="utf-8")
        write_json(Path(folder) / PROMPTS, dataclasses.asdict(self.prompts))

    def __len__(self):
        """How many embeddings its ids need; a file may leave out some of them."""
        return max(self.bpe.get_vocab().values()) + 1

    def encode(self, text):
        """Ids of plain text; the names of special tokens inside it are text, never tokens."""
        return self.bpe.encode(text, add_special_tokens=False).ids

    def decode(self, ids):
        """Text of ids, special tokens shown by name."""
        return self.bpe.decode(list(ids), skip_special_tokens=False)

    # ChatML, in the three pieces that training and generation put together:
    #   <|im_start|>user\n<|vision_start|>..<|vision_end|>   prefix, shared by every question, after
    #                                                        the system turn where there is one
    #   question<|im_end|>\n<|im_start|>assistant\n           question
    #   answer<|im_end|>                                      answer, the only piece with a loss

    def prefix(self, token_counts, is_video=False):
        """Opening of the user's turn, with a run of places for each image, or for the video."""
        system, ids = self.system if self.prompts.system is None else self.prompts.system, []
        if system is not None:
            turn = self.encode("system\n" + system)
            ids += [self.im_start_id, *turn, self.im_end_id, *self.encode("\n")]
        ids += [self.im_start_id, *self.encode("user\n")]
        place = self.video_id if is_video else self.image_id
        for count in token_counts:
            ids += [self.vision_start_id, *[place] * count, self.vision_end_id]
        return ids

    def question(self, text):
        """The user's text and the opening of the assistant's turn."""
        opening = [*self.encode("\n"), self.im_start_id, *self.encode("assistant\n")]
        return [*self.encode(text), self.im_end_id, *opening]

    def answer(self, text):
        """The assistant's text and the token that ends it."""
        return [*self.encode(text), self.im_end_id]


def config_for_tokenizer(config, tokenizer):
    """The config of a model (nanoladder/model.py) with the tokenizer's vocabulary."""
    return dataclasses.replace(
        config,
        vocab_size=len(tokenizer),
        image_token_id=tokenizer.image_id,
        video_token_id=tokenizer.video_id,
        vision_start_token_id=tokenizer.vision_start_id,
        vision_end_token_id=tokenizer.vision_end_id,
        eos_token_id=tokenizer.im_end_id,
        pad_token_id=tokenizer.pad_id,
    )
