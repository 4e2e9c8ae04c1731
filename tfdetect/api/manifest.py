"""manifest: list the files of a folder in a table whose labels and groups can be filled in by hand."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from tfdetect import config
from tfdetect.errors import UserError
from tfdetect.workflow.console import console, plural
from tfdetect.workflow.startup import start

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("path", "label", "split", "group", "source", "category")
REQUIRED_COLUMNS = ("path", "label", "group")  # written even if empty


@dataclass(frozen=True)
class Template:
    """List the images and videos of a folder in a table, with the labels, splits and groups that its layout gives.

    Fill in the rest by hand. Files of one group never end up in both train and test: give all files of one person or original
    the same group. Paths are relative to the table's folder.
    """

    path: tyro.conf.Positional[Path]
    """Folder of a public data set, or with real/ and fake/ in it, or with any images and videos."""
    out: Path = Path("manifest.csv")
    """Table to write; .xlsx for a spreadsheet."""
    overwrite: bool = False
    """Replace the table if it exists."""
    layout: str = "auto"
    """Folder layout of the data set, such as faceforensics or class_folders; auto recognises it."""
    fake: tuple[str, ...] = ("fake",)
    """Names of the folders with fakes, ignoring case; if set, all other class folders count as real."""


def manifest(path: str | Path, out: str | Path = "manifest.csv", **settings: Any) -> "pd.DataFrame":
    """List the images and videos of a folder in a table to complete by hand, write it to `out`, and return it.

    The keywords are flags of the command `manifest`, such as `overwrite=True`. Raises UserError for a setting that is not valid,
    and FileExistsError if `out` exists.
    """
    start(settings.pop("plugin", ()))
    return write_template(config.parse_keywords(Template(Path(path), Path(out)), settings, "manifest"))


def write_template(args: Template) -> "pd.DataFrame":
    """List the files, write the table and return it."""
    if args.out.exists() and not args.overwrite:
        raise FileExistsError(f"{args.out} already exists and may have been filled in: give another --out, or add --overwrite.")
    if not args.path.is_dir():
        raise UserError(f"{args.path} is not a folder: give one with images or videos in it.")
    table = list_files(args)
    others = sum(len(names) for _, _, names in os.walk(args.path)) - len(table)
    if others > 0:
        console.print(f"Left out: {plural(others, 'other file')}, hidden or neither image nor video.")
    table = table.assign(path=relative_paths(table["path"], args.path, args.out))
    write_table(table, args.out)
    return table


def list_files(args: Template) -> "pd.DataFrame":
    """Return a row per file with the label, split and source that the layout gives, "" where it gives none.

    The group is filled in for frames of one video, and wherever a public data set defines it. Raises UserError if there is no
    image or video.
    """
    import pandas as pd

    from tfdetect.data.layouts import detect, tree

    has_manifest = any((args.path / name).exists() for name in detect.MANIFEST_NAMES)  # perhaps the one to be replaced
    try:
        table = detect.read(args.path, args.fake, "class_folders" if has_manifest and args.layout == "auto" else args.layout)
    except UserError:
        if args.layout != "auto":
            raise
        table = pd.DataFrame(columns=list(COLUMNS), dtype=str)
    class_folders = table.attrs.get("layout", "class_folders") == "class_folders"  # its groups are frames of a video, not persons
    single = ~table.duplicated(["group", "label"], keep=False) if class_folders else table["group"] == table["path"]
    table = table.assign(label=table["label"].map({0: "real", 1: "fake"}), group=table["group"].mask(single, ""))
    if class_folders:
        files = pd.DataFrame({"path": [str(path) for path in tree.walk_media(args.path)]}, dtype=str)
        table = pd.concat([table, files[~files["path"].isin(set(table["path"]))]])
    if table.empty:
        raise UserError(f"{args.path} holds no images or videos.")
    columns = [name for name in COLUMNS if name in REQUIRED_COLUMNS or (name in table and table[name].fillna("").any())]
    return table[columns].fillna("")


def relative_paths(paths: Iterable[str], root: Path, out: Path) -> list[str]:
    """Return the paths below `root` relative to the folder of `out`.

    If that folder is reached through a symbolic link, `..` does not lead back, so links are resolved.
    """
    start = os.path.abspath(out.parent)
    to_root = os.path.relpath(root, start)
    if not (os.path.exists(target := os.path.join(start, to_root)) and os.path.samefile(target, root)):
        to_root = os.path.relpath(os.path.realpath(root), os.path.realpath(start))
    return [os.path.normpath(os.path.join(to_root, os.path.relpath(path, root))) for path in paths]


def write_table(table: "pd.DataFrame", out: Path) -> None:
    """Write the table as CSV, or as a spreadsheet if `out` ends in .xlsx."""
    from tfdetect import files
    from tfdetect.data import manifest

    if out.suffix.lower() != ".xlsx":
        manifest.write(table, out)
        return
    with files.atomic_write(out) as temporary:
        table.to_excel(temporary, sheet_name="manifest", index=False)
