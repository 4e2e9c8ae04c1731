"""The manifest: a table with one row per file and the columns path, label (0 real, 1 fake), split, group, source, text.

`group` is the person or original video. It alone decides which files must stay in the same split, and it comes from the
manifest, never from the order of files.
"""

import csv
import hashlib
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tfdetect.data import tables
from tfdetect.errors import UnknownSource, UserError, suggestion
from tfdetect.files import atomic_write, plural
from tfdetect.pandas_settings import pd

COLUMNS = ("path", "label", "split", "group", "source", "text")
# Kept if present. `left_out` is the reason why a row is not used; the last three describe equalised files.
OPTIONAL_COLUMNS = ("family", "category", "left_out", "original", "original_sha", "equalised")
# `prepare` writes and replaces these.
PREPARED_COLUMNS = ("sha", "frames", "width", "height", "note", "decoded_frames", "total_frames", "faces", "error",
                    "source_class")  # fmt: skip
SPLIT_FRACTIONS = {"train": 0.7, "validation": 0.1, "test": 0.2}
SPLIT_NAMES = {"": "", "train": "train", "training": "train", "val": "validation", "valid": "validation",
               "validation": "validation", "dev": "validation", "test": "test", "testing": "test"}  # fmt: skip
REAL_WORDS = {"real", "reals", "original", "originals", "authentic", "genuine", "pristine", "nature", "natural"}
FAKE_WORDS = {"fake", "fakes", "synthetic", "synthesised", "synthesized", "synthesis", "generated", "manipulated", "forged",
              "tampered", "deepfake", "deepfakes"}  # fmt: skip
SWAPPED_SHARE = 0.8  # labels count as swapped if more than this share of both classes contradicts the path
LABELS = {"0": 0, "real": 0, "0.0": 0, "1": 1, "fake": 1, "1.0": 1}


def read(path: Path) -> pd.DataFrame:
    """Read and validate a table (CSV, .xlsx or Parquet; see tables.py) with the columns path,label[,split,group,source,text].

    Relative paths start at the folder of the table. Labels are 0/1 or real/fake. Remarks for the user are in
    `attrs["notes"]`. Raises UserError for missing or invalid values, naming the first row; OSError if reading fails.
    """
    table = read_unchecked(path)
    tables.require_columns(table, path)
    notes = _notes(table)
    table["path"] = tables.resolve_paths(path.parent, table["path"])
    is_windows_path = table["path"].str.contains(r"(?:^|/)[A-Za-z]:[\\/]|(?:^|/)\\\\", regex=True)
    _require(table["path"], ~is_windows_path, str(path), "a path on this machine, or one relative to the table's folder")
    table = validate(table, str(path))
    table.attrs["notes"] = notes
    return table


read_unchecked = tables.read  # a table without validation


def _notes(table: pd.DataFrame) -> tuple[str, ...]:
    """Return remarks on unused columns, and on rows without a group if other rows have one."""
    unused = [str(name) for name in table.columns if name not in (*COLUMNS, *OPTIONAL_COLUMNS, *PREPARED_COLUMNS)]
    near = {name: column for name in unused if (column := tables.suggest_column(name)) and column not in table}
    names = [f"{name} (perhaps you meant {near[name]}: then rename it)" if name in near else name for name in unused]
    notes = [f"Unused column{'s' * (len(names) > 1)}: {', '.join(names)}."] if names else []
    without = int((table["group"].str.strip() == "").sum()) if "group" in table else 0
    if 0 < without < len(table):
        notes.append(f"The column group is empty in {without:,} of {len(table):,} rows; each of these files becomes a separate "
                     "group.")  # fmt: skip
    return tuple(notes)


def validate(table: pd.DataFrame, origin: str) -> pd.DataFrame:
    """Return the manifest with all columns, typed. Raises UserError that names `origin` and the first invalid row."""
    table = table.reset_index(drop=True)
    for name in ("split", "group", "source", "text"):
        table[name] = table[name].str.strip() if name in table else ""
    table["label"] = _map_values(table, "label", LABELS, origin, "0 or real, 1 or fake").astype("int64")
    table["split"] = _map_values(table, "split", SPLIT_NAMES, origin, "train, val, test or an empty cell")
    _require(table["path"], table["path"] != "", origin, "the path of a file")
    _require(table["path"], ~table["path"].duplicated(), origin, "each file once")
    # A file without a group is a group by itself.
    table["group"] = table["group"].where(table["group"] != "", table["path"])
    return table[[*COLUMNS, *(name for name in OPTIONAL_COLUMNS if name in table)]]


