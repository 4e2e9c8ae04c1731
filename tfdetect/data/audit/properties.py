"""Measure file properties that are cheap and say nothing about the content: container, codec, size, a few pixels, hashes.

If such a property separates real from fake, a detector learns it instead of the forgery; `shortcuts.py` measures how
well each one does.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from PIL import Image, JpegImagePlugin, UnidentifiedImageError

from tfdetect.data.audit.property_cache import PropertyCache
from tfdetect.data.media import containers
from tfdetect.data.media.frames import Media
from tfdetect.data.media.read import DECODER_ERRORS, DECODING, digest, read_media
from tfdetect.data.media.sniff import MediaError, failure_reason, media_kind
from tfdetect.data.worker_pool import WorkerFailure, map_unordered
from tfdetect.limits import Decoding, Limits

if TYPE_CHECKING:  # decoding processes have no use for pandas
    import pandas as pd

CONTAINER = ("extension", "container", "codec", "width", "height", "aspect", "bytes", "bytes_per_pixel", "jpeg_quality",
             "subsampling", "fps", "frames", "duration", "bit_rate", "exif")  # fmt: skip
CATEGORICAL = ("extension", "container", "codec", "subsampling")  # the CONTAINER properties that are not numbers
CONTENT = ("mean_colour", "thumbnail", "border")  # arrays
HASHED_FRAMES = 5  # frames of a video that get a perceptual hash
THUMBNAIL_SIZE = 16  # pixels; side of the grey image that confirms near duplicates
MIN_CONTRAST = 2.0  # grey levels; flatter images all look the same and get no hash
_SUBSAMPLING = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}
_CAMERA_KEYS = {"com.apple.quicktime.make", "make", "location"}  # video metadata that only a camera writes
_CAMERA_TAGS = (271, 272, 36867)  # TIFF tags that only a camera writes: make, model, time
# Luminance table of ITU-T T.81, Annex K.1, which the Independent JPEG Group's library scales by its "quality".
_LUMINANCE = np.array([
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80,
    62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98,
    112, 100, 103, 99])  # fmt: skip


@dataclass(frozen=True)
class Probe:
    """Measure one file, as a task for `worker_pool.map_unordered`; a file that cannot be read has its reason under "error"."""

    limits: Limits = field(default_factory=Limits)
    decoding: Decoding = field(default_factory=Decoding)

    def __call__(self, path: str) -> dict[str, Any]:
        try:
            return {**measure(path, self.limits, self.decoding), "error": ""}
        except (MediaError, OSError) as error:
            return {"error": failure_reason(error)}
        except (ValueError, *DECODER_ERRORS) as error:  # from a header, because the pixels were read
            return {"error": f"its properties cannot be read ({type(error).__name__}: {error})"}


def collect(table: "pd.DataFrame", workers: int | None = None, progress: Callable[[dict[str, Any]], None] | None = None,
            seconds: float | None = None, limits: Limits | None = None, index: Path | None = None,
            decoding: Decoding = DECODING) -> "pd.DataFrame":  # fmt: skip
    """Return the properties of each file of the manifest, row for row, each measured within `seconds`.

    `index` is the path of a cache for them. Columns: CONTAINER and CONTENT, sha (SHA-256 of the bytes), hashes (perceptual
    hashes, one uint64 per hashed frame), small (grey images, (frames, THUMBNAIL_SIZE, THUMBNAIL_SIZE) uint8), error. A
    property that a file lacks is NaN or None.
    """
    measured: dict[str, dict[str, Any]] = {}
    limits, progress = limits or Limits(), progress or (lambda result: None)
    cache = PropertyCache(index, limits, decoding) if index else None

    def missing_paths() -> Iterator[str]:
        for path in table["path"]:
            if cache and (known := cache.find(path)):
                measured[path] = known
                progress(known)
            else:
                yield path

    for path, result in map_unordered(missing_paths(), Probe(limits, decoding), workers, seconds):
        measured[path] = {"error": result.reason} if isinstance(result, WorkerFailure) else result
        if cache:
            cache.add(path, measured[path])
        progress(measured[path])
    return to_table([measured[path] for path in table["path"]], table.index)


def to_table(measured: Sequence[Mapping[str, Any]], index: "pd.Index") -> "pd.DataFrame":
    """Return the table of `collect` from the properties of each file; what is missing is NaN or None."""
    import pandas as pd

    columns = [*CONTAINER, *CONTENT, "sha", "hashes", "small", "error"]
    properties = pd.DataFrame([[row.get(name) for name in columns] for row in measured], columns=columns, index=index)
    for name in CONTAINER:
        if name not in CATEGORICAL:
            properties[name] = pd.to_numeric(properties[name]).astype(float)
    return properties


def measure(path: str, limits: Limits, decoding: Decoding = DECODING) -> dict[str, Any]:
    """Return all properties of one file. Raises MediaError or OSError."""
    sha = digest(path)
    sampled: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    look = lambda at, frame: sampled.update({at: (shrink(frame), measure_border(frame))})  # noqa: E731
    media = read_media(path, HASHED_FRAMES, size=THUMBNAIL_SIZE, limits=limits, on_frame=look, decoding=decoding,
                       on_restart=sampled.clear)  # fmt: skip
    frames = [sampled[at] for at in sorted(sampled)]
    hashes, small = _hashes([_grey(frame) for frame, _ in frames])
    return {
        **_container_properties(path, media), **_content_properties(*frames[len(frames) // 2]), "sha": sha,
        "hashes": hashes, "small": small,
    }  # fmt: skip


def describe_decoded(path: str, media: Media, frame: np.ndarray, small: np.ndarray) -> dict[str, Any]:
    """Return CONTAINER and CONTENT of a file that was just decoded, so that nobody needs to decode it again for them.

    `frame` is one of its frames at native size, (height, width, 3) uint8 RGB, and `small` the same or another one, of any size.
    Raises MediaError or OSError.
    """
    return {**_container_properties(path, media), **_content_properties(small, measure_border(frame))}


def _container_properties(path: str, media: Media) -> dict[str, Any]:
    length, is_image = os.path.getsize(path), media_kind(path) == "image"
    header = _image_header(path) if is_image else _video_header(path, length, media.total)
    pixels = media.width * media.height * (1 if is_image else media.total)
    return {"extension": os.path.splitext(path)[1].lower(), "width": media.width, "height": media.height,
            "aspect": media.width / media.height, "bytes": length, "bytes_per_pixel": length / pixels, **header}  # fmt: skip


def _image_header(path: str) -> dict[str, Any]:
    """Return the properties in the header of an image; "unknown" if Pillow cannot read it."""
    try:
        with _open_image(path) as image:
            header = {"container": image.format, "codec": image.format, "exif": float(_has_exif(image)),
                      "subsampling": image.mode}  # fmt: skip
            if isinstance(image, JpegImagePlugin.JpegImageFile):
                header["jpeg_quality"] = jpeg_quality(image.quantization)
                header["subsampling"] = _SUBSAMPLING.get(JpegImagePlugin.get_sampling(image), image.mode)
            return header
    except (OSError, SyntaxError, Image.DecompressionBombError):  # Pillow's limit may be below --data.limits.pixels
        return {"container": "unknown", "codec": "unknown", "exif": 0.0, "subsampling": "unknown"}


def _open_image(path: str) -> Image.Image:
    """Open an image with Pillow, or with libheif's plug-in for formats that Pillow does not know."""
    try:
        return Image.open(path)
    except UnidentifiedImageError:
        import pi_heif

        return pi_heif.HeifImageFile(path)


