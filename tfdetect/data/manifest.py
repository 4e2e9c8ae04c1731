"""The manifest: a table, one row a file: path, label (0 real, 1 fake), split, group, source, text.

`group` is the person or original video. It alone keeps train, validation and test apart; it comes from the manifest,
never from an order of files.
"""

import csv
import hashlib
import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tfdetect.data import tables
from tfdetect.errors import UserError
from tfdetect.files import atomic_write, plural

COLUMNS = ("path", "label", "split", "group", "source", "text")
# Columns that are kept where they are given: `left_out` is why a row is not used, the last three are of equalised files.
OPTIONAL_COLUMNS = ("family", "category", "left_out", "original", "original_sha", "equalised")
PREPARED_COLUMNS = ("sha", "frames", "width", "height", "note", "error", "source_class")  # by `prepare`: of a table that it wrote, made anew
SPLIT_FRACTIONS = {"train": 0.7, "validation": 0.1, "test": 0.2}
SPLIT_NAMES = {"": "", "train": "train", "training": "train", "val": "validation", "valid": "validation",
               "validation": "validation", "dev": "validation", "test": "test", "testing": "test"}  # fmt: skip
pd.options.mode.string_storage = "python"  # a file's name need not be UTF-8, which Arrow's strings must be
REAL_WORDS = {"real", "reals", "original", "originals", "authentic", "genuine", "pristine", "nature", "natural"}
FAKE_WORDS = {"fake", "fakes", "synthetic", "synthesised", "synthesized", "synthesis", "generated", "manipulated", "forged",
             "tampered", "deepfake", "deepfakes"}  # fmt: skip
SWAPPED_SHARE = 0.8  # of the files under real/ and under fake/, at least, have to have the other label to be called turned round
LABELS = {"0": 0, "real": 0, "0.0": 0, "1": 1, "fake": 1, "1.0": 1}


def read(path: Path) -> pd.DataFrame:
    """A table (CSV, .xlsx, Parquet; see tables.py) with the columns path,label[,split,group,source,text] as a checked manifest.

    Relative paths start at the manifest's own folder. Labels are 0/1 or real/fake. What a reader should know of it is in
    `attrs["notes"]`. Raises ValueError for what is missing or misspelt, naming the first row; OSError where it cannot be read.
    """
    table = read_unchecked(path)
    tables.require_columns(table, path)
    notes = _notes(table)
    table["path"] = tables.resolve_paths(path.parent, table["path"])
    windows = table["path"].str.contains(r"(?:^|/)[A-Za-z]:[\\/]|(?:^|/)\\\\", regex=True)
    _require(table["path"], ~windows, str(path), "a path of this machine, or one that starts at the table's folder")
    table = validate(table, str(path))
    table.attrs["notes"] = notes
    return table


read_unchecked = tables.read  # a table as it is, nothing checked


def _notes(table: pd.DataFrame) -> tuple[str, ...]:
    """Of which columns no use is made, and how many rows have no group where others have one."""
    unused = [str(name) for name in table.columns if name not in (*COLUMNS, *OPTIONAL_COLUMNS, *PREPARED_COLUMNS)]
    near = {name: column for name in unused if (column := tables.suggest_column(name)) and column not in table}
    said = [f"{name} (did you mean {near[name]}? Rename it then)" if name in near else name for name in unused]
    notes = [f"Not used: the column{'s' * (len(said) > 1)} {', '.join(said)}."] if said else []
    without = int((table["group"].str.strip() == "").sum()) if "group" in table else 0
    if 0 < without < len(table):
        notes.append(f"The column group is empty in {without:,} of {len(table):,} rows: each of these files is taken for a group "
                     "of its own.")  # fmt: skip
    return tuple(notes)