def _map_values(table: pd.DataFrame, column: str, names: dict[str, Any], origin: str, expected: str) -> pd.Series:
    """Return the column with each value replaced by its entry in `names`, ignoring letter case."""
    codes, values = pd.factorize(table[column], use_na_sentinel=False)
    words = [str(value).strip().lower() for value in values]
    valid = np.array([word in names for word in words], bool)[codes]
    _require(table[column], pd.Series(valid, table.index), origin, expected)
    return pd.Series(np.array([names[word] for word in words], object)[codes], table.index)


def _require(column: pd.Series, valid: pd.Series, origin: str, expected: str) -> None:
    invalid = column[~valid]
    if len(invalid):
        value, row = invalid.iloc[0], invalid.index[0] + 1
        rows = plural(len(invalid), "such row")
        raise UserError(f"{origin}, row {row}: {column.name} is {value!r}, expected {expected} ({rows}).")


def require_label_direction(table: pd.DataFrame, origin: str) -> None:
    """Raise UserError if most files under real/ are labelled fake and most under fake/ real; some lists label that way."""
    class_words = np.array([_class_word(path) for path in table["path"]], object)
    label = table["label"].to_numpy()
    named = {0: class_words == "real", 1: class_words == "fake"}
    swapped = {kind: named[kind] & (label != kind) for kind in named}
    if all(swapped[kind].sum() > max(2, SWAPPED_SHARE * named[kind].sum()) for kind in named):
        counts = [f"{swapped[kind].sum()} of {named[kind].sum()} files whose path says {name} are labelled {other}"
                  for kind, name, other in ((0, "real", "fake"), (1, "fake", "real"))]  # fmt: skip
        first = table["path"].to_numpy()[swapped[0]][0]
        raise UserError(f"{origin}: the labels seem to be swapped: {' and '.join(counts)}, the first is {first}. Label 1 "
                        "means fake and 0 means real. Swap the labels, or if they are correct, pass --data.labels as_given.")


def _class_word(path: str) -> str:
    """Return real, fake or "", as the innermost folder with such a word says, else the file name."""
    folder, _, name = path.rpartition("/")
    return _folder_class_word(folder) or _match_class_word(name.rpartition(".")[0])


@cache
def _folder_class_word(folder: str) -> str:
    return next(filter(None, map(_match_class_word, reversed(folder.split("/")))), "")


def _match_class_word(name: str) -> str:
    words = set(re.split(r"[^a-z]+", name.lower()))
    real, fake = bool(words & REAL_WORDS), bool(words & FAKE_WORDS)
    return "" if real == fake else "real" if real else "fake"


def require_unsplit_groups(table: pd.DataFrame) -> None:
    """Raise UserError, naming the rows, if a group is in two splits: the test would then measure memorisation."""
    given = table.loc[table["split"] != "", ["group", "split"]].drop_duplicates()
    torn = given.loc[given["group"].duplicated(), "group"].drop_duplicates()
    if len(torn):
        group = min(torn)
        rows = table[(table["group"] == group) & (table["split"] != "")].drop_duplicates("split")
        places = ", ".join(f"row {index + 1} ({row.path}) in {row.split}" for index, row in rows.iterrows())
        raise UserError(
            f"Group {group!r} is in two splits: {places}. One person or original video must stay in one split; fix the "
            f"split or group column ({plural(len(torn), 'such group')})."
        )


def split(table: pd.DataFrame, fractions: dict[str, float] | None = None) -> pd.DataFrame:
    """Fill in missing splits: 70/10/20 by group, stratified by label and source, the same on every machine.

    A file with a given split keeps it, and its group follows. If a test set is given but no validation set, validation is
    taken from train, because test files must not influence any choice. If every file has a split and test is missing,
    the missing splits are taken from train too: some data sets ship as train, or as train and validation. Raises
    UserError if a group is in two splits.
    """
    require_unsplit_groups(table)
    fractions = fractions or SPLIT_FRACTIONS
    table = table.copy()
    known = dict(table.loc[table["split"] != "", ["group", "split"]].to_numpy())
    given, missing = set(known.values()), [name for name in ("validation", "test") if name not in known.values()]
    splits = np.array([known.get(group, "") for group in table["group"]], object)
    unassigned, targets = splits == "", fractions
    if missing == ["validation"] or (missing and given and not unassigned.any()):
        total = fractions["train"] + sum(fractions[name] for name in missing)
        shares = {name: fractions[name] / total for name in missing}
        unassigned, targets = unassigned | (splits == "train"), {"train": 1 - sum(shares.values()), **shares}
    assigned = assign_splits(table[unassigned], targets)
    splits[unassigned] = [assigned[group] for group in table.loc[unassigned, "group"]]
    table["split"] = pd.Series(splits, table.index)
    return table


