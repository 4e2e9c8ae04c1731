import json

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from tfdetect.evaluation import metrics, predictions


def table(labels, scores, probabilities=None, source=("camera", "gan"), split="test", group=None):
    rows = [(f"{i}.png", label, group[i] if group else f"g{i}", source[label], split, 0, score)
            for i, (label, score) in enumerate(zip(labels, scores, strict=True))]
    out = pd.DataFrame(rows, columns=predictions.COLUMNS)
    return out if probabilities is None else out.assign(probability=probabilities)


LABELS = [0, 0, 0, 1, 1, 1, 1]
PROBABILITIES = [0.1, 0.4, 0.7, 0.2, 0.6, 0.8, 0.9]


def test_summary_matches_a_manual_computation():
    """At threshold 0.6, one of three real files is called fake, and three of four fakes are result."""
    result = metrics.summarise(table(LABELS, PROBABILITIES, PROBABILITIES), 0.6)
    assert (result["n"], result["n_real"], result["n_fake"], result["n_groups"]) == (7, 3, 4, 7)
    assert result["confusion"] == {"tn": 2, "fp": 1, "fn": 1, "tp": 3}
    assert result["accuracy"] == pytest.approx(5 / 7)
    assert result["balanced_accuracy"] == pytest.approx((2 / 3 + 3 / 4) / 2)
    assert result["per_class"]["fake"] == pytest.approx({"precision": 3 / 4, "recall": 3 / 4, "f1": 3 / 4})
    assert result["per_class"]["real"] == pytest.approx({"precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3})
    assert result["f1"] == result["per_class"]["fake"]["f1"]
    assert result["macro"] == pytest.approx(dict.fromkeys(("precision", "recall", "f1"), (3 / 4 + 2 / 3) / 2))
    # The fake scores lower in 3 of 12 pairs: 0.2 against 0.4 and 0.7, 0.6 against 0.7.
    assert result["auc"] == pytest.approx(9 / 12)
    assert result["ap"] == pytest.approx(sk.average_precision_score(LABELS, PROBABILITIES))
    assert result["log_loss"] == pytest.approx(-np.mean(np.log([0.9, 0.6, 0.3, 0.2, 0.6, 0.8, 0.9])))


def test_ties_count_half_in_the_auc():
    assert metrics.auc([0, 1], [3.0, 3.0]) == 0.5


@pytest.mark.parametrize(("labels", "scores", "expected"), [
    ([0, 0, 1, 1], [1, 2, 3, 4], 0.0),
    ([0, 0, 1, 1], [3, 4, 1, 2], 1.0),
    ([0, 0, 1, 1], [1, 3, 2, 4], 0.5),
    ([0, 1], [1, 1], 0.5),
    # One threshold flags 1 of 4 real files and misses 1 of 4 fakes.
    ([0, 0, 0, 0, 1, 1, 1, 1], [1, 2, 3, 6, 4, 5, 7, 8], 0.25),
    # All real files tie, so the ROC curve is (0, 1/2), (1, 1/2), (1, 1); it meets fpr = 1 - tpr half-way along the flat part.
    ([0, 0, 1, 1], [2, 2, 1, 3], 0.5),
    # One real file and both fakes tie: the segment from (0, 0) to (1/2, 1) meets fpr = 1 - tpr at 1/3.
    ([0, 0, 1, 1], [1, 2, 2, 2], 1 / 3),
])
def test_equal_error_rate(labels, scores, expected):
    assert metrics.equal_error_rate(labels, scores) == pytest.approx(expected)


def test_equal_error_rate_of_two_normal_distributions_matches_theory():
    from scipy.stats import norm

    random = np.random.default_rng(0)
    labels = np.repeat([0, 1], 50_000)
    scores = random.normal(size=100_000) + 2 * labels
    assert metrics.equal_error_rate(labels, scores) == pytest.approx(norm.cdf(-1), abs=5e-3)


def test_files_are_scored_by_the_mean_of_their_frames_and_names_may_repeat():
    """Two groups hold a file of the same name. One fake frame scores below a real one, but no fake file does."""
    rows = [("v.mp4", 0, "a", "camera", "test", 0, 0.0), ("v.mp4", 0, "a", "camera", "test", 1, 2.0),
            ("v.mp4", 1, "b", "gan", "test", 0, 1.5), ("v.mp4", 1, "b", "gan", "test", 1, 9.0)]
    result = metrics.summarise(pd.DataFrame(rows, columns=predictions.COLUMNS), None)
    assert (result["n"], result["by_frame"]["n"]) == (2, 4)
    assert (result["auc"], result["by_frame"]["auc"]) == (1.0, 0.75)
    assert "by_frame" not in result["by_frame"]


@pytest.mark.parametrize("label", [0, 1])
def test_undefined_metrics_of_one_class_are_none(label):
    result = metrics.summarise(table([label] * 3, [0.2, 0.4, 0.6], [0.2, 0.4, 0.6]), 0.5)
    text = json.dumps(result, allow_nan=False)
    for name in ("auc", "auc_interval", "ap", "eer", "balanced_accuracy"):
        assert result[name] is None, name
    assert result["per_class"][("fake", "real")[label]] == {"precision": None, "recall": None, "f1": None}
    assert result["accuracy"] == pytest.approx((2 / 3, 1 / 3)[label])
    assert json.loads(text) == result


@pytest.mark.parametrize("threshold", [None, 0.5])
def test_without_probabilities_only_ranking_metrics_are_computed(threshold):
    result = metrics.summarise(table(LABELS, PROBABILITIES), threshold)
    assert result["auc"] == pytest.approx(0.75)
    assert [result[name] for name in ("accuracy", "f1", "confusion", "log_loss", "calibration_error")] == [None] * 5
    assert result["by_source"]["gan"]["recall"] is None
    json.dumps(result, allow_nan=False)


def test_no_flagged_files_and_no_files_give_no_nan():
    none = metrics.summarise(table(LABELS, PROBABILITIES, PROBABILITIES), 1.0)
    assert none["per_class"]["fake"] == {"precision": None, "recall": 0.0, "f1": 0.0}
    empty = metrics.summarise(table([], []), 0.5)
    assert (empty["n"], empty["accuracy"]) == (0, None)
    json.dumps([none, empty], allow_nan=False)


def test_summary_of_two_splits_or_with_an_invalid_threshold_raises():
    both = pd.concat([table([0, 1], [0, 1]), table([0, 1], [0, 1], split="validation").assign(path=["a", "b"])])
    with pytest.raises(ValueError, match="one split"):
        metrics.summarise(both, 0.5)
    with pytest.raises(ValueError, match=r"0\.\.1"):
        metrics.summarise(table([0, 1], [0, 1]), 3.0)


def test_by_source_compares_the_fakes_of_a_source_with_all_real_files():
    frames = table([0, 0, 0, 0, 1, 1, 1, 1], [0.1, 0.2, 0.3, 0.6, 0.7, 0.8, 0.05, 0.65])
    frames["source"] = ["phone", "phone", "film", "film", "easy", "easy", "hard", "hard"]
    result = metrics.summarise(frames.assign(probability=frames["score"]), 0.5)["by_source"]
    assert set(result) == {"phone", "film", "easy", "hard"}
    assert (result["easy"]["auc"], result["hard"]["auc"]) == (1.0, 0.5)
    assert (result["easy"]["recall"], result["hard"]["recall"]) == (1.0, 0.5)
    assert (result["easy"]["n_fake"], result["easy"]["false_positive_rate"]) == (2, None)
    assert (result["phone"]["false_positive_rate"], result["film"]["false_positive_rate"]) == (0.0, 0.5)
    assert (result["film"]["n_real"], result["film"]["auc"]) == (2, None)


def test_by_source_of_a_source_with_real_and_fake_files():
    result = metrics.summarise(table(LABELS, PROBABILITIES, PROBABILITIES, source=("", "")), 0.5)["by_source"]
    assert list(result) == [""]
    assert result[""]["auc"] == pytest.approx(0.75)
    assert result[""]["false_positive_rate"] == pytest.approx(1 / 3)


def test_interval_contains_the_auc_is_deterministic_and_has_the_right_coverage():
    """About 95 of 100 intervals must contain the true AUC, 0.760, of two normal distributions one standard deviation apart."""
    from scipy.stats import norm

    random, labels, covered = np.random.default_rng(0), np.repeat([0, 1], 60), 0
    for _ in range(100):
        scores = random.normal(size=120) + labels
        low, high = metrics.auc_interval(labels, scores, np.arange(120), draws=300)
        assert low <= metrics.auc(labels, scores) <= high
        covered += low <= norm.cdf(1 / np.sqrt(2)) <= high
    assert 88 <= covered <= 99
    repeated = metrics.auc_interval(labels, scores, np.arange(120), draws=300)
    assert [low, high] == repeated


def test_interval_resamples_groups_not_rows():
    """Forty copies of a file carry no more evidence than the file itself."""
    random, labels = np.random.default_rng(0), np.repeat([0, 1], 20)
    scores, groups = random.normal(size=40) + labels, np.arange(40)
    single = metrics.auc_interval(labels, scores, groups)
    copies = metrics.auc_interval(*(np.repeat(x, 40) for x in (labels, scores, groups)))
    np.testing.assert_allclose(copies, single)
    rows = metrics.auc_interval(np.repeat(labels, 40), np.repeat(scores, 40), np.arange(1600))
    assert rows[1] - rows[0] < 0.3 * (single[1] - single[0])


def test_interval_is_none_if_a_class_has_one_group():
    assert metrics.auc_interval([0, 0, 1, 1], [1, 2, 3, 4], ["a", "a", "b", "c"]) is None
    assert metrics.auc_interval([0, 0], [1, 2], ["a", "b"]) is None


def test_every_row_of_the_report_table_is_a_key_of_the_summary():
    result = metrics.summarise(table(LABELS, PROBABILITIES, PROBABILITIES), 0.5)
    for key, *_ in metrics.REPORT_ROWS:
        value = result
        for name in key.split("."):
            value = value[name]
