"""`equalise` removes planted shortcuts, crops without resizing, and accounts for every file."""

import json
import os

import cv2
import numpy as np
import pandas as pd
import pytest
from in_process import map_here
from PIL import Image
from stamped import write_frames

from tfdetect import cli
from tfdetect.data import equalise, sample
from tfdetect.data.audit import properties, shortcuts
from tfdetect.data.media.read import read_image, read_video
from tfdetect.data.media.sniff import MediaError
from tfdetect.limits import Limits

CONTAINER = ("extension", "container", "codec", "width", "height", "aspect", "jpeg_quality", "subsampling", "exif", "fps",
             "frames", "duration")  # fmt: skip
COLUMNS = ["path", "label", "split", "group", "source"]


@pytest.fixture(autouse=True)
def in_process(request, monkeypatch):
    """Without worker processes, except in the test of the command line."""
    if "command_line" not in request.node.name:
        for module in (equalise, properties):
            monkeypatch.setattr(module, "map_unordered", map_here)


def scene(rng, width, height):
    small = rng.integers(0, 256, (12, 12, 3), np.uint8)
    large = cv2.resize(small, (256, 256), interpolation=cv2.INTER_CUBIC) + rng.integers(-12, 13, (256, 256, 3))
    top, left = rng.integers(32, 96, 2)
    return np.clip(large, 0, 255).astype(np.uint8)[top : top + height, left : left + width]


def planted(folder, rng, count=30, fakes="png"):
    """Write JPEG reals of 96 x 80 pixels with many qualities and EXIF, and fakes of 128 x 128 pixels of similar scenes."""
    exif = Image.Exif()
    exif[271] = "Canon"
    rows = []
    for label, (kind, size, suffix) in enumerate((("real", (96, 80), "jpg"), ("fake", (128, 128), fakes))):
        (folder / kind).mkdir(parents=True)
        for i in range(count):
            path = folder / kind / f"{kind}{i}.{suffix}"
            options = {"quality": 95, "subsampling": 0} if label else {"quality": 70 + i % 20, "exif": exif}
            Image.fromarray(scene(rng, *size)).save(path, **options)
            rows.append((str(path), label, "", f"{kind}{i}", kind))
    return pd.DataFrame(rows, columns=COLUMNS)


def auc(table, values):
    folds = shortcuts.grouped_folds(table["label"], table["group"])
    return shortcuts.held_out_auc(np.asarray(values, float), table["label"].to_numpy(), folds)


def double_compression_features(path):
    """Return histograms of the quantised low DCT coefficients, in which an earlier table leaves gaps and peaks."""
    with Image.open(path) as image:
        steps = np.array(image.quantization[0]).reshape(8, 8)
    grey = cv2.cvtColor(read_image(path).frames[0], cv2.COLOR_RGB2GRAY).astype(np.float32) - 128
    rows, columns = (side // 8 for side in grey.shape)
    blocks = grey[: 8 * rows, : 8 * columns].reshape(rows, 8, columns, 8).swapaxes(1, 2).reshape(-1, 8, 8)
    values = np.abs(np.rint([cv2.dct(block) / steps for block in blocks]))
    low = ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (1, 2), (2, 1))
    return np.concatenate([(values[:, at, to, None] == range(12)).mean(axis=0) for at, to in low])


@pytest.mark.parametrize("fakes", ["png", "jpg"])
def test_planted_shortcuts_are_removed(tmp_path, rng, fakes):
    table = planted(tmp_path / "set", rng, 40, fakes)
    alike = equalise.equalise(table, tmp_path / "alike", workers=1)
    assert (alike["error"] == "").all() and alike["path"].is_unique and list(alike["original"]) == list(table["path"])
    assert alike["equalised"].str.fullmatch(r"crop 80, (jpeg \d\d, )?jpeg 71").all() and alike["equalised"].nunique() > 15
    before, after = (properties.collect(rows, workers=1) for rows in (table, alike))
    separating = {name for name in CONTAINER if before[name].nunique(dropna=False) > 1}
    assert {"width", "height", "aspect", "jpeg_quality", "subsampling", "exif"} <= separating
    assert [name for name in CONTAINER if after[name].nunique(dropna=False) > 1] == []
    assert after["jpeg_quality"][0] == 71 and after["subsampling"][0] == "4:2:0" and (after["width"] == 80).all()
    assert auc(table, before[["bytes"]]) > 0.95
    threshold = 0.5 + 2.8 * shortcuts.chance_error(table["label"], table["group"])
    assert auc(alike, after[["bytes"]]) < threshold
    assert auc(alike, [double_compression_features(path) for path in alike["path"]]) < threshold


