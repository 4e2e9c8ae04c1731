"""Which source of fakes is kept for the test, and what is left of the others."""

import pandas as pd
import pytest

from tfdetect.data import held_out, manifest
from tfdetect.errors import UnknownSource, UserError


def split_table(**groups):
    """Return a manifest that is split: for each source that many groups, of a real and a fake."""
    rows = [{"path": f"{label}/{source}{number}.png", "label": label, "group": f"{source}{number}",
             "source": source if label else "camera"} for source, count in groups.items() for number in range(count)
            for label in (0, 1)]  # fmt: skip
    return manifest.split(manifest.validate(pd.DataFrame(rows), "test"))


def counts(table, source):
    return dict(table[(table["label"] == 1) & (table["source"] == source)]["split"].value_counts())


def test_the_middle_source_is_chosen_of_four_and_none_of_three():
    assert held_out.choose(split_table(a=60, b=20, c=40, d=30)) == "d", "of the two in the middle, the smaller"
    assert held_out.choose(split_table(a=60, b=20, c=40, d=30, e=10)) == "d"
    assert held_out.choose(split_table(a=60, b=20, c=40)) == ""


def test_the_choice_depends_neither_on_the_order_of_rows_nor_on_that_of_the_alphabet():
    table = split_table(**dict.fromkeys(["a", "b", "c", "d", "e"], 20))
    assert held_out.choose(table) == held_out.choose(table.sample(frac=1, random_state=1))
    names = [held_out.choose(split_table(**{f"{name}{k}": 20 for name in "abcde"}))[0] for k in range(30)]
    assert set(names) == set("abcde")


def test_a_test_with_other_sources_needs_none_held_out():
    table = split_table(a=20, b=20, c=20, d=20, other=20)
    table.loc[table["source"] == "other", "split"] = "test"
    assert held_out.choose(table) == ""


def test_folders_of_single_videos_are_no_sources():
    rows = [{"path": f"{video}/{k}.png", "label": 1, "group": f"v{video}", "source": f"v{video}", "split": "train"}
            for video in range(9) for k in range(5)]  # fmt: skip
    assert held_out.choose(manifest.validate(pd.DataFrame(rows), "test")) == ""


def test_a_source_without_test_files_is_not_chosen():
    table = split_table(a=40, b=40, c=40, d=40)
    table = table[(table["source"] == "d") | (table["label"] == 0) | (table["split"] != "test")]
    assert held_out.choose(table) == "d"
    with pytest.raises(UserError, match="--data.hold_out a: the test has no fakes of this source"):
        held_out.drop(table, ["a"])


def test_held_out_fakes_are_in_the_test_alone_and_nothing_else_changes():
    table = split_table(a=20, b=20, c=20, d=20)
    kept, names = held_out.drop(table, ["B", "d"])
    assert names == ["b", "d"] and counts(kept, "b") == {"test": 4} and counts(kept, "a") == counts(table, "a")
    others = table[~((table["label"] == 1) & table["source"].isin(names) & (table["split"] != "test"))]
    assert kept.equals(others.reset_index(drop=True))
    assert held_out.drop(table, ["b,d"])[1] == names


def test_names_that_cannot_be_held_out_are_refused():
    table = split_table(alpha=20, beta=20)
    with pytest.raises(UnknownSource, match=r"'alpa'. Perhaps you meant alpha. The sources of fakes are alpha, beta."):
        held_out.drop(table, ["alpa"])
    with pytest.raises(UserError, match="--data.hold_out alpha beta leaves no fakes to train on: all of them are of these"):
        held_out.drop(table, ["alpha", "beta"])
