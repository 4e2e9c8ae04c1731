"""What is cheap to know of a file without looking at what it shows: container, codec, size, bytes, a few pixels, hashes.

If such a property tells real from fake, a detector will learn it in place of the fake; `audit.py` asks how well each does.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from PIL import Image, JpegImagePlugin, UnidentifiedImageError

from tfdetect.data.audit.property_cache import PropertyCache
from tfdetect.data.media import containers
from tfdetect.data.media.read import DECODER_ERRORS, digest, read_media
from tfdetect.data.media.sniff import MediaError, media_kind
from tfdetect.data.worker_pool import WorkerFailure, map_unordered
from tfdetect.limits import Limits

CONTAINER = ("extension", "container", "codec", "width", "height", "aspect", "bytes", "bytes_per_pixel", "jpeg_quality",
             "subsampling", "fps", "frames", "duration", "bit_rate", "exif")  # fmt: skip
CATEGORICAL = ("extension", "container", "codec", "subsampling")  # of these, what is not a number
CONTENT = ("mean_colour", "thumbnail", "border")  # each an array
HASHED_FRAMES = 5  # frames of a video whose perceptual hashes are taken
THUMBNAIL_SIZE = 16  # pixels, side of the grey picture that near duplicates are compared by
MIN_CONTRAST = 2.0  # grey levels: what varies less looks like any other flat picture, and has no hash
_SUBSAMPLING = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}
_CAMERA_KEYS = {"com.apple.quicktime.make", "make", "location"}  # the same in a video
_CAMERA_TAGS = (271, 272, 36867)  # tags that only a camera writes into a TIFF: make, model, time
# Luminance table of ITU-T T.81, Annex K.1, which the Independent JPEG Group's library scales by its "quality".
_LUMINANCE = np.array([
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80,
    62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98,
    112, 100, 103, 99])  # fmt: skip


@dataclass(frozen=True)
class Probe:
    """`measure` for `pool.results`: what is known of one file, or why it cannot be read under "error"."""

    limits: Limits = field(default_factory=Limits)

    def __call__(self, path: str) -> dict[str, Any]:
        try:
            return {**measure(path, self.limits), "error": ""}
        except MediaError as error:
            return {"error": str(error)}
        except OSError as error:
            return {"error": error.strerror or str(error)}
        except (ValueError, *DECODER_ERRORS) as error:  # in a header, for the file itself was read
            return {"error": f"its properties cannot be read ({type(error).__name__}: {error})"}


def collect(table: pd.DataFrame, workers: int | None = None, progress: Callable[[dict[str, Any]], None] | None = None,
            seconds: float | None = None, limits: Limits | None = None, index: Path | None = None) -> pd.DataFrame:  # fmt: skip
    """The properties of each file of the manifest, row for row, each in at most `seconds`; `index` keeps them, for the next time.

    Columns: CONTAINER and CONTENT, sha (SHA-256 of the bytes), hashes (perceptual, a uint64 for each frame looked at),
    small (grey pictures, (frames, SMALL, SMALL) uint8), error. What a file does not have is NaN or None.
    """
    found: dict[str, dict[str, Any]] = {}
    limits, progress = limits or Limits(), progress or (lambda result: None)
    kept = PropertyCache(index, limits) if index else None

    def lacking() -> Iterator[str]:
        for path in table["path"]:
            if kept and (known := kept.find(path)):
                found[path] = known
                progress(known)
            else:
                yield path

    for path, result in map_unordered(lacking(), Probe(limits), workers, seconds):
        found[path] = {"error": result.reason} if isinstance(result, WorkerFailure) else result
        if kept:
            kept.add(path, found[path])
        progress(found[path])
    columns = [*CONTAINER, *CONTENT, "sha", "hashes", "small", "error"]
    rows = [[found[path].get(name) for name in columns] for path in table["path"]]
    out = pd.DataFrame(rows, columns=columns, index=table.index)
    for name in CONTAINER:
        if name not in CATEGORICAL:
            out[name] = pd.to_numeric(out[name]).astype(float)
    return out


def measure(path: str, limits: Limits) -> dict[str, Any]:
    """All properties of one file. Raises MediaError and OSError."""
    sha, length = digest(path), os.path.getsize(path)
    seen: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    look = lambda at, frame: seen.update({at: (reduced(frame), border(frame))})  # noqa: E731
    found = read_media(path, HASHED_FRAMES, size=THUMBNAIL_SIZE, limits=limits, on_frame=look)
    is_image = media_kind(path) == "image"
    facts = _image_header(path) if is_image else _video_header(path, length, found.total)
    frames = [seen[at] for at in sorted(seen)]
    kept = [frame for frame, _ in frames if cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).std() >= MIN_CONTRAST]
    pixels = found.width * found.height * (1 if is_image else found.total)
    return {
        "extension": os.path.splitext(path)[1].lower(), "width": found.width, "height": found.height,
        "aspect": found.width / found.height, "bytes": length, "bytes_per_pixel": length / pixels, **facts,
        **_content(*frames[len(frames) // 2]), "sha": sha, "hashes": np.array([perceptual_hash(frame) for frame in kept], np.uint64),
        "small": np.array([_grey(frame, THUMBNAIL_SIZE) for frame in kept]),
    }  # fmt: skip


def _image_header(path: str) -> dict[str, Any]:
    """What the header says; a header that Pillow cannot read says nothing."""
    try:
        with _open_image(path) as image:
            facts = {"container": image.format, "codec": image.format, "exif": float(_has_exif(image)), "subsampling": image.mode}
            if isinstance(image, JpegImagePlugin.JpegImageFile):
                facts["jpeg_quality"] = jpeg_quality(image.quantization)
                facts["subsampling"] = _SUBSAMPLING.get(JpegImagePlugin.get_sampling(image), image.mode)
            return facts
    except (OSError, SyntaxError, Image.DecompressionBombError):  # Pillow's own limit is one that --data.limits.pixels may pass
        return {"container": "unknown", "codec": "unknown", "exif": 0.0, "subsampling": "unknown"}


def _open_image(path: str) -> Image.Image:
    """By Pillow, and what it does not know by libheif's plug-in for it."""
    try:
        return Image.open(path)
    except UnidentifiedImageError:
        import pi_heif

        return pi_heif.HeifImageFile(path)


