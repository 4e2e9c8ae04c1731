"""Planted shortcuts are gone after `equalise`, the pictures are crops of what they were, and nothing is lost."""

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tfdetect import cli
from tfdetect.data import audit, equalise, media, properties, sample


def scene(rng, width, height):
    small = rng.integers(0, 256, (6, 8, 3), np.uint8)
    noise = rng.integers(-12, 13, (height, width, 3))
    return np.clip(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC) + noise, 0, 255).astype(np.uint8)


def planted(folder, rng, count=30):
    """JPEG reals of 96 x 80 with EXIF, and PNG fakes of 128 x 128 of the same kind of scene."""
    exif = Image.Exif()
    exif[271] = "Canon"
    rows = []
    for label, (kind, size, suffix) in enumerate((("real", (96, 80), ".jpg"), ("fake", (128, 128), ".png"))):
        (folder / kind).mkdir(parents=True)
        for i in range(count):
            path = folder / kind / f"{kind}{i}{suffix}"
            Image.fromarray(scene(rng, *size)).save(path, **({} if label else {"quality": 90, "exif": exif}))
            rows.append((str(path), label, "", f"{kind}{i}", kind))
    return pd.DataFrame(rows, columns=["path", "label", "split", "group", "source"])


def warned(table):
    found = properties.collect(table, workers=2)
    aucs = audit.shortcuts(found, table["label"], audit.crossed(table["label"], table["group"]))
    return {warning.property for warning in audit.warned(aucs, table["label"], table["group"]) if warning.kind == "container"}


def test_a_planted_shortcut_is_gone(tmp_path, rng):
    table = planted(tmp_path / "set", rng)
    assert {"width", "container", "exif", "jpeg_quality", "extension"} <= warned(table)
    alike = equalise.equalise(table, tmp_path / "alike", workers=2)
    assert (alike["error"] == "").all() and set(alike["equalised"]) == {"crop 80, jpeg 90"}
    assert list(alike["original"]) == list(table["path"]) and alike["path"].is_unique
    left = warned(alike)
    assert not left - {"bytes", "bytes_per_pixel", "all", "all_container"}, "these come from the pictures"
    with Image.open(alike["path"][0]) as image:
        assert image.size == (80, 80) and not image.getexif() and properties.jpeg_quality(image.quantization) == 90


def test_a_file_is_a_crop_from_the_middle_on_the_grid(tmp_path, rng):
    table = planted(tmp_path / "set", rng, 3)
    alike = equalise.equalise(table, tmp_path / "alike", workers=1)
    fake = media.read_image(table["path"][5]).frames[0][16:96, 16:96]
    crop = media.read_image(alike["path"][5]).frames[0]
    assert np.abs(crop.astype(int) - fake).mean() < 8, "not resized, not moved"


def test_every_file_is_accounted_for_and_work_goes_on(tmp_path, rng):
    table = planted(tmp_path / "set", rng, 12)
    cv2.imwrite(table["path"][3], np.zeros((40, 40, 3), np.uint8))
    open(table["path"][4], "wb").close()
    first = equalise.equalise(table, tmp_path / "alike", workers=2)
    assert list(first.index[first["error"] != ""]) == [3, 4] and list(first["path"][3:5]) == list(table["path"][3:5])
    assert "40 x 40 pixels, smaller than the 80 of the common crop" in first["error"][3] and first["error"][4] == "empty file"
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "alike").rglob("*.jpg")}
    pd.testing.assert_frame_equal(equalise.equalise(table, tmp_path / "alike", workers=1), first)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "alike").rglob("*.jpg")} and len(before) == 22


def write_video(path, frames, rate, codec, gop):
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width, stream.pix_fmt, stream.gop_size = *frames[0].shape[:2], "yuv420p", gop
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def test_videos_get_one_codec_size_rate_and_length(tmp_path, rng):
    rows = []
    for i in range(12):
        label = i % 2
        frames = [scene(rng, 64 + 32 * label, 64) for _ in range(30 if label else 25)]
        path = tmp_path / f"{i}.{'mp4' if label else 'avi'}"
        write_video(path, frames, 30 if label else 25, "libx264" if label else "mpeg4", 5)
        rows.append((str(path), label, "", f"g{i}", ""))
    table = pd.DataFrame(rows, columns=["path", "label", "split", "group", "source"])
    alike = equalise.equalise(table, tmp_path / "alike", workers=2)
    assert set(alike["error"]) == {""}, alike["error"].tolist()
    found = properties.collect(alike, workers=2)
    for name in ("extension", "container", "codec", "width", "height", "fps", "frames", "duration", "subsampling", "exif"):
        assert found[name].nunique(dropna=False) == 1, name
    assert found["fps"][0] == sample.FPS and found["frames"][0] == 25 and found["width"][0] == 64


@pytest.mark.parametrize(("sides", "crop"), [([100] * 19 + [20], 96), ([100] * 10 + [50] * 10, 48)])
def test_few_small_files_do_not_drag_all_down(sides, crop):
    found = pd.DataFrame({"error": "", "width": sides * 2, "height": 128.0, "fps": np.nan, "duration": np.nan})
    found["jpeg_quality"] = 75.0
    assert equalise.planned(found, pd.Series([0] * 20 + [1] * 20)) == equalise.Plan(crop, 75, 0, 0)


def test_prepare_equalise_from_the_command_line(tmp_path, rng, capsys):
    table = planted(tmp_path / "set", rng, 12)
    open(table["path"][4], "wb").close()
    out = tmp_path / "x"
    assert cli.main(["prepare", str(tmp_path / "set"), "--out", str(out), "--data.size", "32", "--equalise"]) == 0
    assert "24 rows: 23 cached, 1 failed" in capsys.readouterr().out
    made = pd.read_csv(out / "manifest.csv", keep_default_na=False)
    good = made[made["error"] == ""]
    assert set(good["equalised"]) == {"crop 80, jpeg 90"} and set(made["original"]) == set(table["path"])
    assert (good["width"] == 80).all() and (good["height"] == 80).all()
    assert cli.main(["audit", str(out), "--out", str(tmp_path / "a")]) == 0
