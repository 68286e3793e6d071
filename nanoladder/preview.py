"""What train.py shows before it starts: an example as the model reads it, the model's size, the memory it will need."""

from nanoladder.dataset import IGNORE_INDEX


def estimate_memory(model, s, example):
    """GiB a rank holds while training on sequences like `example`, by what for; a split model counted whole."""
    c, v, width = model.config, model.config.vision, 2 if s.amp else 4  # bytes of an activation
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    supervised = sum(label != IGNORE_INDEX for label in example["labels"])
    activations = supervised * c.vocab_size * 4 * 3  # logits, their softmax and gradient
    for depth, rows, hidden, inner in [
        (c.num_hidden_layers, len(example["input_ids"]), c.hidden_size, c.intermediate_size),
        (v.depth, len(example["pixel_values"]), v.hidden_size, v.intermediate_size),
    ]:
        block = rows * (10 * hidden + 4 * inner) * width  # what a block keeps: about 10 widths, 4 of its MLP's
        activations += depth * rows * hidden * width + block if s.recompute else depth * block
    need = {
        "weights": sum(p.numel() * p.element_size() for p in model.parameters()),
        "gradients": 4 * trained,
        "optimizer": trained * (4 if s.muon_lr and not s.lora_rank else 8),
        "activations": s.micro_batch_size * activations,
    }
    return {k: n / 2**30 for k, n in need.items()}


def explain(s, dataset, model, tokenizer, say):
    """Show one training example as the model reads it, its supervised spans between ⟦ and ⟧."""
    example = dataset[(0, 0, s.questions)]
    text, inside = "", False
    for token, label in zip(example["input_ids"], example["labels"]):
        if token in (tokenizer.image_id, tokenizer.video_id):
            text += "·"
            continue
        if (label != IGNORE_INDEX) != inside:
            text, inside = text + ("⟧" if inside else "⟦"), not inside
        text += tokenizer.decode([token])
    supervised = sum(label != IGNORE_INDEX for label in example["labels"])
    say(f"one example ({len(example['input_ids'])} tokens, {supervised} supervised, each · an image token):")
    say("  " + (text + "⟧" * inside).replace("\n", "\n  "))
    parts = {"vision": model.visual, "decoder": model.model}
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    say("parameters: " + ", ".join(f"{k} {sum(p.numel() for p in m.parameters()):,}" for k, m in parts.items())
        + f", together {model.num_parameters():,} ({trained:,} of them trained); vocabulary {len(tokenizer)}")
    need = estimate_memory(model, s, example)
    say(f"memory, roughly: {sum(need.values()):.1f} GiB = " + " + ".join(f"{k} {v:.1f}" for k, v in need.items()))
