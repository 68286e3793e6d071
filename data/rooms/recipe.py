"""The rooms' recipe: what each stage needs when a model of 2 million parameters climbs the ladder.

The core (train.py, rl.py, eval.py) knows nothing of rooms; it asks this recipe.
nanoladder/recipe.py says what a recipe may decide.
"""

import re
import shlex
import subprocess
import sys
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F

from data.rooms import prepare
from data.rooms.curriculum import asked_objects, plan_curriculum
from data.rooms.dense import DenseLoss, dense_targets
from data.rooms.questions import LOCATE, NAMES
from data.rooms.rationales import RATIONALES
from data.rooms.spatial import PHRASES, SECTORS
from nanoladder.answers import in_tags
from nanoladder.command import UserError
from nanoladder.files import is_unused
from nanoladder.process import run_child
from nanoladder.prompts import THINK, prompt_text, target_text
from nanoladder.recipe import Recipe
from nanoladder.runtime import cosine_schedule
from nanoladder.schema import DATA_TYPES, file_of
from nanoladder.splits import scored_kinds

ROOT = Path(__file__).parent.parent.parent
# data.rooms.prepare as the child of a training: it ends when the training does.
MAKE_ROOMS = """
from data.rooms import prepare, workers
workers.end_with_stdin()
prepare.run_script(prepare.main)
"""
KINDS = ("localization", "seeing", "floor", "map_arithmetic", *DATA_TYPES, "cold")
BASE, BOXES, SPATIAL = "datasets/rooms-base", "datasets/rooms", "datasets/rooms-spatial"
# Every stage also asks some questions of the stages before, because a model of this size forgets
# what it is no longer asked. For the same reason the vision encoder stays frozen after stage 0:
# stage 1 has no rooms with several views, and made it forget where things stand on the floor.
SPATIAL_RUN = dict(data=SPATIAL, freeze_vision=True, batch_size=8, micro_batch_size=4)
SPATIAL_RUN |= dict(questions_per_sequence=6, muon_lr=4e-3, eval_rows=100, eval_every=1000)
SETTINGS = {
    "0": dict(data=BASE, mix="seeing=0.6,floor=0.25,map_arithmetic=0.15", steps=10_000)
    | dict(questions_per_sequence=6, lr=6e-3, muon_lr=0.02, eval_every=1000, save_every=250),
    "1": dict(data=BOXES, mix="localization=0.8,seeing=0.15,floor=0.05", steps=750)
    | dict(muon_lr=4e-3, freeze_vision=True),
    # As in the paper, stage 2 answers directly, and the cold start teaches rationales. If stage 2
    # taught the rationale of every question, the cold start and GRPO could not add to it.
    "2": SPATIAL_RUN
    | dict(steps=1200, lr=1.5e-3, rationales=False)
    | dict(
        mix="localization=0.16,seeing=0.08,floor=0.17,map_arithmetic=0.05,"
        "single_image=0.19,multi_view=0.17,video=0.18"
    ),
    "cold": SPATIAL_RUN
    | dict(steps=800, lr=3e-3, mix="cold=0.7,floor=0.06,localization=0.16,seeing=0.08"),
    "rl": dict(data=SPATIAL),
    "rl-localization": dict(data=BOXES),
    "eval": dict(data=SPATIAL),
}
# What plan_curriculum and `rate` need beyond the settings.
CURRICULUM = {
    "0": {"easy_first_share": 0.5},
    "1": {"easy_first_share": 0.3, "multi_image_share": 0.3},
    "2": {"multi_image_from": 0.3, "multi_image_share": 0.5},
    "cold": {"multi_image_share": 0.5},
}
WARMUP = {"0": 50, "1": 50, "2": 20, "cold": 20}  # steps
MIN_OBJECTS = {"1": 2}  # that a picture's localization rows must ask for
# Stage 0 first trains the vision encoder alone, by the dense loss: a share of the steps. When the
# questions begin, the rates warm up again, to a share of their peaks.
VISION_ONLY_SHARE, LR_AFTER_VISION = 0.25, 0.25
# Arguments of data.rooms.prepare: rooms, how many of them have views and a walk too, and the rest.
PREPARE = {
    "0": (60_000, 3750, ["--seeing", "--index-images"]),
    "1": (10_000, 0, ["--seeing"]),
    "2": (9600, 1200, ["--seeing", "--held-out", "400", "--questions", "8"]),
}
# A trace for every question there is; the paper has 1,255.
PREPARE["cold"] = (9600, 1200, [*PREPARE["2"][2], "--traces", "250000"])


