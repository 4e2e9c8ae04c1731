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
from tfdetect.pages.content import HeatMap, Report
from tfdetect.pages.explanation import METHOD_NOTES
from tfdetect.pages.learnt import learnt_section
from tfdetect.pages.robustness import robustness_section
from tfdetect.pages.summary import summary_section
from tfdetect.pages.tables import (
    INTERVALS,
    LEAKS,
    MAX_ROWS,
    SOURCES,
    TRUST,
    confusion_sentence,
    data_table,
    flatten,
    metrics_table,
    reproduction_tables,
    seeds_sentence,
    sources_table,
)
from tfdetect.pages.verdicts import verdicts_section
from tfdetect.plots import standard

__all__ = ["MAX_MISTAKES", "MAX_ROWS", "Report", "cautions", "one_class_warning", "verdict", "write"]

MAX_MISTAKES = 8  # images of each kind of mistake
MISTAKES = "The most confident mistakes first, with their probability of being fake. Images are reduced in size."


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
        _mistakes_section(report), _detector_section(report), _data_section(report),
        _leaks_section(report.leaks),
        _reproduction_section(report)))  # fmt: skip


def _metrics_section(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    confusion = confusion_sentence(metrics["test"])
    return (f'<section class="numbers"><h2>Metrics</h2>{f"<p>{confusion}</p>" if confusion else ""}<p>{INTERVALS}</p>'
            f"{html.table(*metrics_table(metrics))}</section>")  # fmt: skip


def _sources_section(test: Mapping[str, Any]) -> str:
    header, rows = sources_table(test)
    table = html.table(header, rows, foot=len(rows) - len(test["by_source"]))  # the mean over sources
    return f"<section><h2>Metrics by source</h2><p>{SOURCES}</p>{table}</section>" if rows else ""


def _mistakes_section(report: Report) -> str:
    """Return the images of real files called fake and of missed fakes, the most confident first, with their heat-maps."""
    out = ""
    for label, title in ((0, "Real files called fake"), (1, "Fakes called real")):
        wrong = sorted((file for file in report.mistakes if file[1] == label), key=lambda file: -abs(file[3] - label))
        shown = "".join(_mistake(*file, report.heat_maps.get(file[0])) for file in wrong[:MAX_MISTAKES])
        out += f'<h3>{title}</h3><div class="pictures">{shown}</div>' if shown else ""
    hint = f"<p>{MISTAKES}{' ' * bool(report.heat_maps)}{escape(heat_map_notes(report.heat_maps))}</p>"
    return f"<section><h2>Most confident mistakes</h2>{hint}{out}</section>" if out else ""


def _mistake(path: str, _: int, source: str, probability: float, image: NDArray[np.uint8], heat_map: HeatMap | None) -> str:
    drawn = f'<img alt="heat-map" src="{html.thumbnail(heat_map.image)}">' if heat_map else ""
    check = f"<small>{escape(heat_map.check)}</small>" if heat_map else ""
    return (f'<figure><img alt="" src="{html.thumbnail(image)}">{drawn}<figcaption>probability <b>{100 * probability:.1f} %</b>'
            f"{'; source: ' * bool(source)}{escape(source)}<br><code>{escape(path)}</code>{check}</figcaption></figure>")


def heat_map_notes(found: Mapping[str, HeatMap]) -> str:
    """Return how to read the heat-maps of the most wrong files; "" without any."""
    if not found:
        return ""
    notes = " ".join(METHOD_NOTES[method] for method in dict.fromkeys(one.method for one in found.values()))
    return f"Some have a heat-map, with its check below. {notes} {TRUST}"


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


def _leaks_section(found: Sequence[tuple[str, str]]) -> str:
    shown = html.table(["looked for", "found"], found)
    return f"<section><h2>Leaks</h2><p>{LEAKS}</p>{shown}</section>" if found else ""


def _reproduction_section(report: Report) -> str:
    out = f"<p>This command repeats the run:</p><pre>{escape(report.command)}</pre>" if report.command else ""
    out += f"<p>{escape(seeds)}</p>" if (seeds := seeds_sentence(report.settings)) else ""
    for title, values, kind in reproduction_tables(report):
        out += f"<h3>{title}</h3>{html.table([kind, 'value'], flatten(values))}" if values else ""
    return f"<section><h2>Reproducing this run</h2>{out}</section>" if out else ""


def _warnings_section(sentences: Sequence[str]) -> str:
    title = "Warnings" if len(sentences) > 1 else "Warning"
    return f'<section class="warning" role="alert"><h2>{title}</h2>{html.bullet_list(sentences)}</section>' if sentences else ""
