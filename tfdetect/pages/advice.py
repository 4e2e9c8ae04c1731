"""The report's verdict in one line, what a detector is not fit for, and what to do next: from the content of a report alone."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any

from tfdetect import installation
from tfdetect.evaluation.seen import list_sources
from tfdetect.pages import html
from tfdetect.pages.conclusion import has_few_groups, precision_where_rare
from tfdetect.pages.content import Report
from tfdetect.pages.verdicts import are_many
from tfdetect.plots import standard

FEW_FILES, WIDE = 50, 0.1  # test files of a class, width of the AUC's interval: beyond these, more files are advised

Shortcut = tuple[str, float]  # a key of shortcuts.json and its AUC


class Standing(StrEnum):
    """What a test shows. Each but the last is a reason not to rely on the detector; the first that holds counts."""

    UNMEASURED = "not measured: the test lacks files of a class"
    TOO_SMALL = "the test is too small to tell it from chance"
    REVERSED = "worse than chance"
    CHANCE = "not shown to be better than chance"
    SHORTCUT = "not shown to be better than file properties that are no evidence of a forgery"
    SEEN_ONLY = "better than chance on fakes of known sources, not shown to be on those of others"
    BETTER = "better than chance"


def strongest_shortcut(report: Report) -> Shortcut | None:
    """Return the file property, or all of them together, that separates best; None if none was measured.

    A single one counts only if it is significant: the best of many reaches more than 0.5 by chance.
    """
    found = [*report.suspects, *([("all", report.shortcuts["all"])] if "all" in report.shortcuts else [])]
    return max(found, key=lambda pair: pair[1], default=None)


def standing(test: Mapping[str, Any], shortcut: Shortcut | None) -> Standing:
    """Return what the metrics of the test split show, beside the AUC of the strongest shortcut."""
    if test["auc"] is None:
        return Standing.UNMEASURED
    if test["auc_interval"] is None or has_few_groups(test):
        return Standing.TOO_SMALL
    low, high = test["auc_interval"]
    if low <= 0.5:
        return Standing.REVERSED if high < 0.5 else Standing.CHANCE
    if shortcut and shortcut[1] >= low:
        return Standing.SHORTCUT
    unseen = test.get("unseen")
    if unseen and not (unseen["auc_interval"] and unseen["auc_interval"][0] > 0.5):
        return Standing.SEEN_ONLY
    return Standing.BETTER


def grade(report: Report) -> str:
    """Return the verdict of the report in one line."""
    test, shortcut = report.metrics["test"], strongest_shortcut(report)
    found = standing(test, shortcut)
    text = found.value[0].upper() + found.value[1:]
    if found is not Standing.BETTER:
        return f"{text}."
    text += " and than file properties" if shortcut and not _overlap(test, shortcut) else ""
    if test.get("unseen"):
        return f"{text}, also on fakes of sources it never saw."
    return f"{text}, on fakes of sources it knows; others were not measured." if only_seen(test) else f"{text}."


def shows_skill(report: Report) -> bool:
    """Return whether the test shows it to be better than chance and file properties, at least on fakes of known sources."""
    return standing(report.metrics["test"], strongest_shortcut(report)) in (Standing.SEEN_ONLY, Standing.BETTER)


def only_seen(test: Mapping[str, Any]) -> bool:
    """Return whether training or validation had the sources of all fakes of the test."""
    return bool(test.get("seen")) and not test.get("unseen") and not test.get("unknown")


def against_shortcuts(test: Mapping[str, Any], shortcut: Shortcut | None) -> str:
    """Return how the detector compares with what file properties alone reach; "" if that was not measured."""
    if shortcut is None or test["auc"] is None:
        return ""
    name, auc = shortcut
    alone = "File size, format and colour alone reach" if name.startswith("all") else (
        f"The {standard.property_name(name)} of a file alone reaches")  # fmt: skip
    interval = test.get("shortcut_intervals", {}).get(name)
    figure, own = _with_interval(auc, interval), _with_interval(test["auc"], test["auc_interval"])
    if test["auc_interval"] is None or has_few_groups(test):
        return f"{alone} an AUC of {figure}."
    low, high = test["auc_interval"]
    if auc > high:
        return f"{alone} more: an AUC of {figure} against its {own}."
    if auc >= low:
        return f"{alone} an AUC of {figure}, within the interval of its own {own}."
    unsure = ". The intervals overlap, so the difference may be due to the choice of test files" * _overlap(test, shortcut)
    return f"{alone} less: an AUC of {figure} against its {own}{unsure}."


def _overlap(test: Mapping[str, Any], shortcut: Shortcut) -> bool:
    """Return whether the interval of a shortcut reaches up to the detector's; False if it has none."""
    interval = test.get("shortcut_intervals", {}).get(shortcut[0])
    return bool(interval and interval[1] >= test["auc_interval"][0])


def _with_interval(auc: float, interval: Sequence[float] | None) -> str:
    """Return an AUC with its 95 % interval in brackets, if it has one."""
    return f"{auc:.3f} ({interval[0]:.3f} to {interval[1]:.3f})" if interval else f"{auc:.3f}"


def unfit_uses(report: Report) -> list[str]:
    """Return what the detector is not fit for, each to be read after "Do not use it"."""
    return [*_unfit(report.metrics["test"], standing(report.metrics["test"], strongest_shortcut(report)))]


