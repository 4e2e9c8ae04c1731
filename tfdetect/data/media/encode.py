"""Write frames as JPEG and as videos, for the embedded sample, equalised files and corruptions."""

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from fractions import Fraction
from typing import Any

import cv2
import numpy as np

# Encoder, pixel format and options by the name of the corruption. With its macroblock tree, x264 is not deterministic: five
# different results in 25 runs; one result without it. x265 gets a single thread, too.
CODECS: dict[str, tuple[str, str, dict[str, str]]] = {
    "h264": ("libx264", "yuv420p", {"x264-params": "mbtree=0"}),
    "hevc": ("libx265", "yuv420p", {"preset": "veryfast", "x265-params": "pools=none:frame-threads=1:log-level=none"}),
    "lossless": ("libx264rgb", "rgb24", {"preset": "ultrafast", "qp": "0"}),
}
# Presets that take less than half of the time, at about the same size and quality.
QUICK = {"h264": {"preset": "veryfast"}, "hevc": {"preset": "ultrafast"}, "lossless": {}}


@contextmanager
def video_writer(target: io.BytesIO | str, rate: int | Fraction, height: int, width: int, encoder: str, pixel_format: str,
                 options: Mapping[str, str], muxer: Mapping[str, str] | None = None,
                 ) -> Iterator[Callable[[np.ndarray], None]]:  # fmt: skip
    """Yield a function that encodes a frame (height, width, 3) uint8 RGB; afterwards `target`, memory or a path, holds a video of
    `rate` frames a second, an MP4 or, of HEVC, a Matroska file.

    `options` are those of FFmpeg's encoder, `muxer` those of its container. One thread encodes, since the bytes would otherwise
    depend on the number of cores.
    """
    import av  # imported here, because --help and images need no FFmpeg

    # FFmpeg's MP4 writer refuses most of x265's headers, at random ("patches welcome"); its Matroska writer takes all.
    with av.open(target, "w", format="matroska" if encoder == "libx265" else "mp4", options=dict(muxer or {})) as container:
        stream: Any = container.add_stream(encoder, rate=rate)
        stream.height, stream.width, stream.pix_fmt = height, width, pixel_format
        stream.options = {**options, "threads": "1"}
        packets: list[Any] = []
        write = packets.extend if encoder == "libx265" else container.mux
        yield lambda frame: write(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        write(stream.encode())
        container.mux(_with_decoding_times(packets))


def _with_decoding_times(packets: list[Any]) -> list[Any]:
    """Return all packets of a stream, in order of decoding, with new times of decoding.

    In a few clips of a thousand, x265 lets the first packet be decoded after it is shown, which no container takes.
    """
    shown = sorted(packet.pts for packet in packets)
    delay = max((time - packet.pts for time, packet in zip(shown, packets, strict=True)), default=0)
    for time, packet in zip(shown, packets, strict=True):
        packet.dts = time - delay
    return packets


def h264_writer(memory: io.BytesIO, rate: int | Fraction, height: int, width: int,
                options: Mapping[str, str]) -> AbstractContextManager[Callable[[np.ndarray], None]]:  # fmt: skip
    """Return `video_writer` for H.264, 4:2:0; both sides must be even. `options` are those of x264."""
    return video_writer(memory, rate, height, width, "libx264", "yuv420p", options)


def encode_h264(frames: np.ndarray, rate: int | Fraction, options: Mapping[str, str]) -> bytes:
    """Return frames (frames, height, width, 3) uint8 RGB as an MP4; see `h264_writer`."""
    memory, (height, width) = io.BytesIO(), frames.shape[1:3]
    with h264_writer(memory, rate, height, width, options) as write:
        for frame in frames:
            write(frame)
    return memory.getvalue()


def encode_video(frames: np.ndarray, rate: int | Fraction, codec: str, crf: int) -> bytes:
    """Return frames (frames, height, width, 3) uint8 RGB, with even sides, as a video of one of the CODECS and a constant
    rate factor, 0..51."""
    memory, (height, width), (encoder, pixel_format, options) = io.BytesIO(), frames.shape[1:3], CODECS[codec]
    with video_writer(memory, rate, height, width, encoder, pixel_format, {**options, "crf": str(crf)}) as write:
        for frame in frames:
            write(frame)
    return memory.getvalue()


def encode_jpeg(frame: np.ndarray, quality: int) -> bytes:
    """Return a frame (height, width, 3) uint8 RGB as JPEG with 4:2:0 chroma subsampling."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420]
    return cv2.imencode(".jpg", frame[..., ::-1], options)[1].tobytes()
