"""The report of a run: one self-contained HTML file that needs no network and prints well.

It starts with a plain summary of how good the detector is and what to be careful about; the detailed tables follow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tfdetect.files import plural
from tfdetect.pages import html
from tfdetect.pages.adaptation import adaptation_section
from tfdetect.pages.conclusion import cautions, one_class_warning, verdict
from tfdetect.pages.content import Report
from tfdetect.pages.learnt import learnt_section
from tfdetect.pages.robustness import robustness_section
from tfdetect.pages.summary import summary_section
from tfdetect.pages.tables import (
    INTERVALS,
    MAX_ROWS,
    SOURCES,
    confusion_sentence,
    data_table,
    flatten,
    metrics_table,
    sources_table,
)
from tfdetect.pages.verdicts import verdicts_section
from tfdetect.plots import standard

__all__ = ["MAX_MISTAKES", "MAX_ROWS", "Report", "cautions", "one_class_warning", "verdict", "write"]

MAX_MISTAKES = 8  # images of each kind of mistake


def write(path: str | PathLike[str], report: Report) -> None:
    """Write the report to `path`. Raises ValueError if the test metrics are missing or an image is not uint8 (h, w, 3)."""
    if "test" not in report.metrics:
        raise ValueError(f"A report needs metrics of the test split under 'test', got {sorted(report.metrics)}.")
    html.write(path, "report", report.name, report.detector, (
        _warnings_section(report.warnings), summary_section(report), adaptation_section(report.adaptation),
        _metrics_section(report.metrics),
        verdicts_section(report.metrics["test"].get("verdicts")), _sources_section(report.metrics["test"]),
        learnt_section(report.learnt, report.shortcuts.get("all"), report.figures.get("stress")),
        robustness_section(report.robustness, report.figures.get("robustness")),
        html.figure_section("Figures", [(standard.caption(name) or name, figure) for name, figure in report.figures.items()
                                        if name not in ("stress", "robustness")]),
        _mistakes_section(report.mistakes), _detector_section(report), _data_section(report),
        _reproduction_section(report)))  # fmt: skip


def _metrics_section(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    confusion = confusion_sentence(metrics["test"])
    return (f'<section class="numbers"><h2>Metrics</h2>{f"<p>{confusion}</p>" if confusion else ""}<p>{INTERVALS}</p>'
            f"{html.table(*metrics_table(metrics))}</section>")  # fmt: skip


def _sources_section(test: Mapping[str, Any]) -> str:
    header, rows = sources_table(test)
    table = html.table(header, rows, foot=len(rows) - len(test["by_source"]))  # the mean over sources
    return f"<section><h2>Metrics by source</h2><p>{SOURCES}</p>{table}</section>" if rows else ""


def _mistakes_section(files: Sequence[tuple[str, int, str, float, NDArray[np.uint8]]]) -> str:
    """Return the images of real files called fake and of missed fakes, the most confident mistakes first."""
    out = ""
    for label, title in ((0, "Real files called fake"), (1, "Fakes called real")):
        wrong = sorted((file for file in files if file[1] == label), key=lambda file: -abs(file[3] - label))
        shown = "".join(
            f'<figure><img alt="" src="{html.thumbnail(image)}"><figcaption>probability '
            f"<b>{100 * probability:.1f} %</b>{'; source: ' * bool(source)}{escape(source)}<br><code>{escape(path)}</code>"
            "</figcaption></figure>"
            for path, _, source, probability, image in wrong[:MAX_MISTAKES])  # fmt: skip
        out += f'<h3>{title}</h3><div class="pictures">{shown}</div>' if shown else ""
    hint = "<p>The most confident mistakes first, with their probability of being fake. Images are reduced in size.</p>"
    return f"<section><h2>Most confident mistakes</h2>{hint}{out}</section>" if out else ""


def _detector_section(report: Report) -> str:
    """Return the detector-specific figures and tables."""
    tables = "".join(f"<h3>{escape(title)}</h3>{html.table(table.columns, table.itertuples(index=False))}"
                     for title, table in report.extra_tables.items())  # fmt: skip
    tables = f"<section><h2>Additional tables</h2>{tables}</section>" if tables else ""
    return html.figure_section("Figures of this detector", report.extra_figures.items()) + tables


def _data_section(report: Report) -> str:
    out = html.table(*data_table(report.data)) if report.data is not None else ""
    for title, rows in (("Could not be read or scored", report.failures), ("Used despite a problem", report.notes)):
        if rows:
            shown = f"; the first {MAX_ROWS} are listed" if len(rows) > MAX_ROWS else ""
            cells = html.table(["file", "reason"], rows[:MAX_ROWS])
            out += f"<h3>{title}</h3><p>{plural(len(rows), 'file')}{shown}.</p>{cells}"
    return f"<section><h2>Data</h2>{out}</section>" if out else ""


def _reproduction_section(report: Report) -> str:
    out = f"<p>This command repeats the run:</p><pre>{escape(report.command)}</pre>" if report.command else ""
    for title, values, kind in (("Settings", report.settings, "setting"), ("Software", report.versions, "package")):
        out += f"<h3>{title}</h3>{html.table([kind, 'value'], flatten(values))}" if values else ""
    return f"<section><h2>Reproducing this run</h2>{out}</section>" if out else ""


def _warnings_section(sentences: Sequence[str]) -> str:
    title = "Warnings" if len(sentences) > 1 else "Warning"
    return f'<section class="warning" role="alert"><h2>{title}</h2>{html.bullet_list(sentences)}</section>' if sentences else ""
