"""Metrics of a detector: functions of labels (0 real, 1 fake), scores and probabilities.

An undefined metric, such as an AUC without fakes, is None (null in JSON), never NaN or a placeholder number. To add a metric,
write a function and add one line to `compute_metrics` and one to `REPORT_ROWS`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from tfdetect.evaluation.calibration import calibration_error
from tfdetect.evaluation.predictions import by_file, check

SOURCE_PREFIX = "is "  # followed by a source's name: the column with the probability that a fake comes from it

# Rows of the report's metric table: (dotted key of a summary, name, explanation).
REPORT_ROWS = (
    ("n", "count", "files (or frames) evaluated"),
    ("n_real", "count (real)", ""),
    ("n_fake", "count (fake)", ""),
    ("n_groups", "groups", "people or original videos; single files if no groups are given"),
    ("auc", "AUC", "probability that a fake scores higher than a real file; 0.5 is chance, 1 is perfect"),
    ("auc_interval", "AUC, 95 % interval", "range expected with other test files (bootstrap over groups)"),
    ("ap", "average precision", "area under the precision-recall curve; chance is the share of fakes"),
    ("eer", "EER", "equal error rate: false positive and false negative rate where the two are equal; 0 is perfect"),
    ("accuracy", "accuracy", "share of correct decisions"),
    ("balanced_accuracy", "balanced accuracy", "mean of the recalls of both classes"),
    ("per_class.fake.precision", "precision (fake)", "share of files called fake that are fake"),
    ("per_class.fake.recall", "recall (fake)", "share of fakes that are called fake"),
    ("f1", "F1 (fake)", "harmonic mean of precision and recall"),
    ("per_class.real.precision", "precision (real)", "share of files called real that are real"),
    ("per_class.real.recall", "recall (real)", "share of real files that are called real"),
    ("per_class.real.f1", "F1 (real)", "harmonic mean of precision and recall"),
    ("log_loss", "log loss", "cross-entropy of the probabilities; 0.693 for a constant 50 %, 0 is perfect"),
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
    files = by_file(frames)
    per_file = compute_metrics(files, threshold)
    per_frame = dict(per_file) if len(files) == len(frames) else compute_metrics(frames, threshold)
    attribution = {"attribution": attribution_metrics(files)} if attributed_sources(files) else {}
    return {**per_file, "by_source": metrics_by_source(files, threshold), "by_frame": per_frame, **attribution}


def compute_metrics(rows: pd.DataFrame, threshold: float | None) -> dict[str, Any]:
    """Return the metrics of a checked table, counting each row once. The keys do not depend on the data."""
    labels, scores = rows["label"].to_numpy(), rows["score"].to_numpy()
    probabilities = rows["probability"].to_numpy() if "probability" in rows else None
    return {
        "n": len(rows),
        "n_real": int((labels == 0).sum()),
        "n_fake": int((labels == 1).sum()),
        "n_groups": int(rows["group"].nunique()),
        "threshold": threshold,
        "auc": auc(labels, scores),
        "auc_interval": auc_interval(labels, scores, rows["group"]),
        "ap": average_precision(labels, scores),
        "eer": equal_error_rate(labels, scores),
        **decision_metrics(labels, probabilities, threshold),
        "log_loss": None if probabilities is None else log_loss(labels, probabilities),
        "calibration_error": None if probabilities is None else calibration_error(labels, probabilities),
    }


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
    reals = files[files["label"] == 0]
    out = {}
    for name, rows in files.groupby("source"):
        fakes = rows[rows["label"] == 1]
        against = pd.concat([fakes, reals])
        ranking = dict.fromkeys(("auc", "auc_interval", "ap", "eer"))
        if len(fakes) and len(reals):
            labels, scores = against["label"].to_numpy(), against["score"].to_numpy()
            ranking = {"auc": auc(labels, scores), "auc_interval": auc_interval(labels, scores, against["group"]),
                       "ap": average_precision(labels, scores), "eer": equal_error_rate(labels, scores)}  # fmt: skip
        out[str(name)] = {
            "n_real": len(rows) - len(fakes),
            "n_fake": len(fakes),
            **ranking,
            "recall": _share_flagged(fakes, threshold),
            "false_positive_rate": _share_flagged(rows[rows["label"] == 0], threshold),
        }
    return out


def describe_interval(summary: Mapping[str, Any]) -> str:
    """Return "95 % interval 0.900 to 0.950" for a summary whose AUC has an interval, else ""."""
    low, high = summary["auc_interval"] or (None, None)
    return "" if low is None else f"95 % interval {low:.3f} to {high:.3f}"


def _share_flagged(rows: pd.DataFrame, threshold: float | None) -> float | None:
    if threshold is None or "probability" not in rows or rows.empty:
        return None
    return float((rows["probability"] >= threshold).mean())


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
    gap = false_positive - (1 - true_positive)  # increases monotonically from -1 to 1
    after = int(np.argmax(gap >= 0))
    before = after - 1
    weight = -gap[before] / (gap[after] - gap[before])
    return float(false_positive[before] + weight * (false_positive[after] - false_positive[before]))


def log_loss(labels: ArrayLike, probabilities: ArrayLike) -> float | None:
    """Return the mean cross-entropy in nats, 0.693 for a constant 0.5, or None for no files."""
    from sklearn.metrics import log_loss as cross_entropy

    return float(cross_entropy(labels, probabilities, labels=[0, 1])) if np.size(labels) else None


def decision_metrics(labels: NDArray[Any], probabilities: NDArray[Any] | None, threshold: float | None) -> dict[str, Any]:
    """Return the metrics of the decisions, where a file is called fake if probability >= threshold.

    Keys: accuracy, balanced_accuracy, f1 (of the fake class), confusion {tn, fp, fn, tp}, per_class {real, fake}, each with
    precision, recall and f1, and macro, the means over both classes. For a class without files all three are None, and so are
    the balanced accuracy and the means.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    names = ("precision", "recall", "f1")
    per_class: dict[str, dict[str, float | None]] = {kind: dict.fromkeys(names) for kind in ("real", "fake")}
    if probabilities is None or threshold is None or not len(labels):
        undefined = dict.fromkeys(("accuracy", "balanced_accuracy", "f1", "confusion"))
        return {**undefined, "per_class": per_class, "macro": dict.fromkeys(names)}
    decisions = (probabilities >= threshold).astype(int)
    scores = precision_recall_fscore_support(labels, decisions, labels=[0, 1], zero_division=np.nan)
    for index, values in enumerate(per_class.values()):
        if scores[3][index]:
            values.update({name: _finite_or_none(scores[k][index]) for k, name in enumerate(names)})
    counts = map(int, confusion_matrix(labels, decisions, labels=[0, 1]).ravel())
    macro = {name: _mean([values[name] for values in per_class.values()]) for name in names}
    return {
        "accuracy": float((decisions == labels).mean()),
        "balanced_accuracy": macro["recall"],
        "f1": per_class["fake"]["f1"],
        "confusion": dict(zip(("tn", "fp", "fn", "tp"), counts, strict=True)),
        "per_class": per_class,
        "macro": macro,
    }


