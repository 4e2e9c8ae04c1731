"""Beam gives the same result as local processes, row for row and byte for byte."""

import errno
import json
import os
import shutil
import subprocess
import sys
from functools import partial
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
from tfdetect.data.prepare.shards import HEADER, ClipWriter

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


def lines(folder):
    """Return (path, error, bytes of the clip) of each file that a run has decoded."""
    rows = [json.loads(line) for file in folder.glob("batch-*.jsonl") for line in file.open()]
    return sorted((file[0], result["error"], length) for file, _, result, _, _, length in rows)


@needed
@pytest.mark.parametrize("kind", ["npy", "tfrecord"])
def test_equal_to_the_local_runner_row_for_row_and_byte_for_byte(mixed, tmp_path, kind, monkeypatch):
    if kind == "npy":
        monkeypatch.setattr(beam, "BATCH_SIZES", (6, 6))  # so that a copy is decoded in another batch
    here, there = (Cache(tmp_path / name, ClipSpec(4, 16, fit=Fit("crop", 3)), kind) for name in ("here", "there"))
    monkeypatch.setattr(beam.worker_pool, "map_unordered", map_here)
    local = prepare_decode.prepare(mixed, here, seconds=60, runner=decode_here)
    found = prepare_decode.prepare(mixed, there, workers=1, seconds=60, runner=beam.BeamRunner(tmp_path / "shards").results)
    pd.testing.assert_frame_equal(found, local)
    assert (found["error"] != "").sum() == 5 and entries(there) == entries(here)

    folder = tmp_path / "shards" / "0000"
    assert [row[:2] for row in lines(folder)] == sorted(zip(local["path"], local["error"], strict=True))
    sizes = [path.stat().st_size for path in folder.glob("batch-*.clips")]
    assert len(sizes) == (4 if kind == "npy" else 1) and sum(sizes) == clip_bytes(there), "each content once"


def clip_bytes(cache):
    return sum(size - HEADER * (cache.kind == "npy") for size in map(len, entries(cache).values()))


@needed
def test_an_interrupted_run_resumes(mixed, tmp_path, monkeypatch, capsys):
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
    found = decode(runner)
    here = Cache(tmp_path / "here", ClipSpec(1, 16))
    local = prepare_decode.prepare(mixed, here, seconds=60, runner=decode_here)
    pd.testing.assert_frame_equal(found, local)
    assert entries(cache) == entries(here)
    assert "11 files of 13 had been decoded by an earlier run." in capsys.readouterr().err
    unopened = [str(tmp_path / "set" / name) for name in ("gone.png", "pipe.mp4")]
    assert [row[0] for row in lines(tmp_path / "shards" / "0001")] == unopened, "they may be readable now"
    with pytest.raises(ValueError, match="^NoSuchRunner failed"):
        decode(beam.BeamRunner(tmp_path / "shards", "NoSuchRunner"))
    assert sorted(path.name for path in (tmp_path / "shards").iterdir()) == ["0000", "0001"]


def map_some(decoded, left, paths, work, workers=None, seconds=None):
    """Decode in this process, note the paths in `decoded`, and fail when as many as `left` says are done, unless it is empty."""
    for path, outcome in map_here(paths, work):
        if left and left[0] == 0:
            raise RuntimeError(f"lost after {len(decoded)}")
        left[:] = [count - 1 for count in left]
        decoded.append(path)
        yield path, outcome