def assign_splits(table: pd.DataFrame, targets: dict[str, float]) -> dict[str, str]:
    """Return group -> split. Each group goes to the split that is furthest below its target, in its stratum and overall."""
    names, shares = list(targets), list(targets.values())
    totals = [0] * len(names)
    assigned: dict[str, str] = {}
    for _, groups in sorted(strata(table).items()):
        groups.sort(key=shuffle_key)
        assigned.update(zip(groups, (names[index] for index in _choose_splits(len(groups), shares, totals)), strict=True))
    return assigned


def strata(table: pd.DataFrame) -> dict[str, list[str]]:
    """Return the labels and sources of a group -> all groups with exactly these."""
    kinds, kind_names = pd.factorize(table["label"].astype(str) + ":" + table["source"], sort=True)
    groups, group_names = pd.factorize(table["group"])
    pairs = np.unique(np.stack([groups, kinds]), axis=1) if len(table) else np.zeros((2, 0), int)
    ends = np.flatnonzero(np.diff(pairs[0], append=-1)) + 1
    strata: dict[tuple[int, ...], list[str]] = {}
    start = 0
    for end in ends.tolist():
        key = tuple(pairs[1, start:end].tolist())
        strata.setdefault(key, []).append(str(group_names[pairs[0, start]]))
        start = end
    merged: dict[str, list[str]] = {}
    for key, names in strata.items():
        merged.setdefault("|".join(kind_names[kind] for kind in key), []).extend(names)
    return merged


def _choose_splits(count: int, shares: Sequence[float], totals: list[int]) -> Iterator[int]:
    """Yield the index of a split for each of `count` groups; updates `totals`, the number of groups in each split."""
    in_stratum = [0] * len(shares)
    indices = range(len(shares))
    total = sum(totals)
    for number in range(1, count + 1):
        total += 1
        deficits = [(shares[i] * number - in_stratum[i]) + 0.5 * (shares[i] * total - totals[i]) for i in indices]
        index = deficits.index(max(deficits))
        in_stratum[index] += 1
        totals[index] += 1
        yield index


def shuffle_key(group: str) -> bytes:
    """Return a sort key for a fixed random order; names are often sorted by time or quality."""
    return hashlib.sha256(group.encode("utf-8", "surrogateescape")).digest()


def attribution_classes(table: pd.DataFrame, by: str, families: Sequence[str] = ()) -> pd.Series:
    """Return the attribution class of each fake: its `source`, or its `family`.

    Families come from SOURCE=FAMILY pairs, else from the column `family`. The class is "" for reals and if unknown. Raises
    UserError if `by` is family and there is neither.
    """
    if by == "source":
        classes = table["source"]
    elif families:
        classes = table["source"].map(dict(pair.split("=") for pair in families)).fillna("")
    elif "family" in table:
        classes = table["family"]
    else:
        raise UserError("--detector.attribute family needs a column family in the manifest, or --detector.families "
                        "SOURCE=FAMILY ... to assign each source to a family.")  # fmt: skip
    return classes.where(table["label"] == 1, "")


def restrict_sources(table: pd.DataFrame, train_sources: Sequence[str], test_sources: Sequence[str]) -> pd.DataFrame:
    """Keep all reals, fakes of `train_sources` in train and validation, and fakes of `test_sources` in test.

    No names mean all sources. The table must have splits; files stay in theirs, so no group is torn apart.
    """
    dropped = pd.Series(False, table.index)
    for names, is_test in ((train_sources, False), (test_sources, True)):
        if names:
            others = ~table["source"].isin(fake_sources(table, names))
            dropped |= (table["label"] == 1) & ((table["split"] == "test") == is_test) & others
    return table[~dropped].reset_index(drop=True)


