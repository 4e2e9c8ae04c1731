import json

import numpy as np
import pytest
from scipy.special import expit

from tfdetect.evaluation.calibration import (
    Calibration,
    calibration_error,
    describe_rule,
    fit,
    pool_threshold,
    reliability,
    rule_warnings,
    youden_threshold,
)


@pytest.mark.parametrize(("slope", "intercept"), [(0.5, 1.0), (2.0, -1.0)])
def test_fit_recovers_slope_and_intercept(slope, intercept):
    random = np.random.default_rng(0)
    scores = random.normal(size=40_000) * 2 + 0.7
    labels = (random.random(40_000) < expit(slope * scores + intercept)).astype(int)
    fitted = fit(scores, labels)
    assert fitted.slope == pytest.approx(slope, rel=0.04)
    assert fitted.intercept == pytest.approx(intercept, rel=0.06)
    assert calibration_error(labels, fitted.probability(scores)) < 0.015


def test_fit_is_invariant_to_the_scale_of_the_scores():
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 200)
    scores = random.normal(size=200) + labels
    small, large = fit(scores, labels), fit(scores * 1e6 + 1e8, labels)
    np.testing.assert_allclose(large.probability(scores * 1e6 + 1e8), small.probability(scores), atol=1e-5)
    assert large.threshold == pytest.approx(small.threshold, abs=1e-5)


def test_slope_stays_positive_if_validation_is_ranked_in_reverse():
    fitted = fit([5, 4, 3, 2, 1, 0], [0, 0, 0, 1, 1, 1])
    assert fitted.slope > 0
    assert (np.diff(fitted.probability(np.linspace(-10, 10, 50))) > 0).all()


@pytest.mark.parametrize(("scores", "labels"), [
    ([0, 1, 2, 3], [0, 0, 1, 1]),
    ([0, 1], [0, 1]),
    ([-1e5, -9e4, 9e4, 1e5], [0, 0, 1, 1]),
    ([1.0, 1.0 + 1e-15, 1.0 + 1e-9, 1.0 + 2e-9], [0, 0, 1, 1]),
])
def test_tiny_and_separable_sets_are_separated_by_a_finite_fit(scores, labels):
    fitted = fit(scores, labels)
    probabilities = fitted.probability(scores)
    assert ((probabilities >= fitted.threshold) == np.array(labels, bool)).all()
    assert np.isfinite([fitted.slope, fitted.intercept]).all()
    assert 0.5 < probabilities[-1] < 0.6, "two files of each class are no basis for certainty"


def test_few_files_do_not_make_other_scores_certain_and_raise_a_warning():
    """Regression: after two validation files with similar scores, a score a thousand times farther away had probability 1."""
    fitted = fit([0.01, 0.02], [0, 1])
    assert 0.5 < fitted.probability([10.0])[0] < 0.75
    assert fitted.probability([0.02])[0] >= fitted.threshold > fitted.probability([0.01])[0]
    assert "1 real and 1 fake validation files" in fitted.warnings[0]


def test_regularisation_ends_at_twenty_files_of_each_class():
    random, slopes = np.random.default_rng(0), []
    for count in (1, 2, 5, 10, 19, 20):
        labels = np.repeat([0, 1], count)
        slopes.append(np.mean([fit(random.normal(size=2 * count) + 2 * labels, labels).slope for _ in range(50)]))
    assert (np.diff(slopes) > 0).all() and slopes[0] < 0.1 * slopes[-1]
    labels = np.repeat([0, 1], [20, 400])
    scores = random.normal(size=420) + labels
    assert fit(scores, labels).warnings == ()
    for too_few in (slice(1, None), slice(20)):
        assert len(fit(scores[too_few], labels[too_few]).warnings) == 1
    assert Calibration(1, 0, 0.5).warnings == (), "a calibration.json of an older version has no counts"


def test_equal_scores_give_probability_one_half():
    fitted = fit([2.0, 2.0, 2.0, 2.0], [0, 1, 0, 1])
    np.testing.assert_allclose(fitted.probability([2.0]), 0.5, atol=1e-3)
    assert fitted.threshold == 0.5


