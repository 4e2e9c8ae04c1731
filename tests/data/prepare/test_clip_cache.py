"""Clips are decoded once per content; a killed run resumes and ends with the same bytes."""

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from in_process import decode_here

from tfdetect.data.audit import properties
from tfdetect.data.equalise import Plan
from tfdetect.data.input_pipeline import dataset
from tfdetect.data.layouts import detect
from tfdetect.data.media.faces import FaceSettings
from tfdetect.data.media.frames import Fit
from tfdetect.data.media.read import digest, read_media
from tfdetect.data.prepare import decode, shards
from tfdetect.data.prepare.clip_cache import Cache, ClipSpec
from tfdetect.data.prepare.clip_index import INDEX_NAME
from tfdetect.errors import UserError
from tfdetect.limits import Decoding

ROOT = Path(__file__).parents[3]


def contents(folder):
    """The bytes of each shard and the rows of each index; an index that was written in more steps has other bytes."""
    found = {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    rows = {path: [*sqlite3.connect(folder / path).iterdump()] for path in found if path.name == INDEX_NAME}
    return {path: content for path, content in found.items() if path not in rows} | rows


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
        np.testing.assert_array_equal(found, expected)  # an image in a TFRecord is resized in the graph
    shard = shards.shard_path(cache.folder, kind, 0)
    if kind == "npy":
        pixels = np.load(shard, mmap_mode="r")
        np.testing.assert_array_equal(pixels, np.concatenate([cache.load(sha) for sha in dict.fromkeys(table["sha"])]))
    else:
        assert sum(1 for _ in tf.data.TFRecordDataset(str(shard))) == 6


def test_tfrecord_keeps_the_bytes_of_images_or_stores_them_lossless(tmp_path, rng):
    image = rng.integers(0, 256, (40, 30, 3), np.uint8)
    cache = Cache(tmp_path / "cache", ClipSpec(1, 16), "tfrecord")
    for name in ("a.jpg", "a.png", "a.webp", "a.tif"):
        cv2.imwrite(str(tmp_path / name), image)
        table = pd.DataFrame({"path": [str(tmp_path / name)]})
        sha = decode.prepare(table, cache, runner=decode_here)["sha"][0]
        stored, original = cache.reader([sha]).record(0), (tmp_path / name).read_bytes()
        assert (original in stored) == (name != "a.tif"), name
        np.testing.assert_array_equal(cache.load(sha), read_media(tmp_path / name, size=16).frames)


def test_content_is_the_key(tmp_path, images):
    table = detect.read(images).head(3)
    copy = tmp_path / "copy.jpg"
    shutil.copy(table["path"][0], copy)
    cache = Cache(tmp_path / "cache", ClipSpec(1, 16))
    first = cache.decode_file(table["path"][0])
    assert first.payload.shape == (1, 16, 16, 3)
    found = decode.prepare(table.head(1), cache, runner=decode_here)
    assert dict(found.loc[0, list(decode.RESULT_FIELDS)]) == first.result
    again = cache.decode_file(str(copy))
    assert again.result == first.result and again.payload is None, "known under another name"
    length = os.path.getsize(shards.shard_path(cache.folder, "npy", 0))
    with cache.writer() as writer:
        writer.add_clip(first.result["sha"], first.payload, {"frames": 1, "width": 1, "height": 1, "note": ""})
    assert length == os.path.getsize(shards.shard_path(cache.folder, "npy", 0)) == shards.HEADER + 16 * 16 * 3
    missing = cache.decode_file(str(tmp_path / "none.jpg"))
    assert missing.result["error"] == "No such file or directory" and missing.result["sha"] == ""


@pytest.mark.parametrize("kind", ["npy", "tfrecord"])
def test_clips_are_packed_into_few_files_and_appended(tmp_path, videos, monkeypatch, kind):
    """40 clips of 3 frames of 12 x 12 pixels, in shards that are closed beyond 5000 bytes."""
    monkeypatch.setattr(shards, "SHARD_BYTES", 5000)
    cache, table = Cache(tmp_path, ClipSpec(3, 12), kind), detect.read(videos)
    decode.prepare(table.head(7), cache, runner=decode_here)
    before = {path.name: path.read_bytes() for path in cache.folder.glob(f"*.{kind}")}
    found = decode.prepare(table, cache, runner=decode_here)
    after = {path.name: path.read_bytes() for path in cache.folder.glob(f"*.{kind}")}
    assert len(before) == 2 and len(after) == 10 and sorted(path.name for path in cache.folder.iterdir())[-1] == INDEX_NAME
    skip = shards.HEADER if kind == "npy" else 0  # where the number of frames changes
    assert all(after[name][skip:].startswith(content[skip:]) for name, content in before.items()), "nothing is rewritten"
    reader = cache.reader(found["sha"])
    for path, sha in zip(found["path"], found["sha"], strict=True):
        np.testing.assert_array_equal(reader.load(sha), cache.spec.read(path).frames)
    shuffled = found.sample(frac=1, random_state=0).reset_index(drop=True)
    for single in (False, True):
        batches = dataset.evaluation_batches(shuffled, cache, single, 7).as_numpy_iterator()
        expected = np.stack([reader.load(sha) for sha in shuffled["sha"]])
        clips = np.concatenate([clips for clips, _ in batches])
        np.testing.assert_array_equal(clips, expected.reshape(-1, 1, 12, 12, 3) if single else expected)


def test_two_processes_never_write_to_the_same_shard(tmp_path):
    """Here two writers of one process, whose locks exclude each other as well."""
    cache, clip = Cache(tmp_path, ClipSpec(1, 4)), {"frames": 1, "width": 4, "height": 4, "note": ""}
    frames = {f"{number:064x}": np.full((1, 4, 4, 3), number, np.uint8) for number in range(6)}
    names = list(frames)
    with cache.writer() as one, cache.writer() as two:
        for number, sha in enumerate(names):
            (one, two)[number % 2].add_clip(sha, frames[sha], clip)
            (one, two)[number % 2].add_file(sha, (1, 1, sha, "", ""))
    assert {place[0] for place in cache.reader(names).places} == {0, 1}
    with cache.writer() as three:
        three.add_clip("ff" * 32, frames[names[0]], clip)
    assert cache.reader(["ff" * 32]).places[0, 0] == 1, "the last one is filled first"
    assert all((cache.load(sha) == frames[sha]).all() for sha in names)


@pytest.mark.parametrize("check", ["used", "all"])
def test_the_table_says_how_many_frames_were_decoded(tmp_path, videos, check):
    """To take the middle of eight frames, the last one need not be decoded."""
    cache = Cache(tmp_path, ClipSpec(1, 16, decoding=Decoding(check=check)))
    found = decode.prepare(detect.read(videos).head(2), cache, runner=decode_here)
    assert (found["total_frames"] == 8).all() and ((found["decoded_frames"] < 8) == (check == "used")).all()


@pytest.mark.parametrize("what, spec", [("images", ClipSpec(1, 16)), ("videos", ClipSpec(8, 16)), ("videos", ClipSpec(3, 24))])
def test_the_properties_of_a_file_are_kept_with_its_clip(tmp_path, request, what, spec):
    """They are those that the audit measures; only the frame at which a video is looked at differs."""
    cache, table = Cache(tmp_path, spec), detect.read(request.getfixturevalue(what)).head(4)
    shas = decode.prepare(table, cache, runner=decode_here)["sha"]
    for path, known in zip(table["path"], cache.facts(shas), strict=True):
        measured = properties.measure(path, spec.limits, spec.decoding)
        assert all(known.get(name) == measured.get(name) for name in properties.CONTAINER)
        assert all(known[name].shape == measured[name].shape for name in properties.CONTENT)
        if what == "images":
            difference = [np.abs(known[name] - measured[name].astype(float)).max() for name in properties.CONTENT]
            assert max(difference) < 2, "resized otherwise"
            assert (known["border"] == measured["border"]).all(), "of the native frame"
        else:
            middle = read_media(path, spec.frames).frames[spec.frames // 2]
            assert known["mean_colour"] == pytest.approx(middle.mean(axis=(0, 1)), abs=1)


def test_the_properties_of_an_equalised_copy_are_not_those_of_the_file(tmp_path, images):
    cache, path = Cache(tmp_path, ClipSpec(1, 16, plan=Plan(16, 90, 0.0, 1))), detect.read(images)["path"][0]
    decoded = cache.decode_file(path)
    assert decoded.payload is not None and decoded.facts is None


def test_a_clip_that_was_truncated_is_decoded_again(tmp_path, videos):
    cache, table = Cache(tmp_path, ClipSpec(3, 12)), detect.read(videos).head(4)
    first = decode.prepare(table, cache, runner=decode_here)
    shard, frame = shards.shard_path(cache.folder, "npy", 0), 12 * 12 * 3
    os.truncate(shard, shards.HEADER + 10 * frame)  # the last of the four clips lacks two of its three frames
    with pytest.raises(OSError, match="shorter than its index says"):
        cache.load(first["sha"][3])
    assert [cache.decode_file(path).payload is None for path in table["path"]] == [True, True, True, False]
    pd.testing.assert_frame_equal(decode.prepare(table, cache, runner=decode_here), first)
    assert (cache.load(first["sha"][3]) == cache.spec.read(table["path"][3]).frames).all()


def test_a_damaged_index_is_one_sentence(tmp_path, videos):
    cache, table = Cache(tmp_path, ClipSpec(3, 12)), detect.read(videos).head(2)
    decode.prepare(table, cache, runner=decode_here)
    (cache.folder / INDEX_NAME).write_bytes(b"no database" * 1000)
    with pytest.raises(UserError, match=r"index.sqlite is damaged \(file is not a database\): delete the folder"):
        decode.prepare(table, cache, runner=decode_here)


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
        assert np.abs(cache.load(sha).astype(int) - squares).max() <= (0 if kind == "npy" or fit.mode == "crop" else 1)
    batches = dataset.evaluation_batches(table, cache, True, 4).as_numpy_iterator()
    clips = np.concatenate([clips for clips, _ in batches])
    np.testing.assert_array_equal(clips[:, 0], np.concatenate([cache.load(sha) for sha in table["sha"]]))


RUN = """
import sys, time
from pathlib import Path
from tfdetect.data.audit import properties
from tfdetect.data.equalise import Plan
from tfdetect.data.layouts import detect
from tfdetect.data.prepare import decode
from tfdetect.data.prepare import shards
from tfdetect.data.prepare.clip_cache import Cache, ClipSpec
from tfdetect.data.prepare.clip_index import INDEX_NAME
from tfdetect.errors import UserError

def hang(result, seen=[]):
    seen.append(result)
    if len(seen) == int(sys.argv[4]):
        print("ready to be killed", flush=True)
        time.sleep(1000)

if __name__ == "__main__":
    table = detect.read(Path(sys.argv[1]))
    shards.SAVE_EVERY = 0.0
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
        index, = (tmp_path / "disturbed").rglob(INDEX_NAME)
        with contextlib.closing(sqlite3.connect(index)) as connection:
            return connection.execute("SELECT COUNT(*) FROM clips").fetchone()[0]

    done = 0
    for count in (2, 20):  # killed with that many results, of which the last may not be saved
        with start(count) as process:
            assert process.stdout.readline() == "ready to be killed\n"
            os.killpg(process.pid, signal.SIGKILL)
        before, done = done, finished()
        assert before < done < 40
        with shards.shard_path(next((tmp_path / "disturbed").iterdir()), kind, 0).open("ab") as shard:
            shard.write(b"half a clip")
    with start(0) as process:
        assert process.wait() == 0
    assert_equals_an_undisturbed_run(tmp_path, videos, kind)


@pytest.mark.parametrize("kind", ["npy", "tfrecord"])
def test_an_interrupted_run_resumes_to_the_same_result(tmp_path, videos, kind):
    cache, seen = Cache(tmp_path / "disturbed", ClipSpec(8, 32), kind), []

    def interrupt(result):
        seen.append(result)
        if len(seen) == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decode.prepare(detect.read(videos), cache, progress=interrupt, runner=decode_here)
    decode.prepare(detect.read(videos), cache, runner=decode_here)
    assert_equals_an_undisturbed_run(tmp_path, videos, kind)


def assert_equals_an_undisturbed_run(folder, videos, kind):
    decode.prepare(detect.read(videos), Cache(folder / "undisturbed", ClipSpec(8, 32), kind), runner=decode_here)
    found = contents(folder / "disturbed")
    assert found == contents(folder / "undisturbed") and len(found) == 2


CRASHING = """
import os
from tfdetect.data.prepare.clip_cache import Cache, Decoded, failure_result
class Crashing(Cache):
    def decode_file(self, path):
        if path.endswith("2.mp4"):
            os.abort()
        return Decoded(failure_result("", "planted"))
"""


def test_a_crashing_decoder_fails_only_that_file(tmp_path, monkeypatch):
    (tmp_path / "crashing_cache.py").write_text(CRASHING)  # a module, so that worker processes can import it
    monkeypatch.syspath_prepend(tmp_path)
    from crashing_cache import Crashing

    table = pd.DataFrame({"path": [f"{number}.mp4" for number in range(25)]})
    seen = []
    found = decode.prepare(table, Crashing(tmp_path, ClipSpec(1, 16)), workers=2, progress=seen.append)
    assert list(found.index[found["error"] == "the decoder crashed"]) == [2, 12, 22] and len(seen) == 25
    assert set(found["error"]) == {"planted", "the decoder crashed"}


def test_a_failed_write_stops_the_run(tmp_path, images):
    cache = Cache(tmp_path / "file", ClipSpec(1, 16))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError):
        decode.prepare(detect.read(images).head(2), cache, workers=1)
