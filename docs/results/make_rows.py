"""Write the rows that chapters show:  python -m docs.results.make_rows DATA

DATA is the folder of spatial rooms that train.py --stage 2 makes. Writes docs/results/rows.json,
from which make_tables.py fills in the chapters, and docs/row-NAME.png, a larger picture of each
row's room. docs/row.png is the first row's picture as the model gets it.
"""

import shutil
import sys
from pathlib import Path

from PIL import Image

from data.rooms.prepare import VERSION
from data.rooms.render import render
from data.rooms.scene import scene_from_json
from nanoladder.answers import in_tags
from nanoladder.checkpoint import BASE, load_image_config
from nanoladder.files import read_jsonl, write_json
from nanoladder.prompts import prompt_text, target_text
from nanoladder.schema import check_images, read_rows

DOCS = Path(__file__).parent.parent
SIDE = 288  # pixels of a larger picture
# {name: (split, file, question_id, whether to think)}
ROWS = {
    "boxes": ("train", "localization", 104, False),
    "direct": ("train", "spatial", 1026, False),
    "thought": ("train", "spatial", 7008, True),
    "grpo": ("train", "spatial", 5001, True),
    "held-out": ("test", "spatial", 1000, False),
}


def main(data):
    config, told, drawn = load_image_config(BASE), {"version": VERSION}, {}
    for name, (split, file, number, think) in ROWS.items():
        folder = Path(data) / split
        row = next(r for r in read_rows(folder / f"{file}.jsonl") if r.question_id == number)
        check_images([row])
        row.think, trace, row.rationale = think, row.rationale, ""
        answer = target_text(row, config)
        answer = in_tags(trace, answer) if think else answer
        (path,) = row.images
        picture = drawn.setdefault(path, f"row-{name}.png")  # rows may share one
        told[name] = {"picture": picture, "prompt": prompt_text(row), "answer": answer}
        room = next(
            r for r in read_jsonl(folder / "scenes.jsonl") if r["index"] == int(path.name[:6])
        )
        (frame,) = (f for f in room["frames"] if f["image"].endswith(path.name))
        scene, (camera,) = scene_from_json(room | {"cameras": [frame["camera"]]})
        Image.fromarray(render(scene, camera, SIDE).rgb).save(DOCS / picture)
        if name == "boxes":
            shutil.copy(path, DOCS / "row.png")
    write_json(DOCS / "results/rows.json", told)


if __name__ == "__main__":
    main(sys.argv[1])
