"""audit: find shortcuts, duplicates, leaks between splits and unreadable files in a data set."""

from collections.abc import Sequence

from tfdetect import config
from tfdetect.api.audit import Audit, Findings, audit_data
from tfdetect.workflow import dataset
from tfdetect.workflow.console import console, printable

MAX_PRINTED = 5  # leaks of a kind that are printed; audit.json lists all
DEFAULT_GROUPS_FILE = "grouped.csv"  # written to the current folder


def main(argv: Sequence[str]) -> int:
    """Parse the flags, audit the data set, and print the findings."""
    args = config.parse_flags(Audit, add_default_path(argv), "audit")
    findings = audit_data(args)
    print_findings(findings)
    console.print(f"\nPage    {findings.page}\nJSON    {findings.folder / 'audit.json'}")
    if findings.found["leaks"] and not args.write_groups:
        console.print("Next:\n  add --write_groups to the same command to write a manifest that puts such files into one group")
    return 0


def add_default_path(argv: Sequence[str]) -> list[str]:
    """Return the arguments with DEFAULT_GROUPS_FILE after a `--write_groups` that has no path."""
    out: list[str] = []
    for flag, following in zip(argv, [*argv[1:], "--"], strict=True):
        needs_path = flag == "--write_groups" and following.startswith("--")
        out += [flag, DEFAULT_GROUPS_FILE] if needs_path else [flag]
    return out


def print_findings(findings: Findings) -> None:
    """Print the findings, the worst first."""
    from tfdetect.pages.audit import verdict
    from tfdetect.plots.standard import property_name

    found, table = findings.found, findings.files
    leaks = [leak for leak in found["leaks"] if leak["splits"]]
    possible_leaks = [leak for leak in found["leaks"] if not leak["splits"]]
    table = table.assign(error=table["error"].where(table["error"] != "", table["left_out"]))
    dataset.print_count(table, "read")
    dataset.print_failures(table)
    if found["counts"]["copies"]:
        console.print(dataset.COPIES.format(found["counts"]["copies"], len(table)))
    console.print(f"\n{verdict(found)}")
    for warning in found["warnings"]:
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
