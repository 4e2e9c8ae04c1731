"""Versions of a run: folders, hard links, and interruptions at every step."""

import os
from pathlib import Path

import pytest

from tfdetect import artifact as artifacts
from tfdetect import hashes, versions
from tfdetect.artifact import Artifact
from tfdetect.errors import UserError

NO_ENTRY = {"folder", "is_finished", "saved_model", "logs"}  # of Artifact's properties: no file, or none of a version


def write_run(folder, number):
    """Write the files of a run, or of a version of it, as texts that name the version."""
    for name in ("model.keras", "calibration.json", "plots/roc.png", f"{number}/saved_model.pb", "report.html"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{name} of {number}")
    adapted = f"adapted: {{version: {number}, by: calibrate, from: {number - 1}}}\n" if number > 1 else ""
    (folder / "config.yaml").write_text(f"version: 2\ndetector: {{name: cnn}}\n{adapted}")
    hashes.write(folder)
    return folder


def content(folder):
    """Return path -> text of the files of a run, without its versions."""
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*"))
            if path.is_file() and versions.FOLDER not in path.relative_to(folder).parts}  # fmt: skip


@pytest.fixture
def run(tmp_path):
    folder = write_run(tmp_path / "cnn", 1)
    (folder / "plots" / "old.png").write_text("only in version 1")
    (folder / "evaluations").mkdir()
    (folder / "evaluations" / "own.txt").write_text("by version 1")
    (folder / "notes.txt").write_text("the user's")
    (folder / versions.FOLDER).mkdir()
    return folder


def stage(run, number, name=".version-new"):
    return write_run(run / versions.FOLDER / name, number)


def test_the_run_folder_is_the_newest_version_and_the_old_one_stays(run):
    first = content(run)
    versions.publish(run, stage(run, 2))
    assert versions.listed(run) == [1, 2] and versions.number(run) == 2 and Artifact(run).saved_model == run / "2"
    old = run / "versions" / "1"
    assert content(old) == {name: text for name, text in first.items() if name != "notes.txt"}
    assert Artifact(old).saved_model == old / "1" and versions.older(run) == [old]
    now = content(run)
    assert now.pop("notes.txt") == "the user's" and now.pop("1/saved_model.pb") == "1/saved_model.pb of 1"
    assert now == content(run / "versions" / "2"), "plots and evaluations of the version before are gone from the run folder"
    assert os.path.samefile(run / "model.keras", run / "versions" / "2" / "model.keras"), "a link, no copy"
    assert versions.base(old) == run and versions.base(run) == run and versions.base(Path("x/versions/1")) == Path("x/versions/1")
    assert (versions.title(run), versions.title(old)) == ("cnn, version 2", "cnn, version 1")
    assert not versions.is_behind(run)
    (run / "evaluations").mkdir()
    (run / "evaluations" / "own.txt").write_text("by version 2")
    versions.publish(run, stage(run, 3))
    assert (run / "versions" / "2" / "evaluations" / "own.txt").read_text() == "by version 2"
    assert versions.listed(run) == [1, 2, 3] and sorted(name for name in os.listdir(run) if name.isdecimal()) == ["1", "2", "3"]


def test_what_is_exported_again_is_also_renewed_in_versions(run):
    versions.renew(run)
    assert versions.listed(run) == [], "a run without versions"
    versions.publish(run, stage(run, 2))
    own = run / "versions" / "2"
    assert versions.checked_out(own) == versions.checked_out(run) == run
    assert versions.checked_out(run / "versions" / "1") == run / "versions" / "1"
    (own / "2" / "old_shard").write_text("of the export before")
    for folder, text in ((run / "2", "new"), (run / "evaluations", "of this version")):
        folder.mkdir(exist_ok=True)
        (folder / "saved_model.pb").unlink(missing_ok=True)
        (folder / "saved_model.pb").write_text(text)
    versions.renew(run)
    left = {name: text for name, text in content(run).items() if name not in ("notes.txt", "1/saved_model.pb")}
    assert content(own) == left and left["2/saved_model.pb"] == "new" and "2/old_shard" not in left


def test_a_number_that_was_taken_meanwhile_changes_nothing(run):
    before = content(run)
    with pytest.raises(UserError, match="another version meanwhile"):
        versions.publish(run, stage(run, 3))
    assert content(run) == before


def test_an_interruption_at_any_step_leaves_one_version_or_the_other(tmp_path, monkeypatch):
    """After each of the steps that change the disk in turn, a new process sees one version, and the command can be repeated."""
    steps = [(os, "replace"), (os, "link"), (Path, "rename"), (Path, "mkdir"), (Path, "unlink"), (versions.shutil, "rmtree")]
    outcomes = []
    for number in range(1000):
        run = write_run(tmp_path / str(number) / "cnn", 1)
        (run / "plots" / "old.png").write_text("only in version 1")
        (run / versions.FOLDER).mkdir()
        staged = stage(run, 2)
        first, second, left = content(run), content(staged), [number]
        with monkeypatch.context() as patch:
            for owner, name in steps:
                patch.setattr(owner, name, interrupting(getattr(owner, name), left))
            try:
                versions.publish(run, staged)
            except KeyboardInterrupt:
                outcomes.append(None)
            else:
                break
        artifacts.find(run)
        found = content(run)
        is_new = versions.number(run) == 2
        assert found == ({**second, "1/saved_model.pb": "1/saved_model.pb of 1"} if is_new else first)
        outcomes[-1] = is_new
        if not is_new:
            versions.publish(run, staged)
        assert content(run / "versions" / "1") == first and versions.listed(run) == [1, 2]
    assert len(outcomes) > 15 and outcomes == sorted(outcomes) and {*outcomes} == {False, True}


def interrupting(function, left):
    def call(*args, **options):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return function(*args, **options)

    return call


def test_where_there_are_no_hard_links_files_are_copied(run, monkeypatch):
    def refuse(*_):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    versions.publish(run, stage(run, 2))
    assert (run / "versions" / "1" / "model.keras").read_text() == "model.keras of 1"
    assert not os.path.samefile(run / "model.keras", run / "versions" / "2" / "model.keras")


def test_every_file_of_a_run_belongs_to_its_version():
    properties = {name for name, value in vars(Artifact).items() if isinstance(value, property)} - NO_ENTRY
    assert {getattr(Artifact(Path("x")), name).name for name in properties} <= {*versions.ENTRIES}


def test_a_damaged_number_is_one_sentence(run):
    (run / "config.yaml").write_text("detector: {name: cnn}\nadapted: {version: two}\n")
    with pytest.raises(UserError, match="adapted must state the number"):
        versions.number(run)


def test_a_run_with_versions_can_be_deleted_but_not_one_that_holds_another(run):
    versions.publish(run, stage(run, 2))
    artifacts.require_run(Artifact(run))
    write_run(run / "other", 1)
    with pytest.raises(UserError, match="contains another run, other"):
        artifacts.require_run(Artifact(run))
