"""HEIC and AVIF, as phones write them: upright by all eight turns, the primary picture, nothing that is not whole."""

import io
import subprocess
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from heic import Item, box, coded, extent, grid, heic, turns
from PIL import Image, ImageOps

from tfdetect.data.audit.properties import measure
from tfdetect.data.media.read import read_media
from tfdetect.data.media.sniff import MediaError
from tfdetect.limits import Limits

PICTURE = cv2.resize(np.random.default_rng(0).integers(0, 256, (3, 4, 3), np.uint8), (128, 96))


def avif(picture=PICTURE, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "avif", quality=100, subsampling="4:4:4", **options)
    return file.getvalue()


def near(frame, picture) -> bool:
    return frame.shape == picture.shape and np.abs(frame.astype(int) - picture).max() <= 6


def exif_of(orientation) -> Image.Exif:
    exif = Image.Exif()
    exif[274] = orientation
    return exif


FORMATS = {"heic": "HEIF", "avif": "AVIF"}
MADE = {"heic": lambda: heic([coded(PICTURE)]), "avif": avif}


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("extension", ["heic", "HEIC", "avif", "jpg", "mp4"])
def test_it_is_read_under_any_name(tmp_path, name, extension):
    path = tmp_path / f"a.{extension}"
    path.write_bytes(MADE[name]())
    found = read_media(path, 8)
    assert near(found.frames[0], PICTURE) and (found.total, found.width, found.height, found.note) == (1, 128, 96, "")
    known = measure(str(path), Limits())
    assert (known["container"], known["codec"], known["exif"]) == (*2 * (FORMATS[name],), 0.0)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("both", [False, True])
def test_all_eight_turns_once(tmp_path, orientation, both):
    """As properties of the container, where alone they count, with and without EXIF, which phones write too."""
    file, exif = io.BytesIO(), exif_of(orientation)
    Image.fromarray(PICTURE).save(file, "png", exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(file)))
    said = exif.tobytes()[6:] if both else b""
    (tmp_path / "a.heic").write_bytes(heic([coded(PICTURE, more=turns(orientation))], exif=said))
    exif[271] = "camera"
    (tmp_path / "a.avif").write_bytes(avif(exif=exif))  # Pillow writes the properties
    for name in ("a.heic", "a.avif"):
        found = read_media(tmp_path / name)
        assert near(found.frames[0], upright), name
        assert (found.width, found.height) == upright.shape[1::-1]
    assert measure(str(tmp_path / "a.heic"), Limits())["exif"] == float(both)
    assert measure(str(tmp_path / "a.avif"), Limits())["exif"] == 1.0


def test_exif_alone_turns_nothing(tmp_path):
    (tmp_path / "a.heic").write_bytes(heic([coded(PICTURE)], exif=exif_of(6).tobytes()[6:]))
    assert near(read_media(tmp_path / "a.heic").frames[0], PICTURE)
    exif = exif_of(1)
    exif[275] = 6  # the next number, for Pillow turns the orientation itself into properties
    data = avif(exif=exif, xmp=b'<x tiff:Orientation="6"/>').replace(b"\1\x13\0\3", b"\1\x12\0\3")
    assert b"irot" not in data and b"\1\x12\0\3\0\0\0\1\0\6" in data
    (tmp_path / "a.avif").write_bytes(data)
    assert near(read_media(tmp_path / "a.avif").frames[0], PICTURE)


def test_tiles_make_the_primary_picture_and_a_thumbnail_is_none(tmp_path):
    """As iPhones write it: a grid of tiles, cropped at the right and below, behind a smaller picture."""
    whole = cv2.resize(np.random.default_rng(1).integers(0, 256, (5, 6, 3), np.uint8), (256, 192))
    tiles = [coded(whole[y : y + 96, x : x + 128]) for y in (0, 96) for x in (0, 128)]
    small = coded(np.zeros((64, 64, 3), np.uint8))
    items = [small, *tiles, grid(2, 2, 250, 190, [2, 3, 4, 5], turns(6))]
    (tmp_path / "a.heic").write_bytes(heic(items, primary=6))
    assert near(read_media(tmp_path / "a.heic").frames[0], np.rot90(whole[:190, :250], -1))
    items[-1] = grid(2, 3, 250, 190, [2, 3, 4, 5])  # a tile too few
    (tmp_path / "a.heic").write_bytes(heic(items, primary=6))
    with pytest.raises(MediaError, match="primary picture"):
        read_media(tmp_path / "a.heic")


@pytest.mark.parametrize("pixels", ["yuv420p10le", "yuv422p10le", "yuv444p10le", "yuv420p12le"])
def test_ten_bits_keep_the_high_ones(tmp_path, pixels):
    smooth = cv2.GaussianBlur(PICTURE, (31, 31), 9)
    (tmp_path / "a.heic").write_bytes(heic([coded(smooth, pixels)]))
    assert near(read_media(tmp_path / "a.heic").frames[0], smooth)


