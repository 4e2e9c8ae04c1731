"""Clips are decoded once per content; a killed run resumes and ends with the same bytes."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from in_process import decode_here

from tfdetect.data.input_pipeline import dataset
from tfdetect.data.layouts import detect
from tfdetect.data.media.faces import FaceSettings
from tfdetect.data.media.frames import Fit
from tfdetect.data.media.read import digest, read_media
from tfdetect.data.prepare import decode
from tfdetect.data.prepare.clip_cache import Cache, ClipSpec

ROOT = Path(__file__).parents[3]


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("kind", ["npy", "tfrecord"])
@pytest.mark.parametrize("what", ["images", "videos"])
def test_entries_match_the_reader(tmp_path, request, kind, what):
    folder = request.getfixturevalue(what)
    cache = Cache(tmp_path, ClipSpec(4, 24), kind)
    table = decode.prepare(detect.read(folder).head(6), cache, runner=decode_here)
    assert (table["error"] == "").all() and list(table["sha"]) == [digest(path) for path in table["path"]]
    for row in table.itertuples():
        expected = read_media(row.path, 4, size=24).frames
        found = cache.load(row.sha)
        assert found.dtype == np.uint8 and len(found) == row.frames
        # An image in a TFRecord is resized in the graph, which may differ by one level.
        assert np.abs(found.astype(int) - expected).max() <= (1 if (kind, what) == ("tfrecord", "images") else 0)
    if kind == "npy":
        assert isinstance(cache.load(row.sha), np.memmap)


def test_tfrecord_keeps_the_bytes_of_images_or_stores_them_lossless(tmp_path, rng):
    image = rng.integers(0, 256, (40, 30, 3), np.uint8)
    cache = Cache(tmp_path / "cache", ClipSpec(1, 16), "tfrecord")
    for name in ("a.jpg", "a.png", "a.webp", "a.tif"):
        cv2.imwrite(str(tmp_path / name), image)
        sha = cache.decode_file(str(tmp_path / name))["sha"]
        stored, original = cache.clip_path(sha).read_bytes(), (tmp_path / name).read_bytes()
        assert (original in stored) == (name != "a.tif"), name
        assert np.abs(cache.load(sha).astype(int) - read_media(tmp_path / name, size=16).frames).max() <= 1


def test_content_is_the_key_and_failures_are_saved(tmp_path, images):
    table = detect.read(images).head(3)
    copy = tmp_path / "copy.jpg"
    shutil.copy(table["path"][0], copy)
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xffnothing")
    cache = Cache(tmp_path / "cache", ClipSpec(1, 16))
    first, second = cache.decode_file(table["path"][0]), cache.decode_file(str(copy))
    assert first == second and len(list(cache.folder.rglob("*.npy"))) == 1
    broken = cache.decode_file(str(tmp_path / "broken.jpg"))
    assert broken["error"] and broken["frames"] == 0
    result_path = cache.clip_path(broken["sha"]).with_suffix(".json")
    assert json.loads(result_path.read_text())["error"] == broken["error"] and not cache.clip_path(broken["sha"]).exists()
    missing = cache.decode_file(str(tmp_path / "none.jpg"))
    assert missing["error"] == "No such file or directory" and missing["sha"] == ""


def test_other_settings_have_other_folders(tmp_path):
    faces = FaceSettings(tmp_path / "yunet.onnx", "0123456789abcdef")
    specs = [ClipSpec(4, 16), ClipSpec(4, 32), ClipSpec(8, 16), ClipSpec(4, 16, fps=2.0), ClipSpec(4, 16, faces=faces),
             *(ClipSpec(4, 16, fit=Fit(*fit)) for fit in (("shortest_side",), ("crop",), ("pad",), ("crop", 2), ("crop", 9)))]
    folders = {Cache(tmp_path, spec, kind).folder for spec in specs for kind in ("npy", "tfrecord")}
    assert len(folders) == 20
    assert ClipSpec(4, 16).key == "4x16", "the caches of runs without --data.fit stay valid"
    assert Cache(tmp_path, ClipSpec(4, 16, still=True)).folder in folders, "image and video detectors share their clips"


@pytest.mark.parametrize("kind", ["npy", "tfrecord"])
def test_a_still_image_is_repeated_to_fill_a_clip(tmp_path, images, kind):
    cache = Cache(tmp_path, ClipSpec(5, 16, still=True), kind)
    found = decode.prepare(detect.read(images).head(2), cache, runner=decode_here)
    clip = cache.load(found["sha"][0])
    assert clip.shape == (5, 16, 16, 3) and (clip == clip[0]).all()
    assert set(found["frames"]) == {5} and found["note"].str.contains("still image: its one frame is repeated 5 times").all()
    (clips, _), *_ = dataset.evaluation_batches(found, cache, False, 2).as_numpy_iterator()
    np.testing.assert_array_equal(clips[0], clip)


@pytest.mark.parametrize("kind, fit", [("npy", Fit("crop", 5)), ("tfrecord", Fit("crop", 5)), ("tfrecord", Fit("pad"))])
def test_both_kinds_hold_the_squares_that_the_reader_makes(tmp_path, rng, kind, fit):
    """Each crop is a frame of the clip; a picture that is too small for five has fewer."""
    shapes, cache = [(40, 60), (34, 16), (9, 12), (16, 16)], Cache(tmp_path / "cache", ClipSpec(3, 16, fit=fit), kind)
    for number, shape in enumerate(shapes):
        cv2.imwrite(str(tmp_path / f"{number}.png"), rng.integers(0, 256, (*shape, 3), np.uint8))
    paths = [str(tmp_path / f"{number}.png") for number in range(len(shapes))]
    table = decode.prepare(pd.DataFrame({"path": paths, "label": 0}), cache, runner=decode_here)
    assert list(table["frames"]) == ([5, 3, 1, 1] if fit.crops > 1 else [1] * 4)
    expected = [cache.spec.read(path).frames for path in paths]
    for sha, squares in zip(table["sha"], expected, strict=True):
        assert cache.is_complete(sha, len(squares))
        assert np.abs(cache.load(sha).astype(int) - squares).max() <= (0 if kind == "npy" or fit.mode == "crop" else 1)
    batches = dataset.evaluation_batches(table, cache, True, 4).as_numpy_iterator()
    clips = np.concatenate([clips for clips, _ in batches])
    np.testing.assert_array_equal(clips[:, 0], np.concatenate([cache.load(sha) for sha in table["sha"]]))


RUN = """
import sys, time
from pathlib import Path
from tfdetect.data.layouts import detect
from tfdetect.data.prepare import decode
from tfdetect.data.prepare.clip_cache import Cache, ClipSpec

