"""Reads the splits of a data folder: which kinds of rows a run uses, and with what shares."""

import zlib
from pathlib import Path, PurePosixPath

import numpy as np

from nanoladder.command import UserError
from nanoladder.files import read_json, read_jsonl
from nanoladder.schema import DATA_TYPES, check_images, file_of, read_rows, rows_of

BOXES = 5000  # rows of boxes on which the best constant box is fitted
HOLD_OUT = 50  # one scene in so many is held out, where a folder has no val or test


def check_types(rows):
    """UserError where a kind mixes forms in one question type, or boxes and other answers."""
    first = {}
    for row in (row for row in rows if not row.solution):  # traces are never scored
        other = first.setdefault(row.question_type, row)
        if other.form != row.form:
            raise UserError(
                f"{row.where}: {row.question_type!r} is of the form {row.form} here and "
                f"{other.form} in {other.where}: give them two question_types"
            )
    kinds = {row.form == "boxes": row for row in first.values()}
    boxes, other = kinds.get(True), kinds.get(False)
    if boxes and boxes.kind in DATA_TYPES:
        raise UserError(f"{boxes.where}: boxes belong in another file, such as localization.jsonl")
    if boxes and other:
        here = f"{boxes.where}: boxes here, other answers in {other.where}"
        raise UserError(f"{here}: put them into two files")


def read_kinds(folder, kinds, limit=None, think=False, pictures=None, decode=True):
    """Checked rows of some kinds in a split's folder, at most `limit` of each.

    think: whether the prompts of spatial questions ask to think first. pictures: a set of paths;
    rows about any others are left out. decode: whether to decode and check their pictures, too.
    """
    files = dict.fromkeys(map(file_of, kinds))
    rows = [row for file in files for row in read_rows(Path(folder) / file)]
    for kind in kinds:
        check_types(rows_of(rows, kind))
    if pictures is not None:
        rows = [row for row in rows if pictures.issuperset(row.images)]
    rows = [row for kind in kinds for row in subset(rows_of(rows, kind), limit)]
    for row in rows:
        row.think |= think and row.kind in DATA_TYPES
    if decode:
        check_images(rows)
    return rows


def read_splits(folder, kinds, limits, think=False):
    """{split: rows}: all of train, and at most limits[split] rows of each kind of val, test, ood.

    Rows of cold.jsonl are for training only; what they teach is scored on spatial questions that
    are thought about first. A missing val or test is made of scenes held out from train, the same
    for both; ood is optional.
    """
    folder, scored = data_folder(folder), scored_kinds(kinds)
    rows = read_kinds(folder / "train", kinds, None, think)
    if not ((folder / "val").is_dir() and (folder / "test").is_dir()):
        held = held_out_pictures(folder / "train")
        rows = [row for row in rows if held.isdisjoint(row.images)]
    splits = {"train": rows}
    for split in [split for split in limits if split != "ood" or (folder / "ood").is_dir()]:
        there = [kind for kind in scored if (folder / split / file_of(kind)).is_file()]
        own = there if split == "ood" else scored
        splits[split] = read_split(folder, split, own, limits[split], think or "cold" in kinds)
    every = [row for own in splits.values() for row in own]
    for kind in scored:
        check_types(rows_of(every, kind))
    expect_rationales(every, rows)
    return splits


def read_split(folder, split, kinds, limit, think=False):
    """At most `limit` rows of each kind of one split; a missing one is made as in read_splits."""
    if (folder / split).is_dir():
        return read_kinds(folder / split, kinds, limit, think)
    train = folder / "train"
    there = [kind for kind in kinds if (train / file_of(kind)).is_file()]
    return read_kinds(train, there, limit, think, held_out_pictures(train))


def rows_for_constants(data, kinds, asked):
    """Rows of train that constant answers to the rows `asked` may be fitted on.

    Of the kinds whose files are there, those that show none of the same pictures. Of boxes BOXES
    rows are enough. Only their pictures are decoded, which tells the sizes.
    """
    train, shown = Path(data, "train"), {image for row in asked for image in row.images}
    there = [kind for kind in kinds if (train / file_of(kind)).is_file()]
    rows = [r for r in read_kinds(train, there, decode=False) if shown.isdisjoint(r.images)]
    boxes = [row for row in rows if row.form == "boxes"][:BOXES]
    check_images(boxes)
    return [row for row in rows if row.form != "boxes"] + boxes


def kinds_in(folder):
    """The kinds of rows that the files in a split's folder hold, but for traces."""
    stems = {path.stem for path in folder.glob("[!.]*.jsonl")} - {"scenes", "cold"}
    return [*sorted(stems - {"spatial"}), *(DATA_TYPES if "spatial" in stems else ())]


def kinds_to_learn(folder, kinds):
    """Those of a stage's kinds that the folder's train has; if it has none of them, all it has.

    The cold start needs its own kind, because no other rows teach to think.
    """
    train = Path(folder or "", "train")
    there = [kind for kind in kinds if (train / file_of(kind)).is_file()]
    others = kinds_in(train) if folder and "cold" not in kinds else []
    return there or others or list(kinds)


def expect_rationales(rows, train_rows):
    """Mark the rows of those kinds whose training rows have rationales: Row.after_rationale."""
    taught = {row.kind for row in train_rows if row.after_rationale}
    for row in rows:
        row.after_rationale = row.kind in taught


