"""runs: list runs with their results, and delete runs by name."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tfdetect import artifact as artifacts
from tfdetect import config, installation
from tfdetect.api import runs as api
from tfdetect.artifact import Artifact
from tfdetect.errors import UserError
from tfdetect.files import format_bytes
from tfdetect.workflow.console import confirm, console, plural, print_columns, print_records, printable

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Runs(api.Runs):
    """List the runs in a folder and the folders in it, with the results on their test files; delete runs by name."""

    delete: tuple[str, ...] = ()
    """Delete the listed runs with these names or shell patterns, after asking."""
    yes: bool = False
    """Delete without asking."""
    json: bool = False
    """Print one JSON object per line."""
    csv: bool = False
    """Print CSV."""
    models_config: Path | None = None
    """Write a list of these runs for TensorFlow Serving to this file, such as saved_models/models.config (docs/serving.md)."""


def main(argv: Sequence[str]) -> int:
    """Parse the flags, and list or delete the runs."""
    args = config.parse_flags(Runs, argv, "runs")
    if args.delete and (args.json or args.csv):
        raise UserError("--json and --csv only list runs: omit them to delete some.")
    table = api.list_runs(args)
    if args.delete:
        return delete(api.select(table, args.delete), args.yes)
    if args.models_config:
        write_models_config(table, args.models_config)
    if args.json or args.csv:
        print_records(table, args.csv)
    elif table.empty:
        console.print(printable(f"No such run in {args.folder}. To train one: {installation.command('train', 'cnn')}"))
    else:
        print_table(table)
    return 0


def write_models_config(table: "pd.DataFrame", target: Path) -> None:
    """Write the list of the runs that have a SavedModel. Raises UserError if there is none, or two of one name."""
    from tfdetect.serving import serving_config

    finished = table[table["state"] == "finished"]
    served = finished[[Artifact(Path(path)).saved_model.exists() for path in finished["path"]]]
    names = [Path(path).resolve().name for path in served["path"]]
    if not names or len(set(names)) < len(names):
        raise UserError(f"{target} needs runs with SavedModels and different names, got {', '.join(sorted(names)) or 'none'}: "
                        "select some with --name.")  # fmt: skip
    serving_config.write_models(target, dict(zip(names, served["name"], strict=True)))


def print_table(table: "pd.DataFrame") -> None:
    """Print a line per run, what is wrong with some, and the total."""
    header = ("name", "detector", "test AUC (95 % interval)", "date", "size", "state", "versions", "data")
    rows = [(row.name, row.detector, format_auc(row.auc, row.auc_low, row.auc_high), f"{row.date:%Y-%m-%d %H:%M}",
             format_bytes(row.size), row.state, row.versions, row.data) for row in table.itertuples(index=False)]  # fmt: skip
    print_columns(header, rows, right=("size",))
    for row in table[table["note"] != ""].itertuples():
        console.print(printable(f"{row.name}: {row.note}"))
    counts = ", ".join(f"{number} {state}" for state, number in table["state"].value_counts().items())
    console.print(f"{plural(len(table), 'run')}, {format_bytes(table['size'].sum())}: {counts}")


def format_auc(auc: float, low: float, high: float) -> str:
    """Return the AUC and its interval: "0.993 (0.982 to 1.000)"; "-" if there is none."""
    if auc != auc:  # NaN
        return "-"
    return f"{auc:.3f}" if low != low else f"{auc:.3f} ({low:.3f} to {high:.3f})"


def delete(table: "pd.DataFrame", yes: bool) -> int:
    """Delete runs after asking; return 1 if some of them were kept, because they are being trained or hold more than a run."""
    reasons = table["path"].map(api.why_kept)
    for reason in reasons[reasons != ""]:
        console.print(printable(f"Kept: {reason}"))
    if (chosen := table[reasons == ""]).empty:
        raise UserError("None of these runs can be deleted, see above.")
    print_table(chosen)
    what = f"{plural(len(chosen), 'run')}, {format_bytes(chosen['size'].sum())}"
    if not yes and not confirm(f"Delete {what}? There is no way back.", "--yes"):
        console.print("Nothing was deleted.")
        return 0
    for path in chosen["path"]:
        artifacts.delete(Artifact(Path(path)))
    console.print(f"Deleted {what}.")
    return 1 if len(chosen) < len(table) else 0
