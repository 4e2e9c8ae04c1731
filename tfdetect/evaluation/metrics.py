"""Metrics of a detector: functions of labels (0 real, 1 fake), scores and probabilities.

An undefined metric, such as an AUC without fakes, is None (null in JSON), never NaN or a placeholder number. To add a metric,
write a function, add one line to `compute_metrics` and one to `REPORT_ROWS`, and its value in all resamples to `intervals`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from tfdetect.evaluation import intervals
from tfdetect.evaluation.calibration import calibration_error
from tfdetect.evaluation.predictions import check, combine_frames

SOURCE_PREFIX = "is "  # followed by a source's name: the column with the probability that a fake comes from it

COUNTS = ("n", "n_real", "n_fake", "n_groups")  # rows of the report that are no figures
FEW = 20  # files of a class, below which a figure is marked

# Rows of the report's metric table: (dotted key of a summary, name, explanation).
REPORT_ROWS = (
    ("n", "count", "files (or frames) evaluated"),
    ("n_real", "count (real)", ""),
    ("n_fake", "count (fake)", ""),
    ("n_groups", "groups", "people or original videos; single files if no groups are given"),
    ("auc", "AUC", "probability that a fake scores higher than a real file; 0.5 is chance, 1 is perfect"),
    ("ap", "average precision", "area under the precision-recall curve; chance is the share of fakes"),
    ("eer", "EER", "equal error rate: false positive and false negative rate where the two are equal; 0 is perfect"),
    ("tpr_at_fpr_1e-2", "TPR at 1 % FPR", "share of fakes found when at most 1 % of the real files are called fake"),
    ("tpr_at_fpr_1e-3", "TPR at 0.1 % FPR", "the same at 0.1 %"),
    ("accuracy", "accuracy", "share of correct decisions"),
    ("balanced_accuracy", "balanced accuracy", "mean of the recalls of both classes"),
    ("per_class.fake.precision", "precision (fake)", "share of files called fake that are fake"),
    ("per_class.fake.recall", "recall (fake)", "share of fakes that are called fake"),
    ("f1", "F1 (fake)", "harmonic mean of precision and recall"),
    ("per_class.real.precision", "precision (real)", "share of files called real that are real"),
    ("per_class.real.recall", "recall (real)", "share of real files that are called real"),
    ("per_class.real.f1", "F1 (real)", "harmonic mean of precision and recall"),
    ("mcc", "MCC", "Matthews correlation of decisions and labels: 0 is chance, 1 is perfect"),
    ("log_loss", "log loss", "cross-entropy of the probabilities, clipped by 2e-16; 0.693 for a constant 50 %, 0 is perfect"),
    ("brier", "Brier score", "mean squared error of the probabilities; 0.25 for a constant 50 %, 0 is perfect"),
    ("calibration_error", "ECE", "expected calibration error: mean gap between predicted and observed frequency; 0 is perfect"),
)


def summarise(predictions: pd.DataFrame, threshold: float | None) -> dict[str, Any]:
    """Return all metrics of one split, ready for JSON: per file at the top level, then `by_source` and `by_frame`.

    A file is called fake if probability >= `threshold` (0..1). Without probabilities or a threshold, every metric of the
    decisions is None. Raises ValueError if the predictions hold more than one split or the threshold is outside 0..1,
    UserError if the table is invalid.
    """
    frames = check(predictions)
    if frames["split"].nunique() > 1:
        raise ValueError("The predictions hold validation and test files; summarise one split at a time.")
    if threshold is not None and not 0 <= threshold <= 1:
        raise ValueError(f"The threshold is a probability in 0..1, got {threshold}.")
    files = combine_frames(frames)
    per_file = compute_metrics(files, threshold, sample := intervals.TestSet.of(files, threshold))
    per_frame = {**(per_file if len(files) == len(frames) else compute_metrics(frames, threshold)),
                 "few_files": per_file["few_files"]}  # fmt: skip  # frames of few files are no more than these
    attribution = {"attribution": attribution_metrics(files)} if attributed_sources(files) else {}
    by_source, macro = compare_sources(files, sample)
    return {**per_file, "by_source": by_source, "macro_by_source": macro, "by_frame": per_frame, **attribution}


def compute_metrics(rows: pd.DataFrame, threshold: float | None, sample: intervals.TestSet | None = None) -> dict[str, Any]:
    """Return the metrics of a checked table, counting each row once. The keys do not depend on the data.

    `intervals` holds the 95 % interval of each figure, by its key of REPORT_ROWS; `few_files` the keys of those that rest on
    fewer than FEW files of a class; `not_measurable` the reason, in words, by key. `sample` are the same rows with resamples.
    """
    sample = sample or intervals.TestSet.of(rows, threshold)
    labels, scores, probabilities = sample.label, sample.score, sample.probability
    counts = [int((labels == kind).sum()) for kind in (0, 1)]
    found = {
        "n": len(rows),
        "n_real": counts[0],
        "n_fake": counts[1],
        "n_groups": int(rows["group"].nunique()),
        "threshold": threshold,
        **ranking_metrics(labels, scores),
        **decision_metrics(labels, probabilities, threshold),
        "log_loss": None if probabilities is None else log_loss(labels, probabilities),
        "brier": None if probabilities is None else brier_score(labels, probabilities),
        "calibration_error": None if probabilities is None else calibration_error(labels, probabilities),
    }
    return {**found, **add_intervals(found, sample), "not_measurable": why_not_measurable(counts)}


def add_intervals(found: Mapping[str, Any], sample: intervals.TestSet) -> dict[str, Any]:
    """Return `auc_interval`, `intervals` and `few_files` of the figures of a test set."""
    drawn = sample.draw() if sample.resamples.can_vary(sample.label) else {}
    values = {key: lookup(found, key) for key, *_ in REPORT_ROWS if key not in COUNTS}
    ends = intervals.to_intervals(drawn, values, sample.resamples.groups)
    counts = {"real": found["n_real"], "fake": found["n_fake"]}
    return {"auc_interval": ends["auc"], "intervals": ends, "few_files": few_files(values, counts)}


def few_files(values: Mapping[str, float | None], counts: Mapping[str, int]) -> list[str]:
    """Return the keys of the figures that rest on fewer than FEW files of a class; `counts` are files by class."""
    few = {kind for kind, count in counts.items() if 0 < count < FEW}
    of_one = {f"per_class.{kind}.recall": {kind} for kind in counts} | {"recall": {"fake"}, "false_positive_rate": {"real"}}
    return [key for key, value in values.items() if value is not None and few & of_one.get(key, {*counts})]


def why_not_measurable(counts: Sequence[int]) -> dict[str, str]:
    """Return why a true positive rate has no value, by key, for these numbers of reals and fakes."""
    least = {name: intervals.minimum_reals(rate) for name, rate in intervals.FALSE_POSITIVE_RATES.items()}
    return {name: f"not measurable: needs {count:,} real files, got {counts[0]:,}" for name, count in least.items()
            if counts[0] < count and counts[1]}  # fmt: skip


def ranking_metrics(labels: NDArray[Any], scores: NDArray[Any]) -> dict[str, float | None]:
    """Return the figures of the ranking: AUC, average precision, EER, and true positive rates at low false positive rates.

    Those of the ROC curve share one, since sorting 10 million rows takes seconds.
    """
    from sklearn.metrics import auc as area
    from sklearn.metrics import roc_curve

    if not _has_both_classes(labels):
        return dict.fromkeys(intervals.RANKING)
    false_positive, true_positive, _ = roc_curve(labels, scores)
    return {"auc": float(area(false_positive, true_positive)), "ap": average_precision(labels, scores),
            "eer": _crossing(false_positive, true_positive),
            **_true_positive_rates(false_positive, true_positive, int((labels == 0).sum()))}  # fmt: skip


def attributed_sources(files: pd.DataFrame) -> list[str]:
    """Return the sources among which a detector attributes fakes, read from the names of the probability columns."""
    return [name.removeprefix(SOURCE_PREFIX) for name in files if name.startswith(SOURCE_PREFIX)]


def attribution_metrics(files: pd.DataFrame) -> dict[str, Any]:
    """Return how well fakes are attributed to their sources: {classes, n, accuracy, balanced_accuracy, confusion}.

    Rows of the confusion matrix are true sources, columns predicted ones. Only fakes whose `source_class` is known are counted,
    whether or not they were called fake.
    """
    from sklearn.metrics import confusion_matrix, recall_score

    names = attributed_sources(files)
    known = files[(files["label"] == 1) & files["source_class"].isin(names)]
    predicted = known[[SOURCE_PREFIX + name for name in names]].to_numpy().argmax(axis=1)
    truth = known["source_class"].map({name: number for number, name in enumerate(names)}).to_numpy(int)
    counts = confusion_matrix(truth, predicted, labels=range(len(names))) if len(known) else np.zeros((len(names),) * 2, int)
    recall = recall_score(truth, predicted, labels=np.unique(truth), average="macro") if len(known) else None
    return {
        "classes": names,
        "n": len(known),
        "accuracy": float((truth == predicted).mean()) if len(known) else None,
        "balanced_accuracy": None if recall is None else float(recall),
        "confusion": counts.tolist(),
    }


def metrics_by_source(files: pd.DataFrame, threshold: float | None) -> dict[str, dict[str, Any]]:
    """Return, for each source, the metrics of its fakes against all real files and the false positive rate of its real files.

    `files` is a checked table with one row per file. All entries have the same keys; metrics of a class that the source lacks
    are None.
    """
    return compare_sources(files, intervals.TestSet.of(files, threshold))[0]


def compare_sources(files: pd.DataFrame, sample: intervals.TestSet) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Return the metrics of each source as `metrics_by_source` does, and their means over the sources with fakes.

    All sources have the same resamples. The means are {n_sources, auc, ap, eer, ..., intervals}, all None without such sources.
    """
    out, drawn_by_source = {}, []
    for name, rows in files.reset_index(drop=True).groupby("source").indices.items():
        fakes, own_reals = rows[sample.label[rows] == 1], rows[sample.label[rows] == 0]
        out[str(name)], drawn = against_reals(sample, fakes, own_reals)
        drawn_by_source += [(out[str(name)], drawn)] if len(fakes) else []
    return out, _mean_over_sources(drawn_by_source, sample.resamples.groups)


