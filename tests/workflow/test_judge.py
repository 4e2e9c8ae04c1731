"""evaluate --predictions and --model from the command line: known figures, reports, failures, interruption, bad flags."""

import json
import os
from pathlib import Path

import light
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

import tfdetect
from tfdetect import cli
from tfdetect.data import score_table
from tfdetect.errors import UserError
from tfdetect.evaluation import predictions
from tfdetect.workflow import judge, scored_files
from tfdetect.workflow.judged import Judged

MODEL = '''
import os
CALLS = os.environ["CALLS"]

def predict(path):
    with open(CALLS, "a") as file:
        file.write(path + "\\n")
    name = os.path.basename(path)
    if name.startswith("0003"):
        raise ValueError("no face")
    if name == "0004fake.png":
        os.abort()
    return os.path.getsize(path)
'''


def evaluate(*flags):
    return cli.main(["evaluate", *map(str, flags)])


def metrics(folder):
    return json.loads((Path(folder) / "metrics.json").read_text())


@pytest.fixture
def table():
    """200 files of reals and two sources; `one` and `two` each see a source, `lost` is missing on every tenth file."""
    random = np.random.default_rng(0)
    sources = np.repeat(["camera", "a", "b"], [100, 50, 50])
    rows = pd.DataFrame({"path": [f"{number}.png" for number in range(200)], "label": (sources != "camera").astype(int),
                         "source": sources, "prob_one": 1 / (1 + np.exp(-random.normal(3.0 * (sources == "a")))),
                         "score_two": random.normal(3.0 * (sources == "b")), "score_lost": random.normal(size=200)})  # fmt: skip
    rows.loc[::10, "score_lost"] = np.nan
    return rows


def test_a_perfect_and_a_hand_made_detector(tmp_path, capsys, light_test):
    """Of 2 x 3 pairs, five are in order and one is tied: AUC 5.5 / 6."""
    rows = pd.DataFrame({"id": list("abcde"), "label": [0, 0, 0, 1, 1], "score": [0.1, 0.2, 0.6, 0.6, 0.9]})
    rows.to_csv(tmp_path / "s.csv", index=False)
    assert evaluate("--predictions", tmp_path / "s.csv", "--columns.as_given", "--out", tmp_path / "out") == 0
    test = metrics(tmp_path / "out")["test"]
    assert test["auc"] == pytest.approx(5.5 / 6)
    assert test["confusion"] == {"tn": 2, "fp": 1, "fn": 0, "tp": 2} and test["threshold"] == 0.5
    assert "judged as they were given" in capsys.readouterr().out


def test_several_detectors_and_their_combinations(tmp_path, table, capsys):
    table.to_parquet(tmp_path / "s.parquet")
    assert evaluate("--predictions", tmp_path / "s.parquet", "--out", tmp_path / "out") == 0
    found = metrics(tmp_path / "out")
    assert {name: row["auc"] for name, row in found["detectors"].items()} == pytest.approx(
        {name: roc_auc_score(*table[["label", name]].dropna().to_numpy().T) for name in table if "_" in name})
    assert found["detectors"]["score_lost"]["n"] == 180
    within = found["combinations"]["within"]
    assert within["stacking"]["auc"] > max(row["auc"] for row in found["detectors"].values()) + 0.05
    assert found["test"]["auc"] == found["combinations"]["sources held out"]["stacking"]["auc"]
    assert set(found["test"]["by_source"]) == {"camera", "a", "b"}
    printed, report = capsys.readouterr().out, (tmp_path / "out" / "report.html").read_text()
    for text in ("score_lost has no score for 20 of 200 files", "by cross-fitting", "prob_one lie within 0..1"):
        assert text in printed
    assert {*found["detectors"]["prob_one"]["verdicts"]} == {"inconclusive", "accuracy_decided", "coverage_real", "coverage_fake"}
    for text in ("Detectors and combinations", "Verdicts that may be inconclusive, at a coverage of 0.9", "not known here",
                 "As given: called fake from 0.5", "Files without a score", "stacking, sources held out",
                 "Most confident mistakes", "Differences between combinations, sources held out"):  # fmt: skip
        assert text in report
    stack = found["comparisons"][1]
    assert (stack["first"], stack["second"]) == ("best single detector", "stacking") and stack["difference"] < 0
    assert "no validation files" not in report and "not used for training" not in report
    assert len(predictions.read(tmp_path / "out" / "predictions.csv")) == 200


