"""The report's section on verdicts: how often they are right or inconclusive, and what "fake" means where fakes are rare."""

from collections.abc import Mapping
from typing import Any

from tfdetect import installation
from tfdetect.pages import html

MANY = 3  # times the level of unfamiliar files that call for other training data


def verdicts_section(found: Mapping[str, Any] | None) -> str:
    """Return the section, from `evaluation.verdicts.verdict_metrics` of the test split; "" for None."""
    if not found:
        return ""
    header = ["class", "files", "called right", "inconclusive", "called wrong", "not called wrong (95 % interval)"]
    rows = [[name, row["n"], *(_percent(row[key]) for key in ("right", "inconclusive", "wrong")),
             f"{_percent(row['coverage'])}{_interval(row['coverage_interval'])}"]
            for name, row in found["by_class"].items() if row["n"]]  # fmt: skip
    return (f"<section><h2>Verdicts</h2><p>{_band(found)}</p>{html.table(header, rows)}<p>Called fake from a "
            f"probability of {html.format_cell(found['threshold'])}. {precision_sentence(found)}</p>"
            f"<p>{_method(found)}</p>{_unfamiliar(found.get('unfamiliar'))}</section>")  # fmt: skip


def _band(found: Mapping[str, Any]) -> str:
    if found["level"] is None:
        return "Every file is called real or fake: no band of inconclusive scores was asked for, or validation has too few files."
    error = _percent(1 - found["level"])
    share = f"{_percent(found['inconclusive'])}{_interval(found['inconclusive_interval'])}"
    return (f"A file is inconclusive if its score is common among validation files of both classes, so that of either class at "
            f"most {error} are called the other. This holds for files like those of validation; the last column checks it on the "
            f"test set. Of all test files, {share} are inconclusive.")  # fmt: skip


def precision_sentence(found: Mapping[str, Any]) -> str:
    """Return in words what the verdict fake means where few files are fake; "" if the test set lacks a class."""
    if found["precision_interval"] is None:
        return ""
    where = f"Where {100 * found['prevalence']:.3g} % of the files are fake"
    if found["precision"] is None:
        return f"{where}, nothing can be said about files called fake: no test file is."
    share = f"{_percent(found['precision'])}{_interval(found['precision_interval'])}"
    return f"{where}, {share} of the files called fake are fake."


def unfamiliar_sentence(found: Mapping[str, Any]) -> str:
    """Return how many test files are unlike the training data, from `unfamiliar_metrics`."""
    if not found["level"] or not found["n"]:
        return "No test file is marked as unlike the training data."
    parts = (f"{_percent(found[name])} by {word}" for name, word in (("content", "content"), ("processing", "processing")))
    return (f"Unlike the training data are {_percent(found['share'])}{_interval(found['interval'])} of the test files, "
            f"{' and '.join(parts)}.")  # fmt: skip


def _unfamiliar(found: Mapping[str, Any] | None) -> str:
    """Return what is unlike the training data, and what to do about it; "" where that is not known."""
    if not found:
        return ""
    header = ["class", "source", "files", "unlike training (95 % interval)", "other content", "other processing"]
    rows = [[row["label"], row["source"] or "not given", row["n"], f"{_percent(row['share'])}{_interval(row['interval'])}",
             *(_percent(row[name]) for name in ("content", "processing"))] for row in found["sources"]]  # fmt: skip
    return (f"<h3>Files unlike the training data</h3><p>{unfamiliar_sentence(found)} Of files like those of validation "
            f"({found['groups']} groups), at most {_percent(found['level'])} are marked. They count as inconclusive, except with "
            "<code>--any</code>. Other content is what the network did not see in training; other processing is another "
            f"sharpness, noise, compression or change over time. {_advice() if are_many(found) else ''}</p>"
            f"{html.table(header, rows)}")  # fmt: skip


def are_many(found: Mapping[str, Any]) -> bool:
    """Return whether so many test files are unlike the training data that it needs others, from `unfamiliar_metrics`."""
    return 0 < MANY * (found["level"] or 0) < (found["share"] or 0)


def _advice() -> str:
    """Return what to do if many files are unlike the training data."""
    command = html.escape(installation.command("calibrate", "RUN", "--data.path", "FILES"))
    return ("So many are unlike them that this detector's scores say little about files like these. If it is to judge such "
            f"files, fit its verdicts to 50 to 200 of them with <code>{command}</code>, or train it with some.")  # fmt: skip


def _method(found: Mapping[str, Any]) -> str:
    losses = found["method_losses"]
    if not losses:
        return f"Scores became probabilities by the method {found['method']}, fitted to validation files."
    listed = ", ".join(f"{name} {loss:.4f}" for name, loss in losses.items())
    return (f"Scores became probabilities by the method {found['method']}: the simplest whose log loss, cross-validated on "
            f"validation files, is within one standard error of the lowest ({listed}).")  # fmt: skip


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{html.format_percent(100 * share)} %"


def _interval(interval: list[float] | None) -> str:
    if interval is None:
        return ""
    low, high = (html.format_percent(100 * value) for value in interval)
    return f" ({low} to {high} %)"
