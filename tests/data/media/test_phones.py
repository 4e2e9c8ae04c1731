"""Images with data after their end, or with several frames: motion photos, gain maps, animations."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from tfdetect.data.media.read import read_media
from tfdetect.data.media.sniff import MediaError
from tfdetect.data.prepare.clip_cache import ClipSpec
from tfdetect.data.sample import encode_mp4

IMAGE = np.random.default_rng(3).integers(0, 256, (90, 70, 3), np.uint8)


def encoded(name, image=IMAGE, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, name, **options)
    return file.getvalue()


def video() -> bytes:
    return encode_mp4(np.random.default_rng(4).integers(0, 256, (12, 64, 64, 3), np.uint8))


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


TRAILERS = {
    "a video": video,
    "many scans": lambda: 300 * b"\xff\xda\0\x08\1\1\0\0\0\0" + b"\xff\xd9",
    "a gain map": lambda: encoded("jpeg", IMAGE[:20, :20]),
    "a trailer": lambda: b"SEFHk\0\0\0MotionPhoto_Data" + bytes(90) + b"SEFT",
}


@pytest.mark.parametrize("trailer", TRAILERS)
@pytest.mark.parametrize("name", ["jpeg", "progressive", "png", "webp"])
def test_data_after_the_image_is_ignored(tmp_path, name, trailer):
    options = {"progressive": True} if name == "progressive" else {}
    data = encoded("jpeg" if name == "progressive" else name, **options)
    (tmp_path / "a.jpg").write_bytes(data + TRAILERS[trailer]())
    media = read_media(tmp_path / "a.jpg", 8)
    assert media.frames.shape == (1, 90, 70, 3) and media.note == ""
    assert np.abs(media.frames[0] - pixels(data)).max() <= 2


@pytest.mark.parametrize("share", [0.3, 0.7, 0.99])
@pytest.mark.parametrize("trailer", [lambda: b"", TRAILERS["a gain map"]])
def test_truncated_image_is_refused_whatever_follows_it(tmp_path, share, trailer):
    data = encoded("jpeg")
    (tmp_path / "a.jpg").write_bytes(data[: int(len(data) * share)] + trailer())
    with pytest.raises(MediaError, match="truncated|damaged"):
        read_media(tmp_path / "a.jpg")


def test_thumbnail_is_not_taken_for_the_image(tmp_path):
    """Its end marker precedes the pixels of the image, its size precedes the size of the image."""
    small = encoded("jpeg", IMAGE[:20, :20])
    data = encoded("jpeg")
    segment = b"\xff\xe1" + (2 + len(small)).to_bytes(2, "big") + small
    (tmp_path / "a.jpg").write_bytes(data[:2] + segment + data[2:])
    assert read_media(tmp_path / "a.jpg").frames.shape == (1, 90, 70, 3)


@pytest.mark.parametrize("name", ["webp", "png"])
@pytest.mark.parametrize("count", [1, 10])
def test_animation_is_read_as_its_first_frame_with_a_note(tmp_path, name, count):
    others = [Image.fromarray(np.roll(IMAGE, i + 1, 0)) for i in range(count - 1)]
    lossless = {"lossless": True} if name == "webp" else {}
    (tmp_path / "a").write_bytes(encoded(name, save_all=True, append_images=others, **lossless))
    media = read_media(tmp_path / "a", 8)
    np.testing.assert_array_equal(media.frames, IMAGE[None])
    note = "first frame of an animation of 10" if count > 1 else ""
    assert (media.total, media.note) == (1, note)
    exif = Image.Exif()
    for orientation in range(1, 9):
        exif[274] = orientation
        data = encoded(name, save_all=True, append_images=others, exif=exif, **lossless)
        (tmp_path / "a").write_bytes(data)
        upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
        np.testing.assert_array_equal(read_media(tmp_path / "a").frames[0], np.asarray(upright))
    (tmp_path / "a").write_bytes(data.replace(b"MM\0*", b"MMMM") if name == "webp" else data)
    assert read_media(tmp_path / "a").frames.shape[-1] == 3, "broken EXIF is ignored"
    still = ClipSpec(8, 16, still=True)
    assert still.extend_note(media.note, 1) == "; ".join(filter(None, (note, "a still image: its one frame is repeated 8 times")))
