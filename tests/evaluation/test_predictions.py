import sys

import numpy as np
import pandas as pd
import pytest

from tfdetect.evaluation import calibration, predictions


def table(rows):
    return pd.DataFrame(rows, columns=predictions.COLUMNS)


def two_frames(probability=None):
    """Return predictions with one file name in two groups, as in FaceForensics++: path, group and source identify a file."""
    out = table([
        ("000.mp4", 1, "a", "swap", "test", 0, 1.0),
        ("000.mp4", 1, "b", "swap", "test", 0, 10.0),
        ("000.mp4", 1, "a", "swap", "test", 1, 2.0),
        ("000.mp4", 0, "a", "camera", "test", 0, -4.0),
    ])
    return out if probability is None else out.assign(probability=probability)


def test_by_file_averages_frames_and_separates_files_of_the_same_name():
    files = predictions.by_file(two_frames())
    assert files["score"].tolist() == [1.5, 10.0, -4.0]
    assert files["group"].tolist() == ["a", "b", "a"]
    assert files["label"].tolist() == [1, 1, 0]
    assert files["frames"].tolist() == [2, 1, 1]
    assert "probability" not in files


def test_file_scores_are_float64_means_and_need_only_the_key_columns():
    scores = np.array([1e8, 1, 1, 2], np.float32)
    files = predictions.file_scores(two_frames().drop(columns=["split", "frame"]).assign(score=scores, source=["", "", "", None]))
    assert files[["group", "label"]].to_numpy().tolist() == [["a", 1], ["b", 1], ["a", 0]]
    assert files["score"].tolist() == [(1e8 + 1) / 2, 1.0, 2.0]


def test_probability_of_a_file_is_the_probability_of_its_mean_score():
    fitted = calibration.Calibration(slope=0.7, intercept=-0.4, threshold=0.5)
    frames = two_frames().assign(probability=lambda rows: fitted.probability(rows["score"]))
    files = predictions.by_file(frames)
    np.testing.assert_allclose(files["probability"], fitted.probability(files["score"]), rtol=1e-12)


def test_single_frame_probability_is_unchanged_and_certain_frames_stay_finite():
    files = predictions.by_file(two_frames([0.0, 0.1, 1.0, 0.3]))
    assert files["probability"].tolist()[1:] == [0.1, 0.3]
    assert files["probability"][0] == pytest.approx(0.5)


def test_by_file_is_idempotent_and_keeps_other_numeric_columns():
    once = predictions.by_file(two_frames([0.2, 0.4, 0.6, 0.8]).assign(gan=[0.0, 5.0, 1.0, 7.0], remark="text"))
    assert once["gan"].tolist() == [0.5, 5.0, 7.0]
    pd.testing.assert_frame_equal(predictions.by_file(once)[once.columns], once)


def test_write_and_read_round_trip_bit_for_bit(tmp_path):
    random = np.random.default_rng(0)
    paths = ["NA", "007", 'a "b", c\r\nd.png', "ü/例.png", *map(str, range(9996))]
    frames = table([(path, i % 2, f"{i:03d}", "" if i % 3 else "null", "validation", 0, 0.0)
                    for i, path in enumerate(paths)])
    frames["score"] = random.normal(size=10_000) * 10.0 ** random.integers(-30, 30, 10_000)
    frames["probability"] = random.random(10_000)
    predictions.write(frames, tmp_path / "p.csv")
    pd.testing.assert_frame_equal(predictions.read(tmp_path / "p.csv"), predictions.check(frames), check_exact=True)


def test_write_preserves_float32_values(tmp_path):
    frames = two_frames().assign(score=np.array([0.1, 0.2, 0.3, 0.4], np.float32))
    predictions.write(frames, tmp_path / "p.csv")
    expected = [float(np.float32(x)) for x in (0.1, 0.2, 0.3, 0.4)]
    assert predictions.read(tmp_path / "p.csv")["score"].tolist() == expected


@pytest.mark.parametrize(("change", "message"), [
    ({"label": 2}, "label"),
    ({"label": None}, "label"),
    ({"split": "train"}, "split"),
    ({"score": np.nan}, "score"),
    ({"score": np.inf}, "score"),
    ({"score": "high"}, "score"),
    ({"frame": -1}, "frame"),
    ({"frame": 0.5}, "frame"),
    ({"group": None}, "group"),
    ({"probability": [0.1, 0.2, 0.3, None]}, "probability"),
    ({"probability": 1.5}, "probability"),
    ({"frame": 0}, "twice"),
    ({"label": [1, 1, 0, 0]}, "two labels"),
    ({"split": ["test", "test", "validation", "test"]}, "two splits"),
])
def test_check_names_the_file_and_the_problem(change, message):
    with pytest.raises(ValueError, match=rf"000\.mp4.*{message}"):
        predictions.check(two_frames().assign(**change))


def test_check_names_the_missing_column():
    with pytest.raises(ValueError, match="group"):
        predictions.check(two_frames().drop(columns="group"))


def test_check_drops_an_empty_probability_column_without_changing_its_argument():
    original = two_frames([None] * 4)
    assert "probability" not in predictions.check(original)
    assert "probability" in original


def test_worst_mistakes_are_the_wrong_decisions_farthest_from_the_threshold():
    scores = [-3.0, 1.0, 4.0, 2.0, -2.0, -5.0, 6.0]
    labels = [0, 0, 0, 0, 1, 1, 1]
    frames = table([(f"{i}", label, f"{i}", "s", "test", 0, score)
                    for i, (label, score) in enumerate(zip(labels, scores, strict=True))])
    frames["probability"] = calibration.Calibration(1, 0, 0.5).probability(scores)
    assert predictions.worst_mistakes(frames, 0.5, count=2)["path"].tolist() == ["2", "3", "5", "4"]
    with pytest.raises(ValueError, match="calibrate"):
        predictions.worst_mistakes(frames.drop(columns="probability"), 0.5)


def test_package_imports_no_heavy_dependencies():
    import subprocess

    code = "import sys, tfdetect.evaluation as e; print(sorted({'numpy', 'pandas', 'sklearn'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
