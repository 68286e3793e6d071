"""What train.py shows before it starts: an example as the model reads it, sizes, and memory."""

from dataclasses import replace
from itertools import groupby

from nanoladder.batches import IGNORE_INDEX
from nanoladder.image import image_tokens

LINES, WIDTH = 8, 96  # of the example that is shown: all of it need not fit on a screen
MANY = 1000  # image tokens of a picture from which on a line says how to have fewer


def largest_pictures(groups, config):
    """(image tokens of the sequence that has most, of the picture that has most, and its size)."""
    rows = [group[0] for group in groups]
    tokens = {size: image_tokens(size, config) for size in {s for row in rows for s in row.sizes}}
    of_row = [sum(tokens[size] for size in row.sizes) for row in rows]
    for k, row in enumerate(rows):
        if row.data_type == "video":  # frames share temporal patches
            of_row[k] = -(-len(row.sizes) // config.temporal_patch_size) * tokens[row.sizes[0]]
    largest = max(tokens, key=lambda size: (tokens[size], size))
    return max(of_row), tokens[largest], largest


def picture_bytes(groups, config, s):
    """Bytes of the uint8 clips of a forward pass, if each sequence has as many as the largest."""
    shown = [group[0].sizes for group in groups]
    tokens = {size: image_tokens(size, config) for size in {s for sizes in shown for s in sizes}}
    largest = max(sum(tokens[size] for size in sizes) for sizes in shown)
    return 3 * config.factor**2 * largest * (s.micro_batch_size or s.batch_size)


def estimate_memory(model, s, length, pictures, supervised):
    """GiB that a rank needs for sequences of `length` tokens; a split model is counted whole.

    pictures: how many of them are image tokens. supervised: how many have a loss.
    """
    c, v, width = model.config, model.config.vision, 2 if s.amp else 4  # bytes of an activation
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    activations = supervised * c.vocab_size * 4 * 3  # logits, their softmax and their gradient
    for depth, rows, hidden, inner in [
        (c.num_hidden_layers, length, c.hidden_size, c.intermediate_size),
        (v.depth, pictures * v.spatial_merge_size**2, v.hidden_size, v.intermediate_size),
    ]:
        block = rows * (10 * hidden + 4 * inner) * width  # a block keeps about 10 widths and 4 MLPs
        activations += depth * rows * hidden * width + block if s.recompute else depth * block
    need = {
        "weights": sum(p.numel() * p.element_size() for p in model.parameters()),
        "gradients": 4 * trained,
        "optimizer": trained * (4 if s.muon_lr and not s.lora_rank else 8),
        "activations": (s.micro_batch_size or s.batch_size) * activations,
    }
    return {name: size / 2**30 for name, size in need.items()}


def weights(module):
    return sum(p.numel() for p in module.parameters())


def marked(example, tokenizer):
    """An example's text; what has a loss stands in [[ ]], and for image tokens their number."""
    text, pictures = "", (tokenizer.image_id, tokenizer.video_id)
    kinds = [(i in pictures, label != IGNORE_INDEX) for i, label in zip(*example)]
    for (is_picture, has_loss), part in groupby(zip(kinds, example[0]), lambda pair: pair[0]):
        ids = [token for _, token in part]
        own = f"({len(ids)} image tokens)" if is_picture else tokenizer.decode(ids)
        text += f"[[{own}]]" if has_loss else own
    return text


def explain(s, dataset, example, policy, say):
    """Show one example of the dataset, what its pictures cost, and what the run will need."""
    (model, tokenizer, config), ids = policy[:3], example["input_ids"]
    supervised = sum(label != IGNORE_INDEX for label in example["labels"])
    say(f"one example ({len(ids)} tokens, of which {supervised} in [[ ]] have a loss):")
    lines = marked((ids, example["labels"]), tokenizer).split("\n")
    for line in lines[:LINES]:
        say("  " + (line if len(line) <= WIDTH else line[: WIDTH - 3] + "..."))
    if len(lines) > LINES:
        say(f"  ({len(lines) - LINES} lines more)")
    most, tokens, size = largest_pictures(dataset.groups, config)
    if tokens > MANY:
        limit = max(config.min_pixels, 512 * config.factor**2)
        fewer = image_tokens(size, replace(config, max_pixels=limit))
        cost = f"{tokens:,} image tokens each at most ({size[0]} x {size[1]})"
        say(f"pictures: {cost}; --max-pixels {limit} makes that {fewer}")
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    parts = f"vision {weights(model.visual):,}, decoder {weights(model.model):,}"
    say(f"parameters: {parts}, all {model.num_parameters():,}, of which {trained:,} are trained")
    patches = sum(t * h * w for t, h, w in example["grid_thw"])
    longest = len(ids) - patches // config.merge_size**2 + most
    need = estimate_memory(model, s, longest, most, supervised)
    shown = " + ".join(f"{name} {size:.1f}" for name, size in need.items())
    say(f"memory with the largest pictures, roughly: {sum(need.values()):.1f} GiB = {shown}")
