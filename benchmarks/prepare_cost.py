"""Measure the time and memory that `prepare` takes as the data set grows.

    python benchmarks/prepare_cost.py [ROWS ...]

Decode small distinct images into a cache, then add one image and prepare again. Print for each number of rows (default 1,000,
10,000 and 100,000) the files per second, the peak memory of the main process and of its largest worker, and the seconds of the
second run, which decodes the new file alone.
"""

import os
import subprocess
import sys
import tempfile
import time
from multiprocessing import active_children
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs from a checkout, installed or not

WORKER = "--worker"


def write_images(folder: Path, count: int) -> None:
    """Write PNG images of 16 x 16 pixels of noise."""
    rng = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"{number // 1000:04d}" / f"{number:07d}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(cv2.imencode(".png", rng.integers(0, 256, (16, 16, 3), np.uint8))[1].tobytes())


def peak_memory(pid: int) -> int:
    """Return the peak resident memory of a process in KiB, or 0 if it has ended.

    Not from getrusage, which counts into a child's peak what its parent held when the child started.
    """
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return 0
    return int(text.split("VmHWM:")[1].split()[0])


def measure(folder: Path, count: int) -> None:
    """Measure one number of rows and print the result. Needs a new process, because peak memory never falls."""
    import pandas as pd

    from tfdetect.data.prepare.clip_cache import Cache, ClipSpec
    from tfdetect.data.prepare.decode import prepare

    paths = [str(path) for path in sorted(folder.rglob("*.png"))][:count]
    cache = Cache(folder / f"cache-{count}", ClipSpec(1, 16))
    worker_peaks: dict[int, int] = {}

    def record_peaks(_: object) -> None:
        if len(worker_peaks) < 2 or time.monotonic() % 1 < 0.05:
            worker_peaks.update({child.pid: peak_memory(child.pid) for child in active_children() if child.pid})

    start = time.monotonic()
    first = prepare(pd.DataFrame({"path": paths[:-1]}), cache, progress=record_peaks)
    seconds = time.monotonic() - start
    start = time.monotonic()
    second = prepare(pd.DataFrame({"path": paths}), cache)
    resume_seconds = time.monotonic() - start
    if not (len(first) == count - 1 and len(second) == count and (second["error"] == "").all()):
        raise SystemExit("files are missing")
    memory = f"{peak_memory(os.getpid()) / 1024:7.0f} MB, {max(worker_peaks.values()) / 1024:7.0f} MB per worker"
    print(f"{count:9,d} rows: {count / seconds:8.0f} files/s, {memory}, {resume_seconds:7.2f} s to resume", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == [WORKER]:
        measure(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        rows = [int(word) for word in sys.argv[1:]] or [1_000, 10_000, 100_000]
        with tempfile.TemporaryDirectory() as folder:
            write_images(Path(folder), max(rows))
            for count in rows:
                subprocess.run([sys.executable, __file__, WORKER, folder, str(count)], check=True)
