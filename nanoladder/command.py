"""The command line of every script, made from a dataclass. Imports no torch.

@dataclass
class Settings:
    lr: float = setting(3e-4, "peak learning rate")

settings = parse(Settings, argv)        # --lr 1e-3; an unknown flag is refused; --help explains
"""

import argparse
import dataclasses
import os
import sys

from tqdm import tqdm


class UserError(ValueError):
    """Something that the user can mend. Scripts print its one line and exit with status 2."""


def run_script(main):
    """Call main(argv). A UserError, or another ValueError of our readers, ends in one line.

    With NANOLADDER_DEBUG set in the environment the traceback is shown instead.
    """
    try:
        main(sys.argv[1:])
    except ValueError as error:
        if os.environ.get("NANOLADDER_DEBUG"):
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def setting(default, help, choices=None, low=None, high=None):
    """A field of a settings dataclass: its line of --help, and its choices or its range.

    low, high: the least and the greatest value that is accepted; parse() refuses any other.
    """
    metadata = {"help": help, "choices": choices, "low": low, "high": high}
    return dataclasses.field(default=default, metadata=metadata)


def flag(name):
    """The flag of a setting: "batch_size" -> "--batch-size"."""
    return "--" + name.replace("_", "-")


def parse(cls, argv, presets=None, doc=""):
    """An instance of the settings dataclass `cls`, read from a command line.

    presets(given) gets the flags that were given, {name: value}, and returns the values that stand
    between the class's defaults and these flags; so `--stage 2` can mean other defaults than
    `--stage 1`. Booleans are --name and --no-name.
    """
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    for f in dataclasses.fields(cls):
        shown = "default: it depends" if f.default is None else f"default {f.default}"
        options = {"default": argparse.SUPPRESS, "help": f"{f.metadata['help']} ({shown})"}
        kind = f.type if isinstance(f.type, type) else f.type.__args__[0]  # int of `int | None`
        if kind is bool:
            options["action"] = argparse.BooleanOptionalAction
        else:
            options |= {"choices": f.metadata["choices"], "metavar": f.name.upper()}
            options |= {"nargs": "+"} if kind is tuple else {"type": kind}
        parser.add_argument(flag(f.name), **options)
    parsed = vars(parser.parse_args(argv)).items()
    given = {name: tuple(v) if isinstance(v, list) else v for name, v in parsed}
    return cls(**{**(presets(given) if presets else {}), **given})


def show(settings):
    """The settings as lines: those that differ from the default, then the rest in one line."""
    own, rest = [], []
    for f in dataclasses.fields(settings):
        value = getattr(settings, f.name)
        (rest if value == f.default else own).append((f.name, value))
    width = max((len(name) for name, _ in own), default=0)
    lines = [f"  {name:<{width}}  {value}" for name, value in own]
    return "\n".join(
        [*lines, "  defaults: " + ", ".join(f"{name} {value}" for name, value in rest)]
    )


def progress(items=None, **options):
    """A tqdm bar that vanishes when it is done; where the output is a file it is redrawn rarely."""
    interval = 0.3 if sys.stderr.isatty() else 30
    return tqdm(items, mininterval=interval, dynamic_ncols=True, **{"leave": False} | options)
