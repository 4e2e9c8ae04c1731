"""Measure the throughput of each corruption on one core.

    python benchmarks/corruptions.py [--size 128] [--batch 16]

Apply each step to smooth images with grain inside tf.data, as training does. Measured is processor time, which other work on the
machine affects little. Each step alternates with jpeg(30,100). Print a Markdown table: images per second and core, and the
time relative to jpeg(30,100), both as the median over the rounds.
"""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs from a checkout, installed or not

import numpy as np
import tensorflow as tf
import tyro

from tfdetect.data.input_pipeline.corruptions import parse

STEPS = ["flip", "jpeg(30,100)", "jpeg(30,100,p=0.1)", "webp(30,100)", "avif(30,100)", "h264(18,40)", "hevc(18,40)", "blur(0,3)",
         "resize(0.3,1)", "crop(0.5,1)", "noise(0,20)", "brightness(-30,30)", "contrast(0.7,1.3)", "cutout(0.1,0.5)",
         "grid_mask(0.2,0.6)", "posterize(3,7)", "solarize(100,256)", "equalize", "autocontrast", "saturation(0.5,2)",
         "hue(-30,30)", "sharpness(0,3)", "mixup(0,0.5)", "cutmix(0,0.5)", "fourier_mix(0,0.5)", "selfblend(0.3,1)", "sbi(p=1)",
         "blur(0,3,p=0.5)|jpeg(30,100,p=0.5)", "jpeg(80)|blur(1.1,p=0.5)"]  # fmt: skip
JPEG = "jpeg(30,100)"


def main(size: int = 128, batch: int = 16, seconds: float = 0.7, rounds: int = 5) -> None:
    """Measure the throughput of each corruption on one core.

    Args:
        size: Side of the images in pixels.
        batch: Images per batch.
        seconds: Processor time of each measurement.
        rounds: Measurements of each step.
    """
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (batch, size // 8, size // 8, 3)).astype(np.float32)
    images = tf.image.resize(coarse, (size, size), "bicubic") + rng.normal(0, 4, (batch, size, size, 3))
    clips = tf.cast(tf.clip_by_value(images, 0, 255), tf.uint8)[:, None]
    labels = tf.constant(np.arange(batch) % 2, tf.float32)[:, None]
    reference = corrupted_batches(JPEG, clips, labels)
    print(f"Batches of {batch} images, {size} x {size} pixels\n\n| step | images/s and core | time / {JPEG} |\n|---|---|---|")
    for text in STEPS:
        batches = corrupted_batches(text, clips, labels)
        pairs = [(batches_per_second(batches, seconds), batches_per_second(reference, seconds)) for _ in range(rounds)]
        rate = np.median([batch * step for step, _ in pairs])
        print(f"| `{text.replace('|', chr(92) + '|')}` | {rate:,.0f} | {np.median([jpeg / step for step, jpeg in pairs]):.2f} |")


def corrupted_batches(text: str, clips: tf.Tensor, labels: tf.Tensor) -> Iterator:
    """Return an endless iterator over corrupted copies of a batch: clips (batch, 1, size, size, 3) uint8, labels (batch, 1)."""
    chain = parse(text)
    numbers = tf.data.Dataset.range(10**9)
    data = numbers.map(lambda n: chain(clips, labels, tf.stack([0, tf.cast(n, tf.int32)])), num_parallel_calls=tf.data.AUTOTUNE)
    return iter(data.prefetch(1))


def batches_per_second(batches: Iterator, seconds: float) -> float:
    """Return the number of batches per second of processor time, summed over all threads."""
    for _ in range(4):  # skip batches that were prefetched
        next(batches)
    start, count = time.process_time(), 0
    while time.process_time() - start < seconds:
        next(batches)
        count += 1
    return count / (time.process_time() - start)


if __name__ == "__main__":
    tyro.cli(main)