def against_reals(sample: intervals.TestSet, fakes: NDArray[Any],
                  own_reals: NDArray[Any]) -> tuple[dict[str, Any], Mapping[str, NDArray[Any]]]:  # fmt: skip
    """Return the metrics of some fakes against all reals, the share of some reals called fake, and the values in all resamples.

    Both arguments are numbers of rows of a test set with one row per file.
    """
    reals = np.flatnonzero(sample.label == 0)
    against = np.concatenate([fakes, reals if len(fakes) else own_reals])
    values = ranking_metrics(sample.label[against], sample.score[against])
    values |= {"recall": _share_flagged(sample, fakes), "false_positive_rate": _share_flagged(sample, own_reals)}
    drawn = sample.draw_source(fakes, own_reals)
    drawn = drawn if sample.resamples.can_vary(sample.label, against) else {}
    ends = intervals.to_intervals(drawn, values, sample.resamples.groups)
    counts = {"real": len(reals) if len(fakes) else len(own_reals), "fake": len(fakes)}
    return {"n_real": len(own_reals), "n_fake": len(fakes), **values, "auc_interval": ends["auc"], "intervals": ends,
            "few_files": few_files(values, counts)}, drawn  # fmt: skip


def _mean_over_sources(found: Sequence[tuple[Mapping[str, float | None], Mapping[str, NDArray[Any]]]],
                       groups: int) -> dict[str, Any]:  # fmt: skip
    """Return the means over sources of (values, values in all resamples), with intervals if all sources have some.

    A source that is missing from a resample is left out of its mean.
    """
    keys = (*intervals.RANKING, "recall")
    values = {key: _mean([value[key] for value, _ in found]) if found else None for key in keys}
    drawn = {}
    for key in keys if all(draws for _, draws in found) else ():
        of_sources = np.array([draws[key] for _, draws in found if key in draws])
        if len(of_sources):
            drawn[key] = intervals.divide(np.nansum(of_sources, axis=0), np.isfinite(of_sources).sum(0))
    return {"n_sources": len(found), **values, "intervals": intervals.to_intervals(drawn, values, groups)}


