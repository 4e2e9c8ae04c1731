"""Lossy compression of one clip, there and back.

Each function takes pixels (frames, height, width, 3) uint8 RGB and a quality, and returns pixels of that shape, as the reader
decodes them.
"""

import io

import cv2
import numpy as np
from PIL import Image

from tfdetect.data.media import heif
from tfdetect.data.media.encode import encode_video

RATE = 25  # frames per second of a clip that is encoded as a video


def webp(clip: np.ndarray, quality: float) -> np.ndarray:
    """Compress each frame as lossy WebP, quality 1..100."""

    def compress(frame: np.ndarray) -> np.ndarray:
        data = cv2.imencode(".webp", frame[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, int(quality)])[1]
        return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))[..., ::-1]

    return np.stack([compress(frame) for frame in clip])


def avif(clip: np.ndarray, quality: float) -> np.ndarray:
    """Compress each frame as AVIF, 4:2:0, quality 1..100, at Pillow's default speed (6 of 0..10)."""

    def compress(frame: np.ndarray) -> np.ndarray:
        memory = io.BytesIO()
        Image.fromarray(frame).save(memory, "AVIF", quality=int(quality), max_threads=1)
        return heif.open_heif(bytearray(memory.getvalue()))[1]()

    return np.stack([compress(frame) for frame in clip])


def video(codec: str, clip: np.ndarray, crf: float) -> np.ndarray:
    """Compress as a video of RATE frames/s with a constant rate factor; odd sides are padded by repeating the last line."""
    import av  # imported here because images need no FFmpeg

    height, width = clip.shape[1:3]
    even = np.pad(clip, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), "edge")
    with av.open(io.BytesIO(encode_video(even, RATE, codec, int(crf))), "r") as source:
        frames = [frame.to_ndarray(format="rgb24") for frame in source.decode(video=0)]
    return np.stack(frames)[:, :height, :width]
