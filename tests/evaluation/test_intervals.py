"""Known answers: figures of weighted rows are scikit-learn's, intervals cover the truth, groups count and not frames."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from scipy.stats import norm
from sklearn import metrics as sk

from tfdetect.evaluation import intervals, metrics
from tfdetect.evaluation.intervals import TestSet

THRESHOLD = 0.5


def rows_of(labels, scores, groups=None, probabilities=None, source=None):
    labels, scores = np.asarray(labels), np.asarray(scores, float)
    table = pd.DataFrame({"path": np.arange(len(labels)).astype(str), "label": labels, "score": scores, "frame": 0,
                          "group": np.arange(len(labels)).astype(str) if groups is None else np.asarray(groups).astype(str),
                          "source": np.where(labels == 1, "gan", "camera") if source is None else source, "split": "test"})
    return table.assign(probability=expit(scores) if probabilities is None else probabilities)


def random_rows(files=200, groups=50, seed=0, ties=False):
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, files)
    scores = labels + random.normal(size=files)
    source = np.where(labels == 0, "camera", np.char.add("gan", random.integers(0, 3, files).astype(str)))
    return rows_of(labels, np.round(scores, 1) if ties else scores, random.integers(0, groups, files), source=source)


def expected_figures(labels, scores, probabilities, weights):
    """Return all figures of weighted rows by scikit-learn."""
    decisions, options = (probabilities >= THRESHOLD).astype(int), {"sample_weight": weights}
    false, true, _ = sk.roc_curve(labels, scores, **options)
    out = {"auc": sk.roc_auc_score(labels, scores, **options), "ap": sk.average_precision_score(labels, scores, **options),
           "accuracy": sk.accuracy_score(labels, decisions, **options), "mcc": sk.matthews_corrcoef(labels, decisions, **options),
           "balanced_accuracy": sk.balanced_accuracy_score(labels, decisions, **options),
           "f1": sk.f1_score(labels, decisions, **options), "log_loss": sk.log_loss(labels, probabilities, **options),
           "brier": sk.brier_score_loss(labels, probabilities, **options)}
    out |= {name: true[false <= rate].max() for name, rate in intervals.FALSE_POSITIVE_RATES.items()}
    values = sk.precision_recall_fscore_support(labels, decisions, labels=[0, 1], **options)
    return out | {f"per_class.{kind}.{name}": values[place][index] for index, kind in enumerate(("real", "fake"))
                  for place, name in enumerate(("precision", "recall", "f1"))}


@pytest.mark.parametrize("ties", [False, True])
def test_figures_of_every_resample_are_those_of_scikit_learn_and_of_the_repeated_rows(ties):
    rows = random_rows(ties=ties)
    sample = TestSet.of(rows, THRESHOLD, draws=5)
    drawn, labels, scores, probabilities = sample.draw(), *(rows[name].to_numpy() for name in ("label", "score", "probability"))
    for draw, weights in enumerate(sample.resamples.weights[sample.resamples.group].T):
        for name, value in expected_figures(labels, scores, probabilities, weights).items():
            assert drawn[name][draw] == pytest.approx(value, abs=1e-9), name
        repeated = np.repeat(np.arange(len(rows)), weights.astype(int))
        exact = metrics.equal_error_rate(labels[repeated], scores[repeated])
        assert drawn["eer"][draw] == pytest.approx(exact, abs=1e-9)
        exact = metrics.calibration_error(labels[repeated], probabilities[repeated])
        assert drawn["calibration_error"][draw] == pytest.approx(exact, abs=1e-9)


def test_figures_of_a_source_are_those_of_its_fakes_and_all_reals():
    rows = random_rows(ties=True)
    sample = TestSet.of(rows, THRESHOLD, draws=4)
    fakes = np.flatnonzero(rows["source"] == "gan1")
    drawn = sample.draw_source(fakes, np.array([], int))
    against = np.concatenate([np.flatnonzero(rows["label"] == 0), fakes])
    labels, scores = (rows[name].to_numpy()[against] for name in ("label", "score"))
    for draw, weights in enumerate(sample.resamples.weights[sample.resamples.group[against]].T):
        repeated = np.repeat(np.arange(len(against)), weights.astype(int))
        for name, figure in (("auc", metrics.auc), ("ap", metrics.average_precision), ("eer", metrics.equal_error_rate)):
            assert drawn[name][draw] == pytest.approx(figure(labels[repeated], scores[repeated]), abs=1e-9), name
        flagged = rows["probability"].to_numpy()[fakes] >= THRESHOLD
        assert drawn["recall"][draw] == pytest.approx(np.average(flagged, weights=weights[-len(fakes):]))


def test_every_figure_has_an_interval_around_it_and_macro_is_the_mean_over_sources():
    found = metrics.summarise(random_rows(files=900, groups=300), THRESHOLD)
    assert {key for key, value in found["intervals"].items() if value is None} == {"tpr_at_fpr_1e-3"}
    for key, ends in found["intervals"].items():
        assert ends is None or ends[0] < metrics.lookup(found, key) < ends[1], key
    assert found["auc_interval"] == found["intervals"]["auc"]
    sources = [row for row in found["by_source"].values() if row["n_fake"]]
    macro = found["macro_by_source"]
    assert macro["n_sources"] == 3 and macro["auc"] == pytest.approx(np.mean([row["auc"] for row in sources]))
    assert macro["recall"] == pytest.approx(np.mean([row["recall"] for row in sources]))
    widths = [np.ptp(row["intervals"]["auc"]) for row in sources]
    low, high = macro["intervals"]["auc"]
    assert low < macro["auc"] < high and high - low < min(widths)


def test_planted_answers():
    """One of four reals scores above one of four fakes; all probabilities are 0.1 off, which is also the calibration error."""
    labels, scores = [0, 0, 0, 0, 1, 1, 1, 1], [1, 2, 3, 6, 4, 5, 7, 8]
    found = metrics.summarise(rows_of(labels, scores, probabilities=np.where(np.asarray(labels) == 1, 0.9, 0.1)), THRESHOLD)
    assert found["auc"] == pytest.approx(14 / 16) and found["eer"] == pytest.approx(0.25)
    assert found["ap"] == pytest.approx((1 + 1 + 3 / 4 + 4 / 5) / 4)
    assert found["brier"] == pytest.approx(0.01) and found["calibration_error"] == pytest.approx(0.1)
    assert found["log_loss"] == pytest.approx(-np.log(0.9)) and found["mcc"] == 1 and found["accuracy"] == 1
    assert {"auc", "mcc", "per_class.real.recall"} <= set(found["few_files"])


def test_an_all_fake_predictor_has_recalls_0_and_1_and_no_correlation():
    found = metrics.summarise(random_rows().assign(probability=0.99), THRESHOLD)
    assert (found["per_class"]["real"]["recall"], found["per_class"]["fake"]["recall"]) == (0, 1)
    assert found["intervals"]["per_class.real.recall"] == [0, 0] and found["intervals"]["per_class.fake.recall"] == [1, 1]
    assert found["mcc"] == 0 and found["balanced_accuracy"] == 0.5


@pytest.mark.parametrize(("reals", "missing"), [(299, {"tpr_at_fpr_1e-2", "tpr_at_fpr_1e-3"}), (300, {"tpr_at_fpr_1e-3"}),
                                                (3000, set())])
def test_a_true_positive_rate_takes_enough_reals(reals, missing):
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1], [reals, 100])
    found = metrics.compute_metrics(rows_of(labels, random.normal(size=len(labels)) + 2 * labels), THRESHOLD)
    assert set(found["not_measurable"]) == missing == {key for key in intervals.FALSE_POSITIVE_RATES if found[key] is None}
    assert all("not measurable: needs" in text and f"got {reals:,}" in text for text in found["not_measurable"].values())
    for key, rate in intervals.FALSE_POSITIVE_RATES.items():
        if key not in missing:
            low, high = found["intervals"][key]
            assert low < norm.cdf(2 + norm.ppf(rate)) < high, "of two normal distributions two standard deviations apart"


@pytest.mark.parametrize(("reals", "fakes", "few"), [
    (20, 20, set()), (30, 0, set()), (19, 40, {"auc", "accuracy", "per_class.real.recall"}),
    (40, 19, {"auc", "accuracy", "per_class.fake.recall"})])  # fmt: skip
def test_figures_on_few_files_of_a_class_are_marked(reals, fakes, few):
    labels = np.repeat([0, 1], [reals, fakes])
    found = metrics.summarise(rows_of(labels, np.arange(len(labels)) % 7 + labels), THRESHOLD)
    recalls = {"per_class.real.recall", "per_class.fake.recall"}
    assert set(found["few_files"]) & {"auc", "accuracy", *recalls} == few
    assert ("auc" in found["by_source"].get("gan", {}).get("few_files", [])) == bool(few)


def test_bins_change_intervals_by_less_than_a_thousandth(monkeypatch):
    """3,000 files in 128 bins err by less than 0.002, in 1,024 bins by less than 0.0002 for AUC."""
    rows, found = random_rows(files=3000, groups=3000), {}
    for bins in (128, 1024, 4096):
        monkeypatch.setattr(intervals, "BINS", bins)
        found[bins] = metrics.compute_metrics(rows, THRESHOLD)["intervals"]
    for key in intervals.RANKING[:3]:
        for bins, error in ((128, 2e-3), (1024, 2e-4 if key == "auc" else 1e-3)):
            np.testing.assert_allclose(found[bins][key], found[4096][key], atol=error, err_msg=f"{key} {bins}")
    assert found[128]["auc"] != found[4096]["auc"], "the bins were not used"
    assert found[128]["accuracy"] == found[4096]["accuracy"]


@pytest.mark.parametrize("shift", [0.5, 1, 3])
def test_bins_err_by_less_than_is_stated(shift, monkeypatch):
    random, files = np.random.default_rng(0), 20_000
    labels = random.integers(2, size=files)
    scores, resamples = random.normal(size=files) + shift * labels, intervals.Resamples(np.arange(files), draws=20)
    binned = TestSet(labels, scores, None, None, resamples).draw()
    monkeypatch.setattr(intervals, "BINS", files)
    for key, exact in TestSet(labels, scores, None, None, resamples).draw().items():
        error = np.abs((binned[key] - binned[key][0]) - (exact - exact[0])).max()
        assert 0 < error < (2e-5 if key == "auc" else 1e-3), key


def test_bins_meet_low_false_positive_rates():
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1], [30_000, 3_000])
    sample = TestSet.of(rows_of(labels, random.normal(size=len(labels)) + 2 * labels), None, draws=1)
    exact = metrics.ranking_metrics(labels, sample.score)
    for key in intervals.FALSE_POSITIVE_RATES:
        assert sample.draw()[key][0] == pytest.approx(exact[key], abs=0.01), key


def test_many_groups_are_merged_without_changing_the_width(monkeypatch):
    rows = random_rows(files=4000, groups=10**9)
    wide = metrics.compute_metrics(rows, THRESHOLD)["intervals"]
    monkeypatch.setattr(intervals, "MAX_GROUPS", 1000)
    merged = metrics.compute_metrics(rows, THRESHOLD)["intervals"]
    assert len(TestSet.of(rows, THRESHOLD).resamples.weights) == 1000
    for key in ("auc", "accuracy", "brier", "ap", "mcc"):
        assert np.ptp(merged[key]) == pytest.approx(np.ptp(wide[key]), rel=0.15), key


def test_groups_of_correlated_frames_give_wider_intervals_than_frames():
    random = np.random.default_rng(0)
    labels, video = np.repeat([0, 1], 600), np.repeat(np.arange(120), 10)
    scores = labels + np.repeat(random.normal(size=120), 10) + 0.3 * random.normal(size=1200)
    groups, frames = (metrics.compute_metrics(rows_of(labels, scores, group), THRESHOLD)["intervals"] for group in (video, None))
    for key in ("auc", "ap", "eer", "accuracy", "f1", "mcc", "log_loss", "brier"):
        assert np.ptp(groups[key]) > 2 * np.ptp(frames[key]), key


@pytest.mark.parametrize(("sets", "margin"), [(500, 0.04), pytest.param(2000, 0.02, marks=pytest.mark.slow)])
def test_intervals_cover_the_truth_in_95_of_100_simulated_sets(sets, margin):
    """120 groups of a real and a fake with a common effect: the truth is that of normal distributions."""
    random, groups, shift, spread = np.random.default_rng(0), 120, 1.0, np.sqrt(1.25)
    labels, names = np.tile([0, 1], groups), np.repeat(np.arange(groups), 2)
    truth = {"auc": norm.cdf(shift / spread / np.sqrt(2)), "accuracy": norm.cdf(shift / 2 / spread)}
    truth |= {"per_class.fake.recall": truth["accuracy"], "balanced_accuracy": truth["accuracy"]}
    truth["mcc"] = 2 * truth["accuracy"] - 1
    covered = dict.fromkeys(truth, 0)
    for number in range(sets):
        scores = shift * labels + random.normal(size=len(labels)) + 0.5 * np.repeat(random.normal(size=groups), 2)
        sample = TestSet(labels, scores, expit(scores - shift / 2), THRESHOLD, intervals.Resamples(names, draws=400, seed=number))
        drawn = sample.draw()
        for key, ends in intervals.to_intervals(drawn, {key: values[0] for key, values in drawn.items()}, groups).items():
            if key in truth:
                covered[key] += ends[0] <= truth[key] <= ends[1]
    assert all(abs(count / sets - 0.95) <= margin for count in covered.values()), covered


def test_the_interval_of_the_calibration_error_covers_the_truth_where_percentiles_do_not():
    """Probabilities expit(z) where expit(0.6 z) is true; the truth is the error of the bins without noise."""
    random, key = np.random.default_rng(0), "calibration_error"
    logits = random.normal(0, 2, 10**6)
    gaps = np.bincount(intervals.bin_numbers(expit(logits)), expit(logits) - expit(0.6 * logits))
    truth, hits, plain = np.abs(gaps).sum() / len(logits), [], []
    for _ in range(80):
        logits = random.normal(0, 2, 400)
        rows = rows_of(random.random(400) < expit(0.6 * logits), logits).astype({"label": int})
        drawn = TestSet.of(rows, THRESHOLD, draws=150)._draw_probabilities()[key]
        value = metrics.calibration_error(rows["label"], rows["probability"])
        low, high = intervals.to_intervals({key: drawn}, {key: value}, 400)[key]
        assert 0 <= low <= value <= high <= 1
        hits.append(low <= truth <= high)
        plain.append(np.quantile(drawn[1:], 0.025) <= truth <= np.quantile(drawn[1:], 0.975))
    assert np.mean(hits) >= 0.85 and np.mean(plain) <= 0.5
