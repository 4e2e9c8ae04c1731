"""Videos as phones, cameras and `cat` write them: rotated, mirrored, truncated, two recordings in one file."""

import struct

import numpy as np
import pytest
from stamped import stamps, write

from tfdetect.data.media import video
from tfdetect.data.media.read import read_media
from tfdetect.limits import Decoding

ONE = 65536  # 1.0 as a 16.16 fixed-point number
MATRICES = [(a, 0, 0, d) for a in (ONE, -ONE) for d in (ONE, -ONE)] + [(0, b, c, 0) for b in (ONE, -ONE) for c in (ONE, -ONE)]


def with_matrix(path, a, b, c, d):
    """Write a display matrix to the track header of an MP4: x' = a x + c y, y' = b x + d y."""
    data = bytearray(path.read_bytes())
    struct.pack_into(">9i", data, data.find(b"tkhd") + 44, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def transformed(frame, a, b, c, d):
    """Apply a display matrix to a frame, pixel by pixel."""
    height, width = frame.shape[:2]
    y, x = (side.ravel() for side in np.mgrid[:height, :width])
    across, down = (np.sign(a) * x + np.sign(c) * y, np.sign(b) * x + np.sign(d) * y)
    across, down = across - across.min(), down - down.min()
    out = np.empty((down.max() + 1, across.max() + 1, 3), frame.dtype)
    out[down, across] = frame[y, x]
    return out


@pytest.mark.parametrize("matrix", MATRICES)
def test_all_eight_display_matrices(tmp_path, matrix):
    plain = read_media(write(tmp_path / "v.mp4", count=5), 2).frames
    path = with_matrix(tmp_path / "v.mp4", *matrix)
    first = read_media(path, 2)
    second = read_media(path, 2, decoding=Decoding("decord"))  # PyAV reads those that decord would not turn
    for frame, stored in zip(first.frames, plain, strict=True):
        np.testing.assert_array_equal(frame, transformed(stored, *matrix))
    np.testing.assert_array_equal(first.frames, second.frames)
    assert (first.width, first.height) == (second.width, second.height) == first.frames.shape[2:0:-1] and not first.note


def test_skewed_display_matrix_is_ignored_with_a_note(tmp_path):
    path = write(tmp_path / "v.mp4", count=5)
    plain, half = read_media(path, 2), round(ONE * 0.5**0.5)
    media = read_media(with_matrix(path, half, half, -half, half), 2)
    np.testing.assert_array_equal(media.frames, plain.frames)
    assert media.note == "its display matrix rotates it by 45 degrees, which is ignored"


RECORDINGS = {
    "h264.ts": {"g": "12"},
    "disc.m2ts": {"g": "12", "muxer": {"mpegts_m2ts_mode": "1"}},
    "hevc.ts": {"codec": "libx265"},
    "mpeg2.ts": {"codec": "mpeg2video", "g": "12", "bf": "2"},
    "mpeg2.mpg": {"codec": "mpeg2video", "g": "12", "bf": "2"},
    "mpeg1.vob": {"codec": "mpeg2video", "g": "12", "bf": "2"},
}


@pytest.mark.parametrize("name", RECORDINGS)
def test_joined_recordings_are_read_completely(tmp_path, name):
    path = write(tmp_path / name, **RECORDINGS[name])
    path.write_bytes(2 * path.read_bytes())
    media = read_media(path, 80)
    assert (media.total, media.note) == (80, "") and stamps(media) == 2 * tuple(range(40))
    assert stamps(read_media(path, 9, fps=5)) == (20, 25, 30, 35, *stamps(read_media(path, 9, fps=5))[4:])


def test_truncated_recording_with_another_appended(tmp_path):
    path = write(tmp_path / "a.ts", g="12")
    data, notes = path.read_bytes(), []
    intact = {frame.tobytes() for frame in read_media(path, 40).frames}
    for packets in range(64, 72):
        path.write_bytes(data[: packets * 188] + data)
        media = read_media(path, 80)
        assert all(frame.tobytes() in intact for frame in media.frames)
        notes.append(media.note)
    assert any(note.startswith("damaged") for note in notes), "at least one of them ends within a frame"


@pytest.mark.parametrize("name", ["h264.ts", "mpeg2.ts"])
def test_lost_packets_of_a_transport_stream_are_damage(tmp_path, name):
    path = write(tmp_path / name, **RECORDINGS[name])
    intact = {frame.tobytes() for frame in read_media(path, 40).frames}
    data = path.read_bytes()
    at = len(data) // 188 // 2 * 188
    path.write_bytes(data[:at] + data[at + 2 * 188 :])
    media = read_media(path, 40)
    assert media.note.startswith("damaged") and 10 < media.total < 40
    assert all(frame.tobytes() in intact for frame in media.frames)
    path.write_bytes(2 * path.read_bytes())
    twice = read_media(path, 80)
    assert twice.note.startswith("damaged") and twice.total == 2 * media.total


TRUNCATABLE = {
    "a.flv": {"codec": "flv"},
    "a.wmv": {"codec": "wmv2"},
    "a.ogv": {"codec": "libvpx", "muxer": {"page_duration": "1"}},
    **RECORDINGS,
}


@pytest.mark.parametrize("name", TRUNCATABLE)
def test_truncated_video_yields_its_intact_frames_with_a_note(tmp_path, name):
    path = write(tmp_path / name, **TRUNCATABLE[name])
    intact = {frame.tobytes() for frame in read_media(path, 40).frames}
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * 0.6)])
    media = read_media(path, 40)
    assert media.note.startswith("damaged") and media.total < 40
    assert all(frame.tobytes() in intact for frame in media.frames)


def test_long_or_large_video_extends_the_deadline(tmp_path, monkeypatch):
    extensions = []
    monkeypatch.setattr("tfdetect.data.deadline.extend", lambda size=0, pixels=0: extensions.append((size, pixels)))
    path = write(tmp_path / "v.mp4", count=50)
    read_media(path, 4)
    assert extensions == [(path.stat().st_size, 0), (0, video.PASSES * 50 * 128 * 64)]
