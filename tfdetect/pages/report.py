"""The report of a run: one HTML file that opens anywhere, prints well and needs no network, script or other file.

It says first, in plain words, how good the detector is and what to be careful about; the tables for the expert follow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tfdetect.evaluation.metrics import ROWS
from tfdetect.files import plural
from tfdetect.pages import html
from tfdetect.plots import standard

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 50  # failures and notes that are listed; all are counted
PICTURES = 8  # of each kind of mistake


@dataclass(frozen=True)
class Report:
    """What the page tells. Only the name and the metrics must be there; a section without content is left out."""

    name: str  # of the run
    metrics: Mapping[str, Mapping[str, Any]]  # {"validation": ..., "test": ...}, each from `metrics.summary`
    detector: str = ""  # its name and what it is, in a line
    warnings: Sequence[str] = ()  # sentences that must not be missed, such as a backbone without its pretrained weights
    figures: Mapping[str, Figure | Path] = field(default_factory=dict)  # of `plots.standard` and `plots.history`, in order
    # (path, label 0/1, source, probability 0..1, uint8 picture (height, width, 3) RGB); see `predictions.most_wrong`
    most_wrong: Sequence[tuple[str, int, str, float, NDArray[np.uint8]]] = ()
    data: pd.DataFrame | None = None  # a row a file of all splits: split, label 0/1, source, group
    failures: Sequence[tuple[str, str]] = ()  # (path, reason) of the files that could not be read or scored
    notes: Sequence[tuple[str, str]] = ()  # (path, what is odd) of files that were used all the same: damaged, repeated
    shortcuts: Mapping[str, float] = field(default_factory=dict)  # AUC on the test of cheap properties alone, and of "all"
    suspects: Sequence[tuple[str, float]] = ()  # those of the shortcuts that chance does not explain, the best first
    extra_figures: Mapping[str, Figure | Path] = field(default_factory=dict)  # the detector's own, by title
    extra_tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)  # the detector's own, by title
    command: str = ""  # that repeats the run, exactly
    settings: Mapping[str, Any] = field(default_factory=dict)  # nested as in config.yaml
    versions: Mapping[str, str] = field(default_factory=dict)  # of the software, by name


def write(path: str | PathLike[str], report: Report) -> None:
    """Write the page to `path`. ValueError where the test's summary is missing or a picture is not uint8 (h, w, 3)."""
    if "test" not in report.metrics:
        raise ValueError(f"A report needs the test's summary under 'test', got {sorted(report.metrics)}.")
    html.write(path, "report", report.name, report.detector, (
        _warnings(report.warnings), _verdict(report), _numbers(report.metrics), _sources(report.metrics["test"]),
        html.figures("Figures", [(standard.caption(name) or name, figure) for name, figure in report.figures.items()]),
        _mistakes(report.most_wrong), _own(report), _data(report), _repeat(report)))


def verdict(test: Mapping[str, Any]) -> str:
    """The one sentence that a reader takes home, from the test's summary."""
    auc, interval, counts = test["auc"], test["auc_interval"], test["confusion"]
    if auc is None and test["n"] and counts:
        kind, found = ("real", counts["tn"]) if test["n_real"] else ("fake", counts["tp"])
        share = html.count(100 * found / test["n"])
        return (f"It calls {share} % of the {test['n']} {kind} files in the test {kind}. That alone says little: whoever calls "
                f"every file {kind} gets 100 %.")
    if auc is None:
        return "Nothing can be said: it takes real and fake files in the test to judge a detector."
    chance = f"Given a real file and a fake, it scores the fake higher in {html.count(100 * auc)} of 100 cases"
    if interval is None:
        return f"{chance}, but the test holds too few independent groups to say how far that carries."
    low, high = interval
    if low <= 0.5 <= high:
        return f"That it is no better than chance cannot be ruled out. {chance}; guessing gets 50."
    if high < 0.5:
        return f"It ranks the files the wrong way round. {chance}; guessing gets 50. Check which label means fake."
    return f"It tells fakes from real files better than chance. {chance}; guessing gets 50."


def one_class(real: int, fake: int) -> str:
    """What it means that a test holds one class only; empty if it does not."""
    if not (real or fake) or (real and fake):
        return ""
    kind, share = ("real", "reals that pass") if real else ("fake", "fakes that are found")
    return (f"The test holds {kind} files only, {real + fake} of them: no AUC is defined, and the accuracy is no more than a "
            f"recall, the share of {share}.")


