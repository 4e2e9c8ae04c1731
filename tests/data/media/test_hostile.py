"""Malicious files and files with odd names: each is refused with a reason or read, no other file is opened, nothing hangs."""

import ctypes
import os
import socket
import struct
import subprocess
import sys
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tfdetect.data.media import video
from tfdetect.data.media.other_decoders import import_decord
from tfdetect.data.media.read import read_media
from tfdetect.data.media.sniff import MediaError
from tfdetect.data.prepare.clip_cache import Cache, ClipSpec
from tfdetect.data.sample import encode_mp4
from tfdetect.limits import Decoding

ROOT = Path(__file__).resolve().parents[3]
needs_decord = pytest.mark.skipif(not find_spec("decord"), reason="decord has no wheels for this processor")
READERS = [pytest.param("decord", marks=needs_decord), "PyAV", "OpenCV"]


@pytest.fixture(scope="module")
def clip():
    """An MP4 with 8 noisy frames of 32 x 32 pixels."""
    return encode_mp4(np.repeat(np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8), 8, 0))


@contextmanager
def untouched(folder):
    """Fail if any library opens a file of `folder` within the context."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "inotify_init1"):
        pytest.skip("opening of files can only be observed on Linux")
    watch = libc.inotify_init1(os.O_NONBLOCK)
    in_open = 0x20
    assert libc.inotify_add_watch(watch, os.fsencode(folder), in_open) >= 0
    try:
        yield
        with pytest.raises(BlockingIOError):
            os.read(watch, 4096)
    finally:
        os.close(watch)


@pytest.fixture
def secret(tmp_path, clip):
    """An intact video in a separate folder, which must not be opened."""
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "secret.mp4").write_bytes(clip)
    return tmp_path / "others" / "secret.mp4"


def test_untouched_notices_an_opened_file(secret):
    with pytest.raises(pytest.fail.Exception), untouched(secret.parent):
        read_media(secret)


def use_only(reader: str, monkeypatch) -> Decoding:
    """Let only this decoder read the pixels."""

    def no_decoder(*_):
        raise video.containers.NoDecoder

    if reader == "OpenCV":
        monkeypatch.setattr(video.containers, "scan_packets", no_decoder)
    return Decoding("decord" if reader == "decord" else "auto")


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
def test_playlist_named_as_a_video_is_refused(tmp_path, secret, kind, suffix):
    path = tmp_path / f"list{suffix}"
    with untouched(secret.parent):
        path.write_text(PLAYLISTS[kind].format(secret=secret))
        with pytest.raises(MediaError, match="not an image or video in a supported format"):
            read_media(path)
        path.write_bytes(b"GIF89a" + path.read_bytes())  # with the first bytes of a supported format
        with pytest.raises(MediaError):
            read_media(path)


@pytest.mark.parametrize("kind", sorted(PLAYLISTS))
def test_network_is_never_accessed(tmp_path, kind):
    path = tmp_path / "list.mp4"
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        content = PLAYLISTS[kind].format(secret=f"http://127.0.0.1:{server.getsockname()[1]}/secret.mp4").encode()
        asf = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c") + bytes(14)
        for head in (b"", b"GIF89a", b"G" + bytes(187) + b"G", b"\0\0\0\x10ftypisom\0\0\0\0\n", b"OggS\0\2", b"FLV\1\1\0\0\0\t",
                     asf, b"\0\0\1\xba", b"\0\0\1\xb3", b"\x1f\7\0\x3f", b"\x1aE\xdf\xa3"):  # fmt: skip
            path.write_bytes(head + content)
            with pytest.raises(MediaError):
                read_media(path)
        with pytest.raises(BlockingIOError):
            server.accept()


def alias(path: Path) -> bytes:
    """Return the record with which a QuickTime movie refers to another file, as FFmpeg's mov.c reads it."""
    name = os.fsencode(path)
    return bytes(150) + struct.pack(">hH", 2, len(name)) + name + bytes(len(name) % 2) + struct.pack(">hH", -1, 0)


