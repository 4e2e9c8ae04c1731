"""What reading a large set's tables costs: python benchmarks/manifest_cost.py [ROWS ...]

Tables in the shape of ArtiFact (25 generators and 8 sources of reals, a metadata.csv each, no images) are read into a
checked manifest, split by group, and written. Printed for each number of rows: the seconds of each step and the peak
memory of the process.
"""

import resource
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a checkout, installed or not

ONCE = "--once"
SOURCES = 33
REALS = 8


def tables(folder: Path, count: int) -> Path:
    """`count` rows over all sources; targets 1 to 6 are fake."""
    root = folder / str(count)
    for source in range(SOURCES):
        place = root / f"source_{source:02d}"
        place.mkdir(parents=True)
        with (place / "metadata.csv").open("w") as file:
            file.write("filename,image_path,target,category\n")
            target = 0 if source < REALS else 1 + source % 6
            for number in range(source, count, SOURCES):
                name = f"img{number:08d}.jpg"
                file.write(f"{name},images/part_{number // 10000:04d}/{name},{target},kind_{number % 20}\n")
    return root


def once(root: Path) -> None:
    """In a process of its own, so that the peak is that of this number of rows."""
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
    print(
        f"{len(table):9,d} rows: read {read:6.2f} s, split {split:6.2f} s, write {write:6.2f} s, peak {peak:6.0f} MB", flush=True
    )


if __name__ == "__main__":
    if sys.argv[1:2] == [ONCE]:
        once(Path(sys.argv[2]))
    else:
        for count in [int(word) for word in sys.argv[1:]] or [1_000, 100_000, 2_500_000]:
            with tempfile.TemporaryDirectory() as folder:
                subprocess.run([sys.executable, __file__, ONCE, str(tables(Path(folder), count))], check=True)
