"""Several detectors as one: the mean of their calibrated probabilities, file by file.

Scores of different detectors have different units; their probabilities, each calibrated on validation, do not.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tfdetect.errors import UserError
from tfdetect.evaluation.calibration import youden_threshold
from tfdetect.evaluation.predictions import COLUMNS, FILE_KEYS, by_file

RESERVED = (*COLUMNS, "probability", "log_odds", "frames", "mean")  # names that no run's column may have


def unique_names(wanted: Sequence[str]) -> list[str]:
    """A column name for each run: what is wanted, with a number where that is taken."""
    out: list[str] = []
    for name in wanted:
        choices = (name, *(f"{name}_{number}" for number in range(2, len(wanted) + 3)))
        out.append(next(choice for choice in choices if choice not in (*RESERVED, *out)))
    return out


def align(tables: Mapping[str, pd.DataFrame], by: Sequence[str] = FILE_KEYS) -> dict[str, pd.DataFrame]:
    """Each run's predictions, one row a file: the files that all runs have, in the order of the first run.

    `by` are the columns that say which file a row is. ValueError where a run has no probabilities, or another label.
    """
    files = {name: by_file(table).set_index([*by], drop=False) for name, table in tables.items()}
    lacking = [name for name, table in files.items() if "probability" not in table]
    if lacking:
        raise UserError(f"{lacking[0]} has no probabilities; only calibrated scores can be averaged.")
    first, *others = files.values()
    common = first.index[np.all([first.index.isin(other.index) for other in others], axis=0)] if others else first.index
    files = {name: table.loc[common].reset_index(drop=True) for name, table in files.items()}
    first, *others = files.values()
    for other in others:
        odd = first["path"][first["label"] != other["label"]]
        if len(odd):
            raise UserError(f"The runs do not agree on whether {odd.iloc[0]} is fake ({len(odd)} such file(s)).")
    return files


def average(tables: Mapping[str, pd.DataFrame], by: Sequence[str] = FILE_KEYS) -> pd.DataFrame:
    """The ensemble's predictions: mean probability, its log-odds as the score, and each run's probability by its name.

    The log-odds of the mean are made of those of the runs, so that files of which all are sure keep their order. One row for
    each file that all runs have; group, source and split are those of the first run.
    """
    from scipy.special import log_expit, logsumexp

    files = align(tables, by)
    members = pd.DataFrame({name: table["probability"] for name, table in files.items()})
    probability = members.mean(axis=1)
    out = next(iter(files.values()))[[*COLUMNS]].copy()
    odds = np.column_stack([table["log_odds"] for table in files.values()])
    out["score"] = logsumexp(log_expit(odds), axis=1) - logsumexp(log_expit(-odds), axis=1)
    return pd.concat([out.assign(probability=probability, log_odds=out["score"]), members], axis=1)


def fit_threshold(validation: pd.DataFrame) -> float | None:
    """For the mean, from validation files that no run was fitted on: the rule of `calibration.fit`. None without both
    classes."""
    label = validation["label"].to_numpy()
    return youden_threshold(validation["probability"].to_numpy(), label) if len(np.unique(label)) == 2 else None


def comparison_table(summaries: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """A row for each run from its summary on the same files."""
    columns = {"auc": "AUC", "auc_interval": "95 % interval", "accuracy": "accuracy", "eer": "equal error rate"}
    rows = [[name, *(found[key] for key in columns)] for name, found in summaries.items()]
    return pd.DataFrame(rows, columns=["run", *columns.values()])
