import numpy as np
import pandas as pd
import pytest

from tfdetect.errors import UserError
from tfdetect.evaluation import aggregation, predictions

RULES = {"mean": np.mean, "median": np.median, "max": np.max, "top:1": np.max,
         "top:3": lambda values: np.mean(np.sort(values)[-3:])}  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("frames", [1, 2, 5, 8])
def test_scores_of_a_file_are_combined_as_numpy_does(rule, frames):
    values = np.random.default_rng(frames).normal(size=(4, frames)).round(1)
    np.testing.assert_allclose(aggregation.aggregate(values, rule), [RULES[rule](row) for row in values])


def frames_of_files(seed=0):
    random = np.random.default_rng(seed)
    counts = [1, 2, 3, 5, 8]
    names = np.repeat([f"{number}.mp4" for number in range(5)], counts)
    table = pd.DataFrame({"path": names, "label": np.repeat([0, 1, 0, 1, 0], counts), "group": names, "source": "",
                          "split": "test", "frame": np.concatenate([np.arange(count) for count in counts]), "is gan": 0.5})
    return table.assign(score=random.normal(size=len(table)).round(1)).sample(frac=1, random_state=seed)


@pytest.mark.parametrize("rule", RULES)
def test_predictions_combine_frames_by_the_rule_that_they_name(rule, tmp_path):
    frames = predictions.with_aggregate(frames_of_files(), rule)
    frames = frames.assign(log_odds=2 * frames["score"] - 1, probability=1 / (1 + np.exp(1 - 2 * frames["score"])))
    predictions.write(frames, tmp_path / "p.csv")
    expected = frames.groupby("path", sort=False)["score"].agg(RULES[rule])
    for table in (frames, predictions.read(tmp_path / "p.csv")):
        files = predictions.by_file(table)
        assert files["path"].tolist() == expected.index.tolist() and (files["is gan"] == 0.5).all()
        np.testing.assert_allclose(files["score"], expected, atol=1e-12)
        np.testing.assert_allclose(files["log_odds"], 2 * expected - 1)
        np.testing.assert_allclose(files["probability"], 1 / (1 + np.exp(1 - 2 * expected)))
        np.testing.assert_allclose(predictions.file_scores(table)["score"], expected, atol=1e-12)


def test_predictions_with_two_rules_are_refused():
    frames = frames_of_files()
    with pytest.raises(UserError, match="several ways to combine frames"):
        predictions.check(frames.assign(aggregate=["max"] + ["mean"] * (len(frames) - 1)))


@pytest.mark.parametrize(("rule", "expected"), [("mean", [4, 2]), ("max", [5, 2]), ("mean,mean", [2.5, 2]),
                                                ("max,mean", [3.5, 2]), ("mean,top:2", [2.5, 2])])  # fmt: skip
def test_a_file_is_as_fake_as_its_most_fake_face(rule, expected, tmp_path):
    """Frames of the faces: 3 and 5 (mean 4), 0 and 2 (mean 1); another file has one face."""
    rows = [("a", 0, 0, 3), ("a", 0, 1, 5), ("a", 1, 0, 0), ("a", 1, 1, 2), ("b", 0, 0, 2), ("b", 0, 1, 2)]
    table = pd.DataFrame(rows, columns=["path", "face", "frame", "score"])
    table = table.assign(label=[1] * 4 + [0] * 2, group=table["path"], source="", split="test", box="1,2,3,4", box_frame=7)
    table = predictions.with_aggregate(table.assign(probability=1 / (1 + np.exp(-table["score"]))), rule)
    predictions.write(table, tmp_path / "p.csv")
    for each in (table, predictions.read(tmp_path / "p.csv")):
        files = predictions.by_file(each)
        assert files["path"].tolist() == ["a", "b"] and files["frames"].tolist() == [4, 2] and "box_frame" not in files
        np.testing.assert_allclose(files["score"], expected)
        np.testing.assert_allclose(files["probability"], 1 / (1 + np.exp(-np.array(expected))), atol=1e-12)
        np.testing.assert_allclose(predictions.file_scores(each)["score"], expected)
        np.testing.assert_allclose(aggregation.aggregate_faces(each["score"][:4], rule, 2)[0], expected[0])
    assert predictions.read(tmp_path / "p.csv")["box"].tolist() == ["1,2,3,4"] * 6
    with pytest.raises(UserError, match="lists the same frame twice"):
        predictions.check(table.assign(face=0))
