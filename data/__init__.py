"""Data sets, one folder each, whose prepare.py writes rows as nanoladder/schema.py has them."""

DEFAULT_RECIPE = "rooms"  # data/NAME/recipe.py, used where neither --recipe nor --data is given
