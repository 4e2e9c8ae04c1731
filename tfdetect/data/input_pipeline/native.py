"""Corruptions of frames at native size, before a clip is made of them; a resized or cropped picture keeps its new size, unlike a
clip, whose size is fixed."""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from tfdetect.corruption_spec import REGISTERED, CorruptionStep
from tfdetect.data.input_pipeline import corruptions
from tfdetect.data.media.frames import resize_to

NumberedSteps = Sequence[tuple[int, CorruptionStep]]  # with their numbers in the whole text, which decide their draws


def draw(step: CorruptionStep, seed: tuple[int, int], number: int = 0) -> tuple[float, float]:
    """Return the value of a step, the `number`-th of its text, and a draw in 0..1 that its probability is compared with."""
    draws = corruptions.uniform(tf.random.fold_in(tf.random.fold_in(tf.constant(seed, tf.int32), number), 0), (2, 1))
    return float(corruptions.scale_draws(step, draws[1])[0]), float(draws[0, 0])


def corrupt(steps: NumberedSteps, frames: np.ndarray, seed: tuple[int, int], first: int = 0) -> np.ndarray:
    """Return frames (frames, height, width, 3) uint8 RGB of one file after the steps, which may change their size.

    `seed` decides all draws, which the frames share; only `noise` differs between them, by the number `first` of the first of
    these frames in the file.
    """
    for number, step in steps:
        value, chance = draw(step, seed, number)
        if chance >= step.p:
            continue
        key = tf.random.fold_in(tf.random.fold_in(tf.constant(seed, tf.int32), number), 1)
        if step.name in RESIZING:
            frames = RESIZING[step.name](frames, value, corruptions.uniform(key, (2,)).numpy())
        else:
            function = REGISTERED.get(step.name) or corruptions.FUNCTIONS[step.name]
            key = tf.random.fold_in(key, first) if step.name == "noise" else key
            with tf.device("CPU:0"):
                frames = function(tf.constant(frames[None]), tf.constant([value], tf.float32), key)[0].numpy()
    return frames


def _resize(frames: np.ndarray, scale: float, position: np.ndarray) -> np.ndarray:
    height, width = (max(round(scale * length), 1) for length in frames.shape[1:3])
    return np.stack([resize_to(frame, height, width) for frame in frames])


def _side(frames: np.ndarray, length: float, position: np.ndarray) -> np.ndarray:
    return _resize(frames, length / max(frames.shape[1:3]), position)


def _max_side(frames: np.ndarray, length: float, position: np.ndarray) -> np.ndarray:
    return _side(frames, min(length, max(frames.shape[1:3])), position)


def _crop(frames: np.ndarray, scale: float, position: np.ndarray) -> np.ndarray:
    height, width = (max(round(scale * length), 1) for length in frames.shape[1:3])
    return _window(frames, height, width, position)


def _square_crop(frames: np.ndarray, scale: float, position: np.ndarray) -> np.ndarray:
    side = max(round(scale * min(frames.shape[1:3])), 1)
    return _window(frames, side, side, position)


def _window(frames: np.ndarray, height: int, width: int, position: np.ndarray) -> np.ndarray:
    """Cut out a window at a position (2,), given in 0..1 of how far it can move down and right."""
    top, left = (int(share * (length - part + 1)) for share, length, part in
                 zip(position, frames.shape[1:3], (height, width), strict=True))  # fmt: skip
    return frames[:, top : top + height, left : left + width]


# Steps that keep the new size, unlike those of clips: frames (frames, height, width, 3), value, position (2,) in 0..1 -> frames.
RESIZING: dict[str, Callable[[np.ndarray, float, np.ndarray], np.ndarray]] = {
    "resize": _resize, "side": _side, "max_side": _max_side, "crop": _crop, "square_crop": _square_crop}  # fmt: skip