def validate(table: pd.DataFrame, origin: str) -> pd.DataFrame:
    """The manifest with all columns, typed and checked: ValueError that names `origin` and the first wrong row."""
    table = table.reset_index(drop=True)
    for name in ("split", "group", "source", "text"):
        table[name] = table[name].str.strip() if name in table else ""
    table["label"] = _map_values(table, "label", LABELS, origin, "0 or real, 1 or fake").astype("int64")
    table["split"] = _map_values(table, "split", SPLIT_NAMES, origin, "train, val, test or nothing")
    _require(table["path"], table["path"] != "", origin, "the path of a file")
    _require(table["path"], ~table["path"].duplicated(), origin, "each file once")
    # A file without a group is a group of its own.
    table["group"] = table["group"].where(table["group"] != "", table["path"])
    return table[[*COLUMNS, *(name for name in OPTIONAL_COLUMNS if name in table)]]


def _map_values(table: pd.DataFrame, column: str, names: dict[str, Any], origin: str, expected: str) -> pd.Series:
    """The column with each of its few values as `names` has it, in any letter case."""
    codes, values = pd.factorize(table[column], use_na_sentinel=False)
    words = [str(value).strip().lower() for value in values]
    good = np.array([word in names for word in words], bool)[codes]
    _require(table[column], pd.Series(good, table.index), origin, expected)
    return pd.Series(np.array([names[word] for word in words], object)[codes], table.index)


def _require(column: pd.Series, good: pd.Series, origin: str, expected: str) -> None:
    bad = column[~good]
    if len(bad):
        value, row = bad.iloc[0], bad.index[0] + 1
        rows = plural(len(bad), "such row")
        raise UserError(f"{origin}, row {row}: {column.name} is {value!r}, expected {expected} ({rows}).")


def require_label_direction(table: pd.DataFrame, origin: str) -> None:
    """ValueError if most files under real/ are labelled fake and most of those under fake/ real: some lists count that way."""
    says = np.array([_class_word(path) for path in table["path"]], object)
    label = table["label"].to_numpy()
    under = {0: says == "real", 1: says == "fake"}
    wrong = {kind: under[kind] & (label != kind) for kind in under}
    if all(wrong[kind].sum() > max(2, SWAPPED_SHARE * under[kind].sum()) for kind in under):
        counts = [f"{wrong[kind].sum()} of {under[kind].sum()} files whose path says {name} are labelled {other}"
                  for kind, name, other in ((0, "real", "fake"), (1, "fake", "real"))]  # fmt: skip
        first = table["path"].to_numpy()[wrong[0]][0]
        raise UserError(f"{origin}: the labels stand the other way round: {' and '.join(counts)}, the first is {first}. Here 1 "
                        "means fake and 0 real. Swap them; if they are right as they are, give --data.labels as_given.")


def _class_word(path: str) -> str:
    """real, fake or nothing: what the innermost folder with such a word says, else the file's own name."""
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
    """ValueError if a group stands in two splits, naming the rows: what a test then measures is memory."""
    given = table.loc[table["split"] != "", ["group", "split"]].drop_duplicates()
    twice = given.loc[given["group"].duplicated(), "group"].drop_duplicates()
    if len(twice):
        group = min(twice)
        rows = table[(table["group"] == group) & (table["split"] != "")].drop_duplicates("split")
        where = ", ".join(f"row {index + 1} ({row.path}) in {row.split}" for index, row in rows.iterrows())
        raise UserError(
            f"Group {group!r} is in two splits: {where}. One person or original must stay in one split; mend the split "
            f"or group column ({plural(len(twice), 'such group')})."
        )


def split(table: pd.DataFrame, fractions: dict[str, float] | None = None) -> pd.DataFrame:
    """Fill in the missing splits: 70/10/20 by group, alike for each label and source, the same on every machine.

    A file whose split is given keeps it, and takes its group along. Where a test set is given but no validation,
    validation comes out of train: the test may choose nothing. Where every file has a split but none is test, what is
    missing comes out of train too: some sets ship as train, or as train and val. ValueError if a group has two splits.
    """
    require_unsplit_groups(table)
    fractions = fractions or SPLIT_FRACTIONS
    table = table.copy()
    known = dict(table.loc[table["split"] != "", ["group", "split"]].to_numpy())
    given, lacking = set(known.values()), [name for name in ("validation", "test") if name not in known.values()]
    splits = np.array([known.get(group, "") for group in table["group"]], object)
    free, targets = splits == "", fractions
    if lacking == ["validation"] or (lacking and given and not free.any()):
        total = fractions["train"] + sum(fractions[name] for name in lacking)
        parts = {name: fractions[name] / total for name in lacking}
        free, targets = free | (splits == "train"), {"train": 1 - sum(parts.values()), **parts}
    found = _assign_splits(table[free], targets)
    splits[free] = [found[group] for group in table.loc[free, "group"]]
    table["split"] = pd.Series(splits, table.index)
    return table


