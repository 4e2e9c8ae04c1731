"""The report of a run: one self-contained HTML file without scripts that needs no network and prints well.

It starts with a plain summary of how good the detector is and what to be careful about; the detailed tables follow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tfdetect.evaluation.metrics import FEW, REPORT_ROWS, lookup
from tfdetect.files import plural
from tfdetect.pages import html
from tfdetect.pages.adaptation import adaptation_section
from tfdetect.pages.conclusion import cautions, one_class_warning, verdict
from tfdetect.pages.content import Report
from tfdetect.pages.learnt import learnt_section
from tfdetect.pages.robustness import robustness_section
from tfdetect.pages.summary import summary_section
from tfdetect.pages.verdicts import verdicts_section
from tfdetect.plots import standard

__all__ = ["MAX_MISTAKES", "MAX_ROWS", "Report", "cautions", "one_class_warning", "verdict", "write"]

MAX_ROWS = 50  # failures and notes listed; all are counted
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
    """Return the metric table: validation and test per file, with intervals, and per frame if there are several per file."""
    splits = [split for split in ("validation", "test") if split in metrics]
    columns = [(f"{split}, per file", metrics[split]) for split in splits]
    if any(metrics[split]["by_frame"]["n"] != metrics[split]["n"] for split in splits):
        columns += [(f"{split}, per frame", metrics[split]["by_frame"]) for split in splits]
    header = ["metric", *(name for title, _ in columns for name in (title, "95 % interval")), "meaning"]
    rows = [[name, *(cell for _, values in columns for cell in _with_interval(values, key)), meaning]
            for key, name, meaning in REPORT_ROWS]  # fmt: skip
    note = ("<p>The 95 % intervals are the range expected with other test files: percentiles of resamples of whole groups of "
            f"related files. * marks figures that rest on fewer than {FEW} files of a class. An interval without width is no "
            "certainty: no mistake in n files is compatible with a rate of mistakes of up to 3 / n.</p>")  # fmt: skip
    return (f'<section class="numbers"><h2>Metrics</h2>{_confusion_note(metrics["test"])}{note}{html.table(header, rows)}'
            "</section>")  # fmt: skip


def _with_interval(values: Mapping[str, Any], key: str) -> tuple[Any, Any]:
    """Return a figure, marked with * if it rests on few files, and its interval; "" for the interval of a count.

    Metrics of an evaluation before there were intervals have some figures only.
    """
    try:
        value = lookup(values, key)
    except KeyError:
        return None, None
    if value is None or isinstance(value, int):
        return values.get("not_measurable", {}).get(key, value), ""
    interval = values.get("intervals", {"auc": values.get("auc_interval")}).get(key)
    return f"{value:.3f} *" if key in values.get("few_files", ()) else value, interval


def _confusion_note(test: Mapping[str, Any]) -> str:
    """Return the test confusion matrix in words, and which class is positive: other works count real as positive."""
    if not (counts := test["confusion"]):
        return ""
    return (f"<p>Of {test['n_real']} real test files, {counts['tn']} are called real and {counts['fp']} fake; of "
            f"{test['n_fake']} fake test files, {counts['tp']} are called fake and {counts['fn']} real. Fake is the positive "
            "class of AUC and average precision; precision, recall and F1 are given for both classes.</p>")  # fmt: skip


def _sources_section(test: Mapping[str, Any]) -> str:
    """Return the table of sources, and of the means over those with fakes."""
    keys, rows = ("auc", "ap", "eer", "recall", "false_positive_rate"), []
    known = [None] if any(row.get("in_training") is not None for row in test["by_source"].values()) else []
    for name, row in test["by_source"].items():
        cells = [cell for key in keys for cell in _with_interval(row, key)]
        trained = {True: "yes", False: "never seen"}.get(row.get("in_training"))
        rows.append([name or "(no name)", *([trained] if known else []), row["n_real"], row["n_fake"], *cells])
    if not rows:
        return ""
    if (macro := test.get("macro_by_source", {})).get("n_sources", 0) > 1:
        cells = [cell for key in keys[:-1] for cell in _with_interval(macro, key)]
        rows.append([f"mean over {macro['n_sources']} sources of fakes", *known, None, None, *cells, None, None])
    header = ["source", *(["trained on"] if known else []), "real", "fake",
              *(text for name in ("AUC", "average precision", "EER", "recall", "false positive rate")
                for text in (name, "95 % interval"))]  # fmt: skip
    return ("<section><h2>Metrics by source</h2><p>On the test set. AUC, average precision and EER compare the fakes of a source "
            "with all real files. Recall is the share of its fakes that are found; the false positive rate is the share of its "
            "own real files that are called fake.</p>"
            f"{html.table(header, rows)}</section>")  # fmt: skip


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
    out = ""
    if report.data is not None:
        grouped = report.data.fillna({"source": ""}).groupby(["split", "label", "source"])
        counts = grouped.agg(files=("group", "size"), groups=("group", "nunique")).reset_index()
        counts["label"] = counts["label"].map({0: "real", 1: "fake"})
        order = {"train": 0, "validation": 1, "test": 2}
        counts = counts.sort_values("split", key=lambda column: column.map(order).fillna(3), kind="stable")
        out += html.table(counts.columns, counts.itertuples(index=False))
    for title, rows in (("Could not be read or scored", report.failures), ("Used despite a problem", report.notes)):
        if rows:
            shown = f"; the first {MAX_ROWS} are listed" if len(rows) > MAX_ROWS else ""
            cells = html.table(["file", "reason"], rows[:MAX_ROWS])
            out += f"<h3>{title}</h3><p>{plural(len(rows), 'file')}{shown}.</p>{cells}"
    return f"<section><h2>Data</h2>{out}</section>" if out else ""


def _reproduction_section(report: Report) -> str:
    out = f"<p>This command repeats the run:</p><pre>{escape(report.command)}</pre>" if report.command else ""
    for title, values, kind in (("Settings", report.settings, "setting"), ("Software", report.versions, "package")):
        out += f"<h3>{title}</h3>{html.table([kind, 'value'], _flatten(values))}" if values else ""
    return f"<section><h2>Reproducing this run</h2>{out}</section>" if out else ""


def _flatten(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested settings as ("train.epochs", "20")."""
    out: list[tuple[str, str]] = []
    for key, value in values.items():
        nested = isinstance(value, Mapping) and value
        out += _flatten(value, f"{prefix}{key}.") if nested else [(f"{prefix}{key}", str(value))]
    return out


def _warnings_section(sentences: Sequence[str]) -> str:
    title = "Warnings" if len(sentences) > 1 else "Warning"
    return f'<section class="warning" role="alert"><h2>{title}</h2>{html.bullet_list(sentences)}</section>' if sentences else ""
