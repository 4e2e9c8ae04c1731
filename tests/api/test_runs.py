"""Runs are listed with their results whatever state they are in; only whole runs that nobody trains are deleted, after asking."""

import csv
import io
import json
import os
import sys
import time
from pathlib import Path

import pytest
import yaml
from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from tfdetect import artifact as artifacts
from tfdetect import cli
from tfdetect.api import runs as api
from tfdetect.artifact import Artifact


def make_run(folder, detector="cnn", auc=0.9, version=2, data="/data/celeb", finished=True, hours_ago=0.0, size=1000):
    """Write a run folder by hand, without any training."""
    artifact = Artifact(folder)
    artifact.checkpoints.mkdir(parents=True)
    settings = {"version": version, "detector": {"name": detector}, "data": {"path": data}}
    artifact.config.write_text(yaml.safe_dump(settings))
    (artifact.checkpoints / "state").write_bytes(bytes(size))
    if finished:
        interval = None if auc is None else [auc - 0.05, auc + 0.05]
        artifact.metrics.write_text(json.dumps({"test": {"auc": auc, "auc_interval": interval}}))
        artifact.report.write_text("")
        os.utime(artifact.report, (time.time() - 3600 * hours_ago,) * 2)
    return artifact


@pytest.fixture
def root(tmp_path):
    """Folder of runs in every state, and of what is no run."""
    root = tmp_path / "saved_models"
    make_run(root / "cnn", auc=0.8, hours_ago=3, size=50_000)
    make_run(root / "cnn-2", auc=0.9, hours_ago=1, data=None)
    make_run(root / "cnn-10", auc=None, hours_ago=2)
    make_run(root / "study" / "clip", "clip", auc=0.99, hours_ago=4, data="/data/Faces")
    make_run(root / "old", auc=0.7, version=1, hours_ago=5)
    make_run(root / "new", auc=0.7, version=9, hours_ago=6)
    make_run(root / "stopped", finished=False)
    damaged = make_run(root / "damaged", hours_ago=7)
    damaged.config.write_text("detector: [")
    half = make_run(root / "half", hours_ago=8)
    half.metrics.write_text("{")
    (root / "no_run").mkdir()
    (root / "README.md").write_text("")
    return root


def call(capsys, *argv):
    """Run `tfdetect runs ARGV` and return its exit code, stdout and stderr."""
    try:
        code = cli.main(["runs", *map(str, argv)])
    except SystemExit as stop:
        code = stop.code
    return code, *capsys.readouterr()


def test_every_run_is_listed_with_state_and_result(root):
    table = api.runs(root).set_index("name")
    assert set(table.index) == {"cnn", "cnn-2", "cnn-10", "study/clip", "old", "new", "stopped", "damaged", "half"}
    states = {"old": "outdated", "new": "unreadable", "damaged": "unreadable", "stopped": "interrupted"}
    assert dict(table["state"]) == {name: states.get(name, "finished") for name in table.index}
    assert table.loc["cnn", ["auc", "auc_low", "auc_high"]].to_list() == pytest.approx([0.8, 0.75, 0.85])
    assert table.loc["old", "auc"] == 0.7 and table.loc[["cnn-10", "stopped", "damaged", "half"], "auc"].isna().all()
    assert set(table.index[table["note"] != ""]) == {"old", "new", "damaged", "half"}
    assert table.loc["cnn-2", "data"] == "embedded sample" and table.loc["study/clip", "detector"] == "clip"
    assert 50_000 < table.loc["cnn", "size"] < 50_000 + 5 * 4096
    assert (table["date"].max() - table.loc["cnn", "date"]).total_seconds() == pytest.approx(3 * 3600, abs=60)


def test_a_run_that_is_being_trained_is_shown_and_kept(root, capsys):
    with artifacts.lock(Artifact(root / "cnn")):
        assert api.runs(root).set_index("name").loc["cnn", "state"] == "training"
        code, out, _ = call(capsys, root, "--delete", "cnn", "cnn-2", "--yes")
    assert code == 1 and "cnn is being trained" in out
    assert (root / "cnn").exists() and not (root / "cnn-2").exists()


