"""What the metrics of a test say in words, and how far they can be trusted."""

from collections.abc import Mapping, Sequence
from typing import Any

from tfdetect.evaluation.intervals import FEW_GROUPS
from tfdetect.files import plural
from tfdetect.pages import html
from tfdetect.plots import standard


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
    if has_few_groups(test):
        return f"{ranking}, but {plural(test['n_groups'], 'independent group')} cannot tell that from chance."
    low, high = interval
    if low <= 0.5 <= high:
        return f"It may be no better than chance. {ranking}; guessing gets 50."
    if high < 0.5:
        return f"It ranks real files above fakes, worse than chance. {ranking}; guessing gets 50. Check which label means fake."
    return f"It tells fakes from real files better than chance. {ranking}; guessing gets 50."


def has_few_groups(test: Mapping[str, Any]) -> bool:
    """Return whether the intervals of a summary rest on so few groups that they show nothing."""
    return bool(test.get("n_groups", FEW_GROUPS) < FEW_GROUPS)


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


def precision_where_rare(test: Mapping[str, Any]) -> float | None:
    """Return the share of the files called fake that are fake, 0..1, where 1 % of all files are; None if that is not known.

    Without a false positive it is a lower bound: no error in n files is compatible with rates up to 3 / n (95 % confidence,
    "rule of three", Hanley 1983).
    """
    counts = test["confusion"]
    if not counts or not (test["n_real"] and test["n_fake"]) or not counts["fp"] + counts["tp"]:
        return None
    recall, false = counts["tp"] / test["n_fake"], (counts["fp"] or min(3, test["n_real"])) / test["n_real"]
    return float(recall / (recall + 99 * false))
