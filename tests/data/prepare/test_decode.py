"""Every row of a manifest is cached or fails with a reason, and no file is read twice."""

import os
import shutil

import pandas as pd
import pytest
from in_process import decode_here
from PIL import Image

from tfdetect.data.layouts import detect
from tfdetect.data.prepare import decode, shards
from tfdetect.data.prepare.clip_cache import Cache, ClipSpec
from tfdetect.limits import Limits


class LoggingCache(Cache):
    """Log decoded files, also those of worker processes."""

    def decode_file(self, path):
        with open(self.root / "calls", "a") as log:
            log.write(f"{path}\n")
        return super().decode_file(path)

    @property
    def calls(self):
        """Return the files decoded since the last call."""
        log = self.root / "calls"
        found = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return found


@pytest.fixture
def copies(tmp_path, images):
    shutil.copytree(images, tmp_path / "set")
    (tmp_path / "set" / "fake" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "set" / "manifest.csv").unlink()
    (tmp_path / "cache").mkdir()
    return detect.read(tmp_path / "set")


def test_unchanged_files_are_not_read_again(tmp_path, copies):
    cache = LoggingCache(tmp_path / "cache", ClipSpec(1, 16))
    first = decode.prepare(copies, cache, runner=decode_here)
    assert sorted(cache.calls) == sorted(copies["path"])
    seen = []
    pd.testing.assert_frame_equal(decode.prepare(copies, cache, progress=seen.append, runner=decode_here), first)
    assert cache.calls == [] and len(seen) == len(copies)

    path = copies["path"][0]
    shutil.copy(copies["path"][1], path)  # other bytes
    again = decode.prepare(copies, cache, runner=decode_here)
    assert cache.calls == [path] and again["sha"][0] == again["sha"][1]

    os.unlink(shards.shard_path(cache.folder, "npy", 0))
    found = decode.prepare(copies, cache, runner=decode_here)
    assert cache.calls == list(found["path"][found["error"] == ""]), "a failure needs no clip"


def test_files_that_the_cache_has_seen_are_not_hashed_again(tmp_path, copies, monkeypatch):
    cache = Cache(tmp_path / "cache", ClipSpec(1, 16))
    found = decode.prepare(copies, cache, runner=decode_here)
    shutil.copy(copies["path"][1], copies["path"][0])
    hashed = []
    monkeypatch.setattr(decode, "digest", lambda path: hashed.append(path) or "new")
    with decode.known_digests(cache) as digest:
        assert [digest(path) for path in copies["path"]] == ["new", *found["sha"][1:]] and hashed == [copies["path"][0]]


def test_a_deleted_file_keeps_its_clip(tmp_path, copies):
    cache = Cache(tmp_path / "cache", ClipSpec(1, 16))
    first = decode.prepare(copies, cache, runner=decode_here)
    shutil.rmtree(tmp_path / "set")
    pd.testing.assert_frame_equal(decode.prepare(copies, cache, runner=decode_here), first)
    other = decode.prepare(copies, Cache(tmp_path / "cache", ClipSpec(1, 8)), runner=decode_here)
    assert set(other["error"]) == {"No such file or directory"}


def test_shards_do_not_depend_on_the_order_in_which_workers_finish(tmp_path, copies):
    one, two = Cache(tmp_path / "one", ClipSpec(1, 16)), Cache(tmp_path / "two", ClipSpec(1, 16))
    pd.testing.assert_frame_equal(decode.prepare(copies, one, workers=2), decode.prepare(copies, two, runner=decode_here))
    assert shards.shard_path(one.folder, "npy", 0).read_bytes() == shards.shard_path(two.folder, "npy", 0).read_bytes()


SLOW = """
import time
from tfdetect.data.prepare.clip_cache import Cache, Decoded, failure_result
class Slow(Cache):
    def decode_file(self, path):
        if path.endswith("7.mp4"):
            time.sleep(1.5)
        return Decoded(failure_result("", "planted"))
"""


