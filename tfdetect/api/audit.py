"""audit: find shortcuts, duplicates, leaks between splits and unreadable files in a data set."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from tfdetect import config, files
from tfdetect.api.results import show_page
from tfdetect.errors import UserError
from tfdetect.settings import FileSettings
from tfdetect.workflow import dataset, output_paths
from tfdetect.workflow.console import console, plural, print_command, printable, progress
from tfdetect.workflow.startup import start

if TYPE_CHECKING:
    import pandas as pd


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


@dataclass(frozen=True)
class Findings:
    """What an audit found: a page, and tables. A notebook shows the head of the page."""

    folder: Path
    found: Mapping[str, Any] = field(repr=False, compare=False)
    """The content of audit.json."""
    files: "pd.DataFrame" = field(repr=False, compare=False)
    """A row per file: the columns of the manifest, and its properties, such as format, size and JPEG quality."""

    @property
    def page(self) -> Path:
        """The page audit.html."""
        return self.folder / "audit.html"

    @property
    def warnings(self) -> "pd.DataFrame":
        """A row for each property that gives the label away: property, auc, kind and advice."""
        return self._table("warnings", "property", "auc", "kind", "advice")

    @property
    def leaks(self) -> "pd.DataFrame":
        """A row for each set of files in several splits or groups that belong together: kind, splits, paths and advice."""
        return self._table("leaks", "kind", "splits", "paths", "advice")

    @property
    def duplicates(self) -> "pd.DataFrame":
        """A row for each set of copies and near copies: kind, paths, labels, splits, groups, across and advice."""
        return self._table("duplicates", "kind", "paths", "labels", "splits", "groups", "across", "advice")

    def _table(self, name: str, *columns: str) -> "pd.DataFrame":
        import pandas as pd

        return pd.DataFrame(self.found[name], columns=list(columns))

    def _repr_html_(self) -> str:
        return show_page(self.page, head=True)


def audit(path: str | Path, **settings: Any) -> Findings:
    """Look for what makes a detector seem better than it is: shortcuts, duplicates, leaks between splits, unreadable files.

    `path` is a data set or manifest. The keywords are flags of the command `audit`, such as `out="FOLDER"`, `workers=1` and
    `write_groups="grouped.csv"`. Raises UserError for a setting that is not valid and for a path that is no data set.
    """
    start(settings.pop("plugin", ()))
    return audit_data(config.parse_keywords(Audit(Path(path)), settings, "audit"))


def audit_data(args: Audit) -> Findings:
    """Audit the data set, write the page, audit.json and, if asked for, a manifest with joined groups."""
    if args.write_groups and args.write_groups.exists() and not args.overwrite:
        raise UserError(f"{args.write_groups} already exists: give another file to --write_groups, or add --overwrite.")
    reading = args.data.layout, args.data.sources, args.data.fake
    out = args.out or Path("audits") / output_paths.unique_name(args.path, *reading)
    table, properties = collect_properties(args, out)
    found = {**find_problems(table, properties), "check": args.data.check}
    files.write_json(out / "audit.json", found)
    from tfdetect.pages import audit as page

    with files.atomic_write(out / "audit.html") as temporary:
        page.write(temporary, str(args.path), found, properties.assign(path=table["path"]))
    if args.write_groups:
        write_grouped_manifest(args.write_groups, table, found["duplicates"])
    columns = [name for name in properties if name not in table]
    joined = table.join(properties[columns])
    joined.attrs = table.attrs  # which a join drops
    return Findings(out, found, joined)


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
    print_command("train", "cnn", "--data.path", path)


def collect_properties(args: Audit, out: Path) -> "tuple[pd.DataFrame, pd.DataFrame]":
    """Return the manifest, as `settle` does, and the properties of its files, row by row."""
    from tfdetect.data.audit.properties import collect

    data = args.data
    table = dataset.read_manifest(args.path, data)
    console.print(f"{plural(len(table), 'file')}, layout {table.attrs.get('layout', 'manifest')}")
    with progress("Reading", len(table)) as step:
        properties = collect(table, data.workers, step, data.timeout, data.limits, out / "properties.jsonl",
                             data.decoding)  # fmt: skip
    dataset.require_usable(table.assign(error=properties["error"]))
    if properties["frames"].notna().any():
        console.print(str(data.decoding))
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
        "shortcut_intervals": shortcuts.intervals,
        "warnings": [asdict(warning) for warning in shortcuts.warnings],
        "duplicates": sets,
        "leaks": duplicates.find_leaks(table, used),
        "failures": [{"path": path, "reason": reason} for path, reason in failures],
    }  # fmt: skip