def _assign_splits(table: pd.DataFrame, targets: dict[str, float]) -> dict[str, str]:
    """Group -> split. Each stratum (the labels and sources of a group) goes wherever it and the whole lack most."""
    names, shares = list(targets), list(targets.values())
    total = [0] * len(names)
    out: dict[str, str] = {}
    for _, groups in sorted(_strata(table).items()):
        groups.sort(key=_shuffle_key)
        out.update(zip(groups, (names[place] for place in _choose_splits(len(groups), shares, total)), strict=True))
    return out


def _strata(table: pd.DataFrame) -> dict[str, list[str]]:
    """The labels and sources of a group -> the groups that have just these."""
    kinds, words = pd.factorize(table["label"].astype(str) + ":" + table["source"], sort=True)
    groups, names = pd.factorize(table["group"])
    pairs = np.unique(np.stack([groups, kinds]), axis=1) if len(table) else np.zeros((2, 0), int)
    ends = np.flatnonzero(np.diff(pairs[0], append=-1)) + 1
    strata: dict[tuple[int, ...], list[str]] = {}
    start = 0
    for end in ends.tolist():
        key = tuple(pairs[1, start:end].tolist())
        strata.setdefault(key, []).append(str(names[pairs[0, start]]))
        start = end
    merged: dict[str, list[str]] = {}
    for key, found in strata.items():
        merged.setdefault("|".join(words[kind] for kind in key), []).extend(found)
    return merged


def _choose_splits(count: int, shares: Sequence[float], total: list[int]) -> Iterator[int]:
    """For each of `count` groups the number of the share that it goes to; `total`, what each has so far, counts on."""
    here = [0] * len(shares)
    numbers = range(len(shares))
    done = sum(total)
    for nth in range(1, count + 1):
        done += 1
        lack = [(shares[i] * nth - here[i]) + 0.5 * (shares[i] * done - total[i]) for i in numbers]
        place = lack.index(max(lack))
        here[place] += 1
        total[place] += 1
        yield place


def _shuffle_key(group: str) -> bytes:
    """A fixed random order: names often sort by time or by quality."""
    return hashlib.sha256(group.encode("utf-8", "surrogateescape")).digest()


def attribution_classes(table: pd.DataFrame, by: str, families: Sequence[str] = ()) -> pd.Series:
    """What each fake is to be told as: its `source`, or its `family` after SOURCE=FAMILY pairs or the column of that name.

    Empty for reals and where it is not known. ValueError where by is family and nothing says which is which.
    """
    if by == "source":
        named = table["source"]
    elif families:
        named = table["source"].map(dict(pair.split("=") for pair in families)).fillna("")
    elif "family" in table:
        named = table["family"]
    else:
        raise UserError("--detector.attribute family needs a column family in the manifest, or --detector.families "
                         "SOURCE=FAMILY ... that says of which family each source is.")  # fmt: skip
    return named.where(table["label"] == 1, "")


def restrict_sources(table: pd.DataFrame, train_sources: Sequence[str], test_sources: Sequence[str]) -> pd.DataFrame:
    """Of a table with splits, the fakes of `train_sources` in train and validation, those of `test_sources` in test, and all
    reals; no names mean all sources. Files stay in their splits, so that a group never crosses."""
    dropped = pd.Series(False, table.index)
    for names, judged in ((train_sources, False), (test_sources, True)):
        if names:
            others = ~table["source"].isin(fake_sources(table, names))
            dropped |= (table["label"] == 1) & ((table["split"] == "test") == judged) & others
    return table[~dropped].reset_index(drop=True)


