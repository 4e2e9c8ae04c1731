"""The predictions table, the input of all metrics and plots.

A clip detector has one row per file (frame 0), a frame detector one row for each frame of each file.

| column | content |
|---|---|
| path | text; the file, as named in the manifest |
| label | 0 real, 1 fake |
| group | text; the person or original video: never in two splits, and the unit that the bootstrap resamples |
| source | text; the generator, manipulation or camera set; may be empty |
| split | "validation" or "test" |
| frame | integer from 0 |
| face | only with --data.faces all: number of the face, 0 the largest; a row for each face, or each of its frames |
| box, box_frame | with it: left, top, width and height of the face in pixels, and the frame of the file where it is there |
| score | finite number, higher is more likely fake; not a probability |
| probability | only if calibrated: probability of being fake, 0..1 |
| log_odds | with it: the log-odds of that probability, which do not saturate when frames are averaged |
| file_log_odds | if calibration is not linear (beta, isotonic): those of the score of the file |
| aggregate | text, only if it is not the mean: how the scores of frames (and faces, `aggregation`) become that of their file |

Other numeric columns, such as one for each attributed source, are kept.
"""

import csv
from collections.abc import Sequence
from os import PathLike
from typing import Any

import numpy as np

from tfdetect.errors import UserError
from tfdetect.evaluation.aggregation import MEAN, aggregate_rows
from tfdetect.evaluation.calibration import Calibration
from tfdetect.pandas_settings import pd

COLUMNS = ("path", "label", "group", "source", "split", "frame", "score")
SPLITS = ("validation", "test")
# The path alone does not identify a file: the four manipulations of FaceForensics++ share their file names.
FILE_KEYS = ["path", "group", "source"]
TEXT_COLUMNS = ["path", "group", "source", "split"]
FILE_LOG_ODDS = "file_log_odds"
AGGREGATE = "aggregate"
FACE_COLUMNS = ("face", "box", "box_frame")
SOURCE_CLASS = "source_class"  # text, for detectors that attribute sources: the true class of a fake


def check(table: pd.DataFrame) -> pd.DataFrame:
    """Return a validated copy with the right types (text, int64, float64) and a fresh index.

    A probability column without any value is dropped: the scores are not calibrated. Raises UserError if a column is missing
    or a value is invalid.
    """
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise UserError(f"The predictions lack the column(s) {', '.join(missing)}; expected {', '.join(COLUMNS)}.")
    table = table.reset_index(drop=True)
    if "probability" in table and table["probability"].isna().all():
        table = table.drop(columns=["probability", "log_odds", FILE_LOG_ODDS], errors="ignore")
    table["source"] = table["source"].fillna("")
    if SOURCE_CLASS in table:
        table[SOURCE_CLASS] = table[SOURCE_CLASS].fillna("").astype(str)
    if AGGREGATE in table and table[AGGREGATE].nunique(dropna=False) > 1:
        raise UserError("The predictions name several ways to combine frames in the column aggregate; expected one.")
    for name in TEXT_COLUMNS:
        _require(table, table[name].notna(), f"has no {name}")
        table[name] = table[name].astype(str)
    _require(table, table["split"].isin(SPLITS), f"has a split other than {' or '.join(SPLITS)}")
    _require(table, table["label"].isin([0, 1]), "has a label other than 0 (real) and 1 (fake)")
    table = _convert_numbers(table)
    _check_files(table)
    return table


