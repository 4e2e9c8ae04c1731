"""Measure the time and memory that the manifest of a large data set takes.

    python benchmarks/manifest_cost.py [ROWS ...]

Write tables in the layout of ArtiFact (25 generators and 8 sources of real images with a metadata.csv each, no images), read them
into a validated manifest, split it by group and write it. Print for each number of rows (default 1,000, 100,000 and 2,500,000)
the seconds of each step and the peak memory of the process.
"""

import resource
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs from a checkout, installed or not

WORKER = "--worker"
NUM_SOURCES = 33
NUM_REAL_SOURCES = 8


def write_tables(folder: Path, count: int) -> Path:
    """Write `count` rows, spread over all sources, and return their folder. Targets 1 to 6 are fake."""
    root = folder / str(count)
    for source in range(NUM_SOURCES):
        subfolder = root / f"source_{source:02d}"
        subfolder.mkdir(parents=True)
        with (subfolder / "metadata.csv").open("w") as file:
            file.write("filename,image_path,target,category\n")
            target = 0 if source < NUM_REAL_SOURCES else 1 + source % 6
            for number in range(source, count, NUM_SOURCES):
                name = f"img{number:08d}.jpg"
                file.write(f"{name},images/part_{number // 10000:04d}/{name},{target},kind_{number % 20}\n")
    return root


def measure(root: Path) -> None:
    """Measure one number of rows and print the result. Needs a new process, because peak memory never falls."""
    from tfdetect.data import manifest
    from tfdetect.data.layouts import detect

    times = [time.monotonic()]
    table = detect.read(root)
    times.append(time.monotonic())
    table = manifest.split(table)
    times.append(time.monotonic())
    manifest.write(table, root / "out.csv")
    times.append(time.monotonic())
    if len(table) != int(root.name) or (table["split"] == "").any():
        raise SystemExit("rows are missing")
    read, split, write = (end - start for start, end in pairwise(times))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    seconds = f"read {read:6.2f} s, split {split:6.2f} s, write {write:6.2f} s"
    print(f"{len(table):9,d} rows: {seconds}, peak {peak:6.0f} MB", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == [WORKER]:
        measure(Path(sys.argv[2]))
    else:
        for count in [int(word) for word in sys.argv[1:]] or [1_000, 100_000, 2_500_000]:
            with tempfile.TemporaryDirectory() as folder:
                subprocess.run([sys.executable, __file__, WORKER, str(write_tables(Path(folder), count))], check=True)
