"""A process that reads files of strangers says how many frames of a video it has decoded, and no other does."""

import pytest
from stamped import write

from tfdetect.data import headway
from tfdetect.data.media.read import read_media
from tfdetect.limits import Decoding


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "long.mp4", count=40)


def decode(path):
    """Decode all frames of a video; return what is said at each that is used, and what stays in its folder."""
    found = []
    read_media(path, 40, size=8, on_frame=lambda *_: found.append(headway.read(path.parent)), decoding=Decoding("pyav", "all"))
    return found, sorted(each.name for each in path.parent.iterdir())


def test_frames_are_counted_while_they_are_decoded(path, monkeypatch):
    monkeypatch.setattr(headway, "_is_kept", True)
    monkeypatch.setattr(headway, "SECONDS", 0.0)
    found, files = decode(path)
    assert found == sorted(found) and found[0][0] < 20 and found[-1][0] >= 39 and {total for _, total in found} == {40}
    assert files == ["long.mp4"] and headway.read(path.parent) is None


def test_others_leave_nothing_beside_a_file(path):
    found, files = decode(path)
    assert set(found) == {None} and files == ["long.mp4"]


def test_several_videos_are_added_up_and_what_is_being_written_is_left_out(tmp_path):
    for name, text in {"a": "3 10", "b": "40 90", "c": ""}.items():
        (tmp_path / f"{name}{headway.SUFFIX}").write_text(text)
    assert headway.read(tmp_path) == (43, 100)
