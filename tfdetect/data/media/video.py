"""Decode a video file to its intact frames, upright, at native size; `read.py` is the public entry point.

decord reads the pixels; PyAV where decord fails or would be wrong; OpenCV where PyAV has no decoder. decord and OpenCV hide
damage: they repeat frames or paint over broken areas. So PyAV first demuxes the file (in 9 clips of 1 to 14 s, this took 0.03
of the time that decord needs for 16 frames), then decodes it without converting frames to RGB, and counts every decoder error
(0.7 of that time, since 16 evenly spaced frames make decord decode nearly everything as well). In a video of more than
CHECK_FRAMES frames, only the segments between key frames that contain chosen frames are decoded. A flipped bit that still
decodes goes unnoticed: common in HEVC, VP8, VP9 and MJPEG, rare in H.264.
"""

import bisect
import ctypes
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import av.logging
import cv2
import numpy as np

from tfdetect.data import deadline
from tfdetect.data.media import containers
from tfdetect.data.media.frames import LIMITS, FrameCallback, Media, frame_positions
from tfdetect.data.media.orientation import Orientation
from tfdetect.data.media.sniff import MediaError
from tfdetect.limits import Limits

# decord would load its libraries globally, and its libpng of 2019 would then break TensorFlow's PNG decoder.
_rtld_global, ctypes.RTLD_GLOBAL = ctypes.RTLD_GLOBAL, ctypes.RTLD_LOCAL  # type: ignore[misc]  # a Final in typeshed
try:
    import decord
except (ImportError, OSError):  # it has no wheels for ARM
    decord = None
finally:
    ctypes.RTLD_GLOBAL = _rtld_global  # type: ignore[misc]  # as above

CHECK_FRAMES = 1000
PASSES = 3  # maximum number of times that a frame is decoded: in its segment, in the whole video, and for its pixels
DECORD_PIXELS = 4_000_000  # per frame; decord decodes ahead, which took 360 MB for 24 frames of 3840 x 2160
_DECORD_FORMATS = ("mov", "matroska", "avi")  # decord seeks to wrong frames in MPEG streams
_ONE_FRAME_PER_PACKET = ("h264", "hevc", "vp9", "mjpeg", "av1", "libdav1d")
_HARMLESS_ERRORS = ("mmco", "co located POCs")  # logged for intact streams that were cut and joined losslessly
_DECODER_DELAY = 4  # frames that a decoder may hold back, for videos whose timestamps do not identify broken frames

_Squares = Callable[[np.ndarray], np.ndarray]  # (height, width, 3) -> (squares, height, width, 3), uint8 RGB
_PositionedFrames = Iterator[tuple[int, np.ndarray]]  # (position among the intact frames, (height, width, 3) uint8 RGB)


@dataclass
class _IntactFrames:
    """The intact frames of a video in presentation order, and the ones chosen to be read."""

    ids: list[int]  # the number of each frame's packet if the scan is exact, otherwise of the frame
    chosen: tuple[int, ...]  # positions in `ids`
    shapes: set[tuple[int, int, Orientation]]  # (height, width, orientation) of the decoded frames, upright
    packets: set[int] | None = None  # the packets that have to be decoded for them; None means all


def read_video(path: str | Path, frames: int, fps: float | None, to_squares: _Squares, limits: Limits,
               on_frame: FrameCallback | None) -> Media:  # fmt: skip
    """Implement `read.read_video` for a file whose first bytes are those of a video."""
    containers.silence_libraries()
    deadline.extend(size=os.path.getsize(path))
    try:
        with containers.decodable_path(path) as name:
            return _read(name, frames, fps, to_squares, limits, on_frame)
    except (PermissionError, FileNotFoundError):
        raise
    except (av.FFmpegError, cv2.error, OverflowError) as error:
        # These include FFmpeg's MemoryError, because damaged headers request huge buffers; Python's passes through.
        reason = getattr(error, "strerror", None) or error
        raise MediaError(f"damaged video (decoder error: {str(reason)!r})") from None


