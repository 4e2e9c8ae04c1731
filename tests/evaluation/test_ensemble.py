import numpy as np
import pandas as pd
import pytest

from tfdetect.evaluation import ensemble, metrics, predictions


def table(rows, split="test"):
    """Return predictions with one row per file from (path, label, score, probability)."""
    out = pd.DataFrame(rows, columns=["path", "label", "score", "probability"])
    return out.assign(group=out["path"], source="s", split=split, frame=0)


FILES = [("a", 0), ("b", 0), ("c", 1), ("d", 1)]


def member(*probabilities, scores=(0.0, 1.0, 2.0, 3.0)):
    return table([(*file, score, p) for file, score, p in zip(FILES, scores, probabilities, strict=True)])


def test_average_of_probabilities_and_its_log_odds_match_a_manual_computation():
    averaged = ensemble.average({"x": member(0.1, 0.2, 0.6, 0.9), "y": member(0.3, 0.6, 0.7, 0.7)})
    np.testing.assert_allclose(averaged["probability"], [0.2, 0.4, 0.65, 0.8])
    np.testing.assert_allclose(averaged["score"], np.log([0.25, 2 / 3, 65 / 35, 4]))
    assert averaged["x"].tolist() == [0.1, 0.2, 0.6, 0.9] and averaged["y"].tolist() == [0.3, 0.6, 0.7, 0.7]


def test_opposite_detectors_average_to_one_half():
    averaged = ensemble.average({"x": member(0.1, 0.2, 0.7, 1.0), "y": member(0.9, 0.8, 0.3, 0.0)})
    np.testing.assert_allclose(averaged["probability"], 0.5)
    np.testing.assert_allclose(averaged["score"], 0, atol=1e-12)


def test_probabilities_of_0_and_1_give_finite_scores():
    averaged = ensemble.average({"x": member(0, 0, 1, 1), "y": member(0, 1, 1, 1)})
    assert np.isfinite(averaged["score"]).all() and averaged["probability"].tolist() == [0, 0.5, 1, 1]


def test_files_are_matched_by_key_and_not_by_order():
    reversed_rows = member(0.3, 0.6, 0.7, 0.7).iloc[::-1]
    pd.testing.assert_frame_equal(ensemble.average({"x": member(0.1, 0.2, 0.6, 0.9), "y": reversed_rows}),
                                  ensemble.average({"x": member(0.1, 0.2, 0.6, 0.9), "y": member(0.3, 0.6, 0.7, 0.7)}))


def test_only_files_shared_by_all_runs_are_averaged():
    runs = {"x": member(0.1, 0.2, 0.6, 0.9), "y": member(0.3, 0.6, 0.7, 0.7).drop(index=1), "z": member(0, 0, 1, 1)[1:]}
    assert ensemble.average(runs)["path"].tolist() == ["c", "d"]
    assert all(table["path"].tolist() == ["c", "d"] for table in ensemble.align(runs).values())
    none = ensemble.average({"x": member(0.1, 0.2, 0.6, 0.9)[:2], "y": member(0.1, 0.2, 0.6, 0.9)[2:]})
    assert none.empty and ensemble.fit_threshold(none) is None


def test_frames_are_averaged_per_file_first():
    frames = pd.concat([member(0.2, 0.2, 0.8, 0.8), member(0.8, 0.2, 0.8, 0.8).assign(frame=1)])
    averaged = ensemble.average({"images": frames, "clips": member(0.1, 0.2, 0.6, 0.9)})
    np.testing.assert_allclose(averaged["images"], [0.5, 0.2, 0.8, 0.8], err_msg="the mean of the log-odds of 0.2 and 0.8 is 0")
    np.testing.assert_allclose(averaged["probability"], [0.3, 0.2, 0.7, 0.85])


def test_files_with_the_same_path_in_different_groups_are_matched_only_by_path():
    first = member(0.1, 0.2, 0.6, 0.9)
    assert ensemble.average({"x": first, "y": first.assign(group="other")}).empty
    averaged = ensemble.average({"x": first, "y": first.assign(group="other")}, by=["path"])
    assert averaged["group"].tolist() == first["group"].tolist(), "the groups are those of the first run"


def test_uncalibrated_or_contradictory_runs_raise():
    first = member(0.1, 0.2, 0.6, 0.9)
    with pytest.raises(ValueError, match="y has no probabilities"):
        ensemble.average({"x": first, "y": first.drop(columns="probability")})
    with pytest.raises(ValueError, match=r"disagree on whether a is fake \(4 such"):
        ensemble.average({"x": first, "y": first.assign(label=1 - first["label"])})


def test_threshold_lies_half_way_between_the_classes():
    assert ensemble.fit_threshold(ensemble.average({"x": member(0.1, 0.2, 0.6, 0.9)})) == pytest.approx(0.4)
    assert ensemble.fit_threshold(member(0.1, 0.2, 0.6, 0.9)[:2]) is None, "only one class"


def test_unique_names_avoid_duplicates_and_reserved_columns():
    assert ensemble.unique_names(["cnn", "cnn_lstm", "cnn", "cnn_2", "score", "cnn"]) == [
        "cnn", "cnn_lstm", "cnn_2", "cnn_2_2", "score_2", "cnn_3"]


def test_comparison_table_and_csv_round_trip(tmp_path):
    mean = ensemble.average({"x": member(0.1, 0.2, 0.6, 0.9), "y": member(0.3, 0.6, 0.7, 0.7)})
    predictions.write(mean, tmp_path / "p.csv")
    pd.testing.assert_frame_equal(predictions.read(tmp_path / "p.csv"), mean)
    summaries = {"x": metrics.summarise(member(0.1, 0.2, 0.6, 0.9), 0.3), "mean": metrics.summarise(mean, 0.3)}
    rows = ensemble.comparison_table(summaries)
    assert rows.columns.tolist() == ["run", "AUC", "95 % interval", "accuracy", "EER"]
    assert rows["accuracy"].tolist() == [1, 0.75] and rows["run"].tolist() == ["x", "mean"]
