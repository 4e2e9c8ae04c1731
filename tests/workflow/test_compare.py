"""evaluate --compare: runs side by side from what they stored, and honest about test files that differ."""

import json
import re
import shlex
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tfdetect import cli, config, detector, hashes, versions
from tfdetect.artifact import Artifact
from tfdetect.errors import UserError
from tfdetect.evaluation import comparison, metrics, predictions
from tfdetect.settings import Run, Train
from tfdetect.workflow import compare
from tfdetect.workflow.test_files import Evaluate

pytestmark = pytest.mark.usefixtures("light")


def scores(gain, numbers, seed=0):
    """Return the label and score of each file: noise, and `gain` for a fake."""
    noise = np.random.default_rng(seed).normal(size=1000)
    return [(number % 2, float(noise[number] + gain * (number % 2))) for number in numbers]


def make_run(folder, gain, tested=range(80), trained=range(100, 140), frames=1, seed=0, labels=None, where="/data"):
    """Write a run as training does, as far as a comparison reads it; file `n` has the hash "sha n"."""
    folder.mkdir(parents=True)
    artifact, kinds = Artifact(folder), ("a", "b<i>")
    config.write_yaml(Run(detector.find("cnn")(), train=Train(seed=seed)), artifact.config)
    rows = [(f"{where}/{n}.png", (labels or {}).get(n, n % 2), split, f"g{n // 2}", kinds[n % 4 == 1], f"sha {n}", "")
            for split, files in (("train", trained), ("test", tested)) for n in files]  # fmt: skip
    table = pd.DataFrame(rows, columns=["path", "label", "split", "group", "source", "sha", "error"])
    table.assign(text="", category="", frames=frames, width=8, height=8, note="").to_csv(artifact.manifest, index=False)
    found = [(row.path, row.label, row.group, row.source, "test", frame, score + frame % 2)
             for row, (_, score) in zip(table[table["split"] == "test"].itertuples(), scores(gain, tested), strict=True)
             for frame in range(frames)]  # fmt: skip
    frame = pd.DataFrame(found, columns=predictions.COLUMNS)
    frame = frame.assign(log_odds=frame["score"], probability=1 / (1 + np.exp(-frame["score"])))
    predictions.write(frame, artifact.predictions)
    artifact.metrics.write_text(json.dumps({"test": metrics.summarise(frame, 0.5), "threshold_rule": "youden"}))
    artifact.shortcuts.write_text(json.dumps({"all": 0.61, "width": 0.5}))
    return artifact


def compared(tmp_path, *folders):
    out = tmp_path / "out"
    assert cli.main(["evaluate", "--compare", *map(str, folders), "--out", str(out)]) == 0
    return (out / "report.html").read_text(), (out / "report.md").read_text(), json.loads((out / "compare.json").read_text())


def test_runs_with_the_same_test_files_are_compared_in_pairs(tmp_path, capsys):
    """Their figures are the stored ones; the second has its files elsewhere, and several frames of each."""
    good = make_run(tmp_path / "good", 3.0)
    weak = make_run(tmp_path / "weak", 0.2, where="/elsewhere", frames=2, seed=7)
    page, text, found = compared(tmp_path, good.folder, weak.folder)
    stored = [json.loads(run.metrics.read_text())["test"] for run in (good, weak)]
    assert found["same"] and found["shared"] == 80 and not found["warnings"]
    assert [member["shared"]["auc"] for member in found["members"]] == [own["auc"] for own in stored]
    files = [predictions.by_file(predictions.read(run.predictions)) for run in (good, weak)]
    (row,) = found["differences"]
    (expected,) = comparison.compare(files[0]["label"], files[0]["group"], {"good": files[0]["score"], "weak": files[1]["score"]})
    assert row == {**expected, "files": 80} and row["conclusion"] == "good ranks these files better than weak"
    said = "good ranks the shared test files better than weak."
    assert found["conclusion"] == said and said in page and said in text and said in capsys.readouterr().out
    for shown in (page, text):
        assert "the same 80 test files" in shown and f"{stored[0]['auc']:.3f}" in shown and "train.seed" in shown
        assert "train.epochs" not in shown.split("Settings that differ")[1], "it is the same in both"
    assert "b&lt;i&gt;" in page and not re.search(r"(src|href)=.(?!data:)", page)


def test_runs_without_shared_test_files_are_shown_and_not_compared(tmp_path):
    """The second was tested on files that the first was trained on."""
    first, second = make_run(tmp_path / "a", 3.0), make_run(tmp_path / "b", 0.1, range(100, 150), range(80))
    page, text, found = compared(tmp_path, first.folder, second.folder)
    (row,) = found["differences"]
    assert row["files"] == found["shared"] == 0 and row["difference"] is None and not found["same"]
    assert found["conclusion"].startswith("These runs cannot be compared") and "must not be compared" in page
    assert "40 of the test files of b were in the training or validation of a" in text
    assert "80 of the test files of a were in the training or validation of b" in text


def test_only_shared_files_enter_figures_and_differences(tmp_path):
    """Of 80 and 60 test files, 40 are the same; on others, the second would look better."""
    first, second = make_run(tmp_path / "a", 1.0), make_run(tmp_path / "b", 1.0, range(40, 100), range(200, 240))
    _, text, found = compared(tmp_path, first.folder, second.folder)
    assert found["shared"] == 40 and [member["shared"]["n"] for member in found["members"]] == [40, 40]
    assert found["differences"][0]["difference"] == 0, "their scores of these files are the same"
    assert "tested on different files (a 80, b 60), of which all share 40" in text and "trained on different files" in text
    assert [member["own"]["n"] for member in found["members"]] == [80, 60]


