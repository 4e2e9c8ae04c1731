"""SHA256SUMS of a run: what `sha256sum` reads, which changes are found, and how a user accepts one."""

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from tfdetect import artifact as artifacts
from tfdetect import cli, config, hashes
from tfdetect.api.study import Study
from tfdetect.artifact import Artifact
from tfdetect.errors import UserError
from tfdetect.workflow.fine_tuning import find_model
from tfdetect.workflow.resuming import why_finished

CONTENT = {"1/saved_model.pb": "graph", "1/variables/variables.index": "numbers", "model.keras": "weights", "config.yaml":
           "version: 2\ndetector: {name: cnn}\n", "calibration.json": "{}", "familiarity.npz": "vectors", "metrics.json": "{}",
           "0/saved_model.pb": "of another version"}  # fmt: skip


@pytest.fixture
def run(tmp_path):
    for name, text in CONTENT.items():
        (tmp_path / "cnn" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cnn" / name).write_text(text)
    hashes.write(tmp_path / "cnn")
    return tmp_path / "cnn"


def test_sha256sum_reads_it_and_it_covers_what_decides_a_verdict(run):
    lines = dict(reversed(line.split("  ")) for line in (run / hashes.NAME).read_text().splitlines())
    assert lines == {name: hashlib.sha256(CONTENT[name].encode()).hexdigest() for name in
                     {*CONTENT} - {"metrics.json", "0/saved_model.pb"}}  # fmt: skip
    assert hashes.model_hash(run) == hashlib.sha256((run / hashes.NAME).read_bytes()).hexdigest()
    if program := shutil.which("sha256sum"):
        subprocess.run([program, "--check", "--strict", "--quiet", hashes.NAME], cwd=run, check=True)
    assert artifacts.find(run).folder == run


def problem(run, **options):
    with pytest.raises(UserError) as caught:
        artifacts.find(run, **options)
    text = str(caught.value)
    assert text.startswith(f"{run} differs from its SHA256SUMS: ") and "--trust uses it as it is" in text
    return text


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("calibration.json", '{"threshold": 0}', "calibration.json (changed). Copy the run again; if the change is yours"),
        ("familiarity.npz", None, "familiarity.npz (missing)"),
        ("equalised.json", "{}", "equalised.json (added)"),
        ("model.keras", "other", "model.keras (changed)"),
        ("config.yaml", CONTENT["config.yaml"] + "data: {fps: 1}\n", "config.yaml (changed)"),
        ("1/assets/new", "", "1/assets/new (added)"),
        ("SHA256SUMS", "nonsense\n", "SHA256SUMS (damaged)"),
    ],
)
def test_a_changed_missing_or_added_file_is_named(run, name, text, message):
    path = run / name
    path.unlink() if text is None else (path.parent.mkdir(exist_ok=True), path.write_text(text))
    assert message in problem(run)
    assert artifacts.find(run, trust=True).folder == run
    hashes.write(run)
    assert artifacts.find(run).folder == run


def test_many_files_are_counted(run):
    for number in range(9):
        (run / "1" / str(number)).write_text("")
    assert "1/3 (added) and 5 more. Copy" in problem(run)


def test_a_damaged_saved_model_is_exported_again(run):
    (run / "1" / "saved_model.pb").write_text("gr")
    assert "1/saved_model.pb (changed)" in (text := problem(run)) and f"tfdetect export {run} writes the SavedModel again" in text
    problem(run, required="model")
    assert artifacts.find(run, "model", saved_model=False).folder == run, "what export reads is as it was"
    (run / "model.keras").write_text("other")
    text = problem(run, required="model", saved_model=False)
    assert "model.keras (changed)" in text and f"export {run} --trust accepts it" in text
    assert "saved_model.pb" not in text


def test_a_run_without_a_saved_model_or_without_hashes_is_used(run):
    shutil.rmtree(run / "1")
    assert artifacts.find(run).folder == run, "model.keras is used, and a warning says so"
    (run / "model.keras").write_text("other")
    problem(run)
    (run / hashes.NAME).unlink()
    assert artifacts.find(run).folder == run, "of an older version"


@pytest.mark.parametrize("verb, more", [("predict", ["x.png"]), ("evaluate", []), ("explain", ["x.png"]), ("export", []),
                                        ("calibrate", ["--data.path", "x.png"])])  # fmt: skip
def test_each_command_refuses_a_changed_run_in_one_sentence(run, verb, more, capsys, tmp_path):
    (Path(tmp_path) / "x.png").write_text("")
    (run / "calibration.json").write_text("[]")
    argv = [verb, str(run), *(word if word.startswith("-") else str(tmp_path / word) for word in more)]
    assert cli.main(argv) == 2
    err = capsys.readouterr().err
    assert "calibration.json (changed)" in err and len(err.strip().splitlines()) == 1
    assert cli.main([*argv, "--trust"]) == 2
    assert "differs" not in (err := capsys.readouterr().err)
    assert "calibration.json is damaged" in err or verb in ("evaluate", "calibrate")


def test_a_run_is_checked_before_another_starts_from_it(run, tmp_path, capsys):
    """Also where config.yaml of another run names its model; a .keras file that is not that of a run has no hashes."""
    model, other = run / "model.keras", tmp_path / "other.keras"
    assert [find_model(str(path)) for path in (run, model, other)] == [str(model), str(model), str(other)]
    model.write_text("changed")
    for named in (run, model):
        assert find_model(str(named), trust=True) == str(model)
        config = tmp_path / "config.yaml"
        config.write_text(f"version: 2\ndetector: {{name: cnn_lstm, frame_model: {named}}}\n")
        assert cli.main(["train", "--config", str(config)]) == 2
        assert "model.keras (changed)" in (err := capsys.readouterr().err) and len(err.strip().splitlines()) == 1
    assert cli.main(["train", "--from", str(run), "--data.path", str(tmp_path)]) == 2
    assert "model.keras (changed)" in capsys.readouterr().err


def test_a_member_of_a_study_is_checked(run):
    (run / "report.html").write_text("")
    assert Study(run.parent)["cnn"].folder == run
    (run / "calibration.json").write_text("[]")
    with pytest.raises(UserError, match=r"calibration.json \(changed\)"):
        Study(run.parent)["cnn"]


def test_a_changed_run_is_not_trained_further(run, monkeypatch):
    settings = config.parse(["cnn", "--name", "cnn", "--resume", "--out", str(run.parent)], "train")
    (run / "model.keras").write_text("changed")
    with pytest.raises(UserError, match=r"model.keras \(changed\)"):
        why_finished(settings, Artifact(run))
    (run / "SHA256SUMS").unlink()
    assert "cannot be trained further" in why_finished(settings, Artifact(run))