def _has_exif(image: Image.Image) -> bool:
    return bool(image.info.get("exif")) or any(tag in getattr(image, "tag_v2", ()) for tag in _CAMERA_TAGS)


def _video_header(path: str, length: int, frames: int) -> dict[str, Any]:
    """What the container says; of one that PyAV cannot open, only what follows from the frames."""
    try:
        with containers.decodable_path(path) as name, containers.open_video(name) as (container, stream, _):
            codec = stream.codec_context
            rate = containers.frame_rate(stream) or None
            ticks = stream.duration * stream.time_base if stream.duration else (container.duration or 0) / 1_000_000
            seconds = float(ticks) or (frames / rate if rate else None)
            return {"container": container.format.name.split(",")[0], "codec": codec.name, "subsampling": codec.pix_fmt,
                    "fps": rate, "frames": frames, "duration": seconds, "bit_rate": seconds and 8 * length / seconds,
                    "exif": float(bool(container.metadata.keys() & _CAMERA_KEYS))}  # fmt: skip
    except (containers.NoDecoder, MediaError, OSError):
        return {"container": "unknown", "codec": "unknown", "subsampling": "unknown", "frames": frames, "exif": 0.0}


def hash_clip(clip: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hashes and small grey pictures of the first, middle and last frame of a clip, (frames, height, width, 3) uint8, as those
    of `measure`: without flat ones."""
    frames = [np.array(clip[at]) for at in sorted({0, len(clip) // 2, len(clip) - 1})]
    kept = [frame for frame in frames if cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).std() >= MIN_CONTRAST]
    return np.array([perceptual_hash(frame) for frame in kept], np.uint64), np.array([_grey(frame, THUMBNAIL_SIZE) for frame in kept])


def jpeg_quality(tables: dict[int, Any]) -> float:
    """The IJG quality, 1..100, whose luminance table is nearest to the file's: exact where libjpeg wrote the file, an
    estimate where another encoder did. `tables` as Pillow gives them, 64 numbers each."""
    table = np.asarray(tables[min(tables)], float)
    quality = np.arange(1, 101)[:, None]
    scale = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    scaled = np.clip((_LUMINANCE * scale + 50) // 100, 1, 255)
    return float(1 + np.abs(scaled - table).sum(axis=1).argmin())


def reduced(frame: np.ndarray) -> np.ndarray:
    """A frame, (height, width, 3) uint8, with at most 256 pixels a side: all that thumbnails and hashes need."""
    height, width = frame.shape[:2]
    return cv2.resize(frame, (min(width, 256), min(height, 256)), interpolation=cv2.INTER_AREA)


def border(frame: np.ndarray) -> np.ndarray:
    """Mean and deviation, 0..255, of the outer two lines or columns at the top, bottom, left and right: (8,)."""
    edges = (frame[:2], frame[-2:], frame[:, :2], frame[:, -2:])
    return np.array([value for edge in edges for value in (edge.mean(), edge.std())])


def _content(frame: np.ndarray, edges: np.ndarray) -> dict[str, np.ndarray]:
    """Mean colour (3), an 8 x 8 thumbnail (192) and the border (8), all within 0..255."""
    thumbnail = cv2.resize(frame, (8, 8), interpolation=cv2.INTER_AREA).astype(float).ravel()
    return {"mean_colour": frame.mean(axis=(0, 1)), "thumbnail": thumbnail, "border": edges}


def _grey(frame: np.ndarray, side: int) -> np.ndarray:
    return cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), (side, side), interpolation=cv2.INTER_AREA)


def perceptual_hash(frame: np.ndarray) -> int:
    """64 bits that survive resizing and re-encoding: signs of the low frequencies of a 32 x 32 grey picture about their
    median (Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010)."""
    low = cv2.dct(_grey(frame, 32).astype(np.float32))[:8, 1:9].ravel()
    return int.from_bytes(np.packbits(low > np.median(low)).tobytes(), "big")
