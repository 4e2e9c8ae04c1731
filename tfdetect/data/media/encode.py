"""Write frames as JPEG and as H.264, for the embedded sample, equalised files and the corruption `video`."""

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction

import cv2
import numpy as np


@contextmanager
def h264_writer(memory: io.BytesIO, rate: int | Fraction, height: int, width: int,
                options: Mapping[str, str]) -> Iterator[Callable[[np.ndarray], None]]:  # fmt: skip
    """Yield a function that encodes a frame (height, width, 3) uint8 RGB; afterwards `memory` holds an MP4.

    H.264, 4:2:0, `rate` frames a second; both sides must be even. `options` are those of x264. One thread encodes, since the
    bytes would otherwise depend on the number of cores.
    """
    import av  # imported here, because --help and images need no FFmpeg

    with av.open(memory, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.options = {**options, "threads": "1"}
        yield lambda frame: container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def encode_h264(frames: np.ndarray, rate: int | Fraction, options: Mapping[str, str]) -> bytes:
    """Return frames (frames, height, width, 3) uint8 RGB as an MP4; see `h264_writer`."""
    memory, (height, width) = io.BytesIO(), frames.shape[1:3]
    with h264_writer(memory, rate, height, width, options) as write:
        for frame in frames:
            write(frame)
    return memory.getvalue()


def encode_jpeg(frame: np.ndarray, quality: int) -> bytes:
    """Return a frame (height, width, 3) uint8 RGB as JPEG with 4:2:0 chroma subsampling."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420]
    return cv2.imencode(".jpg", frame[..., ::-1], options)[1].tobytes()
