"""Figures before and after, cross-fitting, and what reals alone determine, on files whose answers are known."""

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from tfdetect.errors import UserError
from tfdetect.evaluation import adaptation, calibration
from tfdetect.evaluation.adaptation import Judged
from tfdetect.evaluation.calibration import Calibration


def make_files(rng, n=60, shift=0.0, per_group=1, gap=2.0):
    """Scores of n reals and n fakes: normal, `gap` apart, moved by `shift`."""
    label = np.repeat([0, 1], n)
    score = rng.normal(size=2 * n) + gap * label + shift
    return pd.DataFrame({"score": score, "label": label, "group": [f"g{number // per_group}" for number in range(2 * n)]})


def test_figures_are_those_of_scikit_learn_and_differences_are_paired(rng):
    files = make_files(rng, shift=3.0)
    stored, fitted = Calibration(2.0, -2.0, 0.5), calibration.fit(files["score"], files["label"], coverage=0.9)
    before, after = (Judged.by(each, files["score"]) for each in (stored, fitted))
    found = {change.key: change for change in adaptation.compare(files["label"], files["group"], before, after)}
    for side, judged, each in (("before", before, stored), ("after", after, fitted)):
        probability, decision = each.probability(files["score"]), judged.fake
        for key, value in {"log_loss": sk.log_loss(files["label"], probability),
                           "auc": sk.roc_auc_score(files["label"], files["score"]),
                           "brier": sk.brier_score_loss(files["label"], probability),
                           "accuracy": sk.accuracy_score(files["label"], decision),
                           "balanced_accuracy": sk.balanced_accuracy_score(files["label"], decision),
                           "recall": sk.recall_score(files["label"], decision),
                           "calibration_error": calibration.calibration_error(files["label"], probability),
                           "inconclusive": (each.verdicts(files["score"]) == "inconclusive").mean(),
                           "real_coverage": (each.verdicts(files["score"])[:60] != "fake").mean()}.items():  # fmt: skip
            assert getattr(found[key], side) == pytest.approx(value, abs=1e-9), (key, side)
            low, high = getattr(found[key], f"{side}_interval")
            assert low <= getattr(found[key], side) <= high
    assert found["auc"].change == 0 and found["auc"].change_interval == [0, 0], "a monotone map changes no ranking"
    loss = found["log_loss"]
    assert loss.change == pytest.approx(loss.after - loss.before) and loss.change_interval[1] < 0
    same = adaptation.compare(files["label"], files["group"], before, before)
    assert all(change.change == 0 and change.change_interval == [0, 0] for change in same)


def test_one_class_has_the_figures_that_it_can_have(rng):
    files = make_files(rng)[:60]
    judged = Judged.by(Calibration(1.0, 0.0, 0.5), files["score"])
    found = {change.key for change in adaptation.compare(files["label"], files["group"], judged, judged)}
    assert found == {"accuracy", "false_positive_rate", "inconclusive", "real_coverage"}


def test_no_file_is_judged_by_a_fit_to_its_own_group(rng):
    files = make_files(rng, per_group=3)
    files["score"] += np.arange(len(files)) * 1e-6  # makes each unique
    fits = []

    def fit(rows):
        fits.append({*rows["group"]})
        return Calibration(1.0, float(len(fits)), 0.5)  # the intercept says which fit judged a file

    judged = adaptation.cross_fitted(files, fit)
    assert len(fits) == adaptation.FOLDS and (judged.score == files["score"]).all(), "in the order of the files"
    which = np.round(np.log(judged.probability / (1 - judged.probability)) - judged.score).astype(int) - 1
    assert {*which} == {*range(adaptation.FOLDS)}
    assert not any(group in fits[number] for group, number in zip(files["group"], which, strict=True))


def test_cross_fitted_figures_do_not_flatter():
    """Scores without information: fitted and judged on the same files they look better than chance, cross-fitted not."""
    gains = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        files = make_files(rng, n=25, gap=0.0)
        fit = lambda rows: calibration.fit(rows["score"], rows["label"])  # noqa: E731
        honest = adaptation.cross_fitted(files, fit).probability
        same = fit(files).probability(files["score"])
        gains.append([sk.log_loss(files["label"], each) - np.log(2) for each in (honest, same)])
    honest, same = np.mean(gains, axis=0)
    assert same < 0 < honest


@pytest.mark.parametrize("groups, message", [(["a"] * 30 + [f"b{n}" for n in range(30)], "The real files come from 1 groups"),
                                             (["a", "b", "c", "d"] * 15, "from 4 groups")])  # fmt: skip
def test_too_few_groups_are_refused(rng, groups, message):
    with pytest.raises(UserError, match=message):
        adaptation.cross_fitted(make_files(rng, n=30).assign(group=groups), lambda rows: Calibration(1.0, 0.0, 0.5))


def test_reals_alone_determine_their_edge_and_a_false_positive_rate(rng):
    own, new = make_files(rng, n=200), make_files(rng, n=200, shift=4.0)
    stored = calibration.fit(own["score"], own["label"], coverage=0.9)
    reals, unseen = new[new["label"] == 0], make_files(rng, n=2000, shift=4.0)[:2000]
    assert (stored.verdicts(unseen["score"]) == "fake").mean() > 0.9, "reals of another kind are called fake"
    fitted = adaptation.fit_to_reals(stored, reals["score"], reals["group"], "youden")
    assert (fitted.verdicts(unseen["score"]) == "fake").mean() < 0.13
    assert fitted.threshold == stored.threshold and fitted.band.fake_from == stored.band.fake_from
    with_rate = adaptation.fit_to_reals(stored, reals["score"], reals["group"], "fpr:0.05")
    assert (with_rate.probability(reals["score"]) >= with_rate.threshold).mean() <= 0.05
    assert (with_rate.slope, with_rate.intercept) == (stored.slope, stored.intercept)
    without = calibration.fit(own["score"], own["label"])
    with pytest.raises(UserError, match="no band of inconclusive scores.*--evaluate.fpr"):
        adaptation.fit_to_reals(without, reals["score"], reals["group"], "youden")
    with pytest.raises(UserError, match="too few groups"):
        adaptation.fit_to_reals(stored, reals["score"][:5], reals["group"][:5], "youden")
