"""The predictions table, which every metric and plot reads.

A clip detector has one row a file (frame 0), a frame detector one row for each frame of each file.

| column | what it holds |
|---|---|
| path | text; the file, as the manifest names it |
| label | 0 real, 1 fake |
| group | text; the person or original video: what may not be in two splits, and what the bootstrap draws |
| source | text; the generator, manipulation or camera set; may be empty |
| split | "validation" or "test" |
| frame | integer from 0 |
| score | real number; higher is more likely fake; no probability |
| probability | where there is a calibration: 0..1, of being fake |
| log_odds | with it: what the probability is the sigmoid of, so that frames that are sure of themselves can be averaged |

Further columns of numbers, such as one for each attributed source, are carried along.
"""

import csv
from os import PathLike

import numpy as np
import pandas as pd

from tfdetect.errors import UserError
from tfdetect.evaluation.calibration import Calibration

COLUMNS = ("path", "label", "group", "source", "split", "frame", "score")
SPLITS = ("validation", "test")
# A path alone is no identity: the four forgeries of FaceForensics++ share their file names.
FILE_KEYS = ["path", "group", "source"]
TEXT_COLUMNS = ["path", "group", "source", "split"]
SOURCE_CLASS = "source_class"  # text, where sources are attributed: what a fake is, among what the detector tells apart


def check(table: pd.DataFrame) -> pd.DataFrame:
    """A copy with the right types (text, int64, float64) and a fresh index, or a ValueError that says what is wrong.

    A probability column that is empty from top to bottom is dropped: it says that there is no calibration.
    """
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise UserError(f"The predictions lack the column(s) {', '.join(missing)}; expected {', '.join(COLUMNS)}.")
    table = table.reset_index(drop=True)
    if "probability" in table and table["probability"].isna().all():
        table = table.drop(columns=["probability", "log_odds"], errors="ignore")
    table["source"] = table["source"].fillna("")
    if SOURCE_CLASS in table:
        table[SOURCE_CLASS] = table[SOURCE_CLASS].fillna("").astype(str)
    for name in TEXT_COLUMNS:
        _require(table, table[name].notna(), f"has no {name}")
        table[name] = table[name].astype(str)
    _require(table, table["split"].isin(SPLITS), f"has a split other than {' or '.join(SPLITS)}")
    _require(table, table["label"].isin([0, 1]), "has a label other than 0 (real) and 1 (fake)")
    table = _convert_numbers(table)
    _check_files(table)
    return table


def _convert_numbers(table: pd.DataFrame) -> pd.DataFrame:
    """The same table with frame and label as int64, the other numbers as float64, all within their ranges."""
    for name in ("frame", "score", *(name for name in ("probability", "log_odds") if name in table)):
        table[name] = pd.to_numeric(table[name], errors="coerce").astype(np.float64)
        _require(table, np.isfinite(table[name]), f"has a {name} that is no finite number")
    _require(table, (table["frame"] >= 0) & (table["frame"] % 1 == 0), "has a frame that is no integer from 0")
    if "probability" in table:
        _require(table, table["probability"].between(0, 1), "has a probability outside 0..1")
    return table.astype({"label": np.int64, "frame": np.int64})


def _check_files(table: pd.DataFrame) -> None:
    _require(table, ~table.duplicated([*FILE_KEYS, "frame"]), "comes twice with the same frame; each frame is scored once")
    kinds = table.drop_duplicates([*FILE_KEYS, "label", "split"])
    _require(kinds, ~kinds.duplicated(FILE_KEYS), "has two labels or lies in two splits; a file has one of each")


def _require(table: pd.DataFrame, good: pd.Series, complaint: str) -> None:
    """ValueError that names the first file for which `good`, a boolean for each row, is false."""
    bad = table[~good]
    if len(bad):
        raise UserError(f"{bad['path'].iloc[0]!r} in the predictions {complaint} ({len(bad)} row(s) in all).")


