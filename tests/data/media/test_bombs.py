"""Small files that unpack to, or announce, huge data: they are read or refused without excessive memory or time."""

import io
import struct
import subprocess
import sys
import tracemalloc
import zlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfdetect.data.media import containers, tf_images, video
from tfdetect.data.media.read import read_media
from tfdetect.data.media.sniff import MediaError
from tfdetect.data.sample import encode_mp4
from tfdetect.limits import Limits

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def clip():
    """An MP4 with 8 noisy frames of 32 x 32 pixels."""
    return encode_mp4(np.repeat(np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8), 8, 0))


def box(name: bytes, *content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + sum(map(len, content)), name) + b"".join(content)


def test_gif_of_100000_frames_is_read_and_one_beyond_the_limit_is_not(tmp_path):
    file = io.BytesIO()
    images = [Image.new("L", (4, 4), 100 * i) for i in range(3)]
    images[0].save(file, "gif", save_all=True, append_images=images[1:], duration=20)
    data = file.getvalue()
    block = data[data.rfind(b"\x21\xf9") : -1]
    (tmp_path / "long.gif").write_bytes(data[:-1] + block * 100_000 + b";")
    assert read_media(tmp_path / "long.gif", 4, size=4).total >= 100_000
    with pytest.raises(MediaError, match="at most 1000 are read"):
        read_media(tmp_path / "long.gif", 4, limits=Limits(frames=1000))


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


@pytest.mark.parametrize("name", [b"zTXt", b"iCCP", b"iTXt", b"IDAT"])
def test_compression_bomb_in_a_png_is_not_unpacked(tmp_path, name):
    """150 MB of zeros packed in 150 kB, next to the pixels or after them."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (9, 9, 9)).save(file, "png")
    png, content = file.getvalue(), b"x\0\0" + zlib.compress(bytes(150_000_000), 9)
    if name == b"IDAT":
        head, rows = png[:33], (b"\0" + 24 * b"\x09") * 8
        png = head + chunk(name, zlib.compress(rows + bytes(150_000_000), 9)) + chunk(b"IEND", b"")
    else:
        png = png[:33] + chunk(name, content) + png[33:]
    (tmp_path / "bomb.png").write_bytes(png)
    script = f"""
import resource
from tfdetect.data.media.read import read_media
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert read_media({str(tmp_path / "bomb.png")!r}).frames[0, 0, 0, 0] == 9
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 75, "MB"


def tiff(*tags: tuple[int, int]) -> bytes:
    """Return a TIFF with these tags as 32-bit numbers, and no pixels."""
    rows = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + rows + bytes(4)


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        (((256, 30000), (256, 4), (257, 30000), (257, 4)), r"900000000 pixels \(30000 x 30000\) announced"),
        (((256, 9000), (257, 9000), (258, 64), (277, 3)), "the TIFF unpacks to 1944000000 bytes"),
    ],
)
def test_tiff_that_unpacks_to_too_much_is_refused(tmp_path, tags, reason):
    (tmp_path / "a.tiff").write_bytes(tiff(*tags))
    with pytest.raises(MediaError, match=reason):
        read_media(tmp_path / "a.tiff")


def test_a_row_that_decoders_do_not_take_is_refused_by_reader_and_graph(tmp_path):
    bmp = b"BM" + struct.pack("<IIIIiiHHII", 54, 0, 54, 40, 1_000_001, 1, 1, 24, 0, 0) + bytes(16 + 3_000_004)
    (tmp_path / "a.bmp").write_bytes(bmp)
    reason = "1000001 x 1 pixels announced, at most 1000000 in a row or column are read"
    with pytest.raises(MediaError, match=reason):
        read_media(tmp_path / "a.bmp")
    assert tf_images._rejection_reason(tf.constant(bmp), tf.constant(False), tf.constant(2**30, tf.int64)) == reason


def test_jpeg_with_thousands_of_scans_is_refused(tmp_path):
    """Such a file of 100 kB kept the decoder busy for 50 s."""
    file = io.BytesIO()
    Image.new("L", (4096, 4096)).save(file, "jpeg", progressive=True)
    jpeg = file.getvalue()
    (tmp_path / "a.jpg").write_bytes(jpeg)
    assert read_media(tmp_path / "a.jpg", size=4).width == 4096
    (tmp_path / "a.jpg").write_bytes(jpeg[:-2] + 3000 * jpeg[jpeg.rfind(b"\xff\xda") : -2] + jpeg[-2:])
    with pytest.raises(MediaError, match="the JPEG has more than 100 scans"):
        read_media(tmp_path / "a.jpg")


