"""What the score of one file means."""

import numpy as np
import pandas as pd
import pytest

from tfdetect import machine
from tfdetect.evaluation import calibration, single_file


def drawn(rng, count):
    """Return `count` reals around 0 and as many fakes around 1.5, each a group of its own."""
    label = np.repeat([0, 1], count)
    return pd.DataFrame({"label": label, "group": np.arange(2 * count).astype(str), "score": rng.normal(1.5 * label, 1)})


def test_the_place_of_a_score_counts_reals_above_and_fakes_below():
    files = pd.DataFrame({"label": [0, 0, 0, 0, 1, 1], "group": list("abcdef"), "score": [0.0, 1.0, 2.0, 3.0, 1.0, 4.0]})
    real, fake = single_file.places(2.0, files)
    assert (real.label, real.files, real.share) == ("real", 4, 0.5), "2 and 3, the score itself included"
    assert (fake.label, fake.files, fake.share) == ("fake", 2, 0.5)
    assert 0 < real.interval[0] < 0.5 < real.interval[1] < 1
    [alone] = single_file.places(9.0, files[files["label"] == 0])
    assert alone.share == 0 and alone.interval == (0.0, pytest.approx(1 - 0.025 ** (1 / 4))), "Clopper and Pearson, none of 4"


@pytest.mark.parametrize("method", ["platt", "temperature", "beta", "isotonic"])
def test_the_interval_holds_the_probability_and_narrows_with_more_files(rng, method):
    widths = []
    for count in (30, 480):
        files = drawn(rng, count)
        fitted = calibration.fit(files["score"], files["label"], method=method)
        resampled = single_file.resampled_calibrations(fitted, files, draws=60)
        low, high = single_file.probability_interval(0.75, resampled)
        assert 0 < low < fitted.probability(0.75) < high < 1
        widths.append(high - low)
    assert widths[1] < 0.6 * widths[0], "a quarter for a parametric fit"


def test_the_interval_is_as_wide_as_what_other_validation_files_give(rng):
    """Against the spread of probabilities fitted to 200 fresh sets of validation files."""
    with machine.threads_for(120):
        sets = [drawn(rng, 60) for _ in range(200)]
        fresh = [calibration.fit(files["score"], files["label"]).probability(0.75) for files in sets]
    files = drawn(rng, 60)
    low, high = single_file.probability_interval(0.75, single_file.resampled_calibrations(
        calibration.fit(files["score"], files["label"]), files))  # fmt: skip
    assert 0.7 < (high - low) / (np.quantile(fresh, 0.975) - np.quantile(fresh, 0.025)) < 1.4


def test_files_of_one_group_are_drawn_together(rng):
    files = drawn(rng, 40)
    copies = pd.concat([files] * 5, ignore_index=True)
    fitted = calibration.fit(files["score"], files["label"])
    ends = [single_file.probability_interval(0.75, single_file.resampled_calibrations(fitted, table, 100))
            for table in (files, copies)]  # fmt: skip
    np.testing.assert_allclose(*ends, atol=0.03)  # five copies of each file, in its group, add nothing


def test_few_files_or_one_class_have_no_interval(rng):
    files = drawn(rng, 30)
    fitted = calibration.fit(files["score"], files["label"])
    assert single_file.resampled_calibrations(fitted, files[files["label"] == 0]) == []
    assert single_file.resampled_calibrations(fitted, drawn(rng, 19)) == []
    assert single_file.probability_interval(0.5, []) is None


def test_probabilities_follow_the_share_of_fakes_by_bayes_rule(rng):
    files = drawn(rng, 50)
    fitted = calibration.fit(files["score"], files["label"])
    found = dict(single_file.by_prevalence(0.75, fitted))
    ratio = fitted.probability(0.75) / (1 - fitted.probability(0.75))  # of the likelihoods: half of the files are fake
    for share, probability in found.items():
        assert probability / (1 - probability) == pytest.approx(ratio * share / (1 - share))
    assert set(found) == set(single_file.PREVALENCES) and found[0.5] == pytest.approx(float(fitted.probability(0.75)))
    assert single_file.by_prevalence(0.75, calibration.Calibration(1.0, 0.0, 0.5)) == ()
