"""What the verdicts real, fake and inconclusive are worth: shares by class, and what "fake" means where fakes are rare."""

from typing import Any

import numpy as np
import pandas as pd

from tfdetect.evaluation.calibration import FAKE, INCONCLUSIVE, REAL, Calibration
from tfdetect.evaluation.clusters import precision_interval, share_interval
from tfdetect.evaluation.predictions import by_file

RARE = 0.01  # share of fakes for which a verdict is explained unless --evaluate.prevalence names another one


def verdict_metrics(predictions: pd.DataFrame, calibration: Calibration) -> dict[str, Any]:
    """Return what the verdicts on the files of one split are worth, ready for JSON; `predictions` as in `metrics.summarise`.

    `by_class` has for each class n, the shares right, inconclusive and wrong (called the other class) and `coverage`, 1 - wrong,
    with its 95 % interval, all None without files. `inconclusive` is the share of all files, with interval. `precision` is the
    share of files called fake that are fake where `prevalence` of all are, with interval; None without files of both classes.
    `level` is the coverage that the band was fitted for, None without a band; `threshold` is a probability where `prevalence` of
    all files are fake, if the calibration is for one.
    """
    files = by_file(predictions)
    verdict, label, group = calibration.verdicts(files["score"]), files["label"].to_numpy(), files["group"].to_numpy()
    out: dict[str, Any] = {"level": calibration.band.coverage if calibration.band else None, "threshold": calibration.threshold,
                           "method": calibration.method,
                           "method_losses": dict(calibration.losses) if calibration.losses else None, "by_class": {}}  # fmt: skip
    for kind, own, other in ((0, REAL, FAKE), (1, FAKE, REAL)):
        chosen, groups = verdict[label == kind], group[label == kind]
        shares = {name: float(np.mean(chosen == value)) if len(chosen) else None
                  for name, value in (("right", own), ("inconclusive", INCONCLUSIVE), ("wrong", other))}  # fmt: skip
        coverage = 1 - shares["wrong"] if shares["wrong"] is not None else None
        out["by_class"][own] = {"n": len(chosen), **shares, "coverage": coverage,
                                "coverage_interval": share_interval(chosen != other, groups)}  # fmt: skip
    doubtful = verdict == INCONCLUSIVE
    out["inconclusive"] = float(doubtful.mean()) if len(files) else None
    out["inconclusive_interval"] = share_interval(doubtful, group)
    out |= {"prevalence": calibration.prevalence or RARE, "precision": None, "precision_interval": None}
    if len(np.unique(label)) == 2:
        called, reals, fakes = verdict == FAKE, label == 0, label == 1
        out["precision"], out["precision_interval"] = precision_interval(
            (called[reals], called[fakes]), (group[reals], group[fakes]), out["prevalence"])  # fmt: skip
    return out
