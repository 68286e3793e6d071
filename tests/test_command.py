"""Command lines: every setting has a range, bad values end in one line, and how a script ends."""

import argparse
import dataclasses
import errno
import importlib
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from conftest import POOR, ROOT
from safetensors import SafetensorError, safe_open

import eval as evaluate
import rl
import train
from nanoladder import command, process
from nanoladder.command import Stopped, UserError, parse, refuse_changes, setting
from nanoladder.files import write_json

ODD = ("nan", "-nan", "inf", "-inf", "1e400", "-1e400", "-1", "-1e5", "9" * 5000, "1" + "0" * 400)
ODD += ("", " ", "x", "0x10", "1,5", "1e", "--", "\udcff", "\0")
HUGE = 10**8  # no count of this project may be larger, except a seed


def settings_classes():
    """{name of its file: dataclass whose fields are settings}, all that there are."""
    found = {}
    for path in [*ROOT.glob("*.py"), *ROOT.glob("nanoladder/*.py"), *ROOT.glob("data/**/*.py")]:
        if "\n@dataclass" in (text := path.read_text(encoding="utf-8")) and "= setting(" in text:
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            for cls in vars(importlib.import_module(name)).values():
                if dataclasses.is_dataclass(cls) and getattr(cls, "__module__", "") == name:
                    if any("help" in f.metadata for f in dataclasses.fields(cls)):
                        found[name] = cls
    return found


CLASSES = settings_classes()
FIELDS = [
    pytest.param(cls, f, id=f"{name}:{f.name}")
    for name, cls in CLASSES.items()
    for f in dataclasses.fields(cls)
]
CONVERTERS = [name for name in CLASSES if name.endswith(".prepare") and "rooms" not in name]


def fields(script):
    return {field.name for field in dataclasses.fields(script.Settings)}


def test_on_a_gpu_every_script_uses_bf16_and_compiles_where_the_hardware_can(monkeypatch):
    cpu = {script: script.presets({}) for script in (train, rl, evaluate)}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    for capability in ((9, 0), (8, 0), (7, 5), (6, 1)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda c=capability: c)
        can = {"amp": capability >= (8, 0), "compile": capability >= (7, 0)}
        for script in (train, rl, evaluate):
            # Nothing else differs from a CPU: the start, the size and the rates are the same.
            own = {name: can[name] for name in can.keys() & fields(script)}
            assert script.presets({}) == cpu[script] | own
            assert not script.presets({"device": "cpu"}).get("amp")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)  # no Triton
    assert not train.presets({})["compile"]
    assert parse(evaluate.Settings, ["--no-amp"], evaluate.presets).amp is False


def test_a_recipe_cannot_set_what_a_script_lacks():
    with pytest.raises(UserError, match="the recipe sets depth, which is no setting of this"):
        parse(rl.Settings, [], lambda given: {"depth": 3})


def kind_of(f):
    return f.type if isinstance(f.type, type) else f.type.__args__[0]


def refusal(cls, *argv, presets=None):
    """The one line with which a command line is refused, or None."""
    try:
        parse(cls, argv, presets)
    except UserError as error:
        assert len(str(error).splitlines()) == 1 and len(str(error)) < 300
        return str(error)


# ---------------------------------------------------------------- ranges


def test_all_scripts_are_seen():
    wanted = {"train", "rl", "eval", "nanoladder.ask", "data.convert", "data.vsibench.prepare"}
    assert wanted | {f"data.rooms.{n}" for n in ("prepare", "traces", "hints")} <= CLASSES.keys()


@pytest.mark.parametrize("cls, f", FIELDS)
def test_every_number_has_a_range_that_holds_its_default(cls, f):
    low, high = f.metadata["low"], f.metadata["high"]
    if kind_of(f) not in (int, float):
        assert low is None and high is None
        return
    assert low is not None and high is not None and 0 <= low < high
    assert high <= (2**31 if f.name == "seed" else HUGE)
    assert f.default is None or low <= f.default <= high


