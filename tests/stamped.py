"""Write and read videos in which each frame shows its index."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from tfdetect.data.media.frames import Media

WIDTH, HEIGHT = 128, 64


def stamped(index: int) -> np.ndarray:
    """Return frame `index` of a moving pattern: 8 black or white blocks at the top left encode the index, the right is red."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    frame = np.repeat((100 + 60 * np.sin((columns + 3 * index) / 9 + rows / 7))[..., None], 3, 2).astype(np.uint8)
    frame[40:, 96:] = (250, 20, 20)
    for bit in range(8):
        frame[:16, bit * 12 : bit * 12 + 12] = 255 if index >> bit & 1 else 0
    return frame


def index_of(frame: np.ndarray) -> int:
    """Read the index from a decoded frame."""
    return sum(1 << bit for bit in range(8) if frame[4:12, bit * 12 + 4 : bit * 12 + 8].mean() > 127)


def write(path, codec="libx264", count=40, times=None, rotation=0, muxer=None, pix="yuv420p", **options) -> Path:
    """Write a video of stamped frames."""
    options = {key.replace("_", "-"): value for key, value in options.items()}
    return write_frames(path, list(map(stamped, range(count))), codec, 25, times, rotation, None, muxer, options,
                        pix_fmt=pix, bit_rate=600_000)  # fmt: skip


def write_frames(path, frames, codec="libx264", rate=25, times=None, rotation=0, container_format=None, muxer=None, options=None,
                 **settings) -> Path:  # fmt: skip
    """Write a video; `times` are timestamps in milliseconds, for a variable frame rate, and `settings` those of the encoder."""
    with av.open(str(path), "w", format=container_format, options=muxer or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        for name, value in {"height": frames[0].shape[0], "width": frames[0].shape[1], "pix_fmt": "yuv420p", **settings}.items():
            setattr(stream, name, value)
        if times:
            stream.codec_context.time_base = Fraction(1, 1000)
        if rotation:
            stream.set_display_rotation(rotation)
        for i, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if times:
                frame.pts, frame.time_base = times[i], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def stamps(media: Media) -> tuple[int, ...]:
    """Read the indices of all frames."""
    return tuple(index_of(frame) for frame in media.frames)
