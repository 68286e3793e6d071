"""What train.py shows before it starts: an example as the model reads it, sizes, and memory."""

from nanoladder.batches import IGNORE_INDEX


def estimate_memory(model, s, example):
    """GiB that a rank needs for sequences like `example`; a split model is counted whole."""
    c, v, width = model.config, model.config.vision, 2 if s.amp else 4  # bytes of an activation
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    supervised = sum(label != IGNORE_INDEX for label in example["labels"])
    activations = supervised * c.vocab_size * 4 * 3  # logits, their softmax and their gradient
    for depth, rows, hidden, inner in [
        (c.num_hidden_layers, len(example["input_ids"]), c.hidden_size, c.intermediate_size),
        (v.depth, len(example["pixel_values"]), v.hidden_size, v.intermediate_size),
    ]:
        block = rows * (10 * hidden + 4 * inner) * width  # a block keeps about 10 widths and 4 MLPs
        kept = depth * rows * hidden * width + block if s.recompute else depth * block
        activations += kept
    need = {
        "weights": sum(p.numel() * p.element_size() for p in model.parameters()),
        "gradients": 4 * trained,
        "optimizer": trained * (4 if s.muon_lr and not s.lora_rank else 8),
        "activations": s.micro_batch_size * activations,
    }
    return {name: size / 2**30 for name, size in need.items()}


def flops(model, grid_thw, lengths):
    """Floating-point operations of one forward and backward pass over these pictures and sequences.

    6 for each weight and token that meet, plus attention (PaLM, arXiv 2204.02311, appendix B).
    Activation checkpointing's second forward pass is not counted. Divided by the seconds and by
    the device's peak it gives the utilisation.
    """
    c, v = model.config, model.config.vision
    patches, tokens = sum(t * h * w for t, h, w in grid_thw), sum(lengths)
    image_tokens = patches // v.spatial_merge_size**2

    def size(module):
        return sum(p.numel() for p in module.parameters())

    weights = patches * (size(model.visual.patch_embed) + size(model.visual.blocks))
    weights += image_tokens * size(model.visual.merger)
    weights += tokens * (size(model.model.layers) + size(model.lm_head))
    full, window = (
        len(v.fullatt_block_indexes),
        (v.window_size // v.patch_size) ** 2,
    )  # blocks, patches
    pairs = sum(
        t * h * w * (full * h * w + (v.depth - full) * min(h * w, window)) for t, h, w in grid_thw
    )  # of patches that attend to one another, over all blocks
    causal = c.num_hidden_layers * sum(length**2 for length in lengths) / 2
    return 6 * (weights + 2 * (pairs * v.hidden_size + causal * c.hidden_size))


def explain(s, example, model, tokenizer, say):
    """Show a training example; what the loss is computed on stands between ⟦ and ⟧."""
    text, inside = "", False
    for token, label in zip(example["input_ids"], example["labels"]):
        if token in (tokenizer.image_id, tokenizer.video_id):
            text += "·"
            continue
        if (label != IGNORE_INDEX) != inside:
            text, inside = text + ("⟧" if inside else "⟦"), not inside
        text += tokenizer.decode([token])
    length = len(example["input_ids"])
    supervised = sum(label != IGNORE_INDEX for label in example["labels"])
    say(
        f"one example ({length} tokens, {supervised} supervised between ⟦ and ⟧, · an image token):"
    )
    say("  " + (text + "⟧" * inside).replace("\n", "\n  "))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    parts = {"vision": model.visual, "decoder": model.model}
    sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    shown = ", ".join(f"{name} {size:,}" for name, size in sizes.items())
    say(f"parameters: {shown}, all {model.num_parameters():,}, of which {trained:,} are trained")
    need = estimate_memory(model, s, example)
    shown = " + ".join(f"{name} {size:.1f}" for name, size in need.items())
    say(f"memory, roughly: {sum(need.values()):.1f} GiB = {shown}")