def test_validation_rows_are_fitted_on_and_train_rows_are_not_used(tmp_path, table, capsys, light_test):
    table["split"] = np.tile(["train", "val", "test", "test"], 50)
    table.to_csv(tmp_path / "s.csv", index=False)
    flags = "--predictions", tmp_path / "s.csv", "--columns.scores", "prob_one", "--out", tmp_path / "out"
    assert evaluate(*flags) == 0
    assert "calibrated on 50 validation files" in capsys.readouterr().out
    first = predictions.read(tmp_path / "out" / "predictions.csv")
    assert len(first) == 100
    table.loc[table["split"] == "train", "prob_one"] = 0.5
    table.to_csv(tmp_path / "s.csv", index=False)
    assert evaluate(*flags) == 0
    pd.testing.assert_frame_equal(predictions.read(tmp_path / "out" / "predictions.csv"), first)


def test_a_reversed_score_is_pointed_out(tmp_path, table, capsys, light_test):
    table.assign(score=-table["score_two"]).to_csv(tmp_path / "s.csv", index=False)
    assert evaluate("--predictions", tmp_path / "s.csv", "--out", tmp_path / "out") == 0
    assert "score ranks real files above fakes" in capsys.readouterr().out


def test_one_source_is_said_not_to_be_held_out(tmp_path, table, capsys, light_test):
    table.drop(columns="source").to_csv(tmp_path / "s.csv", index=False)
    assert evaluate("--predictions", tmp_path / "s.csv", "--out", tmp_path / "out") == 0
    assert "No source could be held out" in capsys.readouterr().out


