"""From rows to words: what the user asks and what the assistant should answer.

A PromptSet holds the wording around a question. The default one is ours. `--prompts FILE` reads
another one from JSON, and a checkpoint keeps the set that it was trained with. The tokens of a
conversation are nanoladder/tokenizer.py's.
"""

import json
import re
from dataclasses import dataclass, fields
from string import ascii_uppercase

from nanoladder.command import UserError
from nanoladder.files import read_json
from nanoladder.image import rescale_box, resized_size

# What follows a question that is to be thought about first; parse_thought reads the answer.
THINK = "Think in <think></think>, then answer in <answer></answer>."
MARK = re.compile(r"<image>\s*")  # some data sets mark in the question where its pictures go


@dataclass(frozen=True)
class PromptSet:
    """The wording around a question, and the form of the answers that are taught.

    A template holds {question}, and that of a choice {options}; all other braces are plain text.
    NAME_think is the template for a question that is to be thought about first; boxes never are.
    """

    system: str | None = None  # what the system's turn says; None: the checkpoint's chat template
    choice: str = "{question}\nOptions: {options}\nAnswer with one option."
    choice_think: str = f"{choice}\n{THINK}"
    number: str = "{question}\nAnswer with a number."
    number_think: str = f"{number}\n{THINK}"
    boxes: str = "{question}"
    text: str = "{question}"  # for free texts, and for motions of the camera
    text_think: str = f"{text}\n{THINK}"
    # Around the prompt of a benchmark's row that brings its own one, with the options inside. None:
    # such a row is asked like any other.
    own_prompt: str | None = None
    own_prompt_think: str | None = None
    between_options: str = " "
    choice_answer: str = "words"  # what is taught as the answer of a choice: words or letter
    box_keys: tuple = ("label", "bbox_2d")  # their order in the JSON of a box
    box_indent: int | None = None  # of that JSON, in spaces; None: all boxes in one line
    box_fence: bool = False  # whether a Markdown code fence stands around the boxes

    @classmethod
    def load(cls, path):
        """The set in a JSON file that has every key. UserError names the file and the key."""
        raw, known = read_json(path), [f.name for f in fields(cls)]
        if lacking := [name for name in known if name not in raw]:
            raise UserError(f"{path}: lacks {', '.join(lacking)}; docs/real-data.md has an example")
        for name, value in raw.items():
            if name not in known:
                raise UserError(f"{path}: unknown key {name}; known are {', '.join(known)}")
            if problem := _problem(name, value):
                raise UserError(f"{path}: {name} {problem}")
        return cls(**raw | {"box_keys": tuple(raw["box_keys"])})


DEFAULT = PromptSet()
# The places of each template: it must have them all, and no other.
ASKED, CHOICE = {"question"}, {"question", "options"}
PLACES = dict.fromkeys(("number", "number_think", "boxes", "text", "text_think"), ASKED)
PLACES |= dict.fromkeys(("own_prompt", "own_prompt_think"), ASKED)
PLACES |= dict.fromkeys(("choice", "choice_think"), CHOICE)
VALUES = {
    "choice_answer": ("words", "letter"),
    "box_keys": (["label", "bbox_2d"], ["bbox_2d", "label"]),
    "box_indent": (None, *range(9)),
    "box_fence": (True, False),
}


def _problem(name, value):
    """What is wrong with the value of a set's key, in words; None where nothing is wrong."""
    if name in VALUES:  # their types are compared as well, because 1 == True
        allowed = [json.dumps(v) for v in VALUES[name]]
        shown = json.dumps(value)
        return None if shown in allowed else f"is {shown}; it must be {' or '.join(allowed)}"
    if value is None and name in ("system", "own_prompt", "own_prompt_think"):
        return None
    if not isinstance(value, str):
        return f"must be text, not {json.dumps(value)}"
    if name not in PLACES:
        return None
    found, places = set(re.findall(r"\{([A-Za-z_]\w*)\}", value)), PLACES[name]
    odd = [f"lacks {{{place}}}" for place in sorted(places - found)]
    odd += [f"has {{{place}}}" for place in sorted(found - places)]
    shown = " and ".join(f"{{{place}}}" for place in sorted(places, reverse=True))
    return f"{' and '.join(odd)}; it must hold {shown}, and no other place" if odd else None


def prompt_text(row, prompts=DEFAULT):
    """What the user says after the pictures: the template of the row's form, filled in.

    A question that already asks to think, as the prompts of some traces do, is used as it is.

    >>> prompt_text(row)
    'Which is nearest to the bed?\\nOptions: A. lamp B. sofa C. desk\\nAnswer with one option.'
    """
    think = "_think" if row.think and row.form != "boxes" else ""
    template = getattr(prompts, "own_prompt" + think) if row.own_prompt else None
    question = MARK.sub("", row.own_prompt if template else row.question)
    if think and "<think>" in question:
        return question
    form = row.form if row.form in ("choice", "number", "boxes") else "text"
    template = template or getattr(prompts, form + think)
    words = {"question": question, "options": prompts.between_options.join(row.options)}
    # In one pass, so that what looks like a place in the row's own words stays as it is.
    return re.sub(r"\{(question|options)\}", lambda place: words[place[1]], template)


def target_text(row, image_config, prompts=DEFAULT):
    """What the assistant learns to say: the answer, after its rationale where the row has one.

    By default boxes are JSON with the label first, because the place is found by the name, and a
    choice is answered in its words: a small model learns which object is meant long before it
    learns which letter stands before that object. parse_choice reads words and letters.

    >>> target_text(boxes_row, image_config), target_text(choice_row, image_config)
    ('[{"label":"chair","bbox_2d":[12,34,56,78]}]', 'sofa')
    """
    if row.form == "boxes":
        boxes = boxes_in_input(row, image_config)
        boxes = [{key: box[key] for key in prompts.box_keys} for box in boxes]
        spaces = (",", ":") if prompts.box_indent is None else None
        written = json.dumps(
            boxes, ensure_ascii=False, indent=prompts.box_indent, separators=spaces
        )
        return f"```json\n{written}\n```" if prompts.box_fence else written
    if row.solution:
        return row.solution
    answer = row.answer
    if row.form == "choice" and prompts.choice_answer == "words":
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
