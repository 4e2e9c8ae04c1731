"""Videos as phones, cameras and `cat` leave them: turned and mirrored, two recordings in one file."""

import struct

import numpy as np
import pytest
from stamped import stamps, write

from tfdetect.data.media import video
from tfdetect.data.media.read import read_media

ONE = 65536
MATRICES = [(a, 0, 0, d) for a in (ONE, -ONE) for d in (ONE, -ONE)] + [(0, b, c, 0) for b in (ONE, -ONE) for c in (ONE, -ONE)]


def with_matrix(path, a, b, c, d):
    """Write a display matrix into the track header of an MP4: x' = a x + c y, y' = b x + d y."""
    data = bytearray(path.read_bytes())
    struct.pack_into(">9i", data, data.find(b"tkhd") + 44, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def shown(picture, a, b, c, d):
    """The picture as the matrix shows it, pixel by pixel."""
    height, width = picture.shape[:2]
    y, x = (side.ravel() for side in np.mgrid[:height, :width])
    across, down = (np.sign(a) * x + np.sign(c) * y, np.sign(b) * x + np.sign(d) * y)
    across, down = across - across.min(), down - down.min()
    out = np.empty((down.max() + 1, across.max() + 1, 3), picture.dtype)
    out[down, across] = picture[y, x]
    return out


@pytest.mark.parametrize("matrix", MATRICES)
def test_all_eight_display_matrices(tmp_path, monkeypatch, matrix):
    plain = read_media(write(tmp_path / "v.mp4", count=5), 2).frames
    path = with_matrix(tmp_path / "v.mp4", *matrix)
    first = read_media(path, 2)
    monkeypatch.setattr(video, "decord", None)
    second = read_media(path, 2)
    for frame, stored in zip(first.frames, plain, strict=True):
        np.testing.assert_array_equal(frame, shown(stored, *matrix))
    np.testing.assert_array_equal(first.frames, second.frames)
    assert (first.width, first.height) == (second.width, second.height) == first.frames.shape[2:0:-1] and not first.note


def test_a_matrix_that_leans_is_said(tmp_path):
    path = write(tmp_path / "v.mp4", count=5)
    plain, half = read_media(path, 2), round(ONE * 0.5**0.5)
    found = read_media(with_matrix(path, half, half, -half, half), 2)
    np.testing.assert_array_equal(found.frames, plain.frames)
    assert found.note == "its display matrix leans it by 45 degrees, which is left as it is"


RECORDINGS = {
    "h264.ts": {"g": "12"},
    "disc.m2ts": {"g": "12", "muxer": {"mpegts_m2ts_mode": "1"}},
    "hevc.ts": {"codec": "libx265"},
    "mpeg2.ts": {"codec": "mpeg2video", "g": "12", "bf": "2"},
    "mpeg2.mpg": {"codec": "mpeg2video", "g": "12", "bf": "2"},
    "mpeg1.vob": {"codec": "mpeg2video", "g": "12", "bf": "2"},
}


@pytest.mark.parametrize("name", RECORDINGS)
def test_joined_recordings_are_whole(tmp_path, name):
    path = write(tmp_path / name, **RECORDINGS[name])
    path.write_bytes(2 * path.read_bytes())
    found = read_media(path, 80)
    assert (found.total, found.note) == (80, "") and stamps(found) == 2 * tuple(range(40))
    assert stamps(read_media(path, 9, fps=5)) == (20, 25, 30, 35, *stamps(read_media(path, 9, fps=5))[4:])


def test_a_recording_that_was_cut_before_another_was_appended(tmp_path):
    path = write(tmp_path / "a.ts", g="12")
    data, notes = path.read_bytes(), []
    whole = {frame.tobytes() for frame in read_media(path, 40).frames}
    for packets in range(64, 72):
        path.write_bytes(data[: packets * 188] + data)
        found = read_media(path, 80)
        assert all(frame.tobytes() in whole for frame in found.frames)
        notes.append(found.note)
    assert any(note.startswith("damaged") for note in notes), "one of them ends within a frame"


@pytest.mark.parametrize("name", ["h264.ts", "mpeg2.ts"])
def test_lost_packets_of_a_transport_stream_are_damage(tmp_path, name):
    path = write(tmp_path / name, **RECORDINGS[name])
    whole = {frame.tobytes() for frame in read_media(path, 40).frames}
    data = path.read_bytes()
    at = len(data) // 188 // 2 * 188
    path.write_bytes(data[:at] + data[at + 2 * 188 :])
    found = read_media(path, 40)
    assert found.note.startswith("damaged") and 10 < found.total < 40
    assert all(frame.tobytes() in whole for frame in found.frames)
    path.write_bytes(2 * path.read_bytes())
    twice = read_media(path, 80)
    assert twice.note.startswith("damaged") and twice.total == 2 * found.total


CUT = {
    "a.flv": {"codec": "flv"},
    "a.wmv": {"codec": "wmv2"},
    "a.ogv": {"codec": "libvpx", "muxer": {"page_duration": "1"}},
    **RECORDINGS,
}


@pytest.mark.parametrize("name", CUT)
def test_what_is_cut_short_gives_its_whole_frames_and_says_so(tmp_path, name):
    path = write(tmp_path / name, **CUT[name])
    whole = {frame.tobytes() for frame in read_media(path, 40).frames}
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * 0.6)])
    found = read_media(path, 40)
    assert found.note.startswith("damaged") and found.total < 40
    assert all(frame.tobytes() in whole for frame in found.frames)


def test_a_long_or_large_video_asks_for_more_time(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("tfdetect.data.deadline.extend", lambda size=0, pixels=0: asked.append((size, pixels)))
    path = write(tmp_path / "v.mp4", count=50)
    read_media(path, 4)
    assert asked == [(path.stat().st_size, 0), (0, video.PASSES * 50 * 128 * 64)]
