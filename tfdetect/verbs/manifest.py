"""manifest: a table of a folder's files, to be filled in by hand."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from tfdetect import config
from tfdetect.errors import UserError
from tfdetect.workflow.console import console, plural, say_command

if TYPE_CHECKING:
    import pandas as pd

WRITTEN = ("path", "label", "split", "group", "source", "category")


@dataclass(frozen=True)
class Template:
    """Write a table of the images and videos of a folder, with what its layout says of them; the rest is for you to fill in.

    The column group is what keeps train and test apart: give the files of one person or original the same word. Paths start at
    the folder that the table is written to.
    """

    path: tyro.conf.Positional[Path]
    """Folder of a public data set, or with real/ and fake/ in it, or of any images and videos."""
    out: Path = Path("manifest.csv")
    """The table; .xlsx for a spreadsheet."""
    overwrite: bool = False
    """Replace a table that is there."""
    layout: str = "auto"
    """How the folder is laid out, such as faceforensics or class_folders; by default it is recognised."""
    fake: tuple[str, ...] = ("fake",)
    """Names of the class folders that are fake, in any letter case; when you name your own, all others are real."""


def main(argv: Sequence[str]) -> int:
    """Parse, list, write, say what to fill in."""
    asked = config.parse_flags(Template, argv, "manifest.py")
    if asked.out.exists() and not asked.overwrite:
        raise FileExistsError(f"{asked.out} exists, and may be filled in. Replace it: --overwrite. Or give another --out.")
    if not asked.path.is_dir():
        raise UserError(f"{asked.path} is no folder: expected one with images or videos in it.")
    table = listed(asked)
    others = sum(len(names) for _, _, names in os.walk(asked.path)) - len(table)
    write(table.assign(path=relative(table["path"], asked.path, asked.out)), asked.out)
    if others > 0:
        console.print(f"Left out: {plural(others, 'other file')}, no image or video, or hidden.")
    say(table, asked.out)
    return 0


def listed(asked: Template) -> "pd.DataFrame":
    """A row for each file, with label, split and source as the layout knows them; the group of frames, and of public sets any."""
    import pandas as pd

    from tfdetect.data.layouts import detect

    own = any((asked.path / name).exists() for name in detect.MANIFESTS)  # perhaps the one to be replaced
    try:
        known = detect.read(asked.path, asked.fake, "class_folders" if own and asked.layout == "auto" else asked.layout)
    except UserError:
        if asked.layout != "auto":
            raise
        known = pd.DataFrame(columns=list(WRITTEN), dtype=str)
    plain = known.attrs.get("layout", "class_folders") == "class_folders"  # which knows no persons, but frames of a video
    alone = ~known.duplicated(["group", "label"], keep=False) if plain else known["group"] == known["path"]
    known = known.assign(label=known["label"].map({0: "real", 1: "fake"}), group=known["group"].mask(alone, ""))
    if plain:
        files = pd.DataFrame({"path": [str(path) for path in detect.walk(asked.path)]}, dtype=str)
        known = pd.concat([known, files[~files["path"].isin(set(known["path"]))]])
    if known.empty:
        raise UserError(f"{asked.path} holds no image or video.")
    needed = ("path", "label", "group")
    known = known[[name for name in WRITTEN if name in needed or (name in known and known[name].fillna("").any())]]
    return known.fillna("")


def relative(paths: Iterable[str], root: Path, out: Path) -> list[str]:
    """The paths as they are seen from the folder of `out`, also where a link leads to it: `..` does not lead back."""
    start = os.path.abspath(out.parent)
    way = os.path.relpath(root, start)
    if not (os.path.exists(seen := os.path.join(start, way)) and os.path.samefile(seen, root)):
        way = os.path.relpath(os.path.realpath(root), os.path.realpath(start))
    return [os.path.normpath(os.path.join(way, os.path.relpath(path, root))) for path in paths]


def write(table: "pd.DataFrame", out: Path) -> None:
    """As CSV, or as a spreadsheet."""
    from tfdetect import files
    from tfdetect.data import manifest

    if out.suffix.lower() != ".xlsx":
        manifest.write(table, out)
        return
    with files.atomic_write(out) as temporary:
        table.to_excel(temporary, sheet_name="manifest", index=False)


def say(table: "pd.DataFrame", out: Path) -> None:
    """What is there, what is to be filled in, and what comes then."""
    real, fake, unknown = (int((table["label"] == label).sum()) for label in ("real", "fake", ""))
    console.print(f"{plural(len(table), 'file')} in {out}: {real} real, {fake} fake, {unknown} without a label")
    if unknown:
        console.print("Fill in label: real or fake (0 or 1).")
    if known := table.loc[table["group"] != "", "group"].nunique():
        console.print(f"Filled in: {plural(known, 'group')}, of frames of one video or by the data set.")
    if not table["group"].all():
        console.print("Fill in group: the same word for all files of one person or original. An empty one is a file by itself.")
    console.print("\nThen:" if unknown else "\nNext:")
    say_command("audit.py", out)
    say_command("train.py", "cnn", "--data.path", out)
