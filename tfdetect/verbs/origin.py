"""origin: show what files say of their own origin."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from tfdetect import config
from tfdetect.data.origin.statement import CAVEAT, KINDS, NOTHING, Origin
from tfdetect.files import format_bytes
from tfdetect.workflow.console import plural, print_columns, printable
from tfdetect.workflow.verdicts import FileList


@dataclass(frozen=True)
class ShowOrigin:
    """Show what images and videos say of their own origin: camera, programs, generators, content credentials. Exit code 1 if any
    file failed. It needs no run, and enters no score."""

    files: tyro.conf.Positional[tuple[Path, ...]]
    """Images, videos, folders of them, and tables (CSV, .xlsx, Parquet) with a column path."""
    coordinates: bool = False
    """Show where a file was taken, if it says so; by default only whether it does."""
    json: bool = False
    """One JSON object per line."""


def main(argv: Sequence[str]) -> int:
    """Parse the flags, and print what each file says."""
    args = config.parse_flags(ShowOrigin, argv, "origin")
    paths = FileList(args.files)
    from tfdetect.api.origin import read_origins

    failed, kinds = 0, set()
    for found in read_origins(paths, args.coordinates):
        failed += found.error is not None
        kinds |= {each.kind for each in found.statements}
        if args.json:
            print(json.dumps(found.to_dict()), flush=True)
        else:
            show(found)
    if not args.json:
        for kind in (name for name in KINDS if name in kinds):
            print(f"{kind}: {KINDS[kind]}")
        print(f"{CAVEAT}\n{plural(len(paths), 'file')}, {failed} failed")
    return 1 if failed else 0


def show(found: Origin) -> None:
    """Print a file and what it says."""
    print(f"{printable(found.path)}: {found.error or ', '.join(facts(found))}")
    if found.statements:
        rows = [[f"  {each.kind}", each.place, f"{each.text} ({each.meaning})" if each.meaning else each.text]
                for each in found.statements]  # fmt: skip
        print_columns(["  kind", "where", "what it says"], rows)
    elif not found.error:
        print(f"  {NOTHING}")
    for note in found.notes:
        print(f"  {note}")
    print()


def facts(found: Origin) -> Iterator[str]:
    """Yield format, size and hash."""
    yield found.format
    yield format_bytes(found.bytes)
    yield f"SHA-256 {found.sha256}"