def lookup(values: Mapping[str, Any], key: str) -> Any:
    """Return the value of a summary under a dotted key of REPORT_ROWS."""
    for part in key.split("."):
        values = values[part]
    return values


def describe_interval(summary: Mapping[str, Any]) -> str:
    """Return "95 % interval 0.900 to 0.950" for a summary whose AUC has an interval, else ""."""
    low, high = summary["auc_interval"] or (None, None)
    return "" if low is None else f"95 % interval {low:.3f} to {high:.3f}"


def _share_flagged(sample: intervals.TestSet, rows: NDArray[Any]) -> float | None:
    if sample.threshold is None or sample.probability is None or not len(rows):
        return None
    return float((sample.probability[rows] >= sample.threshold).mean())


def _has_both_classes(labels: ArrayLike) -> bool:
    return len(np.unique(np.asarray(labels))) == 2


def auc(labels: ArrayLike, scores: ArrayLike) -> float | None:
    """Return the area under the ROC curve: the probability that a fake scores higher than a real file, ties counting half."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels, scores)) if _has_both_classes(labels) else None


def average_precision(labels: ArrayLike, scores: ArrayLike) -> float | None:
    """Return the average precision of the fake class, without interpolation. It depends on the share of fakes."""
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(labels, scores)) if _has_both_classes(labels) else None


def equal_error_rate(labels: ArrayLike, scores: ArrayLike) -> float | None:
    """Return the error rate where false positive and false negative rate are equal, interpolated linearly on the ROC curve."""
    from sklearn.metrics import roc_curve

    if not _has_both_classes(labels):
        return None
    false_positive, true_positive, _ = roc_curve(labels, scores)
    return _crossing(false_positive, true_positive)


def _crossing(false_positive: NDArray[Any], true_positive: NDArray[Any]) -> float:
    """Return the EER of a ROC curve, both arrays (points,)."""
    return float(intervals.crossing(false_positive[None], 1 - true_positive[None])[0])


def _true_positive_rates(false_positive: NDArray[Any], true_positive: NDArray[Any], reals: int) -> dict[str, float | None]:
    """Return the highest true positive rates of a ROC curve at false positive rates of at most 1 % and 0.1 %.

    At a rate x, that takes 3 / x real files, so that three may be called fake; with fewer, it is None.
    """
    return {name: float(true_positive[false_positive <= rate].max()) if reals >= intervals.minimum_reals(rate) else None
            for name, rate in intervals.FALSE_POSITIVE_RATES.items()}  # fmt: skip


def log_loss(labels: ArrayLike, probabilities: ArrayLike) -> float | None:
    """Return the mean cross-entropy in nats, 0.693 for a constant 0.5, or None for no files."""
    from sklearn.metrics import log_loss as cross_entropy

    return float(cross_entropy(labels, probabilities, labels=[0, 1])) if np.size(labels) else None


def brier_score(labels: ArrayLike, probabilities: ArrayLike) -> float | None:
    """Return the mean squared difference of probability and label, 0..1, or None for no files."""
    from sklearn.metrics import brier_score_loss

    return float(brier_score_loss(labels, probabilities, labels=[0, 1])) if np.size(labels) else None


def decision_metrics(labels: NDArray[Any], probabilities: NDArray[Any] | None, threshold: float | None) -> dict[str, Any]:
    """Return the metrics of the decisions, where a file is called fake if probability >= threshold.

    Keys: accuracy, balanced_accuracy, f1 (of the fake class), mcc, confusion {tn, fp, fn, tp}, per_class {real, fake}, each with
    precision, recall and f1, and macro, the means over both classes. For a class without files all three are None, and so are
    the balanced accuracy, MCC and the means. The definitions are those of `intervals.decision_figures`.
    """
    names, kinds, single = ("precision", "recall", "f1"), ("real", "fake"), ("accuracy", "balanced_accuracy", "f1", "mcc")
    if probabilities is None or threshold is None or not len(labels):
        undefined: dict[str, Any] = dict.fromkeys((*single, "confusion"))
        return {**undefined, "per_class": {kind: dict.fromkeys(names) for kind in kinds}, "macro": dict.fromkeys(names)}
    counts = np.bincount(2 * labels + (probabilities >= threshold), minlength=4)
    figures = {key: _finite_or_none(value[0]) for key, value in intervals.decision_figures(counts[None]).items()}
    per_class = {kind: {name: figures[f"per_class.{kind}.{name}"] for name in names} for kind in kinds}
    return {
        **{name: figures[name] for name in single},
        "confusion": dict(zip(("tn", "fp", "fn", "tp"), counts.tolist(), strict=True)),
        "per_class": per_class,
        "macro": {name: _mean([values[name] for values in per_class.values()]) for name in names},
    }


def _finite_or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def auc_interval(labels: ArrayLike, scores: ArrayLike, groups: ArrayLike | pd.Series,
                 draws: int = intervals.DRAWS) -> list[float] | None:  # fmt: skip
    """Return the 95 % percentile bootstrap interval [low, high] of the AUC, resampling whole groups of related files.

    `labels`, `scores` and `groups` are (rows,). Returns None if a class has fewer than two groups, because resamples could not
    vary, or is missing. Resamples that lack a class are ignored.
    """
    label, score = np.asarray(labels), np.asarray(scores)
    sample = intervals.TestSet(label, score, None, None, intervals.Resamples(groups, draws))
    value = auc(label, score)
    if value is None or not sample.resamples.can_vary(label):
        return None
    return intervals.to_intervals({"auc": sample.draw_auc()}, {"auc": value}, sample.resamples.groups)["auc"]
