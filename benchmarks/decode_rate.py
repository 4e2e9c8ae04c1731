"""What the time limit of a file is measured against: python benchmarks/decode_rate.py [--frames 120] [--size 3840x2160]

Writes a video of moving noise for each codec and reads 8 frames of it, all frames being checked on one core. Printed are the
seconds of processor time, the pixels decoded a second, and the seconds that the limit adds for such a video.
"""

import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a checkout, installed or not

CODECS = {"libx264": {"preset": "ultrafast"}, "libx265": {"preset": "ultrafast", "x265-params": "log-level=none"}}


@dataclass(frozen=True)
class Asked:
    """Measure how fast videos are read here."""

    frames: int = 120
    """Of each video."""
    size: str = "3840x2160"
    """Width and height in pixels."""


def write(path: Path, codec: str, frames: int, width: int, height: int) -> None:
    import av

    noise = cv2.resize(np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), np.uint8), (width, height))
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30, options=CODECS[codec])
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for i in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.roll(noise, 4 * i, 1), format="rgb24")))
        container.mux(stream.encode())


def main() -> None:
    """Write, read, print."""
    from tfdetect.data import deadline
    from tfdetect.data.media import video
    from tfdetect.data.media.read import read_media

    asked = tyro.cli(Asked)
    width, height = map(int, asked.size.split("x"))
    pixels = asked.frames * width * height
    for codec in CODECS:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "a.mp4")
            write(path, codec, asked.frames, width, height)
            start = time.process_time()
            read_media(path, 8, size=256)
            used = time.process_time() - start
            added = path.stat().st_size / deadline.BYTES_PER_SECOND + video.PASSES * pixels / deadline.PIXELS_PER_SECOND
            print(f"{codec}: {path.stat().st_size / 1e6:.0f} MB, {used:.1f} s, {pixels / used / 1e6:.0f} megapixels a second; "
                  f"the limit adds {added:.0f} s")  # fmt: skip


if __name__ == "__main__":
    main()
