"""The report of a run: one HTML file that opens anywhere, prints well and needs no network, script or other file.

It says first, in plain words, how good the detector is and what to be careful about; the tables for the expert follow.
All text from outside, file names above all, is escaped, and the page's own policy forbids it to load or run anything.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from os import PathLike
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tfdetect.evaluation import plots
from tfdetect.evaluation.metrics import ROWS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 50  # failures and notes that are listed; all are counted
PICTURES = 8  # of each kind of mistake
PICTURE_SIDE = 160  # pixels


@dataclass(frozen=True)
class Report:
    """What the page tells. Only the name and the metrics must be there; a section without content is left out."""

    name: str  # of the run
    metrics: Mapping[str, Mapping[str, Any]]  # {"validation": ..., "test": ...}, each from `metrics.summary`
    detector: str = ""  # its name and what it is, in a line
    warnings: Sequence[str] = ()  # sentences that must not be missed, such as a backbone without its pretrained weights
    figures: Mapping[str, Figure] = field(default_factory=dict)  # from `plots.standard` and `plots.history`, in order
    # (path, label 0/1, source, probability 0..1, uint8 picture (height, width, 3) RGB); see `predictions.most_wrong`
    most_wrong: Sequence[tuple[str, int, str, float, NDArray[np.uint8]]] = ()
    data: pd.DataFrame | None = None  # a row a file of all splits: split, label 0/1, source, group
    failures: Sequence[tuple[str, str]] = ()  # (path, reason) of the files that could not be read or scored
    notes: Sequence[tuple[str, str]] = ()  # (path, what is odd) of files that were used all the same: damaged, repeated
    extra_figures: Mapping[str, Figure] = field(default_factory=dict)  # the detector's own, by title
    extra_tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)  # the detector's own, by title
    command: str = ""  # that repeats the run, exactly
    settings: Mapping[str, Any] = field(default_factory=dict)  # nested as in config.yaml
    versions: Mapping[str, str] = field(default_factory=dict)  # of the software, by name


def write(path: str | PathLike[str], report: Report) -> None:
    """Write the page to `path`. ValueError where the test's summary is missing or a picture is not uint8 (h, w, 3)."""
    if "test" not in report.metrics:
        raise ValueError(f"A report needs the test's summary under 'test', got {sorted(report.metrics)}.")
    body = "\n".join(filter(None, (
        _warnings(report.warnings), _verdict(report), _numbers(report.metrics), _sources(report.metrics["test"]),
        _figures("Figures", [(plots.caption(name) or name, figure) for name, figure in report.figures.items()]),
        _mistakes(report.most_wrong), _own(report), _data(report), _repeat(report))))
    page = PAGE.substitute(name=escape(report.name), detector=escape(report.detector), style=STYLE, body=body)
    # A file name that is no valid UTF-8 holds surrogates, which have no encoding: they are shown as \udc...
    Path(path).write_text(page, encoding="utf-8", errors="backslashreplace")


def verdict(test: Mapping[str, Any]) -> str:
    """The one sentence that a reader takes home, from the test's summary."""
    auc, interval = test["auc"], test["auc_interval"]
    if auc is None:
        return "Nothing can be said: it takes real and fake files in the test to judge a detector."
    chance = f"Given a real file and a fake, it scores the fake higher in {_count(100 * auc)} of 100 cases"
    if interval is None:
        return f"{chance}, but the test holds too few independent groups to say how far that carries."
    low, high = interval
    if low <= 0.5 <= high:
        return f"That it is no better than chance cannot be ruled out. {chance}; guessing gets 50."
    if high < 0.5:
        return f"It ranks the files the wrong way round. {chance}; guessing gets 50. Check which label means fake."
    return f"It tells fakes from real files better than chance. {chance}; guessing gets 50."


