"""The video reader: every frame is the right one, intact and upright; everything else is refused or noted in one sentence."""

import os
import re
import subprocess
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from stamped import HEIGHT, WIDTH, stamped, stamps, write

from tfdetect.data.media import containers
from tfdetect.data.media.frames import evenly_spaced, resize
from tfdetect.data.media.read import read_media
from tfdetect.data.media.sniff import MediaError, is_media
from tfdetect.limits import Decoding, Limits


def truncated(path: Path, share: float) -> Path:
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
def test_each_frame_is_the_requested_one(tmp_path, name):
    media = read_media(write(tmp_path / name, **FILES[name]), frames=17)
    assert media.indices == evenly_spaced(40, 17) == stamps(media)
    assert (media.total, media.width, media.height, media.note) == (40, WIDTH, HEIGHT, "")
    assert media.frames.shape == (17, HEIGHT, WIDTH, 3) and media.frames.dtype == np.uint8


def test_variable_frame_rate_by_count_and_by_time(tmp_path):
    times = [20 * i if i < 20 else 400 + 200 * (i - 20) for i in range(40)]  # 50 then 5 frames a second
    path = write(tmp_path / "v.mp4", times=times)
    assert stamps(read_media(path, frames=5)) == (0, 10, 20, 29, 39)
    media = read_media(path, frames=9, fps=2.0)  # 4 s centred in 4.2 s, so from 0.1 s on
    expected = tuple(max(i for i in range(40) if times[i] <= 100 + 500 * k) for k in range(9))
    assert stamps(media) == media.indices == expected


def test_fps_window_is_centred_and_a_short_video_repeats(tmp_path):
    path = write(tmp_path / "v.mp4", count=21)
    assert read_media(path, frames=3, fps=5).indices == (5, 10, 15)
    long = read_media(path, frames=40, fps=25)
    assert long.indices == tuple(min(i, 20) for i in range(40)) and long.note == "only 21 distinct frames for 40 requested"


def test_short_video_repeats_frames_with_a_note(tmp_path):
    media = read_media(write(tmp_path / "v.mp4", count=3), frames=8)
    assert stamps(media) == media.indices == (0, 0, 1, 1, 1, 1, 2, 2)
    assert media.note == "only 3 distinct frames for 8 requested" and media.total == 3


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_every_decoder_turns_a_rotated_video_upright(tmp_path, rotation):
    path = write(tmp_path / "v.mp4", rotation=rotation)
    by_pyav, by_decord, by_opencv = (read_media(path, frames=2, decoding=Decoding(name)) for name in ("pyav", "decord", "opencv"))
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
    media = read_media(path, frames=5, size=200)
    assert media.indices == (0, 10, 20, 29, 39) and media.frames.shape == (5, 200, 200, 3) and "OpenCV" in media.note


def test_size_resizes_the_native_frame(tmp_path):
    path = write(tmp_path / "v.mp4")
    native, small = read_media(path, frames=3), read_media(path, frames=3, size=50)
    np.testing.assert_array_equal(small.frames, [resize(frame, 50) for frame in native.frames])
    assert (small.width, small.height) == (WIDTH, HEIGHT)


@pytest.mark.parametrize("name", ["faststart.mov", "fragments.mp4", "h264.mkv", "motion.avi", "vp9.webm", "loop.gif"])
def test_truncated_video_yields_its_intact_frames_with_a_note(tmp_path, name):
    path = write(tmp_path / name, **FILES[name])
    intact = {frame.tobytes() for frame in read_media(path, frames=40).frames}
    media = read_media(truncated(path, 0.6), frames=40)
    assert re.match(rf"damaged: {media.total} (of \d+ )?frames intact", media.note) and 5 < media.total < 35
    assert all(frame.tobytes() in intact for frame in media.frames) and max(media.indices) < 35


@pytest.mark.parametrize("name", ["closed.mp4", "b_frames.avi", "mpeg2.mpg", "h264.mkv"])
@pytest.mark.parametrize("seed", range(3))
def test_overwritten_bytes_are_noted_and_no_frame_depends_on_them(tmp_path, name, seed):
    path = write(tmp_path / name, **FILES[name])
    intact = {frame.tobytes() for frame in read_media(path, frames=40).frames}
    data, rng = bytearray(path.read_bytes()), np.random.default_rng(seed)
    at = int(len(data) * rng.uniform(0.3, 0.7))
    data[at : at + 900] = rng.bytes(900)
    path.write_bytes(data)
    media = read_media(path, frames=40)
    assert media.note.startswith("damaged: ") and 0 < media.total < 40
    assert all(frame.tobytes() in intact for frame in media.frames)


def test_video_without_its_index_is_refused(tmp_path):
    with pytest.raises(MediaError, match="truncated: the file ends within its mdat box"):
        read_media(truncated(write(tmp_path / "v.mp4"), 0.7))


def test_encrypted_video_is_refused(tmp_path):
    path = write(tmp_path / "v.mp4")
    path.write_bytes(path.read_bytes().replace(b"avc1\0\0\0\0\0\0\0\1", b"encv\0\0\0\0\0\0\0\1"))
    with pytest.raises(MediaError, match="encrypted"):
        read_media(path)
    tracks = bytes.fromhex("1a45dfa380 18538067 8f 1654ae6b 8a ae88 6d8085 624082 503580".replace(" ", ""))
    (tmp_path / "v.mkv").write_bytes(tracks)
    with pytest.raises(MediaError, match="encrypted"):
        read_media(tmp_path / "v.mkv")


