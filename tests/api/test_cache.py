"""A cache is measured part by part; only what is old, or what no run needs, is selected, and never anything else."""

import contextlib
import os
import time

import numpy as np
import pandas as pd
import pytest
import yaml

from tfdetect import artifact as artifacts
from tfdetect import cli
from tfdetect.api import cache as api
from tfdetect.artifact import Artifact
from tfdetect.data import manifest
from tfdetect.data.media.faces import FaceSettings
from tfdetect.data.media.read import READER_VERSION
from tfdetect.data.prepare import shards
from tfdetect.data.prepare.clip_cache import Cache, ClipReader, ClipSpec
from tfdetect.errors import UserError

DAY = 24 * 3600
ABOUT = {"frames": 1, "width": 32, "height": 32, "note": ""}
CLIPS, FEATURES = f"v{READER_VERSION}-npy-8x32", f"features/v1-v{READER_VERSION}-npy-8x32-0123456789abcdef-float32"
OLD, NEW = f"v{READER_VERSION - 1}-npy-8x32", f"v{READER_VERSION + 1}-npy-8x32"
SAMPLE = "sample-image-20x16x32"


def sha(number):
    return f"{number:064x}"


def put(path, days, size=100):
    """Write a file that was last used so many days ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    os.utime(path, (time.time() - days * DAY,) * 2)


def put_clips(root, numbers, days, settings=CLIPS):
    """Write a shard with a clip of each of these files."""
    with pytest.MonkeyPatch.context() as patch, shards.ClipWriter(root / settings, "npy", 32) as writer:
        patch.setattr(shards, "SHARD_BYTES", shards.HEADER + 1)
        for number in numbers:
            writer.add_clip(sha(number), np.full((1, 32, 32, 3), number, np.uint8), ABOUT)
            patch.setattr(shards, "SHARD_BYTES", 2**30)
    path = shards.shard_path(root / settings, "npy", writer.number)
    os.utime(path, (time.time() - days * DAY,) * 2)
    return path


def put_features(root, part, numbers, days):
    """Write a part of a feature store with a row for each of these files."""
    path = root / FEATURES / f"00000{part}-0123abcd.npy"
    put(path, days, 5000)
    path.with_suffix(".txt").write_text("\n".join(f"{sha(number)}:0" for number in numbers))
    os.utime(path.with_suffix(".txt"), (time.time() - days * DAY,) * 2)


def make_run(folder, numbers, path="/data/set", files="/data/set", **data):
    """Write a run that was trained on the files with these hashes; without hashes it has no manifest yet."""
    artifact = Artifact(folder)
    artifact.folder.mkdir(parents=True)
    settings = {"frames": 8, "size": 32, "fps": None, "cache": "npy", "path": path, **data}
    artifact.config.write_text(yaml.safe_dump({"version": 2, "detector": {"name": "cnn"}, "data": settings}))
    if numbers:
        rows = {"path": [f"{files}/{number}.jpg" for number in numbers], "label": 0, "sha": list(map(sha, numbers))}
        manifest.write(pd.DataFrame(rows), artifact.manifest)
    return artifact


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Current folder with a cache of every kind of thing: clips 0 to 3 in shards of their own, 40 days old to new, and a run that
    needs 0 and 3."""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "cache"
    for number, days in enumerate((40, 20, 2, 0)):
        put_clips(root, [number], days)
    put(root / CLIPS / ".part-x-a.npy", 3)
    put(root / OLD / "00" / f"{sha(0)}.npy", 5)
    put(root / NEW / "00000.npy", 50)
    put_features(root, 0, [0, 1], 40)
    put_features(root, 1, [1, 2], 40)
    for name in ("real/0.jpg", "fake/0.jpg", "manifest.csv"):
        put(root / SAMPLE / name, 10)
    put(root / "face_detection.onnx", 100)
    put(root / "notes.txt", 100)
    make_run(tmp_path / "saved_models" / "cnn", [0, 3])
    return root


def selected(*folders, **options):
    """Return the names of the files that are selected, without their folders."""
    places = api.review(api.Caches(tuple(folders or [api.Path("cache")]), **options))
    return {os.path.relpath(path, "cache") for place in places for entry in place.prunable for path in entry.paths}


def clip_files(*numbers, settings=CLIPS):
    return {f"{settings}/{number:05d}.npy" for number in numbers}


OLD_FILES, NEW_FILES = {f"{OLD}/00/{sha(0)}.npy"}, {f"{NEW}/00000.npy"}


def parts(*numbers):
    return {f"{FEATURES}/00000{number}-0123abcd{suffix}" for number in numbers for suffix in (".npy", ".txt")}