def data_folder(folder):
    """The folder of --data. UserError where it is none, or has no folder train to learn from."""
    if not folder:
        raise UserError("name a folder of rows and pictures with --data")
    path = Path(folder)
    if not path.is_dir():
        found = "this is a file, not a folder" if path.exists() else "no such folder"
        raise UserError(f"--data {folder}: {found}; name a folder of rows and pictures")
    if not (path / "train").is_dir():
        loose = sorted(file.name for file in path.glob("*.jsonl"))
        files = f"move {', '.join(loose)} and the pictures" if loose else "put rows and pictures"
        remedy = f"name {path.parent}" if path.name == "train" else f"{files} into {path / 'train'}"
        raise UserError(f"--data {folder}: no folder train in it; {remedy}")
    return path


def held_out_pictures(folder):
    """The pictures of one scene in HOLD_OUT, or of a few where there are few scenes.

    A scene is a folder of pictures; where there are fewer than four folders it is a picture. Scenes
    that one row asks about are one scene. The choice depends on all files of the split, so every
    stage makes the same, unless files are added between the stages. UserError where there are too
    few scenes to keep any from training.
    """
    asked = []
    for path in sorted(folder.glob("[!.]*.jsonl")):
        for raw in read_jsonl(path):
            listed = raw.get("image") if isinstance(raw, dict) else None
            if isinstance(listed, list):
                asked.append([PurePosixPath(name) for name in listed if isinstance(name, str)])
    names = {name for listed in asked for name in listed}
    by_folder = len({name.parent for name in names}) > 3
    part = {name: (name.parent if by_folder else name).as_posix() for name in names}
    scene_of, scenes = connected([part[name] for name in listed] for listed in asked), {}
    for name in names:
        scenes.setdefault(scene_of[part[name]], set()).add(name)
    count = max(len(scenes) // HOLD_OUT, min(5, len(scenes) // 4))
    if not count:
        raise UserError(
            f"{folder}: its rows are about {len(scenes)} scene(s), too few to hold any out for val "
            "and test; add pictures of others, or make the folders val and test beside train"
        )
    order = sorted(scenes, key=lambda scene: zlib.crc32(scene.encode("utf-8", "replace")))
    return {folder / name for scene in order[:count] for name in scenes[scene]}


def connected(groups):
    """{member: the first, in their order, of all members that groups connect it with}.

    >>> connected([["a", "b"], ["b", "c"], ["d"]])
    {'a': 'a', 'b': 'a', 'c': 'a', 'd': 'd'}
    """
    parent = {}

    def root(member):
        while parent.setdefault(member, member) != member:
            parent[member] = parent[parent[member]]  # so that the next search is shorter
            member = parent[member]
        return member

    for group in groups:
        for member in group:
            first, second = sorted((root(group[0]), root(member)))
            parent[second] = first
    return {member: root(member) for member in parent}


def scored_kinds(kinds):
    """The kinds of rows on which a run that trains on `kinds` is scored."""
    spatial = DATA_TYPES if "cold" in kinds else ()
    return [kind for kind in dict.fromkeys([*kinds, *spatial]) if kind != "cold"]


def parse_mixture(text):
    """{kind: share} of --mix. UserError where it is not written as kind=share,kind=share."""
    parts = [part.strip().split("=") for part in text.split(",")]
    try:
        shares = {kind: float(share) for kind, share in parts if kind}
    except ValueError:  # also where a part has no share
        shares = {}
    if len(shares) < len(parts):
        raise UserError(f"--mix {text}: write it as localization=0.3,video=0.7, each kind once")
    if odd := [kind for kind, share in shares.items() if not 0 < share <= 1e6]:
        raise UserError(f"--mix {text}: the share of {odd[0]} must be above 0, up to a million")
    if "spatial" in shares:
        raise UserError(f"--mix {text}: say {', '.join(DATA_TYPES)} in place of spatial")
    return shares


def subset(rows, limit, seed=0):
    """At most `limit` of the rows, always the same ones, in the rows' order; all if it is None.

    Question types, their numbers of options and the levels keep their shares, and a smaller subset
    lies inside a larger one.
    """
    if limit is None or limit >= len(rows):
        return rows
    rng, strata = np.random.default_rng(seed), {}
    for i in rng.permutation(len(rows)):
        stratum = (rows[i].question_type, len(rows[i].options), rows[i].level)
        strata.setdefault(stratum, []).append(i)
    # Each row's place in its stratum, as a share of the stratum: the lowest shares are taken.
    places = [((n + 0.5) / len(group), i) for group in strata.values() for n, i in enumerate(group)]
    return [rows[i] for i in sorted(i for _, i in sorted(places)[:limit])]


def fingerprint(rows):
    """Their number, and a checksum of what they ask and answer, by which --resume knows them."""
    names = "question_id question options answer unit rationale solution sizes".split()
    texts = (repr([getattr(row, name) for name in names]) for row in rows)
    return {"rows": len(rows), "crc32": zlib.crc32("\n".join(texts).encode("utf-8", "replace"))}


def data_name(folder):
    """What a data folder is called in tables: the name in its prepare.json, else the folder's."""
    path = Path(folder) / "prepare.json"
    made = read_json(path) if path.is_file() else {}
    return str(made.get("recipe") or Path(folder).resolve().name)
