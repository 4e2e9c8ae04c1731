"""audit: find shortcuts, duplicates, leaks between splits and unreadable files in a data set."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from tfdetect import config, files
from tfdetect.errors import UserError
from tfdetect.settings import FileSettings
from tfdetect.workflow import dataset, output_paths
from tfdetect.workflow.console import console, plural, print_command, printable, progress

if TYPE_CHECKING:
    import pandas as pd

MAX_PRINTED = 5  # leaks of a kind that are printed; audit.json lists all
DEFAULT_GROUPS_FILE = "grouped.csv"  # written to the current folder


@dataclass(frozen=True)
class Audit:
    """Look for what makes a detector seem better than it is: shortcuts, duplicates, leaks between splits, unreadable files.

    Writes audit.html, audit.json and properties.jsonl, from which an interrupted audit resumes.
    Warnings do not change the exit code.
    """

    path: tyro.conf.Positional[Path]
    """A manifest, or the folder of a public data set, or a folder with real/ and fake/ in it."""
    out: Path | None = None
    """Output folder; by default audits/NAME, where NAME is unique to the data set."""
    data: FileSettings = field(default_factory=FileSettings)
    write_groups: Path | None = None
    """CSV file (grouped.csv if no name is given) for a manifest in which copies and near copies share a group."""
    overwrite: bool = False
    """Replace the file of --write_groups if it exists."""


def main(argv: Sequence[str]) -> int:
    """Parse the flags, audit the data set, and write and print the findings."""
    args = config.parse_flags(Audit, add_default_path(argv), "audit.py")
    if args.write_groups and args.write_groups.exists() and not args.overwrite:
        raise UserError(f"{args.write_groups} already exists: give another file to --write_groups, or add --overwrite.")
    reading = args.data.layout, args.data.sources, args.data.fake
    out = args.out or Path("audits") / output_paths.unique_name(args.path, *reading)
    table, properties = collect_properties(args, out)
    findings = find_problems(table, properties)
    files.write_json(out / "audit.json", findings)
    from tfdetect.pages import audit as page

    with files.atomic_write(out / "audit.html") as temporary:
        page.write(temporary, str(args.path), findings, properties.assign(path=table["path"]))
    print_findings(findings, table, properties)
    console.print(f"\nPage    {out / 'audit.html'}\nJSON    {out / 'audit.json'}")
    if args.write_groups:
        write_grouped_manifest(args.write_groups, table, findings["duplicates"])
    elif findings["leaks"]:
        console.print("Next:\n  add --write_groups to the same command to write a manifest that puts such files into one group")
    return 0


def add_default_path(argv: Sequence[str]) -> list[str]:
    """Return the arguments with DEFAULT_GROUPS_FILE after a `--write_groups` that has no path."""
    out: list[str] = []
    for flag, following in zip(argv, [*argv[1:], "--"], strict=True):
        needs_path = flag == "--write_groups" and following.startswith("--")
        out += [flag, DEFAULT_GROUPS_FILE] if needs_path else [flag]
    return out


def write_grouped_manifest(path: Path, table: "pd.DataFrame", duplicates: Sequence[dict[str, Any]]) -> None:
    """Write the manifest with the groups of duplicates joined and without the excluded files; print what changed and how to
    train on it."""
    from tfdetect.data import manifest
    from tfdetect.data.audit.duplicates import merge_groups
    from tfdetect.data.layouts.tree import resolve_split_conflicts

    grouped = table.assign(path=[str(Path(name).absolute()) for name in table["path"]], group=merge_groups(table, duplicates))
    grouped = resolve_split_conflicts(grouped)
    usable = grouped[(table["left_out"] == "").to_numpy()].drop(columns="left_out")
    path.parent.mkdir(parents=True, exist_ok=True)
    manifest.write(usable, path)
    changes = f"{table['group'].nunique()} groups became {grouped['group'].nunique()}"
    if moved := int((grouped["split"].to_numpy() != table["split"].to_numpy()).sum()):
        changes += f"; {plural(moved, 'file')} moved to the test or validation split of the rest of the group"
    if excluded := len(grouped) - len(usable):
        changes += f"; {plural(excluded, 'file')} left out, as in training"
    console.print(f"Groups  {printable(str(path))}: {changes}\nNext:")
    print_command("train.py", "cnn", "--data.path", path)


def collect_properties(args: Audit, out: Path) -> "tuple[pd.DataFrame, pd.DataFrame]":
    """Return the manifest, as `settle` does, and the properties of its files, row by row."""
    from tfdetect.data.audit.properties import collect

    data = args.data
    table = dataset.read_manifest(args.path, data)
    console.print(f"{plural(len(table), 'file')}, layout {table.attrs.get('layout', 'manifest')}")
    with progress("Reading", len(table)) as step:
        properties = collect(table, data.workers, step, data.timeout, data.limits, out / "properties.jsonl")
    dataset.require_usable(table.assign(error=properties["error"]))
    return settle(table, properties), properties


def settle(table: "pd.DataFrame", properties: "pd.DataFrame") -> "pd.DataFrame":
    """Return the manifest as training uses it: copies share a group, and the column `left_out` says why a file is excluded."""
    from tfdetect.data.audit import copies

    table, reasons = copies.resolve_copies(table, content_hashes(properties))
    return table.assign(left_out=table["left_out"].where(table["left_out"] != "", reasons) if "left_out" in table else reasons)


def content_hashes(properties: "pd.DataFrame") -> list[str]:
    """Return the content hash of each file, "" for an unreadable one."""
    return list(properties["sha"].where(properties["error"] == "", ""))


def find_problems(table: "pd.DataFrame", properties: "pd.DataFrame") -> dict[str, Any]:
    """Return the content of audit.json."""
    from tfdetect.data.audit import copies, duplicates
    from tfdetect.data.audit import shortcuts as audit_shortcuts
    from tfdetect.data.layouts import grouping

    grouping_note = table.attrs["groups"]
    readable = properties["error"] == ""
    sample = audit_shortcuts.sample_groups(table[readable & (table["left_out"] == "")])
    shortcuts = audit_shortcuts.find_shortcuts(sample, properties.loc[sample.index])
    sets = duplicates.find_duplicates(table, properties)
    excluded = {path for entry in sets if duplicates.has_contradicting_labels(entry) for path in entry["paths"]}  # as in training
    used = [entry for entry in sets if len({*entry["paths"]} - excluded) > 1]
    hashes = [sha for sha, reason in zip(content_hashes(properties), table["left_out"], strict=True) if not reason]
    failures = zip(table["path"][~readable], properties["error"][~readable], strict=True)
    return {
        "counts": {**audit_shortcuts.count_values(table, properties), "copies": copies.count_copies(hashes),
                   "others": table.attrs.get("left_out", {}), "left_out": int((table["left_out"] != "").sum())},
        "groups": {"count": int(table["group"].nunique()), "known": not grouping_note.startswith(grouping.NO_GROUPS[:-1]),
                   "said": grouping_note},
        "shortcuts": shortcuts.aucs,
        "warnings": [asdict(warning) for warning in shortcuts.warnings],
        "duplicates": sets,
        "leaks": duplicates.find_leaks(table, used),
        "failures": [{"path": path, "reason": reason} for path, reason in failures],
    }  # fmt: skip


def print_findings(findings: dict[str, Any], table: "pd.DataFrame", properties: "pd.DataFrame") -> None:
    """Print the findings, the worst first."""
    from tfdetect.pages.audit import verdict
    from tfdetect.plots.standard import property_name

    leaks = [leak for leak in findings["leaks"] if leak["splits"]]
    possible_leaks = [leak for leak in findings["leaks"] if not leak["splits"]]
    table = table.assign(error=properties["error"].where(properties["error"] != "", table["left_out"]))
    dataset.print_count(table, "read")
    dataset.print_failures(table)
    if findings["counts"]["copies"]:
        console.print(dataset.COPIES.format(findings["counts"]["copies"], len(table)))
    console.print(f"\n{verdict(findings)}")
    for warning in findings["warnings"]:
        name = property_name(warning["property"])
        console.print(f"  {name}: the label can be predicted with AUC {warning['auc']:.3f} ({warning['kind']}). "
                      f"{warning['advice']}")
    for entries, kind in ((leaks, "leaks"), (possible_leaks, "possible leaks")):
        for leak in entries[:MAX_PRINTED]:
            where = " and ".join(leak["splits"]) or "several groups"
            console.print(f"  {leak['kind']} in {where}: {', '.join(map(printable, leak['paths'][:3]))}")
        if (more := len(entries) - MAX_PRINTED) > 0:
            console.print(f"  and {more:,} more {kind}, listed in audit.json")
        for advice in dict.fromkeys(leak["advice"] for leak in entries):
            console.print(f"  {advice}")
