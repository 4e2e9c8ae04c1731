"""train --search: what it understands, and the choice among trials. Trials are fakes whose validation figures are known."""

import json
import math
import re

import pandas as pd
import pytest
from light import blank_png

from tfdetect import config, files, models  # noqa: F401  (registers the detectors)
from tfdetect.api.study import Study
from tfdetect.artifact import Artifact
from tfdetect.errors import UserError
from tfdetect.workflow import search, studies


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    """Draw nothing."""
    monkeypatch.setattr("tfdetect.plots.style.to_png", blank_png)
    monkeypatch.setattr("tfdetect.pages.html.to_png", blank_png)


@pytest.fixture
def table(tmp_path):
    """A manifest of ten groups."""
    rows = [{"path": f"{label}/{number}.png", "label": label, "group": number} for number in range(10) for label in (0, 1)]
    pd.DataFrame(rows).to_csv(tmp_path / "set.csv", index=False)
    return tmp_path / "set.csv"


def parse(table, space, *flags):
    out = ["--out", str(table.parent / "runs")]
    return config.parse(["cnn", "--data.path", str(table), *out, "--search", space, *flags], "train")


class Trainings:
    """Trials are best at a learning rate of 0.001 and a dropout of 0.3; `tried` and `tested` are the runs so far."""

    def __init__(self, interrupt=0, fail=()):
        self.tried, self.tested, self.interrupt, self.fail = [], [], interrupt, fail

    def try_out(self, run):
        artifact = Artifact(run.out / run.name)
        artifact.folder.mkdir(parents=True, exist_ok=True)
        config.write_yaml(run, artifact.config)
        self.tried.append(run)
        if len(self.tried) == self.interrupt:
            raise KeyboardInterrupt
        if len(self.tried) in self.fail:
            raise UserError("Out of memory in training.")
        distance = abs(math.log10(run.train.learning_rate) + 3) + abs(run.detector.dropout - 0.3)
        return {"validation": {"val_auc": 1 - distance / 10, "val_loss": 0.5}}

    def train(self, run):
        self.tested.append(run)
        artifact = Artifact(run.out / run.name)
        assert artifact.config.exists(), "it goes on with the trial's folder"
        test = {"auc": 0.75, "auc_interval": [0.7, 0.8], "accuracy": 0.5, "n_real": 2, "n_fake": 2}
        files.write_json(artifact.metrics, {"test": test})
        files.write_json(artifact.calibration, {})  # `load` wants one
        artifact.report.write_text("")
        return {}

    def study(self, run):
        return Study(studies.run_study(run, self.train, self.try_out).folder)


def test_ranges_and_lists():
    space = search.parse_space("train.learning_rate=1e-4..1e-2 batch=8..64 detector.dropout=0,0.3 train.patience=3..5 "
                               "augment=flip,jpeg(30,100)|flip xla=true,false", config.parse(["cnn"], "t"))  # fmt: skip
    rate, batch, dropout, patience, augment, xla = space
    assert (rate.name, rate.low, rate.high, rate.is_integer, rate.is_log) == ("train.learning_rate", 1e-4, 1e-2, False, True)
    assert (batch.name, batch.low, batch.high, batch.is_integer, batch.is_log) == ("train.batch", 8, 64, True, False)
    assert dropout.values == ("0", "0.3") and not patience.is_log and patience.is_integer
    assert augment.values == ("flip", "jpeg(30,100)|flip") and xla.name == "train.xla"
    run = search.with_settings(config.parse(["cnn"], "t"), {"train.xla": "true", "train.batch": "16", "detector.dropout": "0.3"})
    assert (run.train.xla, run.train.batch, run.detector.dropout) == (True, 16, 0.3)


@pytest.mark.parametrize(("space", "message"), [
    ("train.learning_rat=1e-4..1e-2", "no setting 'train.learning_rat'. Perhaps you meant train.learning_rate."),
    ("train.learning_rate=1e-2..1e-4", "expected two numbers, the lower first"),
    ("train.learning_rate=1e-4..", "expected two numbers"),
    ("train.learning_rate=fast", "fast is not possible: --train.learning_rate: could not convert"),
    ("train.learning_rate", "--search takes NAME=LOW..HIGH or NAME=A,B,..., such as"),
    ("train.batch=8.5..64", "train.batch: 8.5 is not possible"),
    ("train.batch=8,8", "expected different values"),
    ("train.learning_rate=-1..1e-2", "-1.0 is not possible: --train.learning_rate must be above 0"),
    ("train.schedule=constant,cosin", "cosin is not possible: invalid choice 'cosin'"),
    ("data.path=a,b", "--search cannot try data.path: trials are judged on the same validation files"),
    ("train.monitor=val_auc,val_loss", "--search cannot try train.monitor"),
    ("dropout=0,0.3 detector.dropout=0.1,0.2", "names detector.dropout twice"),
    (" ", "--search names no setting")])  # fmt: skip
def test_wrong_searches_are_refused_before_anything_is_read(tmp_path, space, message):
    with pytest.raises(UserError, match=re.escape(message)):
        studies.run_study(parse(tmp_path / "nowhere.csv", space), None, None)
    assert not (tmp_path / "runs").exists()


def test_a_value_that_others_make_possible_is_tried():
    run = config.parse(["clip"], "t")
    space = search.parse_space("train.augment=,flip detector.views=1,2".replace("=,", "=jpeg(50),"), run)
    assert [parameter.name for parameter in space] == ["train.augment", "detector.views"]


