"""What the report of a study says, in words and as figures."""

import numpy as np
import pytest

from tfdetect.pages import protocols as page
from tfdetect.plots import protocols as plots


def row(amount, auc, interval, trained_on):
    return {"amount": amount, "auc": auc, "interval": interval, "trained_on": trained_on, "sd_seeds": None,
            "by_seed": {"0": auc - 0.01, "1": auc + 0.01}}  # fmt: skip


@pytest.mark.parametrize(("verdict", "interval", "start"), [
    ("helps", [0.01, 0.05], "More training data would probably still help. From 0.5 to 1 of the training groups, AUC rose by "
                            "+0.030 (95 % interval +0.010 to +0.050) per doubling."),
    ("hardly", [-0.004, 0.009], "More training data like these would hardly help."),
    ("falls", [-0.1, -0.01], "More training data did not help."),
    ("unclear", [-0.01, 0.07], "Whether more data would help cannot be told. From 0.5 to 1 of the training groups, AUC changed "
                               "by +0.030 (95 % interval -0.010 to +0.070) per doubling, an interval with zero in it."),
    ("perfect", None, "Whether more data would help cannot be told: with all of them, every test file is ranked "
                      "correctly.")])  # fmt: skip
def test_the_learning_curve_begins_with_whether_more_data_help(verdict, interval, start):
    slope = {"from": 0.5, "to": 1.0, "doublings": 1, "seeds": 3, "slope": 0.03, "interval": interval, "verdict": verdict}
    found = {"rows": [row(0.5, 0.8, [0.7, 0.9], 50), row(1.0, 0.83, [0.75, 0.9], 100)], "slope": slope}
    sentences = page.amount_sentences(found)
    assert sentences[0].startswith(start) and sentences[1].startswith("With 100 training files: AUC 0.830 (95 % interval 0.750")
    assert "for the gain also for that of 3 seeds" in sentences[2]
    assert "--train.seeds 3 adds it" in page.amount_sentences({**found, "slope": {**slope, "seeds": 1}})[2]


def test_the_learning_curve_is_drawn_over_training_files():
    figure = plots.learning_curve([row(0.5, 0.8, [0.7, 0.9], 50), row(1.0, 0.83, None, 100)])
    (axes,) = figure.axes
    lines = {line.get_label(): line for line in axes.lines}
    assert np.array_equal(lines["mean over seeds"].get_xydata(), [[50, 0.8], [100, 0.83]])
    assert sorted(line.get_ydata()[0] for line in axes.lines if line.get_linestyle() == "None") == [0.79, 0.82]


def test_sources_without_a_value_stay_empty():
    rows = [{"source": name, "n_fake": 3, "unseen": value, "unseen_interval": None, "seen": 0.9, "seen_interval": [0.8, 1.0],
             "sd_seeds": None} for name, value in (("a", 0.6), ("b", None))]  # fmt: skip
    found = {"rows": rows, "unseen": 0.6, "unseen_interval": None, "seen": 0.9, "seen_interval": [0.8, 1.0], "worst": "a",
             "difference": -0.3, "difference_interval": [-0.4, -0.2]}  # fmt: skip
    assert page.source_sentences(found)[1:4] == [
        "The hardest unseen source is a: AUC 0.600.",
        "The difference of AUC, unseen less seen, is -0.300 (95 % interval -0.400 to -0.200).",
        "The test has fewer than 20 fakes of a, b: other files may change these figures much.",
    ]
    unseen = next(line for line in plots.sources(found).axes[0].lines if line.get_label() == "unseen")
    assert np.array_equal(unseen.get_xdata(), [0.6, np.nan], equal_nan=True)


def test_a_search_that_was_tested_twice_says_so():
    trials = [{"name": name, "settings": {"x": "1"}, "val_auc": 0.9, "minutes": 1, "reason": ""} for name in ("b", "a")]
    found = {"best": "b", "monitor": "val_auc", "settings": {"x": "1"}, "command": "train", "tested": ["a", "b"],
             "trials": trials, "failed": 0, "test": {"auc": 0.8, "auc_interval": None, "n_real": 2, "n_fake": 3}}  # fmt: skip
    assert page.search_sentences(found)[1].endswith("They were scored before, for the best of fewer trials (a).")
    assert "which were scored for this trial only" in page.search_sentences({**found, "tested": ["b"]})[1]
