"""What `prepare` costs as the data grow: python benchmarks/prepare_cost.py [ROWS ...]

Tiny images, each different, are decoded into a cache; then one more comes, and the same work is done again. Printed for
each number of rows: files a second, peak memory of this process and of its largest worker, and the seconds until the
resumed run has gone through all it knew and decoded the new file.
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

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a checkout, installed or not

ONCE = "--once"


def draw(folder: Path, count: int) -> list[str]:
    """Images of 16 x 16 noise, as many as asked."""
    rng = np.random.default_rng(0)
    paths = []
    for number in range(count):
        path = folder / f"{number // 1000:04d}" / f"{number:07d}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(cv2.imencode(".png", rng.integers(0, 256, (16, 16, 3), np.uint8))[1].tobytes())
        paths.append(str(path))
    return paths


def peak(pid: int) -> int:
    """Peak resident memory of a process, in KiB; getrusage counts into a child's what its parent had when it started."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return 0
    return int(text.split("VmHWM:")[1].split()[0])


def once(folder: Path, count: int) -> None:
    """In a process of its own, so that the peak is that of this number of rows."""
    import pandas as pd

    from tfdetect.data.prepare.clip_cache import Cache, ClipSpec
    from tfdetect.data.prepare.decode import prepare

    paths = [str(path) for path in sorted(folder.rglob("*.png"))][:count]
    cache = Cache(folder / f"cache-{count}", ClipSpec(1, 16))
    workers: dict[int, int] = {}

    def watch(_: object) -> None:
        if len(workers) < 2 or time.monotonic() % 1 < 0.05:
            workers.update({child.pid: peak(child.pid) for child in active_children() if child.pid})

    start = time.monotonic()
    found = prepare(pd.DataFrame({"path": paths[:-1]}), cache, progress=watch)
    took = time.monotonic() - start
    start = time.monotonic()
    again = prepare(pd.DataFrame({"path": paths}), cache)
    resumed = time.monotonic() - start
    if not (len(found) == count - 1 and len(again) == count and (again["error"] == "").all()):
        raise SystemExit("files are missing")
    memory = f"{peak(os.getpid()) / 1024:7.0f} MB {max(workers.values()) / 1024:7.0f} MB a worker"
    print(f"{count:9,d} rows {count / took:8.0f} files/s {memory} {resumed:7.2f} s to resume", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == [ONCE]:
        once(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        rows = [int(word) for word in sys.argv[1:]] or [1_000, 10_000, 100_000]
        with tempfile.TemporaryDirectory() as folder:
            draw(Path(folder), max(rows))
            for count in rows:
                subprocess.run([sys.executable, __file__, ONCE, folder, str(count)], check=True)
