"""HEIC and AVIF as phones write them: all eight orientations, only the primary image, no truncated files."""

import io
import subprocess
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from heic import Item, box, encode_item, extent, grid, orientation_properties, write_heic
from PIL import Image, ImageOps

from tfdetect.data.audit.properties import measure
from tfdetect.data.media.read import read_media
from tfdetect.data.media.sniff import MediaError
from tfdetect.limits import Limits

IMAGE = cv2.resize(np.random.default_rng(0).integers(0, 256, (3, 4, 3), np.uint8), (128, 96))


def avif(image=IMAGE, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "avif", quality=100, subsampling="4:4:4", **options)
    return file.getvalue()


def close(frame, image) -> bool:
    return frame.shape == image.shape and np.abs(frame.astype(int) - image).max() <= 6


def exif_with(orientation) -> Image.Exif:
    exif = Image.Exif()
    exif[274] = orientation
    return exif


FORMATS = {"heic": "HEIF", "avif": "AVIF"}
ENCODERS = {"heic": lambda: write_heic([encode_item(IMAGE)]), "avif": avif}


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("extension", ["heic", "HEIC", "avif", "jpg", "mp4"])
def test_is_read_under_any_name(tmp_path, name, extension):
    path = tmp_path / f"a.{extension}"
    path.write_bytes(ENCODERS[name]())
    media = read_media(path, 8)
    assert close(media.frames[0], IMAGE) and (media.total, media.width, media.height, media.note) == (1, 128, 96, "")
    properties = measure(str(path), Limits())
    assert (properties["container"], properties["codec"], properties["exif"]) == (*2 * (FORMATS[name],), 0.0)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("with_exif", [False, True])
def test_orientation_is_applied_once(tmp_path, orientation, with_exif):
    """Only the properties of the container count; phones repeat the orientation in EXIF."""
    file, exif = io.BytesIO(), exif_with(orientation)
    Image.fromarray(IMAGE).save(file, "png", exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(file)))
    repeated = exif.tobytes()[6:] if with_exif else b""
    item = encode_item(IMAGE, properties=orientation_properties(orientation))
    (tmp_path / "a.heic").write_bytes(write_heic([item], exif=repeated))
    exif[271] = "camera"
    (tmp_path / "a.avif").write_bytes(avif(exif=exif))  # Pillow writes the properties
    for name in ("a.heic", "a.avif"):
        media = read_media(tmp_path / name)
        assert close(media.frames[0], upright), name
        assert (media.width, media.height) == upright.shape[1::-1]
    assert measure(str(tmp_path / "a.heic"), Limits())["exif"] == float(with_exif)
    assert measure(str(tmp_path / "a.avif"), Limits())["exif"] == 1.0


def test_exif_alone_is_ignored(tmp_path):
    (tmp_path / "a.heic").write_bytes(write_heic([encode_item(IMAGE)], exif=exif_with(6).tobytes()[6:]))
    assert close(read_media(tmp_path / "a.heic").frames[0], IMAGE)
    exif = exif_with(1)
    exif[275] = 6  # the next tag, because Pillow converts the orientation to properties
    data = avif(exif=exif, xmp=b'<x tiff:Orientation="6"/>').replace(b"\1\x13\0\3", b"\1\x12\0\3")
    assert b"irot" not in data and b"\1\x12\0\3\0\0\0\1\0\6" in data
    (tmp_path / "a.avif").write_bytes(data)
    assert close(read_media(tmp_path / "a.avif").frames[0], IMAGE)


def test_tiles_form_the_primary_image_and_the_thumbnail_is_ignored(tmp_path):
    """As iPhones write it: a thumbnail, then a grid of tiles cropped at the right and bottom."""
    full = cv2.resize(np.random.default_rng(1).integers(0, 256, (5, 6, 3), np.uint8), (256, 192))
    tiles = [encode_item(full[y : y + 96, x : x + 128]) for y in (0, 96) for x in (0, 128)]
    small = encode_item(np.zeros((64, 64, 3), np.uint8))
    items = [small, *tiles, grid(2, 2, 250, 190, [2, 3, 4, 5], orientation_properties(6))]
    (tmp_path / "a.heic").write_bytes(write_heic(items, primary=6))
    assert close(read_media(tmp_path / "a.heic").frames[0], np.rot90(full[:190, :250], -1))
    items[-1] = grid(2, 3, 250, 190, [2, 3, 4, 5])  # one tile is missing
    (tmp_path / "a.heic").write_bytes(write_heic(items, primary=6))
    with pytest.raises(MediaError, match="primary image"):
        read_media(tmp_path / "a.heic")


@pytest.mark.parametrize("pixels", ["yuv420p10le", "yuv422p10le", "yuv444p10le", "yuv420p12le"])
def test_more_than_eight_bits_keep_the_high_ones(tmp_path, pixels):
    smooth = cv2.GaussianBlur(IMAGE, (31, 31), 9)
    (tmp_path / "a.heic").write_bytes(write_heic([encode_item(smooth, pixels)]))
    assert close(read_media(tmp_path / "a.heic").frames[0], smooth)