def test_files_that_the_runs_label_differently_are_not_shared(tmp_path):
    first, second = make_run(tmp_path / "a", 1.0), make_run(tmp_path / "b", 1.0, labels={0: 1, 2: 1})
    _, text, found = compared(tmp_path, first.folder, second.folder)
    assert found["shared"] == 78 and "a and b disagree on the labels of 2 test files" in text


def test_of_several_runs_the_best_is_named_and_each_pair_tested(tmp_path):
    runs = [make_run(tmp_path / name, gain) for name, gain in (("a", 0.1), ("b", 4.0), ("c", 0.3))]
    _, text, found = compared(tmp_path, *(run.folder for run in runs))
    assert found["conclusion"] == "b ranks the shared test files better than all others." and len(found["differences"]) == 3
    assert "3 pairs were tested" in text


@pytest.mark.parametrize("words,expected", [
    (["{run}"], "--compare takes two or more different runs"), (["{run}", "{run}"], "takes two or more different runs"),
    (["{run}", "{run}", "--data.corrupt", "blur(2)"], "give it with runs, --out and --trust alone"),
    (["{run}", "{bare}", "--data.path", "x", "--data.path", "y"], "--compare takes one --data.path"),
    (["{run}", "nowhere"], "No run folder"),
    (["{run}", "{bare}"], "has no metrics.json")])  # fmt: skip
def test_errors_are_one_sentence(tmp_path, words, expected, capsys):
    make_run(tmp_path / "run", 1.0)
    make_run(tmp_path / "bare", 1.0).metrics.unlink()
    names = {"run": tmp_path / "run", "bare": tmp_path / "bare"}
    try:
        code = cli.main(["evaluate", "--compare", *(word.format(**names) for word in words)])
    except SystemExit as stopped:
        code = stopped.code
    printed = capsys.readouterr()
    output = " ".join((printed.out + printed.err).replace("│", "").split())
    assert code == 2 and expected in output and "Traceback" not in output


def test_a_changed_run_is_compared_with_trust(tmp_path, capsys):
    first, second = make_run(tmp_path / "a", 1.0), make_run(tmp_path / "b", 1.0)
    hashes.write(second.folder)
    second.calibration.write_text("{}")
    words = ["evaluate", "--compare", str(first.folder), str(second.folder)]
    assert cli.main(words) == 2 and "calibration.json (added)" in capsys.readouterr().err
    assert cli.main([*words, "--trust"]) == 0


def test_a_version_is_named_after_its_run(tmp_path):
    run = make_run(tmp_path / "run", 1.0)
    old = make_run(run.folder / versions.FOLDER / "1", 0.1)
    assert [*compare.load([run.folder, old.folder])] == ["run", "run-v1"]
    assert versions.name(run.folder / ".") == "run"


def test_predict_with_several_runs_needs_a_case_report(tmp_path, capsys):
    runs = [str(make_run(tmp_path / name, 1.0).folder) for name in "ab"]
    Artifact(tmp_path / "a").calibration.write_text("{}")
    assert cli.main(["predict", *runs, "file.jpg"]) == 2
    assert f"{runs[1]} is a run, not a file to judge" in capsys.readouterr().err


def test_compare_takes_no_other_flags():
    with pytest.raises(UserError, match="runs, --out and --trust alone"):
        replace(Evaluate(), compare=True, stress=5)


def test_of_a_folder_of_runs_the_command_that_compares_them_is_shown(tmp_path, capsys):
    """Such as a study: those that are finished, by paths to paste."""
    for name in ("fold 1", "fold-2", "trial-3"):
        make_run(tmp_path / "folds" / name, 1.0).report.write_text("")
    Artifact(tmp_path / "folds" / "trial-3").report.unlink()
    other = make_run(tmp_path / "cnn", 1.0)
    assert cli.main(["evaluate", "--compare", str(other.folder), str(tmp_path / "folds")]) == 2
    command = capsys.readouterr().err.partition("a folder with 2 finished runs; name those to compare: ")[2]
    words = shlex.split(command)
    assert words == ["tfdetect", "evaluate", "--compare", *(str(tmp_path / "folds" / name) for name in ("fold 1", "fold-2"))]
    assert cli.main(words[1:]) == 0


def test_runs_are_compared_on_another_data_set(tmp_path, monkeypatch):
    """Each is evaluated there; figures and shortcuts are those of the evaluations, which lack a file that one was trained on."""
    runs = {name: make_run(tmp_path / name, gain) for name, gain in (("a", 0.1), ("b", 4.0))}
    there = {name: make_run(tmp_path / "there" / name, gain, range(200 + (name == "b"), 280)) for name, gain in
             (("a", 4.0), ("b", 0.1))}  # fmt: skip
    there["a"].shortcuts.write_text(json.dumps({"all": 0.73}))
    asked = []

    def evaluate_run(args, artifact, run):
        asked.append((args.runs, args.data.path, args.overlap, args.compare, args.out))
        return there[artifact.folder.name]

    monkeypatch.setattr("tfdetect.api.evaluate.evaluate_run", evaluate_run)
    flags = ["--data.path", str(tmp_path / "new"), "--overlap", "drop"]
    page, text, found = compared(tmp_path, *(run.folder for run in runs.values()), *flags)
    assert asked == [((run.folder,), tmp_path / "new", "drop", False, None) for run in runs.values()]
    assert found["shared"] == 79 and not found["same"] and found["members"][0]["shortcuts"] == {"all": 0.73}
    assert found["conclusion"] == "a ranks the shared test files better than b." and str(there["a"].folder) in page
    assert [member["own"]["n"] for member in found["members"]] == [80, 79]
    assert found["members"][0]["facts"]["test files"].startswith("40 real") and "79 test files" in text
