"""Can a shortcut tell the label? A detector learns the easiest difference there is; better to know it before training.

For each cheap property of the files (`properties.py`) a small classifier is asked how well it alone tells real from fake, on
files that it did not see. What is found comes with what to do about it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from tfdetect.data.audit.properties import CATEGORICAL, CONTAINER, CONTENT

PROPERTIES = (*CONTAINER, *CONTENT)
COMBINATIONS = {"all_container": CONTAINER, "all": PROPERTIES}
SUSPECT, FATAL = 0.65, 0.9  # AUC
MIN_STANDARD_ERRORS = 2.8  # standard errors above chance that a warning needs: of twenty properties of noise, one in twenty sets has one
MAX_FILES = 20_000  # files that a classifier is asked with; more would not move the second decimal
MAX_CATEGORIES = 20  # most frequent values of a property in words

Folds = list[tuple[np.ndarray, np.ndarray]]  # positions of the rows to learn from, and of those to be told

ADVICE = {
    "extension": "Give all files one format by their content: prepare --equalise.",
    "container": "Encode both classes in one format, with one program and one setting: prepare --equalise.",
    "codec": "Encode both classes with one codec and one setting: prepare --equalise.",
    "width": "Crop both classes to one size, do not resize one of them: prepare --equalise.",
    "height": "Crop both classes to one size, do not resize one of them: prepare --equalise.",
    "aspect": "Crop both classes to one shape: prepare --equalise.",
    "bytes": "Crop to one size and encode with one setting: prepare --equalise; what is left then comes from the pictures.",
    "bytes_per_pixel": "Encode both classes with one setting: prepare --equalise; what is left then comes from the pictures.",
    "jpeg_quality": "Encode both classes anew with one quality: prepare --equalise. The first compression stays in the pixels; "
                    "files that were compressed alike from the start are better.",
    "subsampling": "Encode both classes anew with one chroma subsampling: prepare --equalise.",
    "fps": "Take both classes at one frame rate, from the start if you can: the rate decides how far things move in a frame.",
    "frames": "Cut both classes to one length: prepare --equalise.",
    "duration": "Cut both classes to one length: prepare --equalise.",
    "bit_rate": "Encode both classes with one setting from the start: of unequally compressed videos, prepare --equalise leaves "
                "the smoother ones smaller.",
    "exif": "Strip the metadata of both classes: prepare --equalise.",
    "mean_colour": "The classes differ in colour. Look whether they show the same things under the same light; if not, find "
                   "reals and fakes of the same content.",
    "thumbnail": "An 8 x 8 picture tells the classes apart: they show different things, or the same ones framed differently. "
                 "Match the content; the detector's test AUC should be well above this one.",
    "border": "The outer two pixels tell the classes apart: look for bars, frames or padding, and crop them off both classes.",
    "all_container": "Together, the container's properties tell the label. Mend those above, then audit again.",
    "all": "Together, cheap properties tell the label. A detector's test AUC means something where it is well above this one.",
}  # fmt: skip


@dataclass(frozen=True)
class ShortcutWarning:
    """A property that tells the label."""

    kind: str  # "container", or "content" where what the pictures show may be the reason
    property: str
    auc: float
    advice: str


@dataclass(frozen=True)
class Shortcuts:
    """How well each property tells the label, and which of them do."""

    aucs: dict[str, float]
    find_warnings: list[ShortcutWarning]  # the best first


def find_shortcuts(table: pd.DataFrame, properties: pd.DataFrame, folds: Folds | None = None) -> Shortcuts:
    """The shortcuts of the manifest's files, properties row for row; across folds, unless these are given."""
    label, group = table["label"].to_numpy(), table["group"].to_numpy()
    folds = grouped_folds(label, group) if folds is None else folds
    told = np.unique(np.concatenate([part for _, part in folds])) if folds else slice(0)
    aucs = property_aucs(properties, label, folds)
    return Shortcuts(aucs, find_warnings(aucs, label[told], group[told]))