@needed
def test_a_failed_run_goes_on_with_what_is_left(mixed, tmp_path, monkeypatch):
    decoded, left = [], [12]
    monkeypatch.setattr(beam.worker_pool, "map_unordered", partial(map_some, decoded, left))
    there, runner = Cache(tmp_path / "there", ClipSpec(1, 16)), beam.BeamRunner(tmp_path / "shards").results
    with pytest.raises(ValueError, match="^FnApiRunner failed: .*lost after 12"):
        prepare_decode.prepare(mixed, there, workers=1, seconds=60, runner=runner)
    first, _ = decoded.copy(), decoded.clear()
    folder = tmp_path / "shards" / "0000"
    kept = {path: length for path, _, length in lines(folder)}
    assert kept.keys() >= set(first)
    changed = next(path for path in first if kept[path])
    os.utime(changed)
    [batch] = folder.glob("batch-*.jsonl")
    *others, (cut, *_) = [json.loads(line)[0] for line in batch.open()]
    os.truncate(batch, batch.stat().st_size - 1)  # as if the worker had been killed while writing the line
    monkeypatch.setattr(beam, "BATCH_SIZES", (1, 1))
    left.clear()
    found = prepare_decode.prepare(mixed, there, workers=1, seconds=60, runner=runner)
    unopened = {str(tmp_path / "set" / name) for name in ("gone.png", "pipe.mp4")}
    twins = {str(tmp_path / "set" / name) for name in ("0.jpg", "copy\n.jpg")}
    expected = set(mixed["path"]) - {path for path, *_ in others} | {changed, cut} | unopened
    assert len(set(decoded) & twins) <= 1 and set(decoded) | twins == expected | twins and len(decoded) == len(set(decoded))
    here = Cache(tmp_path / "here", ClipSpec(1, 16))
    pd.testing.assert_frame_equal(found, prepare_decode.prepare(mixed, here, seconds=60, runner=decode_here))
    assert entries(there) == entries(here)

    for clips in (tmp_path / "shards").glob("*/*.clips"):
        os.truncate(clips, 0)  # to save space
    decoded.clear()
    again = Cache(tmp_path / "again", ClipSpec(1, 16))
    pd.testing.assert_frame_equal(prepare_decode.prepare(mixed, again, seconds=60, runner=runner), found)
    assert len(decoded) == 18, "16 contents and the two that could not be opened"


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
    assert [path.name for path in (tmp_path / "shards").iterdir()] == ["0000"], "a run without results leaves nothing"


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


KILLED = """
import os, signal, time
from pathlib import Path
from tfdetect.data.prepare.clip_cache import Cache
class Killed(Cache):
    def decode_file(self, path):
        log = Path(__file__).parent / str(os.getppid())
        with log.open("a") as lines:
            lines.write(path + "\\n")
        if len(log.read_text().splitlines()) > 5 and not (Path(__file__).parent / "killed").exists():
            (Path(__file__).parent / "killed").touch()
            time.sleep(0.5)  # until the rows before this one are written
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(60)
        return super().decode_file(path)
"""


@needed
@pytest.mark.slow  # Beam starts two processes, twice
def test_the_second_start_goes_on_after_a_worker_was_killed(images, videos, tmp_path, monkeypatch):
    (tmp_path / "killed_cache.py").write_text(KILLED)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(beam, "BATCH_SIZES", (8, 8))
    from killed_cache import Killed

    def decode():
        runner = beam.BeamRunner(shards, options=options).results
        return prepare_decode.prepare(table, there, workers=1, seconds=60, runner=runner)

    def take_log():
        logs = [path for path in tmp_path.iterdir() if path.name.isdigit()]
        paths = [path for log in logs for path in log.read_text().splitlines()]
        for log in logs:
            log.unlink()
        return paths, len(logs)

    shards, options = tmp_path / "shards", ("--direct_running_mode", "multi_processing", "--direct_num_workers", "2")
    there, here = Killed(tmp_path / "there", ClipSpec(4, 16)), Cache(tmp_path / "here", ClipSpec(4, 16))
    paths = [path for folder in (images, videos) for path in detect.read(folder)["path"][:24]]
    table = pd.DataFrame({"path": pd.Series(paths, dtype=object), "label": 0, "split": "", "group": "g"})
    with pytest.raises(ValueError, match="^FnApiRunner failed"):
        decode()
    begun, workers = take_log()
    kept = [path for path, *_ in lines(shards / "0000")]
    assert workers == 2 and 5 <= len(kept) < len(paths) and set(kept) < set(begun)
    found = decode()
    assert sorted(take_log()[0]) == sorted(set(paths) - set(kept)), "each of the other files once"
    pd.testing.assert_frame_equal(found, prepare_decode.prepare(table, here, seconds=60, runner=decode_here))
    assert entries(there) == entries(here)
