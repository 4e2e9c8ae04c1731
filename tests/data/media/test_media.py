"""The reader of videos: every whole frame is the right one, upright; everything else is refused or reported in one sentence."""

import os
import subprocess
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from stamped import HEIGHT, WIDTH, stamped, stamps, write

from tfdetect.data.media import containers, video
from tfdetect.data.media.frames import evenly_spaced, resize
from tfdetect.data.media.read import read_media
from tfdetect.data.media.sniff import MediaError, is_media
from tfdetect.limits import Limits


def cut(path: Path, share: float) -> Path:
    data = path.read_bytes()
    short = path.with_stem("short")
    short.write_bytes(data[: int(len(data) * share)])
    return short


FILES = {
    "closed.mp4": {"g": "12"},
    "faststart.mov": {"g": "12", "muxer": {"movflags": "faststart"}},
    "fragments.mp4": {"g": "12", "muxer": {"movflags": "frag_keyframe+empty_moov"}},
    "h264.mkv": {"g": "12"},
    "open_gop.mp4": {"g": "12", "x264_params": "open-gop=1:bframes=3"},  # decord is wrong here
    "b_frames.avi": {"codec": "mpeg4", "g": "12", "bf": "2"},  # and here
    "mpeg2.mpg": {"codec": "mpeg2video", "g": "12", "bf": "2"},  # and here
    "vp9.webm": {"codec": "libvpx-vp9", "g": "20", "deadline": "realtime", "cpu_used": "8"},
    "motion.avi": {"codec": "mjpeg", "pix": "yuvj420p"},
    "loop.gif": {"codec": "gif", "pix": "rgb8"},
}


@pytest.mark.parametrize("name", FILES)
def test_each_frame_is_the_one_asked_for(tmp_path, name):
    found = read_media(write(tmp_path / name, **FILES[name]), frames=17)
    assert found.indices == evenly_spaced(40, 17) == stamps(found)
    assert (found.total, found.width, found.height, found.note) == (40, WIDTH, HEIGHT, "")
    assert found.frames.shape == (17, HEIGHT, WIDTH, 3) and found.frames.dtype == np.uint8


def test_variable_frame_rate_by_count_and_by_time(tmp_path):
    times = [20 * i if i < 20 else 400 + 200 * (i - 20) for i in range(40)]  # 50 then 5 frames a second
    path = write(tmp_path / "v.mp4", times=times)
    assert stamps(read_media(path, frames=5)) == (0, 10, 20, 29, 39)
    found = read_media(path, frames=9, fps=2.0)  # 4 s centred in 4.2 s: from 0.1 s on
    expected = tuple(max(i for i in range(40) if times[i] <= 100 + 500 * k) for k in range(9))
    assert stamps(found) == found.indices == expected


def test_fps_window_is_centred_and_a_short_video_repeats(tmp_path):
    path = write(tmp_path / "v.mp4", count=21)
    assert read_media(path, frames=3, fps=5).indices == (5, 10, 15)
    long = read_media(path, frames=40, fps=25)
    assert long.indices == tuple(min(i, 20) for i in range(40)) and long.note == "21 frames, 40 asked: frames repeat"