PARTIAL, SAMPLES = {f"{CLIPS}/.part-x-a.npy"}, {f"{SAMPLE}/real/0.jpg", f"{SAMPLE}/fake/0.jpg", f"{SAMPLE}/manifest.csv"}


def test_every_part_is_measured(root):
    table = api.cache().set_index("name")
    assert dict(table["kind"]) == {
        CLIPS: "clips", OLD: "clips of an older tfdetect", NEW: "clips of a newer tfdetect", FEATURES: "features",
        SAMPLE: "embedded sample", "face_detection.onnx": "face model", "notes.txt": "other",
    }  # fmt: skip
    assert table.loc[CLIPS, "files"] == 6 and table.loc[OLD, "size"] == 4096, "four shards, their index; whole blocks"
    assert list(table["size"]) == sorted(table["size"], reverse=True) and not table["prunable_files"].any()
    assert (pd.Timestamp.now() - table.loc[SAMPLE, "used"]).days == 10


def test_names_of_the_folders_are_those_of_the_cache(tmp_path):
    faces = FaceSettings(tmp_path / "yunet.onnx", "0123456789abcdef")
    for spec in (ClipSpec(8, 256), ClipSpec(8, 256, fps=2.5), ClipSpec(8, 256, faces=faces)):
        match = api.CLIPS.fullmatch(Cache(tmp_path, spec, "tfrecord").folder.name)
        assert match and match["key"] == f"tfrecord-{spec.key}" and match["key"].startswith("tfrecord-8x256")


def test_age_is_the_last_use_by_writing_or_reading(root):
    assert selected(older_than="15d") == clip_files(0, 1) | NEW_FILES | parts(0, 1)
    read = root / CLIPS / "00001.npy"
    os.utime(read, (time.time(), read.stat().st_mtime))
    assert selected(older_than="2w") == clip_files(0) | NEW_FILES | parts(0, 1)
    assert selected(older_than="1w") >= SAMPLES and not selected(older_than="1w") & PARTIAL
    assert selected(older_than="60h") >= PARTIAL


def test_what_no_run_needs(root):
    expected = clip_files(1, 2) | OLD_FILES | parts(1) | PARTIAL | SAMPLES
    assert selected(unused=True) == expected
    assert selected(unused=True) == expected, "looking is no use"
    assert selected(unused=True, older_than="15d") == clip_files(1) | parts(1)


def test_a_run_with_other_settings_needs_no_clips_of_these(root):
    make_run(root.parent / "saved_models" / "small", [1], size=16)
    make_run(root.parent / "saved_models" / "record", [1], cache="tfrecord")
    assert selected(unused=True) >= clip_files(1)
    make_run(root.parent / "saved_models" / "faces", [1], faces="yunet")
    assert not selected(unused=True) & clip_files(1)


def test_recent_clips_are_kept_unless_an_age_is_given(root):
    make_run(root.parent / "saved_models" / "cnn-2", [1])
    (root.parent / "saved_models" / "cnn" / "config.yaml").unlink()
    assert not selected(unused=True) & clip_files(3) and selected(unused=True, older_than="0h") >= clip_files(0, 2, 3)


def test_a_run_without_a_manifest_needs_all_clips_with_its_settings(root):
    make_run(root.parent / "saved_models" / "begun", [], path=None)
    assert selected(unused=True) == OLD_FILES | PARTIAL, "and the sample that it will read"


def test_a_run_trained_on_files_in_the_cache_needs_them(root):
    make_run(root.parent / "saved_models" / "sampled", [9], path=None, files=str(root / SAMPLE / "real"))
    assert not selected(unused=True) & SAMPLES


def test_a_training_that_is_going_on_keeps_its_clips_whatever_their_age(root):
    with artifacts.lock(Artifact(root.parent / "saved_models" / "cnn")):
        assert selected(older_than="15d") == clip_files(1) | NEW_FILES | parts(1)
        Artifact(root.parent / "saved_models" / "cnn").report.write_text("")
        assert selected(older_than="15d") == NEW_FILES, "it may be replaced by a run with other settings"


def test_files_that_are_being_written_are_kept(root):
    put(root / CLIPS / ".part-y-b.npy", 0.5)
    assert selected(older_than="1h") >= PARTIAL and not any("part-y" in name for name in selected(older_than="1h"))


def test_doubt_selects_nothing(root):
    config = root.parent / "saved_models" / "cnn" / "config.yaml"
    for text in ("detector: [", "detector: {name: cnn}", "detector: {name: cnn}\ndata: {frames: 8, size: x, fps: a, cache: npy}"):
        config.write_text(text)
        with pytest.raises(UserError, match="not known what the run saved_models/cnn needs"):
            selected(unused=True)
    config.unlink()
    with pytest.raises(UserError, match="There is no run in saved_models"):
        selected(unused=True)


