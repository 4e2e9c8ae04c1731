"""Figures on sources that training had, and on those that it never saw."""

import re

import pandas as pd
import pytest

from tfdetect.evaluation import metrics, seen
from tfdetect.pages.report import Report, verdict, write


def table(scores_by_source, reals=60, frames=1):
    """Return predictions of reals with scores 0..59 and fakes with these scores."""
    rows = [("camera", 0, score) for score in range(reals)]
    rows += [(source, 1, score) for source, scores in scores_by_source.items() for score in scores]
    out = pd.DataFrame([(f"f{k}", label, f"g{k}", source, "test", frame, float(score)) for k, (source, label, score)
                        in enumerate(rows) for frame in range(frames)],
                       columns=["path", "label", "group", "source", "split", "frame", "score"])  # fmt: skip
    return out.assign(probability=out["score"] / 100)


@pytest.fixture
def rows():
    """All fakes of `old` score above all reals, those of `new` above half of them."""
    return table({"old": range(60, 90), "new": [29.5] * 30})


def summary(rows, in_training, **more):
    found = metrics.summarise(rows, 0.6)
    return {**found, **seen.compare(rows, 0.6, in_training), **more}


def test_known_answers(rows):
    found = seen.compare(rows, 0.6, {"old": True, "new": False})
    assert (found["seen"]["auc"], found["unseen"]["auc"], found["unknown"]) == (1, 0.5, None)
    assert (found["seen"]["recall"], found["unseen"]["recall"]) == (1, 0) and found["unseen"]["sources"] == ["new"]
    assert [found["unseen"][name] for name in ("n_real", "n_fake")] == [60, 30] and "false_positive_rate" not in found["seen"]
    low, high = found["unseen"]["auc_interval"]
    assert 0.3 < low < 0.5 < high < 0.7 and found["seen"]["auc_interval"] == [1, 1]


def test_one_source_has_the_figures_that_the_table_of_sources_has(rows):
    rows = table({"old": range(50, 90), "new": range(10, 60, 2)}, frames=3)
    found, by_source = seen.compare(rows, 0.6, {"new": False}), metrics.summarise(rows, 0.6)["by_source"]
    assert all(found["unseen"][key] == by_source["new"][key] for key in ("auc", "ap", "eer", "recall", "auc_interval"))
    assert found["unknown"]["auc"] == by_source["old"]["auc"] and found["seen"] is None


def test_the_sentence_has_both_figures_with_intervals(rows):
    found = summary(rows, {"old": True, "new": False})
    low, high = found["unseen"]["auc_interval"]
    text = (f"AUC 1.000 (1.000 to 1.000, 30 fakes) on fakes of sources it was trained on; 0.500 ({low:.3f} to {high:.3f}, 30 "
            "fakes) on those of new, which it never saw.")  # fmt: skip
    assert seen.sentence(found) == text
    assert seen.sentence({**found, "fakes_used_for": "validation"}).startswith("AUC 1.000 (1.000 to 1.000, 30 fakes) on fakes of "
                                                                               "sources it was validated on;")  # fmt: skip


@pytest.mark.parametrize("in_training, expected", [
    ({"old": True, "new": True}, r"AUC 0\.750 \(.*\), measured only on fakes of sources it was trained on \(new and old\): how "
                                 r"it does on fakes of others is not known\."),
    ({"old": False, "new": False}, r"AUC 0\.750 \(.*, 60 fakes\) on fakes of new and old, which it never saw\."),
    ({"new": False}, r"AUC 0\.500 \(.*\) on fakes of new, which it never saw; 1\.000 \(.*\) on fakes of old, of which it is not "
                     r"known whether it was trained on their source\.")])  # fmt: skip
def test_the_sentence_where_not_both_are_known(rows, in_training, expected):
    assert re.fullmatch(expected, seen.sentence(summary(rows, in_training)))


def test_without_reals_the_sentence_has_recalls(rows):
    found = summary(rows[rows["label"] == 1], {"old": True, "new": False})
    assert seen.sentence(found).startswith("Share of fakes found: 1.000 (") and "; 0.000 (" in seen.sentence(found)


def test_without_probabilities_and_reals_there_is_no_sentence(rows):
    found = seen.compare(rows[rows["label"] == 1].drop(columns="probability"), None, {"old": True})
    assert seen.sentence(found) == "" and seen.sentence({}) == ""


def test_few_groups_have_no_interval():
    rows = table({"old": range(60, 90), "new": [20]})
    text = seen.sentence(summary(rows, {"old": True, "new": False}))
    assert "(too few groups for an interval, 1 fake) on those of new" in text


@pytest.mark.parametrize("names, text", [(["a"], "a"), (["a", "b"], "a and b"), (list("abcde"), "a, b, c, d and e"),
                                         (list("abcdef"), "a, b, c, d and 2 others"), ([], "")])  # fmt: skip
def test_lists_of_sources(names, text):
    assert seen.list_sources(names) == text


def test_general_names_are_not_said(rows):
    found = metrics.summarise(rows, 0.6) | seen.compare(rows, 0.6, {"old": True, "new": True}, {"old", "new"})
    assert "), measured only on fakes of sources it was trained on: how it does on fakes of others" in seen.sentence(found)
    found |= seen.compare(rows, 0.6, {}, {"old"})
    assert "on fakes of new, of which it is not known whether" in seen.sentence(found)


def test_the_report_begins_with_the_sentence_and_marks_the_sources(rows, tmp_path):
    found = summary(rows, {"old": True, "new": False})
    for name, row in found["by_source"].items():
        row["in_training"] = {"old": True, "new": False}.get(name)
    write(tmp_path / "report.html", Report("x", {"test": found}))
    page = (tmp_path / "report.html").read_text()
    assert f'<p class="lead">{seen.sentence(found)} {verdict(found)}</p>' in page
    assert "<td>new</td><td>never seen</td>" in page and "<td>old</td><td>yes</td>" in page
    assert "AUC on sources it never saw" in page
    write(tmp_path / "plain.html", Report("x", {"test": metrics.summarise(rows, 0.6)}))
    plain = (tmp_path / "plain.html").read_text()
    assert "trained on</th>" not in plain and f'<p class="lead">{verdict(found)}</p>' in plain

