"""The converters of real data, on miniatures in the layout of the real downloads."""

import importlib
import io
import json
import sys

import numpy as np
import pytest
from PIL import Image

from data import convert
from data.convert import lettered
from nanoladder import schema
from nanoladder.command import UserError
from nanoladder.files import lock, read_json
from nanoladder.image import ImageConfig, resized_size
from nanoladder.schema import check_images, read_rows


def picture(seed, size=(64, 48)):
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def encoded(seed, kind="PNG"):
    file = io.BytesIO()
    picture(seed).save(file, kind)
    return file.getvalue()


def save(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(seed).save(path)


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_parquet(path, rows):
    reason = "parquet miniatures need pip install -e '.[bench]'"
    pyarrow = pytest.importorskip("pyarrow", reason=reason)
    parquet = pytest.importorskip("pyarrow.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def write_video(path, frames=40, kind=None, codec="mpeg4", **options):
    """A video file whose frame k has the grey value 20 + 5 k everywhere; 10 frames a second."""
    av = pytest.importorskip("av", reason="video miniatures need pip install -e '.[bench]'")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format=kind, options=options) as video:
        stream = video.add_stream(codec, rate=10)
        stream.bit_rate = 4_000_000
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for k in range(frames):
            grey = np.full((48, 64, 3), 20 + 5 * (k % 40), np.uint8)
            video.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        video.mux(stream.encode())


# ---------------------------------------------------------------- the miniatures
# Each function writes a small download into a folder. edit(rows) may change its rows first.


def no_edit(rows):
    pass


def spatialladder(folder, edit=no_edit):
    names = [f"scene0000_00/{k}.jpg" for k in range(8)]
    for k, name in enumerate(names):
        save(folder / "images" / name, k)
    boxes = [
        {"bbox_2d": [4, 5, 30, 40], "label": "Chair "},
        {"bbox_2d": [0, 0, 64, 48], "label": "desk"},
    ]
    seen = {"question_id": 1, "question": "Where?", "image": names[:1], "data_type": "single_image"}
    choice = {"options": ["A. bed", "B. lamp"], "answer": "B", "question_type": "relative distance"}
    number = {"options": None, "answer": "3.5", "question_type": "absolute distance"}
    rows = {
        "spld_grounding_data.jsonl": [
            seen | {"answer": boxes},
            seen | {"question_id": 2, "answer": boxes[:1]},
        ],
        "spld_spatial_data.jsonl": [
            seen | choice,
            seen | number | {"data_type": "multi_view", "image": names},
            seen | number | {"data_type": "video", "image": names, "question_type": "room size"},
        ],
    }
    edit([row for part in rows.values() for row in part])
    for name, part in rows.items():
        write_lines(folder / name, part)


def vsi_rows():
    row = {"id": 7, "dataset": "scannet", "scene_name": "scene0011_00", "question": "How far?"}
    options = {"options": ["A. left", "B. right"], "ground_truth": "B"}
    return [
        row | {"question_type": "object_abs_distance", "ground_truth": "2.5", "options": None},
        row | {"question_type": "object_rel_direction_easy"} | options,
        row | {"question_type": "route_planning"} | options,
    ]


def spbench(folder, edit=no_edit):
    single, several = (
        [row | {"images": [f"{k}.jpg" for k in range(n)]} for row in vsi_rows()[:2]] for n in (1, 3)
    )
    single[1]["question_type"] = "object_rel_direction"
    edit(single + several)
    write_parquet(folder / "SPBench-SI.parquet", single)
    write_parquet(folder / "SPBench-MV.parquet", several)
    save(folder / "SPBench-SI-images" / "scene0011_00" / "0.jpg")
    for k in range(3):
        save(folder / "SPBench-MV-images" / "scene0011_00" / f"{k}.jpg", k + 1)


def vsibench(folder, edit=no_edit):
    rows = vsi_rows()
    edit(rows)
    write_parquet(folder / "test-00000-of-00001.parquet", rows)
    write_video(folder / "scannet" / "scene0011_00.mp4")


def cvbench(folder, edit=no_edit):
    row = {
        "question": "How many?",
        "prompt": "How many? (A) 2 (B) 3 (C) 4",
        "choices": ["2", "3", "4"],
        "answer": "(C)",
        "type": "2D",
        "task": "Count",
    }
    rows = [
        row | {"image": {"bytes": encoded(k), "path": None}, "source": source}
        for k, source in enumerate(["ADE20K", "COCO"])
    ]
    deep = row | {
        "image": {"bytes": encoded(9, "JPEG"), "path": None},
        "source": "Omni3D",
        "type": "3D",
        "task": "Depth",
    }
    edit([*rows, deep])
    write_parquet(folder / "test_2d.parquet", rows)
    write_parquet(folder / "test_3d.parquet", [deep])


def sparbench(folder, edit=no_edit):
    def row(number, task, question, answer, views=1):
        pictures = [{"bytes": encoded(k, "JPEG"), "path": None} for k in range(views)]
        kind = "single_view" if views == 1 else "multi_view"
        asked = {"id": number, "img_type": kind, "task": task, "question": question}
        return asked | {"image": pictures, "answer": answer}

    options = "\nA. left, above, \nB. , below, closer"
    options += "\nYour answer can only include one of options A or B."
    rows = [
        row(0, "depth_prediction_oc", "At what depth?", "0.0"),
        row(1, "obj_spatial_relation_oo", f"Where is the towel? Select.{options}", "B"),
        row(2, "position_matching", "Which box? A. (1,2) B. (3,4) C. (5,6)", "C", 2),
        row(3, "view_change_infer", "How did the camera move?", "move_right:0.4,rotate_up:5", 2),
    ]
    edit(rows)
    write_parquet(folder / "data" / "test-00000-of-00002.parquet", rows[:2])
    write_parquet(folder / "data" / "test-00001-of-00002.parquet", rows[2:])


def viewspatial(folder, edit=no_edit):
    names = [
        "scannetv2_val/scene0011_00/original_images/0.jpg",
        "scannetv2_val/scene0011_00/original_images/20.jpg",
        "val2017/000000000139.jpg",
    ]
    for k, name in enumerate(names):
        save(folder / name, k)
    paths = [f"ViewSpatial-Bench/{name}" for name in names]
    row = {
        "question": "Where is the door?",
        "choices": "A. left\nB. front-right",
        "answer": "B. front-right",
    }
    camera, person = (
        "Camera perspective - Relative Direction",
        "Person perspective - Scene Simulation Relative Direction",
    )
    rows = [
        row | {"question_type": camera, "image_path": paths[2:]},
        row | {"question_type": person, "image_path": paths[:2]},
    ]
    edit(rows)
    (folder / "ViewSpatial-Bench.json").write_text(json.dumps(rows), encoding="utf-8")


MAKERS = (spatialladder, spbench, vsibench, cvbench, sparbench, viewspatial)
MINIATURES = {maker.__name__: maker for maker in MAKERS}
every_data_set = pytest.mark.parametrize("name", MINIATURES)


def prepare(name, tmp_path, *flags, out="out"):
    if name == "vsibench":
        flags = ("--frame-pixels", "0", *flags)  # small frames, which are quick
    module = importlib.import_module(f"data.{name}.prepare")
    module.main(["--source", str(tmp_path / "source"), "--out", str(tmp_path / out), *flags])
    return tmp_path / out / ("train" if name == "spatialladder" else "test")


def make(name, tmp_path, edit=no_edit):
    (tmp_path / "source").mkdir()
    MINIATURES[name](tmp_path / "source", edit)


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# ---------------------------------------------------------------- whole downloads


def loaded(name, tmp_path, *flags):
    """Rows of a converted miniature, as training and evaluation read them."""
    make(name, tmp_path)
    folder = prepare(name, tmp_path, *flags)
    rows = {path.stem: read_rows(path) for path in sorted(folder.glob("*.jsonl"))}
    for part in rows.values():
        check_images(part)
    assert not list(folder.rglob("*.partial"))
    return rows


def test_spatialladder_keeps_boxes_in_original_pixels(tmp_path):
    rows = loaded("spatialladder", tmp_path)
    assert rows["localization"][0].answer == [
        {"bbox_2d": [4, 5, 30, 40], "label": "chair"},
        {"bbox_2d": [0, 0, 64, 48], "label": "desk"},
    ]
    assert {row.kind for row in rows["localization"]} == {"localization"}
    spatial = rows["spatial"]
    assert [(r.data_type, r.question_type, len(r.images), r.answer) for r in spatial] == [
        ("single_image", "relative distance", 1, "B"),
        ("multi_view", "absolute distance", 8, "3.5"),
        ("video", "room size", 8, "3.5"),
    ]
    assert [(r.form, r.unit) for r in spatial] == [
        ("choice", ""),
        ("number", "m"),
        ("number", "m^2"),
    ]
    assert [r.kind for r in spatial] == [r.data_type for r in spatial]
    original = tmp_path / "source" / "images" / "scene0000_00" / "0.jpg"
    assert rows["spatial"][0].images[0].samefile(original)  # a hard link, not a second copy


def test_spbench_tells_its_parts_by_data_type(tmp_path):
    single, direction, several, _ = loaded("spbench", tmp_path)["spatial"]
    assert (single.data_type, single.question_type) == ("single_image", "absolute distance")
    assert (single.answer, single.form, single.unit) == ("2.5", "number", "m")
    assert direction.task == "object_rel_direction"
    assert (direction.question_type, direction.form) == ("relative direction", "choice")
    assert (several.data_type, len(several.images)) == ("multi_view", 3)
    # The two parts have pictures of the same name, which differ.
    assert several.images[0].read_bytes() != single.images[0].read_bytes()


def test_vsibench_takes_evenly_spaced_frames(tmp_path):
    distance, direction, route = loaded("vsibench", tmp_path, "--frames", "5")["spatial"]
    shades = [np.asarray(Image.open(path), float).mean() for path in distance.images]
    assert np.allclose(shades, [20 + 5 * k for k in (0, 9, 19, 29, 39)], atol=2.5)
    assert distance.images == route.images and distance.data_type == "video"
    assert direction.question_type == "relative direction"
    assert direction.task == "object_rel_direction_easy"
    assert (route.question_type, route.form) == ("route planning", "choice")
    assert (route.options, route.answer) == (("A. left", "B. right"), "B")
    assert (route.question_id, route.source) == (7, "scannet")


VSI_UNITS = [
    ("object_size_estimation", "cm"),
    ("room_size_estimation", "m^2"),
    ("object_counting", ""),
    ("object_abs_distance", "m"),
]


@pytest.mark.parametrize("task, unit", VSI_UNITS)
def test_every_number_has_its_unit_written_into_the_row(task, unit, tmp_path):
    make("spbench", tmp_path, lambda rows: rows[0].update(question_type=task))
    path = prepare("spbench", tmp_path) / "spatial.jsonl"
    number, choice, *_ = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    assert number["unit"] == unit and number["options"] is None
    assert "unit" not in choice and len(choice["options"]) == 2
    assert (read_rows(path)[0].form, read_rows(path)[0].unit) == ("number", unit)


def test_vsibench_reads_the_later_release_and_short_videos(tmp_path):
    make("vsibench", tmp_path)
    source = tmp_path / "source"
    (source / "test-00000-of-00001.parquet").unlink()
    write_lines(source / "test.jsonl", vsi_rows())
    write_video(source / "scannet" / "scene0011_00.mp4", frames=3)
    (row, *_) = read_rows(prepare("vsibench", tmp_path) / "spatial.jsonl")
    assert len(row.images) == 32 and len({path.read_bytes() for path in row.images}) == 3


def test_cvbench_answers_become_letters(tmp_path):
    count, _, depth = loaded("cvbench", tmp_path)["spatial"]
    assert (count.options, count.answer) == (("A. 2", "B. 3", "C. 4"), "C")
    assert (count.question_type, count.task, count.source) == ("choice", "Count", "ADE20K")
    assert count.form == depth.form == "choice"
    assert (depth.source, depth.images[0].suffix) == ("Omni3D", ".jpg")
    assert count.images[0].read_bytes() == encoded(0)


def test_sparbench_takes_options_out_of_the_question(tmp_path):
    depth, relation, matching, motion = loaded("sparbench", tmp_path)["spatial"]
    assert (depth.question_type, depth.answer) == ("absolute distance", "0.0")
    assert (depth.form, depth.unit) == ("number", "m")
    assert relation.question == "Where is the towel? Select."
    assert relation.options == ("A. left, above,", "B. , below, closer")
    assert (relation.form, relation.answer) == ("choice", "B")
    assert matching.options == ("A. (1,2)", "B. (3,4)", "C. (5,6)")
    assert "0 to 1000" in matching.question
    assert (matching.data_type, len(matching.images)) == ("multi_view", 2)
    assert (motion.question_type, motion.form) == ("view change", "motion")
    assert motion.answer == "move_right:0.4,rotate_up:5"


def test_viewspatial_splits_choices(tmp_path):
    camera, person = loaded("viewspatial", tmp_path)["spatial"]
    assert (camera.options, camera.answer) == (("A. left", "B. front-right"), "B")
    assert camera.form == person.form == "choice"
    assert (camera.data_type, person.data_type) == ("single_image", "multi_view")
    assert len(person.images) == 2
    assert person.task.startswith("Person perspective")


@every_data_set
def test_what_was_found_is_printed(name, tmp_path, capsys):
    make(name, tmp_path)
    folder = prepare(name, tmp_path)
    first = capsys.readouterr().out
    for file, counts in read_json(folder / "prepare.json")["found"].items():
        assert str(folder / file) in first
        assert sum(counts["rows"].values()) == len(read_rows(folder / file))
        assert all(f"{count:8}  {kind}" in first for kind, count in counts["rows"].items())
    # A miniature has fewer rows than were published.
    assert "Check that the download is complete." in first
    prepare(name, tmp_path)
    assert capsys.readouterr().out == first


def test_the_place_of_an_image_is_taken_out_of_a_question(tmp_path):
    asked = ["<image>\nWhere?", "Where? <image><image>"]
    make(
        "spatialladder", tmp_path, lambda rows: [r.update(question=q) for r, q in zip(rows, asked)]
    )
    folder = prepare("spatialladder", tmp_path)
    rows = read_rows(folder / "localization.jsonl") + read_rows(folder / "spatial.jsonl")
    assert {row.question for row in rows} == {"Where?"}


# ---------------------------------------------------------------- videos


@pytest.mark.parametrize(
    "size, kept, seen",  # of a video, of the kept frames, and of what the published model is shown
    [((640, 480), (728, 560), (700, 532)), ((1296, 968), (728, 560), (700, 532))],
)
def test_frames_get_the_size_that_the_paper_evaluates(size, kept, seen):
    vsi = importlib.import_module("data.vsibench.prepare")
    qwen2_vl = pytest.importorskip("transformers.models.qwen2_vl.image_processing_pil_qwen2_vl")
    frame = vsi.resized(picture(0, size), 512 * 28 * 28)
    assert frame.size == kept
    limits = {"min_pixels": 16 * 28 * 28, "max_pixels": 512 * 28 * 28}
    assert qwen2_vl.smart_resize(*kept[::-1], 28, **limits) == seen[::-1]
    assert resized_size(kept, ImageConfig(**limits)) == seen
    assert seen[0] * seen[1] // 28**2 == 475  # tokens of two frames
    assert vsi.resized(picture(0, size), 0).size == size


def test_the_seconds_of_a_frame_are_fixed_or_those_of_the_video(tmp_path):
    make("vsibench", tmp_path)  # 40 frames, 10 a second
    flags = ("--frames", "5", "--frame-pixels", str(512 * 28 * 28))
    rows = read_rows(prepare("vsibench", tmp_path, *flags, out="fixed") / "spatial.jsonl")
    assert {row.frame_seconds for row in rows} == {0.5}
    check_images(rows)
    assert rows[0].sizes == ((728, 560),) * 5
    flags = ("--frames", "5", "--times", "video")
    rows = read_rows(prepare("vsibench", tmp_path, *flags, out="video") / "spatial.jsonl")
    assert {row.frame_seconds for row in rows} == {4.0 / 5}  # 4 seconds


@pytest.mark.parametrize(
    "playlist",
    [
        "ffconcat version 1.0\nfile {other}\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n{other}\n#EXT-X-ENDLIST\n",
        "",
    ],
)
def test_a_playlist_that_is_called_a_video_is_not_followed(playlist, tmp_path):
    make("vsibench", tmp_path)
    path = tmp_path / "source" / "scannet" / "scene0011_00.mp4"
    other = path.rename(path.with_name("other.mp4"))
    path.write_text(playlist.format(other=other), encoding="utf-8")
    with pytest.raises(UserError, match="row 0: a video cannot be read: .*none of MP4, MOV"):
        prepare("vsibench", tmp_path)


@pytest.mark.parametrize("kind", ["matroska", "webm", "mov", "mp4"])
def test_the_formats_of_videos_are_known_by_their_content(kind, tmp_path):
    make("vsibench", tmp_path)
    path = tmp_path / "source" / "scannet" / "scene0011_00.mp4"
    av = pytest.importorskip("av")
    if kind == "webm" and "libvpx" not in av.codecs_available:
        pytest.skip("this build of PyAV cannot write WebM")
    write_video(path, frames=4, kind=kind, codec="libvpx" if kind == "webm" else "mpeg4")
    (row, *_) = read_rows(prepare("vsibench", tmp_path, "--frames", "2") / "spatial.jsonl")
    shades = [np.asarray(Image.open(image), float).mean() for image in row.images]
    assert np.allclose(shades, [20, 35], atol=3)


# ---------------------------------------------------------------- starting again


@every_data_set
def test_a_stopped_run_goes_on_and_ends_with_the_same_bytes(name, tmp_path, monkeypatch):
    make(name, tmp_path)
    straight = contents(prepare(name, tmp_path, out="straight"))

    def die(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(convert, "write_jsonl", die)
    with pytest.raises(KeyboardInterrupt):
        prepare(name, tmp_path)
    (folder,) = (tmp_path / "out").iterdir()  # no folder that a script would take for whole
    assert folder.name in (".train.partial", ".test.partial")
    kept = {p.relative_to(folder): p.stat().st_mtime_ns for p in folder.rglob("images/**/*.*")}
    monkeypatch.undo()
    whole = prepare(name, tmp_path)
    assert contents(whole) == straight and not folder.exists()
    # The pictures that the stopped run kept are not made again.
    assert kept and all((whole / path).stat().st_mtime_ns == time for path, time in kept.items())


def test_other_settings_never_mix_with_what_is_there(tmp_path):
    make("vsibench", tmp_path)
    prepare("vsibench", tmp_path, "--frames", "4")
    with pytest.raises(UserError, match="made with other settings"):
        prepare("vsibench", tmp_path, "--frames", "5")
    with pytest.raises(UserError, match="--frames 0"):
        prepare("vsibench", tmp_path, "--frames", "0")


def test_a_stopped_run_with_other_settings_leaves_no_frames_behind(tmp_path, monkeypatch):
    make("vsibench", tmp_path)
    straight = contents(prepare("vsibench", tmp_path, "--frames", "4", out="straight"))

    def die(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(convert, "write_jsonl", die)
    with pytest.raises(KeyboardInterrupt):
        prepare("vsibench", tmp_path, "--frames", "8")
    monkeypatch.undo()
    assert contents(prepare("vsibench", tmp_path, "--frames", "4")) == straight


def test_a_folder_that_holds_other_things_is_left_alone(tmp_path):
    make("cvbench", tmp_path)
    (tmp_path / "out" / "test").mkdir(parents=True)
    (tmp_path / "out" / "test" / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match="out/test holds something else.*--out"):
        prepare("cvbench", tmp_path)
    assert [path.name for path in (tmp_path / "out").rglob("*")] == ["test", "mine.txt"]


def test_two_conversions_into_one_folder_are_refused(tmp_path):
    make("cvbench", tmp_path)
    (tmp_path / "out" / ".test.partial").mkdir(parents=True)
    with lock(tmp_path / "out" / ".test.partial"), pytest.raises(UserError, match="in use"):
        prepare("cvbench", tmp_path)
    assert len(read_rows(prepare("cvbench", tmp_path) / "spatial.jsonl")) == 3


def test_where_files_cannot_be_linked_they_are_copied(tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError("another file system")

    make("spatialladder", tmp_path)
    monkeypatch.setattr(convert.os, "link", refuse)
    (first, *_) = read_rows(prepare("spatialladder", tmp_path) / "localization.jsonl")
    original = tmp_path / "source" / "images" / "scene0000_00" / "0.jpg"
    assert first.images[0].read_bytes() == original.read_bytes()
    assert not first.images[0].samefile(original)


# ---------------------------------------------------------------- damage


def change(number, **fields):
    """An edit that changes one row of the download."""
    return lambda rows: rows[number].update(fields)


def one_box(*corners):
    """An edit that gives the second row one box."""
    return change(1, answer=[{"bbox_2d": list(corners), "label": "bed"}])


def picture_bytes(data, path=None):
    """An edit that gives the second row another picture."""
    return change(1, image={"bytes": data, "path": path})


SCHEMA, FIELD, PATH = "breaks the schema", "a field is missing", "a path leads out"
LETTERS, MOTIONS, NUMBER = "none of the options' letters", "must be motions", "must be a number"
SI, SPAR = "SPBench-SI.parquet: row 1", "00001-of-00002.parquet: row 1"
# The edit, the end of the row's name, what the message says, and the reason it is counted by.
DAMAGE = {
    "spatialladder": [
        (one_box(9, 2, 3, 4), "grounding_data.jsonl:2", "inverted", SCHEMA),
        (one_box(1, 2, 65, 4), "data.jsonl:2", "reaches outside its 64x48 image", SCHEMA),
        (change(1, answer=[7]), "grounding_data.jsonl:2", "bbox_2d", FIELD),
        (change(1, image=["scene0000_00/99.jpg"]), "data.jsonl:2", "99.jpg", "no such image"),
        (change(1, image=["../secret.jpg"]), "data.jsonl:2", "secret", PATH),
        (change(1, image=["/etc/passwd"]), "data.jsonl:2", "passwd", PATH),
        (change(2, answer="C"), "spatial_data.jsonl:1", LETTERS, SCHEMA),
        (change(3, question_type="smell"), "l_data.jsonl:2", "'smell'", "unknown question_type"),
        (change(3, answer="far"), "spatial_data.jsonl:2", NUMBER, SCHEMA),
    ],
    "spbench": [
        (change(1, scene_name="../../scene0011_00"), SI, "scene0011", PATH),
        (change(1, options=None), SI, "options", FIELD),
        (change(1, images=["9.jpg"]), SI, "9.jpg", "no such image"),
    ],
    "vsibench": [
        (change(1, scene_name="s2"), "parquet: row 1", "scannet/s2.mp4", "no such video"),
        (change(1, dataset="../scannet"), "parquet: row 1", "scene0011", PATH),
        (change(1, question_type="weight"), "parquet: row 1", "'weight'", "unknown question_type"),
        (change(1, ground_truth="far"), "parquet: row 1", LETTERS, SCHEMA),
        (change(0, ground_truth="-1"), "parquet: row 0", NUMBER, SCHEMA),
    ],
    "cvbench": [
        (
            picture_bytes(encoded(1)[:700]),
            "test_2d.parquet: row 1",
            "000001.png",
            "an image cannot be read",
        ),
        (picture_bytes(None, "a.png"), "test_2d.parquet: row 1", "bytes", FIELD),
        (change(1, answer="(E)"), "test_2d.parquet: row 1", "'E'", SCHEMA),
        (change(1, source="LVIS"), "test_2d.parquet: row 1", "'LVIS'", "unknown source"),
    ],
    "sparbench": [
        (change(1, question="A towel?"), "02.parquet: row 1", "towel", "a choice without options"),
        (change(3, answer="left"), SPAR, MOTIONS, SCHEMA),
        (change(3, answer="move_up:1 or more"), SPAR, MOTIONS, SCHEMA),
        (change(1, image=[]), "00002.parquet: row 1", "no images", SCHEMA),
    ],
    "viewspatial": [
        (change(1, image_path=["ViewSpatial-Bench/../../a.jpg"]), "json: row 1", "a.jpg", PATH),
        (change(1, image_path=[3]), "json: row 1", "image_path", FIELD),
        (change(1, choices=None), "json: row 1", "choices", FIELD),
        (change(1, answer="left"), "json: row 1", "'left'", SCHEMA),
    ],
}
DAMAGES = [(name, *damage) for name, damages in DAMAGE.items() for damage in damages]


@pytest.mark.parametrize("name, edit, where, words, reason", DAMAGES)
def test_a_damaged_row_is_named_or_counted(name, edit, where, words, reason, tmp_path, capsys):
    save(tmp_path / "secret.jpg")
    make(name, tmp_path, edit)
    with pytest.raises(UserError) as error:
        prepare(name, tmp_path)
    message = str(error.value)
    assert (
        where in message
        and words in message
        and "--skip-damaged" in message
        and "\n" not in message
    )
    assert not (tmp_path / "out").exists()  # a refused conversion leaves nothing
    folder = prepare(name, tmp_path, "--skip-damaged")
    found = read_json(folder / "prepare.json")["found"]
    skipped = [counts["skipped"] for counts in found.values()]
    assert sum(sum(counts.values()) for counts in skipped) == 1
    assert any(kind.startswith(reason) for counts in skipped for kind in counts)
    assert "       1  SKIPPED: " + reason in capsys.readouterr().out
    assert not list(tmp_path.rglob("out/**/secret.jpg")) and not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize("name", ["spatialladder", "spbench", "viewspatial", "vsibench"])
def test_a_link_that_leads_out_of_the_download_is_refused(name, tmp_path):
    make(name, tmp_path)
    files = [p for p in (tmp_path / "source").rglob("*.*") if p.suffix in (".jpg", ".mp4")]
    path = sorted(files)[0]
    path.rename(tmp_path / "secret")
    path.symlink_to(tmp_path / "secret")
    with pytest.raises(UserError, match="a path leads out of the folder"):
        prepare(name, tmp_path)
    path.unlink()
    schema.inside.cache_clear()  # it remembers the link that is mended now
    (tmp_path / "secret").rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")  # a link that stays inside does no harm
    prepare(name, tmp_path)


def test_boxes_of_a_download_are_held_against_the_upright_picture(tmp_path):
    make("spatialladder", tmp_path, one_box(1, 2, 40, 60))  # outside a picture of 64 x 48 pixels
    path = tmp_path / "source" / "images" / "scene0000_00" / "0.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned, as 48 x 64 pixels
    picture(0).save(path, exif=exif)
    with pytest.raises(UserError, match="data.jsonl:1: .*reaches outside its 48x64 image"):
        prepare("spatialladder", tmp_path)  # the first row's box [0, 0, 64, 48]


@pytest.mark.parametrize("line", [b"{broken", b"[1, 2]", b'{"question": "\xff"}', b"[" * 9999])
def test_a_broken_line_is_a_damaged_row(line, tmp_path):
    make("spatialladder", tmp_path)
    with open(tmp_path / "source" / "spld_spatial_data.jsonl", "ab") as file:
        file.write(line + b"\n")
    with pytest.raises(UserError, match=r"spld_spatial_data.jsonl:4: .*; fetch or unpack it again"):
        prepare("spatialladder", tmp_path)


def test_a_cut_image_file_is_found_although_its_header_is_whole(tmp_path):
    make("viewspatial", tmp_path)
    path = tmp_path / "source" / "val2017" / "000000000139.jpg"
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(UserError, match="json: row 0: an image cannot be read: .*000000000139.jpg"):
        prepare("viewspatial", tmp_path)
    save(path)  # fetched again
    assert len(read_rows(prepare("viewspatial", tmp_path) / "spatial.jsonl")) == 2


@pytest.mark.parametrize(
    "options, words", [({}, "cannot be read"), ({"movflags": "faststart"}, "is cut short")]
)
def test_a_cut_video_is_found(options, words, tmp_path):
    make("vsibench", tmp_path)
    path = tmp_path / "source" / "scannet" / "scene0011_00.mp4"
    write_video(path, frames=200, **options)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(UserError, match=f"row 0: a video {words}: .*scene0011_00.mp4"):
        prepare("vsibench", tmp_path)


@pytest.mark.parametrize(
    "name, missing",
    [
        ("spatialladder", "spld_spatial_data.jsonl"),
        ("spbench", "SPBench-MV.parquet"),
        ("cvbench", "test_3d.parquet"),
        ("vsibench", "test-00000-of-00001.parquet"),
        ("viewspatial", "ViewSpatial-Bench.json"),
    ],
)
def test_a_missing_file_is_named_with_what_to_fetch(name, missing, tmp_path):
    make(name, tmp_path)
    (tmp_path / "source" / missing).unlink()
    with pytest.raises(UserError, match=r"is not there: fetch [\w-]+/[\w-]+ as --help says"):
        prepare(name, tmp_path)


def test_a_missing_folder_and_an_empty_one(tmp_path):
    with pytest.raises(UserError, match="source is not there: fetch it as --help says"):
        prepare("sparbench", tmp_path)
    (tmp_path / "source" / "data").mkdir(parents=True)
    with pytest.raises(UserError, match=r"no test-\*.parquet"):
        prepare("sparbench", tmp_path)


def test_a_broken_parquet_file_is_named(tmp_path):
    make("cvbench", tmp_path)
    path = tmp_path / "source" / "test_3d.parquet"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(UserError, match="test_3d.parquet: not a readable parquet file"):
        prepare("cvbench", tmp_path)


@pytest.mark.parametrize("name, package", [("cvbench", "pyarrow.parquet"), ("vsibench", "av")])
def test_an_absent_package_is_named_with_its_remedy(name, package, tmp_path, monkeypatch):
    make(name, tmp_path)
    monkeypatch.setitem(sys.modules, package, None)
    for flags in ((), ("--skip-damaged",)):
        with pytest.raises(
            UserError, match=r"needs (pyarrow|av \(PyAV\)): pip install -e '.\[bench\]'$"
        ):
            prepare(name, tmp_path, *flags)


@pytest.mark.parametrize("written", ["{}. {}", "({}) {}", "{}) {}", "{}: {}", "{}.{}", " {}. {} "])
def test_options_get_their_letters_once(written):
    options = [written.format(letter, word) for letter, word in zip("AB", ("chair", "lamp"))]
    assert lettered(options) == lettered(["chair", "lamp"]) == ["A. chair", "B. lamp"]
    assert lettered(["A. chair", "lamp"]) == ["A. A. chair", "B. lamp"]  # some have none