def test_nothing_in_a_prepared_folder_is_selected(root):
    prepared = root.parent / "prepared"
    put_clips(prepared, [1], 40)
    put(prepared / "equalised" / "a.jpg", 40)
    (prepared / "prepared.json").write_text('{"data": {}}')
    assert not selected(prepared, unused=True) and not selected(prepared, older_than="0h")
    (root / "inner").mkdir()
    (root / "inner" / "prepared.json").write_text('{"data": {}}')
    table = api.cache(root, prepared, older_than="0h").set_index("name")
    assert table.loc["inner", ["kind", "prunable_files"]].to_list() == ["prepared folder", 0]
    assert table.loc["equalised", "kind"] == "equalised files"


def call(capsys, *argv):
    """Run `tfdetect cache ARGV` and return its exit code, stdout and stderr."""
    try:
        code = cli.main(["cache", *map(str, argv)])
    except SystemExit as stop:
        code = stop.code
    return code, *capsys.readouterr()


def contents(root):
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_pruning_deletes_what_is_selected_and_nothing_else(root, capsys):
    before, gone = contents(root), selected(unused=True)
    code, out, _ = call(capsys, "--unused")
    assert code == 0 and "add --prune" in out and contents(root) == before
    code, out, err = call(capsys, "--unused", "--prune")
    assert code == 2 and "add --yes" in err and contents(root) == before
    code, out, _ = call(capsys, "--unused", "--prune", "--yes")
    assert code == 0 and f"Deleted {len(gone)} files" in out
    assert before - contents(root) == gone
    assert not (root / OLD).exists() and not (root / SAMPLE).exists(), "empty folders go too"
    assert call(capsys, "--unused", "--prune")[0] == 0, "nothing is left to ask about"


def test_an_index_without_clips_goes_with_the_last_clip(root, capsys):
    assert call(capsys, "--older_than", "0h", "--prune", "--yes")[0] == 0
    assert contents(root) == {"face_detection.onnx", "notes.txt"} and not (root / CLIPS).exists()


@pytest.mark.parametrize("training", [False, True])
def test_a_shard_is_rewritten_without_the_clips_that_no_run_needs(root, capsys, training):
    path = put_clips(root, [4, 5, 6, 7, 8], 20)
    make_run(root.parent / "saved_models" / "other", [5, 8])
    with artifacts.lock(Artifact(root.parent / "saved_models" / "other")) if training else contextlib.nullcontext():
        if training:
            assert not selected(unused=True) & clip_files(4), "its reader knows where its clips are"
            return
        table = api.cache(unused=True).set_index("name")
        assert table.loc[CLIPS, "prunable_size"] == 3 * 4096 + 3 * 32 * 32 * 3, "clips 1 and 2, .part-, and three of shard 4"
        assert call(capsys, "--unused", "--prune", "--yes")[0] == 0
    reader = ClipReader(Cache(root, ClipSpec(8, 32)), [sha(number) for number in (0, 3, 5, 8)])
    assert not path.exists() and [reader.load(sha(number)).max() for number in (0, 3, 5, 8)] == [0, 3, 5, 8]
    with pytest.raises(KeyError):
        ClipReader(Cache(root, ClipSpec(8, 32)), [sha(6)])


def test_what_was_used_since_the_listing_is_kept(root):
    places = api.review(api.Caches(older_than="15d"))
    used = root / CLIPS / "00001.npy"
    os.utime(used)
    count, size = api.prune(places, lambda advance: None)
    assert used.exists() and (count, size) == (6, 8 * 4096)  # features take two blocks


def test_what_another_process_deletes_meanwhile_does_not_matter(root, monkeypatch):
    """A part is listed, and then gone: a single file, the names of features, a run."""
    listed = list(api.list_places(api.Path("cache")))
    entries = [entry for place in listed for entry in api.read_entries(place)]
    for path in [*root.rglob("*.txt"), root / "face_detection.onnx"]:
        path.unlink()
    assert all(not list(api.read_entries(place)) for place in listed if place.name == "face_detection.onnx")
    assert not any(hash_ for entry in entries for hash_ in api.hashes_of_part(entry))
    assert list(artifacts.find_runs(root / "gone")) == []


def test_a_folder_given_twice_counts_once(root):
    assert api.cache("cache", "cache/")["size"].sum() == api.cache("cache")["size"].sum()


@pytest.mark.parametrize(
    "argv, message",
    [(["--prune"], "add --older_than 30d"), (["--older_than", "30"], "12h, 30d or 2w"), (["nowhere"], "no folder nowhere")],
)
def test_mistakes(root, capsys, argv, message):
    code, _, err = call(capsys, *argv)
    assert code == 2 and message in err
