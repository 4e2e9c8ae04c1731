import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from tfdetect.evaluation import curves, metrics, predictions

RATES = np.linspace(0, 1, 21)


def table(count, gap, seed=0, copies=1):
    """Return scores of `count` reals and as many fakes, N(0, 1) and N(gap, 1), each in a group of its own with its copies."""
    random = np.random.default_rng(seed)
    rows = [(f"{i}-{copy}", int(i >= count), str(i), "", "test", 0, score)
            for i, score in enumerate(random.normal(size=2 * count)) for copy in range(copies)]  # fmt: skip
    out = pd.DataFrame(rows, columns=predictions.COLUMNS)
    return out.assign(score=out["score"] + gap * out["label"])


def test_the_band_of_a_curve_holds_its_true_value_in_most_test_sets():
    """The true ROC curve of N(0, 1) and N(1, 1) is known; 95 % of the bands should hold it at each rate."""
    rates = np.array([0.1, 0.3, 0.6])
    truth = norm.sf(norm.isf(rates) - 1)
    low, high = np.swapaxes([curves.roc_band(table(60, 1, seed), rates) for seed in range(30)], 0, 1)
    held = ((low <= truth) & (truth <= high)).mean(axis=0)
    assert (held >= 0.85).all() and (high - low).mean() < 0.4
    recalls = np.array([0.3, 0.6, 0.9])
    precision = recalls / (recalls + norm.sf(norm.isf(recalls) + 1))
    low, high = np.swapaxes([curves.precision_band(table(60, 1, seed), recalls) for seed in range(30)], 0, 1)
    assert (((low <= precision) & (precision <= high)).mean(axis=0) >= 0.85).all()


def test_copies_of_files_in_their_groups_change_no_band():
    for band, points in ((curves.roc_band, RATES), (curves.precision_band, RATES)):
        np.testing.assert_allclose(band(table(40, 1, copies=5), points), band(table(40, 1), points), atol=1e-9)


def test_the_bands_hold_the_curves_and_the_area_between_them_that_of_the_interval():
    files, fine = table(80, 1), np.linspace(0, 1, 401)
    (low, high), interval = curves.roc_band(files, fine), metrics.auc_interval(files["label"], files["score"], files["group"])
    areas = [float(np.trapezoid(ends, fine)) for ends in (low, high)]
    assert areas[0] <= interval[0] and interval[1] <= areas[1], "a pointwise band is wider than the interval of the area"
    found, missed = curves.roc_band(table(50, 20), fine)[0], curves.precision_band(table(50, 20), fine)[0]
    assert (found == 1).all() and (missed == 1).all(), "all files are told apart in all resamples"


@pytest.mark.parametrize("change", [lambda rows: rows[rows["label"] == 0], lambda rows: rows.assign(group="one"),
                                    lambda rows: rows.assign(group=rows["group"].astype(int) % 7)])  # fmt: skip
def test_one_class_or_few_groups_have_no_band(change):
    assert curves.roc_band(change(table(10, 1)), RATES) is None and curves.precision_band(change(table(10, 1)), RATES) is None
