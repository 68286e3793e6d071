"""Ask a model about pictures, and see its answer as it is decoded.

python -m nanoladder.ask --model runs/stage1 --image room.png "Locate the chair."
python -m nanoladder.ask --model runs/stage1 --image room.png --out boxes.png "Find the bed."
python -m nanoladder.ask --model RUN --image a.png b.png "Is the bed or the sofa closer?"

The question comes last, with all that the model shall read, such as `Answer with a number.`
"""

import dataclasses
from pathlib import Path

from nanoladder.answers import parse_boxes
from nanoladder.batches import check_context, encode_prompt
from nanoladder.checkpoint import BASE, PixelLimits, Policy
from nanoladder.command import UserError, parse, setting
from nanoladder.generate import generate
from nanoladder.image import resized_size
from nanoladder.pictures import draw_boxes
from nanoladder.process import run_script
from nanoladder.runtime import start_runtime
from nanoladder.schema import Row, check_images


@dataclasses.dataclass
class Settings(PixelLimits):
    model: str = setting(str(BASE), "run folder or Qwen2.5-VL folder")
    image: tuple = setting((), "one or more pictures")
    video: bool = setting(False, "the pictures are the frames of one video, two a second")
    think: bool = setting(False, "ask the model to think before it answers")
    prompts: str | None = setting(None, "prompt set, a JSON file; default the checkpoint's own")
    out: str | None = setting(
        None, "PNG to write: the first picture with the boxes of the answer", writes="file"
    )
    device: str | None = setting(None, "default: a GPU if any", choices=["cpu", "cuda", "mps"])
    max_new_tokens: int = setting(256, "tokens of an answer, at most", low=1, high=10**5)


def main(argv):
    """Print the answer to a question about pictures while it is decoded."""
    question = ""
    if argv and not argv[-1].startswith("-"):
        *argv, question = argv
    s = parse(Settings, argv, doc=__doc__)
    question = question.encode("utf-8", "replace").decode()  # a terminal may send stray bytes
    if not s.image or not question:
        raise UserError("name pictures with --image, and put the question last")
    inputs = {Path(image).resolve() for image in s.image}
    if s.out and (Path(s.out).suffix.lower() != ".png" or Path(s.out).resolve() in inputs):
        raise UserError(f"--out {s.out}: name a file that ends in .png, and none of --image")
    data_type = "video" if s.video else "multi_view" if len(s.image) > 1 else "single_image"
    paths = tuple(map(Path, s.image))
    row = Row(1, question, "", paths, data_type, data_type, "text", "--image", think=s.think)
    check_images([row])
    policy = Policy.load(s.model, device=start_runtime(s.device).device).limit_pixels(s)
    model, tokenizer, image_config, _ = policy
    tokenizer.use_prompts(s.prompts)
    check_context([row], tokenizer, image_config, model.config)
    prompt, ids, printed = encode_prompt(row, tokenizer, image_config, model.config, True), [], ""

    def print_token(new):
        nonlocal printed
        ids.extend(token for token in new.tolist() if token not in tokenizer.eos_ids)
        text = tokenizer.decode(ids)
        if not text.endswith("\ufffd"):  # half a character
            print(text[len(printed) :], end="", flush=True)
            printed = text

    ends, banned = tokenizer.eos_ids, tokenizer.vision_ids
    options = {"banned_ids": banned, "repetition_penalty": policy.repetition_penalty}
    generate(model, [prompt], s.max_new_tokens, ends, on_token=print_token, **options)
    print()
    if s.out:
        Path(s.out).parent.mkdir(parents=True, exist_ok=True)
        boxes = parse_boxes(tokenizer.decode(ids)) or []
        draw_boxes(paths[0], boxes, resized_size(row.sizes[0], image_config), s.out)
        print(f"{s.out}: {len(boxes)} box(es)")


if __name__ == "__main__":
    run_script(main)
