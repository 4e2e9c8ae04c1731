"""The band of inconclusive scores: its coverage is known by theory, and checked over many simulated sets."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from tfdetect.evaluation.calibration import Band, Calibration, fit, fit_band, missing_files
from tfdetect.evaluation.clusters import effective_counts, precision_interval, share_interval, standard_error
from tfdetect.evaluation.verdicts import verdict_metrics
from tfdetect.pages.verdicts import verdicts_section

SETS = 40  # each is calibrated in full


@pytest.mark.parametrize(("coverage", "count"), [(0.9, 9), (0.9, 57), (0.95, 100), (0.5, 21)])
def test_the_coverage_of_either_class_is_the_level_over_many_sets(rng, coverage, count):
    """Of n scores the k-th lowest, k = ceil(coverage (n + 1)), exceeds a new one with probability k / (n + 1) exactly."""
    labels, found = np.repeat([0, 1], count), []
    for _ in range(4000):
        scores = rng.normal(size=2 * count) + labels
        band = fit_band(scores, labels, coverage)
        found.append([norm.cdf(band.real_up_to), norm.sf(band.fake_from - 1)])
    expected = np.ceil(coverage * (count + 1) - 1e-9) / (count + 1)
    errors = np.std(found, axis=0) / np.sqrt(len(found))
    assert (np.abs(np.mean(found, axis=0) - expected) < 2 * errors + 1e-4).all()


def test_the_coverage_holds_for_files_of_new_groups_where_files_of_a_group_are_alike(rng):
    """30 groups of 1 to 50 files with nearly equal scores; counting files instead would promise too much."""
    found = []
    for _ in range(3000):
        sizes = rng.integers(1, 51, 30)
        group = np.repeat(np.arange(30), sizes)
        scores = rng.normal(size=30)[group] + 0.1 * rng.normal(size=len(group))
        labels = (group >= 15).astype(int)
        band = fit_band(scores, labels, 0.9, group)
        found.append(norm.cdf(band.real_up_to, scale=np.hypot(1, 0.1)))
    error = np.std(found) / np.sqrt(len(found))
    assert 0.9 - 2 * error < np.mean(found) < 0.9 + 1 / 16 + 2 * error


@pytest.mark.parametrize("rule", ["youden", "fpr:0.01", "quantile:0.2"])
@pytest.mark.parametrize("distance", [0.5, 6.0])
def test_no_more_of_a_class_are_called_the_other_than_promised_whatever_the_threshold(rng, rule, distance):
    labels, wrong = np.repeat([0, 1], 50), []
    for _ in range(SETS):
        fitted = fit(rng.normal(size=100) + distance * labels, labels, rule, coverage=0.9)
        truth = np.repeat([0, 1], 500)
        verdicts = fitted.verdicts(rng.normal(size=1000) + distance * truth)
        wrong.append([(verdicts[truth == 0] == "fake").mean(), (verdicts[truth == 1] == "real").mean()])
    assert (np.mean(wrong, axis=0) <= 0.1 + 2 * np.std(wrong, axis=0) / np.sqrt(SETS)).all()


def test_verdicts_of_a_set_by_hand():
    """Of 9 files of a class all must lie inside at 0.9: reals up to 8 and fakes from 4 on; between them nothing is certain."""
    scores, labels = np.r_[np.arange(9.0), np.arange(4.0, 13)], np.repeat([0, 1], 9)
    fitted = fit(scores, labels, coverage=0.9)
    assert (fitted.band.fake_from, fitted.band.real_up_to) == pytest.approx((4, 8), abs=1e-3)
    assert fitted.verdicts([3.9, 4, 6, 8, 8.1]).tolist() == ["real", *["inconclusive"] * 3, "fake"]
    low, high = fitted.inconclusive
    assert fitted.probability([4, 8]) == pytest.approx([low, high], abs=1e-4)


def test_classes_that_do_not_overlap_have_no_inconclusive_files():
    fitted = fit(np.r_[np.arange(20.0), np.arange(100.0, 120)], np.repeat([0, 1], 20), coverage=0.9)
    assert set(fitted.verdicts(np.linspace(-50, 200, 999))) == {"real", "fake"} and fitted.inconclusive is None


def test_a_file_below_a_strict_threshold_is_not_called_real_if_its_score_is_one_of_fakes(rng):
    labels = np.repeat([0, 1], 100)
    scores = rng.normal(size=200) + labels
    fitted = fit(scores, labels, "fpr:0", coverage=0.5)
    between = (fitted.band.fake_from + fitted.score_threshold) / 2
    assert fitted.band.real_up_to < fitted.band.fake_from < between < fitted.score_threshold
    assert fitted.verdicts([between, 99.0, -99.0]).tolist() == ["inconclusive", "fake", "real"]


def test_too_few_files_are_refused_in_a_sentence():
    labels = np.repeat([0, 1], [9, 8])
    text = "A coverage of 0.9 needs 9 real and 9 fake validation files, but there are 9 real and 8 fake."
    assert missing_files(labels, 0.9) == text
    assert missing_files(labels, 0.85) == "" and "groups" in missing_files(labels, 0.85, np.arange(17) // 2)
    assert fit(np.arange(17.0), labels, coverage=0.9).band is None and fit_band(np.arange(17.0), labels, 0.99) is None
    for coverage, needed in ((0.99, 99), (0.95, 19), (0.8, 4), (0.5, 1)):
        assert missing_files(np.repeat([0, 1], needed), coverage) == ""
        assert missing_files(np.repeat([0, 1], needed - 1), coverage) != ""


def test_a_band_needs_finite_scores_and_a_share():
    for values in ((1.0, 0, 1), (0.9, np.nan, 1)):
        with pytest.raises(ValueError, match="Expected a coverage"):
            Band(*values)


def test_standard_errors_and_intervals_of_shares(rng):
    values = rng.normal(size=50)
    assert standard_error(values, np.arange(50)) == pytest.approx(values.std(ddof=1) / np.sqrt(50))
    twice = np.repeat(values, 2)
    assert standard_error(twice, np.arange(100) // 2) == pytest.approx(standard_error(values, np.arange(50)))
    assert standard_error([1.0, 2.0], ["a", "a"]) is None
    hits = np.arange(100) < 20
    assert share_interval(hits, np.arange(100)) == pytest.approx([0.1267, 0.2918], abs=2e-3), "Clopper and Pearson's table"
    assert share_interval(np.zeros(30, bool), np.arange(30)) == pytest.approx([0, 1 - 0.025 ** (1 / 30)])
    assert effective_counts(np.repeat(hits, 5), np.arange(500) // 5)[0] == pytest.approx(99, abs=2), "copies say nothing new"
    assert share_interval([], []) is None


def test_intervals_of_shares_cover_the_truth(rng):
    """40 groups of five files each, whose shares differ."""
    inside = []
    for _ in range(1000):
        rate = np.repeat(rng.beta(2, 6, 40), 5)
        low, high = share_interval(rng.random(200) < rate, np.arange(200) // 5)
        inside.append(low <= 0.25 <= high)
    assert 0.93 <= np.mean(inside) <= 0.99


def test_precision_where_fakes_are_rare_is_bayes_rule(rng):
    false, found = np.arange(1000) < 50, np.arange(1000) < 900
    value, (low, high) = precision_interval((false, found), (np.arange(1000), np.arange(1000)), 0.01)
    assert value == pytest.approx(0.01 * 0.9 / (0.01 * 0.9 + 0.99 * 0.05)) and low < value < high < 2 * low
    value, interval = precision_interval((np.zeros(50, bool), np.ones(50, bool)), (np.arange(50), np.arange(50)), 0.01)
    assert value == 1 and interval[0] < 0.3 and interval[1] == 1, "no error in 50 files proves little"


def test_precision_intervals_cover_the_truth(rng):
    truth = 0.01 * 0.8 / (0.01 * 0.8 + 0.99 * 0.06)
    inside = []
    for _ in range(500):
        low, high = precision_interval((rng.random(300) < 0.06, rng.random(200) < 0.8), (np.arange(300), np.arange(200)), 0.01)[1]
        inside.append(low <= truth <= high)
    assert 0.93 <= np.mean(inside) <= 0.98


def table(scores, labels):
    names = np.arange(len(scores)).astype(str)
    return pd.DataFrame({"path": names, "label": labels, "group": names, "source": "", "split": "test", "frame": 0,
                         "score": scores})  # fmt: skip


def test_verdict_metrics_by_hand():
    fitted = Calibration(1, 0, 0.5, 40, 40, band=Band(0.9, -1.0, 1.0))
    found = verdict_metrics(table([-2, -2, -2, 0, 2, 2, 0.5, -3], [0, 0, 0, 0, 0, 1, 1, 1]), fitted)
    real, fake = found["by_class"]["real"], found["by_class"]["fake"]
    keys = ("n", "right", "inconclusive", "wrong", "coverage")
    assert [real[key] for key in keys] == pytest.approx([5, 0.6, 0.2, 0.2, 0.8])
    assert (fake["n"], fake["right"], fake["inconclusive"], fake["wrong"]) == pytest.approx((3, 1 / 3, 1 / 3, 1 / 3))
    assert found["inconclusive"] == 2 / 8 and found["level"] == 0.9 and found["prevalence"] == 0.01
    assert found["precision"] == pytest.approx(0.01 / 3 / (0.01 / 3 + 0.99 * 0.2))
    text = verdicts_section(found)
    assert "at most 10 % are called the other" in text and "Where 1 % of the files are fake, 1.7 % (" in text
    one_class = verdict_metrics(table([0, 1], [0, 0]), Calibration(1, 0, 0.5))
    assert one_class["by_class"]["fake"]["coverage"] is None and one_class["precision"] is None and one_class["level"] is None
    assert "no band" in verdicts_section(one_class) and verdicts_section(None) == ""
