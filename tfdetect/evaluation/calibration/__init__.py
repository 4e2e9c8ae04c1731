"""Calibrate scores to probabilities, choose the decision threshold and the band of inconclusive scores, on validation files.

`curves` are the monotone maps from score to log-odds and their fits, `model` is a fitted calibration, `selection` chooses the
method, `thresholds` and `conformal` the decision, and `reliability` says how good probabilities are.
"""

from tfdetect.evaluation.calibration.conformal import Band, fit_band, missing_files, refit_real_edge
from tfdetect.evaluation.calibration.curves import MIN_FILES_PER_CLASS, Beta, Isotonic
from tfdetect.evaluation.calibration.model import FAKE, INCONCLUSIVE, REAL, Calibration
from tfdetect.evaluation.calibration.reliability import calibration_error, reliability
from tfdetect.evaluation.calibration.selection import METHODS, choose, fit, refit, require_both_classes
from tfdetect.evaluation.calibration.thresholds import (
    TEST_SEEN_NOTE,
    best_f1_threshold,
    check_rule,
    compute_threshold,
    describe_rule,
    f1_scores,
    is_pooled,
    pool_threshold,
    quantile_threshold,
    rule_warnings,
    youden_threshold,
)

__all__ = [
    "FAKE", "INCONCLUSIVE", "METHODS", "MIN_FILES_PER_CLASS", "REAL", "TEST_SEEN_NOTE", "Band", "Beta", "Calibration", "Isotonic",
    "best_f1_threshold", "calibration_error", "check_rule", "choose", "compute_threshold", "describe_rule", "f1_scores", "fit",
    "fit_band", "is_pooled", "missing_files", "pool_threshold", "quantile_threshold", "refit", "refit_real_edge",
    "reliability",
    "require_both_classes", "rule_warnings", "youden_threshold",
]  # fmt: skip
