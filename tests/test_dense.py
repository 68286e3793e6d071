"""Stage 0's dense loss: its targets by hand, and its value from its definition."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from data.rooms.dense import (
    INDEX_IMAGES,
    OBJECT_WEIGHT,
    WEIGHT,
    WORDS,
    DenseLoss,
    dense_targets,
    grid_squares,
    index_shares,
)
from data.rooms.questions import NAMES
from nanoladder.batches import Dataset, collate, on_device
from nanoladder.checkpoint import BASE, Policy
from nanoladder.command import UserError
from nanoladder.image import ImageConfig
from nanoladder.schema import read_rows
from train import AnswerLoss

CONFIG = ImageConfig(patch_size=8, coordinates=True)
ENDS = dict(zip(WORDS, np.cumsum([len(words) for words in WORDS.values()]).tolist()))


def part(targets, kind):
    """The columns of dense_targets that belong to one of WORDS."""
    return targets[:, ENDS[kind] - len(WORDS[kind]) : ENDS[kind]]


def write_index_images(path, value):
    """The four index images of a picture, filled with one value."""
    for kind in INDEX_IMAGES:
        Image.fromarray(np.full((96, 96), value, np.uint8)).save(path.with_suffix(f".{kind}.png"))


def test_index_shares_count_pixels(tmp_path):
    index = np.zeros((96, 96), np.uint8)
    index[:16, 16:24] = 5  # the left half of the second cell
    index[80:, 80:] = 2  # the last cell
    Image.fromarray(index).save(tmp_path / "a.names.png")
    shares = index_shares(tmp_path / "a.names.png", 6, 6, 16, 7)
    assert shares.shape == (36, 7) and torch.allclose(shares.sum(1), torch.ones(36))
    assert shares[1, 5] == 0.5 and shares[35, 2] == 1 and shares[0, 0] == 1
    with pytest.raises(UserError, match="b.names.png: not a readable index image"):
        index_shares(tmp_path / "b.names.png", 6, 6, 16, 7)


def test_a_token_of_a_video_gets_the_mean_of_its_two_frames(tmp_path):
    paths = tuple(tmp_path / f"000001_video_{k}.png" for k in range(4))
    for k, path in enumerate(paths):
        write_index_images(path, k)
    film = SimpleNamespace(images=paths, data_type="video")
    targets = dense_targets(film, [(2, 12, 12)], CONFIG)["dense_targets"]
    assert targets.shape == (72, ENDS["along"])
    assert torch.equal(targets[:36, :16], grid_squares(6, 6))
    picture = part(targets, "pictures")
    assert picture[:36, 0].eq(1).all() and picture[36:, 1].eq(1).all()
    assert picture.sum(1).eq(1).all()
    halves = torch.tensor([[0.5, 0.5, 0, 0, 0], [0, 0, 0.5, 0.5, 0]]).repeat_interleave(36, 0)
    for kind in INDEX_IMAGES:
        assert torch.equal(part(targets, kind)[:, :5], halves)
        assert part(targets, kind)[:, 5:].eq(0).all()
    album = SimpleNamespace(images=paths, data_type="multi_view")
    targets = dense_targets(album, [(1, 12, 12)] * 4, CONFIG)["dense_targets"]
    assert targets.shape == (144, ENDS["along"])
    assert part(targets, "pictures")[36:72, 1].eq(1).all()
    assert part(targets, "names")[36:72, 1].eq(1).all()


def test_an_album_of_different_rooms_has_no_common_floor(tmp_path):
    first, second, other = (
        tmp_path / f"{name}.png"
        for name in ("000001_multi_view_00", "000001_multi_view_01", "000002_multi_view_00")
    )
    for path in (first, second, other):
        write_index_images(path, 3)
    for pictures, total in (((first, second), 1), ((first, other), 0)):
        row = SimpleNamespace(images=pictures, data_type="multi_view")
        targets = dense_targets(row, [(1, 12, 12)] * 2, CONFIG)["dense_targets"]
        for kind in ("names", "depths"):
            assert part(targets, kind).sum(1).eq(1).all()
        for kind in ("across", "along"):
            assert part(targets, kind).sum(1).eq(total).all()


def test_every_image_token_has_its_square_of_the_board():
    squares = grid_squares(6, 8)  # six rows of eight tokens
    assert squares.shape == (48, 16)
    columns, rows = squares.view(6, 8, 2, 8).unbind(2)
    torch.testing.assert_close(columns, torch.eye(8).expand(6, -1, -1))
    third = torch.zeros(8)
    third[2], third[3] = 1 / 4, 3 / 4  # the third of six rows reaches from 2 2/3 to 4 rows
    torch.testing.assert_close(rows[2, 5], third)
    torch.testing.assert_close(rows.sum(-1), torch.ones(6, 8))


def test_the_dense_loss_is_its_definition(rooms):
    """A mean over cells for each thing asked, where objects weigh more for names and the floor."""
    model, tok, image_config, _ = Policy.load(BASE)
    row = read_rows(rooms / "train" / "seeing.jsonl")[0]
    extra = partial(dense_targets, image_config=image_config)
    example = Dataset([row], tok, image_config, model.config, extra=extra)[0, 0, 0]
    batch = on_device(collate([example]), image_config, torch.device("cpu"))
    words = {
        **{"columns": "abcdefgh", "rows": "12345678", "pictures": "ijklmnop"},
        **{"names": [" " + name for name in NAMES], "depths": "stuvwxyz"},
        **{"across": "ABCDEFGHIJKL", "along": "MNOPQRSTUV"},
    }
    ids = {kind: [tok.encode(word)[0] for word in asked] for kind, asked in words.items()}
    with torch.no_grad():
        answers, loss = DenseLoss(AnswerLoss(model), tok, "cpu")(batch)
        state = model.model.norm(model.visual(batch["pixel_values"], batch["grid_thw"]))
        head = model.lm_head.weight.detach()
    assert answers == 0  # no question was asked
    expected, start = 0.0, 0
    targets = example["dense_targets"]
    objects = targets[:, 24:][:, 3 : len(NAMES)].sum(1)  # share of each cell that is an object
    for kind, own in ids.items():
        target = targets[:, start : start + len(own)]
        assert torch.allclose(target.sum(1), torch.ones(len(target)))
        heavier = kind in ("names", "across", "along")
        weights = [1 + OBJECT_WEIGHT * float(cell) if heavier else 1.0 for cell in objects]
        logprobs = (state @ head[own].T).log_softmax(-1)
        missed = [-float((cell * logprobs[i]).sum()) for i, cell in enumerate(target)]
        expected += sum(w * m for w, m in zip(weights, missed)) / sum(weights)
        start += len(own)
    assert float(loss) == pytest.approx(WEIGHT * expected, rel=1e-4)
