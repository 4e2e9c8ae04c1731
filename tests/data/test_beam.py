"""Beam's result is the local one, row for row and byte for byte."""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec

import pandas as pd
import pytest

from tfdetect import cli
from tfdetect.data import beam, layouts, prepare
from tfdetect.data.cache import Cache, View

needed = pytest.mark.skipif(find_spec("apache_beam") is None,
                            reason="apache-beam is not installed: the extra [beam] is optional")  # fmt: skip


@pytest.fixture
def mixed(tmp_path, images, videos):
    """10 images, 6 videos, two of one content, one with a name that is no text, and five bad files."""
    folder = tmp_path / "set"
    folder.mkdir()
    for source, count in ((images, 10), (videos, 6)):
        for number, path in enumerate(sorted(layouts.read(source)["path"])[:count]):
            shutil.copy(path, folder / f"{number}{os.path.splitext(path)[1]}")
    shutil.copy(folder / "0.jpg", folder / "copy.jpg")
    os.rename(folder / "1.jpg", os.fsencode(folder) + b"/no\xfftext.jpg")
    (folder / "empty.mp4").touch()
    (folder / "cut.mp4").write_bytes((folder / "0.mp4").read_bytes()[:300])
    (folder / "text.png").write_text("hello")
    (folder / "gone.png").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.mp4")
    paths = sorted(str(folder / name) for name in os.listdir(folder))
    return pd.DataFrame({"path": pd.Series(paths, dtype=object), "label": 0, "split": "", "group": "g", "source": ""})


def entries(cache):
    return {path.relative_to(cache.root): path.read_bytes() for path in cache.folder.rglob("*") if path.is_file()}


@needed
@pytest.mark.parametrize("kind", ["npy", "tfrecord"])
def test_equal_to_the_local_runner_row_for_row_and_byte_for_byte(mixed, tmp_path, kind):
    here, there = (Cache(tmp_path / name, View(4, 16), kind) for name in ("here", "there"))
    local = prepare.prepare(mixed, here, workers=2, seconds=60)
    runner = beam.Beam(tmp_path / "shards")
    found = prepare.prepare(mixed, there, workers=2, seconds=60, runner=runner.results)
    pd.testing.assert_frame_equal(found, local)
    assert (found["error"] != "").sum() == 5 and entries(there) == entries(here)
    assert list((tmp_path / "shards" / "0000").glob("clips-*.tfrecord"))

    shutil.rmtree(tmp_path / "shards")
    again = prepare.prepare(mixed, there, workers=2, seconds=60, runner=runner.results)
    pd.testing.assert_frame_equal(again, local)
    lines = [line for file in tmp_path.glob("shards/*/*.jsonl") for line in file.read_text().splitlines()]
    assert len(lines) == 2, "only what could not be opened is tried again"


@needed
def test_the_command_line_runs_it_and_a_wrong_option_is_one_sentence(images, tmp_path, capsys):
    out = tmp_path / "x"
    argv = ["prepare", str(images), "--out", str(out), "--data.size", "16", "--runner", "beam"]
    assert cli.main([*argv, "--direct_num_workers", "1"]) == 0
    assert "40 rows: 40 cached, 0 failed" in capsys.readouterr().out
    assert cli.main([*argv[:3], str(tmp_path / "y"), *argv[4:-1], "NoSuchRunner"]) == 2
    assert "NoSuchRunner" in capsys.readouterr().err


def test_without_beam_there_is_one_sentence(images, tmp_path):
    script = "import sys; sys.modules['apache_beam'] = None; from tfdetect import cli; sys.exit(cli.main(sys.argv[1:]))"
    argv = ["prepare", str(images), "--out", str(tmp_path / "x"), "--runner", "beam"]
    done = subprocess.run([sys.executable, "-c", script, *argv], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.splitlines()[-1] == (
        "tfdetect prepare: apache-beam is not installed: pip install 'tfdetect[beam]'.")
