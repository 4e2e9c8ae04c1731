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
def test_fit_recovers_the_slope_and_intercept_that_made_the_labels(slope, intercept):
    random = np.random.default_rng(0)
    scores = random.normal(size=40_000) * 2 + 0.7
    labels = (random.random(40_000) < expit(slope * scores + intercept)).astype(int)
    found = fit(scores, labels)
    assert found.slope == pytest.approx(slope, rel=0.04)
    assert found.intercept == pytest.approx(intercept, rel=0.06)
    assert calibration_error(labels, found.probability(scores)) < 0.015


def test_fit_does_not_depend_on_the_unit_of_the_scores():
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 200)
    scores = random.normal(size=200) + labels
    small, large = fit(scores, labels), fit(scores * 1e6 + 1e8, labels)
    np.testing.assert_allclose(large.probability(scores * 1e6 + 1e8), small.probability(scores), atol=1e-5)
    assert large.threshold == pytest.approx(small.threshold, abs=1e-5)


def test_the_order_never_turns_round_even_where_validation_says_so():
    found = fit([5, 4, 3, 2, 1, 0], [0, 0, 0, 1, 1, 1])
    assert found.slope > 0
    assert (np.diff(found.probability(np.linspace(-10, 10, 50))) > 0).all()


@pytest.mark.parametrize(("scores", "labels"), [
    ([0, 1, 2, 3], [0, 0, 1, 1]),
    ([0, 1], [0, 1]),
    ([-1e5, -9e4, 9e4, 1e5], [0, 0, 1, 1]),
    ([1.0, 1.0 + 1e-15, 1.0 + 1e-9, 1.0 + 2e-9], [0, 0, 1, 1]),
])
def test_tiny_and_separated_sets_are_parted_and_stay_finite(scores, labels):
    found = fit(scores, labels)
    probabilities = found.probability(scores)
    assert ((probabilities >= found.threshold) == np.array(labels, bool)).all()
    assert np.isfinite([found.slope, found.intercept]).all()
    assert 0.5 < probabilities[-1] < 0.6, "two files of each class make nobody sure"


def test_few_files_make_no_other_score_certain_and_say_so():
    """Two validation files that happen to be close: a score a thousand times further away once had a probability of 1."""
    found = fit([0.01, 0.02], [0, 1])
    assert 0.5 < found.probability([10.0])[0] < 0.75
    assert found.probability([0.02])[0] >= found.threshold > found.probability([0.01])[0]
    assert "1 real and 1 fake validation files" in found.warnings[0]


def test_the_slope_is_let_go_by_twenty_files_of_each_class():
    random, slopes = np.random.default_rng(0), []
    for count in (1, 2, 5, 10, 19, 20):
        labels = np.repeat([0, 1], count)
        slopes.append(np.mean([fit(random.normal(size=2 * count) + 2 * labels, labels).slope for _ in range(50)]))
    assert (np.diff(slopes) > 0).all() and slopes[0] < 0.1 * slopes[-1]
    labels = np.repeat([0, 1], [20, 400])
    scores = random.normal(size=420) + labels
    assert fit(scores, labels).warnings == ()
    for fewer in (slice(1, None), slice(20)):
        assert len(fit(scores[fewer], labels[fewer]).warnings) == 1
    assert Calibration(1, 0, 0.5).warnings == (), "an older calibration.json has no counts"


def test_equal_scores_tell_nothing():
    found = fit([2.0, 2.0, 2.0, 2.0], [0, 1, 0, 1])
    np.testing.assert_allclose(found.probability([2.0]), 0.5, atol=1e-3)
    assert found.threshold == 0.5


def test_threshold_has_the_best_balanced_accuracy_there_is():
    random = np.random.default_rng(3)
    labels = (random.random(300) < 0.2).astype(int)
    scores = random.normal(size=300) + 1.5 * labels
    found = fit(scores, labels)
    probabilities = found.probability(scores)

    def balanced(threshold):
        called = probabilities >= threshold
        return called[labels == 1].mean() - called[labels == 0].mean()

    assert balanced(found.threshold) == pytest.approx(max(balanced(value) for value in probabilities))


def test_of_equally_good_thresholds_the_one_nearest_to_a_half_is_taken():
    """Labels 0 1 0 1 in order of score: between the first two and between the last two are equally good."""
    scores = np.array([-1.0, 0.0, 0.5, 3.0])
    found = fit(scores, [0, 1, 0, 1])
    probabilities = found.probability(scores)
    middles = (probabilities[[0, 2]] + probabilities[[1, 3]]) / 2
    assert found.threshold == pytest.approx(min(middles, key=lambda value: abs(value - 0.5)))


def test_threshold_parts_even_neighbouring_floats():
    pair = np.array([0.5, np.nextafter(0.5, 1)])  # their middle rounds to the lower one
    assert (pair >= youden_threshold(pair, np.array([0, 1]))).tolist() == [False, True]


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
def test_reals_only_puts_about_one_in_twenty_above_the_threshold(scale):
    scores = np.random.default_rng(0).normal(size=1000) * scale
    found = fit(scores, np.zeros(1000, int))
    flagged = (found.probability(scores) >= found.threshold).mean()
    assert 0.03 < flagged <= 0.05
    assert found.probability([20 * scale])[0] > 0.99


@pytest.mark.parametrize("scores", [[1.0], [3.0, 3.0, 3.0], [1e9] * 4, [0.0, 1.0, 2.0]])
def test_reals_only_never_flags_them_all(scores):
    """The lowest score as threshold, which is what the best F1 without fakes amounts to, would flag every file."""
    found = fit(scores, [0] * len(scores))
    assert not (found.probability(scores) >= found.threshold).any()


