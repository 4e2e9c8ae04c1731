"""Temperature, beta and isotonic calibration, the choice among them, and a shift of the prevalence: all have known answers."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression

from tfdetect.evaluation import calibration, predictions
from tfdetect.evaluation.calibration import METHODS, Beta, Calibration, Isotonic, choose, fit, refit
from tfdetect.evaluation.calibration.curves import fit_beta, fit_platt


def draw(log_odds, random):
    return (random.random(len(log_odds)) < expit(log_odds)).astype(int)


@pytest.mark.parametrize("temperature", [0.5, 2.5])
def test_temperature_scaling_recovers_a_known_temperature(rng, temperature):
    scores = rng.normal(size=40_000) * 3
    fitted = fit(scores, draw(scores / temperature, rng), method="temperature")
    assert 1 / fitted.slope == pytest.approx(temperature, rel=0.03) and fitted.intercept == 0


@pytest.mark.parametrize("known", [Beta(0.5, 2.0, 0.3), Beta(3.0, 1.0, -1.0)])
def test_beta_calibration_recovers_known_parameters(rng, known):
    log_odds = logit(rng.uniform(0.01, 0.99, 200_000))
    labels = draw(known.log_odds(log_odds), rng)
    found = fit_beta(log_odds, labels)
    assert (found.a, found.b, found.c) == pytest.approx((known.a, known.b, known.c), rel=0.05, abs=0.08)
    assert fit(log_odds, labels, method="beta").curve == found
    error = expit(known.log_odds(log_odds)) - fit(100 * log_odds + 7, labels, method="beta").probability(100 * log_odds + 7)
    assert np.abs(error).max() < 0.04, "Platt scaling, which comes first for other scores, leaves nearly the same curves"


def test_isotonic_calibration_equals_scikit_learn(rng):
    scores = np.round(rng.normal(size=2000), 2)  # with ties
    labels = draw(np.sin(3 * scores) + scores, rng)
    fitted = fit(scores, labels, method="isotonic")
    new = np.concatenate([rng.normal(size=1000) * 3, scores, [-1e9, 1e9]])
    expected = IsotonicRegression(out_of_bounds="clip").fit(scores, labels).predict(new)
    np.testing.assert_allclose(fitted.probability(new), expected, atol=1e-12)
    assert np.isfinite(fitted.log_odds(new)).all(), "though probabilities of 0 and 1 have infinite log-odds"


@pytest.mark.parametrize("method", METHODS)
def test_every_map_is_monotone_stored_bit_for_bit_and_inverted(rng, method):
    scores = rng.normal(size=600) + 100
    fitted = fit(scores, draw(2 * (scores - 100), rng), "fpr:0.1", method, coverage=0.9, prevalence=0.02)
    grid = np.linspace(90, 110, 5001)
    assert (np.diff(fitted.probability(grid)) >= 0).all() and (np.diff(fitted.log_odds(grid)) >= 0).all()
    assert Calibration.from_dict(json.loads(json.dumps(fitted.to_dict()))) == fitted
    cut = fitted.score_threshold
    called = fitted.probability(scores) >= fitted.threshold
    near = np.abs(scores - cut) < 1e-9
    assert (called == (scores >= cut))[~near].all()


@pytest.mark.parametrize("method", METHODS)
def test_calibrated_probabilities_agree_with_frequencies(rng, method):
    """Scores of Gaussian classes of equal spread: their log-odds are linear, so all methods but temperature fit them."""
    labels = rng.integers(0, 2, 40_000)
    scores = rng.normal(size=40_000) + 2 * labels - 1  # log-odds 2 x score: symmetric, so that temperature fits as well
    fitted = fit(scores[::2], labels[::2], method=method)
    np.testing.assert_allclose(fitted.probability(scores), expit(2 * scores), atol=0.06 if method == "isotonic" else 0.02)
    assert calibration.calibration_error(labels[1::2], fitted.probability(scores[1::2])) < 0.015


def test_old_calibrations_load_and_give_the_same_numbers():
    old = Calibration.from_dict({"slope": 2.0, "intercept": 0.25, "threshold": 0.4, "reals": 30, "fakes": 40})
    scores = np.linspace(-9, 9, 101)
    assert (old.probability(scores) == expit(2.0 * scores + 0.25)).all() and (old.log_odds(scores) == 2.0 * scores + 0.25).all()
    assert old.verdicts(scores).tolist() == np.where(expit(2.0 * scores + 0.25) >= 0.4, "fake", "real").tolist()


def test_the_method_that_fits_is_chosen_and_a_simpler_one_if_it_is_as_good(rng):
    scores = rng.normal(size=4000) * 2
    assert choose(scores, draw(scores / 2, rng))[0] == "temperature"
    assert choose(scores, draw(scores / 2 + 2, rng))[0] == "platt"
    assert choose(scores, draw(Beta(0.1, 4.0, 0).log_odds(scores), rng))[0] == "beta"
    steps = np.where(scores < -2, -3, np.where(scores < 2, 0, 3))
    method, losses = choose(scores, draw(steps, rng))
    assert method == "isotonic" and min(losses, key=losses.get) == "isotonic" and list(losses) == list(METHODS)


def test_with_few_files_only_simple_methods_compete(rng):
    for count, expected in ((19, None), (20, ["temperature", "platt"]), (100, ["temperature", "platt", "beta"])):
        labels = np.repeat([0, 1], count)
        method, losses = choose(rng.normal(size=2 * count) + labels + 3, labels)
        assert (losses and list(losses)) == expected and (losses or method == "platt")
    labels = np.repeat([0, 1], 19)
    scores = rng.normal(size=38) + labels
    assert fit(scores, labels, method="auto") == fit(scores, labels), "Platt scaling, bit for bit"


def test_groups_count_instead_of_their_files_and_are_not_divided(rng):
    """A hundred copies of 19 files of a class are no more than 19; their copies in training would tell those of the test."""
    labels, group = np.repeat([0, 1], 1900), np.repeat(np.arange(38), 100)
    scores = np.repeat(rng.normal(size=38), 100) + labels
    assert choose(scores, labels, group) == ("platt", None)
    assert choose(scores, labels)[0] == "isotonic", "without groups, the copies of a file tell its probability"


def test_a_prevalence_shifts_probabilities_and_changes_no_decision(rng):
    labels = np.repeat([0, 1], [300, 100])
    scores = rng.normal(size=400) + 2 * labels
    for method in METHODS:
        fitted = fit(scores, labels, "fpr:0.05", method)
        rare = fitted.with_prevalence(0.01)
        odds = expit(logit(fitted.probability(scores)) + np.log((0.01 / 0.99) / (100 / 300)))
        np.testing.assert_allclose(rare.probability(scores), odds, atol=1e-12)
        assert (rare.verdicts(scores) == fitted.verdicts(scores)).all() and rare.threshold < fitted.threshold
        assert rare.with_prevalence(None).threshold == pytest.approx(fitted.threshold)
    rare = fit(scores, labels, prevalence=0.25)
    assert rare.shift == pytest.approx(0) and rare.threshold == pytest.approx(fit(scores, labels).threshold)


def test_shifted_probabilities_are_right_where_fakes_are_rare(rng):
    scores = np.concatenate([rng.normal(size=200_000), rng.normal(size=2_000) + 2])
    labels = np.repeat([0, 1], [200_000, 2_000])
    balanced = np.r_[0:2000, 200_000:202_000]
    fitted = fit(scores[balanced], labels[balanced], prevalence=2_000 / 202_000)
    assert calibration.calibration_error(labels, fitted.probability(scores)) < 0.002
    assert calibration.calibration_error(labels, fitted.with_prevalence(None).probability(scores)) > 0.1


@pytest.mark.parametrize(("options", "message"), [
    ({"method": "beta"}, "--evaluate.calibration beta needs real and fake"),
    ({"prevalence": 0.01}, "--evaluate.prevalence 0.01 needs real and fake"),
])  # fmt: skip
def test_what_needs_both_classes_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        fit([0.0, 1.0, 2.0], [0, 0, 0], **options)


@pytest.mark.parametrize("make", [
    lambda: Beta(0, 1, 0), lambda: Beta(1, np.nan, 0), lambda: Isotonic((1, 1), (0, 1)), lambda: Isotonic((0, 1), (1, 0)),
    lambda: Isotonic((), ()), lambda: Calibration(1, 0, 0.5, prevalence=0.1), lambda: Calibration(1, 0, 0.5, 3, 3, prevalence=1),
    lambda: Calibration.from_dict({"slope": 1, "intercept": 0, "threshold": 0.5, "method": "beta"}),
])  # fmt: skip
def test_invalid_curves_raise_value_error(make):
    with pytest.raises(ValueError, match=r"xpected|calibration"):
        make()


def test_refit_changes_what_is_given_and_nothing_else(rng):
    labels = np.repeat([0, 1], 200)
    scores = rng.normal(size=400) + 2 * labels + 5
    stored = fit(scores, labels, "f1", "platt", coverage=0.9)
    groups = np.arange(400)
    assert refit(stored, scores, labels, groups) == stored
    assert refit(stored, scores, labels, groups, rule="fpr:0.01") == fit(scores, labels, "fpr:0.01", coverage=0.9)
    assert refit(stored, scores, labels, groups, coverage=0.0) == replace(stored, band=None)
    beta = refit(stored, scores, labels, groups, method="beta")
    assert beta.method == "beta" and (beta.verdicts(scores) == stored.verdicts(scores)).all()
    assert refit(stored, scores, labels, groups, prevalence=0.1) == stored.with_prevalence(0.1)


@pytest.mark.parametrize("method", METHODS)
def test_the_probability_of_a_file_is_that_of_its_mean_score(rng, tmp_path, method):
    """Also when it is read from predictions.csv; the mean of its frames' log-odds is another number for curved maps."""
    labels = rng.integers(0, 2, 1000)
    fitted = fit(rng.normal(size=1000) + labels, labels, method=method)
    rows = pd.DataFrame({"path": np.repeat(["a", "b"], 3), "label": 1, "group": "g", "source": "", "split": "test",
                         "frame": [0, 1, 2] * 2, "score": [-2.0, 0.1, 3.0, 1.0, 1.5, 2.0]})  # fmt: skip
    table = predictions.add_probabilities(rows, fitted)
    predictions.write(table, tmp_path / "p.csv")
    for found in (predictions.by_file(table), predictions.by_file(predictions.read(tmp_path / "p.csv"))):
        np.testing.assert_allclose(found["probability"], fitted.probability(found["score"]), atol=1e-12)
        np.testing.assert_allclose(found["log_odds"], fitted.log_odds(found["score"]), atol=1e-9)
        assert predictions.by_file(found)["probability"].tolist() == found["probability"].tolist()
    assert ("file_log_odds" in table) == (method in ("beta", "isotonic"))


def test_platt_scaling_of_few_files_is_what_it_was():
    """The numbers are those of the version before the other methods."""
    scores, labels = np.arange(8.0), np.array([0, 0, 1, 0, 1, 0, 1, 1])
    assert fit_platt(scores, labels) == pytest.approx((0.051980741749975794, -0.18193259612491525), rel=1e-7)
