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


def test_summary_of_a_case_worked_by_hand():
    """At 0.6 and above fake: two reals pass, one is flagged; three fakes are found, one is missed."""
    found = metrics.summarise(table(LABELS, PROBABILITIES, PROBABILITIES), 0.6)
    assert (found["n"], found["n_real"], found["n_fake"], found["n_groups"]) == (7, 3, 4, 7)
    assert found["confusion"] == {"tn": 2, "fp": 1, "fn": 1, "tp": 3}
    assert found["accuracy"] == pytest.approx(5 / 7)
    assert found["balanced_accuracy"] == pytest.approx((2 / 3 + 3 / 4) / 2)
    assert found["per_class"]["fake"] == pytest.approx({"precision": 3 / 4, "recall": 3 / 4, "f1": 3 / 4})
    assert found["per_class"]["real"] == pytest.approx({"precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3})
    assert found["f1"] == found["per_class"]["fake"]["f1"]
    # Of 12 pairs the fake loses three: 0.2 against 0.4 and 0.7, 0.6 against 0.7.
    assert found["auc"] == pytest.approx(9 / 12)
    assert found["ap"] == pytest.approx(sk.average_precision_score(LABELS, PROBABILITIES))
    assert found["log_loss"] == pytest.approx(-np.mean(np.log([0.9, 0.6, 0.3, 0.2, 0.6, 0.8, 0.9])))


def test_ties_count_half():
    assert metrics.auc([0, 1], [3.0, 3.0]) == 0.5


@pytest.mark.parametrize(("labels", "scores", "expected"), [
    ([0, 0, 1, 1], [1, 2, 3, 4], 0.0),
    ([0, 0, 1, 1], [3, 4, 1, 2], 1.0),
    ([0, 0, 1, 1], [1, 3, 2, 4], 0.5),
    ([0, 1], [1, 1], 0.5),
    # One threshold flags 1 of 4 reals and misses 1 of 4 fakes.
    ([0, 0, 0, 0, 1, 1, 1, 1], [1, 2, 3, 6, 4, 5, 7, 8], 0.25),
    # ROC (0, 1/2), (1, 1/2), (1, 1), all reals tied: the diagonal is met half-way along the level piece.
    ([0, 0, 1, 1], [2, 2, 1, 3], 0.5),
    # A tie of one real and both fakes: from (0, 0) to (1/2, 1), which meets fpr = 1 - tpr at 1/3.
    ([0, 0, 1, 1], [1, 2, 2, 2], 1 / 3),
])
def test_equal_error_rate(labels, scores, expected):
    assert metrics.equal_error_rate(labels, scores) == pytest.approx(expected)


def test_equal_error_rate_of_two_normals_is_that_of_theory():
    from scipy.stats import norm

    random = np.random.default_rng(0)
    labels = np.repeat([0, 1], 50_000)
    scores = random.normal(size=100_000) + 2 * labels
    assert metrics.equal_error_rate(labels, scores) == pytest.approx(norm.cdf(-1), abs=5e-3)


def test_the_file_is_judged_by_the_mean_of_its_frames_and_names_may_repeat():
    """Two groups hold a file of the same name: per frame one fake frame loses, per file none does."""
    rows = [("v.mp4", 0, "a", "camera", "test", 0, 0.0), ("v.mp4", 0, "a", "camera", "test", 1, 2.0),
            ("v.mp4", 1, "b", "gan", "test", 0, 1.5), ("v.mp4", 1, "b", "gan", "test", 1, 9.0)]
    found = metrics.summarise(pd.DataFrame(rows, columns=predictions.COLUMNS), None)
    assert (found["n"], found["by_frame"]["n"]) == (2, 4)
    assert (found["auc"], found["by_frame"]["auc"]) == (1.0, 0.75)
    assert "by_frame" not in found["by_frame"]


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_leaves_null_where_nothing_is_defined(label):
    found = metrics.summarise(table([label] * 3, [0.2, 0.4, 0.6], [0.2, 0.4, 0.6]), 0.5)
    text = json.dumps(found, allow_nan=False)
    for name in ("auc", "auc_interval", "ap", "eer", "balanced_accuracy"):
        assert found[name] is None, name
    assert found["per_class"][("fake", "real")[label]] == {"precision": None, "recall": None, "f1": None}
    assert found["accuracy"] == pytest.approx((2 / 3, 1 / 3)[label])
    assert json.loads(text) == found


@pytest.mark.parametrize("threshold", [None, 0.5])
def test_without_probabilities_only_the_order_is_judged(threshold):
    found = metrics.summarise(table(LABELS, PROBABILITIES), threshold)
    assert found["auc"] == pytest.approx(0.75)
    assert [found[name] for name in ("accuracy", "f1", "confusion", "log_loss", "calibration_error")] == [None] * 5
    assert found["by_source"]["gan"]["recall"] is None
    json.dumps(found, allow_nan=False)


def test_nothing_flagged_and_nothing_there_stay_free_of_nan():
    none = metrics.summarise(table(LABELS, PROBABILITIES, PROBABILITIES), 1.0)
    assert none["per_class"]["fake"] == {"precision": None, "recall": 0.0, "f1": 0.0}
    empty = metrics.summarise(table([], []), 0.5)
    assert (empty["n"], empty["accuracy"]) == (0, None)
    json.dumps([none, empty], allow_nan=False)


def test_summary_refuses_two_splits_and_a_threshold_that_is_no_probability():
    both = pd.concat([table([0, 1], [0, 1]), table([0, 1], [0, 1], split="validation").assign(path=["a", "b"])])
    with pytest.raises(ValueError, match="one split"):
        metrics.summarise(both, 0.5)
    with pytest.raises(ValueError, match=r"0\.\.1"):
        metrics.summarise(table([0, 1], [0, 1]), 3.0)


def test_by_source_sets_each_kind_of_fake_against_all_reals():
    frames = table([0, 0, 0, 0, 1, 1, 1, 1], [0.1, 0.2, 0.3, 0.6, 0.7, 0.8, 0.05, 0.65])
    frames["source"] = ["phone", "phone", "film", "film", "easy", "easy", "hard", "hard"]
    found = metrics.summarise(frames.assign(probability=frames["score"]), 0.5)["by_source"]
    assert set(found) == {"phone", "film", "easy", "hard"}
    assert (found["easy"]["auc"], found["hard"]["auc"]) == (1.0, 0.5)
    assert (found["easy"]["recall"], found["hard"]["recall"]) == (1.0, 0.5)
    assert (found["easy"]["n_fake"], found["easy"]["false_positive_rate"]) == (2, None)
    assert (found["phone"]["false_positive_rate"], found["film"]["false_positive_rate"]) == (0.0, 0.5)
    assert (found["film"]["n_real"], found["film"]["auc"]) == (2, None)


def test_by_source_of_a_name_that_reals_and_fakes_share():
    found = metrics.summarise(table(LABELS, PROBABILITIES, PROBABILITIES, source=("", "")), 0.5)["by_source"]
    assert list(found) == [""]
    assert found[""]["auc"] == pytest.approx(0.75)
    assert found[""]["false_positive_rate"] == pytest.approx(1 / 3)


def test_weighted_auc_of_the_bootstrap_is_that_of_scikit_learn():
    random = np.random.default_rng(1)
    labels, scores = random.integers(0, 2, 60), np.sort(random.integers(0, 12, 60))
    weights = random.integers(0, 4, (5, 60)).astype(float)
    reals, fakes = scores[labels == 0], scores[labels == 1]
    below, up_to = np.searchsorted(reals, fakes, "left"), np.searchsorted(reals, fakes, "right")
    found = metrics._weighted_auc(weights[:, labels == 0], weights[:, labels == 1], below, up_to)
    expected = [sk.roc_auc_score(labels, scores, sample_weight=row) for row in weights]
    np.testing.assert_allclose(found, expected)


def test_interval_holds_the_auc_repeats_and_covers_the_truth():
    """Of 100 samples of two normals one apart, about 95 intervals must hold the true AUC of 0.760."""
    from scipy.stats import norm

    random, labels, held = np.random.default_rng(0), np.repeat([0, 1], 60), 0
    for _ in range(100):
        scores = random.normal(size=120) + labels
        low, high = metrics.auc_interval(labels, scores, np.arange(120), draws=300)
        assert low <= metrics.auc(labels, scores) <= high
        held += low <= norm.cdf(1 / np.sqrt(2)) <= high
    assert 88 <= held <= 99
    again = metrics.auc_interval(labels, scores, np.arange(120), draws=300)
    assert [low, high] == again


def test_interval_draws_groups_not_rows():
    """Forty copies of each file are no more evidence than the file."""
    random, labels = np.random.default_rng(0), np.repeat([0, 1], 20)
    scores, groups = random.normal(size=40) + labels, np.arange(40)
    alone = metrics.auc_interval(labels, scores, groups)
    copies = metrics.auc_interval(*(np.repeat(x, 40) for x in (labels, scores, groups)))
    np.testing.assert_allclose(copies, alone)
    rows = metrics.auc_interval(np.repeat(labels, 40), np.repeat(scores, 40), np.arange(1600))
    assert rows[1] - rows[0] < 0.3 * (alone[1] - alone[0])


def test_no_interval_where_a_class_has_one_group():
    assert metrics.auc_interval([0, 0, 1, 1], [1, 2, 3, 4], ["a", "a", "b", "c"]) is None
    assert metrics.auc_interval([0, 0], [1, 2], ["a", "b"]) is None


def test_every_row_of_the_table_is_a_key_of_the_summary():
    found = metrics.summarise(table(LABELS, PROBABILITIES, PROBABILITIES), 0.5)
    for key, *_ in metrics.REPORT_ROWS:
        value = found
        for part in key.split("."):
            value = value[part]