def cautions(metrics: Mapping[str, Mapping[str, Any]], failures: int = 0) -> list[str]:
    """Sentences on how far the test's numbers can be trusted; `failures` is how many files were not scored."""
    test, validation = metrics["test"], metrics.get("validation")
    real, fake, interval = test["n_real"], test["n_fake"], test["auc_interval"]
    out = []
    if min(real, fake) < 50:
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
        out.append(f"Validation holds {only} files only. The threshold keeps 95 % of them on the right side, and the "
                   "probabilities are no more than an order.")
    elif interval and validation["auc"] > interval[1]:
        out.append(f"AUC {validation['auc']:.3f} on validation, {test['auc']:.3f} on the test: not all carries over.")
    weak = [name or "(no name)" for name, row in test["by_source"].items()
            if row["recall"] is not None and row["recall"] < 0.5]
    if weak:
        out.append(f"It finds fewer than half of the fakes from {', '.join(weak)}.")
    if failures:
        out.append(f"{failures} file(s) could not be read or scored. They are in none of the numbers; a list is below.")
    return out


def _verdict(report: Report) -> str:
    test = report.metrics["test"]
    tiles = "".join(f'<div class="tile"><b>{big}</b><span>{what}</span><small>{small}</small></div>'
                    for big, what, small in _tiles(test))
    careful = _list(cautions(report.metrics, len(report.failures)))
    careful = f'<div class="careful"><h3>Be careful</h3>{careful}</div>' if careful else ""
    return (f'<section class="verdict"><h2>In short</h2><p class="lead">{escape(verdict(test))}</p>'
            f'<div class="tiles">{tiles}</div>{_base_rate(test)}{careful}'
            '<p class="fine">All of this is measured on files that took no part in training, and holds for files like '
            'those of the test. Generators and cameras that it has not seen can do worse.</p></section>')


