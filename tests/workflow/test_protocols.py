"""Studies: which trainings flags ask for, and what becomes of those that finish, fail and are interrupted. The trainer is a fake:
it splits the manifest as a training does and draws scores."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from light import blank_png

from tfdetect import config, files, models  # noqa: F401  (registers the detectors)
from tfdetect.api.runs import runs
from tfdetect.api.study import Study
from tfdetect.api.train import train_run
from tfdetect.artifact import Artifact
from tfdetect.data import manifest, score_table
from tfdetect.errors import UserError
from tfdetect.evaluation import metrics, predictions
from tfdetect.evaluation.calibration import Calibration
from tfdetect.evaluation.protocols import FIGURES
from tfdetect.settings import Data
from tfdetect.workflow import dataset, protocols, splits, studies


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    """Draw nothing; this does not import TensorFlow, which no study needs by itself."""
    monkeypatch.setattr("tfdetect.plots.style.to_png", blank_png)
    monkeypatch.setattr("tfdetect.pages.html.to_png", blank_png)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A manifest of 60 groups, each an original and its forgery by one of three methods."""
    path = tmp_path_factory.mktemp("set") / "set.csv"
    rows = [{"path": f"{kind}/{number}.png", "label": label, "group": f"g{number}",
             "source": ("alpha", "beta x", "gamma")[number % 3] if label else "camera"}
            for number in range(60) for label, kind in enumerate(("real", "fake"))]  # fmt: skip
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def parse(table, out, *flags):
    return config.parse(["cnn", "--data.path", str(table), "--out", str(out), *flags], "train")


def fake_training(run):
    """Write what a training leaves: scores are 1 apart for the classes, plus noise of the seed."""
    artifact = Artifact(run.out / run.name)
    artifact.folder.mkdir(parents=True)
    config.write_yaml(run, artifact.config)
    rows, _ = splits.assign(dataset.load_dataset(run.data, run.detector), run)
    manifest.write(rows.assign(error="", sha=""), artifact.manifest)
    noise = np.random.default_rng(run.train.seed).normal(size=len(rows))
    scored = rows.assign(frame=0, score=rows["label"] + noise)[rows["split"] != "train"]
    calibration = Calibration(slope=1.0, intercept=-0.5, threshold=0.5)
    scored = predictions.add_probabilities(scored[list(predictions.COLUMNS)], calibration)
    predictions.write(scored, artifact.predictions)
    tested = scored[scored["split"] == "test"]
    figures = dict.fromkeys([*FIGURES, "auc_interval"]) | metrics.ranking_metrics(tested["label"].to_numpy(), tested["score"])
    test = figures | {"n_real": int((tested["label"] == 0).sum()), "n_fake": int(tested["label"].sum())}
    files.write_json(artifact.metrics, {"test": test})
    files.write_json(artifact.calibration, {})  # `load` wants one
    artifact.report.write_text("")
    return {}


def no_search(run):
    raise AssertionError("nothing is tried out")


def study_of(run, train=fake_training):
    return Study(studies.run_study(run, train, no_search).folder)


def test_folds_and_seeds_are_trained_and_reported_together(table, tmp_path, capsys):
    study = study_of(parse(table, tmp_path, "--data.folds", "5", "--train.seeds", "3", "--train.seed", "4"))
    assert study.folder == tmp_path / "cnn-folds" and len(study.members) == 15
    assert list(study.members["name"][:6]) == [*(f"fold-{fold}-seed-4" for fold in range(1, 6)), "fold-1-seed-5"]
    assert set(study.members["state"]) == {"finished"} and list(study.results["by_seed"]) == ["4", "5", "6"]
    tested = [rows[rows["split"] == "test"] for rows in (study[f"fold-{fold}-seed-4"].predictions for fold in range(1, 6))]
    assert sorted(pd.concat(tested)["path"]) == sorted(manifest.read(table)["path"]), "each file is tested once"
    assert study.results["sd_seeds"] > 0 and study.results["n_groups"] == 60
    out = capsys.readouterr().out
    assert re.search(r"AUC 0\.\d{3} \(95 % interval .*, the mean over 3 seeds, on 60 real and 60 fake files in 60 groups", out)
    assert "Standard deviation over 3 seeds" in out
    page = study.report.read_text()
    assert "Cross-validation" in page and "fold-3-seed-6" in page
    read = score_table.read(study.folder / "predictions.csv", {})
    assert len(read.files) == 120 and list(read.scores) == ["score"]


def test_config_of_a_member_is_that_member_alone(table, tmp_path):
    study = study_of(parse(table, tmp_path, "--data.folds", "3", "--train.seeds", "2"))
    path = study.folder / "fold-2-seed-1" / "config.yaml"
    run = config.parse(["--config", str(path), "--out", str(tmp_path), "--name", "again"], "train")
    assert not protocols.is_study(run) and (run.data.fold, run.data.folds, run.train.seed) == (2, 3, 1)
    fake_training(run)
    again, member = (predictions.read(folder / "predictions.csv") for folder in (tmp_path / "again", path.parent))
    assert again.equals(member)