@pytest.mark.parametrize("kind", ["url ", "alis"])
@pytest.mark.parametrize("reader", READERS)
def test_data_reference_to_another_file_is_not_followed(tmp_path, clip, monkeypatch, secret, kind, reader):
    """A movie whose data reference names another file and which holds no frames itself."""
    text = os.fsencode(secret) + b"\0" if kind == "url " else alias(secret)
    data = bytearray(clip)
    at = data.find(b"url ") - 4
    data[at : at + 12] = struct.pack(">I4sI", 12 + len(text), kind.encode(), 0) + text
    for name in (b"dref", b"dinf", b"minf", b"mdia", b"trak", b"moov"):
        start = data.find(name) - 4
        struct.pack_into(">I", data, start, struct.unpack_from(">I", data, start)[0] + len(text))
    start = data.find(b"mdat") - 4
    size = struct.unpack_from(">I", data, start)[0]
    data[start + 8 : start + size] = bytes(size - 8)
    (tmp_path / "thief.mov").write_bytes(data)
    decoding = use_only(reader, monkeypatch)
    with untouched(secret.parent):
        with pytest.raises(MediaError):
            read_media(tmp_path / "thief.mov", decoding=decoding)
        if reader == "decord":  # called directly, since the reader would not pass it the file
            decord = import_decord()
            with pytest.raises((decord.DECORDError, RuntimeError)):
                decord.VideoReader(str(tmp_path / "thief.mov"))[0]


def test_movie_that_only_refers_to_another_is_refused(tmp_path, secret):
    data = b"url " + struct.pack(">I", len(str(secret)) + 1) + os.fsencode(secret) + b"\0"
    for name, head in ((b"rdrf", bytes(4)), (b"rmda", b""), (b"rmra", b""), (b"moov", b"")):
        data = struct.pack(">I4s", 8 + len(head + data), name) + head + data
    (tmp_path / "a.mov").write_bytes(b"\0\0\0\x10ftypqt  \0\0\0\0" + data)
    with untouched(secret.parent), pytest.raises(MediaError):
        read_media(tmp_path / "a.mov")


NAMES = [b"with space.mp4", b"line\nbreak.mp4", "emoji \U0001f642.mp4".encode(), b"no\xfftext.mp4", b"-dash.mp4", b"http:x.mp4",
         b"concat:a|b.mp4", b"%03d.mp4", b"[a]*?.mp4"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("reader", READERS)
def test_every_decoder_reads_a_file_under_any_name(tmp_path, clip, monkeypatch, name, reader):
    decoding = use_only(reader, monkeypatch)
    monkeypatch.chdir(tmp_path)
    path = os.fsdecode(name)
    Path(path).write_bytes(clip)
    for variant in (path, os.path.abspath(path)):
        assert read_media(variant, 4, decoding=decoding).frames.shape == (4, 32, 32, 3)
    assert Cache(tmp_path / "cache", ClipSpec(4, 16, decoding=decoding)).decode_file(path).result["frames"] == 4


@pytest.mark.parametrize("name", NAMES)
def test_images_are_read_under_any_name(tmp_path, name):
    path = os.path.join(tmp_path, os.fsdecode(name.replace(b".mp4", b".png")))
    with open(path, "wb") as file:
        Image.new("RGB", (5, 4)).save(file, "png")
    assert read_media(path).frames.shape == (1, 4, 5, 3)


def test_pipes_folders_sockets_and_devices_are_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    os.mkfifo("pipe.mp4")
    os.mkdir("folder.mp4")
    socket.socket(socket.AF_UNIX).bind("socket.mp4")
    for path in ("pipe.mp4", "folder.mp4", "socket.mp4", "/dev/zero"):
        with pytest.raises(MediaError, match="not a file"):
            read_media(path)
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    (tmp_path / "gone.mp4").symlink_to("nowhere")
    for name, reason in (("loop.mp4", "Too many levels of symbolic links"), ("gone.mp4", "No such file or directory")):
        assert Cache(tmp_path / "cache", ClipSpec(1, 16)).decode_file(str(tmp_path / name)).result["error"] == reason


def test_unexpected_error_fails_only_its_file(tmp_path, clip, monkeypatch):
    (tmp_path / "a.mp4").write_bytes(clip)
    monkeypatch.setattr(video.containers, "scan_packets", lambda *_: {}["missing"])
    with pytest.raises(MediaError, match=r"unexpected error while reading it \(KeyError: 'missing'\)"):
        read_media(tmp_path / "a.mp4")


def test_fuzz():
    """Run the benchmark briefly; it exits with 1 if a file is unaccounted for."""
    argv = [sys.executable, "benchmarks/fuzz.py", "--count", "120", "--seed", "7", "--workers", "2"]
    result = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    counts = [int(line.split()[0]) for line in result.stdout.splitlines()[1:4]]
    assert sum(counts) == 120 and min(counts) > 5, result.stdout
    assert "0   of them: a decoder crashed" in result.stdout
