"""What the verdicts real, fake and inconclusive are worth: shares by class, and what "fake" means where fakes are rare."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tfdetect.evaluation.calibration import FAKE, INCONCLUSIVE, REAL, Calibration
from tfdetect.evaluation.clusters import precision_interval, share_interval
from tfdetect.evaluation.familiarity import DISTANCES, OTHER_CONTENT, OTHER_PROCESSING, Familiarity
from tfdetect.evaluation.predictions import by_file

RARE = 0.01  # share of fakes for which a verdict is explained unless --evaluate.prevalence names another one


def verdict_metrics(predictions: pd.DataFrame, calibration: Calibration, familiarity: Familiarity | None = None,
                    any_file: bool = False) -> dict[str, Any]:  # fmt: skip
    """Return what the verdicts on the files of one split are worth, ready for JSON; `predictions` as in `metrics.summarise`.

    `by_class` has for each class n, the shares right, inconclusive and wrong (called the other class) and `coverage`, 1 - wrong,
    with its 95 % interval, all None without files. `inconclusive` is the share of all files, with interval. `precision` is the
    share of files called fake that are fake where `prevalence` of all are, with interval; None without files of both classes.
    `level` is the coverage that the band was fitted for, None without a band; `threshold` is a probability where `prevalence` of
    all files are fake, if the calibration is for one. `unfamiliar` is what `unfamiliar_metrics` returns, None without
    `familiarity`; such files are inconclusive, unless `any_file` is to get its verdict.
    """
    files = by_file(predictions)
    reasons = familiarity.reasons(*(files[name] for name in DISTANCES)) if familiarity and DISTANCES[0] in files else None
    verdict, label, group = calibration.verdicts(files["score"]), files["label"].to_numpy(), files["group"].to_numpy()
    if reasons is not None and not any_file:
        verdict = np.where(reasons == "", verdict, INCONCLUSIVE)
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
    out["unfamiliar"] = unfamiliar_metrics(files, reasons, familiarity) if familiarity and reasons is not None else None
    return out


def unfamiliar_metrics(files: pd.DataFrame, reasons: NDArray[np.str_], familiarity: Familiarity) -> dict[str, Any]:
    """Return how many files, a row of `by_file` each, are unlike the training data for these reasons, ready for JSON.

    `sources` is a list with label ("real" or "fake"), source, n, share, interval (95 %), content and processing (the shares
    marked for either reason); the same, without label and source, of all files.
    """

    def shares(chosen: NDArray[np.bool_]) -> dict[str, Any]:
        found = reasons[chosen]
        share = {name: float(np.mean(found == reason)) if len(found) else None
                 for name, reason in (("content", OTHER_CONTENT), ("processing", OTHER_PROCESSING))}  # fmt: skip
        marked = found != ""
        return {"n": len(found), "share": float(marked.mean()) if len(found) else None,
                "interval": share_interval(marked, files["group"].to_numpy()[chosen]), **share}  # fmt: skip

    rows = [{"label": FAKE if label else REAL, "source": source,
             **shares(((files["label"] == label) & (files["source"] == source)).to_numpy())}
            for label, source in sorted({*zip(files["label"], files["source"], strict=True)})]  # fmt: skip
    return {"level": familiarity.level, "groups": familiarity.groups, **shares(np.ones(len(files), bool)), "sources": rows}
