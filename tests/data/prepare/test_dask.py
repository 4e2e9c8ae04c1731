"""Dask gives the same result as local processes, row for row and byte for byte, also if a worker is killed."""

import os
import signal
import subprocess
import sys
from importlib.util import find_spec

import dask_cluster
import pandas as pd
import pytest
from in_process import decode_here

from tfdetect import cli
from tfdetect.data import dask_pool
from tfdetect.data.layouts import detect
from tfdetect.data.prepare import dask
from tfdetect.data.prepare import decode as prepare_decode
from tfdetect.data.prepare.clip_cache import Cache, ClipSpec
from tfdetect.data.prepare.clip_index import INDEX_NAME

needed = pytest.mark.skipif(find_spec("distributed") is None, reason="distributed is not installed: the extra [dask] is optional")
PLANTED = """
import os, signal, time
from tfdetect.data.prepare.clip_cache import Cache
class Planted(Cache):
    def decode_file(self, path):
        time.sleep(0.1)
        if "crashes" in path:
            os.abort()
        if "hangs" in path:
            time.sleep(60)
        if "kills" in path:
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(60)
        if "bug" in path:
            raise RuntimeError("a fault of the program")
        return super().decode_file(path)
"""


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Folder with a module that worker processes import."""
    folder = tmp_path_factory.mktemp("planted")
    (folder / "planted_dask.py").write_text(PLANTED)
    return folder


@pytest.fixture(scope="module")
def address(planted):
    with dask_cluster.running(planted, planted) as address:
        dask_cluster.worker_pids(address)
        yield address


def entries(cache):
    return {path.name: path.read_bytes() for path in cache.folder.iterdir() if path.name != INDEX_NAME}


def as_table(paths):
    return pd.DataFrame({"path": pd.Series(list(map(str, paths)), dtype=object), "label": 0, "split": "", "group": "g"})


@needed
def test_equal_to_the_local_run_though_a_worker_is_killed(address, planted, images, videos, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(planted)
    from planted_dask import Planted

    monkeypatch.setattr(dask, "MAX_FILES", 4)
    broken = [tmp_path / f"{name}.mp4" for name in ("text", "crashes", "hangs")]
    for path in broken:
        path.write_text("hello")
    good = [path for folder in (images, videos) for path in detect.read(folder)["path"][:16]]
    table = as_table([*good[:20], *broken, tmp_path / "gone.mp4", *good[20:], good[0]])
    pids, seen, orphans = dask_cluster.worker_pids(address), [], []

    def progress(result):
        seen.append(result)
        if len(seen) == 6:
            orphans.extend(dask_cluster.children(pids[0]))
            os.kill(pids[0], signal.SIGKILL)

    runner = dask.DaskRunner(address).results
    there = Planted(tmp_path / "there", ClipSpec(4, 16))
    found = prepare_decode.prepare(table, there, None, progress, 6, runner)
    here = Cache(tmp_path / "here", ClipSpec(4, 16))
    local = prepare_decode.prepare(table, here, seconds=6, runner=decode_here)
    reasons = {"crashes": "the decoder crashed",
               "hangs": "decoding took longer than 6 s plus the allowance for its length (--data.timeout)"}  # fmt: skip
    for name, reason in reasons.items():
        row = found["path"] == str(tmp_path / f"{name}.mp4")
        assert list(found.loc[row, "error"]) == [reason]
        local.loc[row, ["error", "sha"]] = [reason, ""]
    pd.testing.assert_frame_equal(found, local)
    assert (found["error"] == "").sum() == 33 and entries(there) == entries(here)
    assert orphans and not any(child.is_running() for child in orphans), "the dead worker's decoder has ended as well"
    assert not dask_cluster.children(dask_cluster.worker_pids(address)[0]), "processes that decode end with the run"


@needed
@pytest.mark.slow  # the nannies start workers again, eight times
def test_a_file_that_kills_its_workers_fails_alone(address, planted, images, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(planted)
    from planted_dask import Planted

    monkeypatch.setattr(dask, "MAX_FILES", 4)
    (tmp_path / "kills.mp4").write_text("hello")
    table = as_table([*detect.read(images)["path"][:6], tmp_path / "kills.mp4", *detect.read(images)["path"][6:12]])
    cache, runner = Planted(tmp_path / "x", ClipSpec(1, 16)), dask.DaskRunner(address).results
    found = prepare_decode.prepare(table, cache, seconds=60, runner=runner)
    assert list(found["error"]) == [*[""] * 6, "each of the 2 Dask workers that were given it died", *[""] * 6]


@needed
def test_a_bug_and_another_version_are_raised_here(address, planted, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(planted)
    from planted_dask import Planted

    cache, runner = Planted(tmp_path / "x", ClipSpec(1, 16)), dask.DaskRunner(address).results
    with pytest.raises(RuntimeError, match="a fault of the program"):
        prepare_decode.prepare(as_table(["bug.mp4"]), cache, runner=runner)
    monkeypatch.setattr(dask_pool, "__version__", "0.0.1")
    with pytest.raises(ValueError, match=r"the worker on .* has tfdetect .* instead of 0.0.1: install the same"):
        prepare_decode.prepare(as_table(["1.mp4"]), cache, runner=runner)


@needed
def test_code_that_workers_lack_is_one_sentence(address, tmp_path, monkeypatch):
    (tmp_path / "only_here.py").write_text(PLANTED)
    monkeypatch.syspath_prepend(tmp_path)
    from only_here import Planted

    cache, runner = Planted(tmp_path / "x", ClipSpec(1, 16)), dask.DaskRunner(address).results
    with pytest.raises(ValueError, match="only_here"):
        prepare_decode.prepare(as_table(["1.mp4"]), cache, runner=runner)


@needed
def test_the_command_line_starts_its_own_processes(images, tmp_path, capfd):
    argv = ["prepare", str(images), "--out", str(tmp_path / "x"), "--data.size", "16", "--runner", "dask", "--data.workers", "1"]
    assert cli.main(argv) == 0
    out, err = capfd.readouterr()
    assert "files: 40 cached, 0 failed" in out and err == ""


@needed
@pytest.mark.parametrize(("flags", "message"), [
    (["dask", "--dask.address", "tcp://127.0.0.1:9"], "no Dask scheduler answers at tcp://127.0.0.1:9 ("),
    (["dask", "--dask.address", "nonsense://x"], "no Dask scheduler answers at nonsense://x ("),
])  # fmt: skip
def test_a_wrong_address_is_one_sentence(images, tmp_path, capsys, flags, message, monkeypatch):
    monkeypatch.setattr(dask_pool, "CONNECT_SECONDS", 1)
    assert cli.main(["prepare", str(images), "--out", str(tmp_path / "x"), "--runner", *flags]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(("flags", "message"), [
    (["--dask.address", "tcp://127.0.0.1:9"], "--dask.address needs --runner dask, got --runner local."),
    (["--runner", "dask", "--profile"], "it needs --runner local, got --runner dask.")])  # fmt: skip
def test_flags_that_the_runner_does_not_take(images, tmp_path, capsys, flags, message):
    with pytest.raises(SystemExit) as stop:
        cli.main(["prepare", str(images), "--out", str(tmp_path / "x"), *flags])
    assert stop.value.code == 2 and message in " ".join(capsys.readouterr().err.split())


def test_without_dask_the_error_is_one_sentence(images, tmp_path):
    script = "import sys; sys.modules['distributed'] = None; from tfdetect import cli; sys.exit(cli.main(sys.argv[1:]))"
    argv = ["prepare", str(images), "--out", str(tmp_path / "x"), "--runner", "dask"]
    done = subprocess.run([sys.executable, "-c", script, *argv], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.splitlines()[-1] == (
        "tfdetect prepare: dask.distributed is not installed: pip install 'tfdetect[dask]'."
    )