def test_fakes_only_finds_about_nineteen_in_twenty():
    scores = np.random.default_rng(0).normal(size=1000)
    found = fit(scores, np.ones(1000, int))
    assert found.slope > 0
    assert 0.95 <= (found.probability(scores) >= found.threshold).mean() < 0.97


def test_dict_goes_through_json_and_back_bit_for_bit():
    given = fit(np.random.default_rng(0).normal(size=50), np.arange(50) % 2)
    assert Calibration.from_dict(json.loads(json.dumps(given.to_dict()))) == given


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
def test_wrong_input_is_refused(call):
    with pytest.raises(ValueError, match=r"xpected|calibration"):
        call()


def test_reliability_and_error_worked_by_hand():
    labels, probabilities = [0, 1, 1, 1], [0.1, 0.15, 0.9, 1.0]
    rows = reliability(labels, probabilities, bins=5)
    assert rows["n"].tolist() == [2, 2]
    expected = [[0, 0.2, 0.125, 0.5], [0.8, 1, 0.95, 1]]
    np.testing.assert_allclose(rows[["low", "high", "predicted", "observed"]], expected)
    assert calibration_error(labels, probabilities, bins=5) == pytest.approx((0.375 + 0.05) / 2)
    assert calibration_error([], []) is None


def test_the_threshold_passes_the_part_of_the_reals_that_was_asked_for(rng):
    scores, labels = rng.normal(size=500), np.repeat([0, 1], [400, 100])
    for rule, passed in (("quantile:0.8", 0.8), ("fpr:0.01", 0.99), ("quantile:1", 1.0), ("fpr:0", 1.0)):
        for some in (slice(None), slice(400)):  # without fakes, too
            found = fit(scores[some], labels[some], rule)
            reals = found.probability(scores[:400])
            assert (reals < found.threshold).mean() == pytest.approx(passed), rule


def test_equal_scores_pass_together():
    found = fit([0.0, 0.0, 0.0, 1.0, 2.0], [0, 0, 0, 0, 1], "quantile:0.5")
    assert (found.probability([0.0, 1.0]) >= found.threshold).tolist() == [False, True]


def test_the_f1_threshold_has_the_largest_f1_there_is(rng):
    from sklearn.metrics import f1_score

    labels = rng.integers(0, 2, 200)
    scores = rng.normal(size=200) + labels
    found = fit(scores, labels, "f1")
    probabilities = found.probability(scores)
    best = max(f1_score(labels, probabilities >= value) for value in probabilities)
    assert f1_score(labels, probabilities >= found.threshold) == pytest.approx(best)


@pytest.mark.parametrize("labels, rule, why", [
    ([0, 0, 0], "f1", "validation holds reals only: over no fakes at all, the best F1 flags every file"),
    ([1, 1, 1], "quantile:0.8", "there are none"),
])  # fmt: skip
def test_a_rule_that_the_files_cannot_serve_is_refused(labels, rule, why):
    with pytest.raises(ValueError, match=why):
        fit([0.0, 1.0, 2.0], labels, rule)


def test_the_pooled_threshold_is_a_quantile_of_all_scores_by_hand():
    """Of ten files the 80 % quantile lies a fifth of the way from the eighth to the ninth; two are called fake."""
    found = pool_threshold(Calibration(2.0, 1.0, 0.5), np.arange(10.0)[::-1] / 10, "pooled_test_quantile:0.8")
    low, high = expit(2 * 0.7 + 1), expit(2 * 0.8 + 1)
    assert (found.slope, found.intercept, found.threshold) == pytest.approx((2.0, 1.0, low + 0.2 * (high - low)))
    assert 0.7 < found.score_threshold < 0.8 and found.probability([found.score_threshold])[0] == pytest.approx(found.threshold)
    assert (found.probability(np.arange(10) / 10) >= found.threshold).sum() == 2


def test_with_the_pooled_threshold_a_published_table_follows_from_its_recall(rng):
    """250 reals and 250 fakes, of which it calls 400 real: with 207 reals among them the accuracy is 0.528, with 241 0.664."""
    for passed, accuracy in ((207, 0.528), (241, 0.664)):
        low, high = rng.permutation(400), rng.permutation(100) + 400
        labels, missed = np.repeat([0, 1], 250), 250 - passed
        scores = np.concatenate([low[:passed], high[:missed], low[passed:], high[missed:]])
        found = pool_threshold(Calibration(0.01, -3.0, 0.5), scores, "pooled_test_quantile:0.8")
        assert ((found.probability(scores) >= found.threshold) == labels).mean() == pytest.approx(accuracy)


def test_only_the_pooled_rule_is_said_to_have_seen_the_test():
    assert describe_rule("quantile:0.8") == "quantile:0.8, on validation files" and rule_warnings("quantile:0.8") == ()
    assert "80 % quantile of all test scores" in describe_rule("pooled_test_quantile:0.8")
    assert "SEEN THE TEST SET" in rule_warnings("pooled_test_quantile:0.8")[0]
    with pytest.raises(ValueError, match="read off the test's scores"):
        fit([0, 1], [0, 1], "pooled_test_quantile:0.8")
    with pytest.raises(ValueError, match="one finite score for each test file"):
        pool_threshold(Calibration(1, 0, 0.5), [], "pooled_test_quantile:0.8")
