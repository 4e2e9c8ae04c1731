"""A matrix of runs and data sets: which cells are computed, kept and failed, and what JSON, page and Python say of them."""

import json
import math
from html import escape
from pathlib import Path

import numpy as np
import pytest
from light import blank_png

import tfdetect
from tfdetect import cli, config, models  # noqa: F401  (registers the detectors)
from tfdetect.artifact import Artifact
from tfdetect.errors import UserError
from tfdetect.plots.matrix import heat_map
from tfdetect.workflow import matrix

AUCS = {("one", "A"): 0.9, ("one", "B b"): 0.6, ("two", "A"): 0.95, ("two", "B b"): None}


@pytest.fixture
def places(tmp_path):
    """Folders of two runs and two data sets."""
    runs = [tmp_path / "runs" / name for name in ("one", "two")]
    for folder in runs:
        folder.mkdir(parents=True)
        config.write_yaml(config.parse(["cnn"], "t"), folder / "config.yaml")
        (folder / "calibration.json").write_text("{}")
    data = [tmp_path / "data" / name for name in ("A", "B b")]
    for folder in data:
        folder.mkdir(parents=True)
        (folder / "file.png").write_text(folder.name)
    return runs, data


@pytest.fixture
def calls(monkeypatch):
    """(run, data set) of all evaluations, which write planted figures; `calls.errors` raises errors instead."""

    class Calls(list):
        errors = {}

    made = Calls()

    def evaluate_run(args, artifact, run):
        made.append(place := (artifact.folder.name, args.data.path.name))
        if error := made.errors.get(place):
            raise error
        auc = AUCS.get(place, 0.7)
        classes = {"fake": {"recall": 0.8}, "real": {"recall": None if auc is None else 0.7}}
        test = {"n": 9, "n_real": 4 * (auc is not None), "n_fake": 5, "threshold": 0.5, "auc": auc, "per_class": classes,
                "auc_interval": auc and [round(auc - 0.1, 3), round(auc + 0.05, 3)], "balanced_accuracy": auc and 0.75,
                "intervals": {"balanced_accuracy": auc and [0.7, 0.8]}}  # fmt: skip
        args.out.mkdir(parents=True, exist_ok=True)
        Artifact(args.out).metrics.write_text(json.dumps({"test": test}))
        Artifact(args.out).report.write_text("<html>")
        return Artifact(args.out)

    monkeypatch.setattr("tfdetect.api.evaluate.evaluate_run", evaluate_run)
    monkeypatch.setattr("tfdetect.plots.style.to_png", blank_png)
    return made


def evaluate(places, out, *flags):
    runs, data = places
    return cli.main(["evaluate", *map(str, runs), *(word for path in data for word in ("--data.path", str(path))),
                     *(["--out", str(out)] if out else []), *flags])  # fmt: skip


def content(out):
    return json.loads((out / "matrix.json").read_text())


@pytest.mark.parametrize("argv, paths", [
    ((), ()), (("r", "--data.path", "a"), ("a",)),
    (("r", "--data.path", "a b", "--x", "--data.path=c=d"), ("a b", "c=d"))])  # fmt: skip
def test_paths_of_a_command_line(argv, paths):
    assert matrix.find_paths(argv) == [Path(path) for path in paths]


def test_every_run_is_evaluated_on_every_data_set(places, calls, tmp_path, capsys):
    assert evaluate(places, tmp_path / "out") == 0
    assert calls == [*AUCS]
    output, found = capsys.readouterr().out, content(tmp_path / "out")
    assert [side["name"] for side in found["rows"]] == ["one", "two"] and found["columns"][1]["path"] == str(places[1][1])
    assert {(cell["run"], cell["data"]): cell["auc"] for cell in found["cells"]} == AUCS
    assert found["counts"] == {"computed": 3, "without_auc": 1, "failed": 0}
    first, last = found["cells"][0], found["cells"][-1]
    assert (first["auc_interval"], first["balanced_accuracy_interval"], first["reason"]) == ([0.8, 0.95], [0.7, 0.8], "")
    assert (last["reason"], last["recall"], last["auc_interval"]) == ("only fake files, so there is no AUC", 0.8, None)
    assert math.isclose(first["false_positive_rate"], 0.3)
    assert "one  0.900 (0.800 to 0.950)  0.600 (0.500 to 0.650)" in output and "Cell 4 of 4: two on B b" in output
    assert "4 cells: 3 with an AUC, 1 without, 0 failed" in output and "two on B b: only fake files" in output
    page = (tmp_path / "out" / "report.html").read_text()
    assert '<a href="2-two/1-A/report.html">0.950<br><small>0.850 to 1.000</small></a>' in page
    assert '<a href="1-one/2-B_b/report.html">0.600' in page and (tmp_path / "out" / "1-one" / "2-B_b" / "report.html").exists()
    assert "one: AUC from 0.600 (B b) to 0.900 (A)." in page and "1 of 4 cells has no AUC" in page and "data:image/png" in page


