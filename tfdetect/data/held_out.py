"""Sources of fakes that are kept for the test: a detector is best on the generators it was trained on, and users meet others."""

import hashlib
from collections.abc import Iterable

import pandas as pd

from tfdetect.data.manifest import fake_sources
from tfdetect.errors import UserError

MIN_SOURCES = 4  # of training fakes, from which on one is held out without being asked for


def named_sources(fakes: pd.DataFrame) -> set[str]:
    """Return the sources of fakes that have a name and two groups at least.

    A source of one group is a folder of one video or person rather than a generator.
    """
    groups = fakes.groupby("source")["group"].nunique()
    return {str(name) for name in groups.index[groups > 1] if name}


def choose(table: pd.DataFrame) -> str:
    """Return the source to hold out of a split manifest, "" for none.

    None is chosen if training and validation have fakes of fewer than MIN_SOURCES sources, or the test has fakes of sources that
    they lack. Otherwise it is the middle one (of two, the smaller) of those that have test files, by the number of files; equal
    ones are ordered by the SHA-256 of their names, so that neither alphabet nor ease decides.
    """
    fakes = table[table["label"] == 1]
    fakes = fakes[fakes["source"].isin(named_sources(fakes))]
    in_test = fakes["split"] == "test"
    trained, tested = set(fakes.loc[~in_test, "source"]), set(fakes.loc[in_test, "source"])
    if len(trained) < MIN_SOURCES or tested - trained or not tested:
        return ""
    sizes = fakes["source"].value_counts()
    ordered = sorted(tested, key=lambda name: (sizes[name], hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()))
    return str(ordered[(len(ordered) - 1) // 2])


def drop(table: pd.DataFrame, wanted: Iterable[str]) -> tuple[pd.DataFrame, list[str]]:
    """Return a split manifest without the training and validation fakes of the sources `wanted`, and their names as it has them.

    All files stay in their split, so no group is torn apart and a given test set is complete. Raises UnknownSource for a source
    that no fake has, UserError if the test has no fakes of one, or training none of others.
    """
    names = sorted(fake_sources(table, list(wanted)))
    fakes, in_test = table["label"] == 1, table["split"] == "test"
    if missing := [name for name in names if not (fakes & in_test & (table["source"] == name)).any()]:
        raise UserError(f"--data.hold_out {missing[0]}: the test has no fakes of this source, so holding it out would measure "
                        "nothing. Name another source, or give a split with some of its files in the test.")  # fmt: skip
    dropped = fakes & ~in_test & table["source"].isin(names)
    if dropped.any() and not (fakes & ~in_test & ~dropped).any():
        raise UserError(f"--data.hold_out {' '.join(names)} leaves no fakes to train on: all of them are of "
                        f"{'these sources' if len(names) > 1 else 'this source'}. Name fewer sources, or none.")  # fmt: skip
    return table[~dropped].reset_index(drop=True), names
