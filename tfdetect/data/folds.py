"""Parts of a data set by group: folds, in which each group is tested once, and nested shares of the training groups.

scikit-learn's `StratifiedGroupKFold` stratifies by one label of each file; a group here, such as an original video and its fakes,
has several labels and sources, and `manifest.split` already divides such groups in the same proportions.
"""

import numpy as np

from tfdetect.data import manifest
from tfdetect.errors import UserError
from tfdetect.files import plural
from tfdetect.pandas_settings import pd


def fold_numbers(table: pd.DataFrame, folds: int) -> pd.Series:
    """Return the fold, 1..folds, of each file of a manifest: that of its group, stratified by label and source.

    Raises UserError if the files of a class are in fewer groups than there are folds.
    """
    for label, kind in enumerate(("reals", "fakes")):
        groups = table.loc[table["label"] == label, "group"].nunique()
        if 0 < groups < folds:
            raise UserError(f"--data.folds {folds} needs at least {folds} groups of {kind}, one for each fold, but there "
                            f"{'is' if groups == 1 else 'are'} {plural(groups, 'group')}; give fewer folds.")  # fmt: skip
    names = [str(number + 1) for number in range(folds)]
    assigned = manifest.assign_splits(table, dict.fromkeys(names, 1 / folds))
    return table["group"].map(assigned).astype(int)


def with_fold_as_test(table: pd.DataFrame, folds: int, fold: int) -> pd.DataFrame:
    """Return the manifest with this fold as its test split and all other files without a split."""
    is_test = fold_numbers(table, folds) == fold
    return table.assign(split=np.where(is_test, "test", ""))


def take_amount(table: pd.DataFrame, amount: float) -> pd.DataFrame:
    """Return the manifest with this share, 0..1, of the groups of the training split, stratified by label and source, and all
    other rows. A smaller share is part of every larger one."""
    if amount == 1:
        return table
    train = table[table["split"] == "train"]
    order = stratified_order(train)
    kept = order[: max(1, round(amount * len(order)))]
    part = table[(table["split"] != "train") | table["group"].isin(kept)].reset_index(drop=True)
    part.attrs = table.attrs
    return part


def stratified_order(table: pd.DataFrame) -> list[str]:
    """Return the groups in a fixed random order whose every beginning has the labels and sources in their proportions.

    A group's place in its stratum, counted from a random offset, is its place in the whole, so that many strata of a single group
    are thinned out like large ones.
    """
    places: dict[str, float] = {}
    for groups in manifest.strata(table).values():
        groups.sort(key=manifest.shuffle_key)
        offset = int.from_bytes(manifest.shuffle_key("offset of " + groups[0])[:6]) / 2**48
        places |= {group: (number + offset) / len(groups) for number, group in enumerate(groups)}
    return sorted(places, key=lambda group: (places[group], group))
