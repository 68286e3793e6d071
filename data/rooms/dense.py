"""Stage 0's dense loss: what each image token shows, and where that is.

The loss applies the output head to each image token, as if the token were the decoder's last state,
and trains it to predict words for what its cell of the picture contains. It adds no parameters, and
it brings the vision encoder's tokens close to the embeddings of these words. It stands in for the
pretraining that SpatialLadder's vision encoder came with. What is asked of each token (WORDS):

    columns, rows    the letter and the digit of its square in an 8 x 8 grid over the picture
    pictures         the letter of its picture, where a sequence has several
    names            the names of the things in its cell
    depths           a letter for the distance of these things
    across, along    the two letters of the square of the floor on which they stand (floor.py)

The truth comes from index images, which prepare.py --index-images writes beside each picture.
"""

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from data.rooms.floor import ACROSS, ALONG
from data.rooms.questions import NAMES, SHELL
from data.rooms.seeing import BOARD, DEPTHS, PICTURES
from nanoladder.batches import IGNORE_INDEX
from nanoladder.command import UserError

SIDE = 8  # columns and rows of the grid, and pictures that are told apart
WORDS = {
    "columns": BOARD[0],
    "rows": BOARD[1],
    "pictures": PICTURES,
    "names": [" " + name for name in NAMES],
    "depths": DEPTHS,
    "across": ACROSS,
    "along": ALONG,
}
FLOOR = ("across", "along")
INDEX_IMAGES = ("names", "depths", *FLOOR)
WEIGHT = 3.0  # of the dense loss beside the loss of the answers
# Most cells show bare walls. A cell full of an object counts so many times more for its name and
# its square of the floor: 30 % of object cells were named after six minutes, instead of 24 %.
OBJECT_WEIGHT = 4.0


class DenseLoss(nn.Module):
    """The loss of the answers, and beside it the dense loss. answer_loss: train.AnswerLoss."""

    may_skip_parameters = True  # a step without questions gives the decoder's layers no gradient

    def __init__(self, answer_loss, tokenizer, device):
        super().__init__()
        self.answer_loss, self.model = answer_loss, answer_loss.model
        self.ids = {
            kind: torch.tensor([tokenizer.encode(word)[0] for word in words], device=device)
            for kind, words in WORDS.items()
        }

    def forward(self, batch):
        """A batch with dense_targets -> the loss summed over answer tokens, and the dense loss."""
        image_embeds = self.model.visual(batch["pixel_values"], batch["grid_thw"])
        answers = torch.zeros((), device=image_embeds.device)
        if (batch["labels"] != IGNORE_INDEX).any():
            answers = self.answer_loss.of_answers(batch, image_embeds)
        return answers, WEIGHT * self.dense(image_embeds, batch["dense_targets"])

    def dense(self, image_embeds, targets):
        """Sum over WORDS of weighted mean cross-entropies. image_embeds [M, D], targets [M, W]."""
        state = self.model.model.norm(image_embeds)
        targets = targets.split([len(ids) for ids in self.ids.values()], dim=1)
        targets = dict(zip(self.ids, targets, strict=True))
        objects = 1 + OBJECT_WEIGHT * (1 - targets["names"][:, : len(SHELL)].sum(-1))
        total = torch.zeros((), device=image_embeds.device)
        for kind, ids in self.ids.items():
            # The softmax is over these words only. Over the whole vocabulary it would give all
            # other tokens the same gradient, and their embeddings would become equal.
            logprobs = F.linear(state, self.model.lm_head.weight[ids]).float().log_softmax(-1)
            missed = -(targets[kind] * logprobs).sum(-1)
            weight = targets[kind].sum(-1)  # 1, or 0 where it is not asked
            if kind in ("names", *FLOOR):
                weight = weight * objects
            total = total + (weight * missed).sum() / weight.sum().clamp(min=1)
        return total


# ---------------------------------------------------------------- targets


def dense_targets(row, grids, image_config):
    """{"dense_targets": [image tokens, words]}: shares of each token's cell, in the order of WORDS.

    The shares of each thing asked sum to 1. An album shows several rooms, which share no floor, so
    its shares of the floor are 0. A token of a video shows the same cell of two frames, and its
    shares are their mean.
    """
    is_album = len({path.name.split("_")[0] for path in row.images}) > 1  # names begin with a room
    is_video = row.data_type == "video"
    pace = image_config.temporal_patch_size if is_video else 1
    grids, shares = list(grids) * (len(row.images) if is_video else 1), []
    for number, (path, grid) in enumerate(zip(row.images, grids, strict=True)):
        rows, cols = grid[1] // image_config.merge_size, grid[2] // image_config.merge_size
        side = image_config.patch_size * image_config.merge_size
        indices = [
            index_shares(path.with_suffix(f".{kind}.png"), rows, cols, side, len(WORDS[kind]))
            * (kind not in FLOOR or not is_album)
            for kind in INDEX_IMAGES
        ]
        picture = torch.eye(SIDE)[min(number // pace, SIDE - 1)].expand(rows * cols, -1)
        shares.append(torch.cat((grid_squares(rows, cols), picture, *indices), dim=1))
    if is_video:
        targets = torch.stack(shares).unflatten(0, (-1, pace)).mean(1).flatten(0, 1)
    else:
        targets = torch.cat(shares)
    return {"dense_targets": targets}


def index_shares(path, rows, cols, side, count):
    """Share of each value's pixels in the cells of an index image: [rows * cols, count].

    A cell is side x side pixels. UserError where the image is missing or cannot be read.
    """
    try:
        with Image.open(path) as image:
            sized = image.resize((cols * side, rows * side), Image.Resampling.NEAREST)
            index = np.asarray(sized).astype(np.int64)
    except OSError as error:
        raise UserError(
            f"{path}: not a readable index image ({error}), which stage 0 needs: make the data "
            "with data.rooms.prepare --index-images"
        ) from None
    cells = index.reshape(rows, side, cols, side).swapaxes(1, 2).reshape(rows * cols, side * side)
    flat = cells + count * np.arange(rows * cols)[:, None]
    counts = np.bincount(flat.ravel(), minlength=rows * cols * count)
    return torch.from_numpy(counts.reshape(rows * cols, count) / side**2).float()


def grid_squares(rows, cols):
    """Shares of each image token's cell in the grid's columns and rows: [rows * cols, 8 + 8]."""

    def shares(count):  # of one side's `count` cells: [count, 8]
        cell, line = torch.arange(count)[:, None] / count, torch.arange(SIDE) / SIDE
        end = torch.minimum(cell + 1 / count, line + 1 / SIDE)
        return count * (end - torch.maximum(cell, line)).clamp(min=0)

    across = shares(cols).expand(rows, -1, -1)
    down = shares(rows)[:, None].expand(-1, cols, -1)
    return torch.cat((across, down), dim=-1).flatten(0, 1)
