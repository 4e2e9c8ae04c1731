"""predict --runner dask and beam: the rows of the local run in its order, also if a worker is killed."""

import json
import os
import shutil
import signal
from dataclasses import asdict
from importlib.util import find_spec

import dask_cluster
import pytest

import tfdetect
from tfdetect import artifact as artifacts
from tfdetect import cli
from tfdetect.settings import DecodeOverrides
from tfdetect.workflow import beam_scoring, elsewhere

dask_needed = pytest.mark.skipif(find_spec("distributed") is None, reason="the extra [dask] is optional")
beam_needed = pytest.mark.skipif(find_spec("apache_beam") is None, reason="the extra [beam] is optional")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("elsewhere")
    settings = {"data.size": 32, "sample": 20, "width": 4, "epochs": 0, "batch": 8}
    return tfdetect.train("cnn", cache_dir=folder / "cache", out=folder / "saved_models", name="small", **settings)


@pytest.fixture
def files(images, videos, tmp_path, monkeypatch):
    """A folder of pictures and videos, and a file that is neither, in the current folder."""
    (tmp_path / "files").mkdir()
    for source in [*sorted(images.glob("*/*.jpg"))[:30], *sorted(videos.glob("*/*.mp4"))[:10]]:
        shutil.copy(source, tmp_path / "files" / f"{source.parent.name}{source.name}")
    (tmp_path / "files" / "bad.jpg").write_bytes(b"nothing")
    os.rename(next((tmp_path / "files").glob("real*.jpg")), os.fsencode(tmp_path) + b"/files/no\xfftext.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "files"


def predict(capsys, run, *words):
    code = cli.main(["predict", str(run.folder), *map(str, words)])
    return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def assert_same_rows(found, expected):
    for row, other in zip(found, expected, strict=True):
        for name in ("score", "probability"):  # batches of other sizes may round otherwise
            assert row.pop(name) == pytest.approx(other[name], abs=1e-6)
        assert row == {name: value for name, value in other.items() if name in row}


@pytest.mark.slow  # starts a cluster of two workers, each with TensorFlow
@dask_needed
def test_rows_on_dask_though_a_worker_is_killed(run, files, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(elsewhere, "FILES", 4)
    paths = sorted(path.relative_to(tmp_path) for path in files.iterdir())
    _, expected = predict(capsys, run, "--json", *paths)
    score = elsewhere.ScoreFiles.of(artifacts.Artifact(run.folder), DecodeOverrides())
    with dask_cluster.running(tmp_path) as address:
        pids, found = dask_cluster.worker_pids(address), []
        for verdict in elsewhere.on_dask(score, paths, address, None):
            found.append(asdict(verdict))
            if len(found) == 2:
                os.kill(pids[0], signal.SIGKILL)
        assert_same_rows(found, expected)
        assert pids[0] not in dask_cluster.worker_pids(address, 1)

        table = tmp_path / "table.jsonl"
        code = cli.main(["predict", str(run.folder), "files", "--out", str(table), "--runner", "dask", "--dask.address", address])
        assert code == 1 and len(table.read_text().splitlines()) == 41

        shutil.copy(run.folder / "calibration.json", tmp_path / "kept")
        (run.folder / "calibration.json").write_text((tmp_path / "kept").read_text() + "\n")
        with pytest.raises(ValueError, match="is another run on a worker than here"):
            next(elsewhere.on_dask(score, paths, address, None))
        shutil.copy(tmp_path / "kept", run.folder / "calibration.json")


@beam_needed
@pytest.mark.parametrize("flags", [[], pytest.param(["--direct_running_mode", "multi_processing", "--direct_num_workers", "2"],
                                                    marks=pytest.mark.slow)], ids=["here", "two-processes"])  # fmt: skip
def test_rows_on_beam(run, files, tmp_path, capfd, flags):
    _, expected = predict(capfd, run, "--json", "files")
    code, found = predict(capfd, run, "--json", "files", "--runner", "beam", *flags)
    assert code == 1 and len(found) == 41
    assert_same_rows(found, expected)
    assert not (tmp_path / ".beam").exists()


@beam_needed
def test_what_a_failed_beam_has_scored_is_kept(run, files, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(beam_scoring, "BATCH", {"min_batch_size": 8, "max_batch_size": 8})
    argv = ["predict", str(run.folder), "files", "--out", "table.jsonl"]
    calls = []

    def score(self, paths, workers=1, original=elsewhere.ScoreFiles.__call__):
        calls.append(paths)
        if len(calls) == 3:
            raise RuntimeError("the cluster is gone")
        return original(self, paths, workers)

    monkeypatch.setattr(elsewhere.ScoreFiles, "__call__", score)
    assert cli.main([*argv, "--runner", "beam"]) == 2
    assert "the cluster is gone" in capfd.readouterr().err.splitlines()[-1] and not (tmp_path / "table.jsonl").exists()
    kept = {*calls[0], *calls[1]}
    assert cli.main([*argv, "--runner", "beam"]) == 1 and not (tmp_path / ".beam").exists()
    again = [path for paths in calls[3:] for path in paths]
    assert len(kept) == 16 and len(again) == len({*again}) == 25 and not kept & {*again}
    rows = [json.loads(line) for line in (tmp_path / "table.jsonl").open()]
    capfd.readouterr()
    _, expected = predict(capfd, run, "--json", "files")
    assert_same_rows(expected, rows)


@beam_needed
@pytest.mark.parametrize(("flags", "message"), [
    (["apache_beam.runners.dask.dask_runner.DaskRunner"], "Beam's DaskRunner fails or loses results: use --runner dask"),
    (["beam", "--direct_num_wrokers", "2"], "neither predict nor Beam has an option --direct_num_wrokers. Perhaps you meant"),
])  # fmt: skip
def test_a_wrong_runner_is_one_sentence(run, files, capsys, flags, message):
    assert cli.main(["predict", str(run.folder), "files", "--runner", *flags]) == 2
    out, err = capsys.readouterr()
    assert message in err.splitlines()[-1] and out == ""