def _tiles(test: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(large, what it is, small print) of the four numbers at the top."""
    low, high = test["auc_interval"] or (None, None)
    interval = "no interval" if low is None else f"95 % interval {low:.3f} to {high:.3f}"
    tiles = [(_cell(test["auc"]), "test AUC", interval)]
    counts = test["confusion"]
    if counts is None:
        return tiles
    right, real, fake = counts["tn"] + counts["tp"], test["n_real"], test["n_fake"]
    often = max(real, fake) / test["n"]
    tiles.append((f"{_count(100 * right / test['n'])} %", "decided right",
                  f"{right} of {test['n']}; always naming the larger class gets {_count(100 * often)} %"))
    if real:
        share = _count(100 * counts["fp"] / real)
        tiles.append((f"{share} of 100", "real files falsely flagged", f"{counts['fp']} of {real}"))
    if fake:
        tiles.append((f"{_count(100 * counts['tp'] / fake)} of 100", "fakes found", f"{counts['tp']} of {fake}"))
    return tiles


def _base_rate(test: Mapping[str, Any]) -> str:
    """What a flag is worth where fakes are rare; the share of fakes in a test set hides that."""
    counts = test["confusion"]
    if not counts or not (test["n_real"] and test["n_fake"]) or not counts["fp"] + counts["tp"]:
        return ""
    # None of n proves no rate of zero: up to 3 / n is compatible with it (95 %, "rule of three", Hanley 1983).
    found, false = counts["tp"] / test["n_fake"], (counts["fp"] or min(3, test["n_real"])) / test["n_real"]
    worth = _count(100 * found / (found + 99 * false))
    share = f"about {worth}" if counts["fp"] else f"anything from {worth} to 100 (too few reals to say more)"
    return (f"<p>A file is called fake from a probability of {_cell(test['threshold'])} on. Where only one file in a "
            f"hundred is fake, {share} of 100 flagged files would really be fake.</p>")


def _numbers(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """The metric table: validation and test side by side, per file, and per frame where that is something else."""
    splits = [split for split in ("validation", "test") if split in metrics]
    columns = [(f"{split}, per file", metrics[split]) for split in splits]
    if any(metrics[split]["by_frame"]["n"] != metrics[split]["n"] for split in splits):
        columns += [(f"{split}, per frame", metrics[split]["by_frame"]) for split in splits]
    header = ["", *(title for title, _ in columns), "what it says"]
    rows = [[name, *(_dig(values, key) for _, values in columns), what] for key, name, what in ROWS]
    return f'<section class="numbers"><h2>All numbers</h2>{_table(header, rows)}</section>'


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
            f"reals of each source are falsely flagged.</p>{_table(header, rows)}</section>")


def _figures(title: str, figures: Iterable[tuple[str, Figure]]) -> str:
    """Figures with their captions, two abreast; one that is much wider than high gets the whole width."""
    shown = "".join(
        f'<figure{" class=wide" if figure.get_figwidth() > 1.6 * figure.get_figheight() else ""}>'
        f'<img alt="{escape(caption)}" src="{_png(figure)}"><figcaption>{escape(caption)}</figcaption></figure>'
        for caption, figure in figures)
    return f'<section><h2>{title}</h2><div class="figures">{shown}</div></section>' if shown else ""


def _mistakes(files: Sequence[tuple[str, int, str, float, NDArray[np.uint8]]]) -> str:
    """The pictures of falsely flagged reals and of missed fakes, the most wrong first."""
    out = ""
    for label, title in ((0, "Real, but called fake"), (1, "Fake, but called real")):
        wrong = sorted((file for file in files if file[1] == label), key=lambda file: -abs(file[3] - label))
        shown = "".join(
            f'<figure><img alt="" src="{_thumbnail(picture)}"><figcaption><b>{probability:.1%}</b> fake, '
            f"{escape(source)}<br><code>{escape(path)}</code></figcaption></figure>"
            for path, _, source, probability, picture in wrong[:PICTURES])
        out += f'<h3>{title}</h3><div class="pictures">{shown}</div>' if shown else ""
    hint = "<p>Shown smaller than they are, the most wrong first.</p>"
    return f"<section><h2>The most wrong files</h2>{hint}{out}</section>" if out else ""


def _own(report: Report) -> str:
    """The detector's own figures and tables."""
    tables = "".join(f"<h3>{escape(title)}</h3>{_table(table.columns, table.itertuples(index=False))}"
                     for title, table in report.extra_tables.items())
    tables = f"<section><h2>Tables of this detector</h2>{tables}</section>" if tables else ""
    return _figures("Figures of this detector", report.extra_figures.items()) + tables


def _data(report: Report) -> str:
    out = ""
    if report.data is not None:
        grouped = report.data.fillna({"source": ""}).groupby(["split", "label", "source"])
        counts = grouped.agg(files=("group", "size"), groups=("group", "nunique")).reset_index()
        counts["label"] = counts["label"].map({0: "real", 1: "fake"})
        order = {"train": 0, "validation": 1, "test": 2}
        counts = counts.sort_values("split", key=lambda column: column.map(order).fillna(3), kind="stable")
        out += _table(counts.columns, counts.itertuples(index=False))
    for title, rows in (("Could not be read or scored", report.failures), ("Used, but worth a look", report.notes)):
        if rows:
            shown = f", the first {SHOWN} of them here" if len(rows) > SHOWN else ""
            cells = _table(["file", "reason"], rows[:SHOWN])
            out += f"<h3>{title}</h3><p>{len(rows)} file(s){shown}.</p>{cells}"
    return f"<section><h2>The data</h2>{out}</section>" if out else ""


def _repeat(report: Report) -> str:
    out = f"<p>The command that repeats this run:</p><pre>{escape(report.command)}</pre>" if report.command else ""
    for title, values, what in (("Settings", report.settings, "setting"), ("Software", report.versions, "package")):
        out += f"<h3>{title}</h3>{_table([what, 'value'], _flat(values))}" if values else ""
    return f"<section><h2>To repeat it</h2>{out}</section>" if out else ""


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as ("train.epochs", "20")."""
    out: list[tuple[str, str]] = []
    for key, value in values.items():
        nested = isinstance(value, Mapping) and value
        out += _flat(value, f"{prefix}{key}.") if nested else [(f"{prefix}{key}", str(value))]
    return out


def _warnings(sentences: Sequence[str]) -> str:
    return f'<section class="warning" role="alert"><h2>Warning</h2>{_list(sentences)}</section>' if sentences else ""


def _list(sentences: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(text)}</li>" for text in sentences) + "</ul>" if sentences else ""


def _table(header: Iterable[Any], rows: Iterable[Iterable[Any]]) -> str:
    """Rows of cells -> a table that scrolls sideways on a narrow screen; numbers do not wrap."""
    head = "".join(f"<th>{escape(str(name))}</th>" for name in header)
    cells = (((" class=n" * (not isinstance(value, str)), _cell(value)) for value in row) for row in rows)
    body = "".join(f"<tr>{''.join(f'<td{kind}>{text}</td>' for kind, text in row)}</tr>" for row in cells)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(value: Any) -> str:
    """A value as escaped text: a dash for what is not defined, three digits behind the point."""
    if isinstance(value, (list, tuple)):
        return " to ".join(_cell(part) for part in value)
    if value is None or (isinstance(value, (float, np.floating)) and not np.isfinite(value)):
        return "&ndash;"
    return escape(f"{value:.3f}" if isinstance(value, (float, np.floating)) else str(value))


def _count(value: float) -> str:
    """A percentage with one digit behind the point, unless that is a nought; 0 and 100 only where they are exact."""
    if 0 < value < 0.05 or 99.95 <= value < 100:
        return "under 0.1" if value < 50 else "over 99.9"
    return f"{value:.1f}".removesuffix(".0")


def _png(figure: Figure) -> str:
    """As a data URI. In pixels, as curves of a million points would make a drawing of many MB."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=160, facecolor="white")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _thumbnail(picture: NDArray[np.uint8]) -> str:
    """uint8 (height, width, 3) -> a JPEG to look at, as a data URI, at most PICTURE_SIDE pixels either way."""
    from PIL import Image

    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(f"A picture is uint8 (height, width, 3), got {picture.dtype} {picture.shape}.")
    buffer, image = io.BytesIO(), Image.fromarray(picture)
    image.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    image.save(buffer, format="JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


PAGE = Template("""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$name: tfdetect report</title><style>$style</style></head>
<body><header><p>tfdetect report</p><h1>$name</h1><p>$detector</p></header>
$body
</body></html>
""")

STYLE = """
body{font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;color:#1f2933;background:#fff;
 max-width:70rem;margin:0 auto;padding:1.5rem 1rem 4rem}
header p{margin:0;color:#5b6672} h1{margin:0;font-size:2rem;overflow-wrap:anywhere}
section{margin:2.5rem 0} h2{font-size:1.35rem;margin:0 0 .6rem} h3{font-size:1.05rem;margin:1.5rem 0 .4rem}
.verdict,.warning{border-radius:10px;padding:1.2rem 1.4rem;margin:1.5rem 0}
.verdict{background:#f3f6f9;border:1px solid #d9e0e7}
.warning{background:#fff4e5;border:2px solid #D55E00} .warning h2{color:#9a3f00}
.lead{font-size:1.2rem;margin:.2rem 0 1rem} .fine{color:#5b6672;font-size:.9rem;margin-bottom:0}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(11rem,1fr));gap:.8rem;margin:1rem 0}
.tile{background:#fff;border:1px solid #d9e0e7;border-radius:8px;padding:.8rem 1rem}
.tile b{display:block;font-size:1.7rem;line-height:1.2} .tile span,.tile small{display:block} .tile small{color:#5b6672}
.careful{border-left:4px solid #D55E00;padding:.1rem 0 .1rem 1rem;margin:1rem 0} .careful h3{margin:0}
ul{margin:.3rem 0;padding-left:1.2rem}
.scroll{overflow-x:auto} table{border-collapse:collapse;font-size:.92rem;font-variant-numeric:tabular-nums}
th,td{text-align:left;vertical-align:top;padding:.32rem 1.1rem .32rem 0;border-bottom:1px solid #e4e7eb}
th{font-weight:600;border-bottom:2px solid #c5ced8;vertical-align:bottom}
td.n,.numbers td:first-child{white-space:nowrap} .numbers td:last-child{min-width:15rem}
td:not(.n){min-width:5.5rem}
td,code{overflow-wrap:anywhere;unicode-bidi:isolate} code,pre{font:.85em ui-monospace,"DejaVu Sans Mono",monospace}
pre{background:#f3f6f9;border:1px solid #d9e0e7;border-radius:8px;padding:.8rem 1rem}
pre{white-space:pre-wrap;overflow-wrap:anywhere}
.figures{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,22rem),1fr));gap:1.5rem 2rem}
figure{margin:0;break-inside:avoid} figure img{width:100%;height:auto} .wide{grid-column:1/-1;max-width:58rem}
figcaption{font-size:.9rem;color:#46525e}
.pictures{display:grid;grid-template-columns:repeat(auto-fill,minmax(9.5rem,1fr));gap:1rem}
@media print{body{max-width:none;font-size:11pt;padding:0} section.verdict,tr{break-inside:avoid}
 .scroll{overflow:visible} h2,h3,h2+p{break-after:avoid} *{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
"""