def test_grey_is_tripled_and_alpha_dropped(tmp_path):
    grey = PICTURE[..., :1].repeat(3, 2)
    (tmp_path / "a.heic").write_bytes(heic([coded(grey, "gray")]))
    assert near(read_media(tmp_path / "a.heic").frames[0], grey)
    alpha = np.dstack([PICTURE, np.full((96, 128), 7, np.uint8)])
    (tmp_path / "a.avif").write_bytes(avif(alpha))
    assert near(read_media(tmp_path / "a.avif").frames[0], PICTURE)


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("share", [0.02, 0.2, 0.5, 0.9, 0.999])
def test_what_is_cut_short_is_refused(tmp_path, name, share):
    data = MADE[name]()
    (tmp_path / "a").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(MediaError, match="truncated|damaged|not an image"):
        read_media(tmp_path / "a")


@pytest.mark.parametrize("name", MADE)
def test_too_many_pixels_are_refused_by_the_header(tmp_path, name):
    (tmp_path / "a").write_bytes(MADE[name]())
    with pytest.raises(MediaError, match=r"12288 pixels \(128 x 96\) announced, at most 12287"):
        read_media(tmp_path / "a", limits=Limits(pixels=128 * 96 - 1))
    (tmp_path / "b").write_bytes(MADE[name]().replace(extent(128, 96), extent(50_000, 50_000)))
    with pytest.raises(MediaError, match=r"50000|damaged"):
        read_media(tmp_path / "b")


def test_boxes_without_end_are_no_stumbling_block(tmp_path):
    data = heic([coded(PICTURE)])
    at = data.find(b"meta") - 4
    (tmp_path / "a.heic").write_bytes(data[:at] + b"\0\0\0\1meta" + b"\xff" * 8 + data[at + 8 :])
    with pytest.raises(MediaError, match="damaged|truncated"):
        read_media(tmp_path / "a.heic")


def test_a_large_picture_behind_a_small_header_is_not_decoded(tmp_path):
    large = coded(np.zeros((4096, 4096, 3), np.uint8))
    (tmp_path / "a.heic").write_bytes(heic([Item(b"hvc1", large.content, [large.properties[0], extent(16, 16)])]))
    with pytest.raises(MediaError, match="16777216|4096x4096"):
        read_media(tmp_path / "a.heic")


@pytest.mark.parametrize("name", MADE)
def test_a_motion_photo_is_its_still_picture(tmp_path, name):
    for behind in (box(b"mpvd", bytes(500)), box(b"mpvd", bytes(500))[:-20], b"SEFH of a trailer that is no box" * 9):
        (tmp_path / "a").write_bytes(MADE[name]() + behind)
        assert near(read_media(tmp_path / "a").frames[0], PICTURE)


def test_a_sequence_is_its_first_picture_and_says_so(tmp_path):
    more = [Image.fromarray(255 - PICTURE) for _ in range(4)]
    (tmp_path / "a.avif").write_bytes(avif(save_all=True, append_images=more))
    found = read_media(tmp_path / "a.avif", 8)
    assert near(found.frames[0], PICTURE) and found.note == "first frame of an animation of 5"
    film = io.BytesIO()
    with av.open(film, "w", format="mp4") as container:
        stream = container.add_stream("libx265", rate=5, options={"x265-params": "log-level=none"})
        stream.width, stream.height, stream.pix_fmt, stream.codec_context.codec_tag = 128, 96, "yuv420p", "hvc1"
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(PICTURE, format="rgb24")))
        container.mux(stream.encode())
    data = film.getvalue().replace(b"vide", b"pict")
    (tmp_path / "a.heics").write_bytes(heic([coded(PICTURE)], brand=b"hevc") + data[data.find(b"moov") - 4 :])
    found = read_media(tmp_path / "a.heics")
    assert near(found.frames[0], PICTURE) and found.note == "first frame of an animation of 3"


def test_all_decoders_live_in_one_process(tmp_path):
    """libheif, libavif, OpenCV, decord, PyAV and TensorFlow each bring codecs of their own."""
    from tfdetect.data.sample import encode_mp4

    for name, make in MADE.items():
        (tmp_path / f"a.{name}").write_bytes(make())
    (tmp_path / "a.mp4").write_bytes(encode_mp4(np.zeros((8, 32, 32, 3), np.uint8)))
    Image.fromarray(PICTURE).save(tmp_path / "a.png")
    script = f"""
import sys
from pathlib import Path
from tfdetect.data.media.read import read_media
folder = Path({str(tmp_path)!r})
def look():
    return [read_media(folder / name).frames.mean() for name in ("a.heic", "a.avif", "a.mp4", "a.png")]
before = look()
import tensorflow as tf
from PIL import Image
picture = tf.io.decode_png((folder / "a.png").read_bytes())
assert picture.shape == (96, 128, 3)
assert Image.open(folder / "a.avif").convert("RGB").size == (128, 96)
assert look() == before
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[3], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