def _read(name: str, frames: int, fps: float | None, to_squares: _Squares, limits: Limits,
          on_frame: FrameCallback | None) -> Media:  # fmt: skip
    """Inspect the container, list the packets, find the intact frames and read the chosen ones."""
    truncation, has_key_system = containers.inspect(name, limits)
    try:
        scan = containers.scan_packets(name, truncation, limits)
    except containers.NoDecoder:
        if truncation:
            raise MediaError(f"truncated: {truncation}") from None
        return _read_with_opencv(name, frames, fps, to_squares, on_frame, limits)
    deadline.extend(pixels=PASSES * len(scan.pts) * scan.frame_pixels)
    intact = _find_intact_frames(name, scan, frames, fps)
    damaged = bool(scan.broken or scan.truncation)
    if damaged and has_key_system:
        raise MediaError("encrypted (it holds data for a key system, pssh, and does not decode): decrypt it first")
    if not intact.ids:
        raise MediaError(f"damaged: none of its {max(scan.declared, len(scan.pts))} frames is intact")
    pixels, width, height = _read_chosen_frames(name, scan, intact, to_squares, on_frame, not damaged)
    order = sorted(range(len(scan.pts)), key=lambda n: scan.pts[n] or 0) if damaged and scan.exact else intact.ids
    rank = {number: i for i, number in enumerate(order)}
    indices = tuple(rank[intact.ids[i]] for i in intact.chosen)
    skew = max(orientation.skew_degrees for _, _, orientation in intact.shapes)
    skew_note = f"its display matrix rotates it by {skew} degrees, which is ignored" if skew else ""
    damage_note = _damage_note(scan, len(intact.ids)) if damaged else ""
    note = "; ".join(filter(None, (damage_note, skew_note, _repeat_note(intact.chosen))))
    return Media(pixels, indices, len(intact.ids), width, height, note)


def _find_intact_frames(name: str, scan: containers.PacketScan, frames: int, fps: float | None) -> _IntactFrames:
    """Decode the video to find its intact frames and choose among them; adds broken packets to `scan.broken`."""
    if _can_decode_partially(scan):
        ids = sorted(range(len(scan.pts)), key=lambda n: scan.pts[n] or 0)
        chosen = frame_positions([scan.time_base * (scan.pts[n] or 0) for n in ids], frames, fps)
        packets = _segment_packets(scan, {ids[i] for i in chosen})
        decoded = {number: _upright_shape(frame) for number, frame in _decode(name, scan, packets)}
        if not scan.broken and packets <= decoded.keys():
            return _IntactFrames(ids, chosen, set(decoded.values()), packets)
        scan.broken.clear()
    times, shapes = {}, set()
    for number, frame in _decode(name, scan):
        times[number] = number / scan.fps if frame.pts is None else frame.pts * scan.time_base
        shapes.add(_upright_shape(frame))
    if -1 in times:  # a frame has a timestamp that no packet has: number the frames instead
        scan.exact = False
        return _find_intact_frames(name, scan, frames, fps)
    # Some decoders drop broken frames silently; intact ones are dropped only at the start.
    if times and not scan.broken and _has_one_frame_per_packet(scan):
        first = min(times.values())
        scan.broken = {n for n, pts in enumerate(scan.pts) if n not in times and (pts or 0) * scan.time_base > first}
    ids = _without_broken(scan, list(times))
    return _IntactFrames(ids, frame_positions([times[n] for n in ids], frames, fps) if ids else (), shapes)


def _can_decode_partially(scan: containers.PacketScan) -> bool:
    """Return whether the video is long and its packets identify its frames well enough to decode only what is needed."""
    suspect = scan.broken or scan.truncation or _has_leading_frames(scan)
    return len(scan.pts) > CHECK_FRAMES and _has_one_frame_per_packet(scan) and not suspect


def _has_one_frame_per_packet(scan: containers.PacketScan) -> bool:
    """Return whether each packet holds one frame, identified by its timestamp."""
    return scan.exact and scan.codec in _ONE_FRAME_PER_PACKET and not scan.discards


def _segment_packets(scan: containers.PacketScan, ids: set[int]) -> set[int]:
    """Return all packets of the segments, from key frame to key frame, that contain one of `ids`."""
    starts = [n for n, is_key in enumerate(scan.is_key) if is_key or n == 0] + [len(scan.is_key)]
    ends = {bisect.bisect_right(starts, number) for number in ids}
    return {n for end in ends for n in range(starts[end - 1], starts[end])}


def _has_leading_frames(scan: containers.PacketScan) -> bool:
    """Return whether some frames are shown before the key frame that precedes them in the file: decord then seeks wrongly."""
    key_pts: int | None = None
    for pts, is_key in zip(scan.pts, scan.is_key, strict=True):
        key_pts = pts if is_key else key_pts
        if pts is not None and key_pts is not None and pts < key_pts:
            return True
    return False


