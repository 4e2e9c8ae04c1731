"""Decode a video file to its intact frames, upright, at native size; `read.py` is the public entry point.

PyAV lists the packets, which says what frames there are and which ones to take, then decodes those that are needed, once, and
counts every decoder error (`_read_once`). At the first sign of damage the whole file is decoded instead, to find out which of
its frames are intact, and these again for their pixels. A flipped bit that still decodes goes unnoticed: common in HEVC, VP8, VP9
and MJPEG, rare in H.264. With the check "used", so does damage in frames that nothing needs.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from tfdetect.data import deadline, headway
from tfdetect.data.media import containers
from tfdetect.data.media.containers import PacketScan
from tfdetect.data.media.frames import FrameCallback, Media, frame_positions
from tfdetect.data.media.orientation import Orientation
from tfdetect.data.media.other_decoders import PositionedFrames, Unsuitable, iter_opencv, read_with_decord, read_with_opencv
from tfdetect.data.media.pyav_decode import decode, without_broken
from tfdetect.data.media.selection import Selection, has_one_frame_per_packet, select_frames
from tfdetect.data.media.sniff import MediaError, media_kind
from tfdetect.limits import Decoding, Limits

PASSES = 3  # maximum number of times that a frame is decoded: for its pixels, to find the damage, and again for its pixels
OTHER_DECODERS = {"decord": read_with_decord, "opencv": read_with_opencv}

_Squares = Callable[[np.ndarray], np.ndarray]  # (height, width, 3) -> (squares, height, width, 3), uint8 RGB
_Pixels = tuple[np.ndarray, int, int]  # ((frames x squares, height, width, 3) uint8, native width, native height)


class Consumer:
    """What becomes of the chosen frames: squares, and whatever `on_frame` makes of them."""

    def __init__(self, to_squares: _Squares, on_frame: FrameCallback | None = None,
                 on_restart: Callable[[], None] | None = None) -> None:  # fmt: skip
        self.to_squares, self.on_frame, self.on_restart, self.is_used = to_squares, on_frame, on_restart, False

    def collect(self, chosen: Sequence[int], decoded: PositionedFrames) -> _Pixels:
        """Stack the squares of the decoded frames in the order of `chosen`. Raises MediaError if one of them is missing.

        Each frame is reduced to its squares before the next one is decoded, so that memory holds one native frame at most besides
        the result. If a first attempt ended midway, `on_restart` is called before frames are passed to `on_frame` again.
        """
        clip, missing, native = None, set(chosen), (0, 0)
        places: dict[int, list[int]] = {}
        for place, position in enumerate(chosen):
            places.setdefault(position, []).append(place)
        if self.is_used and self.on_restart:
            self.on_restart()
        for position, frame in decoded:
            native = frame.shape[:2] if clip is None else native
            self.is_used = True
            if self.on_frame:
                self.on_frame(position, frame)
            squares = self.to_squares(frame)
            clip = np.empty((len(chosen), *squares.shape), np.uint8) if clip is None else clip
            if squares.shape != clip.shape[1:]:
                raise MediaError("the frame size changes within the video: read it with a fixed size and one crop per frame")
            clip[places.get(position, [])] = squares
            missing.discard(position)
        if clip is None or missing:
            raise MediaError("damaged: frames that decoded once failed to decode a second time")
        return clip.reshape(-1, *clip.shape[2:]), native[1], native[0]


def read_video(path: str | Path, frames: int, fps: float | None, consumer: Consumer, limits: Limits,
               decoding: Decoding) -> Media:  # fmt: skip
    """Implement `read.read_video` for a file whose first bytes are those of a video."""
    containers.silence_libraries()
    deadline.extend(size=os.path.getsize(path))
    try:
        with containers.decodable_path(path) as name, headway.beside(path):
            return _read(name, frames, fps, consumer, limits, decoding)
    except (PermissionError, FileNotFoundError):
        raise
    except (av.FFmpegError, cv2.error, OverflowError) as error:
        # These include FFmpeg's MemoryError, because damaged headers request huge buffers; Python's passes through.
        reason = getattr(error, "strerror", None) or error
        raise MediaError(f"damaged video (decoder error: {str(reason)!r})") from None


def frame_times(path: str | Path, total: int, limits: Limits) -> list[float]:
    """Return when each of the `total` intact frames of a video is shown, in seconds after the first, ascending.

    The timestamps of the packets say so; where they do not, or not all frames are intact, frames are taken to be as far apart as
    the frame rate says. Raises MediaError if the file is no video that PyAV can decode.
    """
    if media_kind(path) != "video":
        raise MediaError("expected a video, but the file is an image")
    containers.silence_libraries()
    try:
        with containers.decodable_path(path) as name:
            scan = containers.scan_packets(name, containers.inspect(name, limits)[0], limits)
    except (av.FFmpegError, containers.NoDecoder) as error:
        raise MediaError(f"no timestamps ({error})") from None
    if scan.exact and len(scan.pts) == total:
        pts = sorted(at or 0 for at in scan.pts)
        return [(at - pts[0]) * scan.time_base for at in pts]
    return [number / (scan.fps or 25) for number in range(total)]


def _read(name: str, frames: int, fps: float | None, consumer: Consumer, limits: Limits, decoding: Decoding) -> Media:
    """Inspect the container, list the packets, and read the file once or, if that fails, thoroughly."""
    truncation, has_key_system = containers.inspect(name, limits)
    try:
        scan = containers.scan_packets(name, truncation, limits)
    except containers.NoDecoder:
        if truncation:
            raise MediaError(f"truncated: {truncation}") from None
        if decoding.decoder == "pyav":
            raise MediaError("PyAV has no decoder for this video's codec: convert it to H.264 first") from None
        return _read_with_opencv(name, frames, fps, consumer, limits)
    deadline.extend(pixels=PASSES * len(scan.pts) * scan.frame_pixels)
    selection = select_frames(scan, frames, fps, decoding.check)
    if selection and (media := _read_once(name, scan, selection, consumer, decoding)):
        return media
    return _read_thoroughly(name, scan, frames, fps, consumer, decoding, has_key_system)


def _read_once(name: str, scan: PacketScan, selection: Selection, consumer: Consumer, decoding: Decoding) -> Media | None:
    """Decode the selected packets and read the chosen frames; None at the first sign of damage, or of frames that no packet
    announced."""
    positions, numbers, converter = selection.positions, list[int](), VideoReformatter()

    def checked_frames() -> PositionedFrames:
        for number, frame in decode(name, scan, selection):
            if scan.broken or number < 0:
                return
            numbers.append(number)
            selection.shapes.add(_upright_shape(frame))
            if number in positions and decoding.decoder not in OTHER_DECODERS:
                yield positions[number], _upright_pixels(frame, converter)

    try:
        if decoding.decoder in OTHER_DECODERS:
            list(checked_frames())
        else:
            pixels = consumer.collect(selection.chosen, checked_frames())
    except (MediaError, av.FFmpegError):  # a chosen frame is missing or cannot be used: the thorough way tells why
        numbers.clear()
    rank = {number: i for i, number in enumerate(selection.ids)}
    ranks = [rank.get(number, -1) for number in numbers]
    wanted = positions if selection.packets is not None else rank
    if scan.broken or ranks != sorted(set(ranks)) or not wanted.keys() <= set(numbers):
        scan.broken.clear()
        return None
    if decoding.decoder in OTHER_DECODERS:
        pixels = _read_checked(name, scan, selection, consumer, decoding)
    return _media(pixels, selection.chosen, selection, "", len(numbers))


def _read_thoroughly(name: str, scan: PacketScan, frames: int, fps: float | None, consumer: Consumer, decoding: Decoding,
                     has_key_system: bool) -> Media:  # fmt: skip
    """Decode every frame to find the intact ones, then read the chosen ones among them."""
    intact = _find_intact_frames(name, scan, frames, fps)
    damaged = bool(scan.broken or scan.truncation)
    if damaged and has_key_system:
        raise MediaError("encrypted (it holds data for a key system, pssh, and does not decode): decrypt it first")
    if not intact.ids:
        raise MediaError(f"damaged: none of its {max(scan.declared, len(scan.pts))} frames is intact")
    if damaged:
        pixels = consumer.collect(intact.chosen, _read_with_pyav(name, scan, intact))
    else:
        pixels = _read_checked(name, scan, intact, consumer, decoding)
    order = sorted(range(len(scan.pts)), key=lambda n: scan.pts[n] or 0) if damaged and scan.exact else intact.ids
    rank = {number: i for i, number in enumerate(order)}
    indices = tuple(rank[intact.ids[i]] for i in intact.chosen)
    return _media(pixels, indices, intact, _damage_note(scan, len(intact.ids)) if damaged else "", len(intact.ids))


def _find_intact_frames(name: str, scan: PacketScan, frames: int, fps: float | None) -> Selection:
    """Decode the video to find its intact frames and choose among them; adds broken packets to `scan.broken`."""
    times, shapes = {}, set()
    for number, frame in decode(name, scan):
        times[number] = number / scan.fps if frame.pts is None else frame.pts * scan.time_base
        shapes.add(_upright_shape(frame))
    if -1 in times:  # a frame has a timestamp that no packet has: number the frames instead
        scan.exact = False
        return _find_intact_frames(name, scan, frames, fps)
    # Some decoders drop broken frames silently; intact ones are dropped only at the start.
    if times and not scan.broken and has_one_frame_per_packet(scan):
        first = min(times.values())
        scan.broken = {n for n, pts in enumerate(scan.pts) if n not in times and (pts or 0) * scan.time_base > first}
    ids = without_broken(scan, list(times))
    return Selection(ids, frame_positions([times[n] for n in ids], frames, fps) if ids else (), None, shapes)


def _upright_shape(frame: Any) -> tuple[int, int, Orientation]:
    """Return (height, width) of an av.VideoFrame once upright, and its orientation."""
    orientation = Orientation.from_frame(frame)
    height, width = (frame.width, frame.height) if orientation.transposed else (frame.height, frame.width)
    return height, width, orientation


def _upright_pixels(frame: Any, converter: VideoReformatter) -> np.ndarray:
    """Return an av.VideoFrame as (height, width, 3) uint8 RGB; PyAV does not rotate frames, so they are turned here."""
    pixels = converter.reformat(frame, format="rgb24", threads=1).to_ndarray()  # `frame.to_ndarray` would start threads each time
    return Orientation.from_frame(frame).apply(pixels)


def _read_checked(name: str, scan: PacketScan, selection: Selection, consumer: Consumer, decoding: Decoding) -> _Pixels:
    """Read the chosen frames of a file that was found intact, with PyAV where the decoder asked for is unsuitable."""
    if decoding.decoder in OTHER_DECODERS:
        try:
            return consumer.collect(selection.chosen, OTHER_DECODERS[decoding.decoder](name, scan, selection))
        except Unsuitable:
            pass
    return consumer.collect(selection.chosen, _read_with_pyav(name, scan, selection))


def _read_with_pyav(name: str, scan: PacketScan, selection: Selection) -> PositionedFrames:
    positions, converter = selection.positions, VideoReformatter()
    for number, frame in decode(name, scan, selection):
        if number in positions:
            yield positions.pop(number), _upright_pixels(frame, converter)
        if not positions:
            return


def _read_with_opencv(name: str, frames: int, fps: float | None, consumer: Consumer, limits: Limits) -> Media:
    """Last resort: read the video once to count its frames and once more to take the chosen ones."""
    times = [seconds for seconds, _ in iter_opencv(name, limits)]
    if not times:
        raise MediaError("no available decoder can read this video's codec: convert it to H.264 first")
    chosen = frame_positions(times, frames, fps)
    grabbed = enumerate(iter_opencv(name, limits))
    decoded = ((i, capture.retrieve()[1][..., ::-1]) for i, (_, capture) in grabbed if i in chosen)
    pixels, width, height = consumer.collect(chosen, decoded)
    note = "; ".join(filter(None, ("read by OpenCV, which hides damage", _repeat_note(chosen))))
    return Media(pixels, chosen, len(times), width, height, note)


def _media(pixels: _Pixels, indices: tuple[int, ...], selection: Selection, damage: str, decoded: int) -> Media:
    """Return the result of reading, `decoded` frames of which were decoded."""
    skew = max(orientation.skew_degrees for _, _, orientation in selection.shapes)
    skew_note = f"its display matrix rotates it by {skew} degrees, which is ignored" if skew else ""
    note = "; ".join(filter(None, (damage, skew_note, _repeat_note(selection.chosen))))
    return Media(pixels[0], indices, len(selection.ids), *pixels[1:], note, decoded)


def _damage_note(scan: PacketScan, intact: int) -> str:
    total = max(scan.declared, len(scan.pts))
    count = f"{intact} of {total}" if total > intact else str(intact)
    return f"damaged: {count} frames intact" + (scan.truncation and f", {scan.truncation}")


def _repeat_note(chosen: Sequence[int]) -> str:
    count = len(set(chosen))
    return f"only {count} distinct frame{'s' * (count > 1)} for {len(chosen)} requested" if count < len(chosen) else ""
