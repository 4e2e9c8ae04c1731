"""How good a detector is, in numbers: small functions of labels (0 real, 1 fake), scores, and probabilities.

What is not defined, such as an AUC without fakes, is None, which JSON writes as null: never NaN, and never a number
that merely looks like a result. A new metric is one function, one line in `compute_metrics` and one in `REPORT_ROWS`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from tfdetect.evaluation.calibration import calibration_error
from tfdetect.evaluation.predictions import by_file, check

SOURCE_PREFIX = "is "  # with a source's name behind it: column of the probability that a fake is of that source

# What the report's table shows of a summary: (key, or keys with dots between, name, what it says).
REPORT_ROWS = (
    ("n", "count", "how many are judged"),
    ("n_real", "real", ""),
    ("n_fake", "fake", ""),
    ("n_groups", "groups", "people or originals; where none are given, single files"),
    ("auc", "AUC", "how often a fake outscores a real one; 0.5 is chance, 1 perfect"),
    ("auc_interval", "AUC, 95 % interval", "where it may lie, had other groups been drawn"),
    ("ap", "average precision", "area under precision and recall; the share of fakes is chance"),
    ("eer", "equal error rate", "where both kinds of mistake are equally frequent; 0 is perfect"),
    ("accuracy", "accuracy", "share that is decided right"),
    ("balanced_accuracy", "balanced accuracy", "the same, both classes counting alike"),
    ("per_class.fake.precision", "precision of fake", "share of the flagged that are fake"),
    ("per_class.fake.recall", "recall of fake", "share of the fakes that are flagged"),
    ("f1", "F1 of fake", "harmonic mean of these two"),
    ("per_class.real.precision", "precision of real", "share of the passed that are real"),
    ("per_class.real.recall", "recall of real", "share of the reals that pass"),
    ("per_class.real.f1", "F1 of real", "harmonic mean of these two"),
    ("log_loss", "log loss", "cost of the probabilities; 0.693 is what 50 % for all gets"),
    ("calibration_error", "calibration error", "mean gap between what is told and what is so; 0 is perfect"),
)


def summarise(predictions: pd.DataFrame, threshold: float | None) -> dict[str, Any]:
    """Every metric of one split, ready for JSON: per file at the top, then `by_frame` and `metrics_by_source`.

    `predictions` holds one split (ValueError for two: validation chooses, test judges, and their mean means nothing). A
    file is called fake where probability >= `threshold` (0..1); without probabilities or a threshold, all that needs a
    decision is None.
    """
    frames = check(predictions)
    if frames["split"].nunique() > 1:
        raise ValueError("The predictions hold validation and test files; summarise one split at a time.")
    if threshold is not None and not 0 <= threshold <= 1:
        raise ValueError(f"The threshold is a probability in 0..1, got {threshold}.")
    files = by_file(frames)
    top = compute_metrics(files, threshold)
    per_frame = dict(top) if len(files) == len(frames) else compute_metrics(frames, threshold)
    told = {"attribution": attribution_metrics(files)} if attributed_sources(files) else {}
    return {**top, "by_source": metrics_by_source(files, threshold), "by_frame": per_frame, **told}


def compute_metrics(rows: pd.DataFrame, threshold: float | None) -> dict[str, Any]:
    """The metrics of a checked table, each row counted once. The keys are the same whatever can be computed."""
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
    """The sources that a detector tells apart, by the columns of their probabilities."""
    return [name.removeprefix(SOURCE_PREFIX) for name in files if name.startswith(SOURCE_PREFIX)]


def attribution_metrics(files: pd.DataFrame) -> dict[str, Any]:
    """How well the sources of the fakes are told apart, whatever their verdict: {classes, n, accuracy, balanced_accuracy,
    confusion}. The confusion has a row for what a fake is and a column for what it is called; only fakes of a known source,
    the table's `source_class`, count."""
    from sklearn.metrics import confusion_matrix

    names = attributed_sources(files)
    known = files[(files["label"] == 1) & files["source_class"].isin(names)]
    called = known[[SOURCE_PREFIX + name for name in names]].to_numpy().argmax(axis=1)
    truth = known["source_class"].map({name: number for number, name in enumerate(names)}).to_numpy(int)
    counts = confusion_matrix(truth, called, labels=range(len(names))) if len(known) else np.zeros((len(names),) * 2, int)
    there = counts.sum(axis=1) > 0
    recalls = counts.diagonal()[there] / counts.sum(axis=1)[there]
    return {
        "classes": names,
        "n": len(known),
        "accuracy": float((truth == called).mean()) if len(known) else None,
        "balanced_accuracy": float(recalls.mean()) if len(known) else None,
        "confusion": counts.tolist(),
    }


