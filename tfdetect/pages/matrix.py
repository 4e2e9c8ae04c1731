"""The page of a cross-data matrix: every run on every data set, each cell with a link to its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tfdetect.files import plural
from tfdetect.pages import html
from tfdetect.plots.matrix import heat_map
from tfdetect.plots.style import caption

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METRICS = (("auc", "AUC"), ("balanced_accuracy", "Balanced accuracy"))
NOTES = {
    "auc": "The probability that a fake scores higher than a real file of that data set, with its 95 % interval; 0.5 is chance.",
    "balanced_accuracy": "The mean of the recalls of both classes at the run's own threshold, from its validation files, with "
    "its 95 % interval; 0.5 is chance. Where the AUC is high and this is not, the threshold does not fit this data set.",
}


def write(path: str | PathLike[str], name: str, found: Mapping[str, Any], drawn: Figure | Path, command: str = "") -> None:
    """Write the page. `found` is the content of matrix.json: rows, columns, cells, counts."""
    tables = [_section(found, key, title) for key, title in METRICS]
    figure = html.figure(caption(heat_map), drawn, may_be_wide=True)
    repeat = f"<section><h2>Reproducing this page</h2><pre>{escape(command)}</pre></section>" if command else ""
    html.write(path, "matrix", name, f"{plural(len(found['rows']), 'run')} on {plural(len(found['columns']), 'data set')}", (
        f'<section class="verdict"><h2>Summary</h2><p class="lead">{escape(summary(found))}</p></section>',
        tables[0], f'<section><div class="figures">{figure}</div></section>', *tables[1:], _reasons(found),
        _data_sets(found), repeat))  # fmt: skip


def summary(found: Mapping[str, Any]) -> str:
    """Return the best and the worst AUC of each run, and how many cells have none, in sentences."""
    said = []
    for row in found["rows"]:
        cells = [cell for cell in found["cells"] if cell["run"] == row["name"] and cell["auc"] is not None]
        if cells:
            low, high = min(cells, key=lambda cell: cell["auc"]), max(cells, key=lambda cell: cell["auc"])
            said.append(f"{row['name']}: AUC from {low['auc']:.3f} ({low['data']}) to {high['auc']:.3f} ({high['data']}).")
    without = found["counts"]["without_auc"] + found["counts"]["failed"]
    have = "have" if without > 1 else "has"
    said += [f"{without} of {plural(len(found['cells']), 'cell')} {have} no AUC, for the reasons below."] if without else []
    return " ".join(said)


def _section(found: Mapping[str, Any], key: str, title: str) -> str:
    """Return the table of one figure, with a column for the lowest of a row."""
    by_place = {(cell["run"], cell["data"]): cell for cell in found["cells"]}
    names = [column["name"] for column in found["columns"]]
    head = "".join(f"<th>{escape(name)}</th>" for name in ("run", *names, "lowest"))
    body = ""
    for row in found["rows"]:
        cells = [by_place[row["name"], name] for name in names]
        known = [cell[key] for cell in cells if cell[key] is not None]
        lowest = html.format_cell(min(known) if known else None)
        shown = "".join(f"<td class=n>{_link(cell, key)}</td>" for cell in cells)
        body += f"<tr><td>{escape(row['name'])}</td>{shown}<td class=n>{lowest}</td></tr>"
    table = f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    return f"<section><h2>{title}</h2><p>{NOTES[key]} Each cell leads to its report.</p>{table}</section>"


def _link(cell: Mapping[str, Any], key: str) -> str:
    """Return the figure of a cell with its interval, as a link to its report; a dash if there is none."""
    interval = cell[f"{key}_interval"]
    small = html.format_cell(interval) if interval else "see below" if cell[key] is None and cell["reason"] else ""
    text = html.format_cell(cell[key]) + (f"<br><small>{small}</small>" if small else "")
    return f'<a href="{escape(quote(cell["report"]))}">{text}</a>' if cell["report"] else text


def _reasons(found: Mapping[str, Any]) -> str:
    """Return the cells that have a reason why something is missing, each with it."""
    rows = [(cell["run"], cell["data"], cell["reason"]) for cell in found["cells"] if cell["reason"]]
    table = html.table(["run", "data set", "reason"], rows)
    return f"<section><h2>Cells without an AUC</h2>{table}</section>" if rows else ""


def _data_sets(found: Mapping[str, Any]) -> str:
    """Return where the data sets are, how many of their files were scored, and how many were left out as training files."""
    rows = [(column["name"], column["path"], *_range(found["cells"], column["name"], ("n_real", "n_fake", "in_training")))
            for column in found["columns"]]  # fmt: skip
    runs = html.table(["run", "folder"], [(row["name"], row["path"]) for row in found["rows"]])
    header = ["data set", "path", "real files", "fakes", "left out, since training had them"]
    return f"<section><h2>Runs and data sets</h2>{runs}{html.table(header, rows)}</section>"


def _range(cells: Sequence[Mapping[str, Any]], data: str, keys: Sequence[str]) -> list[str]:
    """Return the counts of the cells of a data set, from the lowest to the highest over the runs."""
    out = []
    for key in keys:
        counts = sorted({cell[key] for cell in cells if cell["data"] == data and cell[key] is not None})
        out.append(" to ".join(f"{count:,}" for count in dict.fromkeys((counts[0], counts[-1]))) if counts else "–")
    return out
