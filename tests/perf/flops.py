"""How many operations a step needs, for the benchmarks in this folder."""

from nanoladder.preview import weights


def flops(model, grid_thw, lengths):
    """Floating-point operations of one forward and backward pass over these pictures and sequences.

    6 for each weight and token that meet, plus attention (PaLM, arXiv 2204.02311, appendix B).
    Activation checkpointing's second forward pass is not counted. Divided by the seconds and by
    the device's peak it gives the utilisation.
    """
    c, v = model.config, model.config.vision
    patches, tokens = sum(t * h * w for t, h, w in grid_thw), sum(lengths)
    met = patches * (weights(model.visual.patch_embed) + weights(model.visual.blocks))
    met += patches // v.spatial_merge_size**2 * weights(model.visual.merger)
    met += tokens * (weights(model.model.layers) + weights(model.lm_head))
    full, window = len(v.fullatt_block_indexes), (v.window_size // v.patch_size) ** 2  # patches
    pairs = sum(
        t * h * w * (full * h * w + (v.depth - full) * min(h * w, window)) for t, h, w in grid_thw
    )  # of patches that attend to one another, over all blocks
    causal = c.num_hidden_layers * sum(length**2 for length in lengths) / 2
    return 6 * (met + 2 * (pairs * v.hidden_size + causal * c.hidden_size))