@pytest.mark.parametrize(
    "sort, names",
    [
        ("name", ["cnn", "cnn-2", "cnn-10", "damaged", "half", "new", "old", "stopped", "study/clip"]),
        ("auc", ["study/clip", "cnn-2", "cnn", "new", "old", "cnn-10", "damaged", "half", "stopped"]),
        ("size", ["cnn"]),
        ("date", ["stopped", "cnn-2", "cnn-10", "cnn", "study/clip", "old", "new", "damaged", "half"]),
    ],
)
def test_order(root, sort, names):
    assert list(api.runs(root, sort=sort)["name"])[: len(names)] == names


@pytest.mark.parametrize(
    "filters, names",
    [
        ({"detector": ("clip", "mesonet")}, {"study/clip"}),
        ({"data": "faces"}, {"study/clip"}),
        ({"data": "sample"}, {"cnn-2"}),
        ({"min_auc": 0.8}, {"cnn", "cnn-2", "study/clip"}),
        ({"state": ("interrupted", "outdated")}, {"stopped", "old"}),
        ({"name": ("cnn*", "study/*"), "min_auc": 0.85}, {"cnn-2", "study/clip"}),
        ({"detector": ("none",)}, set()),
    ],
)
def test_filters(root, filters, names):
    table = api.runs(root, **filters)
    assert set(table["name"]) == names and list(table) == list(api.EMPTY)


def test_text_json_and_csv(root, capsys):
    code, out, _ = call(capsys, root, "--sort", "auc")
    lines = out.splitlines()
    assert code == 0 and lines[1].split() == ["study/clip", "clip", "0.990", "(0.940", "to", "1.040)", *lines[1].split()[6:]]
    assert "9 runs" in lines[-1] and "1 interrupted" in lines[-1] and any(line.startswith("half: metrics.json") for line in lines)
    rows = [json.loads(line) for line in call(capsys, root, "--json")[1].splitlines()]
    assert {row["name"]: row["auc"] for row in rows}["cnn-10"] is None and len(rows) == 9
    assert len(call(capsys, root, "--csv")[1].splitlines()) == 10
    assert "No such run" in call(capsys, root, "--min_auc", "2")[1]
    assert call(capsys, root, "--json", "--delete", "cnn")[0] == 2 and (root / "cnn").exists()
    code, _, err = call(capsys, root / "nowhere")
    assert code == 2 and "There is no folder" in err


def test_a_list_for_tensorflow_serving(root, capsys):
    target = root / "models.config"
    for folder in (root / "cnn", root / "study" / "clip"):
        (folder / "1").mkdir()
    assert call(capsys, root, "--sort", "name", "--models_config", target)[0] == 0
    models = text_format.Parse(target.read_text(), ModelServerConfig()).model_config_list.config
    assert [(model.name, model.base_path) for model in models] == [("cnn", "/models/cnn"), ("clip", "/models/study/clip")]
    make_run(root / "study" / "cnn").saved_model.mkdir()
    code, _, err = call(capsys, root, "--models_config", target)
    assert code == 2 and "different names, got clip, cnn, cnn: select some with --name" in err
    assert "got none" in call(capsys, root, "--name", "cnn-2", "--models_config", target)[2]
    assert len(text_format.Parse(target.read_text(), ModelServerConfig()).model_config_list.config) == 2, "as it was"


def test_a_folder_that_cannot_be_read_hides_no_other(root, monkeypatch):
    def deny(path):
        if path.name == "study":
            raise PermissionError(13, "Permission denied", str(path))
        return iterdir(path)

    iterdir = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", deny)
    table = api.runs(root).set_index("name")
    assert len(table) == 9 and table.loc["study", "state"] == "unreadable"


def test_a_run_itself_can_be_given(root):
    assert list(api.runs(root / "study" / "clip")["name"]) == ["clip"]


class Terminal(io.StringIO):
    """Standard input of a terminal at which this text is typed."""

    def isatty(self):
        return True


@pytest.mark.parametrize("typed, deleted", [("y\n", True), ("n\n", False), ("\n", False), ("", False)])
def test_deletion_shows_what_goes_and_asks(root, capsys, monkeypatch, typed, deleted):
    monkeypatch.setattr(sys, "stdin", Terminal(typed))
    code, out, _ = call(capsys, root, "--delete", "cnn*", "study/clip")
    assert code == 0 and "Delete 4 runs" in out and "[y/N]" in out
    assert all(name in out for name in ("cnn-2", "cnn-10", "study/clip"))
    assert all((root / name).exists() != deleted for name in ("cnn", "cnn-2", "cnn-10", "study/clip"))
    assert (root / "stopped").exists() and (root / "study").exists(), "what was not named stays"