def read(path: str | PathLike[str]) -> pd.DataFrame:
    """The checked table from a CSV file that `write` made. Names such as "NA" or "007" stay text.

    ValueError where a column is missing or a value is out of its range, OSError where the file cannot be read.
    """
    empty_is_none = {name: [""] for name in ("label", "frame", "score", "probability")}
    try:
        table = pd.read_csv(path, dtype=dict.fromkeys([*TEXT_COLUMNS, SOURCE_CLASS], str), keep_default_na=False, na_values=empty_is_none,
                            encoding_errors="surrogateescape")  # fmt: skip
    except ValueError as error:  # of the parser
        raise UserError(f"{path} is no table of predictions: {str(error).strip()}.") from error
    return check(table)


def write(table: pd.DataFrame, path: str | PathLike[str]) -> None:
    """Write the checked table as CSV, UTF-8, and where a file's name is none, its very bytes; `read` gives back every bit of a
    float64."""
    check(table).to_csv(path, index=False, quoting=csv.QUOTE_NONNUMERIC, errors="surrogateescape")


def file_scores(table: pd.DataFrame) -> pd.DataFrame:
    """One row a file, in order of first appearance: path, group, source, label and score, the mean of its frames' as float64.

    Whatever chooses or judges by files, from the epoch to a verdict, starts from this score; a probability comes after it.
    """
    return table.astype({"score": np.float64}).groupby([*FILE_KEYS, "label"], sort=False, dropna=False)["score"].mean().reset_index()


def add_probabilities(table: pd.DataFrame, calibration: Calibration) -> pd.DataFrame:
    """The table with the probability and the log-odds of each row's score."""
    return table.assign(probability=calibration.probability(table["score"]), log_odds=calibration.log_odds(table["score"]))


def by_file(table: pd.DataFrame) -> pd.DataFrame:
    """One row a file, in order of first appearance: mean score, `frame` 0, and `frames`, how many rows it came from.

    The probability of a file is the one that its mean score has. As the calibration is linear in the log-odds, that is
    the sigmoid of the mean log-odds of its frames; the calibration itself need not be known here. Probabilities without
    log-odds say no more than their digits do.
    """
    from scipy.special import expit, logit

    table = check(table)
    table["frames"] = table.get("frames", 1)
    if "probability" in table and "log_odds" not in table:
        table["log_odds"] = logit(np.clip(table["probability"], 2.0**-50, 1 - 2.0**-50))  # those of 0 and 1 are infinite
    keys = ["path", "label", "group", "source", "split", *([SOURCE_CLASS] if SOURCE_CLASS in table else [])]
    others = [name for name in table.select_dtypes("number") if name not in {*COLUMNS, "probability", "frames"}]
    grouped = table.groupby(keys, sort=False)
    files = grouped[["score", *others]].mean()
    files.insert(0, "frame", 0)
    if "probability" in table:
        # A file of one row keeps its very bits, so that a decision at the threshold cannot tip.
        mean = expit(files["log_odds"])
        files.insert(2, "probability", np.where(grouped.size() == 1, grouped["probability"].first(), mean))
    files["frames"] = grouped["frames"].sum()
    return files.reset_index()


def worst_mistakes(table: pd.DataFrame, threshold: float, count: int = 8) -> pd.DataFrame:
    """The files furthest on the wrong side of the threshold: at most `count` flagged reals, then `count` missed fakes.

    Needs the probability column (ValueError). The rows are those of `by_file`, the most wrong first.
    """
    files = by_file(table)
    if "probability" not in files:
        raise UserError("Finding the most wrong files needs probabilities; calibrate the scores first.")
    flagged = files["probability"] >= threshold
    reals = files[flagged & (files["label"] == 0)].sort_values("score", ascending=False, kind="stable").head(count)
    fakes = files[~flagged & (files["label"] == 1)].sort_values("score", kind="stable").head(count)
    return pd.concat([reals, fakes], ignore_index=True)