def test_each_source_is_left_out_once(table, tmp_path, capsys):
    study = study_of(parse(table, tmp_path, "--data.leave_out", "each", "--name", "sources"))
    assert list(study.members["name"]) == ["without-alpha", "without-beta_x", "without-gamma"]
    for name, source in zip(study.members["name"], study.members["left_out"], strict=True):
        fakes = pd.read_csv(study.folder / name / "manifest.csv").query("label == 1")
        assert set(fakes.loc[fakes["source"] == source, "split"]) == {"test"}
        assert set(fakes.loc[fakes["source"] != source, "split"]) == {"train", "validation", "test"}
    rows = {row["source"]: row for row in study.results["rows"]}
    assert set(rows) == {"alpha", "beta x", "gamma"}
    assert study.results["worst"] == min(rows, key=lambda name: rows[name]["unseen"])
    assert study.results["unseen"] == pytest.approx(np.mean([row["unseen"] for row in rows.values()]))
    assert "On sources of fakes that training did not see: AUC" in capsys.readouterr().out


def test_one_source_left_out_is_a_single_run(table, tmp_path):
    run = protocols.as_single(parse(table, tmp_path, "--data.leave_out", "alpha"))
    assert not protocols.is_study(run) and run.data.hold_out == ("alpha",) and run.data.leave_out == "none"


def test_a_single_training_refuses_a_study(table, tmp_path):
    with pytest.raises(UserError, match="--train.seeds asks for several trainings, but this is a single one"):
        train_run(parse(table, tmp_path, "--train.seeds", "2"))


def test_a_learning_curve_has_the_same_test_files(table, tmp_path, capsys):
    study = study_of(parse(table, tmp_path, "--data.amounts", "1", "0.25", "0.5"))
    parts = {amount: pd.read_csv(study.folder / name / "manifest.csv")
             for name, amount in zip(study.members["name"], study.members["amount"], strict=True)}  # fmt: skip
    tested = {frozenset(part.loc[part["split"] != "train", "path"]) for part in parts.values()}
    trained = [set(parts[amount].loc[parts[amount]["split"] == "train", "group"]) for amount in (0.25, 0.5, 1)]
    assert len(tested) == 1 and trained[0] < trained[1] < trained[2]
    assert [len(groups) for groups in trained] == [10, 21, 42]
    assert [row["trained_on"] for row in study.results["rows"]] == [20, 42, 84]
    out = capsys.readouterr().out
    assert "--train.seeds 3 adds it" in out and ("training data would" in out or "cannot be told" in out)
    assert "Learning curve" in study.report.read_text()


def test_what_fails_is_recorded_and_the_others_go_on(table, tmp_path, capsys):
    def train(run):
        if run.data.fold == 2:
            raise UserError("Out of memory in training: lower --train.batch.")
        if run.data.fold == 3:
            raise RuntimeError("odd")
        return fake_training(run)

    run = parse(table, tmp_path, "--data.folds", "4")
    study = study_of(run, train)
    members = study.members.set_index("name")
    assert list(members["state"]) == ["finished", "failed", "failed", "finished"]
    assert members.loc["fold-2", "reason"] == "Out of memory in training: lower --train.batch."
    assert members.loc["fold-3", "reason"] == "RuntimeError: odd. The traceback is in fold-3.log."
    assert "RuntimeError: odd" in (study.folder / "fold-3.log").read_text() and not (study.folder / "fold-2.log").exists()
    assert "2 trainings failed: fold-2, fold-3. The figures are of the others" in capsys.readouterr().out
    assert study.results["n_groups"] == 30 and "Out of memory" in study.report.read_text()
    trained = []
    again = study_of(parse(table, tmp_path, "--data.folds", "4", "--name", "cnn-folds"),
                     lambda run: (trained.append(run.data.fold), fake_training(run))[1])  # fmt: skip
    assert trained == [2, 3] and again.results["n_groups"] == 60 and set(again.members["state"]) == {"finished"}


def test_an_interrupted_study_goes_on(table, tmp_path):
    trained = []

    def train(run):
        trained.append(run.name)
        if len(trained) == 2:
            raise KeyboardInterrupt
        return fake_training(run)

    run = parse(table, tmp_path, "--data.folds", "3")
    with pytest.raises(KeyboardInterrupt):
        study_of(run, train)
    assert not (tmp_path / "cnn-folds" / "report.html").exists()
    study = study_of(parse(table, tmp_path, "--data.folds", "3", "--data.workers", "1"), train)
    assert study.folder == tmp_path / "cnn-folds" and trained == ["fold-1", "fold-2", "fold-2", "fold-3"]
    assert study_of(run).folder == tmp_path / "cnn-folds-2", "a complete one is not taken for another"