def _unfit(test: Mapping[str, Any], found: Standing) -> Iterator[str]:
    if found is Standing.UNMEASURED:
        missing = "fake" if test["n_real"] else "real"
        mistakes = "whether it finds fakes" if test["n_real"] else "how often it calls real files fake"
        yield f"for any decision: the test had no {missing} files, so it is not known {mistakes}."
    elif found in (Standing.TOO_SMALL, Standing.REVERSED, Standing.CHANCE):
        yield "for any decision: this test does not show that it tells fakes from real files."
    elif found is Standing.SHORTCUT:
        yield ("on files that were all saved the same way, such as those from a social network: it may go by how files were "
               "saved, which tells nothing there.")  # fmt: skip
    if found is Standing.SEEN_ONLY:
        yield f"on fakes of {list_sources(test['unseen']['named']) or 'sources it never saw'}, or of others that it never saw."
    elif only_seen(test):
        named = list_sources(test["seen"]["named"])
        yield f"on fakes of other sources than it was tested on{f' ({named})' if named else ''}: how it does there is not known."
    precision, prevalence = _precision(test)
    if precision is not None and precision < 0.5 and found in (Standing.SEEN_ONLY, Standing.BETTER):
        yield (f"to accuse anyone where few files are fake: where {100 * prevalence:.3g} % are, "
               f"{html.format_percent(100 * (1 - precision))} % of those that it calls fake are real.")  # fmt: skip
    if unfamiliar := _unfamiliar(test):
        yield (f"on files like these without fitting it to them: {html.format_percent(100 * unfamiliar['share'])} % are unlike "
               "its training data.")  # fmt: skip


def _precision(test: Mapping[str, Any]) -> tuple[float | None, float]:
    """Return the share of files called fake that are fake, None if no real file was called fake, and the share of fakes."""
    verdicts = test.get("verdicts")
    if verdicts and verdicts["precision"] is not None:
        return verdicts["precision"], verdicts["prevalence"]
    counted = test["confusion"] and test["confusion"]["fp"]
    return precision_where_rare(test) if counted else None, 0.01


def _unfamiliar(test: Mapping[str, Any]) -> Mapping[str, Any] | None:
    found: Mapping[str, Any] | None = (test.get("verdicts") or {}).get("unfamiliar")
    return found if found and are_many(found) else None


def next_steps(report: Report) -> list[str]:
    """Return what would make the detector, or what is known of it, better; commands stand in backticks."""
    test = report.metrics["test"]
    found = standing(test, strongest_shortcut(report))
    trained_here = () if report.origin else _training_steps(report, found)
    return [*_data_steps(test, found), *trained_here, *_test_steps(report, found)]


def _data_steps(test: Mapping[str, Any], found: Standing) -> Iterator[str]:
    if found is Standing.UNMEASURED:
        yield f"Test it on {'fake' if test['n_real'] else 'real'} files as well."
    if found is Standing.REVERSED:
        yield "Check the labels: 1, or the folder `fake`, must mean fake."


def _training_steps(report: Report, found: Standing) -> Iterator[str]:
    detector, path = (_setting(report.settings, *keys) for keys in (("detector", "name"), ("data", "path")))
    if report.epochs and report.epochs[0] == report.epochs[1]:
        yield (f"Train longer: the last of {report.epochs[1]} epochs was the best. Repeat the command of the training with "
               f"`--resume --train.epochs {2 * report.epochs[1]}`.")  # fmt: skip
    if report.suspects or found is Standing.SHORTCUT:
        command = installation.command("prepare", path or "DATA", "--out", "ALIKE", "--equalise")
        yield f"Give both classes the same size and encoding, then train and test on those files: `{command}`."
    if found in (Standing.CHANCE, Standing.REVERSED) and detector != "clip":
        command = installation.command("train", "clip", *(["--data.path", path] if path else []))
        yield f"Try another detector, such as one on the features of a pretrained network: `{command}`."
    if found is Standing.SEEN_ONLY:
        yield "Train it on fakes of more generators or manipulations."
    if _unfamiliar(report.metrics["test"]):
        command = installation.command("calibrate", "RUN", "--data.path", "FILES")
        yield f"Fit its verdicts to 50 to 200 files of the kind that it is to judge: `{command}`."


def _test_steps(report: Report, found: Standing) -> Iterator[str]:
    test = report.metrics["test"]
    ends = test["auc_interval"]
    if found is not Standing.UNMEASURED and (
            min(test["n_real"], test["n_fake"]) < FEW_FILES or ends is None or ends[1] - ends[0] > WIDE):  # fmt: skip
        yield (f"Test it on more people, videos or scenes than these {test['n_groups']}: an interval gets half as wide with "
               "four times as many.")  # fmt: skip
    if only_seen(test) and not report.origin:
        named = test["seen"]["named"]
        how = (f"train it without one of its sources, `--data.hold_out {shlex.quote(named[-1])}`" if len(named) > 1
               else "`evaluate` it on those of another generator")  # fmt: skip
        yield f"Find out how it does on fakes of sources that it never saw: {how}."


def _setting(settings: Mapping[str, Any], *keys: str) -> str:
    """Return a setting as text, "" where it is missing or None, as in the settings of several runs."""
    value: Any = settings
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return "" if value is None else str(value)
