"""The trees that data sets ship in -> manifest."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path

import pandas as pd

from tfdetect.data import manifest, public_faces, public_images  # noqa: F401  (these register their layouts)
from tfdetect.data.media import IMAGES
from tfdetect.data.tree import LAYOUTS, Row, Tree, frame, levels, listing, walk
from tfdetect.errors import UserError

__all__ = ["NAMES", "read", "walk"]

MANIFESTS = ("manifest.csv", "manifest.parquet", "manifest.xlsx", "manifest.tsv")
NAMES = ("auto", "manifest", "class_folders", "deepfakebench", *LAYOUTS)

KIND = re.compile(r"^(real|fake|original|orig|input|output)[_-](?=.)|(?<=.)[_-](real|fake|original|orig|input|output)$", re.I)
FRAME = re.compile(rf"frame[ _-]?\d+({'|'.join(map(re.escape, IMAGES))})$", re.I)


def read(path: Path, fake: Sequence[str] = ("fake",), layout: str = "auto", sources: Sequence[str] = ()) -> pd.DataFrame:
    """The manifest of a data set: a table as it is, a folder by its own manifest, as a public set, or by class folders.

    `layout` is one of NAMES; `NAME:FOLDER`, such as `faceforensics:c23`, keeps only what lies in folders of that name.
    `sources` keeps the fakes of these sources, and all reals. `fake` names the class folders that are fake; whoever gives
    other names than "fake" means class folders. The table's `attrs` hold the layout's name and the number of files
    `left_out`, for which the set has no label. Raises ValueError that says what was found and what was expected,
    FileNotFoundError or PermissionError where nothing can be read.
    """
    path = Path(path)
    name, _, inside = layout.partition(":")
    if name not in NAMES:
        near = get_close_matches(name, NAMES, 1)
        hint = f"; perhaps you meant {near[0]}" if near else ""
        raise UserError(f"There is no layout {name!r}{hint}. There are {', '.join(NAMES)}.")
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; expected a folder or a manifest.")
    table = _table(path, fake, name)
    return of_sources(_inside(table, path, inside), sources)


def _table(path: Path, fake: Sequence[str], name: str) -> pd.DataFrame:
    if name in ("auto", "deepfakebench") and path.suffix.lower() == ".json" and path.is_file():
        return _checked(public_faces.deepfakebench(path), path, "deepfakebench")
    own = next((file for file in (path, *(path / file for file in MANIFESTS)) if file.is_file()), None)
    if name in ("auto", "manifest") and own:
        table = manifest.read(own)
        table.attrs |= {"layout": "manifest", "left_out": 0}
        return table
    if name in ("manifest", "deepfakebench") or path.is_file():
        wanted = {"manifest": " or ".join(MANIFESTS), "deepfakebench": "the path of a .json file"}.get(name, "a folder")
        raise UserError(f"{path}: the layout {name} needs {wanted}.")
    named = {word.lower() for word in fake} != {"fake"}
    if name == "class_folders" or (name == "auto" and named):
        return class_folders(path, fake)
    return _public(path, name) if name != "auto" else _recognised(path, fake)


def _recognised(path: Path, fake: Sequence[str]) -> pd.DataFrame:
    """The first layout that knows the folder, or the only folder in it; else class folders."""
    for tree in levels(path):
        for known in LAYOUTS.values():
            if known.recognise(tree):
                return _checked(known.rows(tree.root), path, known.name)
    return class_folders(path, fake)


def _public(path: Path, name: str) -> pd.DataFrame:
    """The layout that the user named, at the level at which it knows itself, else just here."""
    known = LAYOUTS[name]
    root = next((tree.root for tree in levels(path) if known.recognise(tree)), path)
    return _checked(known.rows(root), path, name)


def _checked(rows: Iterable[Row] | pd.DataFrame, path: Path, name: str) -> pd.DataFrame:
    table = rows if isinstance(rows, pd.DataFrame) else frame(rows)
    left_out = table["label"].isna()
    if left_out.all():
        needs = LAYOUTS[name].needs if name in LAYOUTS else "videos with frames"
        raise UserError(f"{path}: the layout {name} found no file with a label; expected {needs}. {_held(path)}")
    table = manifest.check(table[~left_out] if left_out.any() else table, str(path))
    table.attrs = {"layout": name, "left_out": int(left_out.sum())}
    return table


def class_folders(root: Path, fake: Sequence[str]) -> pd.DataFrame:
    """`real/` and `fake/` at any depth and in any letter case, with or without a folder of a split above them.

    Source is the path above and below the class folder, or where there is none its own name. Without split folders, files
    of one name (`real/7.mp4`, `fake/7.mp4`, `fake/7_output.mp4`) are one group: they may be twins, and a group too coarse
    does no harm. With split folders the split is already decided, and each file is a group of its own. Images called
    `frame_12` are of the video that their folder, if it is no class folder, stands for.
    """
    wanted = {name.lower() for name in fake}
    outer = len(list(levels(root))) - 1  # folders that all files lie in
    only_named = wanted == {"fake"}  # then a class folder is called real or fake, and others are not guessed at
    rows: list[Row] = []
    strangers: Counter[str] = Counter()
    for parts, folder, names in listing(root):
        lower = [part.lower() for part in parts]
        at = next((i for i, part in enumerate(lower) if part in wanted or part == "real"), None)
        if at is None and not only_named and parts:
            at = next((i for i, part in enumerate(lower) if part not in manifest.SPLIT_NAMES), None)
        if at is None:
            strangers.update({"/".join(parts) or ".": len(names)} if names else {})
            continue
        split = next((manifest.SPLIT_NAMES[part] for part in lower if part in manifest.SPLIT_NAMES), "")
        said = [part for part in (*parts[outer:at], *parts[at + 1 :]) if part.lower() not in manifest.SPLIT_NAMES]
        source, inside = "/".join(said) or parts[at], parts if split else parts[at + 1 :]
        for name in names:
            group = _group(name, "/".join(inside), twins=not split)
            rows.append(Row(os.path.join(folder, name), int(lower[at] in wanted), source, split, group))
    if not rows:
        found = f"files in {', '.join(sorted(strangers)[:5])}" if strangers else "no image or video"
        known = "; ".join(f"{name} ({layout.needs})" for name, layout in LAYOUTS.items())
        raise UserError(
            f"{root}: found {found}; expected class folders named real and {', '.join(fake)} with images or videos in "
            "them (--data.fake names other fakes), or a manifest.csv with path,label, or a public set as it ships. "
            f"{_held(root, strangers)} The public sets, which --data.layout names: {known}."
        )
    table = manifest.check(frame(rows), str(root))
    table.attrs = {"layout": "class_folders", "left_out": strangers.total()}
    return table


def _group(name: str, folder: str, twins: bool) -> str:
    if folder and FRAME.match(name):
        return folder
    return KIND.sub("", os.path.splitext(name)[0]) if twins else f"{folder}/{name}"


def _held(root: Path, counts: Counter[str] | None = None) -> str:
    """A few entries of the tree, with the number of images and videos below each."""
    if counts is None:
        counts = Counter({"/".join(parts) or ".": len(names) for parts, _, names in listing(root)} if root.is_dir() else {})
    below = {name: sum(n for place, n in counts.items() if f"{place}/".startswith(f"{name}/")) for name in Tree(root).folders()}
    shown = [f"{name}/ ({count} images or videos)" for name, count in list(below.items())[:8]]
    more = [f"{len(below) - 8} more folders"] if len(below) > 8 else []
    loose = [f"{counts['.']} images or videos beside them"] if counts["."] else []
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


def of_sources(table: pd.DataFrame, sources: Sequence[str]) -> pd.DataFrame:
    """The fakes of these sources, and all reals."""
    if not sources:
        return table
    kept = (table["label"] == 0) | table["source"].isin(manifest.fake_sources(table, sources))
    return table[kept].reset_index(drop=True)