def property_aucs(properties: pd.DataFrame, label: Sequence[int], folds: Folds) -> dict[str, float]:
    """The AUC, 0..1, with which each of PROPERTIES, and those of TOGETHER, tell fake (1) from real (0) on the files held out.

    `properties` as `properties.collect` gives them, without failures. A property that no file has is left out; an empty
    dict where `folds` is empty.
    """
    labels = np.asarray(label)
    tables = {name: to_matrix(properties[name], name) for name in PROPERTIES}
    tables = {name: table for name, table in tables.items() if np.isfinite(table).any()}
    for name, parts in COMBINATIONS.items():
        held = [tables[part] for part in parts if part in tables]
        if held:
            tables[name] = np.concatenate(held, axis=1)
    return {name: held_out_auc(table, labels, folds) for name, table in tables.items()} if folds else {}


def to_matrix(column: pd.Series, name: str) -> np.ndarray:
    """A property as numbers, (files, values): words one-hot, arrays side by side."""
    if name in CATEGORICAL:
        common = column.value_counts().index[:MAX_CATEGORIES]
        return pd.get_dummies(column.where(column.isin(common))).to_numpy(float)
    if name in CONTENT:
        return np.stack(column.to_list()).astype(float)
    return column.to_numpy(float)[:, None]


def held_out_auc(values: np.ndarray, labels: np.ndarray, folds: Folds) -> float:
    """How well a property tells the labels of files that it was not fitted on: an AUC, the better of two ways.

    Trees, which take a missing value as a value like others: that one class alone has a JPEG quality is a shortcut
    too. And a single number as it is, for trees are coarse among few files.
    """
    from threadpoolctl import threadpool_limits

    # What hardly a file has may be missing from all that is learnt from, or told.
    folds = [(learnt, told) for learnt, told in folds if np.isfinite(values[learnt]).any()]
    if (values == values[:1]).all() or not folds:
        return 0.5
    with threadpool_limits(1 if len(values) < 2000 else None):  # threads cost more than they give
        return max(_tree_auc(values, labels, folds), _direct_auc(values[:, 0], labels, folds) if values.shape[1] == 1 else 0)