def hang(result, seen=[]):
    seen.append(result)
    if len(seen) == int(sys.argv[4]):
        print("ready to be killed", flush=True)
        time.sleep(1000)

if __name__ == "__main__":
    table = detect.read(Path(sys.argv[1]))
    decode.prepare(table, Cache(Path(sys.argv[2]), ClipSpec(8, 32), sys.argv[3]), workers=2, progress=hang)
"""


@pytest.mark.parametrize("kind", ["npy", pytest.param("tfrecord", marks=pytest.mark.slow)])
def test_a_killed_run_resumes_to_the_same_result(tmp_path, videos, kind):
    (tmp_path / "run.py").write_text(RUN)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def start(hang_after):
        command = [sys.executable, tmp_path / "run.py", videos, tmp_path / "disturbed", kind, str(hang_after)]
        return subprocess.Popen(command, env=environment, start_new_session=True, stdout=subprocess.PIPE, text=True)

    def finished():
        return len(list((tmp_path / "disturbed").rglob("*.json")))

    done = 0
    for count in (1, 20):  # killed with that many results; the workers may be writing those of the 8 files that follow
        with start(count) as process:
            assert process.stdout.readline() == "ready to be killed\n"
            os.killpg(process.pid, signal.SIGKILL)
        before, done = done, finished()
        assert before < done < 40
    with start(0) as process:
        assert process.wait() == 0
    assert_equals_an_undisturbed_run(tmp_path, videos, kind)


@pytest.mark.parametrize("kind", ["npy", "tfrecord"])
def test_an_interrupted_run_resumes_to_the_same_result(tmp_path, videos, kind):
    """In a single process, with a half-written entry."""
    cache, seen = Cache(tmp_path / "disturbed", ClipSpec(8, 32), kind), []

    def interrupt(result):
        seen.append(result)
        if len(seen) == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decode.prepare(detect.read(videos), cache, progress=interrupt, runner=decode_here)
    assert len(list(cache.folder.rglob("*.json"))) == 7
    cache.clip_path(seen[0]["sha"]).write_bytes(b"")
    decode.prepare(detect.read(videos), cache, runner=decode_here)
    assert_equals_an_undisturbed_run(tmp_path, videos, kind)


def assert_equals_an_undisturbed_run(folder, videos, kind):
    decode.prepare(detect.read(videos), Cache(folder / "undisturbed", ClipSpec(8, 32), kind), runner=decode_here)
    for part in (folder / "disturbed").rglob(".part-*"):  # half-written files do not have the name of an entry
        part.unlink()
    found = contents(folder / "disturbed")
    assert found == contents(folder / "undisturbed") and sum(name.endswith(".json") for name in found) == 40


CRASHING = """
import os
from tfdetect.data.prepare.clip_cache import Cache
class Crashing(Cache):
    def decode_file(self, path):
        if path.endswith("2.mp4"):
            os.abort()
        return {"sha": "x", "frames": 1, "width": 1, "height": 1, "note": "", "error": ""}
"""


def test_a_crashing_decoder_fails_only_that_file(tmp_path, monkeypatch):
    (tmp_path / "crashing.py").write_text(CRASHING)  # a module, so that worker processes can import it
    monkeypatch.syspath_prepend(tmp_path)
    from crashing import Crashing

    table = pd.DataFrame({"path": [f"{number}.mp4" for number in range(25)]})
    seen = []
    found = decode.prepare(table, Crashing(tmp_path, ClipSpec(1, 16)), workers=2, progress=seen.append)
    assert list(found.index[found["error"] != ""]) == [2, 12, 22] and len(seen) == 25
    assert set(found["error"]) == {"", "the decoder crashed"}


def test_a_failed_write_stops_the_run(tmp_path, images):
    cache = Cache(tmp_path / "file", ClipSpec(1, 16))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError):
        decode.prepare(detect.read(images).head(2), cache, workers=1)