@pytest.mark.parametrize(("real", "fake"), [((70, 95), (60, 80)), ((50, 100), (101, 102)), ((90, 91), (60, 100))])
def test_both_classes_have_the_same_lowest_qualities(rng, real, fake):
    quality = np.concatenate([rng.integers(*real, 200), rng.integers(*fake, 200)]).astype(float)
    found = pd.DataFrame({"jpeg_quality": np.where(quality > 100, np.nan, quality), "error": "", "frames": np.nan})
    found["sha"] = [str(number) for number in rng.permutation(400)]
    label = pd.Series([0] * 200 + [1] * 200)
    first = equalise.match_qualities(found, label).to_numpy()
    assert ((first == 0) | (first < quality)).all(), "never at a higher quality than the original"
    lowest = np.where(first > 0, first, quality)
    assert sorted(lowest[:200]) == sorted(lowest[200:]) == sorted(np.minimum(np.sort(quality[:200]), np.sort(quality[200:])))
    assert (equalise.match_qualities(found, label * 0) == 0).all(), "a single class is not changed"


def test_the_first_compression_changes_the_pixels(tmp_path, rng):
    Image.fromarray(scene(rng, 96, 96)).save(tmp_path / "a.png")
    work = equalise.Equaliser(equalise.Plan(80, 90, 0, 0))
    crops = []
    for quality in (0, 20):
        job = equalise.Job(str(tmp_path / "a.png"), str(tmp_path / f"{quality}.jpg"), quality, np.nan, 0)
        assert work(job) == ""
        crops.append(read_image(job.output).frames[0].astype(int))
    original = read_image(tmp_path / "a.png").frames[0][:80, :80]
    near, far = (np.abs(crop - original).mean() for crop in crops)
    assert near < 7 < far < 14


def test_a_copy_is_a_central_crop_on_the_grid(tmp_path, rng):
    table = planted(tmp_path / "set", rng, 3)
    alike = equalise.equalise(table, tmp_path / "alike", workers=1)
    original = read_image(table["path"][5]).frames[0].astype(int)
    crop = read_image(alike["path"][5]).frames[0].astype(int)
    assert crop.shape == (80, 80, 3)
    differences = {at: np.abs(crop - original[at : at + 80, at : at + 80]).mean() for at in range(48)}
    assert min(differences, key=differences.__getitem__) == 16 and differences[16] < 8, "neither resized nor shifted"


def test_every_file_is_accounted_for_and_work_resumes(tmp_path, rng, monkeypatch):
    table = planted(tmp_path / "set", rng, 12)
    cv2.imwrite(table["path"][3], np.zeros((40, 40, 3), np.uint8))
    open(table["path"][4], "wb").close()
    os.remove(table["path"][20])
    os.remove(table["path"][21])
    os.mkfifo(table["path"][21])
    seen = []
    first = equalise.equalise(table, tmp_path / "alike", 2, seen.append)
    assert len(seen) == 48 and sum(bool(result["error"]) for result in seen) == 4
    failed = first[first["error"] != ""]
    assert list(failed.index) == [3, 4, 20, 21] and list(failed["path"]) == list(failed["original"])
    assert "40 x 40 pixels, smaller than the common crop of 80" in failed["error"][3] and failed["error"][4] == "empty file"
    assert failed["error"][20] == "No such file or directory" and "not a file" in failed["error"][21]
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "alike").rglob("*.jpg")}
    requested, map_unordered = [], equalise.map_unordered

    def recorded(items, *rest):
        requested.append(list(items))
        return map_unordered(requested[-1], *rest)

    for module in (properties, equalise):
        monkeypatch.setattr(module, "map_unordered", recorded)
    pd.testing.assert_frame_equal(equalise.equalise(table, tmp_path / "alike", workers=1), first)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "alike").rglob("*.jpg")} and len(before) == 20
    assert requested[0] == list(table["path"][[4, 20, 21]]) and [job.path for job in requested[1]] == [table["path"][3]]
    Image.fromarray(scene(rng, 128, 128)).save(table["path"][15])
    (tmp_path / "alike" / equalise.INDEX_NAME).write_text("{")
    again = equalise.equalise(table, tmp_path / "alike", workers=1)
    assert again["path"][15] != first["path"][15] and again["error"][15] == "", "changed files are written again"


