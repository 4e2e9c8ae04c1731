"""manifest: list the files of a folder in a table whose labels and groups can be filled in by hand."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tfdetect import config
from tfdetect.api.manifest import Template, write_template
from tfdetect.workflow.console import console, plural, print_command

if TYPE_CHECKING:
    import pandas as pd


def main(argv: Sequence[str]) -> int:
    """Parse the flags, write the table and print what to fill in."""
    args = config.parse_flags(Template, argv, "manifest")
    print_summary(write_template(args), args.out)
    return 0


def print_summary(table: "pd.DataFrame", out: Path) -> None:
    """Print how many files have a label and a group, what to fill in, and the next commands."""
    real, fake, unknown = (int((table["label"] == label).sum()) for label in ("real", "fake", ""))
    console.print(f"{plural(len(table), 'file')} in {out}: {real} real, {fake} fake, {unknown} without a label")
    if unknown:
        console.print("Fill in the column label: real or fake (or 0 or 1).")
    if groups := table.loc[table["group"] != "", "group"].nunique():
        console.print(f"Already filled in: {plural(groups, 'group')}, from the data set or for frames of one video.")
    if not table["group"].all():
        console.print("Fill in the column group: the same name for all files of one person or original. A file without a group "
                      "forms a group of its own.")  # fmt: skip
    console.print("\nThen:" if unknown else "\nNext:")
    print_command("audit", out)
    print_command("train", "cnn", "--data.path", out)