def test_a_file_whose_decoder_hangs_fails_and_is_tried_again_with_another_timeout(tmp_path, monkeypatch):
    (tmp_path / "slow.py").write_text(SLOW)
    monkeypatch.syspath_prepend(tmp_path)
    from slow import Slow

    for number in range(10):
        (tmp_path / f"{number}.mp4").touch()
    table = pd.DataFrame({"path": [str(tmp_path / f"{number}.mp4") for number in range(10)]})
    cache = Slow(tmp_path / "cache", ClipSpec(1, 16))
    found = decode.prepare(table, cache, workers=2, seconds=0.5)
    reason = "decoding took longer than 0.5 s plus the allowance for its length (--data.timeout)"
    assert list(found.index[found["error"] != "planted"]) == [7] and found["error"][7] == reason
    assert decode.prepare(table.iloc[7:8], cache, seconds=0.5)["error"].iloc[0] == reason
    assert decode.prepare(table.iloc[7:8], cache, seconds=5.0)["error"].iloc[0] == "planted"


@pytest.mark.parametrize("kind", ["npy", "tfrecord"])
def test_a_failed_file_is_tried_again_under_other_limits(tmp_path, kind):
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    table = pd.DataFrame({"path": [str(tmp_path / "a.png")]})
    for pixels, reason in ((1199, "1200 pixels (40 x 30) announced"), (1200, ""), (1199, "")):
        cache = Cache(tmp_path / "cache", ClipSpec(1, 16, limits=Limits(pixels=pixels)), kind)
        found = decode.prepare(table, cache, runner=decode_here)["error"][0]
        assert found.startswith(reason) and bool(found) == bool(reason)


def test_similar_failures_are_summarised():
    errors = ["", "truncated: 3 of 9", "truncated: 4 of 9", "empty file", "no video (it says b'ab')", "no video (it says b'x')"]
    found = decode.summarise_failures(pd.DataFrame({"path": list("abcdef"), "error": errors}))
    assert [(count, first) for _, count, first in found] == [(2, "b"), (2, "e"), (1, "d")]
    assert [reason for reason, *_ in found][::2] == ["truncated: … of …", "empty file"]
    assert decode.summarise_failures(pd.DataFrame({"path": ["a"], "error": ["3 of 9"]})) == [("3 of 9", 1, "a")]


@pytest.mark.parametrize("what, frames", [("images", 1), ("videos", 4)])
def test_size_on_disk_is_known_before_and_after(tmp_path, request, monkeypatch, what, frames):
    cache, table = Cache(tmp_path, ClipSpec(4, 48)), detect.read(request.getfixturevalue(what))
    whole = decode.estimate_size(table, cache)
    assert whole == len(table) * frames * 48**2 * 3
    monkeypatch.setattr(decode, "SAMPLED", 8)
    assert decode.estimate_size(table, cache) == pytest.approx(whole, rel=0.05), "a sample of the files tells it"
    monkeypatch.undo()
    half = decode.prepare(table.head(len(table) // 2), cache, runner=decode_here)
    assert decode.estimate_size(table, cache) == pytest.approx(whole - decode.size_on_disk(half, cache), rel=0.05)
    done = decode.prepare(table, cache, runner=decode_here)
    assert decode.size_on_disk(done, cache) == os.path.getsize(shards.shard_path(cache.folder, "npy", 0)) - shards.HEADER == whole
    assert decode.estimate_size(table, cache) == 0


def test_images_in_records_take_what_their_files_take(tmp_path, images):
    table = detect.read(images)
    sizes = [os.path.getsize(path) for path in table["path"]]
    assert decode.estimate_size(table, Cache(tmp_path, ClipSpec(4, 1000), "tfrecord")) == sum(sizes)


def test_files_that_cannot_be_read_take_no_space(copies, tmp_path):
    cache = Cache(tmp_path / "cache", ClipSpec(1, 16))
    only_broken = copies[copies["path"].str.endswith("broken.jpg")].assign(path=[str(tmp_path / "none.jpg")])
    assert decode.estimate_size(only_broken, cache) == 0 and decode.estimate_size(copies.head(0), cache) == 0
    assert decode.size_on_disk(decode.prepare(only_broken, cache, runner=decode_here), cache) == 0
