"""audit: what a data set is made of, what leaks between its splits, and which shortcut tells the label."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from tfdetect import config, files
from tfdetect.errors import UserError
from tfdetect.settings import FileSettings
from tfdetect.workflow import dataset, output_paths
from tfdetect.workflow.console import console, plural, printable, progress, say_command

if TYPE_CHECKING:
    import pandas as pd

LISTED = 5  # of each finding, on the screen
GROUPED = "grouped.csv"  # in the folder where the command is given


@dataclass(frozen=True)
class Audit:
    """Look for what makes a detector seem better than it is: shortcuts, duplicates, leaks, files that cannot be read.

    Writes audit.html and audit.json, and properties.jsonl, by which an interrupted audit goes on. Warnings do not change the
    exit code.
    """

    path: tyro.conf.Positional[Path]
    """Folder of a public data set or with real/ and fake/ in it, or a manifest."""
    out: Path | None = None
    """Where the two files go; by default audits/NAME, a name of its own for each data set."""
    data: FileSettings = field(default_factory=FileSettings)
    write_groups: Path | None = None
    """Write a manifest of the data set to this CSV in which copies and near copies are of one group."""
    overwrite: bool = False
    """Write it over a file that is there."""


def main(argv: Sequence[str]) -> int:
    """Parse, look, write, say."""
    asked = config.parse_flags(Audit, bare(argv), "audit.py")
    if asked.write_groups and asked.write_groups.exists() and not asked.overwrite:
        raise UserError(f"{asked.write_groups} is there already: name another file for --write_groups, or add --overwrite.")
    how = asked.data.layout, asked.data.sources, asked.data.fake
    out = asked.out or Path("audits") / output_paths.named(asked.path, *how)
    table, properties = look(asked, out)
    found = findings(table, properties)
    files.write_json(out / "audit.json", found)
    from tfdetect.pages import audit as pages_audit

    with files.atomic_write(out / "audit.html") as temporary:
        pages_audit.write(temporary, str(asked.path), found, properties.assign(path=table["path"]))
    say(found, table, properties)
    console.print(f"\nPage    {out / 'audit.html'}\nJSON    {out / 'audit.json'}")
    if asked.write_groups:
        write_groups(asked.write_groups, table, found["duplicates"])
    elif found["leaks"]:
        console.print("Next:\n  the same command with --write_groups writes a manifest in which such files are of one group")
    return 0


def bare(argv: Sequence[str]) -> list[str]:
    """`--write_groups` without a path writes GROUPED."""
    out: list[str] = []
    for flag, following in zip(argv, [*argv[1:], "--"], strict=True):
        out += [flag, GROUPED] if flag == "--write_groups" and following.startswith("--") else [flag]
    return out


def write_groups(path: Path, table: "pd.DataFrame", same: Sequence[dict[str, Any]]) -> None:
    """The manifest with each set of copies in one group, joined with those that were given, and without what contradicts
    itself; and how to use it."""
    from tfdetect.data import manifest
    from tfdetect.data.audit import duplicates
    from tfdetect.data.layouts.tree import strictest

    new = table.assign(path=[str(Path(name).absolute()) for name in table["path"]], group=duplicates.united(table, same))
    new = strictest(new)
    kept = new[(table["left_out"] == "").to_numpy()].drop(columns="left_out")
    path.parent.mkdir(parents=True, exist_ok=True)
    manifest.write(kept, path)
    said = f"{table['group'].nunique()} groups became {new['group'].nunique()}"
    if moved := int((new["split"].to_numpy() != table["split"].to_numpy()).sum()):
        said += f"; {moved} files lost their split and follow their group into test or validation"
    if out := len(new) - len(kept):
        said += f"; {out} files are left out, as they would be in training"
    console.print(f"Groups  {printable(str(path))}: {said}\nNext:")
    say_command("train.py", "cnn", "--data.path", path)


def look(asked: Audit, out: Path) -> "tuple[pd.DataFrame, pd.DataFrame]":
    """The manifest, and the properties of its files, row for row."""
    from tfdetect.data.audit.properties import collect

    data = asked.data
    table = dataset.read_manifest(asked.path, data)
    console.print(f"{plural(len(table), 'file')}, layout {table.attrs.get('layout', 'manifest')}")
    with progress("Looking", len(table)) as step:
        properties = collect(table, data.workers, step, data.timeout, data.limits, out / "properties.jsonl")
    dataset.require_usable(table.assign(error=properties["error"]))
    return settled(table, properties), properties


def settled(table: "pd.DataFrame", properties: "pd.DataFrame") -> "pd.DataFrame":
    """The manifest as training takes it: the groups of copies joined, and in the column `left_out` why a file is not used."""
    from tfdetect.data.audit import copies

    table, reasons = copies.settle(table, known(properties))
    return table.assign(left_out=table["left_out"].where(table["left_out"] != "", reasons) if "left_out" in table else reasons)


def known(properties: "pd.DataFrame") -> list[str]:
    """The hash of each file, where it could be read."""
    return list(properties["sha"].where(properties["error"] == "", ""))


def findings(table: "pd.DataFrame", properties: "pd.DataFrame") -> dict[str, Any]:
    """What audit.json holds."""
    from tfdetect.data.audit import copies, duplicates
    from tfdetect.data.audit import shortcuts as audit_shortcuts
    from tfdetect.data.layouts import grouping

    said = table.attrs["groups"]
    good = properties["error"] == ""
    asked = audit_shortcuts.sample(table[good & (table["left_out"] == "")])
    shortcuts = audit_shortcuts.find(asked, properties.loc[asked.index])
    same = duplicates.find(table, properties)
    torn = {path for entry in same if duplicates.contradiction(entry) for path in entry["paths"]}  # training leaves these out
    kept = [entry for entry in same if len({*entry["paths"]} - torn) > 1]
    held = [content for content, reason in zip(known(properties), table["left_out"], strict=True) if not reason]
    failures = zip(table["path"][~good], properties["error"][~good], strict=True)
    return {
        "counts": {**audit_shortcuts.counts(table, properties), "copies": copies.count(held), "others": table.attrs.get("left_out", {}),
                   "left_out": int((table["left_out"] != "").sum())},
        "groups": {"count": int(table["group"].nunique()), "known": not said.startswith(grouping.NONE[:-1]), "said": said},
        "shortcuts": shortcuts.aucs,
        "warnings": [asdict(warning) for warning in shortcuts.warned],
        "duplicates": same,
        "leaks": duplicates.leaks(table, kept),
        "failures": [{"path": path, "reason": reason} for path, reason in failures],
    }


def say(found: dict[str, Any], table: "pd.DataFrame", properties: "pd.DataFrame") -> None:
    """The findings on the screen, the worst first."""
    from tfdetect.pages.audit import verdict

    real = [leak for leak in found["leaks"] if leak["splits"]]
    would = [leak for leak in found["leaks"] if not leak["splits"]]
    table = table.assign(error=properties["error"].where(properties["error"] != "", table["left_out"]))
    dataset.print_count(table, "read")
    dataset.print_failures(table)
    if found["counts"]["copies"]:
        console.print(dataset.COPIES.format(found["counts"]["copies"], len(table)))
    console.print(f"\n{verdict(found)}")
    for warning in found["warnings"]:
        console.print("  {property} tells the label with AUC {auc:.3f} ({kind}). {advice}".format(**warning))
    for entries, what in ((real, "leaks"), (would, "sets that would leak")):
        for leak in entries[:LISTED]:
            where = " and ".join(leak["splits"]) or "several groups"
            console.print(f"  {leak['kind']} in {where}: {', '.join(map(printable, leak['paths'][:3]))}")
        if (more := len(entries) - LISTED) > 0:
            console.print(f"  and {more:,} more {what}, in audit.json")
        for advice in dict.fromkeys(leak["advice"] for leak in entries):
            console.print(f"  {advice}")
