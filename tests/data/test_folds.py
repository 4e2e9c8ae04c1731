"""Folds and amounts of data by group."""

import numpy as np
import pandas as pd
import pytest

from tfdetect.data import folds, manifest
from tfdetect.errors import UserError


def table(videos=53, alone=20):
    """Return a manifest: originals with one or two forgeries in one group, and fakes of a group and source of their own."""
    rows = [(f"r{number}", 0, f"g{number}", "camera") for number in range(videos)]
    rows += [(f"{name}{number}", 1, f"g{number}", name) for number in range(videos) for name in "ab"[: 1 + number % 2]]
    rows += [(f"x{number}", 1, f"h{number}", f"s{number}") for number in range(alone)]
    rows = pd.DataFrame(rows, columns=["path", "label", "group", "source"])
    return manifest.validate(rows.sample(frac=1, random_state=0), "test")


def test_each_group_is_tested_once_and_classes_are_spread_evenly():
    rows, tested = table(), []
    for fold in range(1, 6):
        split = manifest.split(folds.with_fold_as_test(rows, 5, fold))
        assert split.groupby("group")["split"].nunique().max() == 1
        test = split[split["split"] == "test"]
        assert 10 <= (test["label"] == 0).sum() <= 11 and test["source"].eq("b").sum() in (5, 6)
        assert (split["split"] == "validation").sum() > 10, "taken from the other folds"
        tested += list(test["path"])
    assert sorted(tested) == sorted(rows["path"])


def test_the_order_of_rows_and_given_splits_do_not_change_folds():
    rows = table()
    first = folds.fold_numbers(rows, 4).set_axis(rows["path"])
    other = rows.sample(frac=1, random_state=3).assign(split="train").reset_index(drop=True)
    assert first.to_dict() == folds.fold_numbers(other, 4).set_axis(other["path"]).to_dict()


def test_more_folds_than_groups_are_refused():
    with pytest.raises(UserError, match=r"--data.folds 5 needs at least 5 groups of reals, .* there are 4 groups; give fewer"):
        folds.fold_numbers(table(4), 5)


def test_amounts_are_nested_stratified_and_leave_the_test_alone():
    split, smaller = manifest.split(table()), set()
    whole = split[split["split"] == "train"]
    for amount in (0.05, 0.1, 0.25, 0.5, 1):
        part = folds.take_amount(split, amount)
        train = part[part["split"] == "train"]
        assert sorted(part.loc[part["split"] != "train", "path"]) == sorted(split.loc[split["split"] != "train", "path"])
        assert smaller <= set(train["group"]) and train["group"].nunique() == max(1, round(amount * whole["group"].nunique()))
        smaller = set(train["group"])
        if amount >= 0.25:
            for label in (0, 1):
                share = (train["label"] == label).sum() / (whole["label"] == label).sum()
                assert share == pytest.approx(amount, abs=0.08), label
    assert smaller == set(whole["group"])


def test_strata_of_a_single_group_are_thinned_out_too():
    rows = [(f"f{number}", 1, f"g{number}", f"s{number}", "train") for number in range(400)]
    rows = pd.DataFrame(rows, columns=["path", "label", "group", "source", "split"])
    kept = folds.take_amount(rows, 0.25)
    assert len(kept) == 100
    numbers = kept["group"].str[1:].astype(int)
    assert np.mean(numbers) == pytest.approx(200, abs=45), "not the first ones"
