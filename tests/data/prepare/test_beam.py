"""Beam gives the same result as local processes, row for row and byte for byte."""

import errno
import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pandas as pd
import pytest
from in_process import decode_here, map_here

from tfdetect import cli
from tfdetect.data.layouts import detect
from tfdetect.data.media.frames import Fit
from tfdetect.data.prepare import beam
from tfdetect.data.prepare import decode as prepare_decode
from tfdetect.data.prepare.clip_cache import Cache, ClipSpec
from tfdetect.data.prepare.clip_index import INDEX_NAME
from tfdetect.data.prepare.shards import ClipWriter

needed = pytest.mark.skipif(find_spec("apache_beam") is None,
                            reason="apache-beam is not installed: the extra [beam] is optional")  # fmt: skip


@pytest.fixture
def mixed(tmp_path, images, videos):
    """Return 10 images, 6 videos, two files with equal content, one with a name that is not UTF-8, and five invalid files."""
    folder = tmp_path / "set"
    folder.mkdir()
    for source, count in ((images, 10), (videos, 6)):
        for number, path in enumerate(sorted(detect.read(source)["path"])[:count]):
            shutil.copy(path, folder / f"{number}{os.path.splitext(path)[1]}")
    shutil.copy(folder / "0.jpg", folder / "copy\n.jpg")
    os.rename(folder / "1.jpg", os.fsencode(folder) + b"/no\xfftext.jpg")
    (folder / "empty.mp4").touch()
    (folder / "cut.mp4").write_bytes((folder / "0.mp4").read_bytes()[:300])
    (folder / "text.png").write_text("hello")
    (folder / "gone.png").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.mp4")
    paths = sorted(str(folder / name) for name in os.listdir(folder))
    return pd.DataFrame({"path": pd.Series(paths, dtype=object), "label": 0, "split": "", "group": "g", "source": ""})


def entries(cache):
    return {path.name: path.read_bytes() for path in cache.folder.iterdir() if path.name != INDEX_NAME}


def lines(folder, name):
    return [json.loads(line) for file in sorted(folder.glob(f"{name}-*.jsonl")) for line in file.open()]


@needed
@pytest.mark.parametrize("kind", ["npy", "tfrecord"])
def test_equal_to_the_local_runner_row_for_row_and_byte_for_byte(mixed, tmp_path, kind, monkeypatch):
    if kind == "npy":
        monkeypatch.setattr(beam, "BATCH_SIZES", (6, 6))  # so that a copy is decoded in another batch
    here, there = (Cache(tmp_path / name, ClipSpec(4, 16, fit=Fit("crop", 3)), kind) for name in ("here", "there"))
    monkeypatch.setattr(beam.worker_pool, "map_unordered", map_here)
    local = prepare_decode.prepare(mixed, here, seconds=60, runner=decode_here)
    runner = beam.BeamRunner(tmp_path / "shards", shards=3).results
    found = prepare_decode.prepare(mixed, there, workers=1, seconds=60, runner=runner)
    pd.testing.assert_frame_equal(found, local)
    assert (found["error"] != "").sum() == 5 and entries(there) == entries(here)

    folder = tmp_path / "shards" / "0000"
    shards = sorted(folder.glob("clips*"))
    assert [path.name for path in shards] == [f"clips-0000{number}-of-00003.tfrecord" for number in range(3)]
    assert sum(path.read_bytes().count(b"facts") for path in shards) == 16, "each content once"
    assert sorted(row[0] for row in lines(folder, "failures")) == sorted(local["path"][local["error"] != ""])
    assert len(lines(folder, "rows")) == 17


