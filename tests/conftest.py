"""A tiny data folder that the tests share: 24 rooms a split, made by the real prepare script."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
torch.set_num_threads(2)


@pytest.fixture(scope="session")
def rooms(tmp_path_factory):
    """Folder of a small rooms data set with localization and seeing rows."""
    folder = tmp_path_factory.mktemp("data") / "rooms"
    prepare(folder, "--seeing")
    return folder


def prepare(folder, *flags):
    command = [sys.executable, "-m", "data.rooms.prepare", "--out", str(folder), "--pictures", "24", "--held-out", "8",
               "--view-sets", "0", "--videos", "0", *flags]  # fmt: skip
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
