"""Reading of answers: one choice, one number; and junk, which is read in bounded time."""

import time
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from nanoladder.answers import (
    LONGEST,
    answer_part,
    parse_boxes,
    parse_choice,
    parse_number,
    parse_thought,
    read_answer,
)
from nanoladder.files import write_jsonl
from nanoladder.motion import parse_motion
from nanoladder.rewards import reward, score_answer
from nanoladder.splits import expect_rationales, read_splits
from nanoladder.strict import strict_accuracy

OPTIONS = ("A. bed", "B. chair", "C. lamp", "D. arm chair")
CHAIR = {"label": "chair", "bbox_2d": [10, 10, 30, 30]}


def row_of(form, answer, **fields):
    """What the readers need to know of a row."""
    known = {"options": OPTIONS, "unit": "m", "task": "", "think": False, "after_rationale": False}
    return SimpleNamespace(**known | {"form": form, "answer": answer} | fields)


ROWS = [
    *(row_of(form, answer) for form, answer in (("choice", "B"), ("number", "6"), ("text", "red"))),
    row_of("motion", "move_left:0.4,rotate_up:5"),
    row_of("number", "6", unit="", after_rationale=True),
    row_of("choice", "B", task="Count", think=True),
    row_of("number", "0", task="depth_prediction_oc_mv", think=True),
]

# ---------------------------------------------------------------- choices


@pytest.mark.parametrize("text, letter", [
    ("B", "B"), ("(B)", "B"), ("b.", "B"), ("B. chair", "B"), ("(b) chair.", "B"),
    (" B: Chair\n", "B"), ("D", "D"), ("A or B", None), ("A, B", None), ("AB", None),
    ("B. bed", None), ("E", None), ("", None), ("bed", "A"), ("a chair", None),
    ("A. bed B. chair C. lamp D. arm chair", None), ("D. arm chair", "D"), ("Arm chair.", "D"),
    ("bed or chair", None), ("chair (B)", "B"), ("Arm chair (d).", "D"), ("bed (B)", None),
    ("chair (E)", None), ("chair (B) (B)", None), ("chair ()", None),
])  # fmt: skip
def test_one_choice_is_read_whatever_its_form(text, letter):
    assert parse_choice(text, OPTIONS) == letter


def test_words_that_two_options_share_are_no_answer():
    assert parse_choice("bed", ("A. bed", "B. bed")) is None
    assert parse_choice("b. bed", ("A. bed", "B. bed")) == "B"
    assert (
        parse_choice("b", ("A. b", "B. c")) == "B"
    )  # a letter names its option before a text does


@pytest.mark.parametrize("text", [
    "Answer: B", "**B**", "The answer is B.", "B. The chair is closest.", "B.  chair", "B! ",
    "The correct answer is **B. chair**", "Option B", "B) chair", "B - chair", "(B) - the chair",
    "Final answer: (B) chair.", "**Answer:** B", "So, the answer is: B", "the answer is chair",
    "The answer is chair (B).", "B\n\nThe chair is nearest.",
    "The answer is B because the chair is closest.", "**B**\nBecause it is near.", "B is correct.",
    "B. Because it is closest to the door.", "B. It is a chair.", "\u201cB\u201d", "`B`",
    "\uff22", "Answer\uff1aB", "\uff08B\uff09", "CHAIR", "\\boxed{B}", "$B$", "\\text{B}", "[B]",
    "{B}", "__B__", "'B'", "答案：B", "答案是B", "选B", "B、chair", "It is B.",
    "I think the answer is B.",
    "I would choose B.", "Based on the image, the answer is B.", "### Answer\nB", "The chair.",
    "B\u200b", "\ufeffB",
])  # fmt: skip
def test_a_letter_is_read_where_nothing_else_is_named(text):
    assert parse_choice(text, OPTIONS) == "B"


@pytest.mark.parametrize("text", [
    "B or C", "not B", "B is wrong", "Answer: B or C", "The answer is not B.", "B. not the chair",
    "B. The bed is closest", "B. The chair or the lamp", "a, b", "B and C", "B/C", "BC", "B C",
    "a) b) c) d)", "(a) and (b) are fine", "B. or (c)", "B. sofa", "B. It is not clear.", "B? C",
    "B. The arm chair is closest", "A. bed B. chair", "B. chair?", "B. It isn't the chair",
    "maybe B", "Either B", "A\nB\nC\nD", "Answer: B\nAnswer: C", "The answer is B. No, C",
    "B. A is too far away", "B, but it may be another", "A chair is closest", "Answer:", "options",
    "I don't think the answer is B.", "I think it is not B", "It is B or C", "[B] or [C]",
    "E. It is something else", "Neither A nor B", "! (z)", "B. \uff21 is too far", "B. " * 700,
])  # fmt: skip
def test_hedges_and_two_options_are_no_answer(text):
    assert parse_choice(text, OPTIONS) is None


