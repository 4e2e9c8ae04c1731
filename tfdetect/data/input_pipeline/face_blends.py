"""The corruption `sbi`: real face crops become self-blended fakes, by the landmarks that the run's face detector finds."""

import hashlib
from collections.abc import Callable
from functools import lru_cache
from threading import Lock

import numpy as np
import tensorflow as tf

from tfdetect.data import self_blended
from tfdetect.data.media.faces import FaceSettings, detect_largest


@lru_cache(maxsize=8)  # a run's phases share what is known about its clips
def self_blending(faces: FaceSettings | None) -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]:
    """Return the corruption `sbi`: values above 0 turn a clip into a self-blended fake, 0 recolours it in half of the draws.

    Landmarks are those that the run's face detector finds in the clip; where it finds none, the usual ones of a face crop.
    """
    known: dict[bytes, np.ndarray] = {}  # landmarks by the content of the frame, so that each is searched once in a training
    lock = Lock()  # OpenCV's detector is not thread-safe

    def find(frame: np.ndarray) -> np.ndarray:
        key = hashlib.blake2b(frame.tobytes(), digest_size=16).digest()
        with lock:
            if key not in known:
                face = detect_largest(frame, faces) if faces else None
                typical = self_blended.TYPICAL_POINTS * frame.shape[1::-1]
                known[key] = (typical if face is None else face[5:].reshape(5, 2)).astype(np.float32)
        return known[key]

    def blend_batch(clips: np.ndarray, values: np.ndarray, seed: np.ndarray) -> np.ndarray:
        seeds = [(*np.abs(seed.astype(int)).tolist(), number) for number in range(len(clips))]
        return np.stack([[self_blended.self_blend(frame, find(frame), seed) if fake else self_blended.recolour_some(frame, seed)
                          for frame in clip] for clip, fake, seed in zip(clips, values > 0, seeds, strict=True)])

    def step(clips: tf.Tensor, values: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(tf.numpy_function(blend_batch, [clips, values, seed], tf.uint8, stateful=False), clips.shape)

    return step