def test_few_frames_repeat_and_the_note_says_so(tmp_path):
    found = read_media(write(tmp_path / "v.mp4", count=3), frames=8)
    assert stamps(found) == found.indices == (0, 0, 1, 1, 1, 1, 2, 2)
    assert found.note == "3 frames, 8 asked: frames repeat" and found.total == 3


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_every_decoder_holds_a_rotated_video_upright(tmp_path, monkeypatch, rotation):
    path = write(tmp_path / "v.mp4", rotation=rotation)
    by_decord = read_media(path, frames=2)
    monkeypatch.setattr(video, "decord", None)
    by_pyav = read_media(path, frames=2)
    by_opencv = video._opencv(str(path), 2, None, None)
    upright = np.rot90(stamped(0), rotation // 90).astype(int)
    assert by_pyav.frames.shape == (2, *upright.shape) and by_pyav.width == upright.shape[1]
    assert np.abs(by_pyav.frames[0] - upright).mean() < 12
    np.testing.assert_array_equal(by_decord.frames, by_pyav.frames)
    np.testing.assert_array_equal(by_opencv.frames, by_pyav.frames)


def test_opencv_is_the_last_resort(tmp_path, monkeypatch):
    path = write(tmp_path / "v.mp4")

    def no_decoder(*_):
        raise containers.NoDecoder

    monkeypatch.setattr(containers, "scan_packets", no_decoder)
    found = read_media(path, frames=5, size=200)
    assert found.indices == (0, 10, 20, 29, 39) and found.frames.shape == (5, 200, 200, 3) and "OpenCV" in found.note


def test_size_is_our_resize_of_the_native_frame(tmp_path):
    path = write(tmp_path / "v.mp4")
    native, small = read_media(path, frames=3), read_media(path, frames=3, size=50)
    np.testing.assert_array_equal(small.frames, [resize(frame, 50) for frame in native.frames])
    assert (small.width, small.height) == (WIDTH, HEIGHT)


def test_long_video_is_tried_only_where_frames_are_taken(tmp_path, monkeypatch):
    path = write(tmp_path / "v.mp4", count=120, g="10", bf="0")
    monkeypatch.setattr(video, "CHECK_FRAMES", 50)
    monkeypatch.setattr(video, "decord", None)
    assert stamps(read_media(path, frames=3)) == (0, 60, 119)
    decoded = [n for n, _ in video._decode(str(path), containers.scan_packets(str(path), ""), set(range(60, 70)))]
    assert decoded == list(range(60, 70))


@pytest.mark.parametrize("name", ["faststart.mov", "fragments.mp4", "h264.mkv", "motion.avi", "vp9.webm", "loop.gif"])
def test_truncated_video_gives_its_whole_frames_and_says_so(tmp_path, name):
    path = write(tmp_path / name, **FILES[name])
    whole = {frame.tobytes() for frame in read_media(path, frames=40).frames}
    found = read_media(cut(path, 0.6), frames=40)
    assert found.note.startswith(f"damaged: {found.total} whole frames") and 5 < found.total < 35
    assert all(frame.tobytes() in whole for frame in found.frames) and max(found.indices) < 35


@pytest.mark.parametrize("name", ["closed.mp4", "b_frames.avi", "mpeg2.mpg", "h264.mkv"])
@pytest.mark.parametrize("seed", range(3))
def test_overwritten_bytes_are_reported_and_no_frame_leans_on_them(tmp_path, name, seed):
    path = write(tmp_path / name, **FILES[name])
    whole = {frame.tobytes() for frame in read_media(path, frames=40).frames}
    data, rng = bytearray(path.read_bytes()), np.random.default_rng(seed)
    at = int(len(data) * rng.uniform(0.3, 0.7))
    data[at : at + 900] = rng.bytes(900)
    path.write_bytes(data)
    found = read_media(path, frames=40)
    assert found.note.startswith("damaged: ") and 0 < found.total < 40
    assert all(frame.tobytes() in whole for frame in found.frames)


def test_without_its_index_a_video_fails(tmp_path):
    with pytest.raises(MediaError, match="truncated: the file ends within its mdat box"):
        read_media(cut(write(tmp_path / "v.mp4"), 0.7))


def test_encrypted_is_refused(tmp_path):
    path = write(tmp_path / "v.mp4")
    path.write_bytes(path.read_bytes().replace(b"avc1\0\0\0\0\0\0\0\1", b"encv\0\0\0\0\0\0\0\1"))
    with pytest.raises(MediaError, match="encrypted"):
        read_media(path)
    tracks = bytes.fromhex("1a45dfa380 18538067 8f 1654ae6b 8a ae88 6d8085 624082 503580".replace(" ", ""))
    (tmp_path / "v.mkv").write_bytes(tracks)
    with pytest.raises(MediaError, match="encrypted"):
        read_media(tmp_path / "v.mkv")


def test_audio_alone_is_no_video(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 16000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    with pytest.raises(MediaError, match=r"no video stream \(audio only\)"):
        read_media(tmp_path / "a.mp4")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"#EXTM3U\n#EXTINF:9,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n", "not an image or video"),
        (b"just words, no picture", "not an image or video"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp42", "no moov"),
        (b"\x1aE\xdf\xa3\x9fB\x86\x81\x01", "truncated"),
    ],
)
def test_what_is_no_media_is_refused_by_its_bytes(tmp_path, content, reason):
    (tmp_path / "v.mp4").write_bytes(content)
    with pytest.raises(MediaError, match=reason) as error:
        read_media(tmp_path / "v.mp4")
    assert str(tmp_path) not in str(error.value)


