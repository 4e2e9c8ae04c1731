"""The manifest: a table, one row a file: path, label (0 real, 1 fake), split, group, source, text.

`group` is the person or original video. It alone keeps train, validation and test apart; it comes from the manifest,
never from an order of files.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from tfdetect.files import atomic

COLUMNS = ("path", "label", "split", "group", "source", "text")
SPLITS = {"train": 0.7, "validation": 0.1, "test": 0.2}
SPLIT_NAMES = {"": "", "train": "train", "training": "train", "val": "validation", "valid": "validation",
               "validation": "validation", "dev": "validation", "test": "test", "testing": "test"}  # fmt: skip
LABELS = {"0": 0, "real": 0, "0.0": 0, "1": 1, "fake": 1, "1.0": 1}


def read(path: Path) -> pd.DataFrame:
    """A CSV or Parquet file with the columns path,label[,split,group,source,text] as a checked manifest.

    Relative paths start at the manifest's own folder. Labels are 0/1 or real/fake. Raises ValueError for what is
    missing or misspelt, naming the first row; OSError where the file cannot be read.
    """
    try:
        if path.suffix.lower() == ".parquet":
            table = pd.read_parquet(path)
            table = table.astype(object).where(table.notna(), "").astype(str)
        else:
            table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, pd.errors.EmptyDataError) as error:  # parser and Unicode errors are ValueErrors
        raise ValueError(f"{path} cannot be read as a table: {error}.") from error
    missing = {"path", "label"} - set(table.columns)
    if missing:
        raise ValueError(
            f"{path} lacks the column(s) {', '.join(sorted(missing))}; expected path,label[,split,group,source,text]."
        )
    table["path"] = [str(path.parent / name) if name else "" for name in table["path"]]  # an absolute one stays
    return check(table, str(path))


def check(table: pd.DataFrame, origin: str) -> pd.DataFrame:
    """The manifest with all columns, typed and checked: ValueError that names `origin` and the first wrong row."""
    table = table.reset_index(drop=True)
    for name in ("split", "group", "source", "text"):
        if name not in table:
            table[name] = ""
    labels = table["label"].astype(str).str.strip().str.lower()
    splits = table["split"].astype(str).str.strip().str.lower()
    _require(table, labels.isin(LABELS), origin, "label", "0 or real, 1 or fake")
    _require(table, splits.isin(SPLIT_NAMES), origin, "split", "train, val, test or nothing")
    _require(table, table["path"] != "", origin, "path", "the path of a file")
    _require(table, ~table["path"].duplicated(), origin, "path", "each file once")
    table["label"], table["split"] = labels.map(LABELS).astype("int64"), splits.map(SPLIT_NAMES)
    # A file without a group is a group of its own.
    table["group"] = table["group"].where(table["group"] != "", table["path"])
    _one_split_a_group(table)
    return table[[*COLUMNS]]


def _require(table: pd.DataFrame, good: pd.Series, origin: str, column: str, expected: str) -> None:
    bad = table.index[~good]
    if len(bad):
        value = table.loc[bad[0], column]
        raise ValueError(f"{origin}, row {bad[0] + 1}: {column} is {value!r}, expected {expected} ({len(bad)} such row(s)).")


def _one_split_a_group(table: pd.DataFrame) -> None:
    given = table[table["split"] != ""]
    counts = given.groupby("group")["split"].nunique()
    if (counts > 1).any():
        group = counts.index[counts > 1][0]
        rows = given[given["group"] == group].drop_duplicates("split")
        where = ", ".join(f"row {index + 1} ({row.path}) in {row.split}" for index, row in rows.iterrows())
        raise ValueError(
            f"Group {group!r} is in two splits: {where}. One person or original must stay in one split; mend the split "
            f"or group column ({(counts > 1).sum()} such group(s))."
        )


def split(table: pd.DataFrame, fractions: dict[str, float] | None = None) -> pd.DataFrame:
    """Fill in the missing splits: 70/10/20 by group, alike for each label and source, the same on every machine.

    A file whose split is given keeps it, and takes its group along. Where a test set is given but no validation,
    validation comes out of train: the test may choose nothing.
    """
    fractions = fractions or SPLITS
    table = table.copy()
    known = dict(table.loc[table["split"] != "", ["group", "split"]].to_numpy())
    table["split"] = [known.get(group, "") for group in table["group"]]
    given = set(known.values())
    if "test" in given and "validation" not in given:
        part = fractions["validation"] / (fractions["train"] + fractions["validation"])
        free = table["split"].isin(["", "train"])
        targets = {"train": 1 - part, "validation": part}
    else:
        free = table["split"] == ""
        targets = fractions
    table.loc[free, "split"] = table.loc[free, "group"].map(_assign(table[free], targets))
    return table


def _assign(table: pd.DataFrame, targets: dict[str, float]) -> dict[str, str]:
    """Group -> split. Each stratum (the labels and sources of a group) goes wherever it and the whole lack most."""
    kinds = table.assign(kind=table["label"].astype(str) + ":" + table["source"])[["group", "kind"]].drop_duplicates()
    strata: dict[str, list[str]] = {}
    for group, stratum in kinds.sort_values("kind").groupby("group")["kind"].agg("|".join).items():
        strata.setdefault(stratum, []).append(str(group))
    total = dict.fromkeys(targets, 0)
    out: dict[str, str] = {}
    for stratum in sorted(strata):
        here = dict.fromkeys(targets, 0)
        for count, group in enumerate(sorted(strata[stratum], key=_order), 1):
            lack = {
                name: (share * count - here[name]) + 0.5 * (share * (len(out) + 1) - total[name])
                for name, share in targets.items()
            }
            chosen = max(lack, key=lambda name: lack[name])
            here[chosen] += 1
            total[chosen] += 1
            out[group] = chosen
    return out


def _order(group: str) -> str:
    """A fixed random order: names often sort by time or by quality."""
    return hashlib.sha256(group.encode("utf-8", "surrogateescape")).hexdigest()


def require_classes(table: pd.DataFrame, splits: Sequence[str]) -> None:
    """ValueError unless each of `splits` holds real and fake files: neither training nor judging works on one class."""
    for name in splits:
        counts = table[table["split"] == name]["label"].value_counts()
        real, fake = int(counts.get(0, 0)), int(counts.get(1, 0))
        if not (real and fake):
            raise ValueError(
                f"The {name} split holds {real} real and {fake} fake files of {len(table)} in all; both kinds are needed. "
                "Give more files (10 groups of each class at the least), or a split column."
            )


def write(table: pd.DataFrame, path: Path) -> None:
    """Write as CSV, UTF-8, whole or not at all."""
    with atomic(path) as temporary:
        table.to_csv(temporary, index=False)