def test_a_missing_file_is_a_failure_and_a_failed_write_is_an_error(tmp_path, rng):
    Image.fromarray(scene(rng, 96, 96)).save(tmp_path / "a.png")
    work = equalise.Equaliser(equalise.Plan(80, 90, 0, 0))
    assert work(equalise.Job(str(tmp_path / "gone.png"), str(tmp_path / "x.jpg"), 0, np.nan, 0)) == "No such file or directory"
    with pytest.raises(OSError, match=r"a\.png"):
        work(equalise.Job(str(tmp_path / "a.png"), str(tmp_path / "a.png" / "x.jpg"), 0, np.nan, 0))


def test_smaller_files_than_a_given_size_fail(tmp_path, rng):
    table = planted(tmp_path / "set", rng, 3)
    alike = equalise.equalise(table, tmp_path / "alike", 1, size=90)
    assert list(alike["error"] != "") == [True] * 3 + [False] * 3
    assert read_image(alike["path"][5]).frames.shape == (1, 90, 90, 3)
    with pytest.raises(ValueError, match="The crop size is 8, but must be at least 16 pixels"):
        equalise.equalise(table, tmp_path / "alike", 1, size=8)


@pytest.mark.parametrize(("sides", "crop"), [([100] * 19 + [20], 96), ([100] * 10 + [50] * 10, 48), ([9] * 20, 16)])
def test_a_few_small_files_do_not_reduce_the_crop(sides, crop):
    found = pd.DataFrame({"error": "", "width": sides * 2, "height": 128.0, "fps": np.nan, "frames": np.nan})
    found["jpeg_quality"] = [30.0] + [75.0] * 38 + [np.nan]
    assert equalise.choose_plan(found, pd.Series([0] * 20 + [1] * 20)) == equalise.Plan(crop, 75, 0, 0)


def videos(folder, kinds, count=4):
    """Write videos that brighten by 5 grey levels per frame; `kinds` are (name, rate, frames, width, codec) of both classes."""
    rows = []
    for label, (name, rate, frames, width, codec) in enumerate(kinds):
        for i in range(count):
            path = folder / f"{i}{name}"
            write_frames(path, [np.full((64, width, 3), 8 + 5 * at, np.uint8) for at in range(frames)], codec, rate, gop_size=5)
            rows.append((str(path), label, "", f"{label}{i}", ""))
    return pd.DataFrame(rows, columns=COLUMNS)


def frame_numbers(path):
    """Return which frames of `videos` a video shows."""
    total = read_video(path).total
    return [round((frame.mean() - 8) / 5) for frame in read_video(path, total).frames]


def test_videos_get_one_codec_size_rate_and_length(tmp_path):
    table = videos(tmp_path, ((".avi", 25, 25, 64, "mpeg4"), (".mp4", 30, 36, 96, "libx264")))
    alike = equalise.equalise(table, tmp_path / "alike", workers=1)
    assert set(alike["error"]) == {""}, alike["error"].tolist()
    assert set(alike["equalised"]) == {f"crop 64, 25 frames at 25 a second, h264 qp {sample.QP}"}
    found = properties.collect(alike, workers=1)
    assert [name for name in CONTAINER if found[name].nunique(dropna=False) > 1] == []
    assert found["fps"][0] == 25 and found["frames"][0] == 25 and found["width"][0] == 64
    assert frame_numbers(alike["path"][7]) == list(range(5, 30)), "from the middle, without gaps"


def test_frames_of_a_faster_video_are_kept_at_a_constant_step(tmp_path):
    table = videos(tmp_path, ((".mp4", 24, 48, 64, "libx264"), ("f.mp4", 8, 14, 64, "libx264")))
    alike = equalise.equalise(table, tmp_path / "alike", workers=1)
    assert alike["equalised"][0] == f"crop 64, 14 frames, one in 3, at 8 a second, h264 qp {sample.QP}"
    assert set(np.diff(frame_numbers(alike["path"][0]))) == {3} and frame_numbers(alike["path"][7]) == list(range(14))


def test_no_frame_is_missed_at_a_variable_frame_rate(tmp_path, rng):
    frames = [np.full((64, 64, 3), 8 + 5 * at, np.uint8) for at in range(40)]
    write_frames(tmp_path / "a.mp4", frames, gop_size=5, times=[int(40 * at + rng.integers(0, 16)) for at in range(40)])
    job = equalise.Job(str(tmp_path / "a.mp4"), str(tmp_path / "new.mp4"), 0, 25.0, 1)
    assert equalise.Equaliser(equalise.Plan(64, 0, 25, 30))(job) == ""
    assert set(np.diff(frame_numbers(job.output))) == {1} and len(frame_numbers(job.output)) == 30