def metrics_by_source(files: pd.DataFrame, threshold: float | None) -> dict[str, dict[str, Any]]:
    """For each source, its fakes against all the reals, and how often its own reals are falsely flagged.

    `files` is a checked table of one row a file. Every entry has the same keys; those of a class that the source lacks
    are None.
    """
    reals = files[files["label"] == 0]
    out = {}
    for name, rows in files.groupby("source"):
        fakes = rows[rows["label"] == 1]
        against = pd.concat([fakes, reals])
        measured = dict.fromkeys(("auc", "auc_interval", "ap", "eer"))
        if len(fakes) and len(reals):
            labels, scores = against["label"].to_numpy(), against["score"].to_numpy()
            measured = {"auc": auc(labels, scores), "auc_interval": auc_interval(labels, scores, against["group"]),
                        "ap": average_precision(labels, scores), "eer": equal_error_rate(labels, scores)}
        out[str(name)] = {
            "n_real": len(rows) - len(fakes),
            "n_fake": len(fakes),
            **measured,
            "recall": _share_flagged(fakes, threshold),
            "false_positive_rate": _share_flagged(rows[rows["label"] == 0], threshold),
        }
    return out


def _share_flagged(rows: pd.DataFrame, threshold: float | None) -> float | None:
    if threshold is None or "probability" not in rows or rows.empty:
        return None
    return float((rows["probability"] >= threshold).mean())


def _has_both_classes(labels: ArrayLike) -> bool:
    return len(np.unique(np.asarray(labels))) == 2


def auc(labels: ArrayLike, scores: ArrayLike) -> float | None:
    """Area under the ROC curve: how often a fake has the higher score of a random pair; ties count half."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels, scores)) if _has_both_classes(labels) else None


def average_precision(labels: ArrayLike, scores: ArrayLike) -> float | None:
    """Average precision of the fake class (scikit-learn's, without interpolation). It depends on the share of fakes."""
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(labels, scores)) if _has_both_classes(labels) else None


def equal_error_rate(labels: ArrayLike, scores: ArrayLike) -> float | None:
    """The rate at which as many reals are flagged as fakes are missed, by a straight line between the ROC's points."""
    from sklearn.metrics import roc_curve

    if not _has_both_classes(labels):
        return None
    false_positive, true_positive, _ = roc_curve(labels, scores)
    gap = false_positive - (1 - true_positive)  # never falls, from -1 to 1
    after = int(np.argmax(gap >= 0))
    before = after - 1
    way = -gap[before] / (gap[after] - gap[before])
    return float(false_positive[before] + way * (false_positive[after] - false_positive[before]))


def log_loss(labels: ArrayLike, probabilities: ArrayLike) -> float | None:
    """Mean cross-entropy in nats; 0.693 is what a constant 0.5 gets. None for no files."""
    from sklearn.metrics import log_loss as cross_entropy

    return float(cross_entropy(labels, probabilities, labels=[0, 1])) if np.size(labels) else None