def test_more_seeds_join_a_study_and_other_settings_do_not(table, tmp_path):
    flags = ["--name", "s", "--train.seeds"]
    study_of(parse(table, tmp_path, *flags, "2"))
    trained = []
    study = study_of(parse(table, tmp_path, *flags, "3"), lambda run: (trained.append(run.name), fake_training(run))[1])
    assert trained == ["seed-2"] and len(study.results["by_seed"]) == 3
    with pytest.raises(UserError, match=r"s holds another study \(data.size was 256 and is now 64\): give another --name."):
        study_of(parse(table, tmp_path, *flags, "3", "--data.size", "64"))
    with pytest.raises(UserError, match="s holds another study .*data.folds was 0 and is now 3"):
        study_of(parse(table, tmp_path, "--name", "s", "--data.folds", "3"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("")
    with pytest.raises(UserError, match="other exists and holds no study"):
        study_of(parse(table, tmp_path, "--name", "other", "--data.folds", "3"))


def test_a_study_does_not_go_on_with_other_files(table, tmp_path):
    path = shutil.copy(table, tmp_path / "set.csv")
    study_of(parse(path, tmp_path, "--data.folds", "3", "--name", "s"))
    rows = pd.read_csv(path)
    rows[rows["group"] != "g7"].to_csv(path, index=False)
    with pytest.raises(UserError, match="The files, or their labels, groups or sources, have changed since .*s was begun"):
        study_of(parse(path, tmp_path, "--data.folds", "3", "--name", "s"))
    rows.sample(frac=1, random_state=0).to_csv(path, index=False)
    study_of(parse(path, tmp_path, "--data.folds", "3", "--name", "s"))


def test_a_study_of_which_all_fail_says_why_and_leaves_nothing(table, tmp_path):
    def train(run):
        raise UserError("No GPU.")

    with pytest.raises(UserError, match="All 3 trainings of .*cnn-folds failed; the first, fold-1: No GPU."):
        study_of(parse(table, tmp_path, "--data.folds", "3"), train)
    assert not (tmp_path / "cnn-folds").exists()
    with pytest.raises(UserError, match="needs at least 61 groups of reals"):
        study_of(parse(table, tmp_path, "--data.folds", "61"))
    with pytest.raises((OSError, UserError), match="nowhere"):
        study_of(parse("nowhere", tmp_path, "--train.seeds", "2"))
    assert not list(tmp_path.iterdir())


def test_members_are_listed_by_runs(table, tmp_path):
    study_of(parse(table, tmp_path, "--train.seeds", "2"))
    listed = runs(tmp_path, sort="name")
    assert list(listed["name"]) == ["cnn-seeds/seed-0", "cnn-seeds/seed-1"] and set(listed["state"]) == {"finished"}
    shutil.rmtree(tmp_path / "cnn-seeds" / "seed-1")
    assert len(json.loads((tmp_path / "cnn-seeds" / "study.json").read_text())["members"]) == 2


def test_one_source_cannot_be_left_out(table, tmp_path):
    rows = pd.read_csv(table)
    rows.assign(source="same").to_csv(tmp_path / "one.csv", index=False)
    with pytest.raises(UserError, match="--data.leave_out each needs fakes of two sources at least, .* found same"):
        study_of(parse(tmp_path / "one.csv", tmp_path, "--data.leave_out", "each"))


@pytest.mark.parametrize(("flags", "message"), [
    ("--data.folds 5 --data.leave_out each", "--data.folds and --data.leave_out cannot be combined"),
    ("--data.folds 5 --data.amounts 0.5 1", "--data.folds and --data.amounts cannot be combined"),
    ("--data.folds 1", "--data.folds must be at least 2, got 1"),
    ("--data.fold 2", "--data.fold needs --data.folds"),
    ("--data.folds 3 --data.fold 4", "--data.fold must be within 1..3"),
    ("--data.amounts 0.5", "--data.amounts takes two or more different shares"),
    ("--data.amounts 0.5 1.5", "--data.amounts must be above 0 and at most 1, got 1.5"),
    ("--train.seeds 0", "--train.seeds must be at least 1"),
    ("--data.folds 5 --name x --resume", "--resume and --data.folds cannot be combined. A study goes on when"),
    ("--train.seeds 2 --name x --overwrite", "--overwrite and --train.seeds cannot be combined. To start a study anew"),
    ("--train.seeds 2 --search train.batch=8,16", "--search and --train.seeds cannot be combined"),
    ("--data.leave_out a --data.hold_out b", "both choose sources to leave out"),
    ("--data.leave_out each --data.make_fakes 1", "add --data.keep_fakes"),
    ("--data.folds 5 --train.strategy multiworker", "a study trains on one machine"),
    ("--trials 5", "--trials 5 needs --search"),
    ("--trials 0", "--trials must be at least 1")])  # fmt: skip
def test_contradicting_flags(flags, message, capsys):
    with pytest.raises(SystemExit) as stop:
        config.parse(["cnn", *flags.split()], "train")
    assert stop.value.code == 2 and message in " ".join(re.sub(r"[^\w\s!-~]", " ", capsys.readouterr().err).split())


def test_settings_of_a_single_training_have_no_study():
    content = config.run_to_dict(config.parse(["cnn", "--data.leave_out", "each", "--train.seeds", "3"], "train"))
    assert not {"leave_out", "amounts"} & set(content["data"]) and "seeds" not in content["train"]
    assert content["data"]["folds"] == Data.folds == 0
