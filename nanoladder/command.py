"""The command line of every script, made from a dataclass, and how a script ends. Needs no torch.

@dataclass
class Settings:
    lr: float = setting(3e-4, "peak learning rate", low=0, high=10)

settings = parse(Settings, argv)        # --lr 1e-3; --lr nan and unknown flags are refused
"""

import argparse
import dataclasses
import difflib
import os
import re
import reprlib
import sys
import textwrap
from pathlib import Path

from tqdm import tqdm

MOST = sys.float_info.max  # the range of a setting that declares none
CUT = reprlib.Repr()
CUT.maxstring = 80


class UserError(ValueError):
    """Something that the user can mend. Scripts print its one line and exit with status 2."""


class Stopped(KeyboardInterrupt):
    """SIGTERM, or SIGINT as Ctrl-C sends it, asked this process to end. Its text is printed.

    signal: the number. A loop catches it, saves, and raises it again with what it saved as text.
    """

    def __init__(self, number, text=""):
        super().__init__(text)
        self.signal = number


def require(rules, where, error=UserError):
    """Raise `error` for the first of the (whether it holds, in words) that does not hold.

    A rule may bring a value, which stands where its words have {}. It becomes text only where the
    rule does not hold, because that takes longer than to check it.
    """
    for holds, rule, *value in rules:
        if not holds:
            raise error(where + (rule.replace("{}", shown(*value), 1) if value else rule))


def shown(value):
    """A value for a message: its repr in one line, cut where it is long or deep."""
    return CUT.repr(value)


def setting(default, help, choices=None, low=None, high=None, writes=None):
    """A field of a settings dataclass: its line of --help, and what it accepts.

    choices: its values. low, high: its least and its greatest value. writes: "folder" or "file",
    where the script writes one at this path. parse() refuses all else.
    """
    metadata = {"help": help, "choices": choices, "low": low, "high": high, "writes": writes}
    return dataclasses.field(default=default, metadata=metadata)


def flag(name):
    """The flag of a setting: "batch_size" -> "--batch-size"."""
    return "--" + name.replace("_", "-")


REPLACED = "Stages, recipes, --model and GPUs replace some defaults. Each run prints what it uses."


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        raise UserError(f"{message.removeprefix('argument ')}; --help explains every flag")


def parse(cls, argv, presets=None, doc=""):
    """An instance of the settings dataclass `cls`, read from a command line.

    presets(given) gets the flags that were given, {name: value}, and returns the values that stand
    between the class's defaults and these flags; so `--stage 2` can mean other defaults than
    `--stage 1`. Booleans are --name and --no-name. UserError, naming the flag, for an unknown one
    and for a value that its setting does not accept, wherever the value comes from.
    """
    layout = argparse.RawDescriptionHelpFormatter
    epilog = REPLACED if presets else None
    parser = _Parser(description=doc, formatter_class=layout, allow_abbrev=False, epilog=epilog)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for f in fields.values():
        default = "" if f.default is None else f"default {f.default}"
        more = "; ".join(filter(None, (default, _accepted(f))))
        help = f"{f.metadata['help']} ({more})" if more else f.metadata["help"]
        if _kind(f) is bool:
            options = {"action": argparse.BooleanOptionalAction}
        else:
            options = {"metavar": f.name.upper(), "nargs": "+" if _kind(f) is tuple else None}
        parser.add_argument(flag(f.name), default=argparse.SUPPRESS, help=help, **options)
    parser._negative_number_matcher = re.compile("-[^-h]")  # else the -1e5 of `--lr -1e5` is a flag
    parsed, odd = parser.parse_known_args(argv)
    if odd:
        near = difflib.get_close_matches(odd[0].partition("=")[0], map(flag, fields), 1)
        meant = f"did you mean {near[0]}?" if near else "--help lists all flags"
        raise UserError(f"unknown argument {_short(odd[0])}: {meant}")
    given = {name: checked(fields[name], value) for name, value in vars(parsed).items()}
    values = presets(given) if presets else {}
    if odd := values.keys() - fields:
        raise UserError(f"the recipe sets {min(odd)}, which is no setting of this script")
    settings = cls(**(values | given))
    for name, f in fields.items():
        setattr(settings, name, checked(f, getattr(settings, name)))
    return settings


def _kind(f):
    return f.type if isinstance(f.type, type) else f.type.__args__[0]  # int of `int | None`


def _accepted(f):
    """What a setting accepts, in words; "" where it is any text, or yes or no."""
    low, high, choices = (f.metadata[name] for name in ("low", "high", "choices"))
    if choices:
        return f"one of {', '.join(choices)}"
    whole = "a whole number " if _kind(f) is int else ""
    return "" if low is None else f"{whole}from {low} to {high}"


def _short(value):
    text = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return text if text.strip() and text.isprintable() and len(text) <= 60 else shown(value)


def checked(f, value):
    """The value of the field f in its own type. UserError where the field does not accept it."""
    kind, low, high = _kind(f), f.metadata["low"], f.metadata["high"]
    choices, good = f.metadata["choices"], True
    if value is None and not isinstance(f.type, type):
        return None
    try:
        if kind in (str, tuple):
            value = value if kind is str else tuple(dict.fromkeys(value) if choices else value)
            for word in [value] if kind is str else value:
                good &= word in choices if choices else bool(word.encode())  # no stray bytes
        elif kind is bool:
            good = isinstance(value, bool)
        else:
            value = kind(value) if isinstance(value, str) else value
            good = kind is float or type(value) is int
            good &= (-MOST if low is None else low) <= value <= (MOST if high is None else high)
    except (AttributeError, TypeError, ValueError):  # int() refuses 5,000 digits as well
        good = False
    if not good:
        accepted = _accepted(f) or ("true or false" if kind is bool else "a text that is not empty")
        raise UserError(f"{flag(f.name)} {_short(value)}: must be {accepted}")
    if f.metadata["writes"]:
        check_writable(value, flag(f.name), f.metadata["writes"])
    return value


def check_writable(path, name="--out", kind="folder"):
    """UserError where no folder (or file) can be written at `path`. Makes nothing."""
    path = Path(path).absolute()
    if kind == "file" and path.is_dir():
        raise UserError(f"{name} {path} is a folder: name a file in it")
    there = next(p for p in [path, *path.parents][kind == "file" :] if os.path.lexists(p))
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        why = "may not be written" if there.is_dir() else "is not a folder"
        raise UserError(f"{name} {path}: {there} {why}: name another path")


def refuse_changes(before, now, what, remedy):
    """UserError where a setting of the dict `now` has another value in `before`, or none there."""
    for name, value in now.items():
        value = list(value) if isinstance(value, tuple) else value  # as JSON has it
        if name not in before or before[name] != value:
            shown = f"{flag(name)} {before.get(name)}, not {value}"
            raise UserError(f"{what} {shown}: {remedy}")


def show(settings):
    """The settings that differ from the defaults, in a few lines; run.json keeps all of them."""
    values = ((f, getattr(settings, f.name)) for f in dataclasses.fields(settings))
    own = ", ".join(f"{f.name} {value}" for f, value in values if value != f.default)
    lines = textwrap.wrap(own, 96, break_on_hyphens=False, break_long_words=False)
    return "\n".join("  " + line for line in lines)


def progress(items=None, **options):
    """A tqdm bar that vanishes when it is done; where the output is a file it is redrawn rarely."""
    interval = 0.3 if sys.stderr.isatty() else 30
    return tqdm(items, mininterval=interval, dynamic_ncols=True, **{"leave": False} | options)
