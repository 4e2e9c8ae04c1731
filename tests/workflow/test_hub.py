"""export --push_to_hub: what would be pushed, and the push itself, to a stand-in for the Hub."""

import shutil

import huggingface_hub
import pytest
import yaml

import tfdetect
from tests.workflow.test_compare import make_run
from tfdetect import cli, hashes
from tfdetect.artifact import Artifact
from tfdetect.workflow.hub import without_folders

CARD = "---\nlibrary_name: keras\ntags:\n- tfdetect\n---\n\n# a run\n"


@pytest.fixture
def run(tmp_path):
    """A run with all that may be pushed, and what may not."""
    artifact = make_run(tmp_path / "run", 1.0)
    (artifact.folder / "1" / "variables").mkdir(parents=True)
    for name in ("1/saved_model.pb", "1/variables/variables.index", "model.keras", "calibration.json", "report.html"):
        (artifact.folder / name).write_text(name)
    (artifact.folder / "checkpoints").mkdir()
    (artifact.folder / "checkpoints" / "last.h5").write_text("weights")
    artifact.card.write_text(CARD)
    text = artifact.config.read_text().replace("path: null", "path: /home/me/faces")
    artifact.config.write_text(f"# {tmp_path}\n{text}")
    hashes.write(artifact.folder)
    return artifact


@pytest.fixture
def hub(monkeypatch):
    """What a stand-in for `HfApi` was told; nothing reaches the network."""
    told = []

    class Api:
        def __init__(self, **options):
            pass

        def create_repo(self, name, **options):
            told.append((name, options))
            return huggingface_hub.RepoUrl(f"https://huggingface.co/me/{name.rpartition('/')[2]}")

        def create_commit(self, name, operations, **options):
            told.append((name, {operation.path_in_repo: operation.path_or_fileobj for operation in operations}))
            return huggingface_hub.CommitInfo(commit_url=f"https://huggingface.co/{name}/commit/1", commit_message="", oid="1",
                                              commit_description="")  # fmt: skip

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    return told


def export(run, *flags):
    return cli.main(["export", str(run.folder), *flags])


def test_without_yes_it_only_says_what_would_be_pushed(run, hub, capsys):
    assert export(run, "--push_to_hub", "me/cnn") == 0
    text = capsys.readouterr().out
    assert "https://huggingface.co/me/cnn" in text and "Nothing was pushed" in text and "--yes" in text
    assert " 16 B  1/saved_model.pb" in text and "9 files" in text and "licence: none" in text
    left_out = next(line for line in text.splitlines() if line.startswith("Left out"))
    assert all(name in left_out for name in ("checkpoints", "manifest.csv", "predictions.csv", "report.html"))
    assert hub == []


def test_with_yes_the_files_are_pushed_without_names_of_folders(run, hub, tmp_path, capsys):
    assert export(run, "--push_to_hub", "cnn", "--yes", "--private") == 0
    (name, options), (target, content) = hub
    assert (name, options, target) == ("cnn", {"private": True, "exist_ok": True}, "me/cnn")
    assert set(content) == {"1/saved_model.pb", "1/variables/variables.index", "README.md", "config.yaml", "model.keras",
                            "calibration.json", "metrics.json", "shortcuts.json", "SHA256SUMS"}  # fmt: skip
    assert yaml.safe_load(content["config.yaml"])["data"]["path"] == "faces"
    assert b"/home/me" not in content["config.yaml"] and str(tmp_path).encode() not in content["config.yaml"]
    assert "https://huggingface.co/me/cnn/commit/1" in capsys.readouterr().out
    pushed = Artifact(tmp_path / "pulled")
    shutil.copytree(run.folder, pushed.folder)
    for name in ("config.yaml", "SHA256SUMS"):
        (pushed.folder / name).write_bytes(content[name])
    assert tfdetect.load(pushed.folder).run.detector.name == "cnn", "what was pushed is a run"


@pytest.mark.parametrize("repository,change,expected", [
    ("a/b/c", None, "a repository such as me/cnn"), ("me/cnn", "", "has no README.md"),
    ("me/cnn", CARD.replace("tags:\n- tfdetect", "tags: [\n"), "would not read the front matter")])  # fmt: skip
def test_what_cannot_be_pushed_is_one_sentence(run, hub, capsys, repository, change, expected):
    if change is not None:
        run.card.write_text(change) if change else run.card.unlink()
    assert export(run, "--push_to_hub", repository, "--yes") == 2
    assert expected in capsys.readouterr().err and hub == []


def test_a_refusal_says_how_to_log_in(run, hub, monkeypatch, capsys):
    def refuse(*_, **__):
        raise huggingface_hub.errors.LocalTokenNotFoundError("no token")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", refuse)
    assert export(run, "--push_to_hub", "me/cnn", "--yes") == 2
    assert "no token" in (text := capsys.readouterr().err) and "hf auth login" in text


def test_a_changed_saved_model_is_not_pushed(run, hub, capsys):
    (run.folder / "1" / "saved_model.pb").write_text("other")
    assert export(run, "--push_to_hub", "me/cnn", "--yes") == 2 and hub == []
    assert "1/saved_model.pb (changed)" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        export(run, "--push_to_hub", "me/cnn", "--yes", "--trust")
    assert "export it with --trust first" in " ".join(capsys.readouterr().err.replace("│", "").split())


def test_yes_alone_is_refused(run, capsys):
    with pytest.raises(SystemExit, match="2"):
        export(run, "--yes")
    assert "belong to --push_to_hub" in capsys.readouterr().err


@pytest.mark.parametrize(("value", "pushed"), [
    ("hf-clip:/home/me/my clip", "hf-clip:my clip"), ("hf-clip:/a/b/x@layers:7,8+hf:/c/y", "hf-clip:x@layers:7,8+hf:y"),
    ("~/faces", "faces"), (["a", {"b": "C:\\Users\\me\\x"}], ["a", {"b": "x"}]), ("data/faces", "data/faces"),
    ("https://keras.io/api/x", "https://keras.io/api/x"), ("flip|jpeg(30,100,p=0.5)", "flip|jpeg(30,100,p=0.5)")])  # fmt: skip
def test_no_setting_keeps_the_folders_of_a_machine(value, pushed):
    assert without_folders({"key": value}) == {"key": pushed}