def test_a_cell_that_fails_has_its_reason_and_the_others_are_computed(places, calls, tmp_path, capsys):
    calls.errors = {("one", "A"): UserError("<too> few."), ("two", "B b"): RuntimeError("odd")}
    assert evaluate(places, tmp_path / "out") == 0
    found, page = content(tmp_path / "out"), (tmp_path / "out" / "report.html").read_text()
    assert [cell["reason"] for cell in found["cells"]] == ["<too> few.", "", "", "RuntimeError: odd"]
    assert found["counts"] == {"computed": 2, "without_auc": 0, "failed": 2} and found["cells"][0]["auc"] is None
    assert escape("<too> few.") in page and "2 of 4 cells have no AUC" in page
    calls.errors = {}
    assert evaluate(places, tmp_path / "out") == 0 and calls[4:] == [("one", "A"), ("two", "B b")], "only these are repeated"


def test_a_matrix_without_any_result_fails_with_the_first_reason(places, calls, tmp_path, capsys):
    calls.errors = dict.fromkeys(AUCS, UserError("None is left."))
    assert evaluate(places, tmp_path / "out") == 2
    assert "No cell of the matrix could be computed; the first reason: None is left." in capsys.readouterr().err
    assert (tmp_path / "out" / "report.html").exists()


def test_an_interrupted_matrix_goes_on(places, calls, tmp_path, capsys):
    calls.errors = {("two", "A"): KeyboardInterrupt()}
    assert evaluate(places, tmp_path / "out") == 130
    assert "2 of 4 cells are finished: the same command keeps them." in capsys.readouterr().out
    calls.errors = {}
    assert evaluate(places, tmp_path / "out") == 0
    assert calls[3:] == [("two", "A"), ("two", "B b")] and capsys.readouterr().out.count(": kept") == 2
    assert len(content(tmp_path / "out")["cells"]) == 4


def test_only_what_has_changed_is_computed_again(places, calls, tmp_path):
    runs, data = places
    assert evaluate(places, tmp_path / "out") == 0
    (data[1] / "new.png").write_text("")
    assert evaluate(places, tmp_path / "out") == 0 and calls[4:] == [("one", "B b"), ("two", "B b")]
    (runs[0] / "calibration.json").write_text('{"other": 1}')
    assert evaluate(places, tmp_path / "out") == 0 and calls[6:] == [("one", "A"), ("one", "B b")]
    assert evaluate(places, tmp_path / "out", "--data.corrupt", "jpeg(50)") == 0 and len(calls) == 12
    (more := tmp_path / "data" / "C").mkdir()
    assert evaluate((runs, [*data, more]), tmp_path / "out", "--data.corrupt", "jpeg(50)") == 0
    assert calls[12:] == [("one", "C"), ("two", "C")], "a new column"


def test_the_default_folder_is_that_of_the_first_run(places, calls):
    runs, data = places
    assert evaluate(places, None) == 0 and evaluate((runs, data[::-1]), None) == 0
    folders = sorted(path.name for path in (runs[0] / "evaluations").iterdir())
    assert len(folders) == 2 and folders[0].startswith("matrix-A_B_b-") and folders[1].startswith("matrix-B_b_A-")


def test_what_makes_no_matrix_is_refused_before_anything_is_computed(places, calls, tmp_path, capsys):
    (run, other), (data, more) = places
    for runs, paths, message in (([run], [data, data], "was given twice; a matrix takes each data set once"),
                                 ([run, run], [data, more], "was given twice; a matrix takes each run once"),
                                 ([run], [data, tmp_path / "nothing"], "there is no such file or folder"),
                                 ([run, tmp_path / "tow"], [data, more], "No run folder"),
                                 ([], [data, more], "No run given")):  # fmt: skip
        assert evaluate((runs, paths), tmp_path / "out") == 2 and message in capsys.readouterr().err
    assert evaluate(places, other) == 2 and "holds something other than a matrix" in capsys.readouterr().err
    assert evaluate(([], [data, more]), None, "--model", "x.py") == 2 and "have no runs" in capsys.readouterr().err
    assert not calls and not (tmp_path / "out").exists()


def test_one_data_set_is_no_matrix(places, calls, monkeypatch):
    (run, _), (data, _) = places
    monkeypatch.setattr(matrix, "evaluate", None)
    monkeypatch.setattr("tfdetect.workflow.ensemble.evaluate", lambda args: calls.append(len(args.runs)) or Artifact(run))
    assert evaluate((places[0], [data]), None) == 0 and calls == [2]
    assert cli.main(["evaluate", str(run), "--data.path", str(data), "--out", str(run / "x")]) == 0
    assert calls[1:] == [("one", "A")]


def test_a_matrix_in_python(places, calls, tmp_path):
    runs, data = places
    found = tfdetect.evaluate(runs, data=data, out=tmp_path / "out")
    assert list(found.table["auc"])[:3] == [0.9, 0.6, 0.95] and found.report.exists()
    assert found.metrics["counts"]["computed"] == 3
    one = tfdetect.evaluate(runs[0], data=data[:1], out=tmp_path / "one")
    assert one.metrics["test"]["auc"] == 0.9 and not (tmp_path / "one" / "matrix.json").exists()


def test_the_heat_map_shows_each_value(tmp_path):
    figure = heat_map([[0.91, np.nan]], ["run $x$"], ["A", "a very long name of a data set that is cut"])
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts] == ["0.91", "–"]
    assert len(axes.get_xticklabels()[1].get_text()) == 28