def test_an_options_own_words_may_be_a_sentence():
    """With their final stop, doubled blanks, negations, numbers, or the word Option in them."""
    right = ("A. It is  left.", "B. It is right.")
    for text in ("B. It is right.", "b. it is  right", "It is right", "(B) It is right.", "B."):
        assert parse_choice(text, right) == "B"
    assert parse_choice("B. It is left.", right) is None
    assert parse_choice("D. The arm chair is closest.", OPTIONS) == "D"
    assert parse_choice("B. no", ("A. yes", "B. no")) == "B"
    assert parse_choice("Option 2", ("A. Option 1", "B. Option 2")) == "B"
    assert parse_choice("B. 3", ("A. 3", "B. 4")) is None
    assert parse_choice("A. 3.5", ("A. 3", "B. 4")) is None  # 3.5 is not 3
    assert parse_choice("bed", ["bed", "chair"]) is None  # options without letters name nothing


# ---------------------------------------------------------------- numbers


@pytest.mark.parametrize("text, unit, value", [
    ("20 平方米", "m^2", 20), ("20平方米", "平方米", 20), ("３．５", "m", 3.5),
    ("30 km/h", "km/h", 30), ("7 years old", "years old", 7), ("20 m^{2}", "m^2", 20),
    ("\\boxed{3.5}", "m", 3.5),
    ("3.5%", "m", None), ("40 %", "%", 40),
])  # fmt: skip
def test_numbers_as_the_world_writes_them(text, unit, value):
    assert parse_number(text, unit) == value


@pytest.mark.parametrize("text, unit, value", [
    ("3.2", "m", 3.2), ("3.2 m", "m", 3.2), ("about 3.2", "m", 3.2), (".5", "m", 0.5),
    ("a distance of 3.2 meters.", "m", 3.2), ("320cm", "m", 3.2), ("10 feet", "m", 3.048),
    ("1,200 mm", "m", 1.2), ("12", "cm", 12), ("1.2 metres", "cm", 120), ("32 inches", "cm", 81.28),
    ("132", "m^2", 132), ("20 m^2", "m^2", 20), ("20 m2", "m^2", 20), ("20 m²", "m^2", 20),
    ("20 sq. meters", "m^2", 20), ("100 square feet", "m^2", 9.290304), ("20 sqm", "m^2", 20),
    ("three", "", 3), ("There are 3 chairs", "", 3), ("12", "", 12), ("2 or 3", "", None),
    ("two or three", "", None), ("many", "", None), ("12 kg", "cm", None), ("20 m", "m^2", None),
    ("3 m2", "m", None), ("between 2 and 3 m", "m", None), ("3,2", "m", None), ("", "m^2", None),
    ("three", "m^2", None), ("1.2.3", "cm", None), ("1e308", "", None), ("١٠٠ or 100", "cm", None),
    ("1,0,0١٠٠1e308-0١٠٠", "cm", None),
    # A unit that is neither a length nor an area is any word of the data set.
    ("12 kg", "kg", 12), ("12", "kg", 12), ("12 m", "kg", None), ("1 degree", "degrees", 1),
    ("30 degrees", "degrees", 30), ("-30 degrees.", "degrees", -30),
    ("30 radians", "degrees", None),
])  # fmt: skip
def test_one_number_is_read_in_the_asked_unit(text, unit, value):
    assert parse_number(text, unit) == (value if value is None else pytest.approx(value))


@pytest.mark.parametrize("text, unit, value", [
    # The character in front may be Chinese, where no blanks part words; other letters may not.
    ("约6米", "m", 6), ("约6米", "cm", 600), ("答案是6", "", 6), ("20平方米", "m^2", 20),
    ("一共有6把椅子", "", 6),
    ("약6미터", "m", 6), ("6米", "m^2", None), ("é5", "m", None), ("x5", "m", None),
    ("about 6", "m", 6), ("６", "m", 6),
    # A minus sign in any of its forms; a hyphen inside a word is none, and a dash makes a range.
    ("\u22125", "degrees", -5), ("\uff0d5", "degrees", -5), ("\u20135", "degrees", -5),
    ("\u2212 5", "degrees", -5), ("-.5", "degrees", -0.5), ("minus 5 degrees", "degrees", -5),
    ("答案是\u22125", "degrees", -5), ("It is (\u22125).", "degrees", -5), ("chair-5", "", 5),
    ("2-3", "m", None), ("2\u20133", "m", None), ("2 \u2212 3", "m", None), ("2 to 3", "m", None),
    ("from -5 to 5", "degrees", None), ("2 to three", "", None), ("two to three", "", None),
    # Other ways to say a number that is not the one that stands there.
    ("2½", "m", None), ("½ or 3", "m", None), ("3²", "m", None), ("twenty-two", "", None),
    ("thirty two", "", None),
    ("one hundred", "", None), ("3 (three)", "", 3), ("3 on the one side", "", 3),
    ("two empty chairs", "", 2), ("9" * 400, "m", None), ("9" * 308, "mm", 1e308),
    ("9" * 308 + " m", "mm", None),
])  # fmt: skip
def test_signs_scripts_and_second_numbers(text, unit, value):
    assert parse_number(text, unit) == (value if value is None else pytest.approx(value))


def test_minus_signs_of_motions():
    assert parse_motion("move_left:\u22120.4") == parse_motion("move_left:-0.4")
    assert parse_motion("move_left:0.4, move_left:0.4") is None
    assert parse_motion(f"move_left:{'9' * 400}, move_right:{'9' * 400}") is None


