"""cache: show what takes space in caches, and delete what is old or needed by no run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tfdetect import config
from tfdetect.api import cache as api
from tfdetect.errors import UserError
from tfdetect.files import format_bytes
from tfdetect.workflow.console import confirm, console, plural, print_columns, print_records, printable, progress

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Caches(api.Caches):
    """Show what takes space in caches of decoded clips. With --older_than or --unused, also show what could be deleted, and with
    --prune delete it."""

    prune: bool = False
    """Delete what --older_than and --unused select, after asking; with both, what both select."""
    yes: bool = False
    """Delete without asking."""
    json: bool = False
    """Print one JSON object per line."""
    csv: bool = False
    """Print CSV."""


def main(argv: Sequence[str]) -> int:
    """Parse the flags, look, and list or delete."""
    args = config.parse_flags(Caches, argv, "cache")
    selecting = bool(args.older_than or args.unused)
    if args.prune and not selecting:
        raise UserError("--prune needs to know what to delete: add --older_than 30d, --unused or both.")
    if args.prune and (args.json or args.csv):
        raise UserError("--json and --csv only list: omit them to delete.")
    places = api.review(args)
    table = api.to_table(places)
    if args.json or args.csv:
        print_records(table, args.csv)
        return 0
    print_table(table, selecting)
    if selecting:
        print_kept(args)
    if args.prune:
        prune(places, table, args.yes)
    elif table["prunable_files"].any():
        console.print("To delete what is selected, add --prune to the same command.")
    return 0


def print_table(table: "pd.DataFrame", selecting: bool) -> None:
    """Print a line per part, and the total."""
    header = ["size", "files", *(["selected"] if selecting else []), "last used", "what", "where"]
    rows = [[format_bytes(row.size), f"{row.files:,}", *([format_bytes(row.prunable_size)] if selecting else []),
             f"{row.used:%Y-%m-%d}" if row.files else "", row.kind, f"{row.folder}/{row.name}"]
            for row in table.itertuples(index=False)]  # fmt: skip
    print_columns(header, rows, right=("size", "files", "selected"))
    selected = f"; selected: {describe(table)}" if selecting else ""
    console.print(f"{plural(table['files'].sum(), 'file')}, {format_bytes(table['size'].sum())}{selected}")


def describe(table: "pd.DataFrame") -> str:
    """Return what is selected, such as "2,400 files, 1.2 GB"."""
    return f"{plural(table['prunable_files'].sum(), 'file')}, {format_bytes(table['prunable_size'].sum())}"


def print_kept(args: Caches) -> None:
    """Say from which folders nothing is deleted."""
    for root in args.folders:
        if config.read_prepared_settings(root):
            console.print(printable(f"{root} was made by prepare, and may hold the only copy of equalised files: nothing in it "
                                    "is selected. Delete the whole folder if you do not need it."))  # fmt: skip


def prune(places: Sequence[api.Place], table: "pd.DataFrame", yes: bool) -> None:
    """Delete what is selected, after asking."""
    if not table["prunable_files"].any():
        console.print("There is nothing to delete.")
        return
    if not yes and not confirm(f"Delete {describe(table)}? Training decodes them again when it needs them.", "--yes"):
        console.print("Nothing was deleted.")
        return
    with progress("Deleting", int(table["prunable_files"].sum())) as step:
        count, size = api.prune(places, step)
    console.print(f"Deleted {plural(count, 'file')}, {format_bytes(size)}.")
