"""Measure how fast videos are decoded on one core, against the time limit that `prepare` allows for them.

    python benchmarks/decode_rate.py [--frames 120] [--size 3840x2160]

For each codec, write a video of moving noise and read 8 of its frames with --data.check all, which decodes all of them. Print
the size of the file, the seconds of processor time, the decoded pixels per second, and the seconds that the limit adds.
"""

import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs from a checkout, installed or not

CODECS = {"libx264": {"preset": "ultrafast"}, "libx265": {"preset": "ultrafast", "x265-params": "log-level=none"}}


@dataclass(frozen=True)
class Options:
    """Measure how fast videos are decoded on one core, against the time limit that `prepare` allows for them."""

    frames: int = 120
    """Frames per video."""
    size: str = "3840x2160"
    """Width and height in pixels."""


def write(path: Path, codec: str, frames: int, width: int, height: int) -> None:
    """Write a video of noise that moves by 4 pixels per frame."""
    import av

    blocks = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    noise: Any = cv2.resize(blocks, (width, height))
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=30, options=CODECS[codec])
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for i in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.roll(noise, 4 * i, 1), format="rgb24")))
        container.mux(stream.encode())


def main() -> None:
    from tfdetect.data import deadline
    from tfdetect.data.media import video
    from tfdetect.data.media.read import read_media
    from tfdetect.limits import Decoding

    options = tyro.cli(Options)
    width, height = map(int, options.size.split("x"))
    pixels = options.frames * width * height
    for codec in CODECS:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "a.mp4")
            write(path, codec, options.frames, width, height)
            size = path.stat().st_size
            start = time.process_time()
            read_media(path, 8, size=256, decoding=Decoding(check="all"))
            seconds = time.process_time() - start
            allowance = size / deadline.BYTES_PER_SECOND + video.PASSES * pixels / deadline.PIXELS_PER_SECOND
            print(f"{codec}: {size / 1e6:.0f} MB, {seconds:.1f} s, {pixels / seconds / 1e6:.0f} megapixels/s; "
                  f"the time limit adds {allowance:.0f} s")  # fmt: skip


if __name__ == "__main__":
    main()
