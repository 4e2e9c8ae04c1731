"""Write the videos on which `video.py` measures: scenes seen by a moving camera, in six codecs, two sizes and three GOP lengths.

A scene is a large picture of structures of all sizes, over which the camera pans, zooms and shakes, with things that cross it and
the noise of a sensor. It depends on its seed alone, the bytes of a file on the encoder's version too. Files that exist are kept.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

RATE = 25  # frames per second
GOPS = (12, 50, 250)
SIZES = {"720p": (1280, 720), "1080p": (1920, 1080)}
_X265 = "log-level=none:pools=none:frame-threads=1:open-gop={}"
# codec -> encoder, extension, its options for a GOP length; the second ones are those of the second scene, where they differ
CODECS: dict[str, tuple[str, str, Callable[[int, int], dict[str, str]]]] = {
    "h264": ("libx264", "mp4", lambda gop, scene: {"preset": "veryfast", "crf": "23", "bf": "0"}),
    "h264_b": ("libx264", "mp4", lambda gop, scene: {"preset": "veryfast", "crf": "23", "bf": "3",
                                                     "x264-params": f"open-gop={scene}"}),
    "hevc": ("libx265", "mp4", lambda gop, scene: {"preset": "superfast", "crf": "26", "bf": "3",
                                                   "x265-params": _X265.format(scene)}),
    "vp9": ("libvpx-vp9", "webm", lambda gop, scene: {"deadline": "realtime", "cpu-used": "7", "crf": "36", "b": "0"}),
    "av1": ("libsvtav1", "mp4", lambda gop, scene: {"preset": "11", "crf": "38"}),
    "mpeg4": ("mpeg4", "mp4", lambda gop, scene: {}),  # at a bit rate, see `encode`
}  # fmt: skip
B_FRAMES = ("h264_b", "hevc")


@dataclass(frozen=True)
class Video:
    """One file of the benchmark."""

    codec: str  # key of CODECS
    size: str  # key of SIZES
    gop: int
    scene: int  # seed
    seconds: int = 10
    repeats: int = 1  # how many times these seconds follow each other, as the same packets

    @property
    def name(self) -> str:
        """The file name."""
        length = self.seconds * self.repeats
        return f"{self.codec}-{self.size}-gop{self.gop}-scene{self.scene}-{length}s.{CODECS[self.codec][1]}"


def draw(scene: int, width: int, height: int, count: int) -> Iterator[np.ndarray]:
    """Yield the frames of a scene, (height, width, 3) uint8 RGB."""
    rng = np.random.default_rng(scene)
    shape = (height * 3 // 2, width * 3 // 2)
    canvas = sum(_octave(rng, shape, 2**level) * 2 ** (level / 3) for level in range(8))  # nearly 1/f, as in photographs
    canvas = canvas @ np.array([[1, 1, 1], [0.3, 0, -0.3], [-0.1, 0.2, -0.1]], np.float32)  # mostly brightness, a little colour
    canvas = np.clip(118 + 48 * canvas / canvas.std(), 0, 255)
    for _ in range(25):  # edges and flat faces, as of houses and cars
        x, y = int(rng.integers(shape[1])), int(rng.integers(shape[0]))
        colour = [int(value) for value in rng.integers(20, 236, 3)]
        cv2.rectangle(canvas, (x, y), (x + int(rng.integers(20, 260)), y + int(rng.integers(20, 260))), colour, -1, cv2.LINE_AA)
    noise = rng.normal(0, 2.5, (height + 64, width + 64, 1)).astype(np.float32)
    picture, movers = canvas.astype(np.float32), rng.uniform(0.1, 0.9, (6, 4))
    for i in range(count):
        t = i / RATE
        zoom = 1 + 0.08 * np.sin(0.5 * t + scene)
        left = (shape[1] - width) * (0.5 + 0.45 * np.sin(0.31 * t + scene)) + np.sin(9 * t)
        top = (shape[0] - height) * (0.5 + 0.45 * np.cos(0.23 * t + scene)) + np.cos(7 * t)
        camera = np.array([[1 / zoom, 0, -left / zoom], [0, 1 / zoom, -top / zoom]])
        view = cv2.warpAffine(picture, camera, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        for x, y, across, down in movers:
            centre = (int(width * ((x + 0.1 * across * t) % 1)), int(height * ((y + 0.05 * down * t) % 1)))
            cv2.ellipse(view, centre, (int(60 * across) + 10, int(60 * down) + 10), 40 * t, 0, 360, (250 * x, 180, 250 * y), -1)
        dy, dx = rng.integers(0, 64, 2)
        yield np.clip(view + noise[dy : dy + height, dx : dx + width], 0, 255).astype(np.uint8)


def _octave(rng: np.random.Generator, shape: tuple[int, int], cell: int) -> np.ndarray:
    """Return noise whose smallest structures have `cell` pixels, (height, width, 3)."""
    coarse = rng.normal(size=(shape[0] // cell + 2, shape[1] // cell + 2, 3)).astype(np.float32)
    return cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC)


def encode(path: Path, video: Video) -> None:
    """Write a video that is not repeated."""
    import av

    encoder, _, options = CODECS[video.codec]
    width, height = SIZES[video.size]
    with av.open(str(path), "w") as container:
        gop = {"g": str(video.gop), "keyint_min": str(video.gop), "sc_threshold": "0"}
        stream: Any = container.add_stream(encoder, rate=RATE, options={**gop, **options(video.gop, video.scene)})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        if video.codec == "mpeg4":
            stream.bit_rate = 4 * width * height  # 3.7 megabits a second in 720p
        for pixels in draw(video.scene, width, height, video.seconds * RATE):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def repeat(path: Path, source: Path, video: Video) -> None:
    """Write the packets of `source` again and again, each time later by its length."""
    import av

    with av.open(str(path), "w") as target:
        output: Any = None
        for number in range(video.repeats):
            with av.open(str(source)) as container:
                stream = container.streams.video[0]
                output = output or target.add_stream_from_template(stream, opaque=True)
                shift = round(number * video.seconds / Fraction(stream.time_base or 1))
                for packet in container.demux(stream):
                    if packet.dts is not None and packet.pts is not None:
                        packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, output
                        target.mux(packet)


def list_videos(quick: bool) -> list[Video]:
    """Return the short files: all combinations of codec, size, GOP length and scene; a quarter of them for `quick`."""
    if quick:
        return [Video(codec, "720p", gop, number % 2) for codec in CODECS for number, gop in enumerate(GOPS, 1)]
    return [Video(codec, size, gop, scene) for codec in CODECS for size in SIZES for gop in GOPS for scene in (0, 1)]


def list_long_videos() -> list[Video]:
    """Return a file of ten minutes of each codec; where the scenes differ in open and closed GOP, the open one."""
    return [Video(codec, "720p", 50, 1, repeats=60) for codec in CODECS]


def provide(folder: Path, videos: list[Video]) -> dict[Video, Path]:
    """Return the paths of the files below `folder`, written where they are missing."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for number, video in enumerate(videos):
        paths[video] = path = folder / video.name
        if not path.exists():
            print(f"\rwriting file {number + 1} of {len(videos)}: {video.name}", end="", file=sys.stderr, flush=True)
            partial = path.with_name(f"part-{path.name}")
            if video.repeats > 1:
                source = Video(video.codec, video.size, video.gop, video.scene, video.seconds)
                repeat(partial, provide(folder, [source])[source], video)
            else:
                encode(partial, video)
            partial.rename(path)
    return paths