def _finite_or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def auc_interval(labels: ArrayLike, scores: ArrayLike, groups: ArrayLike | pd.Series, draws: int = 1000,
                 seed: int = 0, level: float = 0.95) -> list[float] | None:  # fmt: skip
    """Return the percentile bootstrap interval [low, high] of the AUC, resampling whole groups of related files.

    `labels`, `scores` and `groups` are (rows,). Returns None if a class has fewer than two groups, because resamples could not
    vary. Resamples that lack a class are ignored. Source: B. Efron and R. Tibshirani, "An introduction to the bootstrap", 1993.
    `scipy.stats.bootstrap` knows no groups, and calls of `roc_auc_score` take over 50 times as long (benchmarks/libraries.py).
    """
    label, score, group = np.asarray(labels), np.asarray(scores), pd.factorize(np.asarray(groups))[0]
    if min(len(np.unique(group[label == kind])) for kind in (0, 1)) < 2:
        return None
    order = np.argsort(score, kind="stable")
    label, score, group = label[order], score[order], group[order]
    reals, fakes = score[label == 0], score[label == 1]
    below, up_to = np.searchsorted(reals, fakes, "left"), np.searchsorted(reals, fakes, "right")
    random, count = np.random.default_rng(seed), int(group.max()) + 1
    step = max(1, 1_000_000 // len(label))  # limits memory to some tens of MB
    aucs = []
    for start in range(0, draws, step):
        weights = _draw_weights(random, min(step, draws - start), count)
        aucs.append(_weighted_auc(weights[:, group[label == 0]], weights[:, group[label == 1]], below, up_to))
    low, high = np.nanquantile(np.concatenate(aucs), [(1 - level) / 2, (1 + level) / 2])
    return [float(low), float(high)]


def _draw_weights(random: np.random.Generator, draws: int, count: int) -> NDArray[np.float64]:
    """Return (draws, count): how often each of `count` groups occurs in a resample of `count` groups with replacement."""
    drawn = random.integers(count, size=(draws, count)) + count * np.arange(draws)[:, None]
    return np.bincount(drawn.ravel(), minlength=draws * count).reshape(draws, count).astype(np.float64)


def _weighted_auc(reals: NDArray[np.float64], fakes: NDArray[np.float64], below: NDArray[np.intp],
                  up_to: NDArray[np.intp]) -> NDArray[np.float64]:  # fmt: skip
    """Return the AUC of each resample, (draws,), from the weights (draws, reals) and (draws, fakes) in order of score.

    `below` and `up_to` (fakes,) count the real files that score lower than each fake, and lower or equal.
    """
    cumulative = np.zeros((len(reals), reals.shape[1] + 1))
    np.cumsum(reals, axis=1, out=cumulative[:, 1:])
    beaten = (cumulative[:, below] + cumulative[:, up_to]) / 2
    pairs = cumulative[:, -1] * fakes.sum(1)
    out = np.full(len(pairs), np.nan)
    np.divide((fakes * beaten).sum(1), pairs, out=out, where=pairs > 0)
    return out