def _decode(name: str, scan: containers.PacketScan, wanted: set[int] | None = None) -> Iterator[tuple[int, Any]]:
    """Yield (id, av.VideoFrame) for each frame that decodes; adds packets that do not to `scan.broken`.

    An error often shows only some frames after the damage began. So after one, the frames that the decoder still holds back
    are dropped, and decoding resumes at the next key frame.
    """
    packet_of = {pts: n for n, pts in enumerate(scan.pts)}
    count, failed, pending = 0, False, False
    with av.logging.Capture() as log, containers.open_video(name, max_pixels=scan.max_pixels) as (container, stream, _):
        codec = stream.codec_context
        packets = itertools.chain(containers.iter_packets(container, stream, scan), [None])  # None flushes the decoder
        for n, packet in enumerate(packets):
            flush = packet is None or (wanted is not None and n not in wanted)
            failed = failed and (flush or not packet.is_keyframe)
            if failed or (flush and not pending):
                continue
            log.clear()
            frames, failed = _decode_packet(codec, packet, flush, n in scan.corrupt)
            pending = not flush
            if failed or any(text and not text.startswith(_HARMLESS_ERRORS) for _, module, text in log if module == codec.name):
                scan.broken.add(n - 1 if flush else n)
            for frame in frames:
                number = packet_of.get(frame.pts, -1) if scan.exact else count
                count += 1
                if frame.is_corrupt:
                    scan.broken.add(number)
                else:
                    yield number, frame


def _decode_packet(codec: Any, packet: Any, flush: bool, corrupt: bool) -> tuple[list[Any], bool]:
    """Return the frames that a packet yields, or the remaining ones with `flush`, and whether decoding failed."""
    try:
        if not flush and corrupt:
            raise av.error.InvalidDataError(0, "corrupt packet")
        frames, failed = codec.decode(None if flush else packet), False
    except MemoryError:
        raise
    except av.FFmpegError:
        frames, failed = [], True
    if flush or failed:
        codec.flush_buffers()
    return frames, failed


def _without_broken(scan: containers.PacketScan, ids: list[int]) -> list[int]:
    """Return those of the decoded frames' ids, in presentation order, that depend on no broken packet."""
    if not scan.broken:
        return ids
    if not scan.exact:
        return [number for number in ids if number < min(scan.broken) - _DECODER_DELAY]
    intact, damaged, valid_from = set(), False, None
    for n, (pts, is_key) in enumerate(zip(scan.pts, scan.is_key, strict=True)):
        if is_key:  # frames shown before a key frame may depend on damage that precedes it
            valid_from, damaged = pts if damaged else None, False
        damaged = damaged or n in scan.broken
        if not damaged and (valid_from is None or (pts or 0) >= valid_from):
            intact.add(n)
    return [number for number in ids if number in intact]


def _upright_shape(frame: Any) -> tuple[int, int, Orientation]:
    """Return (height, width) of an av.VideoFrame once upright, and its orientation."""
    orientation = Orientation.from_frame(frame)
    height, width = (frame.width, frame.height) if orientation.transposed else (frame.height, frame.width)
    return height, width, orientation


def _read_chosen_frames(name: str, scan: containers.PacketScan, intact: _IntactFrames, to_squares: _Squares,
                        on_frame: FrameCallback | None, undamaged: bool) -> tuple[np.ndarray, int, int]:  # fmt: skip
    """Decode the chosen frames with the fastest decoder that reads them correctly; returns what `_collect` does."""
    if undamaged and decord is not None and _can_use_decord(scan, intact):
        try:
            return _collect(intact.chosen, to_squares, on_frame, _read_with_decord(name, intact))
        except (decord.DECORDError, RuntimeError, IndexError):  # such as AV1: its FFmpeg is of 2019
            pass
    return _collect(intact.chosen, to_squares, on_frame, _read_with_pyav(name, scan, intact))


def _can_use_decord(scan: containers.PacketScan, intact: _IntactFrames) -> bool:
    """Return whether decord finds the chosen frames, in the same stream, upright, without buffering too much."""
    supported = scan.exact and scan.num_streams == 1 and not scan.discards and scan.format.startswith(_DECORD_FORMATS)
    if not supported or len(intact.shapes) != 1 or _has_leading_frames(scan):
        return False
    height, width, orientation = next(iter(intact.shapes))
    return height * width <= DECORD_PIXELS and not orientation.is_reflection and not orientation.skew_degrees


