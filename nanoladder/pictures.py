"""Contact sheets of answers about boxes, for a look without a browser: samples.png and attention.png."""

from PIL import Image, ImageDraw

COLOURS = ["#ff5a5f", "#3fb6ff", "#ffc53d", "#5fd068", "#c58bff"]  # of predicted boxes, by their place in the answer
TILE = 192  # pixels of a picture's longer side on a sheet


def draw_samples(predictions, path):
    """One PNG of localization answers: true boxes in white, predicted ones in colour, IoU below."""
    _sheet([(_boxes_drawn(p), p["prompt"], f"IoU {p['scores']['iou']:.2f}  level {p['level']}") for p in predictions],
           path)  # fmt: skip


def draw_attention(records, path):
    """One PNG of attention maps over their pictures: the redder, the more looked at; true boxes in white."""
    _sheet([(_attention_drawn(r), r["prompt"], f"inside {r['inside']:.0%}, area {r['area']:.0%}") for r in records],
           path)  # fmt: skip


def boxes_in_view(prediction):
    """(label, box) of an answer's boxes, each cut to the picture; none where the answer can't be read."""
    width, height = prediction["input_size"]
    for item in prediction["parsed"] or []:
        box = [min(max(v, 0), limit) for v, limit in zip(item["bbox_2d"], (width, height) * 2)]
        if box[0] < box[2] and box[1] < box[3]:
            yield item["label"], box


def _opened(record):
    """The record's first picture at a tile's size, and tile pixels per pixel that the model saw: boxes are in those."""
    width, height = record["input_size"]
    scale = TILE / max(width, height)
    with Image.open(record["images"][0]) as image:
        return image.convert("RGB").resize((round(width * scale), round(height * scale))), scale


def _outline(draw, record, scale):
    for t in record["truth"]:
        draw.rectangle([v * scale for v in t["bbox_2d"]], outline="white", width=1)


def _boxes_drawn(prediction):
    image, scale = _opened(prediction)
    draw = ImageDraw.Draw(image)
    _outline(draw, prediction, scale)
    for colour, (label, box) in zip(COLOURS, boxes_in_view(prediction)):
        draw.rectangle([v * scale for v in box], outline=colour, width=2)
        draw.text((box[0] * scale + 3, box[1] * scale + 1), label, fill=colour)
    return image


def _attention_drawn(record):
    image, scale = _opened(record)
    rows, highest = record["attention"], max(map(max, record["attention"]))
    heat = Image.new("L", (len(rows[0]), len(rows)))
    heat.putdata([round(200 * v / highest) for row in rows for v in row])
    image.paste(Image.new("RGB", image.size, COLOURS[0]), mask=heat.resize(image.size, Image.Resampling.BICUBIC))
    _outline(ImageDraw.Draw(image), record, scale)
    return image


def _sheet(tiles, path, columns=4):
    """Tiles (image, two lines of caption) in rows on one picture."""
    margin, caption = 8, 30
    rows = -(-len(tiles) // columns)
    size = (columns * (TILE + margin) + margin, rows * (TILE + caption + margin) + margin)
    sheet = Image.new("RGB", size, "#16181d")
    draw = ImageDraw.Draw(sheet)
    for k, (image, first, second) in enumerate(tiles):
        left, top = margin + k % columns * (TILE + margin), margin + k // columns * (TILE + caption + margin)
        sheet.paste(image, (left, top))
        draw.text((left, top + TILE + 2), first[:34], fill="#d8dbe2")
        draw.text((left, top + TILE + 14), second, fill="#8d93a1")
    sheet.save(path)