@pytest.mark.parametrize(("plan", "reason"), [
    (equalise.Plan(64, 0, 25, 41), "40 usable frames, fewer than the common 41"),
    (equalise.Plan(64, 0, 50, 20), "25 frames a second, fewer than the common 50"),
    (equalise.Plan(80, 0, 25, 20), "64 x 64 pixels, smaller than the common crop of 80"),
])  # fmt: skip
def test_a_video_that_is_too_short_slow_or_small_fails(tmp_path, plan, reason):
    write_frames(tmp_path / "a.mp4", [np.full((64, 64, 3), 8 + 5 * at, np.uint8) for at in range(40)], gop_size=5)
    job = equalise.Job(str(tmp_path / "a.mp4"), str(tmp_path / "b.mp4"), 0, 25.0, 1)
    assert equalise.Equaliser(plan, Limits())(job) == reason
    assert not (tmp_path / "b.mp4").exists()


@pytest.mark.parametrize("before", [0, 3])
def test_frames_that_came_before_damage_was_found_are_not_written(tmp_path, monkeypatch, before):
    def read(*arguments, on_restart, **_):
        for at in range(before):
            arguments[5](at, np.full((64, 64, 3), 250, np.uint8))
        if before:
            on_restart()
        for at in range(12):
            arguments[5](at, np.full((64, 64, 3), 8 + 5 * at, np.uint8))

    job = equalise.Job("a.mp4", str(tmp_path / "new.mp4"), 0, 25.0, 1)
    monkeypatch.setattr(equalise, "read_video", read)
    assert equalise.Equaliser(equalise.Plan(64, 0, 25, 12))(job) == ""
    assert frame_numbers(job.output) == list(range(12))


def test_a_video_fails_if_the_other_class_has_only_images(tmp_path, rng):
    table = planted(tmp_path / "set", rng, 3)
    clips = videos(tmp_path, ((".mp4", 25, 10, 96, "libx264"),), 1)
    alike = equalise.equalise(pd.concat([table, clips], ignore_index=True), tmp_path / "alike", workers=1)
    assert list(alike["error"] != "") == [False] * 6 + [True]
    assert alike["error"][6].startswith("a video, but no fake file is one")
    with pytest.raises(ValueError, match="None of the 4 files can be used"):
        equalise.equalise(pd.concat([table[3:], clips], ignore_index=True), tmp_path / "alike", workers=1)


def test_prepare_equalise_from_the_command_line(tmp_path, rng, capsys):
    table = planted(tmp_path / "set", rng, 12)
    open(table["path"][4], "wb").close()
    out = tmp_path / "x"
    assert (
        cli.main(["prepare", str(tmp_path / "set"), "--out", str(out), "--data.size", "32", "--data.workers", "1", "--equalise"])
        == 0
    )
    assert "files: 23 cached, 1 failed" in capsys.readouterr().out
    manifest = pd.read_csv(out / "manifest.csv", keep_default_na=False)
    good = manifest[manifest["error"] == ""]
    assert good["equalised"].str.startswith("crop 80, jpeg ").all() and set(manifest["original"]) == set(table["path"])
    assert (good["width"] == 80).all() and (good["height"] == 80).all()
    assert cli.main(["audit", str(out), "--out", str(tmp_path / "a"), "--data.workers", "1"]) == 0


def test_an_original_is_scored_as_its_equalised_copy(tmp_path, rng):
    from tfdetect.data.prepare.clip_cache import ClipSpec

    table = planted(tmp_path / "in", rng, 12)
    copies = equalise.equalise(table, tmp_path / "out")
    good = copies[copies["error"] == ""]
    plan = equalise.Plan(**json.loads((tmp_path / "out" / equalise.PLAN_NAME).read_text()))
    raw, equalised = ClipSpec(1, 32), ClipSpec(1, 32, plan=plan)
    raw_differences, equalised_differences = [], []
    for row in good.itertuples():
        copy = raw.read(row.path).frames.astype(int)
        assert np.array_equal(equalised.read(row.path).frames, copy), "copies are not equalised again"
        raw_differences.append(np.abs(raw.read(row.original).frames - copy).mean())
        equalised_differences.append(np.abs(equalised.read(row.original).frames - copy).mean())
    assert np.mean(equalised_differences) < 0.2 * np.mean(raw_differences) and raw.key != equalised.key
    Image.fromarray(scene(rng, 20, 20)).save(tmp_path / "small.png")
    with pytest.raises(MediaError, match="smaller than"):
        equalised.read(tmp_path / "small.png")
