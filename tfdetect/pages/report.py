"""The report of a run: one self-contained HTML file without scripts that needs no network and prints well.

It starts with a plain summary of how good the detector is and what to be careful about; the detailed tables follow.
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

from tfdetect.evaluation import seen
from tfdetect.evaluation.metrics import FEW, REPORT_ROWS, describe_interval, lookup
from tfdetect.files import plural
from tfdetect.pages import html
from tfdetect.pages.adaptation import Adaptation, adaptation_section
from tfdetect.pages.learnt import Learnt, learnt_section
from tfdetect.pages.robustness import Robustness, robustness_section
from tfdetect.pages.verdicts import verdicts_section
from tfdetect.plots import standard

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_ROWS = 50  # failures and notes listed; all are counted
MAX_MISTAKES = 8  # images of each kind of mistake


@dataclass(frozen=True)
class Report:
    """Content of a report. Only `name` and `metrics` are required; sections without content are left out."""

    name: str  # of the run
    metrics: Mapping[str, Mapping[str, Any]]  # {"validation": ..., "test": ...}, each from `metrics.summarise`
    detector: str = ""  # its name and a one-line description
    warnings: Sequence[str] = ()  # shown before everything else, such as a backbone without pretrained weights
    figures: Mapping[str, Figure | Path] = field(default_factory=dict)  # from `standard.standard` and `standard.history`
    # (path, label 0/1, source, probability 0..1, uint8 RGB image (height, width, 3)); see `predictions.worst_mistakes`
    mistakes: Sequence[tuple[str, int, str, float, NDArray[np.uint8]]] = ()
    data: pd.DataFrame | None = None  # one row per file of all splits: split, label 0/1, source, group
    failures: Sequence[tuple[str, str]] = ()  # (path, reason) of files that could not be read or scored
    notes: Sequence[tuple[str, str]] = ()  # (path, remark) of files that were used despite a problem, such as damage
    shortcuts: Mapping[str, float] = field(default_factory=dict)  # test AUC of each simple file property, and of "all"
    suspects: Sequence[tuple[str, float]] = ()  # (property, AUC) of those significantly above chance, highest first
    learnt: Learnt | None = None  # what altered test files and the neighbours of mistakes say
    adaptation: Adaptation | None = None  # what changed against the version before
    robustness: Robustness | None = None  # metrics and verdicts after corruptions of the files
    extra_figures: Mapping[str, Figure | Path] = field(default_factory=dict)  # detector-specific, by title
    extra_tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)  # detector-specific, by title
    command: str = ""  # the exact command that repeats the run
    settings: Mapping[str, Any] = field(default_factory=dict)  # nested as in config.yaml
    versions: Mapping[str, str] = field(default_factory=dict)  # software versions by package
    origin: str = ""  # of a detector that was not trained here: what is known, and how calibration and threshold came about


def write(path: str | PathLike[str], report: Report) -> None:
    """Write the report to `path`. Raises ValueError if the test metrics are missing or an image is not uint8 (h, w, 3)."""
    if "test" not in report.metrics:
        raise ValueError(f"A report needs metrics of the test split under 'test', got {sorted(report.metrics)}.")
    html.write(path, "report", report.name, report.detector, (
        _warnings_section(report.warnings), _summary_section(report), adaptation_section(report.adaptation),
        _metrics_section(report.metrics),
        verdicts_section(report.metrics["test"].get("verdicts")), _sources_section(report.metrics["test"]),
        learnt_section(report.learnt, report.shortcuts.get("all"), report.figures.get("stress")),
        robustness_section(report.robustness, report.figures.get("robustness")),
        html.figure_section("Figures", [(standard.caption(name) or name, figure) for name, figure in report.figures.items()
                                        if name not in ("stress", "robustness")]),
        _mistakes_section(report.mistakes), _detector_section(report), _data_section(report),
        _reproduction_section(report)))  # fmt: skip


def verdict(test: Mapping[str, Any]) -> str:
    """Return the conclusion of the report in one or two sentences, from the metrics of the test split."""
    auc, interval, counts = test["auc"], test["auc_interval"], test["confusion"]
    if auc is None and test["n"] and counts:
        kind, correct = ("real", counts["tn"]) if test["n_real"] else ("fake", counts["tp"])
        share = html.format_percent(100 * correct / test["n"])
        return (f"It calls {share} % of the {test['n']} {kind} test files {kind}. That alone says little: calling "
                f"every file {kind} would reach 100 %.")
    if auc is None:
        return "No verdict is possible: evaluating a detector takes both real and fake test files."
    ranking = f"Given a real file and a fake, it scores the fake higher in {html.format_percent(100 * auc)} of 100 cases"
    if interval is None:
        return f"{ranking}, but the test set has too few independent groups for a confidence interval."
    low, high = interval
    if low <= 0.5 <= high:
        return f"It may be no better than chance. {ranking}; guessing gets 50."
    if high < 0.5:
        return f"It ranks real files above fakes, worse than chance. {ranking}; guessing gets 50. Check which label means fake."
    return f"It tells fakes from real files better than chance. {ranking}; guessing gets 50."


def one_class_warning(real: int, fake: int) -> str:
    """Return a warning if the test set, of this many real and fake files, holds only one class; otherwise ""."""
    if not (real or fake) or (real and fake):
        return ""
    kind, share = ("real", "real files called real") if real else ("fake", "fakes found")
    return (f"The test set holds only {kind} files ({real + fake}): AUC is undefined, and accuracy is merely recall, the share "
            f"of {share}.")


def cautions(metrics: Mapping[str, Mapping[str, Any]], failures: int = 0,
             suspects: Sequence[tuple[str, float]] = (), origin: str = "") -> list[str]:  # fmt: skip
    """Return sentences on how far the test metrics can be trusted; arguments as the fields of `Report`, but a failure count."""
    test, validation = metrics["test"], metrics.get("validation")
    real, fake, interval = test["n_real"], test["n_fake"], test["auc_interval"]
    out = []
    if single := one_class_warning(real, fake):
        out.append(single)
    if (real + fake if single else min(real, fake)) < 50:
        out.append(f"The test set is tiny: {real} real and {fake} fake files. A single file more or less changes every metric.")
    if interval and interval[1] - interval[0] > 0.1:
        out.append(f"The 95 % interval of the AUC is wide, {interval[0]:.2f} to {interval[1]:.2f}; more test files narrow it.")
    if test["auc"] == 1 and interval:
        out.append("All test files are ranked correctly, so the interval has no width: the test may be too easy or too small.")
    if test["confusion"] is None and test["n"]:
        out.append("The scores are not calibrated, so there are no probabilities and no decisions; only their ranking counts.")
    if not validation or not validation["n"]:
        out += [] if origin else ["There are no validation files, so the epoch and the threshold were not chosen on independent "
                                  "data."]
    elif not (validation["n_real"] and validation["n_fake"]):
        only = "real" if validation["n_real"] else "fake"
        out.append(f"Validation holds only {only} files. The threshold keeps most of them on the correct side.")
    elif interval and validation["auc"] > interval[1]:
        out.append(f"AUC is {validation['auc']:.3f} on validation but {test['auc']:.3f} on the test set: the performance on "
                   "validation does not fully carry over.")  # fmt: skip
    weak = [f"'{name}'" if name else "(no name)" for name, row in test["by_source"].items()
            if row["recall"] is not None and row["recall"] < 0.5]  # fmt: skip
    if weak:
        out.append(f"It finds fewer than half of the fakes from source{'s' * (len(weak) > 1)} {', '.join(weak)}.")
    for name, auc in suspects[:1]:
        subject = "Simple file properties alone separate" if name.startswith("all") else (
            f"The {standard.property_name(name)} of a file alone separates")
        out.append(f"{subject} fake from real with AUC {auc:.3f}. The detector may have learned this shortcut instead of the "
                   "forgery; the audit of the data says how to fix it.")  # fmt: skip
    if failures:
        out.append(f"{plural(failures, 'file')} could not be read or scored: excluded from all metrics and listed below.")
    return out


def _summary_section(report: Report) -> str:
    test = report.metrics["test"]
    # The section on verdicts says it with an interval.
    base_rates = "" if test.get("verdicts") else _base_rate_note(test)
    tiles = html.tiles(_headline_tiles(test, report.shortcuts))
    caveats = html.bullet_list(cautions(report.metrics, len(report.failures), report.suspects, report.origin))
    lead = f"{seen.sentence(test)} {verdict(test)}".strip()
    known = escape(report.origin) or "All results are measured on files that were not used for training."
    caveats = f'<div class="careful"><h3>Caveats</h3>{caveats}</div>' if caveats else ""
    return (f'<section class="verdict"><h2>Summary</h2><p class="lead">{escape(lead)}</p>'
            f'{tiles}{base_rates}{caveats}'
            f'<p class="fine">{known} They hold for files like those '
            'in the test set; results on unseen generators and cameras may be worse.</p></section>')  # fmt: skip


def _headline_tiles(test: Mapping[str, Any], shortcuts: Mapping[str, float]) -> list[tuple[str, str, str]]:
    """Return (large text, label, small print) of the key figures at the top."""
    interval = describe_interval(test) or ("needs both classes" if test["auc"] is None else "no interval")
    tiles = [(html.format_cell(test["auc"]), "test AUC", interval)]
    if (other := test.get("unseen")) and test.get("seen"):
        tiles.append((html.format_cell(other["auc"]), "AUC on sources it never saw", seen.describe_interval(other, "auc")))
    if "all" in shortcuts:
        tiles.append((html.format_cell(shortcuts["all"]), "shortcut AUC", "from file size, format and colour alone"))
    counts = test["confusion"]
    if counts is None:
        return tiles
    correct, real, fake = counts["tn"] + counts["tp"], test["n_real"], test["n_fake"]
    majority = html.format_percent(100 * max(real, fake) / test["n"])
    tiles.append((f"{html.format_percent(100 * correct / test['n'])} %", "accuracy",
                  f"{correct} of {test['n']} correct; {majority} % by always guessing the larger class"))  # fmt: skip
    if real:
        share = html.format_percent(100 * counts["fp"] / real)
        tiles.append((f"{share} %", "false positive rate", f"{counts['fp']} of {real} real files called fake"))
    if fake:
        tiles.append((f"{html.format_percent(100 * counts['tp'] / fake)} %", "recall", f"{counts['tp']} of {fake} fakes found"))
    return tiles


def _base_rate_note(test: Mapping[str, Any]) -> str:
    """Return a paragraph on precision where fakes are rare, which the share of fakes in a test set hides."""
    counts = test["confusion"]
    if not counts or not (test["n_real"] and test["n_fake"]) or not counts["fp"] + counts["tp"]:
        return ""
    # No error in n files is compatible with rates up to 3 / n (95 % confidence, "rule of three", Hanley 1983).
    recall, false = counts["tp"] / test["n_fake"], (counts["fp"] or min(3, test["n_real"])) / test["n_real"]
    precision = html.format_percent(100 * recall / (recall + 99 * false))
    share = f"about {precision} %" if counts["fp"] else f"between {precision} % and 100 % (too few real files to be more precise)"
    return (f"<p>Files with a probability of at least {html.format_cell(test['threshold'])} are called fake. If only 1 % of all "
            f"files were fake, {share} of the files called fake would really be fake.</p>")  # fmt: skip


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