def decision_metrics(labels: NDArray[Any], probabilities: NDArray[Any] | None, threshold: float | None) -> dict[str, Any]:
    """What follows from calling fake whatever has probability >= threshold.

    Keys: accuracy, balanced_accuracy, f1 (of the fake class), confusion {tn, fp, fn, tp} and per_class {real, fake},
    each with precision, recall and f1. A class without files has None for all three, and then no balanced accuracy
    either.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    names = ("precision", "recall", "f1")
    per_class: dict[str, dict[str, float | None]] = {kind: dict.fromkeys(names) for kind in ("real", "fake")}
    if probabilities is None or threshold is None or not len(labels):
        return {"accuracy": None, "balanced_accuracy": None, "f1": None, "confusion": None, "per_class": per_class}
    called = (probabilities >= threshold).astype(int)
    found = precision_recall_fscore_support(labels, called, labels=[0, 1], zero_division=np.nan)
    for index, values in enumerate(per_class.values()):
        if found[3][index]:
            values.update({name: _finite_or_none(found[k][index]) for k, name in enumerate(names)})
    counts = map(int, confusion_matrix(labels, called, labels=[0, 1]).ravel())
    recalls = [values["recall"] for values in per_class.values()]
    return {
        "accuracy": float((called == labels).mean()),
        "balanced_accuracy": _mean(recalls),
        "f1": per_class["fake"]["f1"],
        "confusion": dict(zip(("tn", "fp", "fn", "tp"), counts, strict=True)),
        "per_class": per_class,
    }


def _finite_or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def auc_interval(labels: ArrayLike, scores: ArrayLike, groups: ArrayLike | pd.Series, draws: int = 1000,
                 seed: int = 0, level: float = 0.95) -> list[float] | None:
    """Percentile bootstrap interval [low, high] of the AUC. Whole groups are drawn: files of one group stand together.

    `labels`, `scores` and `groups` are (rows,). None where a class has fewer than two groups: the draws could not
    vary. Draws that happen to lack a class are left out. B. Efron and R. Tibshirani, "An introduction to the
    bootstrap", 1993.
    """
    label, score, group = np.asarray(labels), np.asarray(scores), pd.factorize(np.asarray(groups))[0]
    if min(len(np.unique(group[label == kind])) for kind in (0, 1)) < 2:
        return None
    order = np.argsort(score, kind="stable")
    label, score, group = label[order], score[order], group[order]
    reals, fakes = score[label == 0], score[label == 1]
    below, up_to = np.searchsorted(reals, fakes, "left"), np.searchsorted(reals, fakes, "right")
    random, count = np.random.default_rng(seed), int(group.max()) + 1
    step = max(1, 1_000_000 // len(label))  # bounds the memory to some tens of MB
    found = []
    for first in range(0, draws, step):
        weights = _draw_weights(random, min(step, draws - first), count)
        found.append(_weighted_auc(weights[:, group[label == 0]], weights[:, group[label == 1]], below, up_to))
    low, high = np.nanquantile(np.concatenate(found), [(1 - level) / 2, (1 + level) / 2])
    return [float(low), float(high)]


def _draw_weights(random: np.random.Generator, draws: int, count: int) -> NDArray[np.float64]:
    """(draws, count): how often each of `count` groups comes when `count` are drawn with replacement."""
    drawn = random.integers(count, size=(draws, count)) + count * np.arange(draws)[:, None]
    return np.bincount(drawn.ravel(), minlength=draws * count).reshape(draws, count).astype(np.float64)


def _weighted_auc(reals: NDArray[np.float64], fakes: NDArray[np.float64], below: NDArray[np.intp],
                  up_to: NDArray[np.intp]) -> NDArray[np.float64]:
    """(draws,) AUCs under the weights (draws, reals) and (draws, fakes), both in order of score.

    `below` and `up_to` (fakes,) count the reals with a lower, and with no higher, score than each fake.
    """
    passed = np.zeros((len(reals), reals.shape[1] + 1))
    np.cumsum(reals, axis=1, out=passed[:, 1:])
    beaten = (passed[:, below] + passed[:, up_to]) / 2
    pairs = passed[:, -1] * fakes.sum(1)
    out = np.full(len(pairs), np.nan)
    np.divide((fakes * beaten).sum(1), pairs, out=out, where=pairs > 0)
    return out
