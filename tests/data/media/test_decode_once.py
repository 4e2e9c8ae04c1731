"""Decoding only what is needed gives the frames that decoding everything gives, and damage in needed frames is found."""

import subprocess
import sys
from importlib.util import find_spec

import av
import numpy as np
import pytest
from stamped import stamped, stamps, write, write_frames

from tfdetect.data.media import containers, video
from tfdetect.data.media.av1_units import FrameReader
from tfdetect.data.media.pyav_decode import decode
from tfdetect.data.media.read import read_media
from tfdetect.data.media.selection import select_frames
from tfdetect.data.media.sniff import MediaError
from tfdetect.limits import Decoding

ALL = Decoding(check="all")
COUNT = 60
_X265 = "log-level=none:open-gop={}:bframes=3:keyint=12:min-keyint=12"
FILES = {
    "h264.mp4": {"g": "12", "bf": "0"},
    "b_frames.mp4": {"g": "12", "bf": "3"},
    "one_gop.mp4": {"g": "250", "bf": "3"},
    "open_gop.mp4": {"g": "12", "x264_params": "open-gop=1:bframes=3"},
    "open_gop.mkv": {"g": "12", "x264_params": "open-gop=1:bframes=3:b-pyramid=none"},
    "refresh.mp4": {"g": "12", "x264_params": "intra-refresh=1"},  # without key frames but the first
    "hevc.mp4": {"codec": "libx265", "x265_params": _X265.format(0)},
    "hevc_open.mp4": {"codec": "libx265", "x265_params": _X265.format(1)},
    "hevc_open.ts": {"codec": "libx265", "x265_params": _X265.format(1)},
    "vp9.webm": {"codec": "libvpx-vp9", "g": "12", "auto_alt_ref": "1", "lag_in_frames": "12", "cpu_used": "8"},
    "vp8.webm": {"codec": "libvpx", "g": "12", "auto_alt_ref": "1", "lag_in_frames": "12"},
    "av1.mp4": {"codec": "libsvtav1", "g": "12", "preset": "12"},
    "av1.mkv": {"codec": "libsvtav1", "g": "12", "preset": "12"},
    "mpeg4.mp4": {"codec": "mpeg4", "g": "12", "bf": "0"},
    "mpeg4_b.mp4": {"codec": "mpeg4", "g": "12", "bf": "2"},
    "mpeg4.avi": {"codec": "mpeg4", "g": "12", "bf": "2"},
    "motion.avi": {"codec": "mjpeg", "pix": "yuvj420p"},
    "loop.gif": {"codec": "gif", "pix": "rgb8"},
    "h264.ts": {"g": "12", "bf": "3"},
    "mpeg2.ts": {"codec": "mpeg2video", "g": "12", "bf": "2"},
    "mpeg1.mpg": {"codec": "mpeg1video", "g": "12", "bf": "2"},
    "fragments.mp4": {"g": "12", "bf": "3", "muxer": {"movflags": "frag_keyframe+empty_moov"}},
    "edited.mp4": {"g": "12", "bf": "3", "muxer": {"use_editlist": "1"}},
    "rotated.mp4": {"g": "12", "bf": "3", "rotation": 90},
    "variable.mp4": {"g": "12", "bf": "2", "times": [20 * i if i < 30 else 600 + 200 * (i - 30) for i in range(COUNT)]},
}  # fmt: skip
CHOICES = [(1, None), (2, None), (5, None), (17, None), (4, 3.0), (3, 25.0), (90, None)]


def facts(media):
    return media.indices, media.total, media.width, media.height, media.note


def require_equal(path):
    """Require the frames and notes of both checks to be equal for many choices of frames; return what was decoded."""
    decoded = []
    for frames, fps in CHOICES:
        used, whole = read_media(path, frames, fps), read_media(path, frames, fps, decoding=ALL)
        assert facts(used) == facts(whole)
        np.testing.assert_array_equal(used.frames, whole.frames)
        decoded.append((used.decoded, whole.decoded))
    return decoded


@pytest.mark.parametrize("name", FILES)
def test_needed_frames_are_those_of_the_whole_video(tmp_path, name):
    path = write(tmp_path / name, count=COUNT, **FILES[name])
    require_equal(path)
    media = read_media(path, 17)
    if name != "rotated.mp4":
        assert media.total == COUNT and media.note == "" and stamps(media) == media.indices


@pytest.mark.parametrize("name", ["h264.ts", "hevc_open.ts", "mpeg2.ts"])
def test_joined_recordings(tmp_path, name):
    path = write(tmp_path / name, count=COUNT, **FILES[name])
    path.write_bytes(2 * path.read_bytes())
    require_equal(path)
    assert stamps(read_media(path, 120)) == 2 * tuple(range(COUNT))


