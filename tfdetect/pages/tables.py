"""The tables and sentences that the report has in HTML and in Markdown: a header and rows of plain values."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from tfdetect.evaluation.metrics import FEW, REPORT_ROWS, lookup
from tfdetect.pages.content import Report

MAX_ROWS = 50  # failures and notes listed; all are counted

TRUST = "Trust a heat-map only if hiding its hottest tenth lowers the score more than hiding the same shape elsewhere."
LEAKS = "What would make the test easier than it seems: files that training and test have in common, or that resemble each other."
Table = tuple[Sequence[str], list[list[Any]]]  # header and rows, whose cells are text, numbers, intervals or None

INTERVALS = (
    "The 95 % intervals are the range expected with other test files: percentiles of resamples of whole groups of related files. "
    f"* marks figures that rest on fewer than {FEW} files of a class. An interval without width is no certainty: no mistake in n "
    "files is compatible with a rate of mistakes of up to 3 / n.")  # fmt: skip
SOURCES = (
    "On the test set. AUC, average precision and EER compare the fakes of a source with all real files. Recall is the share of "
    "its fakes that are found; the false positive rate is the share of its own real files that are called fake.")  # fmt: skip


def metrics_table(metrics: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return the metrics of validation and test per file, with intervals, and per frame if there are several per file."""
    splits = [split for split in ("validation", "test") if split in metrics]
    columns = [(f"{split}, per file", metrics[split]) for split in splits]
    if any(metrics[split]["by_frame"]["n"] != metrics[split]["n"] for split in splits):
        columns += [(f"{split}, per frame", metrics[split]["by_frame"]) for split in splits]
    header = ["metric", *(name for title, _ in columns for name in (title, "95 % interval")), "meaning"]
    return header, [[name, *(cell for _, values in columns for cell in _with_interval(values, key)), meaning]
                    for key, name, meaning in REPORT_ROWS]  # fmt: skip


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


def confusion_sentence(test: Mapping[str, Any]) -> str:
    """Return the test confusion matrix in words, and which class is positive: other works count real as positive."""
    if not (counts := test["confusion"]):
        return ""
    return (f"Of {test['n_real']} real test files, {counts['tn']} are called real and {counts['fp']} fake; of "
            f"{test['n_fake']} fake test files, {counts['tp']} are called fake and {counts['fn']} real. Fake is the positive "
            "class of AUC and average precision; precision, recall and F1 are given for both classes.")  # fmt: skip


def sources_table(test: Mapping[str, Any]) -> Table:
    """Return the metrics of each source, and their means over those with fakes."""
    keys, rows = ("auc", "ap", "eer", "recall", "false_positive_rate"), []
    known = [None] if any(row.get("in_training") is not None for row in test["by_source"].values()) else []
    for name, row in test["by_source"].items():
        cells = [cell for key in keys for cell in _with_interval(row, key)]
        trained = {True: "yes", False: "never seen"}.get(row.get("in_training"))
        rows.append([name or "(no name)", *([trained] if known else []), row["n_real"], row["n_fake"], *cells])
    if rows and (macro := test.get("macro_by_source", {})).get("n_sources", 0) > 1:
        cells = [cell for key in keys[:-1] for cell in _with_interval(macro, key)]
        rows.append([f"mean over {macro['n_sources']} sources of fakes", *known, None, None, *cells, None, None])
    return ["source", *(["trained on"] if known else []), "real", "fake",
            *(text for name in ("AUC", "average precision", "EER", "recall", "false positive rate")
              for text in (name, "95 % interval"))], rows  # fmt: skip


def data_table(files: pd.DataFrame) -> Table:
    """Return the numbers of files and groups by split, class and source."""
    grouped = files.fillna({"source": ""}).groupby(["split", "label", "source"])
    counts = grouped.agg(files=("group", "size"), groups=("group", "nunique")).reset_index()
    counts["label"] = counts["label"].map({0: "real", 1: "fake"})
    order = {"train": 0, "validation": 1, "test": 2}
    counts = counts.sort_values("split", key=lambda column: column.map(order).fillna(3), kind="stable")
    return [*counts.columns], [[*row] for row in counts.itertuples(index=False)]


def flatten(values: Mapping[str, Any], prefix: str = "") -> list[list[Any]]:
    """Return nested settings as rows such as ["train.epochs", "20"]."""
    out: list[list[Any]] = []
    for key, value in values.items():
        nested = isinstance(value, Mapping) and value
        out += flatten(value, f"{prefix}{key}.") if nested else [[f"{prefix}{key}", str(value)]]
    return out


def seeds_sentence(settings: Mapping[str, Any]) -> str:
    """Return the random seeds among nested settings, in a sentence; "" without any."""
    seeds = [f"{key} {value}" for key, value in flatten(settings) if key.rpartition(".")[2] == "seed"]
    return f"Random seed: {', '.join(seeds)}." if seeds else ""


def reproduction_tables(report: Report) -> list[tuple[str, Mapping[str, Any], str]]:
    """Return (title, nested values, what their names are) of the tables on how the run was made."""
    software, machine = ("Software", report.versions, "package"), ("Machine", report.machine, "part")
    return [("Settings", report.settings, "setting"), software, machine]
