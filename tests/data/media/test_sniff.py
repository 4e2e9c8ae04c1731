"""Files are recognised by their first bytes under any name; unsupported formats are refused with a specific reason."""

import struct

import numpy as np
import pytest
from PIL import Image
from stamped import write_frames

from tfdetect.data.audit.properties import measure
from tfdetect.data.media.read import read_media
from tfdetect.data.media.sniff import MediaError, is_media, media_kind
from tfdetect.limits import Limits

CONTAINERS = {  # extension -> muxer, codec, options
    "3gp": ("3gp", "mpeg4", {}),
    "3g2": ("3g2", "mpeg4", {}),
    "f4v": ("f4v", "libx264", {}),
    "ts": ("mpegts", "mpeg2video", {}),
    "m2ts": ("mpegts", "libx264", {"mpegts_m2ts_mode": "1"}),
    "vob": ("vob", "mpeg2video", {}),
    "mpeg": ("mpeg", "mpeg1video", {}),
    "m2v": ("mpeg2video", "mpeg2video", {}),
    "ogv": ("ogg", "libvpx", {}),
    "wmv": ("asf", "wmv2", {}),
    "flv": ("flv", "flv", {}),
    "dv": ("dv", "dvvideo", {}),
}


def write_video(path, muxer, codec, options, count=8):
    """Write a video of frames that grow brighter."""
    height, width = (576, 720) if codec == "dvvideo" else (48, 64)
    frames = [np.full((height, width, 3), 20 + 25 * i % 200, np.uint8) for i in range(count)]
    return write_frames(path, frames, codec, container_format=muxer, muxer=options)


@pytest.mark.parametrize("extension", CONTAINERS)
def test_each_container_is_read_under_any_name(tmp_path, extension):
    assert is_media(f"A.{extension.upper()}")
    path = write_video(tmp_path / f"a.{extension}", *CONTAINERS[extension])
    path = path.rename(tmp_path / "a.jpg")
    assert media_kind(path) == "video"
    media = read_media(path, frames=8, size=4)
    assert media.total == 8 and media.note == ""
    assert np.abs(media.frames.mean(axis=(1, 2, 3)) - (20 + 25 * np.arange(8))).max() < 6
    properties = measure(str(path), Limits())
    assert "unknown" not in (properties["container"], properties["codec"], properties["subsampling"])
    assert (properties["fps"], properties["frames"]) == (25, 8)


@pytest.mark.parametrize("step", [188, 192])
def test_recording_that_begins_within_a_packet(tmp_path, step):
    path = write_video(tmp_path / "a.ts", "mpegts", "mpeg2video", {"mpegts_m2ts_mode": str(int(step == 192))}, count=40)
    data = path.read_bytes()
    path.write_bytes(data[50:])
    assert media_kind(path) == "video"


def test_jpeg_2000(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    for name, options in (("a.jp2", {}), ("a.j2k", {"no_jp2": True})):
        Image.fromarray(image).save(tmp_path / name, "JPEG2000", **options)
        path = (tmp_path / name).rename(tmp_path / "a.png")
        np.testing.assert_array_equal(read_media(path).frames[0], image)
        data = bytearray(path.read_bytes())
        path.write_bytes(data[: len(data) // 2])
        with pytest.raises(MediaError, match="damaged"):
            read_media(path)
        at = data.find(b"\xff\x4f\xff\x51") + 8
        struct.pack_into(">2I", data, at, 60_000, 60_000)
        path.write_bytes(data)
        with pytest.raises(MediaError, match="60000 x 60000"):
            read_media(path)


def tiff_header(*tags):
    """Return the header of a TIFF with these tags as 16-bit numbers."""
    entries = b"".join(struct.pack("<HHII", tag, 3, 1, value) for tag, value in tags)
    return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(64)


SIZE = ((256, 8), (257, 8))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"II*\0\x10\0\0\0CR\2\0" + bytes(64), "camera raw"),  # CR2
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "camera raw"),
        (b"FUJIFILMCCD-RAW 0201" + bytes(64), "camera raw"),
        (b"IIRO\x08\0\0\0" + bytes(64), "camera raw"),
        (tiff_header(*SIZE, (50706, 1)), "camera raw"),  # DNG
        (tiff_header((254, 1), *SIZE, (330, 9)), "camera raw"),  # NEF and ARW: a thumbnail first, the image elsewhere
        (tiff_header(*SIZE, (262, 32803)), "camera raw"),
        (b"8BPS\0\1", "Photoshop"),
        (b"%PDF-1.7", "PDF"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"v/1\1\2\0\0\0", "high dynamic range"),
        (b"\xff\x0a\xfa\x1f", "JPEG XL"),
        (b"PK\3\4", "archive"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"\0\5\x16\7\0\2\0\0Mac OS X", "macOS"),
        (b"ID3\4", "audio"),
        (b"The BMP and GGG of a text", r"first bytes b'The BMP"),
        (b"BMP files and what is free in them", "first bytes"),
        (b"GGG" * 100, "first bytes"),
    ],
)
def test_unsupported_file_is_refused_with_its_reason(tmp_path, content, reason):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(MediaError, match=reason):
        read_media(tmp_path / "a.jpg")
