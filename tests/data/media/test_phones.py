"""Pictures with something behind their end, or more frames than one: motion photos, gain maps, animations."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from tfdetect.data.media.read import read_media
from tfdetect.data.media.sniff import MediaError
from tfdetect.data.prepare.clip_cache import ClipSpec
from tfdetect.data.sample import encode_mp4

PICTURE = np.random.default_rng(3).integers(0, 256, (90, 70, 3), np.uint8)


def encoded(name, picture=PICTURE, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, name, **options)
    return file.getvalue()


def film() -> bytes:
    return encode_mp4(np.random.default_rng(4).integers(0, 256, (12, 64, 64, 3), np.uint8))


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


BEHIND = {
    "a video": film,
    "many scans": lambda: 300 * b"\xff\xda\0\x08\1\1\0\0\0\0" + b"\xff\xd9",
    "a gain map": lambda: encoded("jpeg", PICTURE[:20, :20]),
    "a trailer": lambda: b"SEFHk\0\0\0MotionPhoto_Data" + bytes(90) + b"SEFT",
}


@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("name", ["jpeg", "progressive", "png", "webp"])
def test_what_stands_behind_a_picture_changes_nothing(tmp_path, name, behind):
    options = {"progressive": True} if name == "progressive" else {}
    data = encoded("jpeg" if name == "progressive" else name, **options)
    (tmp_path / "a.jpg").write_bytes(data + BEHIND[behind]())
    found = read_media(tmp_path / "a.jpg", 8)
    assert found.frames.shape == (1, 90, 70, 3) and found.note == ""
    assert np.abs(found.frames[0] - pixels(data)).max() <= 2


@pytest.mark.parametrize("share", [0.3, 0.7, 0.99])
@pytest.mark.parametrize("behind", [lambda: b"", BEHIND["a gain map"]])
def test_a_picture_that_is_cut_is_missed_whatever_stands_behind_it(tmp_path, share, behind):
    data = encoded("jpeg")
    (tmp_path / "a.jpg").write_bytes(data[: int(len(data) * share)] + behind())
    with pytest.raises(MediaError, match="truncated|damaged"):
        read_media(tmp_path / "a.jpg")


def test_a_thumbnail_is_not_the_picture(tmp_path):
    """Its end marker stands before the picture's pixels, its size before the picture's."""
    small = encoded("jpeg", PICTURE[:20, :20])
    data = encoded("jpeg")
    segment = b"\xff\xe1" + (2 + len(small)).to_bytes(2, "big") + small
    (tmp_path / "a.jpg").write_bytes(data[:2] + segment + data[2:])
    assert read_media(tmp_path / "a.jpg").frames.shape == (1, 90, 70, 3)


@pytest.mark.parametrize("name", ["webp", "png"])
@pytest.mark.parametrize("count", [1, 10])
def test_an_animation_is_its_first_frame_and_says_so(tmp_path, name, count):
    others = [Image.fromarray(np.roll(PICTURE, i + 1, 0)) for i in range(count - 1)]
    lossless = {"lossless": True} if name == "webp" else {}
    (tmp_path / "a").write_bytes(encoded(name, save_all=True, append_images=others, **lossless))
    found = read_media(tmp_path / "a", 8)
    np.testing.assert_array_equal(found.frames, PICTURE[None])
    said = "first frame of an animation of 10" if count > 1 else ""
    assert (found.total, found.note) == (1, said)
    turned = Image.Exif()
    for orientation in range(1, 9):
        turned[274] = orientation
        data = encoded(name, save_all=True, append_images=others, exif=turned, **lossless)
        (tmp_path / "a").write_bytes(data)
        upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
        np.testing.assert_array_equal(read_media(tmp_path / "a").frames[0], np.asarray(upright))
    (tmp_path / "a").write_bytes(data.replace(b"MM\0*", b"MMMM") if name == "webp" else data)
    assert read_media(tmp_path / "a").frames.shape[-1] == 3, "a broken EXIF turns nothing"
    still = ClipSpec(8, 16, still=True)
    assert still.note(found.note, 1) == "; ".join(filter(None, (said, "a still image: its one frame stands 8 times")))