def _convert_numbers(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with label and frame as int64 and other numbers as float64. Raises UserError if one is out of range."""
    counts = ["frame", *(name for name in ("face", "box_frame") if name in table)]
    for name in (*counts, "score", *(name for name in ("probability", "log_odds", FILE_LOG_ODDS) if name in table)):
        table[name] = pd.to_numeric(table[name], errors="coerce").astype(np.float64)
        _require(table, np.isfinite(table[name]), f"has a {name} that is not a finite number")
    for name in counts:
        _require(table, (table[name] >= 0) & (table[name] % 1 == 0), f"has a {name} that is not a non-negative integer")
    if "probability" in table:
        _require(table, table["probability"].between(0, 1), "has a probability outside 0..1")
    return table.astype(dict.fromkeys(["label", *counts], np.int64))


def _check_files(table: pd.DataFrame) -> None:
    keys = [*FILE_KEYS, *(["face"] if "face" in table else []), "frame"]
    _require(table, ~table.duplicated(keys), "lists the same frame twice; expected one score per frame")
    combinations = table.drop_duplicates([*FILE_KEYS, "label", "split"])
    _require(combinations, ~combinations.duplicated(FILE_KEYS), "has two labels or two splits; expected one of each per file")


def _require(table: pd.DataFrame, valid: pd.Series, problem: str) -> None:
    """Raise UserError, naming the first affected file, unless `valid` (a boolean for each row) is true everywhere."""
    invalid = table[~valid]
    if len(invalid):
        raise UserError(f"{invalid['path'].iloc[0]!r} in the predictions {problem} ({len(invalid)} row(s) in total).")


def read(path: str | PathLike[str]) -> pd.DataFrame:
    """Return the checked table from a CSV file written by `write`. Names such as "NA" or "007" stay text.

    Raises UserError if the file is not a valid predictions table, OSError if it cannot be read.
    """
    empty_is_none = {name: [""] for name in ("label", "frame", "score", "probability")}
    try:
        texts = dict.fromkeys([*TEXT_COLUMNS, SOURCE_CLASS, AGGREGATE, "box"], str)
        table = pd.read_csv(path, dtype=texts, keep_default_na=False, na_values=empty_is_none,
                            encoding_errors="surrogateescape")  # fmt: skip
    except ValueError as error:  # from the CSV parser
        raise UserError(f"{path} is not a predictions table: {str(error).strip()}.") from error
    return check(table)


def write(table: pd.DataFrame, path: str | PathLike[str]) -> None:
    """Write the checked table as CSV; `read` restores every bit of a float64.

    The encoding is UTF-8; file names that are not valid UTF-8 are written byte for byte.
    """
    check(table).to_csv(path, index=False, quoting=csv.QUOTE_NONNUMERIC, errors="surrogateescape")


def file_scores(table: pd.DataFrame, also: Sequence[str] = ()) -> pd.DataFrame:
    """Return path, group, source, label, the columns `also`, and score (float64) of each file, in order of first appearance.

    Everything that ranks or classifies files, from the choice of the epoch to the verdict, uses this score.
    """
    files = [table[name] for name in (*FILE_KEYS, "label", *also)]
    return aggregate_rows(table[["score"]].astype(np.float64), files, aggregate_of(table), table.get("face")).reset_index()


def with_aggregate(table: pd.DataFrame, rule: str) -> pd.DataFrame:
    """Return a table of frames that says how their scores become those of files; unchanged for the mean."""
    return table if rule == MEAN else table.assign(**{AGGREGATE: rule})


def aggregate_of(table: pd.DataFrame) -> str:
    """Return how the scores of a table's frames become those of files."""
    return str(table[AGGREGATE].iloc[0]) if AGGREGATE in table and len(table) else MEAN


def add_probabilities(table: pd.DataFrame, calibration: Calibration) -> pd.DataFrame:
    """Return the table with the columns probability and log_odds, and, if need be, file_log_odds, computed from the scores.

    A table whose frames do not become files by their mean says so already (`with_aggregate`).
    """
    table = table.assign(probability=calibration.probability(table["score"]), log_odds=calibration.log_odds(table["score"]))
    if calibration.is_linear or not (table["frame"].any() or ("face" in table and table["face"].any())):
        return table
    scores = table[FILE_KEYS].merge(file_scores(table)[[*FILE_KEYS, "score"]], how="left", on=FILE_KEYS)["score"]
    return table.assign(**{FILE_LOG_ODDS: calibration.log_odds(scores)})


def by_file(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row per file in order of first appearance: its score, `frame` 0, and `frames`, the number of rows combined.

    The probability of a file is that of its score. Where calibration is linear in the log-odds and rising, this is the sigmoid of
    the aggregate of its frames' log-odds, else that of `file_log_odds`. Other numbers, such as probabilities of sources, are
    averaged. Log-odds that are missing are recovered from the probabilities, to the precision of those.
    """
    return combine_frames(check(table))


def combine_frames(checked: pd.DataFrame) -> pd.DataFrame:
    """Return the same of a table that `check` has returned: checking 10 million rows takes seconds."""
    from scipy.special import expit, logit

    table = checked.copy(deep=False)
    table["frames"] = table.get("frames", 1)
    if "probability" in table and "log_odds" not in table:
        table["log_odds"] = logit(np.clip(table["probability"], 2.0**-50, 1 - 2.0**-50))  # 0 and 1 would be infinite
    keys = ["path", "label", "group", "source", "split", *([SOURCE_CLASS] if SOURCE_CLASS in table else [])]
    combined = ["score", *(["log_odds"] if "log_odds" in table else [])]
    known = {*COLUMNS, *FACE_COLUMNS, *combined, "probability", "frames"}
    others = [name for name in table.select_dtypes("number") if name not in known]
    grouped = table.groupby(keys, sort=False)
    files = aggregate_rows(table[combined], [table[key] for key in keys], aggregate_of(table), table.get("face"))
    if others:
        files = files.join(grouped[others].mean())
    files.insert(0, "frame", 0)
    if FILE_LOG_ODDS in files:
        files["log_odds"] = files.pop(FILE_LOG_ODDS)
    if "probability" in table:
        # The probability of a single row is kept bit for bit, so that a decision at the threshold cannot flip.
        mean = expit(files["log_odds"])
        files.insert(2, "probability", np.where(grouped.size() == 1, grouped["probability"].first(), mean))
    files["frames"] = grouped["frames"].sum()
    return files.reset_index()


def clip_keys(rows: pd.DataFrame) -> list[tuple[Any, ...]]:
    """Return what the clip of each row is found by: the path of the file and, where there is one, the number of the face."""
    return list(rows[["path", *(["face"] if "face" in rows else [])]].itertuples(index=False, name=None))


def highest_face(table: pd.DataFrame, path: str) -> tuple[int, ...]:
    """Return the number of the face of a file with the highest score of a frame; () for a table without faces."""
    return (int(table.loc[table.loc[table["path"] == path, "score"].idxmax(), "face"]),) if "face" in table else ()


def worst_mistakes(table: pd.DataFrame, threshold: float, count: int = 8) -> pd.DataFrame:
    """Return at most `count` real files called fake and `count` missed fakes, those farthest from the threshold first.

    The rows are those of `by_file`. Raises UserError if there is no probability column.
    """
    files = by_file(table)
    if "probability" not in files:
        raise UserError("Finding the worst mistakes needs probabilities; calibrate the scores first.")
    flagged = files["probability"] >= threshold
    reals = files[flagged & (files["label"] == 0)].sort_values("score", ascending=False, kind="stable").head(count)
    fakes = files[~flagged & (files["label"] == 1)].sort_values("score", kind="stable").head(count)
    return pd.concat([reals, fakes], ignore_index=True)