class Rooms(Recipe):
    name, version = "rooms", prepare.VERSION

    def settings(self, stage):
        return SETTINGS.get(stage, {})

    def make(self, data, stage, kinds):
        """Make the rooms of a stage in the folder `data`, unless its rows are there already."""
        data = Path(data)
        if unknown := [kind for kind in kinds if kind not in KINDS]:
            raise UserError(f"--mix {unknown[0]}: the rooms have {', '.join(KINDS)}")
        needed = [data / "train" / file_of(kind) for kind in kinds]
        needed += [
            data / split / file_of(k) for k in scored_kinds(kinds) for split in ("val", "ood")
        ]
        missing = next((path for path in needed if not path.exists()), None)
        if missing is None:
            return
        if data.exists() and not data.is_dir():
            raise UserError(f"--data {data}: this is a file; name a folder")
        if not (is_unused(data) or (data / "prepare.json").exists()):
            raise UserError(
                f"{missing} is missing, and {data} holds other files, so no rooms are made there: "
                "name another folder with --data"
            )
        rooms, several, flags = PREPARE[stage]
        counts = ["--pictures", str(rooms), "--view-sets", str(several), "--videos", str(several)]
        argv = ["--out", str(data.resolve()), *counts, *flags]
        command = "python -m data.rooms.prepare " + shlex.join(argv)
        if others := prepare.other_settings(data, prepare.read_settings(argv)):
            raise UserError(
                f"{missing} is missing, and {data} was begun with other settings "
                f"({', '.join(others)}): finish it with its own command, or delete it or name "
                f"another --data; this makes a complete one: {command}"
            )
        print(f"making rooms: {command}", flush=True)
        if run_child([sys.executable, "-c", MAKE_ROOMS, *argv], cwd=ROOT, stdin=subprocess.PIPE):
            raise UserError(f"making the rooms in {data} failed; the reason is above")

    def select(self, s, rows):
        """Leave out pictures that ask for too few objects, and maps of unwanted modalities."""
        few = {i for i, n in asked_objects(rows).items() if n < MIN_OBJECTS.get(s.stage, 1)}
        asks_spatial = {row.kind for row in rows} & {*DATA_TYPES, "cold"}
        wanted = s.data_types if asks_spatial else DATA_TYPES
        return [
            row
            for row in rows
            if not (row.form == "boxes" and row.images in few)
            and (row.kind not in ("floor", "cold") or row.data_type in wanted)
        ]

    def order(self, s, groups, shares):
        first = self.vision_only_steps(s) * s.batch_size
        more = CURRICULUM[s.stage]
        pictures = plan_curriculum(
            groups, shares, first, s.seed, **more | {"easy_first_share": 0.0}
        )
        rest = plan_curriculum(groups, shares, s.steps * s.batch_size - first, s.seed, **more)
        return [(epoch, i, 0) for epoch, i in pictures] + [
            (epoch, i, s.questions_per_sequence) for epoch, i in rest
        ]

    def vision_only_steps(self, s):
        return round(VISION_ONLY_SHARE * s.steps) if s.stage == "0" else 0

    def rate(self, s, step):
        first, warmup = self.vision_only_steps(s), WARMUP[s.stage]
        if step < first:
            return cosine_schedule(step, first, warmup)
        factor = cosine_schedule(step - first, s.steps - first, warmup)
        return factor * (LR_AFTER_VISION if first else 1)

    def extra_tensors(self, s, image_config):
        return partial(dense_targets, image_config=image_config) if s.stage == "0" else None

    def loss(self, s, answer_loss, tokenizer, image_config, rows):
        """Stage 0 adds the dense loss. Tokens that its rows never use keep their embeddings.

        The softmax gives all tokens that are never targets the same gradient. Their embeddings
        would become equal, and a later stage could not tell them apart.
        """
        head = answer_loss.model.lm_head
        device = head.weight.device
        if s.model is None:
            used = used_tokens(rows, tokenizer, image_config, len(head.weight)).to(device)
            answer_loss.head = partial(head_of_used_tokens, head, used)
        return DenseLoss(answer_loss, tokenizer, device) if s.stage == "0" else answer_loss

    def texts(self, rows):
        """The stage's questions and answers, and what all later stages ask and answer."""
        yield from super().texts(rows)
        yield '[{"label":"bed","bbox_2d":[12,34,56,78]},{"label":"sofa","bbox_2d":[9,8,7,65]}]'
        asked = [*LOCATE, *(phrase for phrases in PHRASES.values() for phrase in phrases)]
        for name in NAMES:
            for phrase in asked:
                yield phrase.format(*[f"the {name}"] * 3, all=f"{name}, {name}")
        options = "Options: A. left B. right C. back D. front\nAnswer with one option."
        yield f"{options}\nAnswer with a number.\n{THINK}"
        directions = (word for sectors in SECTORS.values() for word in sectors)
        for word in ("user", "assistant", *directions):
            yield f"{word}\n {word}"
        for _, phrases in RATIONALES.values():
            yield from (in_tags(re.sub(r"{.*?}", " 1", phrase), "A") for phrase in phrases)


def used_tokens(rows, tokenizer, image_config, size):
    """Bool [size]: the tokens in a sample of the rows' questions and answers."""
    used = torch.zeros(size, dtype=torch.bool)
    for row in rows[:: max(1, len(rows) // 20_000)]:
        prompts = tokenizer.prompts
        used[tokenizer.question(prompt_text(row, prompts))] = True
        used[tokenizer.answer(target_text(row, image_config, prompts))] = True
    return used


def head_of_used_tokens(head, used, hidden):
    """Logits of hidden states, whose gradient leaves the embeddings of unused tokens alone."""
    weight = torch.where(used[:, None], head.weight, head.weight.detach())
    return F.linear(hidden, weight)


RECIPE = Rooms