def test_errors_of_the_file_system_and_of_the_caller_pass_through(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_media(tmp_path / "none.mp4")
    path = write(tmp_path / "v.mp4", count=2)
    for wrong in ({"frames": 0}, {"fps": 0.0}, {"size": 0}):
        with pytest.raises(ValueError) as error:
            read_media(path, **wrong)
        assert not isinstance(error.value, MediaError)


@pytest.mark.parametrize(
    "limits, said",
    [
        ({"pixels": WIDTH * HEIGHT - 1}, r"8192 pixels \(128 x 64\) announced, at most 8191 are read \(--data.limits.pixels"),
        ({"frames": 4}, "5 frames announced, at most 4"),
        ({"seconds": 0.1}, "seconds announced, at most 0.1"),
        ({"bytes": 99}, "bytes, at most 99"),
    ],
)
def test_what_announces_too_much_is_refused_before_it_is_decoded(tmp_path, limits, said):
    path = write(tmp_path / "v.mp4", count=5)
    with pytest.raises(MediaError, match=said):
        read_media(path, limits=Limits(**limits))
    assert read_media(path, 5).total == 5


def test_each_frame_that_is_taken_is_shown_at_native_size(tmp_path):
    seen = {}
    found = read_media(write(tmp_path / "v.mp4", count=9), 3, size=16, look=seen.__setitem__)
    assert tuple(seen) == found.indices == (0, 4, 8)
    native = read_media(tmp_path / "v.mp4", 3).frames
    assert all(np.array_equal(frame, seen[position]) for frame, position in zip(native, seen, strict=True))
    (tmp_path / "i.png").write_bytes(cv2.imencode(".png", stamped(0)[..., ::-1])[1].tobytes())
    seen.clear()
    read_media(tmp_path / "i.png", size=8, look=seen.__setitem__)
    assert list(seen) == [0] and np.array_equal(seen[0], stamped(0))


def test_pick():
    assert evenly_spaced(10, 4) == (0, 3, 6, 9) and evenly_spaced(9, 1) == (4,) and evenly_spaced(2, 4) == (0, 0, 1, 1)
    with pytest.raises(ValueError):
        evenly_spaced(0, 4)


def test_is_media():
    assert is_media("a/B.JPeG") and is_media(Path("x.webm"))
    assert not is_media("x.txt") and not is_media("jpg")


@pytest.mark.parametrize("shape", [(64, 64), (200, 300), (48, 301), (33, 40), (20, 90), (90, 20), (1, 1), (65, 63)])
def test_resize_has_a_twin_in_tensorflow(shape):
    tf = pytest.importorskip("tensorflow")
    frame = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    size = 64
    small = tf.image.resize(frame[None], [min(shape[0], size), min(shape[1], size)], method="area")
    large = tf.image.resize(tf.round(small), [size, size], method="bilinear")
    twin = tf.cast(tf.clip_by_value(tf.round(large), 0, 255), tf.uint8)[0].numpy()
    ours = resize(frame, size)
    assert ours.shape == (size, size, 3) and ours.dtype == np.uint8
    assert np.abs(ours.astype(int) - twin).max() <= 1
    if shape == (size, size):
        np.testing.assert_array_equal(ours, frame)


def test_importing_the_reader_is_cheap():
    code = "import sys, tfdetect.data.media.read, tfdetect.data.media.video; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], check=False).returncode == 0


def test_decoders_keep_quiet(tmp_path):
    path = write(tmp_path / "v.mp4", muxer={"movflags": "faststart"})
    code = f"from tfdetect.data.media.read import read_media; read_media({str(cut(path, 0.5))!r}, 4)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[3], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


REAL_FILES = Path(os.environ.get("TFDETECT_REAL_FILES", "no such folder"))
needs_real_files = pytest.mark.skipif(not REAL_FILES.is_dir(), reason="TFDETECT_REAL_FILES names no folder of real clips")


@needs_real_files
def test_real_clips_are_whole_and_upright():
    upright = {"decord_video_270.mov": (320, 568), "decord_video_180.mov": (568, 320)}
    paths = sorted((REAL_FILES / "clips_ok").iterdir())
    for path in paths:
        found = read_media(path, frames=2, size=32)
        assert "damaged" not in found.note, path.name
        assert (found.width, found.height) == upright.get(path.name, (found.width, found.height))
    assert len(paths) == 18


@needs_real_files
def test_real_corrupt_clips():
    reasons = {"clearkey": "encrypted", "init": "encrypted|no frames|audio only", "stsc": "no whole frame"}
    for path in sorted((REAL_FILES / "clips_corrupt").iterdir()):
        if path.name == "decord_corrupted.mp4":
            found = read_media(path, frames=50, size=32)
            assert found.total == 28 and found.note.startswith("damaged: 28 whole frames of 50")
            assert max(found.indices) == 27
            continue
        expected = next((text for part, text in reasons.items() if part in path.name), "no frames|audio only")
        with pytest.raises(MediaError, match=expected):
            read_media(path)
