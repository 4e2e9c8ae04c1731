import numpy as np
import pandas as pd
import pytest

from tfdetect.evaluation import ensemble, metrics, predictions


def table(rows, split="test"):
    """(path, label, score, probability) -> predictions of one row a file."""
    out = pd.DataFrame(rows, columns=["path", "label", "score", "probability"])
    return out.assign(group=out["path"], source="s", split=split, frame=0)


FILES = [("a", 0), ("b", 0), ("c", 1), ("d", 1)]


def member(*probabilities, scores=(0.0, 1.0, 2.0, 3.0)):
    return table([(*file, score, p) for file, score, p in zip(FILES, scores, probabilities, strict=True)])


def test_the_mean_of_probabilities_by_hand_with_its_log_odds_as_score():
    found = ensemble.average({"x": member(0.1, 0.2, 0.6, 0.9), "y": member(0.3, 0.6, 0.7, 0.7)})
    np.testing.assert_allclose(found["probability"], [0.2, 0.4, 0.65, 0.8])
    np.testing.assert_allclose(found["score"], np.log([0.25, 2 / 3, 65 / 35, 4]))
    assert found["x"].tolist() == [0.1, 0.2, 0.6, 0.9] and found["y"].tolist() == [0.3, 0.6, 0.7, 0.7]


def test_two_opposite_detectors_know_nothing():
    found = ensemble.average({"x": member(0.1, 0.2, 0.7, 1.0), "y": member(0.9, 0.8, 0.3, 0.0)})
    np.testing.assert_allclose(found["probability"], 0.5)
    np.testing.assert_allclose(found["score"], 0, atol=1e-12)


def test_certain_runs_keep_a_finite_score():
    found = ensemble.average({"x": member(0, 0, 1, 1), "y": member(0, 1, 1, 1)})
    assert np.isfinite(found["score"]).all() and found["probability"].tolist() == [0, 0.5, 1, 1]


def test_files_are_matched_by_what_they_are_and_not_by_their_order():
    turned = member(0.3, 0.6, 0.7, 0.7).iloc[::-1]
    pd.testing.assert_frame_equal(ensemble.average({"x": member(0.1, 0.2, 0.6, 0.9), "y": turned}),
                                  ensemble.average({"x": member(0.1, 0.2, 0.6, 0.9), "y": member(0.3, 0.6, 0.7, 0.7)}))


def test_what_one_run_could_not_judge_is_left_out_for_all():
    runs = {"x": member(0.1, 0.2, 0.6, 0.9), "y": member(0.3, 0.6, 0.7, 0.7).drop(index=1), "z": member(0, 0, 1, 1)[1:]}
    assert ensemble.average(runs)["path"].tolist() == ["c", "d"]
    assert all(part["path"].tolist() == ["c", "d"] for part in ensemble.align(runs).values())
    none = ensemble.average({"x": member(0.1, 0.2, 0.6, 0.9)[:2], "y": member(0.1, 0.2, 0.6, 0.9)[2:]})
    assert none.empty and ensemble.fit_threshold(none) is None


def test_frames_count_once_for_their_file():
    frames = pd.concat([member(0.2, 0.2, 0.8, 0.8), member(0.8, 0.2, 0.8, 0.8).assign(frame=1)])
    found = ensemble.average({"images": frames, "clips": member(0.1, 0.2, 0.6, 0.9)})
    np.testing.assert_allclose(found["images"], [0.5, 0.2, 0.8, 0.8], err_msg="the mean log-odds of 0.2 and 0.8 are 0")
    np.testing.assert_allclose(found["probability"], [0.3, 0.2, 0.7, 0.85])


def test_files_of_one_name_in_two_groups_stay_apart_unless_the_path_alone_is_asked_for():
    ours = member(0.1, 0.2, 0.6, 0.9)
    assert ensemble.average({"x": ours, "y": ours.assign(group="other")}).empty
    found = ensemble.average({"x": ours, "y": ours.assign(group="other")}, by=["path"])
    assert found["group"].tolist() == ours["group"].tolist(), "those of the first run"


def test_runs_that_cannot_be_averaged():
    ours = member(0.1, 0.2, 0.6, 0.9)
    with pytest.raises(ValueError, match="y has no probabilities"):
        ensemble.average({"x": ours, "y": ours.drop(columns="probability")})
    with pytest.raises(ValueError, match=r"agree on whether a is fake \(4 such"):
        ensemble.average({"x": ours, "y": ours.assign(label=1 - ours["label"])})


def test_threshold_parts_the_classes_half_way():
    assert ensemble.fit_threshold(ensemble.average({"x": member(0.1, 0.2, 0.6, 0.9)})) == pytest.approx(0.4)
    assert ensemble.fit_threshold(member(0.1, 0.2, 0.6, 0.9)[:2]) is None, "one class"


def test_names_are_unique_and_none_that_the_table_has():
    assert ensemble.unique_names(["cnn", "cnn_lstm", "cnn", "cnn_2", "score", "cnn"]) == [
        "cnn", "cnn_lstm", "cnn_2", "cnn_2_2", "score_2", "cnn_3"]


def test_the_table_of_runs_and_a_way_through_the_file(tmp_path):
    mean = ensemble.average({"x": member(0.1, 0.2, 0.6, 0.9), "y": member(0.3, 0.6, 0.7, 0.7)})
    predictions.write(mean, tmp_path / "p.csv")
    pd.testing.assert_frame_equal(predictions.read(tmp_path / "p.csv"), mean)
    rows = ensemble.comparison_table({"x": metrics.summarise(member(0.1, 0.2, 0.6, 0.9), 0.3), "mean": metrics.summarise(mean, 0.3)})
    assert rows.columns.tolist() == ["run", "AUC", "95 % interval", "accuracy", "equal error rate"]
    assert rows["accuracy"].tolist() == [1, 0.75] and rows["run"].tolist() == ["x", "mean"]