def test_python(tmp_path, table, monkeypatch, light_test):
    monkeypatch.chdir(tmp_path)
    table.to_csv("mine.csv", index=False)
    found = tfdetect.evaluate(predictions="mine.csv", scores=["score_two"])
    assert found.folder.parent == Path("evaluations") and found.folder.name.startswith("mine-")
    assert found.metrics["test"]["auc"] == pytest.approx(roc_auc_score(table["label"], table["score_two"]))


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Ten files of each class, and a model that fails on some and notes its calls."""
    for kind, sizes in (("real", range(10, 20)), ("fake", range(15, 25))):
        (tmp_path / "data" / kind).mkdir(parents=True)
        for number, size in enumerate(sizes):
            (tmp_path / "data" / kind / f"{number:04}{kind}.png").write_bytes(os.urandom(size))
    (tmp_path / "model.py").write_text(MODEL)
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    return tmp_path


def test_a_model_file_is_judged_and_its_scores_are_kept(files, capsys, monkeypatch):
    monkeypatch.setattr("tfdetect.pages.html.to_png", light.blank_png)
    flags = "--model", files / "model.py", "--data.path", files / "data", "--out", files / "out"
    assert evaluate(*flags) == 0
    found, report = metrics(files / "out"), (files / "out" / "report.html").read_text()
    assert found["detectors"]["model"]["n"] == 17
    reals, fakes = ([size + number for number in range(10) if number not in lost] for size, lost in ((10, (3,)), (15, (3, 4))))
    assert found["test"]["auc"] == pytest.approx(roc_auc_score([0] * 9 + [1] * 8, reals + fakes))
    assert "ValueError: no face" in report and "the function crashed" in report
    assert "model has no score for 3 of 20 files" in capsys.readouterr().out
    store = files / "out" / "scores.jsonl"
    lines = store.read_text().splitlines()
    store.write_text("\n".join([*lines[:-3], lines[-3][:20]]))  # as if it was killed while it wrote the third last
    (files / "calls").unlink()
    assert evaluate(*flags) == 0
    assert len(set((files / "calls").read_text().split())) == 3 + 3  # the lost ones, and those that failed
    assert metrics(files / "out")["test"] == found["test"]
    (files / "model.py").write_text(MODEL.replace("os.abort()", "return 0"))
    (files / "calls").unlink()
    assert evaluate(*flags) == 0
    assert len(set((files / "calls").read_text().split())) == 20


@pytest.mark.parametrize(("content", "name", "message"), [
    ("x = (", "", "is not valid Python: SyntaxError"), ("x = 1", "", "has no function predict(path), it defines no function"),
    ("def one(path): ...\ndef two(path): ...", "", "it defines one, two: name one with --model"),
    ("import no_such_module\ndef predict(path): ...", "", "cannot be imported: ModuleNotFoundError"),
    ("def predict(path): ...", ":other", "has no function other"),
    ("def predict(path): return 'fake'", "", "failed on all 20 files; the first"),
])  # fmt: skip
def test_bad_model_files_get_one_sentence(files, capsys, content, name, message):
    (files / "model.py").write_text(content)
    flags = "--model", f"{files / 'model.py'}{name}", "--data.path", files / "data", "--out", files / "out"
    assert evaluate(*flags) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("content", "function"), [("def score(p): ...\ndef helper(p): ...", "score"),
                                                   ("def anything(p): ...\ndef _helper(p): ...", "anything")])  # fmt: skip
def test_the_function_is_found(tmp_path, content, function):
    (tmp_path / "m.py").write_text(content)
    assert scored_files.ScoringFunction.of(str(tmp_path / "m.py")).name == function


@pytest.mark.parametrize(("flags", "message"), [
    (["saved_models/x", "--predictions", "s.csv"], "one of them; got runs and predictions"),
    (["--predictions", "s.csv", "--stress", "10"], "need a run; --predictions"),
    (["--predictions", "s.csv", "--data.path", "d"], "omit --data.path"),
    (["--model", "m.py"], "add --data.path DIR"), (["--model", "no.py", "--data.path", "d"], "There is no file 'no.py'"),
    (["--model", "m.py", "--data.path", "d", "--evaluate.aggregate", "max"], "one score for each file"),
    (["saved_models/x", "--columns.label", "y"], "give that too"), ([], "No run given"),
    (["--predictions", "no.csv"], "No such file"),
])  # fmt: skip
def test_bad_flags_get_one_sentence(tmp_path, monkeypatch, capsys, flags, message):
    monkeypatch.chdir(tmp_path)
    try:
        assert evaluate(*flags) == 2
    except SystemExit as error:  # the parser prints a box
        assert error.code == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_one_class_and_wrong_scale_get_one_sentence(tmp_path, table, capsys):
    table[table["label"] == 1].to_csv(tmp_path / "s.csv", index=False)
    assert evaluate("--predictions", tmp_path / "s.csv") == 2
    assert "All 100 files to judge are fake" in capsys.readouterr().err
    table.to_csv(tmp_path / "s.csv", index=False)
    assert evaluate("--predictions", tmp_path / "s.csv", "--columns.as_given") == 2
    assert "those of score_two are not within 0..1" in capsys.readouterr().err


def test_a_false_positive_rate_is_set_on_validation_rows_for_each_detector_and_combination(tmp_path, capsys):
    random, size = np.random.default_rng(1), 400
    labels, splits = np.arange(size) % 2, np.repeat(["validation", "test"], size // 2)
    rows = pd.DataFrame({"path": [f"{number}.png" for number in range(size)], "label": labels, "split": splits,
                         "score_a": random.normal(2 * labels), "score_b": random.normal(labels)})  # fmt: skip
    rows.to_csv(tmp_path / "s.csv", index=False)
    judged = Judged(score_table.read(tmp_path / "s.csv", {}), method="platt", coverage=0, rule="fpr:0.1", report="score_a")
    tables, found = judge.compare(judged, prevalence=0.01)
    real = rows[rows["label"] == 0].set_index("split")
    for name in ("score_a", "score_b"):
        cut = np.quantile(real.loc["validation", name], 0.9, method="higher")
        assert 1 - found["detectors"][name]["per_class"]["real"]["recall"] == pytest.approx((real.loc["test", name] > cut).mean())
    stacked = found["combinations"]["within"]["stacking"]
    assert stacked["per_class"]["real"]["recall"] == pytest.approx(0.9, abs=0.1)
    recall, rate = stacked["per_class"]["fake"]["recall"], 1 - stacked["per_class"]["real"]["recall"]
    assert stacked["rare"]["precision"] == pytest.approx(0.01 * recall / (0.01 * recall + 0.99 * rate))
    assert "Where 1 % of the files are fake, of those called fake" in tables and "at most 10 % of the real" in judged.protocol
    assert judged.main[0] == "score_a" and judged.main[1].threshold == judged.detectors["score_a"].threshold != judged.threshold
    assert evaluate("--predictions", tmp_path / "s.csv", "--columns.report", "score_c", "--out", tmp_path / "out") == 2
    assert "names no detector 'score_c'. Perhaps you meant" in " ".join(capsys.readouterr().err.split())
    rows.drop(columns="split").to_csv(tmp_path / "s.csv", index=False)
    assert evaluate("--predictions", tmp_path / "s.csv", "--evaluate.fpr", "0.1") == 2
    assert "a column split" in " ".join(capsys.readouterr().err.split())


def test_frames_of_a_table_are_combined_by_the_rule_that_is_given(tmp_path):
    rows = pd.DataFrame({"path": np.repeat(list("abcd"), 3), "frame": [0, 1, 2] * 4, "label": np.repeat([0, 0, 1, 1], 3),
                         "score": [1, 2, 6, 0, 1, np.nan, 3, 4, 5, 7, 8, 0]})  # fmt: skip
    rows.to_csv(tmp_path / "s.csv", index=False)
    for rule, expected in (("max", [6, 1, 5, 8]), ("median", [2, 0.5, 4, 7]), ("mean", [3, 0.5, 4, 5])):
        assert score_table.read(tmp_path / "s.csv", {}, aggregate=rule).scores["score"].tolist() == pytest.approx(expected)
    faces = rows.assign(face=rows["frame"] > 1, box="1,2,3,4", box_frame=0).astype({"face": int})
    faces.to_csv(tmp_path / "f.csv", index=False)
    read = score_table.read(tmp_path / "f.csv", {})
    assert read.scores["score"].tolist() == [6, 0.5, 5, 7.5], "a file is as fake as its most fake face"
    rows.drop_duplicates("path").to_csv(tmp_path / "s.csv", index=False)
    with pytest.raises(UserError, match="has one row for each file"):
        score_table.read(tmp_path / "s.csv", {}, aggregate="max")


def test_the_most_wrong_files_are_shown_where_they_exist(tmp_path, images, light_test):
    rows = pd.DataFrame([(str(path), label) for label, name in enumerate(("real", "fake"))
                         for path in sorted(images.glob(f"{name}/*"))[:6]], columns=["path", "label"])  # fmt: skip
    rows.loc[0, "path"] = str(tmp_path / "gone.png")
    rows.assign(score=[0.9, 0.9, *[0.1] * 4, *[0.8] * 5, 0.05]).to_csv(tmp_path / "s.csv", index=False)
    assert evaluate("--predictions", tmp_path / "s.csv", "--columns.as_given", "--out", tmp_path / "out") == 0
    page = (tmp_path / "out" / "report.html").read_text()
    shown = page.partition("<h2>Most confident mistakes</h2>")[2].partition("</section>")[0]
    assert shown.count("<figure>") == 2 and rows["path"][1] in shown and rows["path"][11] in shown