def _collect(chosen: Sequence[int], to_squares: _Squares, on_frame: FrameCallback | None,
             decoded: _PositionedFrames) -> tuple[np.ndarray, int, int]:  # fmt: skip
    """Stack the squares of the decoded frames in the order of `chosen`.

    Returns ((frames x squares, height, width, 3) uint8, native width, native height). Each frame is reduced to its squares before
    the next one is decoded, so that memory holds one native frame at most besides the result.
    """
    clip, missing, native = None, set(chosen), (0, 0)
    for position, frame in decoded:
        native = frame.shape[:2] if clip is None else native
        if on_frame:
            on_frame(position, frame)
        squares = to_squares(frame)
        clip = np.empty((len(chosen), *squares.shape), np.uint8) if clip is None else clip
        if squares.shape != clip.shape[1:]:
            raise MediaError("the frame size changes within the video: read it with a fixed size and one crop per frame")
        clip[[k for k, wanted in enumerate(chosen) if wanted == position]] = squares
        missing.discard(position)
    if clip is None or missing:
        raise MediaError("damaged: frames that decoded once failed to decode a second time")
    return clip.reshape(-1, *clip.shape[2:]), native[1], native[0]


def _read_with_decord(name: str, intact: _IntactFrames) -> _PositionedFrames:
    """Raises RuntimeError if decord disagrees with PyAV about the number or shape of frames: it is then wrong."""
    decord.logging.set_level(decord.logging.QUIET)
    reader = decord.VideoReader(name, num_threads=1)  # freed with this generator: an idle reader grows by hundreds of MB
    if len(reader) != len(intact.ids):
        raise RuntimeError("decord finds another number of frames")
    for position in sorted(set(intact.chosen)):
        frame = reader[position].asnumpy()
        if frame.shape != (*next(iter(intact.shapes))[:2], 3):
            raise RuntimeError("decord returns another shape")
        yield position, frame


def _read_with_pyav(name: str, scan: containers.PacketScan, intact: _IntactFrames) -> _PositionedFrames:
    """PyAV does not rotate frames, so they are turned upright here."""
    positions = {intact.ids[i]: i for i in intact.chosen}
    for number, frame in _decode(name, scan, intact.packets):
        if number in positions:
            yield positions.pop(number), Orientation.from_frame(frame).apply(frame.to_ndarray(format="rgb24"))
        if not positions:
            return


def _read_with_opencv(name: str, frames: int, fps: float | None, to_squares: _Squares, on_frame: FrameCallback | None = None,
                      limits: Limits = LIMITS) -> Media:  # fmt: skip
    """Last resort: read the video once to count its frames and once more to take the chosen ones."""
    times = [seconds for seconds, _ in _iter_opencv(name, limits)]
    if not times:
        raise MediaError("no available decoder can read this video's codec: convert it to H.264 first")
    chosen = frame_positions(times, frames, fps)
    grabbed = enumerate(_iter_opencv(name, limits))
    decoded = ((i, capture.retrieve()[1][..., ::-1]) for i, (_, capture) in grabbed if i in chosen)
    pixels, width, height = _collect(chosen, to_squares, on_frame, decoded)
    note = "; ".join(filter(None, ("read by OpenCV, which hides damage", _repeat_note(chosen))))
    return Media(pixels, chosen, len(times), width, height, note)


def _iter_opencv(name: str, limits: Limits) -> Iterator[tuple[float, Any]]:
    """Yield (seconds, capture ready to retrieve) for each frame. Raises MediaError if the video exceeds `limits`."""
    capture = cv2.VideoCapture(name)
    width, height = (int(capture.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    try:
        containers.check_limits(width, height, capture.get(cv2.CAP_PROP_FRAME_COUNT), 0, limits)
        while capture.grab():
            yield capture.get(cv2.CAP_PROP_POS_MSEC) / 1000, capture
    finally:
        capture.release()


def _damage_note(scan: containers.PacketScan, intact: int) -> str:
    total = max(scan.declared, len(scan.pts))
    count = f"{intact} of {total}" if total > intact else str(intact)
    return f"damaged: {count} frames intact" + (scan.truncation and f", {scan.truncation}")


def _repeat_note(chosen: Sequence[int]) -> str:
    count = len(set(chosen))
    return f"only {count} distinct frame{'s' * (count > 1)} for {len(chosen)} requested" if count < len(chosen) else ""
