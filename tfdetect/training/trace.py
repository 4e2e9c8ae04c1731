"""TensorFlow's own profile of a block of code, for TensorBoard's tab Profile, and what it says about waiting for input."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tfdetect import files, stages

WARM_UP, STEPS = 10, 20  # training steps that are not traced, and that are


@contextmanager
def trace(logs: Path) -> Iterator[None]:
    """Write a profile of the block into a folder for TensorBoard."""
    with files.tensorflow_path(logs) as folder:
        tf.profiler.experimental.start(folder)
        try:
            yield
        finally:
            tf.profiler.experimental.stop()


class StepTimes(keras.callbacks.Callback):
    """Trace 20 training steps, after ten that warm up or a single one in short trainings, and count them as stages: "wait", in
    which a step waits for its batch, and "step", the rest."""

    def __init__(self, logs: Path):
        super().__init__()
        self.logs, self.number, self.start = logs, 0, 0.0

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if self.number == self._first:
            tf.profiler.experimental.start(str(self.logs))
            self.start = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.number += 1
        if self.start and self.number == self._first + STEPS:
            self._stop()

    def on_train_end(self, logs: Any = None) -> None:
        if self.start:
            self._stop()

    @property
    def _first(self) -> int:
        return WARM_UP if self.params["epochs"] * (self.params["steps"] or 1) >= WARM_UP + STEPS else 1

    def _stop(self) -> None:
        elapsed, self.start = time.perf_counter() - self.start, 0.0
        tf.profiler.experimental.stop()
        waited = seconds_in(self.logs, "IteratorGetNext")
        stages.add({"wait": waited, "step": elapsed - waited})


def write_stages(logs: Path, seconds: Mapping[str, float]) -> None:
    """Write the seconds of each stage as text into a folder for TensorBoard, for processes that TensorFlow does not see."""
    rows = [f"| {name} | {value:.2f} |" for name, value in sorted(seconds.items(), key=lambda item: -item[1])]
    with files.tensorflow_path(logs) as folder:
        writer = tf.summary.create_file_writer(folder)
        with writer.as_default(0):
            tf.summary.text("where the time went", "\n".join(["| stage | seconds |", "|---|---|", *rows]))
        writer.close()


def seconds_in(logs: Path, prefix: str) -> float:
    """Return the seconds of all operations whose name begins with `prefix` in the profiles of a folder."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    total = 0.0
    for path in logs.rglob("*.xplane.pb"):
        for plane in xplane_pb2.XSpace.FromString(path.read_bytes()).planes:
            numbers = {number for number, data in plane.event_metadata.items() if data.name.startswith(prefix)}
            events = (event for line in plane.lines for event in line.events if event.metadata_id in numbers)
            total += sum(event.duration_ps for event in events) / 1e12
    return total