@needed
def test_an_interrupted_run_resumes(mixed, tmp_path, monkeypatch):
    monkeypatch.setattr(beam.worker_pool, "map_unordered", map_here)
    cache, runner = Cache(tmp_path / "cache", ClipSpec(1, 16)), beam.BeamRunner(tmp_path / "shards")

    def decode(runner):
        return prepare_decode.prepare(mixed, cache, workers=1, seconds=60, runner=runner.results)

    written = []

    def full(self, payload, append=ClipWriter.append):
        written.append(payload)
        if len(written) > 9:
            raise OSError(errno.ENOSPC, "No space left on device", str(self.folder))
        return append(self, payload)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(ClipWriter, "append", full)
        decode(runner)
    assert len(np.load(cache.folder / "00000.npy", mmap_mode="r")) == 9
    found = decode(beam.BeamRunner(tmp_path / "shards", "NoSuchRunner"))  # no runner is needed to unpack
    here = Cache(tmp_path / "here", ClipSpec(1, 16))
    local = prepare_decode.prepare(mixed, here, seconds=60, runner=decode_here)
    pd.testing.assert_frame_equal(found, local)
    assert entries(cache) == entries(here)

    pd.testing.assert_frame_equal(decode(runner), local)
    last = tmp_path / "shards" / "0001"
    assert not lines(last, "rows") and len(lines(last, "failures")) == 2, "only files that could not be opened are tried again"
    (tmp_path / "shards" / "0002.part").mkdir()  # left by a killed run
    decode(runner)  # the files may be readable now, whatever 0001 found
    assert sorted(path.name for path in (tmp_path / "shards").iterdir()) == ["0000", "0001", "0002"]


PLANTED = """
import os, time
from tfdetect.data.prepare.clip_cache import Cache, Decoded, failure_result
class Planted(Cache):
    def decode_file(self, path):
        if path.endswith("2.mp4"):
            os.abort()
        if path.endswith("3.mp4"):
            time.sleep(60)
        if path.endswith("9.mp4"):
            raise RuntimeError("a fault of the program")
        return Decoded(failure_result("", "planted"))
"""


@needed
def test_a_decoder_that_crashes_or_hangs_fails_one_file_and_a_bug_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "planted_cache.py").write_text(PLANTED)  # a module, so that worker processes can import it
    monkeypatch.syspath_prepend(tmp_path)
    from planted_cache import Planted

    cache, runner = Planted(tmp_path / "cache", ClipSpec(1, 16)), beam.BeamRunner(tmp_path / "shards")
    table = pd.DataFrame({"path": [f"{number}.mp4" for number in range(6)]})
    found = prepare_decode.prepare(table, cache, workers=1, seconds=6, runner=runner.results)
    expected = {2: "the decoder crashed", 3: "decoding took longer than 6 s plus the allowance for its length (--data.timeout)"}
    assert list(found["error"]) == [expected.get(number, "planted") for number in range(6)]
    with pytest.raises(ValueError, match="^FnApiRunner failed: .*a fault of the program"):
        prepare_decode.prepare(pd.DataFrame({"path": ["9.mp4"]}), cache, workers=1, seconds=6, runner=runner.results)
    assert [path.name for path in (tmp_path / "shards").iterdir()] == ["0000"], "a failed run leaves nothing"


@needed
def test_the_command_line_runs_beam(images, tmp_path, capsys):
    argv = ["prepare", str(images), "--out", str(tmp_path / "x"), "--data.size", "16", "--runner", "beam"]
    assert cli.main([*argv, "--direct_num_workers", "1"]) == 0
    assert "files: 40 cached, 0 failed" in capsys.readouterr().out


@needed
@pytest.mark.parametrize(("flags", "message"), [
    (["NoSuchRunner"], "NoSuchRunner"),
    (["beam", "--direct_num_wrokers", "2"], "an option --direct_num_wrokers. Perhaps you meant --direct_num_workers."),
    (["FlinkRunner", "--data.siez", "64"], "an option --data.siez. `tfdetect prepare --help` lists its flags."),
    (["beam", "--direct_num_workers", "two"], "argument --direct_num_workers: invalid int value: 'two'."),
])  # fmt: skip
def test_an_invalid_option_is_one_sentence_and_nothing_runs(images, tmp_path, capsys, flags, message):
    assert cli.main(["prepare", str(images), "--out", str(tmp_path / "x"), "--runner", *flags]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1] and not list(tmp_path.glob("x/shards/*"))


def test_without_beam_the_error_is_one_sentence(images, tmp_path):
    script = "import sys; sys.modules['apache_beam'] = None; from tfdetect import cli; sys.exit(cli.main(sys.argv[1:]))"
    argv = ["prepare", str(images), "--out", str(tmp_path / "x"), "--runner", "beam"]
    done = subprocess.run([sys.executable, "-c", script, *argv], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.splitlines()[-1] == (
        "tfdetect prepare: apache-beam is not installed: pip install 'tfdetect[beam]'."
    )
