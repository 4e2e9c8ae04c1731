"""Combine several detectors by averaging their calibrated probabilities, file by file.

Scores of different detectors have different units; probabilities calibrated on validation files are comparable.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tfdetect.errors import UserError
from tfdetect.evaluation.calibration import Calibration, compute_threshold, fit_band
from tfdetect.evaluation.predictions import COLUMNS, FILE_KEYS, by_file

RESERVED = (*COLUMNS, "probability", "log_odds", "frames", "mean")  # column names that no run may have


def unique_names(names: Sequence[str]) -> list[str]:
    """Return a distinct column name for each run; `_2`, `_3` ... is appended to names that are in use or reserved."""
    out: list[str] = []
    for name in names:
        candidates = (name, *(f"{name}_{number}" for number in range(2, len(names) + 3)))
        out.append(next(candidate for candidate in candidates if candidate not in (*RESERVED, *out)))
    return out


def align(tables: Mapping[str, pd.DataFrame], by: Sequence[str] = FILE_KEYS) -> dict[str, pd.DataFrame]:
    """Return each run's predictions per file, restricted to the files that all runs share, in the order of the first run.

    Files are matched by the columns `by`. Raises UserError if a run has no probabilities or the runs disagree on a label.
    """
    files = {name: by_file(table).set_index([*by], drop=False) for name, table in tables.items()}
    uncalibrated = [name for name, table in files.items() if "probability" not in table]
    if uncalibrated:
        raise UserError(f"{uncalibrated[0]} has no probabilities; only calibrated scores can be averaged.")
    first, *others = files.values()
    common = first.index[np.all([first.index.isin(other.index) for other in others], axis=0)] if others else first.index
    files = {name: table.loc[common].reset_index(drop=True) for name, table in files.items()}
    first, *others = files.values()
    for other in others:
        conflicts = first["path"][first["label"] != other["label"]]
        if len(conflicts):
            raise UserError(f"The runs disagree on whether {conflicts.iloc[0]} is fake ({len(conflicts)} such file(s)). "
                            "Use runs with the same labels.")  # fmt: skip
    return files


def average(tables: Mapping[str, pd.DataFrame], by: Sequence[str] = FILE_KEYS) -> pd.DataFrame:
    """Return the ensemble's predictions: mean probability, its log-odds as the score, and one column of probabilities per run.

    There is one row for each file that all runs share; group, source and split are those of the first run. The log-odds are
    computed from those of the runs, so that files keep their ranking where all probabilities round to 0 or 1.
    """
    from scipy.special import log_expit, logsumexp

    files = align(tables, by)
    members = pd.DataFrame({name: table["probability"] for name, table in files.items()})
    probability = members.mean(axis=1)
    out = next(iter(files.values()))[[*COLUMNS]].copy()
    log_odds = np.column_stack([table["log_odds"] for table in files.values()])
    out["score"] = logsumexp(log_expit(log_odds), axis=1) - logsumexp(log_expit(-log_odds), axis=1)
    return pd.concat([out.assign(probability=probability, log_odds=out["score"]), members], axis=1)


def file_scores(tables: Mapping[str, pd.DataFrame]) -> dict[str, pd.Series]:
    """Return each run's scores (files,) of the files that all runs share, in the order of `average`."""
    return {name: table["score"] for name, table in align(tables).items()}


def fit_threshold(validation: pd.DataFrame, rule: str = "youden") -> float | None:
    """Return the threshold that a rule of `calibration.fit` chooses for the mean probability, or None if a class is missing.

    `validation` holds files on which no run was trained.
    """
    label = validation["label"].to_numpy()
    return compute_threshold(validation["probability"].to_numpy(), label, rule) if len(np.unique(label)) == 2 else None


def fit_verdicts(validation: pd.DataFrame, rule: str = "youden", coverage: float | None = None,
                 prevalence: float | None = None) -> Calibration | None:  # fmt: skip
    """Return the calibration of the mean: its probability as it is, with the threshold of `fit_threshold`, a band of inconclusive
    scores for `coverage`, none if there are too few files for it, and `prevalence`. None if a class is missing."""
    if (threshold := fit_threshold(validation, rule)) is None:
        return None
    label, score = validation["label"].to_numpy(), validation["score"].to_numpy()
    band = fit_band(score, label, coverage, validation["group"].to_numpy()) if coverage else None
    reals, fakes = (int((label == kind).sum()) for kind in (0, 1))
    return Calibration(1.0, 0.0, threshold, reals, fakes, band=band).with_prevalence(prevalence)


def comparison_table(summaries: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Return one row of metrics per run, from its `metrics.summarise` on the same files."""
    columns = {"auc": "AUC", "auc_interval": "95 % interval", "accuracy": "accuracy", "eer": "EER"}
    rows = [[name, *(summary[key] for key in columns)] for name, summary in summaries.items()]
    return pd.DataFrame(rows, columns=["run", *columns.values()])
