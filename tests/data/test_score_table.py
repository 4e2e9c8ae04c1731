"""Tables of scores: how columns are guessed and given, what counts as a score, and one sentence for each bad input."""

import numpy as np
import pandas as pd
import pytest

from tfdetect.data import score_table
from tfdetect.errors import UserError

ROWS = {"path": ["a", "b", "c", "d"], "label": [0, 1, 0, 1]}


def read(tmp_path, columns, given=(), scores=(), only=(), name="scores.csv"):
    path = tmp_path / name
    table = pd.DataFrame(columns)
    table.to_parquet(path) if name.endswith("parquet") else table.to_excel(path, index=False) if name.endswith(
        "xlsx") else table.to_csv(path, index=False)  # fmt: skip
    return score_table.read(path, dict(given), scores, only)


@pytest.mark.parametrize("name", ["s.csv", "s.parquet", "s.xlsx"])
def test_formats(tmp_path, name):
    found = read(tmp_path, {**ROWS, "score": [0.25, -3, 1e-9, None]}, name=name)
    assert found.scores["score"].tolist()[:3] == [0.25, -3, 1e-9] and np.isnan(found.scores["score"][3])
    assert found.reasons == {"score": {"d": "no score"}}
    assert found.files["label"].tolist() == [0, 1, 0, 1] and found.files["group"].tolist() == list("abcd")


@pytest.mark.parametrize(("columns", "names"), [
    ({"score": [1] * 4, "prob_x": [1] * 4}, ["score"]),
    ({"prob_x": [1] * 4, "xScore": [2] * 4, "width": [3] * 4}, ["prob_x", "xScore"]),
    ({"npr": [1] * 4, "univfd": [2] * 4, "note": ["text"] * 4}, ["npr", "univfd"]),
    ({"prob_x": [1] * 4, "prob_y": [None] * 4}, ["prob_x"]),
])  # fmt: skip
def test_scores_are_guessed(tmp_path, columns, names):
    assert list(read(tmp_path, {**ROWS, **columns}).scores) == names


def test_other_columns_are_guessed_and_named(tmp_path):
    splits = ["val", "val", "test", "test"]
    found = read(tmp_path, {"id": list("abcd"), "target": ["real", "fake", "Real", "FAKE"], "generator": list("wxyz"),
                            "subject": list("ppqq"), "subset": splits, "score": [1, 2, 3, 4]})  # fmt: skip
    splits = ["validation", "validation", "test", "test"]
    assert found.files.to_dict("list") == {"path": list("abcd"), "label": [0, 1, 0, 1], "split": splits, "group": list("ppqq"),
                                           "source": list("wxyz"), "frames": [1] * 4}  # fmt: skip
    assert "path from id, label from target, source from generator, group from subject, split from subset" in found.notes[0]


def test_given_columns_and_patterns(tmp_path):
    columns = {"image": list("abcd"), "truth1": [0, 1, 0, 1], "kind": list("wxyz"), "p_a": [1] * 4, "p_b": [2] * 4, "q": [3] * 4}
    found = read(tmp_path, columns, {"path": "image", "label": "truth1", "source": "kind"}, ["p_*", "q"])
    assert list(found.scores) == ["p_a", "p_b", "q"] and found.files["source"].tolist() == list("wxyz")


def test_only_keeps_matching_rows(tmp_path):
    found = read(tmp_path, {**ROWS, "modality": ["image", "image", "audio", "video"], "score": [1, 2, 3, 4]},
                 only=["modality=image", "modality=audio"])  # fmt: skip
    assert found.files["path"].tolist() == list("abc")


def test_words_and_failures(tmp_path):
    found = read(tmp_path, {**ROWS, "verdict": ["real", "Fake", "undetermined", "inf"]}, scores=["verdict"])
    assert found.scores["verdict"].tolist()[:2] == [0, 1] and found.scores["verdict"].isna().sum() == 2
    assert found.reasons["verdict"] == {"c": "no score (undetermined)", "d": "no score (inf)"}


def test_frames_are_averaged(tmp_path):
    found = read(tmp_path, {"path": ["a", "a", "b"], "label": [0, 0, 1], "frame": [0, 1, 0], "score": [1, 3, 5]})
    assert found.scores["score"].tolist() == [2, 5] and found.files["frames"].tolist() == [2, 1]
    assert "3 rows of 2 files" in found.notes[-1]


def test_own_probability_beside_the_score(tmp_path):
    found = read(tmp_path, {**ROWS, "score": [9, 8, 7, 6], "probability": [0.1, 0.2, 0.3, 0.4]})
    assert list(found.scores) == ["score"] and found.probability.tolist() == [0.1, 0.2, 0.3, 0.4]


@pytest.mark.parametrize(("columns", "options", "message"), [
    ({"label": [0, 1], "score": [1, 2]}, {}, "has no column path: name it with --columns.path"),
    ({"path": ["a", "b"], "score": [1, 2]}, {}, "has no column label: name it with --columns.label"),
    ({"path": ["a", "b"], "target": [0, 1], "truth": [0, 1], "score": [1, 2]}, {}, "several columns .* may be the label .target"),
    ({"path": ["a", "b"], "label": [0, 1]}, {}, "has no column of scores: name one or several with --columns.scores"),
    ({"path": ["a", "b"], "label": [0, 1], "npr": [1, 2]}, {"scores": ["nrp"]}, "no column 'nrp'.*Perhaps you meant npr"),
    ({"path": ["a", "b"], "label": [0, 1], "npr": ["0,5", "0,7"]}, {"scores": ["npr"]}, "no finite number .such as '0,5'"),
    ({"path": ["a", "b"], "label": [0, 2], "score": [1, 2]}, {}, "row 2: label is '2', expected 0 or real, 1 or fake"),
    ({"path": ["a", "a"], "label": [0, 1], "score": [1, 2]}, {}, "path is 'a', expected each file once"),
    ({"path": ["a", "a"], "label": [0, 1], "frame": [0, 1], "score": [1, 2]}, {}, "the frames of 'a' .*different labels"),
    ({"path": ["a", "b"], "label": [0, 1], "score": [1, 2]}, {"only": ["label"]}, "takes COLUMN=VALUE"),
    ({"path": ["a", "b"], "label": [0, 1], "score": [1, 2]}, {"only": ["label=7"]}, "no rows that match --columns.only label=7"),
])  # fmt: skip
def test_bad_tables_get_one_sentence(tmp_path, columns, options, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, columns, **options)