def test_grey_becomes_rgb_and_alpha_is_dropped(tmp_path):
    grey = IMAGE[..., :1].repeat(3, 2)
    (tmp_path / "a.heic").write_bytes(write_heic([encode_item(grey, "gray")]))
    assert close(read_media(tmp_path / "a.heic").frames[0], grey)
    alpha = np.dstack([IMAGE, np.full((96, 128), 7, np.uint8)])
    (tmp_path / "a.avif").write_bytes(avif(alpha))
    assert close(read_media(tmp_path / "a.avif").frames[0], IMAGE)


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("share", [0.02, 0.2, 0.5, 0.9, 0.999])
def test_truncated_file_is_refused(tmp_path, name, share):
    data = ENCODERS[name]()
    (tmp_path / "a").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(MediaError, match="truncated|damaged|not an image"):
        read_media(tmp_path / "a")


@pytest.mark.parametrize("name", ENCODERS)
def test_too_many_pixels_are_refused_by_the_header(tmp_path, name):
    (tmp_path / "a").write_bytes(ENCODERS[name]())
    with pytest.raises(MediaError, match=r"12288 pixels \(128 x 96\) announced, at most 12287"):
        read_media(tmp_path / "a", limits=Limits(pixels=128 * 96 - 1))
    (tmp_path / "b").write_bytes(ENCODERS[name]().replace(extent(128, 96), extent(50_000, 50_000)))
    with pytest.raises(MediaError, match=r"50000|damaged"):
        read_media(tmp_path / "b")


def test_box_of_enormous_size_is_refused(tmp_path):
    data = write_heic([encode_item(IMAGE)])
    at = data.find(b"meta") - 4
    (tmp_path / "a.heic").write_bytes(data[:at] + b"\0\0\0\1meta" + b"\xff" * 8 + data[at + 8 :])
    with pytest.raises(MediaError, match="damaged|truncated"):
        read_media(tmp_path / "a.heic")


def test_large_image_with_a_small_header_is_not_decoded(tmp_path):
    large = encode_item(np.zeros((4096, 4096, 3), np.uint8))
    (tmp_path / "a.heic").write_bytes(write_heic([Item(b"hvc1", large.content, [large.properties[0], extent(16, 16)])]))
    with pytest.raises(MediaError, match="16777216|4096x4096"):
        read_media(tmp_path / "a.heic")


@pytest.mark.parametrize("name", ENCODERS)
def test_motion_photo_is_read_as_its_still_image(tmp_path, name):
    for trailer in (box(b"mpvd", bytes(500)), box(b"mpvd", bytes(500))[:-20], b"SEFH trailer that is not a box" * 9):
        (tmp_path / "a").write_bytes(ENCODERS[name]() + trailer)
        assert close(read_media(tmp_path / "a").frames[0], IMAGE)


def test_sequence_is_read_as_its_first_image_with_a_note(tmp_path):
    more = [Image.fromarray(255 - IMAGE) for _ in range(4)]
    (tmp_path / "a.avif").write_bytes(avif(save_all=True, append_images=more))
    media = read_media(tmp_path / "a.avif", 8)
    assert close(media.frames[0], IMAGE) and media.note == "first frame of an animation of 5"
    video = io.BytesIO()
    with av.open(video, "w", format="mp4") as container:
        stream = container.add_stream("libx265", rate=5, options={"x265-params": "log-level=none"})
        stream.width, stream.height, stream.pix_fmt, stream.codec_context.codec_tag = 128, 96, "yuv420p", "hvc1"
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(IMAGE, format="rgb24")))
        container.mux(stream.encode())
    data = video.getvalue().replace(b"vide", b"pict")
    (tmp_path / "a.heics").write_bytes(write_heic([encode_item(IMAGE)], brand=b"hevc") + data[data.find(b"moov") - 4 :])
    media = read_media(tmp_path / "a.heics")
    assert close(media.frames[0], IMAGE) and media.note == "first frame of an animation of 3"


def test_all_decoders_work_in_one_process(tmp_path):
    """libheif, libavif, OpenCV, decord, PyAV and TensorFlow each bundle their own codecs."""
    from tfdetect.data.sample import encode_mp4

    for name, encode in ENCODERS.items():
        (tmp_path / f"a.{name}").write_bytes(encode())
    (tmp_path / "a.mp4").write_bytes(encode_mp4(np.zeros((8, 32, 32, 3), np.uint8)))
    Image.fromarray(IMAGE).save(tmp_path / "a.png")
    script = f"""
import sys
from pathlib import Path
from tfdetect.data.media.read import read_media
folder = Path({str(tmp_path)!r})
def means():
    return [read_media(folder / name).frames.mean() for name in ("a.heic", "a.avif", "a.mp4", "a.png")]
before = means()
import tensorflow as tf
from PIL import Image
image = tf.io.decode_png((folder / "a.png").read_bytes())
assert image.shape == (96, 128, 3)
assert Image.open(folder / "a.avif").convert("RGB").size == (128, 96)
assert means() == before
"""
    result = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[3], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
