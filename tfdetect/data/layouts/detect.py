"""Read a data set into a manifest: a table, a public data set whose layout is recognised, or class folders."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from tfdetect import config, installation
from tfdetect.data import manifest
from tfdetect.data.layouts import group_rules, grouping, public_faces, public_images  # noqa: F401  (these register layouts)
from tfdetect.data.layouts.tree import LAYOUTS, Row, Tree, count_left_out, list_media, nested_trees, to_table
from tfdetect.errors import UserError, suggestion

MANIFEST_NAMES = ("manifest.csv", "manifest.parquet", "manifest.xlsx", "manifest.tsv")
# The order in which the built-in layouts are tried on a folder; the first that recognises it reads it. A manifest in the
# folder comes before all of them, layouts of plugins come after them in order of registration, and class folders come last.
RECOGNITION_ORDER = (
    # FaceForensics++ before DFD: DFD is often downloaded into the same tree, and then both are read as one set.
    "faceforensics", "dfd",
    # Tables or folder names that no other layout has.
    "celeb_df", "dfdc", "dfdc_preview",
    # DF40 before Community Forensics: a tree of METHOD/{real,fake} may match both, but DF40 only for its methods.
    "df40", "artifact",
    # UniversalFakeDetect before ForenSynths: both have 0_real and 1_fake, but the former keeps reals in separate folders.
    "universalfakedetect", "forensynths", "genimage", "diffusionforensics",
    # Class folders with a distinctive detail; the least specific layout, any GENERATOR/{real,fake}, comes last.
    "cifake", "faces_140k", "deepfake_and_real", "genvideo", "community_forensics",
)  # fmt: skip
REGROUPED = ("forensynths", "community_forensics")  # their trees may also hold frames of a user's own videos


def layout_names() -> tuple[str, ...]:
    """Return the values of --data.layout, including the layouts of plugins that are loaded."""
    return ("auto", "manifest", "class_folders", "deepfakebench", *recognition_order())


def recognition_order() -> list[str]:
    """Return the names of all registered layouts in the order in which they are tried."""
    return [*RECOGNITION_ORDER, *(name for name in LAYOUTS if name not in RECOGNITION_ORDER)]


def read(path: Path, fake: Sequence[str] = ("fake",), layout: str = "auto", sources: Sequence[str] = (),
         group: str = "auto") -> pd.DataFrame:  # fmt: skip
    """Return the manifest of a data set, which is a table, a folder with a manifest, a public data set, or class folders.

    `layout` is one of `layout_names`; `NAME:FOLDER`, such as `faceforensics:c23`, keeps only files in folders of that name.
    `sources` keeps all reals, and fakes of these sources. `fake` names the class folders that are fake; other names than
    "fake" imply class folders. `group` is one of `group_rules.RULES` or a regular expression.

    The `attrs` of the table hold the name of the layout, what is `left_out` (see `tree.count_left_out`), and in `groups` a
    sentence on how files were grouped. Raises UserError that says what was found and what was expected, FileNotFoundError
    if `path` does not exist, and OSError if it cannot be read.
    """
    path = Path(path)
    name, _, folder = layout.partition(":")
    if name not in layout_names():
        hint = suggestion(name, layout_names())
        raise UserError(f"There is no layout {name!r}.{hint} Choose from {', '.join(layout_names())}.")
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; expected a folder or a manifest.")
    complete = _read_layout(path, fake, name)
    table = select_sources(_select_folder(complete, path, folder), sources)
    unlabelled = complete.attrs.pop("unlabelled", None)
    if unlabelled is not None:
        without = {"without a label": len(unlabelled)} if unlabelled else {}
        complete.attrs["left_out"] = count_left_out(path, complete["path"], unlabelled) if path.is_dir() else without
    others, files = len(complete) - len(table), complete.attrs.pop("files", {})
    left_out = {**complete.attrs["left_out"], **({"other sources": others} if others else {})}
    table.attrs = {**complete.attrs, "left_out": left_out}
    if group == "auto" and files:
        groups, table.attrs["groups"] = grouping.find_groups([files[name] for name in table["path"]])
        table["group"] = [name.strip() for name in groups]  # manifests strip groups, and a run stores its manifest
    elif group == "auto" and table.attrs["layout"] in REGROUPED:
        table["group"], table.attrs["groups"] = grouping.regroup_frames(table, str(path))
    return set_groups(table, path, group)


def set_groups(table: pd.DataFrame, path: Path, rule: str) -> pd.DataFrame:
    """Return the table with the groups of `--data.group`, and with a sentence about them in `attrs`."""
    if "groups" in table.attrs and rule in ("auto", table.attrs.get("group")):
        return table
    if rule != "auto":
        _refuse_regrouping(table, path, rule)
        root = str(path if path.is_dir() else path.parent)
        table["group"], table.attrs["groups"] = group_rules.group_by_rule(table, root, rule)
        table.attrs["given"] = True
    else:
        how = "given by the manifest" if table.attrs["layout"] == "manifest" else f"by the layout {table.attrs['layout']}"
        table.attrs["groups"] = group_rules.describe_given_groups(table, how)
        table.attrs["given"] = bool((table["group"] != table["path"]).any())
    return table


def _refuse_regrouping(table: pd.DataFrame, path: Path, rule: str) -> None:
    if "group" in table.attrs:
        raise UserError(f"{path} was prepared with --data.group {table.attrs['group']}, not {rule}; prepare it again.")
    if table.attrs["layout"] == "manifest" and (table["group"] != table["path"]).any():
        raise UserError(f"{path} defines groups, which conflicts with --data.group {rule}; omit the flag, or empty the column "
                        "group.")  # fmt: skip


def _read_layout(path: Path, fake: Sequence[str], name: str) -> pd.DataFrame:
    if name in ("auto", "deepfakebench") and path.suffix.lower() == ".json" and path.is_file():
        return _validate(public_faces.deepfakebench(path), path, "deepfakebench")
    table_path = next((file for file in (path, *(path / file for file in MANIFEST_NAMES)) if file.is_file()), None)
    if name in ("auto", "manifest") and table_path:
        table = manifest.read(table_path)
        table.attrs |= {"layout": "manifest", "left_out": {}, **config.read_prepared_groups(path)}
        return table
    if name in ("manifest", "deepfakebench") or path.is_file():
        needed = {"manifest": " or ".join(MANIFEST_NAMES), "deepfakebench": "the path of a .json file"}.get(name, "a folder")
        raise UserError(f"{path}: the layout {name} needs {needed}.")
    has_named_fakes = {word.lower() for word in fake} != {"fake"}
    if name == "class_folders" or (name == "auto" and has_named_fakes):
        return read_class_folders(path, fake)
    return _read_named(path, name) if name != "auto" else _read_recognised(path, fake)


def _read_recognised(path: Path, fake: Sequence[str]) -> pd.DataFrame:
    """Read the first layout that recognises the folder, or the only folder in it; else class folders."""
    for tree in nested_trees(path):
        for name in recognition_order():
            if LAYOUTS[name].recognise(tree):
                return _validate(LAYOUTS[name].rows(tree.root), path, name)
    return read_class_folders(path, fake)


def _read_named(path: Path, name: str) -> pd.DataFrame:
    """Read the layout that the user named, at the level at which it is recognised, else at `path`."""
    layout = LAYOUTS[name]
    root = next((tree.root for tree in nested_trees(path) if layout.recognise(tree)), path)
    return _validate(layout.rows(root), path, name)


def _validate(rows: Iterable[Row] | pd.DataFrame, path: Path, name: str) -> pd.DataFrame:
    table = rows if isinstance(rows, pd.DataFrame) else to_table(rows)
    is_unlabelled = table["label"].isna()
    if is_unlabelled.all():
        expected = LAYOUTS[name].expected if name in LAYOUTS else "videos with frames"
        raise UserError(f"{path}: the layout {name} found no file with a label; expected {expected}. {_describe_folder(path)}")
    unlabelled = list(table["path"][is_unlabelled])
    table = manifest.validate(table[~is_unlabelled] if unlabelled else table, str(path))
    table.attrs = {"layout": name, "unlabelled": unlabelled}
    return table


def read_class_folders(root: Path, fake: Sequence[str]) -> pd.DataFrame:
    """Read `real/` and `fake/` at any depth and in any letter case, with or without folders for splits.

    The source is the path above and below the class folder, or else the name of the class folder. The `attrs` hold
    `files`, the `grouping.File` of each path; `unlabelled`, the paths outside of class folders; and `classes`, the number
    of files in each class folder. Raises UserError if there are no class folders.
    """
    fake_names = {name.lower() for name in fake}
    outer = len(list(nested_trees(root))) - 1  # number of folders that contain all files
    only_standard_names = fake_names == {"fake"}  # then folders with other names are not class folders
    rows: list[Row] = []
    files: dict[str, grouping.File] = {}
    unlabelled: list[str] = []
    classes: Counter[str] = Counter()
    for parts, folder, names in list_media(root):
        lower = [part.lower() for part in parts]
        at = next((i for i, part in enumerate(lower) if part in fake_names or part == "real"), None)
        if at is None and not only_standard_names and parts:
            at = next((i for i, part in enumerate(lower) if part not in manifest.SPLIT_NAMES), None)
        if at is None:
            unlabelled += [os.path.join(folder, name) for name in names]
            continue
        split = next((manifest.SPLIT_NAMES[part] for part in lower if part in manifest.SPLIT_NAMES), "")
        source_parts = [part for part in (*parts[outer:at], *parts[at + 1 :]) if part.lower() not in manifest.SPLIT_NAMES]
        below = tuple(part for part in parts[at + 1 :] if part.lower() not in manifest.SPLIT_NAMES)
        source, label = "/".join(source_parts) or parts[at], int(lower[at] in fake_names)
        split_folder = "/".join(parts) if split else ""
        classes[parts[at]] += len(names)
        for path in (os.path.join(folder, name) for name in names):
            rows.append(Row(path, label, source, split))
            files[path] = grouping.File(path, label, below, split_folder)
    if not rows:
        raise UserError(
            f"{root} has no image or video in a folder named real or {', '.join(fake)}. {_describe_folder(root)} Move files "
            "into such folders, name the fake folders with --data.fake NAME (all others are then real), provide a manifest.csv "
            f"with path,label, or name a public data set with --data.layout; {installation.page('data.md')} lists them."
        )
    table = manifest.validate(to_table(rows), str(root))
    table.attrs = {"layout": "class_folders", "unlabelled": unlabelled, "files": files, "classes": classes}
    return table


def _describe_folder(root: Path) -> str:
    """Return a sentence with a few entries of the tree and the number of images and videos in each."""
    counts = Counter({"/".join(parts) or ".": len(names) for parts, _, names in list_media(root)} if root.is_dir() else {})
    totals = {folder: sum(n for place, n in counts.items() if f"{place}/".startswith(f"{folder}/"))
              for folder in Tree(root).folders()}  # fmt: skip
    shown = [f"{name}/ ({count} images or videos)" for name, count in list(totals.items())[:8]]
    more = [f"{len(totals) - 8} more folders"] if len(totals) > 8 else []
    loose = [f"{counts['.']} images or videos{' beside them' if shown else ''}"] if counts["."] else []
    return f"It contains {', '.join([*shown, *more, *loose]) or 'no images, videos or folders'}."


def _select_folder(table: pd.DataFrame, root: Path, folder: str) -> pd.DataFrame:
    """Return only the rows with a folder of this name in the path below `root`."""
    if not folder:
        return table
    start = len(str(root)) if root.is_dir() else 0
    matches = [f"/{folder}/" in path[start:] if path.startswith(str(root)) or not start else f"/{folder}/" in path
               for path in table["path"]]  # fmt: skip
    if not any(matches):
        raise UserError(f"{root}: no file is in a folder named {folder!r}, which --data.layout asks for.")
    return table[matches].reset_index(drop=True)


def select_sources(table: pd.DataFrame, sources: Sequence[str]) -> pd.DataFrame:
    """Return all reals, and the fakes of these sources; all rows if `sources` is empty."""
    if not sources:
        return table
    selected = (table["label"] == 0) | table["source"].isin(manifest.fake_sources(table, sources))
    return table[selected].reset_index(drop=True)
