"""Rationales and traces: every step is true and leads to the answer; rows are read back."""

import json
import re
from collections import Counter, defaultdict
from types import SimpleNamespace

import numpy as np
import pytest
from test_spatial import MODALITIES, SIZE, chosen, clear, gaps, make, truth

import rl
from data.rooms import balance, floor, rationales, spatial, traces
from data.rooms.scene import camera_from_json
from nanoladder import checkpoint
from nanoladder.answers import in_tags, parse_thought
from nanoladder.checkpoint import BASE
from nanoladder.command import UserError
from nanoladder.files import read_jsonl
from nanoladder.image import ImageConfig
from nanoladder.prompts import THINK, prompt_text, target_text
from nanoladder.rewards import reward, score_answer
from nanoladder.schema import read_rows
from nanoladder.splits import read_kinds
from nanoladder.tokenizer import Tokenizer

PICTURES = {letter: number for number, letter in enumerate("ijklmnop", 1)}
SEEN = r"\[\{.*?\}\]"  # the objects that a rationale says it sees, as JSON


@pytest.fixture(scope="module")
def solved():
    """Several hundred tuples (row, its rationale, its room's truth, its frames)."""
    truths = [truth(index) for index in range(100)]
    rooms, rng = [spatial.room_facts(row, SIZE) for row in truths], np.random.default_rng(0)
    by_id = {row["id"]: row for row in truths}
    found = []
    for row in balance.balance(rooms, dict.fromkeys(MODALITIES, 250), 5, "test"):
        room = by_id[row["scene"]]
        rationale = rationales.rationale(row, room, SIZE, rng)
        frames = [f for f in room["frames"] if f["data_type"] == row["data_type"]]
        found.append((row, rationale, room, frames))
    return found


def of(solved, kind):
    cases = [case for case in solved if case[0]["question_type"] == kind]
    assert len(cases) > 15, kind
    return cases


def numbers(text):
    return [float(n) for n in re.findall(r"-?\d+(?:\.\d+)?", text)]


def shown(room, frames):
    return {
        room["objects"][int(i)]["category"]: room["objects"][int(i)]
        for frame in frames
        for i in frame["visible"]
    }


def paired(frames):
    """Frames by picture: two are one of a walk."""
    pace = 2 if frames[0]["data_type"] == "video" else 1
    return [frames[k : k + pace] for k in range(0, len(frames), pace)]


def first_view(o, frames):
    """Letter of the first picture that shows an object clearly."""
    key = str(o["id"])
    shows = [
        any(key in f["visible"] and clear(f["visible"][key]) for f in own) for own in paired(frames)
    ]
    return "ijklmnop"[shows.index(True)]


# ---------------------------------------------------------------- perceiving


def seen(rationale):
    """The objects that a rationale says it sees."""
    found = re.search(SEEN, rationale)
    return json.loads(found[0]) if found else []


