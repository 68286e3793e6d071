"""Pictures of answers: samples.png, attention.png, and one answer's boxes."""

import textwrap

from PIL import Image, ImageDraw

from nanoladder.photos import load_image

COLOURS = ["#ff5a5f", "#3fb6ff", "#ffc53d", "#5fd068", "#c58bff"]  # of predicted boxes, in turn
TILE = 256  # pixels of a picture's longer side on a sheet


def draw_samples(predictions, path):
    """One PNG of localization answers: true boxes in white, predicted ones in colour, IoU below."""
    tiles = []
    for p in predictions:
        image, scale = opened(p["images"][0], p["input_size"])
        draw_truth(image, p["truth"], scale)
        draw_predicted(image, boxes_in_view(p["parsed"], p["input_size"]), scale)
        tiles.append((image, p["prompt"], f"IoU {p['scores']['iou']:.2f}  level {p['level']}"))
    draw_sheet(tiles, path)


def draw_attention(records, path):
    """One PNG of attention maps over their pictures: red is high attention, true boxes white."""
    tiles = []
    for r in records:
        image, scale = opened(r["images"][0], r["input_size"])
        weights, highest = r["attention"], max(map(max, r["attention"]))
        heat = Image.new("L", (len(weights[0]), len(weights)))
        heat.putdata([round(200 * v / highest) for line in weights for v in line])
        red = Image.new("RGB", image.size, COLOURS[0])
        image.paste(red, mask=heat.resize(image.size, Image.Resampling.BICUBIC))
        draw_truth(image, r["truth"], scale)
        tiles.append((image, r["prompt"], f"inside {r['inside']:.0%}, area {r['area']:.0%}"))
    draw_sheet(tiles, path)


def draw_boxes(picture, boxes, input_size, path):
    """A PNG of a picture with an answer's boxes, which are in pixels of the resized picture."""
    image, scale = opened(picture, input_size, side=768)
    draw_predicted(image, boxes_in_view(boxes, input_size), scale)
    image.save(path)


def boxes_in_view(boxes, input_size):
    """(label, box) of an answer's boxes, each cut to the picture of input_size (width, height)."""
    for item in boxes or []:
        box = [min(max(v, 0), limit) for v, limit in zip(item["bbox_2d"], tuple(input_size) * 2)]
        if box[0] < box[2] and box[1] < box[3]:
            yield item["label"], box


def opened(picture, input_size, side=TILE):
    """A picture whose longer side is `side` pixels, and its pixels for each of the model's."""
    width, height = input_size
    scale = side / max(width, height)
    size = round(width * scale), round(height * scale)
    return load_image(picture).resize(size), scale


def draw_truth(image, items, scale):
    draw = ImageDraw.Draw(image)
    for item in items:
        draw.rectangle([v * scale for v in item["bbox_2d"]], outline="white", width=1)


def draw_predicted(image, boxes, scale):
    draw = ImageDraw.Draw(image)
    for k, (label, box) in enumerate(boxes):
        colour = COLOURS[k % len(COLOURS)]
        draw.rectangle([v * scale for v in box], outline=colour, width=2)
        draw.text((box[0] * scale + 3, box[1] * scale + 1), label, fill=colour, font_size=13)


def draw_sheet(tiles, path, columns=4):
    """Tiles (image, two lines of caption) in rows on one picture."""
    margin, caption = 8, 36
    rows = -(-len(tiles) // columns)
    across, down = TILE + margin, TILE + caption + margin
    sheet = Image.new("RGB", (columns * across + margin, rows * down + margin), "#16181d")
    draw = ImageDraw.Draw(sheet)
    for k, (image, first, second) in enumerate(tiles):
        left, top = margin + k % columns * across, margin + k // columns * down
        sheet.paste(image, (left, top))
        for line, text, colour in ((0, first, "#d8dbe2"), (1, second, "#8d93a1")):
            text = textwrap.shorten(text, 42, placeholder=" ...")
            draw.text((left, top + TILE + 2 + 15 * line), text, colour, font_size=13)
    sheet.save(path)
