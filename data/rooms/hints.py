"""The hints experiment of SpatialLadder's paper (figure 1): what does a model lack, eyes or reason?

    rows = with_hints(rows, "datasets/rooms-spatial/test", image_config, directions=True)

Questions of relative direction about single pictures are asked again with what a good eye would see written before
them: the boxes of the asked objects, and if `directions` where they lie from the one the asker stands at. What is left
is reasoning alone: both directions are told against the camera's, and the answer is the turn from one to the other. A
model that gains by hints cannot see; one that does not either needs none or cannot use them.
"""

from dataclasses import replace
from pathlib import Path

from data.rooms.scene import camera_from_json
from data.rooms.spatial import angle
from nanoladder.common import UserError, read_jsonl
from nanoladder.image import fit, rescale_box


def with_hints(rows, folder, image_config, directions=False):
    """The rows of relative direction, their questions behind hints from scenes.jsonl, the truth beside the rows.

    folder: of the split. Raises UserError where it holds no such truth, or the rows no such question.
    """
    folder = Path(folder)
    frames = {folder / frame["image"]: (frame, scene["objects"])
              for scene in read_jsonl(folder / "scenes.jsonl") for frame in scene["frames"]}  # fmt: skip
    asked = {raw["question_id"]: raw.get("asked") for raw in read_jsonl(folder / "spatial.jsonl")}
    hinted = []
    for row in rows:
        if row.question_type == "relative direction" and len(row.images) == 1:
            frame, objects = frames[row.images[0]]
            seen = {objects[int(i)]["category"]: (objects[int(i)], entry) for i, entry in frame["visible"].items()}
            chosen = [seen[category] for category in asked[row.question_id]]
            hint = _boxes(chosen, row.sizes[0], image_config) + (_directions(chosen, frame) if directions else "")
            hinted.append(replace(row, question=f"{hint}\n{row.question}"))
    if not hinted:
        raise UserError(f"{folder}: hints are for questions of relative direction about one picture, and no row asks "
                        "one; score rooms-si with --bench")  # fmt: skip
    return hinted


def _boxes(chosen, size, image_config):
    """Boxes in pixels of the picture as the model sees it, in the words of stage 1's answers."""
    parts = []
    for thing, entry in chosen:
        x1, y1, x2, y2 = (round(v) for v in rescale_box(entry["bbox"], size, fit(size, image_config)))
        parts.append(f"the {thing['category']} is at [{x1},{y1},{x2},{y2}]")
    return "In the picture, " + ", ".join(parts) + "."


def _directions(chosen, frame):
    """Where the faced and the wanted object lie from the one stood at, in degrees off the camera's direction."""
    stand, *others = (thing for thing, _ in chosen)
    ahead = [a + b for a, b in zip(stand["center"], camera_from_json(frame["camera"]).rotation[2])]
    parts = []
    for other in others:
        turn = round(angle(stand["center"], ahead, other["center"]))  # counter-clockwise, 0 to 360
        side = f"{turn} degrees to the left" if turn <= 180 else f"{360 - turn} degrees to the right"
        parts.append(f"the {other['category']} is {side}")
    return f" Looking from the {stand['category']} in the camera's direction, " + " and ".join(parts) + "."