def test_youden_threshold_maximises_balanced_accuracy():
    random = np.random.default_rng(3)
    labels = (random.random(300) < 0.2).astype(int)
    scores = random.normal(size=300) + 1.5 * labels
    fitted = fit(scores, labels)
    probabilities = fitted.probability(scores)

    def balanced(threshold):
        flagged = probabilities >= threshold
        return flagged[labels == 1].mean() - flagged[labels == 0].mean()

    assert balanced(fitted.threshold) == pytest.approx(max(balanced(value) for value in probabilities))


def test_tied_thresholds_resolve_to_the_one_closest_to_one_half():
    """With labels 0 1 0 1 in order of score, thresholds between the first two and between the last two files tie."""
    scores = np.array([-1.0, 0.0, 0.5, 3.0])
    fitted = fit(scores, [0, 1, 0, 1])
    probabilities = fitted.probability(scores)
    middles = (probabilities[[0, 2]] + probabilities[[1, 3]]) / 2
    assert fitted.threshold == pytest.approx(min(middles, key=lambda value: abs(value - 0.5)))


def test_youden_threshold_separates_adjacent_floats():
    pair = np.array([0.5, np.nextafter(0.5, 1)])  # their midpoint rounds to the lower one
    assert (pair >= youden_threshold(pair, np.array([0, 1]))).tolist() == [False, True]


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
def test_with_real_files_only_five_percent_lie_above_the_threshold(scale):
    scores = np.random.default_rng(0).normal(size=1000) * scale
    fitted = fit(scores, np.zeros(1000, int))
    flagged = (fitted.probability(scores) >= fitted.threshold).mean()
    assert 0.03 < flagged <= 0.05
    assert fitted.probability([20 * scale])[0] > 0.99


@pytest.mark.parametrize("scores", [[1.0], [3.0, 3.0, 3.0], [1e9] * 4, [0.0, 1.0, 2.0]])
def test_with_real_files_only_the_threshold_never_flags_all(scores):
    """Without fakes, maximising F1 would choose the lowest score and flag every file."""
    fitted = fit(scores, [0] * len(scores))
    assert not (fitted.probability(scores) >= fitted.threshold).any()


def test_with_fakes_only_ninety_five_percent_lie_above_the_threshold():
    scores = np.random.default_rng(0).normal(size=1000)
    fitted = fit(scores, np.ones(1000, int))
    assert fitted.slope > 0
    assert 0.95 <= (fitted.probability(scores) >= fitted.threshold).mean() < 0.97


def test_dict_survives_json_bit_for_bit():
    original = fit(np.random.default_rng(0).normal(size=50), np.arange(50) % 2)
    assert Calibration.from_dict(json.loads(json.dumps(original.to_dict()))) == original


@pytest.mark.parametrize("call", [
    lambda: fit([], []),
    lambda: fit([1, 2], [0]),
    lambda: fit([1, np.nan], [0, 1]),
    lambda: fit([1, 2], [0, 2]),
    lambda: Calibration(-1, 0, 0.5),
    lambda: Calibration(1, np.nan, 0.5),
    lambda: Calibration(1, 0, 1.5),
    lambda: Calibration.from_dict({"slope": 1}),
])
def test_invalid_input_raises_value_error(call):
    with pytest.raises(ValueError, match=r"xpected|calibration"):
        call()


def test_reliability_and_calibration_error_match_a_manual_computation():
    labels, probabilities = [0, 1, 1, 1], [0.1, 0.15, 0.9, 1.0]
    rows = reliability(labels, probabilities, bins=5)
    assert rows["n"].tolist() == [2, 2]
    expected = [[0, 0.2, 0.125, 0.5], [0.8, 1, 0.95, 1]]
    np.testing.assert_allclose(rows[["low", "high", "predicted", "observed"]], expected)
    assert calibration_error(labels, probabilities, bins=5) == pytest.approx((0.375 + 0.05) / 2)
    assert calibration_error([], []) is None


