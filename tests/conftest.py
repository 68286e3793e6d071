"""What tests share: a tiny data folder made by the real prepare script, and Qwen's tokenizer."""

import base64
import importlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
# One thread for each of the processes in which pytest-xdist runs the tests.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)
# The environment of a machine whose terminal and files know ASCII only.
POOR = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}


def torchrun():
    """The beginning of a command that runs a script on two ranks. Skips the test on Windows."""
    if os.name == "nt":
        pytest.skip("PyTorch for Windows may lack libuv, without which torchrun does not start")
    return [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]


@pytest.fixture(scope="session")
def rooms(tmp_path_factory):
    """Folder of a small rooms data set that has all that stage 0 needs."""
    folder = tmp_path_factory.mktemp("data") / "rooms"
    prepare(folder, "--seeing", "--index-images", "--view-sets", "2", "--videos", "2")
    return folder


def prepare(folder, *flags):
    """Make a small rooms data set in the folder; flags override the numbers given here."""
    command = [sys.executable, "-m", "data.rooms.prepare", "--out", str(folder)]
    command += ["--pictures", "24", "--held-out", "8", "--view-sets", "0", "--videos", "0", *flags]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, encoding="utf-8")


# ---------------------------------------------------------------- Qwen's own vocabulary

TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ADDED = [
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>"),
    *("<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>"),
    *("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
]


def ranks_of_qwen(folder):
    """{bytes: id} of the Qwen vocabulary, from the file of BPE ranks in a wheel of PyPI.

    Skips the test where the wheel cannot be downloaded.
    """
    if not list(folder.glob("*.whl")):
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "dashscope==1.24.6"]
        command += ["-d", str(folder)]
        if subprocess.run(command, capture_output=True, timeout=60).returncode:
            pytest.skip("the wheel that holds Qwen's BPE ranks cannot be downloaded")
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        lines = wheel.read("dashscope/resources/qwen.tiktoken").split(b"\n")
    pairs = (line.split() for line in lines if line)
    return {base64.b64decode(word): int(rank) for word, rank in pairs}


def merges_of(ranks):
    """The pair from which each token is merged.

    It is what remains of the token's bytes after all merges into earlier tokens.
    """
    for word, rank in ranks.items():
        parts = [word[i : i + 1] for i in range(len(word))]
        while len(parts) > 2:
            joined = [ranks.get(a + b, rank) for a, b in zip(parts, parts[1:])]
            at = joined.index(min(joined))
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        if len(parts) == 2:
            yield tuple(parts)


@pytest.fixture(scope="session")
def qwen(request, tmp_path_factory):
    """A folder with Qwen's tokenizer as transformers writes it, and that tokenizer."""
    transformers = pytest.importorskip("transformers")
    ranks = ranks_of_qwen(request.config.cache.mkdir("qwen-bpe"))
    printable = importlib.import_module("transformers.convert_slow_tokenizer").bytes_to_unicode()

    def spell(word):
        return "".join(printable[b] for b in word)

    vocab = {spell(word): rank for word, rank in ranks.items()}
    theirs = transformers.Qwen2Tokenizer(
        vocab=vocab | {name: len(ranks) + i for i, name in enumerate(ADDED)},
        merges=[tuple(map(spell, pair)) for pair in merges_of(ranks)],
        eos_token="<|im_end|>",
        extra_special_tokens=ADDED,
        chat_template=TEMPLATE,
    )
    folder = tmp_path_factory.mktemp("qwen")
    theirs.save_pretrained(folder)
    return folder, theirs
