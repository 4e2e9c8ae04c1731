"""Cross-fitting and stacking on planted scores: complementary detectors, one that knows one source, failures, leaks."""

import numpy as np
import pytest
from scipy.special import expit, logit

from tfdetect.evaluation import metrics, stacking
from tfdetect.evaluation.stacking import Scored


def plant(scores, labels, sources=None, groups=None, validation=None):
    count = len(labels)
    texts = [np.asarray(given, object) if given is not None else np.array([f"{name}{number}" for number in range(count)], object)
             for given, name in ((groups, "g"), (sources, "s"))]  # fmt: skip
    validation = np.zeros(count, bool) if validation is None else validation
    return Scored(np.asarray(scores, float), np.asarray(labels), *texts, validation)


def aucs(files, hold_out):
    """AUC of the best single detector, the mean and the stack."""
    return [metrics.auc(files.labels, column) for column in stacking.combine(files, hold_out).T]


def two_sources(count=400, seed=0):
    """Reals, and fakes of the sources a and b in equal number."""
    random = np.random.default_rng(seed)
    sources = np.repeat(["real", "a", "b"], [2 * count, count, count])
    return random, (sources != "real").astype(int), sources


def test_the_stack_of_complementary_detectors_beats_both():
    random, labels, sources = two_sources()
    scores = np.column_stack([random.normal(3.0 * (sources == name)) for name in "ab"])  # each sees one source
    files = plant(scores, labels, sources)
    singles = [metrics.auc(labels, column) for column in scores.T]
    best, mean, stack = aucs(files, "none")
    assert max(singles) < 0.8 and best <= max(singles) + 0.01
    assert mean > 0.88 and stack > 0.88


def test_a_detector_that_knows_one_source_is_found_out_when_sources_are_held_out():
    random, labels, sources = two_sources()
    honest = random.normal(0.8 * labels)  # a little of both sources
    memorised = random.normal(6.0 * (sources == "a") - 6.0 * (sources == "b"))  # b looks more real than the reals
    files = plant(np.column_stack([honest, memorised]), labels, sources)
    within, held_out = (aucs(files, hold_out)[2] for hold_out in ("none", "fakes"))
    assert metrics.auc(labels, honest) == pytest.approx(0.71, abs=0.03)
    assert within > held_out + 0.1


def test_whole_sources_and_groups_are_held_out_of_every_fit():
    """Like FaceForensics++: each group holds a real video and its fakes of three sources."""
    groups, sources = np.repeat(np.arange(60), 4), np.tile(["real", "x", "y", "z"], 60)
    labels = (sources != "real").astype(int)
    files = plant(np.zeros((240, 2)), labels, sources, groups)
    judged_once = np.zeros(240, int)
    for fit, judged in files.folds("fakes"):
        assert not set(groups[fit]) & set(groups[judged])
        assert not set(sources[fit & (labels == 1)]) & set(sources[judged & (labels == 1)])
        assert set(labels[fit]) == {0, 1}
        judged_once += judged
    assert (judged_once == 1).all()


def test_many_sources_are_held_out_in_ten_folds():
    sources = np.array([f"s{number}" for number in range(300)] + ["real"] * 300, object)
    files = plant(np.zeros((600, 2)), np.repeat([1, 0], 300), sources)
    assert len(set(files.source_folds("fakes"))) == stacking.SOURCE_FOLDS
    assert np.bincount(files.source_folds("fakes")[:300]).tolist() == [30] * 10
    assert sum(judged.sum() for _, judged in files.folds("fakes")) == 600


def test_sources_of_reals_are_held_out_as_well():
    """A source of both classes, such as a folder with fakes and their originals, is held out as a whole."""
    sources = np.array(["a", "b", "both", "camera", "phone", "both"], object).repeat(10)
    files = plant(np.zeros((60, 2)), np.repeat([1, 0], 30), sources)
    judged_once = np.zeros(60, int)
    for fit, judged in files.folds("all"):
        assert not set(sources[fit]) & set(sources[judged]) and set(files.labels[fit]) == {0, 1}
        judged_once += judged
    assert (judged_once == 1).all()


def test_detectors_that_know_cameras_are_found_out_when_reals_are_held_out_as_well():
    """One detector is honest (AUC 0.856), and three know the reals of one camera each, which says nothing of another camera."""
    random = np.random.default_rng(0)
    sources = np.array(["a", "b", "c", "phone", "camera", "film"], object).repeat(200)
    labels = np.repeat([1, 0], 600)
    scores = [random.normal(1.5 * labels)] + [random.normal(-5.0 * (sources == name)) for name in ("phone", "camera", "film")]
    files = plant(np.column_stack(scores), labels, sources)
    best, _, stack = stacking.strict_aucs(files).mean(0)
    assert best == pytest.approx(0.856, abs=0.03) and aucs(files, "fakes")[2] > 0.98
    assert stack < best
    assert not len(stacking.strict_aucs(plant(files.scores, labels, np.where(labels, sources, "real"))))


