"""How fast the corruptions are, beside one another: python benchmarks/corruptions.py [--size 128] [--batch 16]

Soft pictures with some grain, in tf.data, as in a training. What is measured is processor time, so that what else the machine
does matters little; each step takes turns with jpeg(30,100), and the ratio is the median over the rounds.
"""

import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a checkout, installed or not

import numpy as np
import tensorflow as tf
import tyro

from tfdetect.data.input_pipeline.corruptions import parse

STEPS = ["flip", "jpeg(30,100)", "jpeg(30,100,p=0.1)", "webp(30,100)", "video(18,40)", "blur(0,3)", "resize(0.3,1)",
         "crop(0.5,1)", "noise(0,20)", "brightness(-30,30)", "contrast(0.7,1.3)", "cutout(0.1,0.5)", "mixup(0,0.5)",
         "selfblend(0.3,1)", "blur(0,3,p=0.5)|jpeg(30,100,p=0.5)", "jpeg(80)|blur(1.1,p=0.5)"]  # fmt: skip
JPEG = "jpeg(30,100)"


def main(size: int = 128, batch: int = 16, seconds: float = 0.7, rounds: int = 5) -> None:
    """Print images that one core makes in a second, for each step, and its time as a multiple of that of jpeg(30,100)."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (batch, size // 8, size // 8, 3)).astype(np.float32)
    soft = tf.image.resize(small, (size, size), "bicubic") + rng.normal(0, 4, (batch, size, size, 3))
    clips = tf.cast(tf.clip_by_value(soft, 0, 255), tf.uint8)[:, None]
    labels = tf.constant(np.arange(batch) % 2, tf.float32)[:, None]
    reference = stream(JPEG, clips, labels)
    print(f"{batch} pictures of {size} x {size} pixels a batch\n\n| step | images/s and core | time / {JPEG} |\n|---|---|---|")
    for text in STEPS:
        tested = stream(text, clips, labels)
        pairs = [(rate(tested, seconds), rate(reference, seconds)) for _ in range(rounds)]
        speed = np.median([batch * ours for ours, _ in pairs])
        print(f"| `{text.replace('|', chr(92) + '|')}` | {speed:,.0f} | {np.median([jpeg / ours for ours, jpeg in pairs]):.2f} |")


def stream(text, clips, labels):
    """An endless iterator over corrupted batches."""
    chain = parse(text)
    numbers = tf.data.Dataset.range(10**9)
    data = numbers.map(lambda n: chain(clips, labels, tf.stack([0, tf.cast(n, tf.int32)])), num_parallel_calls=tf.data.AUTOTUNE)
    return iter(data.prefetch(1))


def rate(batches, seconds):
    """Batches in a second of processor time, all threads together."""
    for _ in range(4):  # what was made ahead
        next(batches)
    start, count = time.process_time(), 0
    while time.process_time() - start < seconds:
        next(batches)
        count += 1
    return count / (time.process_time() - start)


if __name__ == "__main__":
    tyro.cli(main)
