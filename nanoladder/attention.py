"""Where a model looks while it answers: attention on image tokens, and its share inside boxes.

    weights = image_attention(model, prompt, tokenizer.answer("[..]"))    # [image tokens]
    inside, area = share_in_boxes(weights.reshape(rows, columns), boxes, size)

More attention than chance lies inside the boxes if inside > area. The fast attention of model.py
never stores its weights, so they are computed here again: a hook on every layer sees the input of
its attention, and softmax(q k^T / sqrt(Dh)) gives the weights. SpatialLadder's paper shows such
maps before and after training.
"""

import numpy as np
import torch

from nanoladder.model import rotate


@torch.no_grad()
def image_attention(model, prompt, answer_ids):
    """Attention on each image token [image tokens], the mean over answer tokens, layers and heads.

    prompt: of encode_prompt(..., ask=True), about one picture. An answer token is predicted at the
    place before it, so the places are the prompt's last token and all answer tokens but the last.
    The sum is the share of all attention that goes to the picture; the rest goes to words.
    """
    c, device = model.config, model.lm_head.weight.device
    ids = torch.tensor([prompt["input_ids"] + answer_ids[:-1]], device=device)  # [1, T]
    first, T = len(prompt["input_ids"]) - 1, ids.shape[1]
    behind = torch.arange(len(answer_ids) - 1).expand(3, -1) + prompt["next_position"]
    positions = torch.cat((prompt["position_ids"], behind), dim=1)[:, None].to(device)  # [3, 1, T]
    causal = torch.ones(T, T, dtype=torch.bool, device=device).tril()
    causal = causal[first:]  # [A, T] for A answer tokens
    seen = []

    def look(attention, args):
        x, (cos, sin) = args[:2]
        q, k = (
            rotate(project(x).view(T, -1, c.head_dim).transpose(0, 1), cos[0], sin[0])
            for project in (attention.q_proj, attention.k_proj)
        )  # [H, T, Dh], [K, T, Dh]
        q, k = q[:, first:], k.repeat_interleave(len(q) // len(k), dim=0)  # [H, A, Dh], [H, T, Dh]
        scores = (q.float() @ k.float().transpose(1, 2)) / c.head_dim**0.5  # [H, A, T]
        weights = scores.masked_fill(~causal, float("-inf")).softmax(-1, dtype=torch.float32)
        seen.append(weights.mean((0, 1)))  # [T]

    hooks = [layer.self_attn.register_forward_pre_hook(look) for layer in model.model.layers]
    try:
        model(ids, positions, model.visual(prompt["pixel_values"].to(device), prompt["grid_thw"]))
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(seen).mean(0)[ids[0] == c.image_token_id].cpu().numpy()


def share_in_boxes(weights, boxes, size):
    """Share of a picture's attention that falls inside any box, and the boxes' share of its area.

    weights [rows, columns] of image tokens; boxes in pixels of the picture of `size` (width,
    height). A cell that a box covers in part counts in part, so even attention gives a share equal
    to the area.
    """
    (rows, columns), (width, height) = weights.shape, size
    inside = np.zeros((height, width))
    for x1, y1, x2, y2 in boxes:
        inside[round(y1) : round(y2), round(x1) : round(x2)] = 1
    cells = inside.reshape(rows, height // rows, columns, width // columns)
    cover = cells.mean(axis=(1, 3))  # share of each cell that the boxes cover
    return float((weights * cover).sum() / weights.sum()), float(cover.mean())
