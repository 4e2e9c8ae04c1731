import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from tfdetect.evaluation import comparison


def slow_delong(labels, first, second):
    """Return DeLong's p-value from its definition: all pairs of a fake and a real, in double loops."""
    wins = []
    for scores in (first, second):
        wins.append([[1.0 if fake > real else 0.5 if fake == real else 0.0 for real in scores[labels == 0]]
                     for fake in scores[labels == 1]])  # fmt: skip
    wins = np.array(wins)
    of_fakes, of_reals = wins.mean(axis=2), wins.mean(axis=1)
    covariance = np.cov(of_fakes) / of_fakes.shape[1] + np.cov(of_reals) / of_reals.shape[1]
    z = (wins[0].mean() - wins[1].mean()) / np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    return 2 * norm.sf(abs(z))


def two_detectors(random, files=120, gain=0.0):
    labels, common = np.arange(files) % 2, random.normal(size=files)
    return labels, (1 + gain) * labels + common + random.normal(size=files), labels + common + random.normal(size=files)


@pytest.mark.parametrize("ties", [False, True])
def test_delong_is_that_of_its_definition(ties):
    random = np.random.default_rng(0)
    labels, first, second = two_detectors(random, 61, 0.5)
    first, second = (np.round(scores) if ties else scores for scores in (first, second))
    assert comparison.delong(labels, first, second) == pytest.approx(slow_delong(labels, first, second), rel=1e-9)
    assert comparison.delong(labels, second, first) == comparison.delong(labels, first, second)


def test_delong_finds_a_difference_among_equals_in_5_of_100_tests():
    random = np.random.default_rng(0)
    found = sum(comparison.delong(*two_detectors(random)) < 0.05 for _ in range(1000))
    assert 35 <= found <= 65


def test_delong_without_variation_is_none():
    labels = np.array([0, 0, 1, 1])
    assert comparison.delong(labels, np.arange(4), np.arange(4)) is None
    assert comparison.delong(labels[1:], np.arange(3), -np.arange(3)) is None


def test_intervals_of_differences_cover_the_truth_and_are_paired():
    """Both detectors see the same noise, so the difference is known better than either AUC."""
    random, covered, sets = np.random.default_rng(0), 0, 200
    for _ in range(sets):
        labels, first, second = two_detectors(random)
        (row,) = comparison.compare(labels, np.arange(len(labels)) // 2, {"a": first, "b": second})
        covered += row["interval"][0] <= 0 <= row["interval"][1]
        assert row["difference"] == pytest.approx(roc_auc_score(labels, first) - roc_auc_score(labels, second))
    assert 0.91 <= covered / sets <= 0.985  # two standard errors around 0.95, and a little more
    (own,) = comparison.compare(labels, np.arange(len(labels)), {"a": first, "b": first + 1e-9 * second})
    assert np.ptp(own["interval"]) < 1e-6 and own["conclusion"] == "no difference"


def test_the_conclusion_takes_both_tests():
    random = np.random.default_rng(0)
    labels, better, worse = two_detectors(random, 400, 1.5)
    rows = comparison.compare(labels, np.arange(400), {"a": better, "b": worse, "c": worse + 0.01 * random.normal(size=400)})
    assert [(row["first"], row["second"]) for row in rows] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert [row["conclusion"] for row in rows] == [
        "a ranks these files better than b", "a ranks these files better than c", "may be chance"]  # fmt: skip
    assert "DeLong p < 0.001); a ranks" in comparison.sentence(rows[0])
    (same,) = comparison.compare(labels, np.arange(400), {"a": better, "b": np.exp(better)})
    assert (same["conclusion"], same["delong_p"]) == ("no difference", None)
    (few,) = comparison.compare(labels, labels, {"a": better, "b": worse})
    assert few["interval"] is None and few["conclusion"] == "too few groups to tell"
    (grouped,) = comparison.compare(labels, np.arange(400) // 100, {"b": worse, "a": better})
    assert grouped["difference"] < 0 and np.ptp(grouped["interval"]) > 0
    assert comparison.compare(np.ones(4), np.arange(4), {"a": np.arange(4), "b": np.arange(4)}) == []