def test_without_a_terminal_nothing_is_deleted_unless_yes_is_given(root, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    code, out, err = call(capsys, root, "--delete", "cnn")
    assert code == 2 and "add --yes" in err and "cnn" in out and (root / "cnn").exists()
    assert call(capsys, root, "--delete", "cnn", "--yes")[0] == 0 and not (root / "cnn").exists()


def test_filters_limit_what_a_pattern_deletes(root, capsys):
    assert call(capsys, root, "--state", "interrupted", "outdated", "--delete", "*", "--yes")[0] == 0
    assert not (root / "stopped").exists() and not (root / "old").exists() and len(api.runs(root)) == 7


@pytest.mark.parametrize("name, message", [("cnn-3", "Perhaps you meant cnn"), ("no_run", "No run"), ("../x", "No run")])
def test_an_unknown_name_deletes_nothing(root, capsys, name, message):
    code, _, err = call(capsys, root, "--delete", "cnn", name, "--yes")
    assert code == 2 and message in err and (root / "cnn").exists()


def test_only_one_whole_run_is_ever_deleted(root, capsys, tmp_path):
    make_run(root / "cnn" / "evaluations" / "inner")
    (root / "link").symlink_to(make_run(tmp_path / "elsewhere").folder)
    code, out, err = call(capsys, root, "--delete", "cnn", "link", "damaged", "--yes")
    assert code == 2 and "None of these runs can be deleted" in err
    assert "another run, evaluations/inner" in out and "is a link to" in out and "no config.yaml of a run" in out
    assert (root / "cnn" / "metrics.json").exists() and (root / "damaged").exists() and (tmp_path / "elsewhere").exists()


def test_brackets_in_a_name_are_no_pattern(root, capsys):
    for name in ("cnn[v2]", "cnnv", "cnn2"):
        make_run(root / name)
    assert "cnn[v2]" in set(api.runs(root, name=["cnn[v2]"])["name"])
    assert call(capsys, root, "--delete", "cnn[v2]", "--yes")[0] == 0
    assert not (root / "cnn[v2]").exists() and (root / "cnnv").exists() and (root / "cnn2").exists()


def test_records_of_odd_names_are_valid(root, capfdbinary):
    names = {"a\nb", "a\udcff", "back\\/slash", 'quo"te', " "}
    for name in names:
        make_run(root / name)
    assert cli.main(["runs", str(root), "--json"]) == 0
    rows = [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]
    assert names <= {row["name"] for row in rows} and all(os.path.isdir(row["path"]) for row in rows)
    assert cli.main(["runs", str(root), "--csv"]) == 0
    printed = {row["name"] for row in csv.DictReader(io.StringIO(capfdbinary.readouterr().out.decode(), newline=""))}
    assert names - {"a\udcff"} | {r"a\udcff"} <= printed
    assert cli.main(["runs", str(root)]) == 0 and r"a\nb" in capfdbinary.readouterr().out.decode()


@pytest.mark.parametrize(
    "content", ['{"test": {"auc": 1e999, "auc_interval": [NaN, NaN]}}', "[" * 100_000, '{"test": {"auc": "x"}}']
)
def test_damaged_metrics_are_no_numbers(root, capsys, content):
    (root / "cnn" / "metrics.json").write_text(content)
    code, out, _ = call(capsys, root, "--name", "cnn", "--json")
    assert code == 0 and json.loads(out)["auc"] is None and "Infinity" not in out


def test_links_inside_a_run_are_deleted_and_not_followed(root, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.jpg").write_text("")
    (root / "cnn" / "data").symlink_to(tmp_path / "data")
    artifacts.delete(Artifact(root / "cnn"))
    assert not (root / "cnn").exists() and (tmp_path / "data" / "a.jpg").exists()


def test_what_an_interrupted_deletion_leaves_is_an_unfinished_run(root, monkeypatch):
    def fail(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(artifacts.shutil, "rmtree", fail)
    with pytest.raises(KeyboardInterrupt):
        artifacts.delete(Artifact(root / "cnn"))
    monkeypatch.undo()
    assert api.runs(root).set_index("name").loc["cnn", "state"] == "interrupted"
    artifacts.delete(Artifact(root / "cnn"))
