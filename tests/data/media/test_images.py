"""Images of each format: upright 8-bit pixels without alpha; truncated and damaged files are refused."""

import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from tfdetect.data.media.read import read_media
from tfdetect.data.media.sniff import MediaError


def make_image() -> np.ndarray:
    return cv2.resize(np.random.default_rng(0).integers(0, 256, (9, 14, 3), np.uint8), (70, 45))


@pytest.mark.parametrize("extension", ["jpg", "png", "webp", "bmp", "tiff"])
def test_each_format_is_read_under_any_name(tmp_path, extension):
    path = tmp_path / f"bild-ü-日本.{extension}"
    Image.fromarray(make_image()).save(path, **({"lossless": True} if extension == "webp" else {}))
    renamed = path.rename(path.with_suffix(".mp4"))  # the first bytes decide
    media = read_media(renamed, frames=9)
    expected = make_image() if extension != "jpg" else np.asarray(Image.open(renamed))
    np.testing.assert_array_equal(media.frames, expected[None])
    assert (media.indices, media.total, media.width, media.height, media.note) == ((0,), 1, 70, 45, "")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("extension", ["jpg", "png", "webp", "tiff"])
def test_exif_orientation(tmp_path, orientation, extension):
    image = Image.fromarray(make_image())
    exif = image.getexif()
    exif[274] = orientation
    image.save(tmp_path / f"i.{extension}", exif=exif)
    expected = ImageOps.exif_transpose(Image.open(tmp_path / f"i.{extension}"))
    media = read_media(tmp_path / f"i.{extension}")
    assert (media.width, media.height) == expected.size
    assert np.abs(media.frames[0].astype(int) - np.asarray(expected)).max() <= 2


@pytest.mark.parametrize("extension", ["png", "tiff", "webp"])
def test_alpha_is_dropped_not_blended(tmp_path, extension):
    alpha = np.dstack([make_image(), np.full((45, 70), 7, np.uint8)])
    Image.fromarray(alpha).save(tmp_path / f"i.{extension}", **({"lossless": True} if extension == "webp" else {}))
    np.testing.assert_array_equal(read_media(tmp_path / f"i.{extension}").frames[0], make_image())


@pytest.mark.parametrize("extension", ["png", "tiff"])
@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 3)])
def test_sixteen_bits_keep_the_high_byte(tmp_path, extension, shape):
    deep = np.random.default_rng(1).integers(0, 65536, shape).astype(np.uint16)
    cv2.imwrite(str(tmp_path / f"i.{extension}"), deep)
    high = (deep >> 8).astype(np.uint8)
    expected = np.repeat(high[..., None], 3, 2) if deep.ndim == 2 else high[..., ::-1]
    np.testing.assert_array_equal(read_media(tmp_path / f"i.{extension}").frames[0], expected)


def test_float_tiff(tmp_path):
    for scale in (1, 255):
        cv2.imwrite(str(tmp_path / "f.tiff"), (make_image() / np.float32(255) * scale).astype(np.float32)[..., ::-1])
        np.testing.assert_array_equal(read_media(tmp_path / "f.tiff").frames[0], make_image())


def test_tiff_whose_directory_follows_more_than_64_kilobytes(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "i.tiff"), pixels[..., ::-1])
    np.testing.assert_array_equal(read_media(tmp_path / "i.tiff").frames[0], pixels)


def test_jpeg_and_cmyk_pixels_match_opencv(tmp_path):
    Image.fromarray(make_image()).save(tmp_path / "i.jpg", quality=60)
    expected = cv2.imdecode(np.fromfile(tmp_path / "i.jpg", np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    np.testing.assert_array_equal(read_media(tmp_path / "i.jpg").frames[0], expected)
    Image.fromarray(make_image()).convert("CMYK").save(tmp_path / "c.jpg", quality=100)
    assert np.abs(read_media(tmp_path / "c.jpg").frames[0].astype(int) - make_image()).max() < 8


@pytest.mark.parametrize("extension", ["jpg", "png", "webp", "bmp", "tiff"])
@pytest.mark.parametrize("share", [0.01, 0.6, 0.99])
def test_truncated_image_is_refused(tmp_path, extension, share):
    thumbnail = {"exif": Image.Exif()} if extension == "jpg" else {}
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3), np.uint8)).save(
        tmp_path / f"i.{extension}", **thumbnail
    )
    data = (tmp_path / f"i.{extension}").read_bytes()
    (tmp_path / "short").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(MediaError, match="truncated|damaged|not an image"):
        read_media(tmp_path / "short")


def test_zero_padded_download_and_flipped_bit_are_refused(tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3), np.uint8))
    noise.save(tmp_path / "i.jpg")
    data = (tmp_path / "i.jpg").read_bytes()
    (tmp_path / "i.jpg").write_bytes(data[: len(data) // 2] + bytes(len(data) // 2))
    with pytest.raises(MediaError, match="truncated JPEG"):
        read_media(tmp_path / "i.jpg")
    noise.save(tmp_path / "i.png")
    data = bytearray((tmp_path / "i.png").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "i.png").write_bytes(data)
    with pytest.raises(MediaError, match="damaged PNG"):
        read_media(tmp_path / "i.png")


def test_too_many_pixels_are_refused_by_the_header(tmp_path):
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 17000, 17000, 8, 2, 0, 0, 0))
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    with pytest.raises(MediaError, match="17000 x 17000"):
        read_media(tmp_path / "bomb.png")
