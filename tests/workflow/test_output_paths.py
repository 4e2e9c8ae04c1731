"""Default folders: results of different data never share one, and the same command always gets the same one."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from tfdetect.workflow import output_paths
from tfdetect.workflow.test_files import Evaluate, EvaluateData


@pytest.fixture
def make_settings(tmp_path, monkeypatch):
    for folder in ("a/test", "b/test", "here"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    return lambda **data: Evaluate((Path("runs/cnn"),), EvaluateData(**data))


def test_different_data_get_different_folders_and_the_same_data_one(make_settings, tmp_path):
    runs, folders = tmp_path / "here/runs/cnn/evaluations", set()
    different = [{}, {"path": Path("..")}, {"path": Path(".")}, {"path": Path("/")}, {"path": tmp_path / "a/test"},
                 {"path": tmp_path / "b/test"}, {"path": tmp_path / "a/test", "sources": ("x",)}, {"sources": ("x",)},
                 {"path": tmp_path / "a/test", "sources": ("y",)}, {"path": tmp_path / "a/test", "layout": "class_folders"},
                 {"path": tmp_path / "a/test", "fake": ("made",)}, {"path": Path(os.fsdecode(b"\xff"))},
                 {"path": Path("own_test")}, {"path": Path("x" * 250)}]  # fmt: skip
    for data in different:
        target = output_paths.evaluation_folder(make_settings(**data)).absolute()
        assert target.parent == runs and len(target.name) < 100 and target.name[0] not in ".-_", "below the run, and readable"
        folders.add(target)
    assert len(folders) == len(different) and runs / "own_test" in folders
    same = [Path("../a/test"), tmp_path / "a" / "test", Path("../a/x/../test/")]
    assert len({output_paths.evaluation_folder(make_settings(path=path)) for path in same}) == 1
    assert output_paths.evaluation_folder(make_settings(path=same[0]), corruption="jpeg_80").name.endswith("-jpeg_80")


def test_equal_run_names_in_different_folders_are_different_ensembles(make_settings):
    one, other = (replace(make_settings(), runs=(Path("runs/cnn"), Path(folder, "cnn"))) for folder in ("x", "y"))
    assert output_paths.evaluation_folder(one, ["cnn", "cnn_2"]) != output_paths.evaluation_folder(other, ["cnn", "cnn_2"])
    near = replace(make_settings(), runs=(Path("runs/cnn"), Path("runs/b")))
    assert output_paths.evaluation_folder(near, ["cnn", "b"]).name == "cnn+b"


@pytest.mark.parametrize("other", ["config.yaml", "photo.jpg", "manifest.csv"])
def test_out_with_other_files_is_refused(make_settings, tmp_path, other):
    out = tmp_path / "out"
    settings = replace(make_settings(), out=out)
    assert output_paths.evaluation_folder(settings) == out
    out.mkdir()
    for name in ("metrics.json", "report.html"):
        (out / name).write_text("")
    assert output_paths.evaluation_folder(settings) == out, "an earlier evaluation"
    (out / other).write_text("")
    with pytest.raises(ValueError, match=f"holds {other}, which no evaluation wrote"):
        output_paths.evaluation_folder(settings)