def test_huge_gif_is_not_read_into_memory(tmp_path):
    with open(tmp_path / "a.gif", "wb") as file:
        file.write(b"GIF89a" + struct.pack("<HHBBB", 4, 4, 0, 0, 0))
        file.truncate(2**28)
    tracemalloc.start()
    try:
        assert containers.inspect(str(tmp_path / "a.gif"))[0] == "the GIF has an invalid block"
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def growing_packets(small: int, large: int) -> list[bytes]:
    """Return H.264 packets of many small frames followed by a few large ones, both with their own headers."""
    packets = []
    for side, count in ((small, 300), (large, 3)):
        codec = av.CodecContext.create("libx264", "w")
        codec.width, codec.height, codec.pix_fmt, codec.time_base = side, side, "yuv420p", Fraction(1, 25)
        codec.options = {"g": "1", "preset": "ultrafast"}
        for i in range(count):
            frame = av.VideoFrame.from_ndarray(np.full((side, side, 3), i % 256, np.uint8), format="rgb24")
            frame.pts = i
            packets += map(bytes, codec.encode(frame))
        packets += map(bytes, codec.encode(None))
    return packets


def test_frames_that_grow_beyond_the_limit_are_not_decoded(tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for i, data in enumerate(growing_packets(32, 512)):
            packet = av.Packet(data)
            packet.stream, packet.pts, packet.dts, packet.time_base, packet.is_keyframe = stream, i, i, Fraction(1, 25), True
            container.mux(packet)
    assert read_media(tmp_path / "a.mkv", 4, size=8).total == 303
    media = read_media(tmp_path / "a.mkv", 4, size=8, limits=Limits(pixels=2000))
    assert media.note == "damaged: 300 of 303 frames intact"


def test_opencv_fallback_obeys_the_limits(tmp_path, clip):
    (tmp_path / "a.mp4").write_bytes(clip)
    for limits in (Limits(frames=7), Limits(pixels=1023)):
        with pytest.raises(MediaError, match="at most"):
            video._read_with_opencv(str(tmp_path / "a.mp4"), 2, None, lambda frame: frame[None], limits=limits)


@pytest.mark.parametrize("parents", [(b"moov",), (b"moov", b"trak"), (b"udta",)])
def test_compressed_header_is_refused(tmp_path, parents):
    data = box(b"cmov", box(b"dcom", b"zlib"), box(b"cmvd", struct.pack(">I", 2**31), b"bomb"))
    for name in parents:
        data = box(name, data)
    (tmp_path / "a.mov").write_bytes(box(b"ftyp", b"qt  ", bytes(4)) + data)
    with pytest.raises(MediaError, match="compressed"):
        read_media(tmp_path / "a.mov")


@pytest.mark.parametrize("handler", [b"vide", b"soun"])
def test_unlisted_samples_are_refused_before_the_file_is_opened(tmp_path, clip, monkeypatch, handler):
    monkeypatch.setattr(containers, "open_video", None)
    data = bytearray(clip.replace(b"vide", handler))
    struct.pack_into(">II", data, data.find(b"stsz") + 8, 1, 20_000_000)
    fragment = box(b"moof", box(b"traf", box(b"trun", struct.pack(">II", 1, 600_000))))
    for name, content in (("a.mp4", data), ("b.mp4", box(b"ftyp", b"isom", bytes(4)) + 2 * fragment)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(MediaError, match="frames announced, at most 1000000"):
            read_media(tmp_path / name)


def test_an_hour_of_pcm_sound_is_accepted(tmp_path):
    def table(name: bytes, *numbers: int) -> bytes:
        return box(name, struct.pack(f">{len(numbers)}I", *numbers))

    tables = box(b"stbl", table(b"stts", 0, 1, 172_800_000, 1), table(b"stsz", 0, 4, 172_800_000))
    sound = box(b"mdia", box(b"hdlr", bytes(8), b"soun"), box(b"minf", tables))
    (tmp_path / "a.mov").write_bytes(box(b"ftyp", b"qt  ", bytes(4)) + box(b"moov", box(b"trak", sound)))
    assert containers.inspect(str(tmp_path / "a.mov")) == ("", False)


@pytest.mark.parametrize(("table", "offset"), [(b"stsz", 12), (b"stts", 8), (b"stco", 8)])
def test_table_that_declares_two_billion_samples_is_not_trusted(tmp_path, clip, table, offset):
    data = bytearray(clip)
    struct.pack_into(">I", data, data.find(table) + offset, 2**31 - 1)
    (tmp_path / "a.mp4").write_bytes(data)
    try:
        assert read_media(tmp_path / "a.mp4", 4, size=8).total <= 8
    except MediaError as error:
        assert str(error)
