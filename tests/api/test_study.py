"""Studies from end to end: real trainings, as small as can be."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import tfdetect
from tfdetect import cli, config
from tfdetect.api.study import Study
from tfdetect.data import worker_pool
from tfdetect.evaluation import predictions
from tfdetect.workflow.child import ChildProcess

ROOT = Path(__file__).parents[2]
SMALL = {"data.size": 32, "epochs": 1, "batch": 8, "width": 4, "stress": 0}
FLAGS = ["--data.size", "32", "--train.epochs", "1", "--train.batch", "8", "--detector.width", "4", "--stress", "0"]


def test_cross_validation_from_end_to_end(images, tmp_path, monkeypatch, light_test):
    decoded, map_here = [], worker_pool._map_in_pool
    monkeypatch.setattr(worker_pool, "_map_in_pool", lambda items, *more: map_here(decoded.extend(items) or decoded[:], *more))
    monkeypatch.setattr(ChildProcess, "call", lambda self, function, run: function(run))
    study = tfdetect.train("cnn", images, folds=2, cache_dir=tmp_path / "cache", out=tmp_path / "runs", **SMALL)
    assert isinstance(study, Study) and list(study.members["name"]) == ["fold-1", "fold-2"]
    assert len(decoded) == 40, "each file is decoded once"
    tested = [detector.predictions.query("split == 'test'")["path"] for detector in (study["fold-1"], study["fold-2"])]
    assert len({*tested[0], *tested[1]}) == len(tested[0]) + len(tested[1]) == 40 == len(study.predictions)
    own = study["fold-1"].predictions.query("split == 'test'").set_index("path")
    pooled = study.predictions.query("fold == 1").set_index("path")
    assert np.allclose(pooled["probability"], own.loc[pooled.index, "probability"])
    assert study.report.is_file() and study.results["n_groups"] == 20 and 0 <= study.results["auc"] <= 1
    assert "<iframe" in study._repr_html_() and study["fold-2"].run.data.fold == 2


@pytest.mark.slow
def test_a_member_repeated_by_its_config_is_the_same_detector(images, tmp_path):
    out = ["--out", str(tmp_path)]
    assert cli.main(["train", "cnn", "--data.path", str(images), "--data.cache_dir", str(tmp_path / "cache"), *FLAGS, *out,
                     "--data.folds", "2", "--train.seeds", "2"]) == 0  # fmt: skip
    folder = tmp_path / "cnn-folds" / "fold-2-seed-1"
    assert cli.main(["train", "--config", str(folder / "config.yaml"), *out, "--name", "again", "--stress", "0"]) == 0
    first, again = (predictions.read(path / "predictions.csv") for path in (folder, tmp_path / "again"))
    assert np.allclose(first["score"], again["score"], atol=1e-6) and first["path"].equals(again["path"])
    assert cli.main(["evaluate", "--predictions", str(folder.parent / "predictions.csv"), "--out", str(tmp_path / "judged")]) == 0
    judged = json.loads((tmp_path / "judged" / "metrics.json").read_text())
    assert judged["test"]["n"] == 40


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_study_that_is_killed_goes_on_and_leaves_no_process(images, tmp_path, how):
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), "cnn", "--data.path", str(images), "--data.cache_dir",
               str(tmp_path / "cache"), *FLAGS, "--out", str(tmp_path / "runs"), "--train.seeds", "3"]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    second = tmp_path / "runs" / "cnn-seeds" / "seed-1"
    deadline = time.monotonic() + 120
    while not second.exists() and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(how)
    assert process.wait(30) == (-9 if how == signal.SIGKILL else 130)
    deadline = time.monotonic() + 20
    while session_has_processes(process.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not session_has_processes(process.pid), "the process that trains has ended as well"
    first = (tmp_path / "runs" / "cnn-seeds" / "seed-0" / "report.html").stat().st_mtime
    assert subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0
    members = json.loads((second.parent / "study.json").read_text())["members"]
    assert [member["state"] for member in members] == 3 * ["finished"]
    assert (second.parent / "seed-0" / "report.html").stat().st_mtime == first, "what was finished is not trained again"


def session_has_processes(number):
    """Return whether processes of a session are still there."""
    try:
        os.killpg(number, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
def test_a_process_that_is_killed_fails_its_training_alone(images, tmp_path, capsys):
    command = ["train", "cnn", "--data.path", str(images), "--data.cache_dir", str(tmp_path / "cache"), *FLAGS, "--out",
               str(tmp_path), "--train.seeds", "2"]  # fmt: skip
    begin = ChildProcess.begin

    def kill_the_first(self):
        connection = begin(self)
        if not (tmp_path / "killed").exists():
            (tmp_path / "killed").touch()
            self.process.kill()
        return connection

    ChildProcess.begin, code = kill_the_first, None
    try:
        code = cli.main(command)
    finally:
        ChildProcess.begin = begin
    members = json.loads((tmp_path / "cnn-seeds" / "study.json").read_text())["members"]
    assert code == 1 and [member["state"] for member in members] == ["failed", "finished"]
    assert members[0]["reason"].startswith("Its process was ended by signal 9, as happens when memory runs out.")


def test_where_no_process_can_be_started_this_one_trains(monkeypatch, capsys):
    def refuse(process):
        raise PermissionError("not permitted")

    monkeypatch.setattr("multiprocessing.context.SpawnProcess.start", refuse)
    with ChildProcess() as process:
        assert process.call(lambda run: {"name": run.name}, config.parse(["cnn", "--name", "x"], "train")) == {"name": "x"}
    assert "No process can be started (not permitted): this one trains" in capsys.readouterr().err


@pytest.mark.slow
def test_a_search_from_end_to_end(images, tmp_path):
    pytest.importorskip("optuna")
    study = tfdetect.train("cnn", images, search="train.learning_rate=1e-4..1e-2 detector.dropout=0,0.3", trials=3,
                           cache_dir=tmp_path / "cache", out=tmp_path / "runs", **SMALL)  # fmt: skip
    assert len(study.members) == 3 and study.best.metrics["test"]["n"] == 8
    tested = list(study.folder.glob("*/predictions.csv"))
    assert tested == [study.best.folder / "predictions.csv"], "no other trial was scored on the test"
