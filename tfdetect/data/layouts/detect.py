"""The trees that data sets ship in -> manifest."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path

import pandas as pd

from tfdetect import config
from tfdetect.data import manifest
from tfdetect.data.layouts import group_rules, grouping, public_faces, public_images  # noqa: F401  (these register their layouts)
from tfdetect.data.layouts.tree import LAYOUTS, Row, Tree, count_left_out, list_media, nested_trees, to_table
from tfdetect.errors import UserError

__all__ = ["NAMES", "read"]

MANIFEST_NAMES = ("manifest.csv", "manifest.parquet", "manifest.xlsx", "manifest.tsv")
BY_NAME = ("forensynths", "community_forensics")  # whose folders of classes may as well hold one's own videos
NAMES = ("auto", "manifest", "class_folders", "deepfakebench", *LAYOUTS)


def read(path: Path, fake: Sequence[str] = ("fake",), layout: str = "auto", sources: Sequence[str] = (),
         group: str = "auto") -> pd.DataFrame:  # fmt: skip
    """The manifest of a data set: a table as it is, a folder by its own manifest, as a public set, or by class folders.

    `layout` is one of NAMES; `NAME:FOLDER`, such as `faceforensics:c23`, keeps only what lies in folders of that name.
    `sources` keeps the fakes of these sources, and all reals. `fake` names the class folders that are fake; whoever gives
    other names than "fake" means class folders. `group` is auto or what `group_rules.group_by_rule` knows. The table's `attrs` hold the
    layout's name, what is `left_out` (see `tree.count_left_out`), and in `groups` a sentence on how files were grouped. Raises
    ValueError that says what was found and what was expected, FileNotFoundError or PermissionError where nothing can be read.
    """
    path = Path(path)
    name, _, inside = layout.partition(":")
    if name not in NAMES:
        near = get_close_matches(name, NAMES, 1)
        hint = f"; perhaps you meant {near[0]}" if near else ""
        raise UserError(f"There is no layout {name!r}{hint}. There are {', '.join(NAMES)}.")
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; expected a folder or a manifest.")
    whole = _table(path, fake, name)
    table = select_sources(_inside(whole, path, inside), sources)
    unlabelled = whole.attrs.pop("unlabelled", None)
    if unlabelled is not None:
        without = {"without a label": len(unlabelled)} if unlabelled else {}
        whole.attrs["left_out"] = count_left_out(path, whole["path"], unlabelled) if path.is_dir() else without
    others, files = len(whole) - len(table), whole.attrs.pop("files", {})
    table.attrs = {**whole.attrs, "left_out": {**whole.attrs["left_out"], **({"other sources": others} if others else {})}}
    if group == "auto" and files:
        groups, table.attrs["groups"] = grouping.find_groups([files[name] for name in table["path"]])
        table["group"] = [name.strip() for name in groups]  # as a table's are, which a run keeps them in
    elif group == "auto" and table.attrs["layout"] in BY_NAME:
        table["group"], table.attrs["groups"] = grouping.regroup_frames(table, str(path))
    return set_groups(table, path, group)


def set_groups(table: pd.DataFrame, path: Path, rule: str) -> pd.DataFrame:
    """With the groups that `--data.group` asks for, and a sentence on them in `attrs`."""
    if "groups" in table.attrs and rule in ("auto", table.attrs.get("group")):
        return table
    if rule != "auto":
        _refuse_regrouping(table, path, rule)
        table["group"], table.attrs["groups"] = group_rules.group_by_rule(table, str(path if path.is_dir() else path.parent), rule)
        table.attrs["given"] = True
    else:
        by = "given" if table.attrs["layout"] == "manifest" else f"by the layout {table.attrs['layout']}"
        table.attrs["groups"] = group_rules.describe_given_groups(table, by)
        table.attrs["given"] = bool((table["group"] != table["path"]).any())
    return table


def _refuse_regrouping(table: pd.DataFrame, path: Path, rule: str) -> None:
    if "group" in table.attrs:
        raise UserError(f"{path} was prepared with --data.group {table.attrs['group']}, not {rule}: prepare it again.")
    if table.attrs["layout"] == "manifest" and (table["group"] != table["path"]).any():
        raise UserError(f"{path} has groups of its own, and --data.group {rule} came: leave that out, or empty the column group.")


def _table(path: Path, fake: Sequence[str], name: str) -> pd.DataFrame:
    if name in ("auto", "deepfakebench") and path.suffix.lower() == ".json" and path.is_file():
        return _checked(public_faces.deepfakebench(path), path, "deepfakebench")
    own = next((file for file in (path, *(path / file for file in MANIFEST_NAMES)) if file.is_file()), None)
    if name in ("auto", "manifest") and own:
        table = manifest.read(own)
        table.attrs |= {"layout": "manifest", "left_out": {}, **config.read_prepared_groups(path)}
        return table
    if name in ("manifest", "deepfakebench") or path.is_file():
        wanted = {"manifest": " or ".join(MANIFEST_NAMES), "deepfakebench": "the path of a .json file"}.get(name, "a folder")
        raise UserError(f"{path}: the layout {name} needs {wanted}.")
    named = {word.lower() for word in fake} != {"fake"}
    if name == "class_folders" or (name == "auto" and named):
        return read_class_folders(path, fake)
    return _public(path, name) if name != "auto" else _recognised(path, fake)

def _recognised(path: Path, fake: Sequence[str]) -> pd.DataFrame:
    """The first layout that knows the folder, or the only folder in it; else class folders."""
    for tree in nested_trees(path):
        for known in LAYOUTS.values():
            if known.recognise(tree):
                return _checked(known.rows(tree.root), path, known.name)
    return read_class_folders(path, fake)


def _public(path: Path, name: str) -> pd.DataFrame:
    """The layout that the user named, at the level at which it knows itself, else just here."""
    known = LAYOUTS[name]
    root = next((tree.root for tree in nested_trees(path) if known.recognise(tree)), path)
    return _checked(known.rows(root), path, name)


def _checked(rows: Iterable[Row] | pd.DataFrame, path: Path, name: str) -> pd.DataFrame:
    table = rows if isinstance(rows, pd.DataFrame) else to_table(rows)
    unlabelled = table["label"].isna()
    if unlabelled.all():
        needs = LAYOUTS[name].needs if name in LAYOUTS else "videos with frames"
        raise UserError(f"{path}: the layout {name} found no file with a label; expected {needs}. {_held(path)}")
    without = list(table["path"][unlabelled])
    table = manifest.validate(table[~unlabelled] if without else table, str(path))
    table.attrs = {"layout": name, "unlabelled": without}
    return table


def read_class_folders(root: Path, fake: Sequence[str]) -> pd.DataFrame:
    """`real/` and `fake/` at any depth and in any letter case, with or without a folder of a split above them.

    Source is the path above and below the class folder, or where there is none its own name. `attrs` hold for each path the
    `grouping.File` that its group is found by, the paths of what lies in no class folder, and how many files each of these has.
    """
    wanted = {name.lower() for name in fake}
    outer = len(list(nested_trees(root))) - 1  # folders that all files lie in
    only_named = wanted == {"fake"}  # then a class folder is called real or fake, and others are not guessed at
    rows: list[Row] = []
    files: dict[str, grouping.File] = {}
    strangers: list[str] = []
    classes: Counter[str] = Counter()
    for parts, folder, names in list_media(root):
        lower = [part.lower() for part in parts]
        at = next((i for i, part in enumerate(lower) if part in wanted or part == "real"), None)
        if at is None and not only_named and parts:
            at = next((i for i, part in enumerate(lower) if part not in manifest.SPLIT_NAMES), None)
        if at is None:
            strangers += [os.path.join(folder, name) for name in names]
            continue
        split = next((manifest.SPLIT_NAMES[part] for part in lower if part in manifest.SPLIT_NAMES), "")
        said = [part for part in (*parts[outer:at], *parts[at + 1 :]) if part.lower() not in manifest.SPLIT_NAMES]
        below = tuple(part for part in parts[at + 1 :] if part.lower() not in manifest.SPLIT_NAMES)
        source, label, within = "/".join(said) or parts[at], int(lower[at] in wanted), "/".join(parts) if split else ""
        classes[parts[at]] += len(names)
        for path in (os.path.join(folder, name) for name in names):
            rows.append(Row(path, label, source, split))
            files[path] = grouping.File(path, label, below, within)
    if not rows:
        raise UserError(
            f"{root} holds no image or video in a folder called real or {', '.join(fake)}. {_held(root)} Put them into such "
            "folders, name the fake ones by --data.fake NAME (all others are then real), give a manifest.csv with path,label, "
            "or name the public set by --data.layout; docs/data.md lists them."
        )
    table = manifest.validate(to_table(rows), str(root))
    table.attrs = {"layout": "class_folders", "unlabelled": strangers, "files": files, "classes": classes}
    return table


def _held(root: Path) -> str:
    """A few entries of the tree, with the number of images and videos below each."""
    counts = Counter({"/".join(parts) or ".": len(names) for parts, _, names in list_media(root)} if root.is_dir() else {})
    below = {name: sum(n for place, n in counts.items() if f"{place}/".startswith(f"{name}/")) for name in Tree(root).folders()}
    shown = [f"{name}/ ({count} images or videos)" for name, count in list(below.items())[:8]]
    more = [f"{len(below) - 8} more folders"] if len(below) > 8 else []
    loose = [f"{counts['.']} images or videos{' beside them' if shown else ''}"] if counts["."] else []
    return f"It holds {', '.join([*shown, *more, *loose]) or 'nothing of use'}."


def _inside(table: pd.DataFrame, root: Path, folder: str) -> pd.DataFrame:
    """Only what lies in folders of this name, as far as the path says so below `root`."""
    if not folder:
        return table
    start = len(str(root)) if root.is_dir() else 0
    kept = [f"/{folder}/" in path[start:] if path.startswith(str(root)) or not start else f"/{folder}/" in path
            for path in table["path"]]  # fmt: skip
    if not any(kept):
        raise UserError(f"{root}: the layout asks for folders named {folder!r}, and no file lies in one.")
    return table[kept].reset_index(drop=True)


def select_sources(table: pd.DataFrame, sources: Sequence[str]) -> pd.DataFrame:
    """The fakes of these sources, and all reals."""
    if not sources:
        return table
    kept = (table["label"] == 0) | table["source"].isin(manifest.fake_sources(table, sources))
    return table[kept].reset_index(drop=True)
