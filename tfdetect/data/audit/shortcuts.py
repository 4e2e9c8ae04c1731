"""Measure shortcuts: how well cheap file properties alone separate real from fake.

A detector learns the easiest difference between the classes, so shortcuts should be found before training. For each
property of `properties.py` a small classifier predicts the label of files that it was not fitted on. Each warning comes
with advice on how to remove the shortcut.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from tfdetect.data.audit.properties import CATEGORICAL, CONTAINER, CONTENT
from tfdetect.evaluation import intervals
from tfdetect.machine import threads_for

PROPERTIES = (*CONTAINER, *CONTENT)
COMBINATIONS = {"all_container": CONTAINER, "all": PROPERTIES}
WARNING_AUC, SEVERE_AUC = 0.65, 0.9
MIN_STANDARD_ERRORS = 2.8  # above chance, for a warning; of 20 random properties, one exceeds this in one of twenty data sets
MAX_FILES = 20_000  # per classifier; more files do not change the second decimal of the AUC
MAX_CATEGORIES = 20  # most frequent values of a categorical property

Folds = list[tuple[np.ndarray, np.ndarray]]  # row indices for fitting, and held-out ones

ADVICE = {
    "extension": "Give all files the same format: prepare --equalise.",
    "container": "Encode both classes in one format, with the same program and settings: prepare --equalise.",
    "codec": "Encode both classes with the same codec and settings: prepare --equalise.",
    "width": "Crop both classes to one size; do not resize one of them: prepare --equalise.",
    "height": "Crop both classes to one size; do not resize one of them: prepare --equalise.",
    "aspect": "Crop both classes to one shape: prepare --equalise.",
    "bytes": "Crop to one size and encode with the same settings: prepare --equalise. Any remaining difference comes from the "
             "content.",
    "bytes_per_pixel": "Encode both classes with the same settings: prepare --equalise. Any remaining difference comes from the "
                       "content.",
    "jpeg_quality": "Re-encode both classes with one quality: prepare --equalise. Traces of the first compression remain in the "
                    "pixels; files that were compressed alike from the start are better.",
    "subsampling": "Re-encode both classes with one chroma subsampling: prepare --equalise.",
    "fps": "Use one frame rate for both classes, from the start if possible: the rate determines how far things move per frame.",
    "frames": "Cut both classes to one length: prepare --equalise.",
    "duration": "Cut both classes to one length: prepare --equalise.",
    "bit_rate": "Encode both classes with the same settings from the start: prepare --equalise leaves videos that were "
                "compressed more, and so are smoother, with smaller files.",
    "exif": "Strip the metadata of both classes: prepare --equalise.",
    "mean_colour": "The classes differ in colour. Check whether they show the same things under the same light; if not, collect "
                   "reals and fakes of the same content.",
    "thumbnail": "An 8 x 8 thumbnail separates the classes: they show different things, or frame the same things differently. "
                 "Match the content; the test AUC of a detector should be well above this one.",
    "border": "The outer two pixels separate the classes. Look for bars, frames or padding, and crop them off both classes.",
    "all_container": "Together, the container properties predict the label. Fix those above, then run the audit again.",
    "all": "Together, cheap properties predict the label. The test AUC of a detector only counts if it is well above this one.",
}  # fmt: skip


@dataclass(frozen=True)
class ShortcutWarning:
    """A property that predicts the label."""

    kind: str  # "container", or "content" if what the files show may be the cause
    property: str
    auc: float
    advice: str


@dataclass(frozen=True)
class Shortcuts:
    """How well each property predicts the label, and warnings about those that predict it too well."""

    aucs: dict[str, float]
    warnings: list[ShortcutWarning]  # highest AUC first
    intervals: dict[str, list[float]] = field(default_factory=dict)  # of the AUCs of the best property, and of all together


@dataclass(frozen=True)
class Separation:
    """How well something separates fake from real on held-out files."""

    auc: float
    parts: Folds = field(default_factory=list)
    """(rows, scores) of held-out files. Scores of different parts are not comparable: the AUC is the mean over the parts."""

    def interval(self, labels: np.ndarray, groups: np.ndarray) -> list[float] | None:
        """Return the 95 % interval of the AUC, [low, high], by resampling groups of the held-out files; None if it has none.

        Like that of a detector, it is for the same training files; `labels` and `groups` (files,) are those of all files.
        """
        if not self.parts:
            return None
        held_out = np.unique(np.concatenate([rows for rows, _ in self.parts]))
        resamples = intervals.Resamples(groups[held_out])
        if not resamples.can_vary(labels[held_out]):
            return None
        drawn = np.ma.masked_invalid([_draw_auc(np.searchsorted(held_out, rows), scores, labels[rows], resamples)
                                      for rows, scores in self.parts])  # fmt: skip
        means = np.ma.filled(np.ma.average(drawn, axis=0, weights=[len(rows) for rows, _ in self.parts]), np.nan)
        return intervals.to_intervals({"auc": means}, {"auc": self.auc}, resamples.groups)["auc"]


def find_shortcuts(table: pd.DataFrame, properties: pd.DataFrame, folds: Folds | None = None) -> Shortcuts:
    """Return the shortcuts of the manifest's files, whose properties are given row for row, cross-validated unless `folds`
    are given."""
    label, group = table["label"].to_numpy(), table["group"].to_numpy()
    folds = grouped_folds(label, group) if folds is None else folds
    tested = np.unique(np.concatenate([test for _, test in folds])) if folds else slice(0)
    found = separations(properties, label, folds)
    aucs = {name: one.auc for name, one in found.items()}
    best = dict.fromkeys([*sorted(found.keys() - {"all"}, key=lambda name: (-aucs[name], name))[:1], *({"all"} & found.keys())])
    ends = {name: found[name].interval(label, group) for name in best}
    return Shortcuts(aucs, find_warnings(aucs, label[tested], group[tested]),
                     {name: interval for name, interval in ends.items() if interval})  # fmt: skip


def separations(properties: pd.DataFrame, label: Sequence[int], folds: Folds) -> dict[str, Separation]:
    """Return how well each of PROPERTIES and COMBINATIONS separates fake (1) from real (0) on held-out files.

    `properties` are those of `properties.collect`, without failures. Properties that no file has are omitted. Returns an
    empty dict if `folds` is empty.
    """
    labels = np.asarray(label)
    matrices = {name: to_matrix(properties[name], name) for name in PROPERTIES}
    matrices = {name: matrix for name, matrix in matrices.items() if np.isfinite(matrix).any()}
    for name, parts in COMBINATIONS.items():
        available = [matrices[part] for part in parts if part in matrices]
        if available:
            matrices[name] = np.concatenate(available, axis=1)
    return {name: separate(matrix, labels, folds) for name, matrix in matrices.items()} if folds else {}


def to_matrix(column: pd.Series, name: str) -> np.ndarray:
    """Return a property as numbers (files, values): categories one-hot, arrays as rows."""
    if name in CATEGORICAL:
        common = column.value_counts().index[:MAX_CATEGORIES]
        return pd.get_dummies(column.where(column.isin(common))).to_numpy(float)
    if name in CONTENT:
        return np.stack(column.to_list()).astype(float)
    return column.to_numpy(float)[:, None]


def held_out_auc(values: np.ndarray, labels: np.ndarray, folds: Folds) -> float:
    """Return the AUC of a property, as `separate` does."""
    return separate(values, labels, folds).auc


def separate(values: np.ndarray, labels: np.ndarray, folds: Folds) -> Separation:
    """Return how well a property separates files that it was not fitted on, by the better of two methods.

    Trees treat a missing value like any other, because it is a shortcut too if only one class has a JPEG quality. A
    single number is also scored directly, because trees are coarse on few files.
    """
    # A rare property may be missing from all files that a fold is fitted on.
    folds = [(train, test) for train, test in folds if np.isfinite(values[train]).any()]
    if (values == values[:1]).all() or not folds:
        return Separation(0.5)
    with threads_for(len(values), many=2000):  # on little data, threads cost more than they save
        found = [_by_trees(values, labels, folds)]
        found += [_directly(values[:, 0], labels, folds)] if values.shape[1] == 1 else []
    return max(found, key=lambda one: one.auc)


def _by_trees(values: np.ndarray, labels: np.ndarray, folds: Folds) -> Separation:
    """Separate by trees: a single one is fitted to few values, boosted ones to many. Each fold is a part."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.tree import DecisionTreeClassifier

    parts = []
    for train, test in folds:
        common: dict[str, Any] = {"max_leaf_nodes": 8, "min_samples_leaf": int(np.clip(len(train) // 40, 2, 20)),
                                  "class_weight": "balanced", "random_state": 0}  # fmt: skip
        if values.shape[1] <= MAX_CATEGORIES:
            trees = DecisionTreeClassifier(**common)
        else:
            trees = HistGradientBoostingClassifier(max_iter=50, early_stopping=False, **common)
        known = np.isfinite(values[train]).any(axis=0)
        parts.append((test, trees.fit(values[train][:, known], labels[train]).predict_proba(values[test][:, known])[:, 1]))
    aucs = [roc_auc_score(labels[test], scores) for test, scores in parts]
    return Separation(float(np.average(aucs, weights=[len(test) for test, _ in parts])), parts)


def _directly(column: np.ndarray, labels: np.ndarray, folds: Folds) -> Separation:
    """Separate by the number itself; its direction is chosen on the training files of each fold. All folds are one part."""
    from sklearn.metrics import roc_auc_score

    filled = np.where(np.isnan(column), np.nanmedian(column), column)
    scores = [filled[test] * (1 if roc_auc_score(labels[train], filled[train]) >= 0.5 else -1) for train, test in folds]
    rows, joined = np.concatenate([test for _, test in folds]), np.concatenate(scores)
    return Separation(float(roc_auc_score(labels[rows], joined)), [(rows, joined)])


def _draw_auc(rows: np.ndarray, scores: np.ndarray, labels: np.ndarray, resamples: intervals.Resamples) -> np.ndarray:
    """Return the AUC of scores in each resample, (1 + draws,); `rows`, `scores` and `labels` (n,) go together."""
    cells, cell = np.unique(-scores, return_inverse=True)
    reals, fakes = (resamples.total(rows[labels == kind], cell[labels == kind], len(cells)) for kind in (0, 1))
    return intervals.area(reals, fakes, np.cumsum(reals, axis=1))


def grouped_folds(label: Sequence[int], group: Sequence[str], count: int = 5) -> Folds:
    """Return up to `count` stratified folds that keep groups together, repeated three times for small sets.

    Returns [] if a class has fewer than two groups.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    labels, groups = np.asarray(label), np.asarray(group, object)
    fewest = min((len(set(groups[labels == kind])) for kind in (0, 1)), default=0)
    folds: Folds = []
    if fewest < 2:
        return folds
    codes = pd.factorize(groups)[0]
    for seed in range(1 if len(labels) > 500 else 3):
        splitter = StratifiedGroupKFold(min(count, fewest), shuffle=True, random_state=seed)
        folds += [(train, test) for train, test in splitter.split(labels, labels, codes)
                  if len(set(labels[train])) == len(set(labels[test])) == 2]  # fmt: skip
    return folds


def sample_groups(table: pd.DataFrame, count: int = MAX_FILES) -> pd.DataFrame:
    """Return at most `count` rows as a random sample of whole groups, the same in each call."""
    if len(table) <= count:
        return table
    sizes = table.groupby("group", sort=True).size().sample(frac=1, random_state=0)
    return table[table["group"].isin(sizes.index[: max(int((sizes.cumsum() <= count).sum()), 1)])]


def find_warnings(aucs: dict[str, float], label: Sequence[int], group: Sequence[str]) -> list[ShortcutWarning]:
    """Return a warning for each AUC above WARNING_AUC and above what chance reaches with so few groups; highest first."""
    threshold = max(WARNING_AUC, 0.5 + MIN_STANDARD_ERRORS * chance_error(label, group))
    warnings = []
    for name, auc in sorted(aucs.items(), key=lambda item: -item[1]):
        if auc <= threshold:
            continue
        by_content = name in CONTENT or (name == "all" and aucs.get("all_container", 0) <= threshold)
        warnings.append(ShortcutWarning("content" if by_content else "container", name, auc, ADVICE[name]))
    return warnings


def chance_error(label: Sequence[int], group: Sequence[str]) -> float:
    """Return the standard error of the AUC of a random property, from the number of groups per class (Mann-Whitney)."""
    kinds = pd.DataFrame({"label": np.asarray(label), "group": np.asarray(group, object)}).drop_duplicates()
    real, fake = int((kinds["label"] == 0).sum()), int((kinds["label"] == 1).sum())
    return float(np.sqrt((real + fake + 1) / (12 * real * fake))) if real and fake else 1.0


def count_values(table: pd.DataFrame, properties: pd.DataFrame) -> dict[str, Any]:
    """Count files by class and property value: {"files": 69, "container": {"JPEG": {"real": 19, "fake": 50}}, ...}."""
    good = properties["error"] == ""
    classes = np.where(table["label"] == 1, "fake", "real")
    readable = properties[good]
    columns = {
        "size": [f"{width:.0f} x {height:.0f}" for width, height in zip(readable["width"], readable["height"], strict=True)],
        **{name: readable[name].fillna("none") for name in ("extension", "container", "codec", "subsampling")},
        "jpeg_quality": _rounded(readable["jpeg_quality"], 1),
        "fps": _rounded(readable["fps"], 0.01),
        "duration": _rounded(readable["duration"], 1),
    }  # fmt: skip
    counts: dict[str, Any] = {"files": len(table), "unreadable": int((~good).sum())}
    counts["label"] = {kind: int((classes == kind).sum()) for kind in ("real", "fake")}
    for name in ("source", "split"):
        counts[name] = _count_by_class(table[name], classes)
    return counts | {name: _count_by_class(pd.Series(values), classes[good.to_numpy()]) for name, values in columns.items()}


def _rounded(column: pd.Series, step: float) -> list[str]:
    return ["none" if np.isnan(value) else f"{round(value / step) * step:g}" for value in column]


def _count_by_class(column: pd.Series, classes: np.ndarray) -> dict[str, dict[str, int]]:
    """Return value -> {"real": n, "fake": m}, the most frequent value first."""
    table = pd.crosstab(column.to_numpy(), classes).reindex(columns=["real", "fake"], fill_value=0)
    order = table.sum(axis=1).sort_values(ascending=False, kind="stable").index
    return {str(value): {kind: int(table.loc[value, kind]) for kind in ("real", "fake")} for value in order}
