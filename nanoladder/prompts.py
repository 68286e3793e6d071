"""From rows to words: what the user asks and what the assistant should answer.

This is the only wording around a question. The tokens of a conversation are
nanoladder/tokenizer.py's.
"""

import json
from string import ascii_uppercase

from nanoladder.image import rescale_box, resized_size

# What follows a question that is to be thought about first; rewards.parse_thought reads the answer.
THINK = "Think in <think></think>, then answer in <answer></answer>."


def prompt_text(row):
    """The question, its options, the form of the answer, and whether to think first.

    >>> prompt_text(row)
    'Which is nearest to the bed?\\nOptions: A. lamp B. sofa C. desk\\nAnswer with one option.'
    """
    lines = [row.question]
    if row.form == "choice":
        lines += [f"Options: {' '.join(row.options)}", "Answer with one option."]
    if row.form == "number":
        lines.append("Answer with a number.")
    return "\n".join([*lines, THINK] if row.think else lines)


def target_text(row, image_config):
    """What the assistant learns to say: the answer, after its rationale where the row has one.

    Boxes are JSON with the label first, because the place is found by the name. A choice is
    answered in its words: a small model learns which object is meant long before it learns which
    letter stands before that object. rewards.parse_choice reads words and letters.

    >>> target_text(boxes_row, image_config), target_text(choice_row, image_config)
    ('[{"label":"chair","bbox_2d":[12,34,56,78]}]', 'sofa')
    """
    if row.form == "boxes":
        return json.dumps(boxes_in_input(row, image_config), separators=(",", ":"))
    if row.solution:
        return row.solution
    answer = row.answer
    if row.form == "choice":
        answer = row.options[ascii_uppercase.index(row.answer)][len("A. ") :]
    return f"{row.rationale}\n{answer}" if row.rationale else answer


def boxes_in_input(row, image_config):
    """A row's boxes in whole pixels of the resized image, at least one pixel wide and tall."""
    size, resized, boxes = row.sizes[0], resized_size(row.sizes[0], image_config), []
    for item in row.answer:
        x1, y1, x2, y2 = map(round, rescale_box(item["bbox_2d"], size, resized))
        x1, y1 = min(x1, resized[0] - 1), min(y1, resized[1] - 1)
        box = [x1, y1, max(x2, x1 + 1), max(y2, y1 + 1)]
        boxes.append({"label": item["label"], "bbox_2d": box})
    return boxes
