"""The report's section on verdicts: files unlike the training data, by class and source, and what to do if there are many."""

import re

import numpy as np
import pandas as pd
import pytest

from tfdetect.evaluation.calibration import Calibration
from tfdetect.evaluation.familiarity import Familiarity, Space
from tfdetect.evaluation.verdicts import verdict_metrics
from tfdetect.pages.verdicts import unfamiliar_sentence, verdicts_section


def known(level=0.05):
    """Distances up to 1 are usual, in 39 validation files."""
    space = Space(*(np.zeros((2,) * count, np.float32) for count in (1, 1, 2, 1)), 0.0, 1.0)
    return Familiarity("layer", space, space, np.linspace(0, 1, 39, dtype=np.float32), np.ones(39), level)


def scored(content, processing):
    """Ten reals with negative scores and ten fakes of two sources with positive ones, with these distances."""
    label, names = np.repeat([0, 1], 10), [f"{k}.png" for k in range(20)]
    return pd.DataFrame({"path": names, "label": label, "group": names, "source": ["camera"] * 10 + ["a"] * 4 + ["b"] * 6,
                         "split": "test", "frame": 0, "score": 2.0 * label - 1, "content_distance": content,
                         "processing_distance": processing})  # fmt: skip


def test_shares_are_counted_by_source_and_reason():
    content, processing = np.zeros(20), np.zeros(20)
    content[10:14], processing[13:17] = 5, 5  # all of a, three of b
    found = verdict_metrics(scored(content, processing), Calibration(1.0, 0.0, 0.5), known())
    unlike = found["unfamiliar"]
    assert (unlike["n"], unlike["share"], unlike["content"], unlike["processing"]) == pytest.approx((20, 0.35, 0.2, 0.15))
    assert unlike["interval"][0] < 0.35 < unlike["interval"][1]
    rows = [(row["label"], row["source"], row["n"], row["share"], row["content"], row["processing"]) for row in unlike["sources"]]
    assert rows == [("real", "camera", 10, 0, 0, 0), ("fake", "a", 4, 1, 1, 0), ("fake", "b", 6, 0.5, 0, 0.5)]
    assert found["inconclusive"] == pytest.approx(0.35) and found["by_class"]["fake"]["right"] == pytest.approx(0.3)
    given = verdict_metrics(scored(content, processing), Calibration(1.0, 0.0, 0.5), known(), any_file=True)
    assert given["inconclusive"] == 0 and given["unfamiliar"] == unlike
    page = " ".join(re.sub("<[^>]*>", " ", verdicts_section(found)).split())
    assert "35 % (" in page and "by content and 15 % by processing" in page and "calibrate RUN --data.path FILES" in page


def test_few_call_for_no_advice_and_none_is_said_so():
    one = np.where(np.arange(20) == 3, 5.0, 0.0)
    page = verdicts_section(verdict_metrics(scored(one, one), Calibration(1.0, 0.0, 0.5), known()))
    assert "Files unlike the training data" in page and "calibrate" not in page
    off = verdict_metrics(scored(one, one), Calibration(1.0, 0.0, 0.5), known(level=0))["unfamiliar"]
    assert off["share"] == 0 and unfamiliar_sentence(off) == "No test file is marked as unlike the training data."


def test_runs_that_do_not_know_it_have_no_such_part():
    table = scored(np.zeros(20), np.zeros(20)).drop(columns=["content_distance", "processing_distance"])
    for familiarity in (None, known()):  # evaluated by an older version
        found = verdict_metrics(table, Calibration(1.0, 0.0, 0.5), familiarity)
        assert found["unfamiliar"] is None and "unlike" not in verdicts_section(found)
