"""Extra results of a run tested across sources: a verdict for each file as CSV, and its metrics as text."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tfdetect.evaluation.metrics import describe_interval
from tfdetect.evaluation.predictions import by_file


def verdict_table(predictions: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """Return one row per test file: file, probability of being fake (0..1), verdict ("fake" from `threshold` on, or "real")."""
    files = by_file(predictions[predictions["split"] == "test"])
    verdict = np.where(files["probability"] >= threshold, "fake", "real")
    return pd.DataFrame({"file": files["path"], "probability": files["probability"], "verdict": verdict})


def summary_text(run: str, train_sources: Sequence[str], predictions: pd.DataFrame, test: Mapping[str, Any]) -> str:
    """Return one line for each metric of the test split, after the sources of the fakes used for training and testing.

    `test` is the test split's `metrics.summarise`; no `train_sources` means all sources.
    """
    fakes = predictions[(predictions["split"] == "test") & (predictions["label"] == 1)]
    fake = test["per_class"]["fake"]
    lines = {
        "Run": run,
        "Trained on fakes from": ", ".join(train_sources) or "all sources",
        "Tested on fakes from": ", ".join(sorted(set(fakes["source"]))) or "none",
        "Test files": f"{test['n']}, {test['n_real']} real and {test['n_fake']} fake",
        "Accuracy": _format_number(test["accuracy"]),
        "Precision (fake)": _format_number(fake["precision"]),
        "Recall (fake)": _format_number(fake["recall"]),
        "F1 (fake)": _format_number(fake["f1"]),
        "AUC": _format_auc(test),
    }
    return "".join(f"{name}: {value}\n" for name, value in lines.items())


def _format_auc(test: Mapping[str, Any]) -> str:
    if test["auc"] is None:
        only = "real" if test["n_real"] else "fake"
        return f"none, the test set holds only {only} files; accuracy then equals their recall"
    return f"{test['auc']:.3f} ({describe_interval(test) or 'no interval, too few groups'})"


def _format_number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"