@pytest.mark.parametrize("cls, f", FIELDS)
def test_odd_values_are_refused_by_the_name_of_their_flag(cls, f):
    name, kind, low, high = command.flag(f.name), kind_of(f), f.metadata["low"], f.metadata["high"]
    alone = setting(**{"default": f.default} | f.metadata)  # all others would only cost time
    cls = dataclasses.make_dataclass("Alone", [(f.name, f.type, alone)])
    if kind is bool:
        assert name in refusal(cls, f"{name}=7")
        return
    texts = ("", "\udcff") if kind in (str, tuple) else ODD
    if f.metadata["choices"]:
        texts += ("no such choice",)
    if kind in (int, float):
        texts += (str(high + 1),) + ((str(low - 1),) if low else ())
    if kind is int:
        texts += ("2.5", "1e3", "True")
    for text in texts:
        line = refusal(cls, name, text)
        assert line and line.startswith(name), (text, line)
        if kind in (int, float) and text != "--":
            assert f"from {low} to {high}" in line
    for text in (str(low), str(high)) if kind in (int, float) else ():
        assert getattr(parse(cls, [name, text]), f.name) == kind(text)


@pytest.mark.parametrize("cls, f", FIELDS)
def test_what_a_preset_or_a_run_json_says_is_checked_too(cls, f):
    kind, optional = kind_of(f), not isinstance(f.type, type)
    odd = {int: [2.5, "x", [1], True], float: ["x", [1], float("nan")], bool: [1, "yes", None]}
    odd = odd.get(kind, [1, [], {}] if kind is str else [[1], [""], 1])
    for value in [*odd, *([] if optional else [None])]:
        if (kind, value) != (tuple, []):
            line = refusal(cls, presets=lambda given, value=value: {f.name: value})
            assert line and line.startswith(command.flag(f.name)), (value, line)


@pytest.mark.parametrize("argv, complaint", [
    (["--no-such-flag", "x"], "unknown argument --no-such-flag: --help lists all flags"),
    (["--batchsize", "4"], "unknown argument --batchsize: did you mean --batch-size?"),
    (["--batch_size=4"], "unknown argument --batch_size=4: did you mean --batch-size?"),
    (["--step", "4"], "unknown argument --step: did you mean --steps?"),
    (["stray"], "unknown argument stray: --help lists all flags"),
    (["--steps"], "--steps: expected one argument; --help explains every flag"),
    (["--lr", "-inf"], "--lr -inf: must be from 0 to 10"),
    (["--lr", "-1e-400"], None),
    (["--data-types", "video", "smell"], "--data-types video smell: must be one of single_image"),
])  # fmt: skip
def test_flags_that_are_not_there_or_nearly(argv, complaint):
    line = refusal(train.Settings, *argv)
    assert line == complaint or line.startswith(complaint)


def test_a_value_once_given_is_the_one_used():
    s = parse(train.Settings, ["--lr", "1e-5", "--data-types", "video", "video", "--no-amp"])
    assert (s.lr, s.data_types, s.amp, s.micro_batch_size) == (1e-5, ("video",), False, None)


# ---------------------------------------------------------------- --out