def _has_exif(image: Image.Image) -> bool:
    return bool(image.info.get("exif")) or any(tag in getattr(image, "tag_v2", ()) for tag in _CAMERA_TAGS)


def _video_header(path: str, length: int, frames: int) -> dict[str, Any]:
    """Return the properties in the container of a video; mostly "unknown" if PyAV cannot open it."""
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
    """Return hashes and small grey images, as in `measure`, of the first, middle and last frame of a clip.

    `clip` is (frames, height, width, 3) uint8. Frames without contrast are skipped.
    """
    greys = [_grey(np.array(clip[at])) for at in sorted({0, len(clip) // 2, len(clip) - 1})]
    return _hashes(greys)


def _hashes(greys: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return hashes and small grey images of those grey images that have contrast."""
    greys = [grey for grey in greys if cv2.meanStdDev(grey)[1][0, 0] >= MIN_CONTRAST]
    small = np.array([_resize(grey, THUMBNAIL_SIZE) for grey in greys])
    return np.array([perceptual_hash(grey) for grey in greys], np.uint64), small


def jpeg_quality(tables: dict[int, Any]) -> float:
    """Return the IJG quality 1..100 whose luminance table is closest to that of the file.

    It is exact for files that libjpeg wrote, and an estimate for other encoders. `tables` are Pillow's quantisation
    tables, 64 numbers each.
    """
    table = np.asarray(tables[min(tables)], float)
    quality = np.arange(1, 101)[:, None]
    scale = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    scaled = np.clip((_LUMINANCE * scale + 50) // 100, 1, 255)
    return float(1 + np.abs(scaled - table).sum(axis=1).argmin())


def shrink(frame: np.ndarray) -> np.ndarray:
    """Shrink a frame (height, width, 3) uint8 to at most 256 pixels per side, which suffices for thumbnails and hashes."""
    height, width = frame.shape[:2]
    return cv2.resize(frame, (min(width, 256), min(height, 256)), interpolation=cv2.INTER_AREA)


def measure_border(frame: np.ndarray) -> np.ndarray:
    """Return mean and standard deviation, 0..255, of the outer two lines at the top, bottom, left and right, (8,)."""
    edges = (frame[:2], frame[-2:], frame[:, :2], frame[:, -2:])
    return np.array([value for edge in edges for value in (edge.mean(), edge.std())])


def _content_properties(frame: np.ndarray, border: np.ndarray) -> dict[str, np.ndarray]:
    """Return mean colour (3,), an 8 x 8 thumbnail (192,) and the border (8,), all in 0..255."""
    thumbnail = cv2.resize(frame, (8, 8), interpolation=cv2.INTER_AREA).ravel()
    return {"mean_colour": np.array(cv2.mean(frame)[:3]), "thumbnail": thumbnail, "border": border}


def _grey(frame: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)


def _resize(grey: np.ndarray, side: int) -> np.ndarray:
    return cv2.resize(grey, (side, side), interpolation=cv2.INTER_AREA)


def perceptual_hash(grey: np.ndarray) -> int:
    """Return 64 bits that survive resizing and re-encoding: the signs of low DCT frequencies about their median.

    From a 32 x 32 grey image (Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010).
    """
    low = cv2.dct(_resize(grey, 32).astype(np.float32))[:8, 1:9].ravel()
    return int.from_bytes(np.packbits(low > np.median(low)).tobytes(), "big")