def test_audio_file_is_refused(tmp_path):
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
        (b"just words, not an image", "not an image or video"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp42", "no moov"),
        (b"\x1aE\xdf\xa3\x9fB\x86\x81\x01", "truncated"),
    ],
)
def test_other_files_are_refused_by_their_bytes(tmp_path, content, reason):
    (tmp_path / "v.mp4").write_bytes(content)
    with pytest.raises(MediaError, match=reason) as error:
        read_media(tmp_path / "v.mp4")
    assert str(tmp_path) not in str(error.value)


def test_errors_of_the_file_system_and_the_caller_pass_through(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_media(tmp_path / "none.mp4")
    path = write(tmp_path / "v.mp4", count=2)
    for wrong in ({"frames": 0}, {"fps": 0.0}, {"size": 0}):
        with pytest.raises(ValueError) as error:
            read_media(path, **wrong)
        assert not isinstance(error.value, MediaError)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"pixels": WIDTH * HEIGHT - 1}, r"8192 pixels \(128 x 64\) announced, at most 8191 are read \(--data.limits.pixels"),
        ({"frames": 4}, "5 frames announced, at most 4"),
        ({"seconds": 0.1}, "seconds announced, at most 0.1"),
        ({"bytes": 99}, "bytes, at most 99"),
    ],
)
def test_video_beyond_the_limits_is_refused_before_decoding(tmp_path, limits, message):
    path = write(tmp_path / "v.mp4", count=5)
    with pytest.raises(MediaError, match=message):
        read_media(path, limits=Limits(**limits))
    assert read_media(path, 5).total == 5


def test_callback_gets_each_chosen_frame_at_native_size(tmp_path):
    seen = {}
    media = read_media(write(tmp_path / "v.mp4", count=9), 3, size=16, on_frame=seen.__setitem__)
    assert tuple(seen) == media.indices == (0, 4, 8)
    native = read_media(tmp_path / "v.mp4", 3).frames
    assert all(np.array_equal(frame, seen[position]) for frame, position in zip(native, seen, strict=True))
    (tmp_path / "i.png").write_bytes(cv2.imencode(".png", stamped(0)[..., ::-1])[1].tobytes())
    seen.clear()
    read_media(tmp_path / "i.png", size=8, on_frame=seen.__setitem__)
    assert list(seen) == [0] and np.array_equal(seen[0], stamped(0))


def test_evenly_spaced():
    assert evenly_spaced(10, 4) == (0, 3, 6, 9) and evenly_spaced(9, 1) == (4,) and evenly_spaced(2, 4) == (0, 0, 1, 1)
    with pytest.raises(ValueError):
        evenly_spaced(0, 4)


def test_is_media():
    assert is_media("a/B.JPeG") and is_media(Path("x.webm"))
    assert not is_media("x.txt") and not is_media("jpg")


@pytest.mark.parametrize("shape", [(64, 64), (200, 300), (48, 301), (33, 40), (20, 90), (90, 20), (1, 1), (65, 63)])
def test_resize_can_be_repeated_in_tensorflow(shape):
    tf = pytest.importorskip("tensorflow")
    frame = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    size = 64
    small = tf.image.resize(frame[None], [min(shape[0], size), min(shape[1], size)], method="area")
    large = tf.image.resize(tf.round(small), [size, size], method="bilinear")
    twin = tf.cast(tf.clip_by_value(tf.round(large), 0, 255), tf.uint8)[0].numpy()
    resized = resize(frame, size)
    assert resized.shape == (size, size, 3) and resized.dtype == np.uint8
    assert np.abs(resized.astype(int) - twin).max() <= 1
    if shape == (size, size):
        np.testing.assert_array_equal(resized, frame)


@pytest.mark.parametrize(("shape", "size"), [((64, 64), 224), ((33, 40), 64), ((1, 5), 9)])
def test_sides_that_grow_are_those_of_opencv_but_for_halves(shape, size):
    """OpenCV's own sums differ from one processor to another, by less than 0.01 levels."""
    frame = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    exact = cv2.resize(frame.astype(np.float32), (size, size), interpolation=cv2.INTER_LINEAR)
    assert np.abs(resize(frame, size) - exact).max() <= 0.51


def test_importing_the_reader_does_not_import_tensorflow():
    code = "import sys, tfdetect.data.media.read, tfdetect.data.media.video; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], check=False).returncode == 0


def test_decoders_write_nothing_to_the_console(tmp_path):
    path = write(tmp_path / "v.mp4", muxer={"movflags": "faststart"})
    code = f"from tfdetect.data.media.read import read_media; read_media({str(truncated(path, 0.5))!r}, 4)"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[3], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


REAL_FILES = Path(os.environ.get("TFDETECT_REAL_FILES", "no such folder"))
needs_real_files = pytest.mark.skipif(not REAL_FILES.is_dir(), reason="TFDETECT_REAL_FILES is not set to a folder of real clips")


@needs_real_files
def test_real_clips_are_intact_and_upright():
    upright = {"decord_video_270.mov": (320, 568), "decord_video_180.mov": (568, 320)}
    paths = sorted((REAL_FILES / "clips_ok").iterdir())
    for path in paths:
        media = read_media(path, frames=2, size=32)
        assert "damaged" not in media.note, path.name
        assert (media.width, media.height) == upright.get(path.name, (media.width, media.height))
    assert len(paths) == 18


@needs_real_files
def test_real_corrupt_clips():
    reasons = {"clearkey": "encrypted", "init": "encrypted|no frames|audio only", "stsc": "none of its .* frames is intact"}
    for path in sorted((REAL_FILES / "clips_corrupt").iterdir()):
        if path.name == "decord_corrupted.mp4":
            media = read_media(path, frames=50, size=32)
            assert media.total == 28 and media.note.startswith("damaged: 28 of 50 frames intact")
            assert max(media.indices) == 27
            continue
        expected = next((text for name, text in reasons.items() if name in path.name), "no frames|audio only")
        with pytest.raises(MediaError, match=expected):
            read_media(path)
