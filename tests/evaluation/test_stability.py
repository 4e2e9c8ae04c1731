"""Verdicts before and after a change of the files, and the interval of a share."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tfdetect.evaluation import predictions
from tfdetect.evaluation.calibration import Calibration
from tfdetect.evaluation.calibration.conformal import Band
from tfdetect.evaluation.intervals import Resamples
from tfdetect.evaluation.stability import compare, mean_interval


def table(probabilities, frames=1):
    rows = [(f"{n}.png", int(n >= 2), f"g{n}", "", "test", frame, p, p, np.log(p / (1 - p)))
            for n, p in probabilities.items() for frame in range(frames)]  # fmt: skip
    return pd.DataFrame(rows, columns=[*predictions.COLUMNS, "probability", "log_odds"])


def test_flips_are_counted_by_direction_and_missing_files_left_out_of_both_sides():
    before, after = table({0: 0.2, 1: 0.6, 2: 0.4, 3: 0.9, 4: 0.8}, frames=2), table({0: 0.7, 1: 0.3, 2: 0.45, 3: 0.9}, frames=3)
    found, flips = compare(before, after, 0.5)
    assert (found["n"], found["n_real"], found["n_fake"], found["to_fake"], found["to_real"]) == (4, 2, 2, 1, 1)
    assert (found["accuracy_before"], found["accuracy"], found["flipped"]) == (0.5, 0.5, 0.5)
    assert (found["auc_before"], found["auc"]) == (0.75, 0.75)
    changes = flips[["path", "verdict_before", "verdict"]].to_numpy().tolist()
    assert changes == [["0.png", "real", "fake"], ["1.png", "fake", "real"]]
    assert flips["probability"].tolist() == pytest.approx([0.7, 0.3])


def test_with_a_band_verdicts_that_change_side_and_those_that_become_inconclusive_are_told_apart():
    """Scores are log-odds; probabilities from 0.4 to 0.6 are inconclusive."""
    calibration = Calibration(1.0, 0.0, 0.5, band=Band(0.9, np.log(0.4 / 0.6), np.log(0.6 / 0.4)))
    before = table({0: 0.2, 1: 0.3, 2: 0.5, 3: 0.9, 4: 0.7, 5: 0.8}).assign(score=lambda rows: rows["log_odds"])
    after = table({0: 0.7, 1: 0.45, 2: 0.8, 3: 0.55, 4: 0.3, 5: 0.9}).assign(score=lambda rows: rows["log_odds"])
    found, changed = compare(before, after, 0.5, calibration)
    assert (found["flipped"], found["became_inconclusive"]) == (pytest.approx(2 / 6), pytest.approx(2 / 6))
    assert [found[key] for key in ("to_fake", "to_real", "to_inconclusive", "from_inconclusive")] == [1, 1, 2, 1]
    assert changed[["path", "verdict_before", "verdict"]].to_numpy().tolist() == [
        ["0.png", "real", "fake"], ["1.png", "real", "inconclusive"], ["2.png", "inconclusive", "fake"],
        ["3.png", "fake", "inconclusive"], ["4.png", "fake", "real"]]  # fmt: skip
    without, _ = compare(before, after, 0.5, replace(calibration, band=None))
    assert (without["flipped"], without["became_inconclusive"], without["to_inconclusive"]) == (pytest.approx(2 / 6), None, 0)
    assert without["accuracy"] == found["accuracy"], "accuracy is that of the threshold"


def test_the_interval_of_a_share_covers_the_truth_and_resamples_groups():
    rng, covered, group = np.random.default_rng(0), 0, Resamples(np.arange(120).repeat(2), 400)
    for _ in range(400):
        value = (rng.random(120) < 0.3).repeat(2)  # both files of a group share their value
        low, high = mean_interval(value, group)
        covered += low <= 0.3 <= high
    assert 0.92 <= covered / 400 <= 0.98
    files = mean_interval(value, Resamples(np.arange(240), 4000))
    low, high = mean_interval(value, Resamples(np.arange(120).repeat(2), 4000))
    assert (high - low) / (files[1] - files[0]) == pytest.approx(2**0.5, abs=0.1)


def test_a_share_without_variation_has_the_interval_of_clopper_and_pearson():
    exact, groups = stats.binomtest(0, 30).proportion_ci(method="exact"), Resamples(np.arange(30).repeat(2))
    assert mean_interval(np.zeros(60), groups) == pytest.approx([exact.low, exact.high])
    low, high = mean_interval(np.ones(60), groups)
    assert (low, high) == (pytest.approx(1 - exact.high), 1)
    assert mean_interval([], Resamples([])) is None and mean_interval([1, 0], Resamples(["a", "a"])) is None


def test_if_none_of_the_files_could_be_scored_the_figures_are_undefined():
    found, flips = compare(table({}), table({}), 0.5)
    assert (found["n"], found["to_fake"], found["auc"], found["flipped_interval"]) == (0, 0, None, None) and flips.empty
    assert found.keys() == compare(table({0: 0.2, 3: 0.9}), table({0: 0.7, 3: 0.9}), 0.5)[0].keys()