@pytest.mark.parametrize("taught", [True, False])
def test_a_data_set_with_rationales_is_read_in_the_last_line(tmp_path, taught):
    """Its training rows decide, also about the rows of other splits, which have no rationales."""
    row = {"question_id": 1, "question": "?", "image": ["a.png"], "data_type": "video"}
    row |= {"answer": "6", "unit": "m"}
    for split in ("train", "val", "test"):
        (tmp_path / split).mkdir()
        Image.new("RGB", (28, 28)).save(tmp_path / split / "a.png")
        more = {"rationale": "Sides 4, 6."} if taught and split == "train" else {}
        write_jsonl(tmp_path / split / "spatial.jsonl", [row | more])
    splits = read_splits(tmp_path, ["video"], {"val": None, "test": None})
    for (asked,) in splits.values():
        assert asked.after_rationale == taught
        assert score_answer("Sides 4, 6.\n6", asked)["accuracy"] == float(taught)
        assert score_answer("It is\n6 m", asked)["accuracy"] == 1.0


def test_rationales_of_one_kind_leave_the_answers_of_another_alone():
    quiz, spatial = (SimpleNamespace(kind=kind, after_rationale=False) for kind in "qs")
    expect_rationales([quiz, spatial], [SimpleNamespace(kind="s", after_rationale=True)])
    assert (quiz.after_rationale, spatial.after_rationale) == (False, True)


# ---------------------------------------------------------------- whatever a model writes


def read_all(text):
    """Everything that reads or scores an answer, on one text."""
    parse_thought(text)
    for row in ROWS:
        stated = read_answer(answer_part(text, row), row)
        assert stated is None or row.form != "choice" or stated in "ABCD"
        assert stated is None or row.form != "number" or np.isfinite(stated)
        for score in (score_answer(text, row)["accuracy"], strict_accuracy(text, row)):
            assert 0 <= score <= 1
    boxes = parse_boxes(text)
    assert boxes is None or all(set(box) == {"label", "bbox_2d"} for box in boxes)
    assert set(reward(text, SimpleNamespace(form="boxes"), [CHAIR])) == {"format", "accuracy"}


def test_whatever_a_model_writes_is_read_or_is_no_answer():
    pieces = [
        *(
            "A",
            "B.",
            "(c)",
            "chair",
            "arm chair",
            "Answer: ",
            "The answer is ",
            " or ",
            " not ",
            "?",
        ),
        *(
            "6",
            "-6",
            "\u2212",
            " m",
            "cm",
            "m^2",
            "9" * 400,
            "1e999",
            "½",
            "²",
            "١٠",
            "three",
            "约",
        ),
        *("[", "]", "{", "}", '"label":', '"bbox_2d":', "[1,2,3,4]", "NaN", '"\\ud800"', "```json"),
        *("<think>", "</think>", "<answer>", "</answer>", "move_left:", "rotate_up:5", ",", "\n"),
        *(
            "\ud800",
            "\udfff",
            "\x00",
            "\u2028",
            "\u0085",
            "\ufdfa",
            "İ",
            "ﬁ",
            "ß",
            "😀",
            " ",
            "**",
            "^",
        ),
    ]
    rng = np.random.default_rng(0)
    for _ in range(400):
        read_all("".join(pieces[k] for k in rng.integers(0, len(pieces), rng.integers(0, 12))))


RUNS = [
    "a",
    "9",
    " ",
    "\n",
    "[",
    "(",
    "1,",
    "1.",
    ".",
    "-",
    "m2",
    "sq ",
    "a m^",
    "\u2212 ",
    "B. ",
    "a\n",
]
RUNS += [
    "<answer>",
    "</think>",
    "</think><answer>",
    "<think></think> ",
    "move_a ",
    "move_left:1,",
    "`",
]
RUNS += [
    "the answer is ",
    "\ufdfa",
    "\u0301\u0316",
    "\u3000",
    "minus ",
    "chair ",
    '{"a":',
    "```",
    "\ud800",
    "约6",
]


@pytest.mark.parametrize("run", RUNS)
def test_long_runs_are_read_in_bounded_time(run):
    """Of 100,000 characters. Quadratic time would take minutes."""
    for text in (run * (100_000 // len(run)), f"B 6{run * (100_000 // len(run))}]"):
        start = time.perf_counter()
        read_all(text)
        assert time.perf_counter() - start < 3


def test_a_text_is_one_choice_or_number_up_to_a_stated_length():
    words = "well " * (LONGEST // 5 - 1)
    assert (
        parse_number(words + "6 m", "m") == 6 and parse_number(words + words + "6 m", "m") is None
    )
    assert parse_choice(f"B. The chair {words[:-50]}", OPTIONS) == "B"
    assert parse_choice(f"B. The chair {words + words}", OPTIONS) is None
    for blanks in (" " * 9999, "\n" * 9999):
        assert parse_number(f"{blanks}6 m{blanks}", "m") == 6
        assert parse_choice(f"{blanks}B{blanks}", OPTIONS) == "B"