def board_camera(frames):
    """That of the only picture, of the first view, or of the middle of a walk."""
    return camera_from_json(
        frames[len(frames) // 2 if frames[0]["data_type"] == "video" else 0]["camera"]
    )


def test_objects_are_where_the_trace_says(solved):
    places, depths = Counter(), Counter()
    for row, rationale, room, frames in solved:
        objects = shown(room, frames)
        if row["data_type"] != "single_image" or row["question_type"] == "relative distance":
            continue  # these begin with the floor
        assert set(row["asked"]) <= {item["label"] for item in seen(rationale)}
        for item in seen(rationale):
            o = objects[item["label"]]
            assert item.keys() == {"label", "square", "depth"}
            (frame,), key = frames, str(o["id"])
            x1, y1, x2, y2 = frame["visible"][key]["bbox"]
            file, rank = (int(4 * (low + high) / SIZE) for low, high in ((x1, x2), (y1, y2)))
            assert item["square"] == "abcdefgh"[file] + "12345678"[rank]
            depth = frame["visible"][key]["depth"]
            assert "stuvwxyz".index(item["depth"]) == min(7, int(8 * depth / frame["farthest"]))
            places[item["square"]] += 1
            depths[item["depth"]] += 1
    assert len(places) > 20 and len(depths) > 5


# ---------------------------------------------------------------- understanding and reasoning


def on_the_floor(rationale, row, room):
    """{label: square} of the map in a rationale; every square must be that of floor.jsonl."""
    laid = re.search(r"On the floor ([a-z]+:[A-Z]{2}(?:, [a-z]+:[A-Z]{2})*)", rationale)[1]
    cells = dict(part.split(":") for part in laid.split(", "))
    sights = floor.Sights(room, row["data_type"], SIZE)
    assert laid == sights.floor([sights.by_name[label] for label in cells])
    return cells


def steps(rationale):
    """(across, along) of every way that a rationale goes."""
    ways = re.findall(r"(\d+) (left|right) (\d+) (front|back)", rationale)
    sign = {"right": 1, "left": -1, "front": 1, "back": -1}
    return [(int(across) * sign[side], int(along) * sign[way]) for across, side, along, way in ways]


def between(a, b):
    return "ABCDEFGHIJKL".index(b[0]) - "ABCDEFGHIJKL".index(a[0]), "MNOPQRSTUV".index(
        b[1]
    ) - "MNOPQRSTUV".index(a[1])


def test_absolute_distance(solved):
    cases = of(solved, "absolute distance")
    pairs = [[shown(room, frames)[name] for name in row["asked"]] for row, _, room, frames in cases]
    for (row, rationale, room, _), (a, b), exact in zip(cases, pairs, gaps(pairs)):
        plan, height, total = numbers(re.sub(SEEN, "", rationale))[-3:]
        assert total == float(row["answer"]) == pytest.approx(np.hypot(plan, height), abs=0.121)
        assert total == pytest.approx(exact, abs=0.0501)
        cells = on_the_floor(rationale, row, room)
        assert steps(rationale) == [between(*(cells[name] for name in row["asked"]))]
        above = max(abs(a["center"][2] - b["center"][2]) - (a["size"][2] + b["size"][2]) / 2, 0)
        assert height == pytest.approx(above, abs=0.0501)


def test_object_size(solved):
    for row, rationale, room, frames in of(solved, "object size"):
        o = shown(room, frames)[row["asked"][0]]
        *depth, longest = numbers(re.sub(SEEN, "", rationale))
        if row["data_type"] == "single_image":
            camera = board_camera(frames)
            assert depth == pytest.approx(
                [camera.rotation[2] @ np.subtract(o["center"], camera.position)], abs=0.0501
            )
        else:
            assert not depth and on_the_floor(rationale, row, room).keys() == {*row["asked"]}
        assert longest == float(row["answer"]) == pytest.approx(100 * max(o["size"]), abs=0.501)


def test_room_size(solved):
    for row, rationale, room, frames in of(solved, "room size"):
        first, second = (PICTURES[letter] for letter in re.findall(r"\((\w)\)", rationale))
        long, wide, area = numbers(rationale)
        assert area == float(row["answer"]) == pytest.approx(long * wide, abs=0.0501)
        assert [long, wide] == pytest.approx(room["polygon"][2], abs=0.0051)
        corners = [
            {
                k
                for k, corner in enumerate(room["polygon"])
                if any(framed(frame, corner) for frame in paired(frames)[n - 1])
            }
            for n in (first, second)
        ]
        assert any((k + 2) % 4 in corners[1] for k in corners[0]), rationale


def framed(frame, corner):
    camera = camera_from_json(frame["camera"])
    local = np.array([[*corner, z] for z in (0.0, 0.5, 1.0, 1.5, 2.0)]) - camera.position
    x, y, z = camera.rotation @ local.T
    edge = z * np.tan(np.radians(camera.fov_deg) / 2)
    return bool(((z > 0) & (abs(x) < edge) & (abs(y) < edge)).any())


def test_object_count(solved):
    for row, rationale, room, _ in of(solved, "object count"):
        listed = re.findall(r"([a-z]+):([A-Z]{2}) (\d+)", rationale)
        counted = [o for o in room["objects"] if o["category"] in row["asked"]]
        sights = floor.Sights(room, row["data_type"], SIZE)
        assert Counter(f"{label}:{square}" for label, square, _ in listed) == Counter(
            sights.floor([o]) for o in sights.objects if o.category in row["asked"]
        )
        kinds = [row["asked"].index(label) for label, *_ in listed]
        assert kinds == sorted(kinds)
        total = int(numbers(rationale)[-1])
        assert [int(number) for *_, number in listed] == list(range(1, total + 1))
        assert total == len(counted) == float(row["answer"])


def test_relative_distance(solved):
    pairs, far = [], []
    for row, rationale, room, frames in of(solved, "relative distance"):
        objects = shown(room, frames)
        said = re.findall(r"to ([a-z]+):[^:]*: (\d+\.\d) so ([a-z]+) (\d+\.\d)", rationale)
        stated = {name: float(gap) for name, gap, _, _ in said}
        cells = on_the_floor(rationale, row, room)
        assert set(stated) == {option[3:] for option in row["options"]} and set(cells) == {
            row["asked"][0],
            *stated,
        }
        assert steps(rationale) == [between(cells[row["asked"][0]], cells[name]) for name in stated]
        for number, (*_, closest, least) in enumerate(said, 1):
            assert stated[closest] == float(least) == min(list(stated.values())[:number])
        assert closest == chosen(row) and rationale.endswith(f" {chosen(row)}.")
        pairs += [[objects[row["asked"][0]], objects[name]] for name in stated]
        far += stated.values()
    assert np.abs(gaps(pairs) - far).max() <= 0.0501


def test_relative_direction(solved):
    for row, rationale, room, frames in of(solved, "relative direction"):
        objects, camera = shown(room, frames), board_camera(frames)
        stand = objects[row["asked"][0]]["center"]
        cells = on_the_floor(rationale, row, room)
        assert steps(rationale) == [
            between(cells[row["asked"][0]], cells[name]) for name in row["asked"][1:]
        ]
        stated = [float(n) for n in re.findall(r": (\d+)", rationale)]
        turned = numbers(rationale)[-1]
        for name, bearing in zip(row["asked"][1:], stated, strict=True):
            right, _, ahead = (
                np.diag([1, 0, 1])
                @ camera.rotation
                @ (np.subtract(objects[name]["center"], stand) * [1, 1, 0])
            )
            ahead /= np.linalg.norm(camera.rotation[2, :2])
            off = (np.degrees(np.arctan2(right, ahead)) - bearing + 180) % 360 - 180
            assert abs(off) <= 7.5 + 1e-6 and 0 <= bearing < 360 and bearing % 15 == 0
        side = re.search(r"turn \d+ (left|right)", rationale)[1]
        assert (
            turned
            == {"right": stated[1] - stated[0], "left": stated[0] - stated[1]}[side] % 360
            <= 180
        )
        turn = int(turned)
        expected = {
            "easy": side,
            "medium": "back" if turn > 135 else side,
            "hard": f"{'front' if turn < 90 else 'back'}-{side}",
        }[row["difficulty"]]
        assert expected == chosen(row) and rationale.endswith(f" {expected}.")


def test_appearance_order(solved):
    for row, rationale, room, frames in of(solved, "appearance order"):
        first = {item["label"]: item["picture"] for item in seen(rationale)}
        assert first == {
            name: first_view(shown(room, frames)[name], frames) for name in row["asked"]
        }
        ordered = [first[name] for name in chosen(row).split(", ")]
        assert ordered == sorted(ordered) and rationale.endswith(f" {chosen(row)}.")
        assert list(first) == row["asked"]
        met = dict(re.findall(r"\((\w)\)((?: [a-z]+)*?)(?= \(|, so |\. The )", rationale))
        assert "".join(met) == "ijklmnop" and "".join(met.values()).split() == chosen(row).split(
            ", "
        )
        assert all(name in met[letter].split() for name, letter in first.items())


# ---------------------------------------------------------------- words and rows


def test_several_phrasings_and_short_enough_for_nano(solved):
    tok, phrasings, lengths, kinds = Tokenizer.load(BASE), defaultdict(set), [], defaultdict(set)
    for row, rationale, *_ in solved:
        phrasings[row["question_type"]].add(", so " in rationale)
        kinds[row["data_type"]].add(row["question_type"])
        lengths.append(len(tok.answer(in_tags(rationale, row["answer"]))))
    assert len(phrasings) == 7 == len(kinds["video"]) and min(map(len, phrasings.values())) == 2
    assert max(lengths) <= rl.Settings.max_new_tokens and np.median(lengths) <= 90


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make(tmp_path_factory.mktemp("traces"), extra=["--traces=9"])


def test_prepare_adds_them_to_rooms_that_are_there(made, tmp_path):
    folder = make(tmp_path)
    assert not (folder / "train" / "cold.jsonl").exists()
    make(folder, extra=["--traces=9"])
    added, at_once = (root / "train" / "cold.jsonl" for root in (folder, made))
    assert added.read_bytes() == at_once.read_bytes()
    # Traces and rationales are for training alone.
    assert not list(made.glob("[!t]*/cold.jsonl"))
    told = {
        path.parent.name: [bool(row.rationale) for row in read_rows(path)]
        for path in made.glob("*/spatial.jsonl")
    }
    assert all(told.pop("train")) and not any(any(rows) for rows in told.values())


def test_rows_are_read_as_they_are_asked(made):
    rows = read_kinds(made / "train", ["cold", "single_image"])
    cold = [row for row in rows if row.kind == "cold"]
    assert len(cold) == 9 and len({row.data_type for row in cold}) == 3
    asked = {(row.question, row.images): row for row in read_rows(made / "train" / "spatial.jsonl")}
    for row in cold:
        direct = asked[row.question, row.images]
        for field in ("answer", "options", "form", "unit", "level"):
            assert getattr(row, field) == getattr(direct, field)
        assert prompt_text(row) == f"{prompt_text(direct)}\n{THINK}"
        rationale, answer = target_text(direct, ImageConfig()).split("\n")
        assert parse_thought(row.solution) == (rationale, answer)
        assert score_answer(f"{rationale}\n{answer}", direct) == {"accuracy": 1.0}
        assert target_text(row, ImageConfig()) == row.solution
        assert reward(row.solution, row) == {"format": 1.0, "accuracy": 1.0}
    assert not any(row.think for row in rows if row.kind != "cold")
    assert all(row.think for row in read_kinds(made / "test", ["video"], think=True))


@pytest.mark.parametrize(
    "change, complaint",
    [
        ({}, None),
        ({"question_type": "object count"}, None),
        ({"solution": "3"}, "cold.jsonl:1: a solution must be <think>"),
        ({"solution": 3}, "cold.jsonl:1: field 'solution' must be of type str"),
        (
            {"solution": "<think>x</think><answer></answer>", "question_type": "object count"},
            "must be a number",
        ),
        ({"prompt": None}, "field 'question'"),
    ],
)
def test_a_file_in_the_papers_four_fields(tmp_path, change, complaint):
    row = {
        "prompt": "How many?",
        "solution": "<think>1 + 2</think>\n<answer>3</answer>",
        "image": ["a.png"],
        "data_type": "single_image",
    }
    (tmp_path / "cold.jsonl").write_text(json.dumps(row | change) + "\n", encoding="utf-8")
    if complaint:
        with pytest.raises(UserError, match=complaint):
            read_rows(tmp_path / "cold.jsonl")
    else:
        (read,) = read_rows(tmp_path / "cold.jsonl")
        assert (read.kind, read.answer, read.think, read.level) == ("cold", "3", True, 0)


def test_traces_from_a_model_are_those_it_gets_right(tmp_path, monkeypatch, capsys):
    """A model that finds every second answer, and one time in three in the right form."""
    folder = make(tmp_path / "rooms") / "train"
    tok = Tokenizer.load(BASE)
    checkpoint.save(
        tmp_path / "model", checkpoint.load(BASE), tok, checkpoint.load_image_config(BASE)
    )
    answers = {row["question"]: row["answer"] for row in read_jsonl(folder / "spatial.jsonl")}

    def say(model, prompts, *_, **more):
        said = []
        for text in (tok.decode(prompt["input_ids"]) for prompt in prompts):
            assert THINK in text
            question = next(q for q in answers if q in text)
            knows = len(question) % 2 == 0
            said += ["well", answers[question], in_tags("so", answers[question] if knows else "0")]
        return SimpleNamespace(texts=lambda tokenizer: said)

    monkeypatch.setattr(traces, "generate", say)
    flags = ["--data", str(folder.parent), "--traces-from", str(tmp_path / "model"), "--tries", "3"]
    traces.main([*flags, "--traces", "5"])
    rows = read_rows(folder / "cold.jsonl")
    assert len(rows) == 5 and "5 traces" in capsys.readouterr().out
    assert all(
        row.solution == in_tags("so", answers[row.question]) and len(row.question) % 2 == 0
        for row in rows
    )
    with pytest.raises(UserError, match="already"):
        traces.main(flags)