def test_out_is_checked_before_any_work(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("", encoding="utf-8")
    os.makedirs(tmp_path / "closed")
    access = os.access  # root may write everywhere, so the folder is closed in this way
    monkeypatch.setattr(os, "access", lambda p, mode: "closed" not in str(p) and access(p, mode))
    asked = {name: cls for name, cls in CLASSES.items() if "out" in vars(cls)["__annotations__"]}
    assert len(asked) >= 6 and all(name in asked for name in ("train", "rl", "eval"))
    for name, cls in asked.items():
        odd = ["closed/new/x"] if name == "nanoladder.ask" else ["file", "closed", "closed/new/x"]
        for out in [*odd, "file/in", "file/in/it"]:
            line = refusal(cls, "--out", str(tmp_path / out))
            assert line and line.startswith("--out ") and "name another path" in line, (name, out)
        assert refusal(cls, "--out", str(tmp_path / "new" / "one")) is None
    assert "name a file in it" in refusal(CLASSES["nanoladder.ask"], "--out", str(tmp_path))
    for script in (train, rl):
        with pytest.raises(UserError, match="--out .*file is not a folder"):
            script.main(["--out", str(tmp_path / "file")])
    assert sorted(os.listdir(tmp_path)) == ["closed", "file"]


# ---------------------------------------------------------------- --resume


def test_a_resumed_run_takes_no_other_settings(tmp_path):
    s = dataclasses.asdict(train.Settings()) | {"stage": "2", "mix": "video=1", "out": "x"}
    write_json(tmp_path / "run.json", {"settings": s})
    (tmp_path / "state.safetensors").touch()
    out = ["--out", str(tmp_path), "--resume"]
    same = ["--batch-size", "16", "--stage", "2", "--data-types", *s["data_types"]]
    kept = parse(train.Settings, [*out, *same, "--shard", "--device", "cpu"], train.presets)
    assert (kept.stage, kept.mix, kept.resume, kept.shard) == ("2", "video=1", True, True)
    for flags, told in (
        (["--batch-size", "4"], "--batch-size 16, not 4"),
        (["--stage", "1"], "--stage 2, not 1"),
        (["--data-types", "video"], "--data-types ['single_image', 'multi_view', 'video'], not"),
        (["--data", "other"], "--data None, not other"),
    ):
        line = refusal(train.Settings, *out, *flags, presets=train.presets)
        assert told in line and "give no other flags than --out with --resume" in line


def test_settings_that_differ_are_named():
    refuse_changes({"a_b": [1], "c": 2}, {"a_b": (1,)}, "it has", "do so")
    for now in ({"a_b": (2,)}, {"d": 1}):
        with pytest.raises(UserError, match="it has --(a-b|d) .*, not .*: do so"):
            refuse_changes({"a_b": [1], "c": 2}, now, "it has", "do so")


# ---------------------------------------------------------------- endings


def ending(error, monkeypatch, capsys, debug=""):
    """(what is printed on stderr, exit status) of a script that raises an error."""
    monkeypatch.setenv("NANOLADDER_DEBUG", debug)
    monkeypatch.setattr(process, "catch_signals", lambda: None)

    def main(argv):
        raise error

    with pytest.raises(SystemExit) as status:
        process.run_script(main)
    return capsys.readouterr().err, status.value.code


def os_error(number, *names):
    return OSError(number, os.strerror(number), *names)


ENDINGS = [
    (UserError("--x 3: mend it"), 2, "error: --x 3: mend it"),
    (UserError("two\nlines\u2028more"), 2, "error: two lines more"),
    (os_error(errno.ENOSPC, "runs/a"), 2, "error: runs/a: No space left on device: free space"),
    (os_error(errno.EROFS, "runs/a"), 2, "error: runs/a: .*: name another path"),
    (os_error(errno.EACCES, "runs/a"), 2, "error: runs/a: .*: name another path"),
    (os_error(errno.ENOTDIR, "runs/a"), 2, "error: runs/a: .*: name another path"),
    (os_error(errno.ENAMETOOLONG, "a" * 300), 2, "error: a+: .*: name another path"),
    (os_error(errno.EMFILE, "runs/a"), 2, "error: runs/a: .*: allow more open files"),
    (os_error(errno.EXDEV, "a", None, "b"), 2, "error: a: b: "),
    (os_error(errno.EIO), 2, "error: "),
    (SafetensorError("I/O error: No space left (os error 28)"), 2, "error: .*: free space on the"),
    (SafetensorError("invalid header"), 2, "error: invalid header: a file of weights is damaged"),
    (RecursionError("maximum depth"), 2, "error: maximum depth: an input is nested too deeply"),
    (MemoryError(), 2, "error: MemoryError: memory is too small: lower --micro-batch-size"),
    (torch.OutOfMemoryError("CUDA out\nof it"), 2, "error: CUDA out of it: .*--max-pixels"),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 2, "error: .*--batch-size"),
    (ModuleNotFoundError("No", name="pyarrow"), 2, "error: the package pyarrow .*'.\\[bench\\]'"),
    (ModuleNotFoundError("No", name="tokenizers.x"), 2, "error: .* tokenizers .*-e \\.$"),
    (UnicodeEncodeError("ascii", "\xfc", 0, 1, "no"), 2, "error: .*: set PYTHONUTF8=1"),
    (KeyboardInterrupt(), 130, "stopped: SIGINT"),
    (Stopped(2, "step 3 is kept"), 130, "stopped: step 3 is kept"),
    (Stopped(15), 143, "stopped: SIGTERM"),
    (ValueError("told by our own code"), 2, "error: told by our own code"),
    (IndexError("index"), 1, "error: index .IndexError at test_command.py:\\d+., a fault of"),
    (ModuleNotFoundError("No", name="nanoladder.x"), 1, "error: No .ModuleNotFoundError at "),
]


@pytest.mark.parametrize("error, status, line", ENDINGS, ids=lambda v: type(v).__name__)
def test_whatever_is_raised_ends_in_one_line(error, status, line, monkeypatch, capsys):
    printed, code = ending(error, monkeypatch, capsys)
    assert code == status and re.match(line, printed.rstrip("\n")), printed
    assert len(printed.splitlines()) == 1 and "Traceback" not in printed
    shown, code = ending(error, monkeypatch, capsys, debug="1")
    assert code == status and "Traceback" in shown and shown.endswith(printed)


