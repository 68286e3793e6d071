"""What a data set may decide about its own training, and how its recipe is found.

The core trains on any data folder with the defaults below. A data set that needs more (its own
mixture, rates, order of difficulty, a loss of its own, data that is made when missing) has a file
data/NAME/recipe.py with a subclass of Recipe called RECIPE. To swap the world, write one such file.
rl.py and eval.py use `settings` alone.
"""

import importlib
from pathlib import Path

from nanoladder.batches import plan_mixture
from nanoladder.command import UserError
from nanoladder.files import read_json
from nanoladder.image import ImageConfig
from nanoladder.prompts import prompt_text, target_text
from nanoladder.runtime import cosine_schedule

DATA = Path(__file__).parent.parent / "data"


class Recipe:
    """The defaults, which serve any folder of rows. s is always train.py's Settings."""

    name = None  # kept in the settings of a run, and in the prepare.json of data that it made
    version = 0  # of the data that it makes

    def settings(self, stage):
        """{setting: value} that differ from the script's defaults.

        stage: "0", "1", "2", "cold", "rl", "rl-localization" or "eval". The last three are settings
        of rl.py and eval.py, the others of train.py. "data" is the folder that is used, and made,
        where the user names none. Stage 0 needs "mix", because it has no kinds of its own.
        """
        return {}

    def make(self, data, stage, kinds):
        """Make the rows of these kinds that the folder `data` lacks, in train, val and test.

        For the kind "cold", val and test need spatial rows, on which the cold start is scored.
        A recipe that makes data writes {"recipe": name, "version": version} into its prepare.json,
        by which rl.py and eval.py find the recipe of the folder.
        """

    def select(self, s, rows):
        """The training rows to learn from: by default without traces of unwanted modalities."""
        return [row for row in rows if row.kind != "cold" or row.data_type in s.data_types]

    def order(self, s, groups, shares):
        """(epoch, group index, questions) of each of the run's s.steps * s.batch_size sequences."""
        plan = plan_mixture(groups, shares, s.steps * s.batch_size, s.seed)
        return [(epoch, i, s.questions_per_sequence) for epoch, i in plan]

    def rate(self, s, step):
        """Factor on the rates: a tenth of the steps up, then a cosine (the paper, section 4)."""
        return cosine_schedule(step, s.steps, s.steps // 10)

    def texts(self, rows):
        """Texts that a new tokenizer is trained on."""
        for row in rows[:: max(1, len(rows) // 100_000)]:
            yield prompt_text(row)
            yield target_text(row, ImageConfig())

    def extra_tensors(self, s, image_config):
        """The `extra` of batches.Dataset: a function of (row, grid_thw), or None."""
        return None

    def loss(self, s, answer_loss, tokenizer, image_config, rows):
        """The module that computes a batch's loss from train.AnswerLoss: (sum, auxiliary mean).

        One that leaves some weights without a gradient sets may_skip_parameters = True.
        """
        return answer_loss


def find_recipe(name=None, data=None):
    """The recipe called `name`, or of the data folder, or (where neither is given) the default.

    data/__init__.py names the default. A folder that no recipe made gets the defaults of Recipe.
    UserError where the name is unknown, or where an older version of the recipe made the folder.
    """
    made = Path(data or "", "prepare.json")
    told = read_json(made) if data and made.is_file() else {}
    shipped = [path.parent.name for path in sorted(DATA.glob("*/recipe.py"))]
    name = name or told.get("recipe")
    if name is None and data is None and shipped:
        default = importlib.import_module("data").DEFAULT_RECIPE
        name = default if default in shipped else None
    if name is None:
        return Recipe()
    if name not in shipped:
        raise UserError(f"--recipe {name}: there is no data/{name}/recipe.py")
    recipe = importlib.import_module(f"data.{name}.recipe").RECIPE()
    if told.get("recipe") == name and told.get("version") != recipe.version:
        raise UserError(
            f"{data} was made by version {told.get('version')} of its recipe, and this is version "
            f"{recipe.version}: delete it, or name another --data"
        )
    return recipe