def test_quantile_and_fpr_rules_pass_the_requested_share_of_real_files(rng):
    scores, labels = rng.normal(size=500), np.repeat([0, 1], [400, 100])
    for rule, share in (("quantile:0.8", 0.8), ("fpr:0.01", 0.99), ("quantile:1", 1.0), ("fpr:0", 1.0)):
        for subset in (slice(None), slice(400)):  # with and without fakes
            fitted = fit(scores[subset], labels[subset], rule)
            reals = fitted.probability(scores[:400])
            assert (reals < fitted.threshold).mean() == pytest.approx(share), rule


def test_equal_scores_fall_on_the_same_side_of_the_threshold():
    fitted = fit([0.0, 0.0, 0.0, 1.0, 2.0], [0, 0, 0, 0, 1], "quantile:0.5")
    assert (fitted.probability([0.0, 1.0]) >= fitted.threshold).tolist() == [False, True]


def test_f1_threshold_maximises_f1(rng):
    from sklearn.metrics import f1_score

    labels = rng.integers(0, 2, 200)
    scores = rng.normal(size=200) + labels
    fitted = fit(scores, labels, "f1")
    probabilities = fitted.probability(scores)
    best = max(f1_score(labels, probabilities >= value) for value in probabilities)
    assert f1_score(labels, probabilities >= fitted.threshold) == pytest.approx(best)


@pytest.mark.parametrize("labels, rule, message", [
    ([0, 0, 0], "f1", "validation holds only real files. Use quantile"),
    ([1, 1, 1], "f1", "validation holds only fake files. Use youden"),
    ([1, 1, 1], "quantile:0.8", "but there are none"),
])  # fmt: skip
def test_a_rule_that_needs_a_missing_class_raises(labels, rule, message):
    with pytest.raises(ValueError, match=message):
        fit([0.0, 1.0, 2.0], labels, rule)


def test_pooled_threshold_is_the_interpolated_quantile_of_all_scores():
    """For ten files the 80 % quantile lies a fifth of the way from the eighth to the ninth; two are called fake."""
    fitted = pool_threshold(Calibration(2.0, 1.0, 0.5), np.arange(10.0)[::-1] / 10, "pooled_test_quantile:0.8")
    low, high = expit(2 * 0.7 + 1), expit(2 * 0.8 + 1)
    assert (fitted.slope, fitted.intercept, fitted.threshold) == pytest.approx((2.0, 1.0, low + 0.2 * (high - low)))
    assert 0.7 < fitted.score_threshold < 0.8
    assert fitted.probability([fitted.score_threshold])[0] == pytest.approx(fitted.threshold)
    assert (fitted.probability(np.arange(10) / 10) >= fitted.threshold).sum() == 2


def test_pooled_threshold_reproduces_a_published_accuracy_from_its_recall(rng):
    """Of 250 real and 250 fake files, 400 are called real: if 207 of those are real the accuracy is 0.528, if 241 it is 0.664."""
    for passed, accuracy in ((207, 0.528), (241, 0.664)):
        low, high = rng.permutation(400), rng.permutation(100) + 400
        labels, missed = np.repeat([0, 1], 250), 250 - passed
        scores = np.concatenate([low[:passed], high[:missed], low[passed:], high[missed:]])
        fitted = pool_threshold(Calibration(0.01, -3.0, 0.5), scores, "pooled_test_quantile:0.8")
        assert ((fitted.probability(scores) >= fitted.threshold) == labels).mean() == pytest.approx(accuracy)


def test_only_the_pooled_rule_warns_about_the_test_set():
    assert describe_rule("quantile:0.8") == "quantile:0.8, on validation files" and rule_warnings("quantile:0.8") == ()
    assert "80 % quantile of all test scores" in describe_rule("pooled_test_quantile:0.8")
    assert "SEEN THE TEST SET" in rule_warnings("pooled_test_quantile:0.8")[0]
    with pytest.raises(ValueError, match="computed from test scores"):
        fit([0, 1], [0, 1], "pooled_test_quantile:0.8")
    with pytest.raises(ValueError, match="one finite score for each test file"):
        pool_threshold(Calibration(1, 0, 0.5), [], "pooled_test_quantile:0.8")
