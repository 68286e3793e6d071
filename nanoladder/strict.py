"""The score that SpatialLadder's released evaluation gives to an answer.

For a choice of VSI-Bench whose answer is B:

    >>> strict_accuracy("B. chair", row), strict_accuracy("(B)", row)
    (1.0, 0.0)

We read the code in `eval_spld/` of github.com/ZJU-REAL/SpatialLadder (commit 87320be), and copied
nothing. The paper's columns VSI-Bench, SPBench-SI, SPBench-MV, CV-Bench, SPAR-Bench and
ViewSpatial-Bench were scored so. Compare them with this score, and not with our own.

Two other public ways to read answers differ from this one. The reward of the original's stage 3 is
stricter: the last answer block must be the bare letter, in either case, or something that Python's
float() takes. VSI-Bench's own harness (lmms_eval in github.com/vision-x-nyu/thinking-in-space)
reads the first word of the whole text, without its final stops: as a letter in either case, or by
float().
"""

import re

import numpy as np

from nanoladder.benchmarks import CV_TASKS, SPAR_TASKS, VIEW_TASKS
from nanoladder.rewards import score_answer

THRESHOLDS = np.linspace(0.5, 0.95, 10)  # floats, compared without a tolerance
UNITS = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
UNITS += " sixteen seventeen eighteen nineteen twenty"
TENS = "thirty forty fifty sixty seventy eighty ninety"
# In the order in which the original looks for them. It takes an article for a 1.
WORDS = dict(zip(UNITS.split(), range(1, 21))) | dict(zip(TENS.split(), range(30, 100, 10)))
WORDS |= {"zero": 0, "a": 1, "an": 1}


def strict_accuracy(text, row):
    """The original's score of a completion for a choice or a number; our own for other answers.

    row: any but one that asks for boxes, which no published benchmark does.
    """
    if row.form not in ("choice", "number"):
        return score_answer(text, row)["accuracy"]
    if row.think and "<answer>" in text:  # without a block, all of the text is read
        said, end, _ = text.partition("<answer>")[2].partition("</answer>")
        text = said.strip() if end else "None"
    return choice_score(text, row) if row.form == "choice" else number_score(text, row)


def choice_score(text, row):
    """1.0 for the right letter. It may be followed by a stop, and then by a blank and any words."""
    if row.task in SPAR_TASKS:  # only the first character counts, and an empty answer is right
        return float(text[:1].lower() in row.answer.lower())
    same_case = row.task in VIEW_TASKS or row.task in CV_TASKS
    text = text if same_case else text.replace("Answer:", "")
    letter = r"(?i:[(\[{]?([A-D])[)\]}]?\.?)" if row.task in CV_TASKS else r"([A-D])\.?"
    found = re.fullmatch(letter, text.split(" ")[0].strip())
    said = found[1].upper() if found else text.strip()
    return float(said == row.answer or (not same_case and said.upper() == row.answer))


def number_score(text, row):
    """The MRA of one plain number without its sign and unit; 0.0 where the text has none."""
    found, truth = re.findall(r"\d+(?:\.\d+)?", text), float(row.answer)
    if row.task in SPAR_TASKS:
        found = re.findall(r"(?<!\^)(?:\d+\.\d+|\d+)", text)
        value = found[-1 if row.task.endswith("_mv") else 0] if found else None
    else:
        words = {*re.findall(r"\w+", text.lower())}
        spelt = next((word for word in WORDS if word in words), None)
        value = WORDS[spelt] if spelt else found[0] if found else None
    if value is None:
        return 0.0
    error = abs(float(value) - truth) / (abs(truth) or 1.0)  # the original raises for a truth of 0
    return float((error <= 1 - THRESHOLDS).mean())