def test_a_value_error_of_a_library_is_not_taken_for_the_users(monkeypatch, capsys):
    def main(argv):
        argparse.ArgumentParser().add_argument("x", "y")  # raises ValueError

    with pytest.raises(SystemExit) as status:
        process.run_script(main)
    assert status.value.code == 1 and "a fault of ours" in capsys.readouterr().err


def test_one_rank_speaks_for_all_where_all_failed(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    for error, words in ((UserError("x"), ""), (Stopped(15), ""), (MemoryError(), "error: ")):
        assert ending(error, monkeypatch, capsys)[0].startswith(words)
        assert words or not ending(error, monkeypatch, capsys)[0]


def test_a_damaged_file_of_weights_is_such_an_error(tmp_path, monkeypatch, capsys):
    (tmp_path / "x.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(SafetensorError) as error:
        safe_open(tmp_path / "x.safetensors", "pt")
    assert ending(error.value, monkeypatch, capsys)[1] == 2


ODD_PRINTS = """
import sys, time
from nanoladder.command import UserError, progress
from nanoladder.process import run_script

def main(argv):
    print("St\\u00fchle, \\u6905\\u5b50, \\udcff, \\u2028 \\U0001fa91")
    for _ in progress(range(3), desc="\\u6905", leave=True):
        time.sleep(0.05)
    raise UserError("\\u6905\\u5b50 of \\u00fc")

run_script(main)
"""


def test_no_terminal_is_too_poor_for_what_is_printed():
    for encoding in ("ascii", "cp1252", "gbk"):
        environment = os.environ | POOR | {"PYTHONIOENCODING": encoding}
        command = [sys.executable, "-c", ODD_PRINTS]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True)
        printed, told = done.stdout.decode(encoding), done.stderr.decode(encoding)
        assert done.returncode == 2 and "Traceback" not in told and "3/3" in told
        assert ("St\\xfchle" if encoding == "ascii" else "Stühle") in printed
        assert told.splitlines()[-1].startswith("error: ")


@pytest.mark.skipif(os.name == "nt", reason="Windows has another error for a closed pipe")
def test_nothing_is_said_where_nobody_reads():
    """As for `python eval.py --help | head -1`."""
    code = "from nanoladder.process import run_script; run_script(lambda argv: print('x' * 99999))"
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        done = subprocess.run([sys.executable, "-c", code], stdout=pipe, stderr=subprocess.PIPE)
    assert done.returncode == 141 and not done.stderr


def test_help_tells_ranges_and_choices(capsys):
    for script in (train, rl, evaluate):
        with pytest.raises(SystemExit):
            parse(script.Settings, ["--help"], doc=script.__doc__)
        shown = " ".join(capsys.readouterr().out.split())
        assert "a whole number from 1 to" in shown and "one of cpu, cuda, mps" in shown


def test_batches_that_wait_fit_into_shared_memory(monkeypatch):
    monkeypatch.setattr(process, "cpu_cores", lambda: 16)
    monkeypatch.setattr(process.os.path, "isdir", lambda path: True)
    for free, expected in ((64, 2), (10**4, 8), (20, 0)):  # MB
        usage = SimpleNamespace(free=free * 10**6)
        monkeypatch.setattr(process.shutil, "disk_usage", lambda path, usage=usage: usage)
        assert process.loader_processes(1, 10 * 10**6) == expected
    assert process.loader_processes(2, 10 * 10**6) == 0
    monkeypatch.setattr(process.os.path, "isdir", lambda path: False)  # as on a Mac
    assert process.loader_processes(2, 10**12) == 8


def test_cores_are_those_that_this_process_may_use():
    assert 1 <= process.cpu_cores() <= os.cpu_count()
    if hasattr(os, "sched_setaffinity"):
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, [min(before)])
        try:
            assert process.cpu_cores() == 1
        finally:
            os.sched_setaffinity(0, before)


def test_a_setting_without_a_range_takes_any_finite_number():
    @dataclasses.dataclass
    class Own:
        x: float = setting(1.0, "of a fork")

    assert parse(Own, ["--x", "-1e5"]).x == -1e5
    assert refusal(Own, "--x", "inf") and refusal(Own, "--x", "nan")