def test_few_files_leave_no_empty_part_to_judge():
    files = plant(np.random.default_rng(0).normal(size=(8, 2)), np.tile([0, 1], 4), np.tile(["real", "a", "real", "b"], 2))
    assert all(judged.any() for _, judged in files.folds("fakes"))
    assert np.isfinite(stacking.combine(files, "fakes")).all()


def test_one_source_cannot_be_held_out():
    files = plant(np.random.default_rng(0).normal(size=(40, 2)), np.repeat([1, 0], 20), np.repeat(["a", "real"], 20))
    assert not list(files.folds("fakes"))
    assert np.isnan(stacking.combine(files, "fakes")).all()


def test_validation_files_alone_are_fitted_on_and_only_others_judged():
    labels, validation = np.tile([0, 1], 40), np.arange(80) < 40
    groups = np.array([f"g{number}" for number in range(80)], object)
    groups[[10, 11]] = groups[[50, 51]]  # in both: not fitted on
    ((fit, judged),) = plant(np.zeros((80, 1)), labels, groups=groups, validation=validation).folds()
    assert (judged == ~validation).all()
    assert fit.sum() == 38 and not fit[[10, 11]].any()


def test_calibration_recovers_known_probabilities():
    random = np.random.default_rng(0)
    log_odds = random.normal(0, 2, 20000)
    labels = (random.random(20000) < expit(log_odds)).astype(int)
    files = plant((0.5 * log_odds + 3)[:, None], labels)
    assert np.abs(expit(stacking.calibrate_each(files)[:, 0]) - expit(log_odds)).max() < 0.03


def test_a_failed_score_is_no_evidence():
    """If the detector fails on fakes only, that is not learnt: a failed file keeps the odds before any score."""
    random = np.random.default_rng(1)
    labels = np.tile([0, 1], 300)
    other = random.normal(size=600)  # knows nothing
    first = np.where(labels == 1, np.nan, random.normal(size=600))
    first[1:200:2] = random.normal(size=100)
    found = stacking.combine(plant(np.column_stack([first, other]), labels), "none")[:, 2]
    assert metrics.auc(labels, found) < 0.6


def test_a_file_without_any_score_is_not_judged():
    scores = np.random.default_rng(0).normal(size=(40, 2))
    scores[3] = np.nan
    found = stacking.combine(plant(scores, np.tile([0, 1], 20)), "none")
    assert np.isnan(found[3]).all() and np.isfinite(np.delete(found, 3, axis=0)).all()


def test_average_leaves_missing_detectors_out_and_does_not_saturate():
    log_odds = np.array([[logit(0.9), logit(0.5)], [logit(0.9), logit(0.1)], [800.0, 900.0]])
    known = np.array([[True, True], [True, False], [True, True]])
    found = stacking.average(log_odds, known)
    assert expit(found[:2]) == pytest.approx([0.7, 0.9])
    assert 800 < found[2] < 801  # the mean of 1 - e^-800 and 1 - e^-900 is 1 - e^-800 / 2


def test_probabilities_are_known_by_their_range_and_become_log_odds():
    assert stacking.is_probability(np.array([0, 0.5, np.nan, 1])) and not stacking.is_probability(np.array([0.5, 1.01]))
    assert not stacking.is_probability(np.array([np.nan]))
    assert stacking.to_log_odds(np.array([0.5, 0.1, 1e-6])) == pytest.approx(logit([0.5, 0.1, 1e-6]))
    ends = stacking.to_log_odds(np.array([0, 1e-300, 1e-14, 1e-7, 1 - 1e-7, 1 - 1e-15, 1]))
    assert (np.diff(ends) > 0).all() and ends[0] > -21 and ends[-1] < 18
    assert stacking.to_log_odds(np.array([-2.0, 0.5])).tolist() == [-2.0, 0.5]


def test_verdicts_keep_the_coverage_of_each_class_and_leave_the_rest_open():
    """Reals are N(0, 1) and fakes N(1, 1): at a coverage of 0.9, scores from 1 - 1.28 to 1.28 are inconclusive."""
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1], 10000)
    score = random.normal(labels.astype(float))
    found = stacking.give_verdicts(plant(score[:, None], labels), score, 0.5, 0.9)
    for kind, other in ((0, "fake"), (1, "real")):
        assert (found[labels == kind] != other).mean() == pytest.approx(0.9, abs=0.01)
    expected = ((score > 1 - 1.2816) & (score < 1.2816)).mean()
    assert (found == "inconclusive").mean() == pytest.approx(expected, abs=0.02)
    assert stacking.give_verdicts(plant(score[:, None], labels), score, 0.5, 0.99999) is None


def test_too_few_groups_give_no_fit():
    files = plant([[0.1], [0.9]], [0, 1])
    assert not list(files.folds()) and np.isnan(stacking.calibrate_each(files)).all()