def cautions(metrics: Mapping[str, Mapping[str, Any]], failures: int = 0,
             suspects: Sequence[tuple[str, float]] = ()) -> list[str]:
    """Sentences on how far the test's numbers can be trusted; `failures` is how many files were not scored, `suspects` the
    cheap properties that tell the label, with their AUC."""
    test, validation = metrics["test"], metrics.get("validation")
    real, fake, interval = test["n_real"], test["n_fake"], test["auc_interval"]
    out = []
    if alone := one_class(real, fake):
        out.append(alone)
    if (real + fake if alone else min(real, fake)) < 50:
        out.append(f"The test is tiny: {real} real and {fake} fake files. One file more or less moves every number.")
    if interval and interval[1] - interval[0] > 0.1:
        out.append(f"The AUC's interval is wide, {interval[0]:.2f} to {interval[1]:.2f}; more test files narrow it.")
    if test["auc"] == 1 and interval:
        out.append("No test file is out of order, so its interval has no width. An easy or a small test does that.")
    if test["confusion"] is None and test["n"]:
        out.append("There is no calibration, hence no probability and no decision: only the order is judged.")
    if not validation or not validation["n"]:
        out.append("There are no validation files, so nothing independent chose the epoch and the threshold.")
    elif not (validation["n_real"] and validation["n_fake"]):
        only = "real" if validation["n_real"] else "fake"
        out.append(f"Validation holds {only} files only. The threshold keeps most of them on the right side.")
    elif interval and validation["auc"] > interval[1]:
        out.append(f"AUC {validation['auc']:.3f} on validation, {test['auc']:.3f} on the test: not all carries over.")
    weak = [name or "(no name)" for name, row in test["by_source"].items()
            if row["recall"] is not None and row["recall"] < 0.5]
    if weak:
        out.append(f"It finds fewer than half of the fakes from {', '.join(weak)}.")
    for name, auc in suspects[:1]:
        what = "Cheap properties of a file" if name.startswith("all") else f"The {name.replace('_', ' ')} of a file"
        out.append(f"{what} can tell fake from real here, with an AUC of {auc:.3f}. The detector may have learnt that in place "
                   "of the fake; the audit of the data says what to do.")
    if failures:
        out.append(f"{plural(failures, 'file')} could not be read or scored, and are in none of the numbers; a list is below.")
    return out


def _verdict(report: Report) -> str:
    test = report.metrics["test"]
    tiles = "".join(f'<div class="tile"><b>{big}</b><span>{what}</span><small>{small}</small></div>'
                    for big, what, small in _tiles(test, report.shortcuts))
    careful = html.bullets(cautions(report.metrics, len(report.failures), report.suspects))
    careful = f'<div class="careful"><h3>Be careful</h3>{careful}</div>' if careful else ""
    return (f'<section class="verdict"><h2>In short</h2><p class="lead">{escape(verdict(test))}</p>'
            f'<div class="tiles">{tiles}</div>{_base_rate(test)}{careful}'
            '<p class="fine">All of this is measured on files that took no part in training, and holds for files like '
            'those of the test. Generators and cameras that it has not seen can do worse.</p></section>')


def _tiles(test: Mapping[str, Any], shortcuts: Mapping[str, float]) -> list[tuple[str, str, str]]:
    """(large, what it is, small print) of the numbers at the top."""
    low, high = test["auc_interval"] or (None, None)
    missing = "takes both classes" if test["auc"] is None else "no interval"
    interval = missing if low is None else f"95 % interval {low:.3f} to {high:.3f}"
    tiles = [(html.cell(test["auc"]), "test AUC", interval)]
    if "all" in shortcuts:
        tiles.append((html.cell(shortcuts["all"]), "shortcut AUC", "of size, format, bytes, mean colour and the like alone"))
    counts = test["confusion"]
    if counts is None:
        return tiles
    right, real, fake = counts["tn"] + counts["tp"], test["n_real"], test["n_fake"]
    often = max(real, fake) / test["n"]
    tiles.append((f"{html.count(100 * right / test['n'])} %", "decided right",
                  f"{right} of {test['n']}; always naming the larger class gets {html.count(100 * often)} %"))
    if real:
        share = html.count(100 * counts["fp"] / real)
        tiles.append((f"{share} of 100", "real files falsely flagged", f"{counts['fp']} of {real}"))
    if fake:
        tiles.append((f"{html.count(100 * counts['tp'] / fake)} of 100", "fakes found", f"{counts['tp']} of {fake}"))
    return tiles


def _base_rate(test: Mapping[str, Any]) -> str:
    """What a flag is worth where fakes are rare; the share of fakes in a test set hides that."""
    counts = test["confusion"]
    if not counts or not (test["n_real"] and test["n_fake"]) or not counts["fp"] + counts["tp"]:
        return ""
    # None of n proves no rate of zero: up to 3 / n is compatible with it (95 %, "rule of three", Hanley 1983).
    found, false = counts["tp"] / test["n_fake"], (counts["fp"] or min(3, test["n_real"])) / test["n_real"]
    worth = html.count(100 * found / (found + 99 * false))
    share = f"about {worth}" if counts["fp"] else f"anything from {worth} to 100 (too few reals to say more)"
    return (f"<p>A file is called fake from a probability of {html.cell(test['threshold'])} on. Where only one file in a "
            f"hundred is fake, {share} of 100 flagged files would really be fake.</p>")