def fake_sources(table: pd.DataFrame, wanted: Sequence[str]) -> set[str]:
    """Return the sources named in `wanted`, ignoring letter case; commas separate names.

    Raises UnknownSource for a source that no fake has.
    """
    names = sorted(set(table.loc[table["label"] == 1, "source"]))
    known = {name.lower(): name for name in names}
    parts = [part.strip() for name in wanted for part in ([name] if name.lower() in known else name.split(","))]
    if unknown := [name for name in parts if name.lower() not in known]:
        hint = suggestion(unknown[0], names)
        raise UnknownSource(f"No fakes have the source {unknown[0]!r}.{hint} The sources of fakes are {', '.join(names)}.", names)
    return {known[name.lower()] for name in parts}


def add_texts(table: pd.DataFrame, template: str) -> pd.DataFrame:
    """Return the table with a text in each row: the given one, or the template filled with the category.

    Raises UserError if a row has neither text nor category.
    """
    category = table["category"] if "category" in table else pd.Series("", table.index)
    filled = category.map(lambda name: template.replace("{category}", name) if name else "")
    text = table["text"].where(table["text"] != "", filled)
    if (text == "").any():
        row = table[text == ""].iloc[0]
        raise UserError(f"--detector.text needs a text for each image: {(text == '').sum()} of {len(table)} files have "
                        f"neither text nor category, the first is {row.path}. Add such a column to the manifest.")  # fmt: skip
    return table.assign(text=text)


def require_classes(table: pd.DataFrame, splits: Sequence[str], trains_on: str = "both") -> None:
    """Raise UserError unless each of `splits` has real and fake files, which training and thresholds need.

    A test split only needs files of any class: some published tests hold fakes only, which gives a recall but no AUC. A
    detector that trains on "real" needs no fakes.
    """
    if set(splits) - {"test"}:
        _require_both_classes(table, trains_on)
    for name in splits:
        counts = table[table["split"] == name]["label"].value_counts()
        real, fake = int(counts.get(0, 0)), int(counts.get(1, 0))
        if not (real + fake if name == "test" else real and (fake or trains_on == "real")):
            needed = "at least one is" if name == "test" else "real files are" if trains_on == "real" else "both classes are"
            groups = [table.loc[table["label"] == label, "group"].nunique() for label in (0, 1)]
            rule = table.attrs.get("groups", "The groups come from the manifest.")
            raise UserError(
                f"The {name} split has {real} real and {fake} fake files of {len(table)} in total, in "
                f"{plural(groups[0], 'group')} of reals and {groups[1]} of fakes; {needed} needed. {rule} Add files (at least "
                "10 groups per class) or a split column, or change the groups: with a group column, or with --data.group "
                "folder, stem, file or a regular expression."
            )


def _require_both_classes(table: pd.DataFrame, trains_on: str) -> None:
    """Raise UserError, listing the folders of the data set, if all files are of one class."""
    for label, kind in ((0, "real"), (1, "fake")):
        if (table["label"] == label).any() or (kind == "fake" and trains_on == "real"):
            continue
        others = {name: count for name, count in table.attrs.get("left_out", {}).items() if name.endswith("/")}
        classes = {f"{name}/": count for name, count in table.attrs.get("classes", {}).items()}
        listed = ", ".join(f"{name} ({plural(count, 'file')})" for name, count in {**classes, **others}.items())
        folders = f" Found: {listed}." if listed else ""
        one_class = "" if kind == "real" else (
            " One-class detectors, such as feature_oneclass or oc_ae, train on reals only. If the files show faces, --data.faces "
            "yunet --data.make_fakes 1 makes fakes of them (docs/sbi.md).")  # fmt: skip
        raise UserError(
            f"All {len(table)} files are {('fake', 'real')[label]}, none is {kind}. Name the class folders real and fake, or "
            f"name the fake ones with --data.fake NAME; all others are then real.{folders}{one_class}"
        )


def write(table: pd.DataFrame, path: Path) -> None:
    """Write a CSV file atomically, as UTF-8; file names that are not UTF-8 keep their bytes."""
    # pandas does not quote a lone carriage return, which would end the row.
    has_returns = any(table[name].astype(str).str.contains("\r", regex=False).any()
                      for name in table.select_dtypes(exclude="number"))  # fmt: skip
    with atomic_write(path) as temporary:
        quoting = csv.QUOTE_NONNUMERIC if has_returns else csv.QUOTE_MINIMAL
        table.to_csv(temporary, index=False, errors="surrogateescape", quoting=quoting)