def fake_sources(table: pd.DataFrame, wanted: Sequence[str]) -> set[str]:
    """The sources of fakes that are wanted, which may be named in any letter case; a comma parts names, as in a list.
    ValueError for one that no fake has."""
    names = sorted(set(table.loc[table["label"] == 1, "source"]))
    known = {name.lower(): name for name in names}
    parts = [part.strip() for name in wanted for part in ([name] if name.lower() in known else name.split(","))]
    if unknown := [name for name in parts if name.lower() not in known]:
        near = get_close_matches(unknown[0].lower(), known, 1)
        hint = f"; perhaps you meant {known[near[0]]}" if near else ""
        raise UserError(f"No fakes have the source {unknown[0]!r}{hint}. There are {', '.join(names)}.")
    return {known[name.lower()] for name in parts}


def add_texts(table: pd.DataFrame, template: str) -> pd.DataFrame:
    """The table with a text in each row: its own, or the template with its category. ValueError where a row has neither."""
    category = table["category"] if "category" in table else pd.Series("", table.index)
    made = category.map(lambda name: template.replace("{category}", name) if name else "")
    text = table["text"].where(table["text"] != "", made)
    if (text == "").any():
        row = table[text == ""].iloc[0]
        raise UserError(f"--detector.text needs words on each picture: {(text == '').sum()} of {len(table)} files have "
                         f"neither text nor category, the first is {row.path}. Give a manifest with such a column.")  # fmt: skip
    return table.assign(text=text)


def require_classes(table: pd.DataFrame, splits: Sequence[str], learns: str = "both") -> None:
    """ValueError unless each of `splits` holds real and fake files, without which nothing is learnt and no threshold found;
    of test any: some published tests are fakes alone, and then there is a recall, if no AUC. What `learns` from "real" needs
    no fakes."""
    if set(splits) - {"test"}:
        _require_both_classes(table, learns)
    for name in splits:
        counts = table[table["split"] == name]["label"].value_counts()
        real, fake = int(counts.get(0, 0)), int(counts.get(1, 0))
        if not (real + fake if name == "test" else real and (fake or learns == "real")):
            needed = "some are" if name == "test" else "reals are" if learns == "real" else "both kinds are"
            groups = [table.loc[table["label"] == label, "group"].nunique() for label in (0, 1)]
            rule = table.attrs.get("groups", "The groups are those of the manifest.")
            raise UserError(
                f"The {name} split holds {real} real and {fake} fake files of {len(table)} in all, in "
                f"{plural(groups[0], 'group')} of reals and {groups[1]} of fakes; {needed} needed. {rule} Give more files (10 "
                "groups of each class at the least), a split column, or other groups: by a group column, or by --data.group "
                "folder, stem, file or a regular expression."
            )


def _require_both_classes(table: pd.DataFrame, learns: str) -> None:
    """ValueError where all files are of one class, saying what a folder holds besides."""
    for label, kind in ((0, "real"), (1, "fake")):
        if (table["label"] == label).any() or (kind == "fake" and learns == "real"):
            continue
        others = {name: count for name, count in table.attrs.get("left_out", {}).items() if name.endswith("/")}
        classes = {f"{name}/": count for name, count in table.attrs.get("classes", {}).items()}
        found = ", ".join(f"{name} ({plural(count, 'file')})" for name, count in {**classes, **others}.items())
        folders = f" Found: {found}." if found else ""
        alone = " A one-class detector, such as feature_oneclass or oc_ae, learns from reals alone." if kind == "fake" else ""
        raise UserError(
            f"All {len(table)} files are {('fake', 'real')[label]}, none is {kind}: a class folder is called real or fake, "
            f"--data.fake NAME names others that are fake, and then all the rest are real.{folders}{alone}"
        )


def write(table: pd.DataFrame, path: Path) -> None:
    """Write as CSV, whole or not at all: UTF-8, and where a file's name is none, its very bytes."""
    # A lone carriage return is not quoted by itself, and would then end the row.
    torn = any(table[name].astype(str).str.contains("\r", regex=False).any() for name in table.select_dtypes(exclude="number"))
    with atomic_write(path) as temporary:
        quoting = csv.QUOTE_NONNUMERIC if torn else csv.QUOTE_MINIMAL
        table.to_csv(temporary, index=False, errors="surrogateescape", quoting=quoting)