def _numbers(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """The metric table: validation and test side by side, per file, and per frame where that is something else."""
    splits = [split for split in ("validation", "test") if split in metrics]
    columns = [(f"{split}, per file", metrics[split]) for split in splits]
    if any(metrics[split]["by_frame"]["n"] != metrics[split]["n"] for split in splits):
        columns += [(f"{split}, per frame", metrics[split]["by_frame"]) for split in splits]
    header = ["", *(title for title, _ in columns), "what it says"]
    rows = [[name, *(_dig(values, key) for _, values in columns), what] for key, name, what in ROWS]
    return f'<section class="numbers"><h2>All numbers</h2>{_decisions(metrics["test"])}{html.table(header, rows)}</section>'


def _decisions(test: Mapping[str, Any]) -> str:
    """The test's confusion in words, and which class is the positive one: other works count the reals as that."""
    if not (counts := test["confusion"]):
        return ""
    return (f"<p>In the test, of {test['n_real']} real files {counts['tn']} are called real and {counts['fp']} fake; of "
            f"{test['n_fake']} fake files {counts['tp']} are called fake and {counts['fn']} real. AUC and average precision are "
            "those of fakes; precision, recall and F1 are given of fakes and of reals.</p>")


def _dig(values: Mapping[str, Any], key: str) -> Any:
    for part in key.split("."):
        values = values[part]
    return values


def _sources(test: Mapping[str, Any]) -> str:
    keys = ("n_real", "n_fake", "auc", "auc_interval", "eer", "recall", "false_positive_rate")
    rows = [[name or "(no name)", *(row[key] for key in keys)] for name, row in test["by_source"].items()]
    if not rows:
        return ""
    header = ["source", "real", "fake", "AUC", "95 % interval", "equal error rate", "fakes found", "reals flagged"]
    return ("<section><h2>By source</h2><p>In the test: the fakes of each source against all reals, and how often the "
            f"reals of each source are falsely flagged.</p>{html.table(header, rows)}</section>")


def _mistakes(files: Sequence[tuple[str, int, str, float, NDArray[np.uint8]]]) -> str:
    """The pictures of falsely flagged reals and of missed fakes, the most wrong first."""
    out = ""
    for label, title in ((0, "Real, but called fake"), (1, "Fake, but called real")):
        wrong = sorted((file for file in files if file[1] == label), key=lambda file: -abs(file[3] - label))
        shown = "".join(
            f'<figure><img alt="" src="{html.thumbnail(picture)}"><figcaption><b>{probability:.1%}</b> fake, '
            f"{escape(source)}<br><code>{escape(path)}</code></figcaption></figure>"
            for path, _, source, probability, picture in wrong[:PICTURES])
        out += f'<h3>{title}</h3><div class="pictures">{shown}</div>' if shown else ""
    hint = "<p>Shown smaller than they are, the most wrong first.</p>"
    return f"<section><h2>The most wrong files</h2>{hint}{out}</section>" if out else ""


def _own(report: Report) -> str:
    """The detector's own figures and tables."""
    tables = "".join(f"<h3>{escape(title)}</h3>{html.table(table.columns, table.itertuples(index=False))}"
                     for title, table in report.extra_tables.items())
    tables = f"<section><h2>More tables</h2>{tables}</section>" if tables else ""
    return html.figures("Figures of this detector", report.extra_figures.items()) + tables


def _data(report: Report) -> str:
    out = ""
    if report.data is not None:
        grouped = report.data.fillna({"source": ""}).groupby(["split", "label", "source"])
        counts = grouped.agg(files=("group", "size"), groups=("group", "nunique")).reset_index()
        counts["label"] = counts["label"].map({0: "real", 1: "fake"})
        order = {"train": 0, "validation": 1, "test": 2}
        counts = counts.sort_values("split", key=lambda column: column.map(order).fillna(3), kind="stable")
        out += html.table(counts.columns, counts.itertuples(index=False))
    for title, rows in (("Could not be read or scored", report.failures), ("Used, but worth a look", report.notes)):
        if rows:
            shown = f", the first {SHOWN} of them here" if len(rows) > SHOWN else ""
            cells = html.table(["file", "reason"], rows[:SHOWN])
            out += f"<h3>{title}</h3><p>{plural(len(rows), 'file')}{shown}.</p>{cells}"
    return f"<section><h2>The data</h2>{out}</section>" if out else ""


def _repeat(report: Report) -> str:
    out = f"<p>The command that repeats this run:</p><pre>{escape(report.command)}</pre>" if report.command else ""
    for title, values, what in (("Settings", report.settings, "setting"), ("Software", report.versions, "package")):
        out += f"<h3>{title}</h3>{html.table([what, 'value'], _flat(values))}" if values else ""
    return f"<section><h2>To repeat it</h2>{out}</section>" if out else ""


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as ("train.epochs", "20")."""
    out: list[tuple[str, str]] = []
    for key, value in values.items():
        nested = isinstance(value, Mapping) and value
        out += _flat(value, f"{prefix}{key}.") if nested else [(f"{prefix}{key}", str(value))]
    return out


def _warnings(sentences: Sequence[str]) -> str:
    return f'<section class="warning" role="alert"><h2>Warning</h2>{html.bullets(sentences)}</section>' if sentences else ""
