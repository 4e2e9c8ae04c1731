"""What a test across sources leaves besides its report, for a spreadsheet and for a quick look: its verdicts, its figures."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tfdetect.evaluation.predictions import by_file


def verdict_table(predictions: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """A row a test file: file, probability 0..1 of being fake, and the verdict, "fake" from `threshold` on, else "real"."""
    files = by_file(predictions[predictions["split"] == "test"])
    verdict = np.where(files["probability"] >= threshold, "fake", "real")
    return pd.DataFrame({"file": files["path"], "probability": files["probability"], "verdict": verdict})


def summary_text(run: str, trained: Sequence[str], predictions: pd.DataFrame, test: Mapping[str, Any]) -> str:
    """A line a figure of the test's summary, under the sources of the fakes that it was trained and tested on."""
    fakes = predictions[(predictions["split"] == "test") & (predictions["label"] == 1)]
    fake = test["per_class"]["fake"]
    lines = {
        "Run": run,
        "Trained on the fakes of": ", ".join(trained) or "all sources",
        "Tested on the fakes of": ", ".join(sorted(set(fakes["source"]))) or "none",
        "Test files": f"{test['n']}, {test['n_real']} real and {test['n_fake']} fake",
        "Accuracy": _format_number(test["accuracy"]),
        "Precision of fake": _format_number(fake["precision"]),
        "Recall of fake": _format_number(fake["recall"]),
        "F1 of fake": _format_number(fake["f1"]),
        "AUC": _format_auc(test),
    }
    return "".join(f"{name}: {value}\n" for name, value in lines.items())


def _format_auc(test: Mapping[str, Any]) -> str:
    if test["auc"] is None:
        only = "real" if test["n_real"] else "fake"
        return f"none, the test holds {only} files only; accuracy is then no more than recall"
    low, high = test["auc_interval"] or (None, None)
    interval = "no interval, too few groups" if low is None else f"95 % interval {low:.3f} to {high:.3f}"
    return f"{test['auc']:.3f} ({interval})"


def _format_number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"
