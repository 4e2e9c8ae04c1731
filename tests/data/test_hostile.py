"""Files made by somebody who means harm, and files under odd names: a reason each, no other file touched, no hang, no bomb."""

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tfdetect.data import media, video
from tfdetect.data.cache import Cache, View
from tfdetect.data.media import MediaError
from tfdetect.data.sample import mp4
from tfdetect.limits import Limits

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def clip():
    """An MP4 of 8 frames of noise, 32 x 32."""
    return mp4(np.repeat(np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8), 8, 0))


PLAYLISTS = {
    "HLS": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{secret}\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile '{secret}'\n",
    "SDP": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    "DASH": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>{secret}</BaseURL></MPD>',
    "SMIL": "<smil><body><video src='{secret}'/></body></smil>",
    "PLS": "[playlist]\nFile1={secret}\n",
}


@pytest.mark.parametrize("kind", sorted(PLAYLISTS))
@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".gif"])
def test_playlists_under_a_video_s_name_are_refused(tmp_path, clip, kind, suffix):
    (tmp_path / "secret.mp4").write_bytes(clip)
    path = tmp_path / f"list{suffix}"
    path.write_text(PLAYLISTS[kind].format(secret=tmp_path / "secret.mp4"))
    with pytest.raises(MediaError, match="not an image or video that is read here"):
        media.read(path)
    path.write_bytes(b"GIF89a" + path.read_bytes())  # with the first bytes of something that is read
    with pytest.raises(MediaError):
        media.read(path)


def test_a_movie_s_reference_to_another_file_is_not_followed(tmp_path, clip):
    """An MP4 whose data reference names another file, and which holds no pictures itself."""
    (tmp_path / "secret.mp4").write_bytes(clip)
    data, text = bytearray(clip), os.fsencode(tmp_path / "secret.mp4") + b"\0"
    at = data.find(b"url ") - 4
    data[at : at + 12] = struct.pack(">I4sI", 12 + len(text), b"url ", 0) + text
    for name in (b"dref", b"dinf", b"minf", b"mdia", b"trak", b"moov"):
        start = data.find(name) - 4
        struct.pack_into(">I", data, start, struct.unpack_from(">I", data, start)[0] + len(text))
    start = data.find(b"mdat") - 4
    size = struct.unpack_from(">I", data, start)[0]
    data[start + 8 : start + size] = bytes(size - 8)
    (tmp_path / "thief.mp4").write_bytes(data)
    with pytest.raises(MediaError, match="no whole frame"):
        media.read(tmp_path / "thief.mp4")


NAMES = [b"with space.mp4", b"line\nbreak.mp4", "emoji \U0001f642.mp4".encode(), b"no\xfftext.mp4", b"-dash.mp4", b"http:x.mp4",
         b"concat:a|b.mp4", b"%03d.mp4", b"[a]*?.mp4"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("reader", ["decord", "PyAV", "OpenCV"])
def test_every_decoder_reads_a_file_under_any_name(tmp_path, clip, monkeypatch, name, reader):
    if reader == "PyAV":
        monkeypatch.setattr(video, "decord", None)
    if reader == "OpenCV":
        monkeypatch.setattr(video.containers, "scan_packets", raise_no_decoder)
    monkeypatch.chdir(tmp_path)
    path = os.fsdecode(name)
    Path(path).write_bytes(clip)
    for one in (path, os.path.abspath(path)):
        assert media.read(one, 4).frames.shape == (4, 32, 32, 3)
    assert Cache(tmp_path / "cache", View(4, 16)).add(path)["frames"] == 4


def raise_no_decoder(*_):
    raise video.containers.NoDecoder


@pytest.mark.parametrize("name", NAMES)
def test_images_under_any_name(tmp_path, name):
    path = os.path.join(tmp_path, os.fsdecode(name.replace(b".mp4", b".png")))
    with open(path, "wb") as file:
        Image.new("RGB", (5, 4)).save(file, "png")
    assert media.read(path).frames.shape == (1, 4, 5, 3)


def test_what_is_no_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "folder.mp4").mkdir()
    for path in (tmp_path / "pipe.mp4", tmp_path / "folder.mp4", "/dev/zero"):
        with pytest.raises(MediaError, match="not a file"):
            media.read(path)
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    (tmp_path / "gone.mp4").symlink_to("nowhere")
    for name, reason in (("loop.mp4", "Too many levels of symbolic links"), ("gone.mp4", "No such file or directory")):
        assert Cache(tmp_path / "cache", View(1, 16)).add(str(tmp_path / name))["error"] == reason


def test_a_gif_of_a_hundred_thousand_frames_is_read_and_one_of_more_than_allowed_is_not(tmp_path):
    file = io.BytesIO()
    pictures = [Image.new("L", (4, 4), 100 * i) for i in range(3)]
    pictures[0].save(file, "gif", save_all=True, append_images=pictures[1:], duration=20)
    data = file.getvalue()
    block = data[data.rfind(b"\x21\xf9") : -1]
    (tmp_path / "long.gif").write_bytes(data[:-1] + block * 100_000 + b";")
    assert media.read(tmp_path / "long.gif", 4, size=4).total >= 100_000
    with pytest.raises(MediaError, match="at most 1000 are read"):
        media.read(tmp_path / "long.gif", 4, limits=Limits(frames=1000))


@pytest.mark.parametrize("chunk", [b"zTXt", b"iCCP", b"iTXt"])
def test_a_bomb_beside_the_picture_of_a_png_does_not_go_off(tmp_path, chunk):
    """300 MB of zeros in 300 kB, which nobody asked for."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (9, 9, 9)).save(file, "png")
    whole, content = file.getvalue(), b"x\0\0" + zlib.compress(bytes(300_000_000), 9)
    bomb = struct.pack(">I", len(content)) + chunk + content + struct.pack(">I", zlib.crc32(chunk + content))
    (tmp_path / "bomb.png").write_bytes(whole[:33] + bomb + whole[33:])
    script = f"""
import resource
from tfdetect.data import media
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert media.read({str(tmp_path / "bomb.png")!r}).frames[0, 0, 0, 0] == 9
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 100, "MB"


@pytest.mark.parametrize(("box", "at", "value"), [(b"stsz", 12, 2**31 - 1), (b"stts", 8, 2**31 - 1), (b"stco", 8, 2**31 - 1)])
def test_a_table_that_declares_two_thousand_million_samples_is_not_believed(tmp_path, clip, box, at, value):
    data = bytearray(clip)
    struct.pack_into(">I", data, data.find(box) + at, value)
    (tmp_path / "a.mp4").write_bytes(data)
    try:
        assert media.read(tmp_path / "a.mp4", 4, size=8).total <= 8
    except MediaError as error:
        assert str(error)


def test_what_nobody_foresaw_costs_one_file(tmp_path, clip, monkeypatch):
    (tmp_path / "a.mp4").write_bytes(clip)
    monkeypatch.setattr(video.containers, "scan_packets", lambda *_: {}["missing"])
    with pytest.raises(MediaError, match=r"the reader stumbled over it \(KeyError: 'missing'\)"):
        media.read(tmp_path / "a.mp4")


def test_fuzz():
    """A short run of the benchmark, which exits with 1 if a file is unaccounted for."""
    argv = [sys.executable, "benchmarks/fuzz.py", "--count", "120", "--seed", "7", "--workers", "2"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    counts = [int(line.split()[0]) for line in done.stdout.splitlines()[1:4]]
    assert sum(counts) == 120 and min(counts) > 5, done.stdout
    assert "0   of them: a decoder crashed" in done.stdout