def test_without_optuna_one_sentence_says_how_to_install_it(monkeypatch, table):
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(UserError, match=r"^--search needs Optuna, which is not installed: pip install 'tfdetect\[search\]'.$"):
        studies.run_study(parse(table, "train.batch=8,16"), None, None)


def test_the_best_on_validation_is_tested_and_nothing_else(table, capsys):
    pytest.importorskip("optuna")
    trainings = Trainings()
    study = trainings.study(parse(table, "train.learning_rate=1e-5..1e-1 detector.dropout=0,0.3", "--trials", "12"))
    assert len(trainings.tried) == len(study.members) == 12
    assert [run.name for run in trainings.tested] == [study.results["best"]] == [study.best.folder.name]
    values = {trial["name"]: trial["val_auc"] for trial in study.results["trials"]}
    assert values[study.results["best"]] == max(values.values()) > 0.9
    assert study.results["settings"]["detector.dropout"] == "0.3"
    rates = [run.train.learning_rate for run in trainings.tried]
    assert min(rates) < 1e-3 < max(rates) and len(set(rates)) == 12 and {run.train.seed for run in trainings.tried} == {0}
    kept = [path.name for path in study.folder.iterdir() if (path / "config.yaml").exists()]
    assert kept == [study.results["best"]] and len(list((study.folder / "trials").iterdir())) == 12
    repeated = config.parse(study.results["command"].split("train ", 1)[1].split(), "train")
    assert repeated.train.learning_rate == float(study.results["settings"]["train.learning_rate"])
    out = capsys.readouterr().out
    assert "Best of 12 trials" in out and "scored for this trial only: AUC 0.750" in out and "To train with these settings" in out
    assert sum(study.results["importance"].values()) == pytest.approx(1)
    assert "Trials, the best first" in study.report.read_text()


def test_an_interrupted_search_goes_on_with_the_trial_that_was_interrupted(table):
    pytest.importorskip("optuna")
    first, flags = Trainings(interrupt=3), ("train.learning_rate=1e-5..1e-1", "--trials", "5")
    with pytest.raises(KeyboardInterrupt):
        first.study(parse(table, *flags))
    second = Trainings()
    study = second.study(parse(table, *flags))
    assert [run.name for run in second.tried] == ["trial-003", "trial-004", "trial-005"]
    assert second.tried[0].train.learning_rate == first.tried[2].train.learning_rate
    rates = [run.train.learning_rate for run in (*first.tried[:2], *second.tried)]
    assert len(set(rates)) == 5 and len(study.members) == 5
    more = Trainings().study(parse(table, *flags[:2], "6", "--name", "cnn-search"))
    assert len(more.members) == 6 and more.folder == study.folder, "more trials join it"


def test_failed_trials_are_recorded_and_counted(table, capsys):
    pytest.importorskip("optuna")
    trainings = Trainings(fail=(1, 3))
    study = trainings.study(parse(table, "train.learning_rate=1e-5..1e-1", "--trials", "4"))
    assert list(study.members["state"]) == ["failed", "finished", "failed", "finished"] and len(trainings.tried) == 4
    assert study.members["reason"][0] == "Out of memory in training." and study.results["failed"] == 2
    out = capsys.readouterr().out
    assert "2 trainings failed: trial-001, trial-003. They count as trials." in out and "Best of 2 trials" in out
    with pytest.raises(UserError, match="All 2 trainings of .* failed; the first, trial-001: Out of memory"):
        Trainings(fail=(1, 2)).study(parse(table, "train.learning_rate=1e-5..1e-1", "--trials", "2"))


def test_few_combinations_are_all_tried_once(table):
    pytest.importorskip("optuna")
    trainings = Trainings()
    study = trainings.study(parse(table, "detector.dropout=0,0.3 train.learning_rate=0.1,0.001", "--trials", "20"))
    found = {(run.detector.dropout, run.train.learning_rate) for run in trainings.tried}
    assert len(trainings.tried) == 4 and found == {(0, 0.1), (0, 0.001), (0.3, 0.1), (0.3, 0.001)}
    assert study.results["settings"] == {"detector.dropout": "0.3", "train.learning_rate": "0.001"}


def test_settings_that_exclude_each_other_fail_alone(table):
    pytest.importorskip("optuna")
    trainings = Trainings()
    run = config.parse(["clip", "--data.path", str(table), "--out", str(table.parent / "runs"), "--search",
                        "train.augment=jpeg(50),flip detector.views=1,2"], "train")  # fmt: skip
    trainings.try_out = lambda run: (trainings.tried.append(run), config.write_yaml(run, run.out / run.name / "config.yaml"),
                                     {"validation": {"val_auc": 0.5}})[-1]  # fmt: skip
    study = trainings.study(run)
    members = study.members.set_index(["detector.views", "train.augment"])
    assert set(members.loc["1", "state"]) == {"failed"} and set(members.loc["2", "state"]) == {"finished"}
    assert members.loc["1", "reason"].str.contains("give --train.augment and 2 or more --detector.views").all()
    assert {run.detector.views for run in trainings.tried} == {2} and study.results["failed"] == 2
    content = json.loads((study.folder / "study.json").read_text())
    assert content["settings"]["search"].startswith("train.augment") and content["settings"]["trials"] == 20