def test_recording_that_begins_within_a_group_of_pictures(tmp_path):
    path = write(tmp_path / "a.ts", count=COUNT, g="12", bf="2")
    data = path.read_bytes()
    for start in range(0, len(data) // 2, 188 * 5):
        path.write_bytes(data[start:])
        require_equal(path)


SAVED = {"b_frames.mp4": 0.75, "h264.mp4": 0.9, "hevc.mp4": 0.75, "hevc_open.mp4": 0.8, "vp9.webm": 0.9, "av1.mp4": 0.9,
         "mpeg4.mp4": 0.9, "mpeg4_b.mp4": 0.9, "motion.avi": 0.1}  # fmt: skip


@pytest.mark.parametrize("name", SAVED)
def test_what_nothing_needs_is_not_decoded(tmp_path, name):
    path = write(tmp_path / name, count=COUNT, **FILES[name])
    media = read_media(path, 5)
    assert media.decoded <= SAVED[name] * COUNT and media.total == COUNT
    assert read_media(path, 5, decoding=ALL).decoded == COUNT


def test_a_file_is_decoded_once(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(video, "decode", lambda *arguments: calls.append(1) or decode(*arguments))
    for name in ("b_frames.mp4", "open_gop.mp4", "loop.gif", "mpeg2.ts"):
        path = write(tmp_path / name, count=COUNT, **FILES[name])
        for check in ("used", "all"):
            calls.clear()
            read_media(path, 5, decoding=Decoding(check=check))
            assert len(calls) == 1, (name, check)


def test_packets_of_the_chosen_segment_alone_are_decoded(tmp_path):
    path = write(tmp_path / "v.mp4", count=120, g="10", bf="0")
    selection = select_frames(scan := containers.scan_packets(str(path), ""), 1, None, "used")
    assert selection.chosen == (60,) and selection.packets == {60}
    assert [number for number, _ in decode(str(path), scan, selection)] == [60]
    selection = select_frames(scan, 1, 2.0, "used")
    assert [number for number, _ in decode(str(path), scan, selection)] == list(range(50, selection.chosen[0] + 1))


def test_timestamps_that_contradict_the_order_of_decoding_are_not_trusted(tmp_path):
    path = write(tmp_path / "v.webm", codec="libvpx-vp9", count=20, g="20", deadline="realtime", cpu_used="8")
    scan = containers.scan_packets(str(path), "")
    assert select_frames(scan, 3, None, "used").packets is not None
    scan.pts[3] += scan.pts[8] + 1
    assert select_frames(scan, 3, None, "used").packets is None, "VP9 does not change the order of frames"


def damage(path, packet):
    """Overwrite the middle of a packet of a video, with a fixed pattern that no decoder accepts."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        start, size = packets[packet].pos, packets[packet].size
    data = bytearray(path.read_bytes())
    data[start + 5 : start + size] = b"\xff" * (size - 5)
    path.write_bytes(data)


@pytest.mark.parametrize("packet", [0, 14, 25])
def test_damage_in_a_needed_frame_is_found(tmp_path, packet):
    path = write(tmp_path / "v.mp4", count=COUNT, g="12", bf="0")
    intact = {frame.tobytes() for frame in read_media(path, COUNT).frames}
    damage(path, packet)
    used, whole = read_media(path, 20), read_media(path, 20, decoding=ALL)
    assert used.note.startswith("damaged") and facts(used) == facts(whole) and used.total < COUNT
    np.testing.assert_array_equal(used.frames, whole.frames)
    assert all(frame.tobytes() in intact for frame in used.frames)


def test_damage_in_a_frame_that_nothing_needs_is_seen_by_the_check_of_all_frames(tmp_path):
    path = write(tmp_path / "v.mp4", count=COUNT, g="12", bf="0")
    intact = read_media(path, 2)
    damage(path, 20)  # frames 0 and 59 are chosen
    used, whole = read_media(path, 2), read_media(path, 2, decoding=ALL)
    np.testing.assert_array_equal(used.frames, intact.frames)
    assert facts(used) == facts(intact) and used.decoded < COUNT
    assert whole.note.startswith("damaged") and whole.total < COUNT


def test_skipped_b_frame_may_be_damaged(tmp_path):
    path = write(tmp_path / "v.mp4", count=COUNT, g="60", x264_params="bframes=2:b-pyramid=none:b-adapt=0:scenecut=0")
    scan = containers.scan_packets(str(path), "")
    order = np.argsort(np.argsort(scan.pts))
    skipped = next(n for n in range(1, COUNT) if order[n] < n and order[n] not in (0, 59))
    intact = read_media(path, 2)
    damage(path, skipped)
    np.testing.assert_array_equal(read_media(path, 2).frames, intact.frames)
    assert read_media(path, 2, decoding=ALL).note.startswith("damaged")


def test_callbacks_are_told_to_start_again(tmp_path):
    path = write(tmp_path / "v.mp4", count=COUNT, g="12", bf="0")
    damage(path, 40)
    seen, restarts = {}, []
    media = read_media(path, 20, on_frame=seen.__setitem__, on_restart=lambda: restarts.append(len(seen)) or seen.clear())
    assert len(restarts) == 1 and restarts[0] > 5, "frames came before the damage"
    assert len(seen) == 20 and max(seen) == media.total - 1


def test_packets_without_a_frame_are_no_frames(tmp_path):
    """In MPEG-4, a picture that is not coded repeats the frame before it: decoders give no frame for its packet."""
    path = write(tmp_path / "v.avi", codec="mpeg4", count=COUNT, g="60", bf="0")
    assert select_frames(containers.scan_packets(str(path), ""), 5, None, "used").packets is not None
    repeated = tmp_path / "repeated.avi"
    with av.open(str(path)) as source, av.open(str(repeated), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for n, packet in enumerate(packet for packet in source.demux(video=0) if packet.size):
            copy = packet
            if n % 20 == 13:  # start code, P, no second has passed, a marker, 5 bits of time, a marker, not coded
                copy = av.Packet(bytes.fromhex("000001b6") + (0b01010000_01000111 | (n % 25) << 7).to_bytes(2, "big"))
                copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
            copy.stream = stream
            target.mux(copy)
    require_equal(repeated)
    assert read_media(repeated, COUNT).total < COUNT


@pytest.mark.parametrize("preset", ["8", "12"])
def test_av1_frames_that_nothing_refers_to_are_skipped(tmp_path, preset):
    path = write(tmp_path / "v.mkv", codec="libsvtav1", count=COUNT, g="60", preset=preset)
    scan = containers.scan_packets(str(path), "")
    assert len(scan.unreferenced) > 5, "the encoder makes some"
    intact = read_media(path, COUNT)
    require_equal(path)
    for skipped in scan.unreferenced:  # every other frame without each of them in turn
        selection = select_frames(scan, COUNT, None, "used")
        selection.chosen = tuple(at for at in selection.chosen if selection.ids[at] != skipped)
        decoded = dict(decode(str(path), scan, selection))
        assert skipped not in decoded and len(decoded) == COUNT - 1 and not scan.broken
        for at in selection.chosen[::7]:
            np.testing.assert_array_equal(decoded[selection.ids[at]].to_ndarray(format="rgb24"), intact.frames[at])


def test_headers_of_av1_that_end_early_or_are_unknown_tell_nothing(tmp_path):
    path = write(tmp_path / "v.mkv", count=20, g="60", codec="libsvtav1", preset="10")
    with av.open(str(path)) as container:
        extradata = container.streams.video[0].codec_context.extradata
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    reader = FrameReader(extradata)
    unreferenced = [packet for packet in packets if reader.is_unreferenced(packet)]
    assert unreferenced and not reader.is_unreferenced(packets[0]), "a key frame"
    assert not FrameReader(b"").is_unreferenced(unreferenced[0]), "without a sequence header"
    for packet in unreferenced:
        assert not reader.is_unreferenced(packet[:3]) and not reader.is_unreferenced(b"")
        assert not reader.is_unreferenced(packet + packets[0]), "more than one frame"
        assert not reader.is_unreferenced(bytes([packet[0] | 0b100]) + packet[1:]), "a layer"


@pytest.mark.skipif(not find_spec("decord"), reason="decord has no wheels for this processor")
def test_decoders_agree_on_h264(tmp_path):
    path = write_frames(tmp_path / "v.mp4", [np.dstack([stamped(i)[..., 0]] * 3) for i in range(30)], options={"bf": "2"})
    frames = [read_media(path, 7, decoding=Decoding(decoder)).frames for decoder in ("auto", "pyav", "decord", "opencv")]
    assert all(np.array_equal(frames[0], other) for other in frames[1:])


def test_decord_is_imported_only_where_it_is_asked_for(tmp_path):
    path = write(tmp_path / "v.mp4", count=5)
    read = f"from tfdetect.data.media.read import read_media; read_media({str(path)!r}, 2)"
    code = f"import sys; {read}; sys.exit('decord' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_codec_without_a_decoder_of_pyav(tmp_path, monkeypatch):
    path = write(tmp_path / "v.mp4")

    def no_decoder(*_):
        raise containers.NoDecoder

    monkeypatch.setattr(containers, "scan_packets", no_decoder)
    assert read_media(path, 2).note == "read by OpenCV, which hides damage"
    with pytest.raises(MediaError, match="PyAV has no decoder"):
        read_media(path, 2, decoding=Decoding("pyav"))