def _tree_auc(values: np.ndarray, labels: np.ndarray, folds: Folds) -> float:
    """The mean over the folds; not one AUC over all of their scores, for these differ between folds by more than order.

    One tree where the values are few, boosted ones where they are many.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.tree import DecisionTreeClassifier

    aucs = []
    for learnt, told in folds:
        common: dict[str, Any] = {"max_leaf_nodes": 8, "min_samples_leaf": int(np.clip(len(learnt) // 40, 2, 20)),
                                  "class_weight": "balanced", "random_state": 0}  # fmt: skip
        if values.shape[1] <= MAX_CATEGORIES:
            trees = DecisionTreeClassifier(**common)
        else:
            trees = HistGradientBoostingClassifier(max_iter=50, early_stopping=False, **common)
        known = np.isfinite(values[learnt]).any(axis=0)
        scores = trees.fit(values[learnt][:, known], labels[learnt]).predict_proba(values[told][:, known])[:, 1]
        aucs.append(roc_auc_score(labels[told], scores))
    return float(np.average(aucs, weights=[len(told) for _, told in folds]))


def _direct_auc(column: np.ndarray, labels: np.ndarray, folds: Folds) -> float:
    """The AUC of the number itself, in the direction in which it rises from real to fake among the files learnt from."""
    from sklearn.metrics import roc_auc_score

    known = np.where(np.isnan(column), np.nanmedian(column), column)
    scores = [known[told] * (1 if roc_auc_score(labels[learnt], known[learnt]) >= 0.5 else -1) for learnt, told in folds]
    return float(roc_auc_score(np.concatenate([labels[told] for _, told in folds]), np.concatenate(scores)))


def grouped_folds(label: Sequence[int], group: Sequence[str], folds: int = 5) -> Folds:
    """Folds that keep groups together and classes even; few files are dealt several times. [] where that cannot be done."""
    from sklearn.model_selection import StratifiedGroupKFold

    labels, groups = np.asarray(label), np.asarray(group, object)
    fewest = min((len(set(groups[labels == kind])) for kind in (0, 1)), default=0)
    out: Folds = []
    if fewest < 2:
        return out
    codes = pd.factorize(groups)[0]
    for seed in range(1 if len(labels) > 500 else 3):
        dealer = StratifiedGroupKFold(min(folds, fewest), shuffle=True, random_state=seed)
        out += [(learnt, told) for learnt, told in dealer.split(labels, labels, codes)
                if len(set(labels[learnt])) == len(set(labels[told])) == 2]  # fmt: skip
    return out


def sample_groups(table: pd.DataFrame, most: int = MAX_FILES) -> pd.DataFrame:
    """At most so many rows, whole groups drawn by a fixed seed."""
    if len(table) <= most:
        return table
    sizes = table.groupby("group", sort=True).size().sample(frac=1, random_state=0)
    return table[table["group"].isin(sizes.index[: max(int((sizes.cumsum() <= most).sum()), 1)])]


def find_warnings(aucs: dict[str, float], label: Sequence[int], group: Sequence[str]) -> list[ShortcutWarning]:
    """What tells the label better than SUSPECT, and better than chance does among so few groups; the best first."""
    least = max(SUSPECT, 0.5 + MIN_STANDARD_ERRORS * chance_error(label, group))
    found = []
    for name, auc in sorted(aucs.items(), key=lambda item: -item[1]):
        if auc <= least:
            continue
        by_content = name in CONTENT or (name == "all" and aucs.get("all_container", 0) <= least)
        found.append(ShortcutWarning("content" if by_content else "container", name, auc, ADVICE[name]))
    return found


def chance_error(label: Sequence[int], group: Sequence[str]) -> float:
    """Standard error of the AUC of a property that tells nothing, by the number of groups of each class (Mann-Whitney)."""
    kinds = pd.DataFrame({"label": np.asarray(label), "group": np.asarray(group, object)}).drop_duplicates()
    real, fake = int((kinds["label"] == 0).sum()), int((kinds["label"] == 1).sum())
    return float(np.sqrt((real + fake + 1) / (12 * real * fake))) if real and fake else 1.0


def count_values(table: pd.DataFrame, properties: pd.DataFrame) -> dict[str, Any]:
    """How many files of each value, real and fake apart: {"files": 69, "container": {"JPEG": {"real": 19, "fake": 50}}, ...}."""
    good = properties["error"] == ""
    kinds = np.where(table["label"] == 1, "fake", "real")
    seen = properties[good]
    numbers = {
        "size": [f"{width:.0f} x {height:.0f}" for width, height in zip(seen["width"], seen["height"], strict=True)],
        **{name: seen[name].fillna("none") for name in ("extension", "container", "codec", "subsampling")},
        "jpeg_quality": _rounded(seen["jpeg_quality"], 1),
        "fps": _rounded(seen["fps"], 0.01),
        "duration": _rounded(seen["duration"], 1),
    }  # fmt: skip
    out: dict[str, Any] = {"files": len(table), "unreadable": int((~good).sum())}
    out["label"] = {kind: int((kinds == kind).sum()) for kind in ("real", "fake")}
    for name in ("source", "split"):
        out[name] = _count_by_class(table[name], kinds)
    return out | {name: _count_by_class(pd.Series(values), kinds[good.to_numpy()]) for name, values in numbers.items()}


def _rounded(column: pd.Series, step: float) -> list[str]:
    return ["none" if np.isnan(value) else f"{round(value / step) * step:g}" for value in column]


def _count_by_class(column: pd.Series, kinds: np.ndarray) -> dict[str, dict[str, int]]:
    """Value -> {"real": n, "fake": m}, the most frequent first."""
    table = pd.crosstab(column.to_numpy(), kinds).reindex(columns=["real", "fake"], fill_value=0)
    order = table.sum(axis=1).sort_values(ascending=False, kind="stable").index
    return {str(value): {kind: int(table.loc[value, kind]) for kind in ("real", "fake")} for value in order}
