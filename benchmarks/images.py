"""Measure how fast `prepare` makes squares of 256 x 256 pixels of JPEG images, beside what people write with Pillow and OpenCV.

    python benchmarks/images.py

The files have 1, 3 and 12 megapixels, 4:2:0, quality 92. Ours is `decode.prepare` into a new cache, with a worker per core. The
others are a pool of two processes that reads each file, resizes it and saves it with np.save: `cv2.imread` and `cv2.resize` with
INTER_AREA; Pillow with `draft`, which lets libjpeg decode at a half, a quarter or an eighth of the size, and `resize`; and Pillow
without `draft`, for the pixels. The start, which is the time for two files, is taken off all sides and stated.

The squares of OpenCV's side must be ours, bit for bit. Those of `draft` are not: the JSON file says by how much, and how much is
due to the filter, which a scaled decode would change in our reader too.
"""

import sys
import tempfile
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from side_by_side import WORKER, Report, Worker, options_parser, serve

SIZE, PROCESSES = 256, 2
SHAPES = {"1 megapixel": (866, 1155), "3 megapixels": (1500, 2000), "12 megapixels": (3000, 4000)}  # height, width
COUNTS = {"1 megapixel": 200, "3 megapixels": 80, "12 megapixels": 24}
TITLES = {"ours": "tfdetect", "opencv": "cv2.imread, INTER_AREA", "draft": "Pillow, draft", "pillow": "Pillow, no draft"}


def main() -> None:
    options = options_parser(__doc__, __file__).parse_args()
    report = Report(__file__, options, ("opencv-python-headless", "pillow", "numpy", "tfdetect"), {"data": 0})
    workers = {task: Worker(__file__) for task in TITLES}
    with tempfile.TemporaryDirectory() as name:
        for case, (height, width) in SHAPES.items():
            folder, count = Path(name) / case.replace(" ", "-"), COUNTS[case] // (4 if options.quick else 1)
            write_images(folder, count, height, width)
            measure(report, case, folder, count, workers)
    report.write()


def measure(report: Report, case: str, folder: Path, count: int, workers: dict[str, Worker]) -> None:
    """Measure the files of a folder, then the start with one for each process, and add the lines."""
    report.facts[f"levels of 255 by which other squares differ, {case}"] = compare_pixels(folder)

    def sides(number: int) -> dict[str, Callable[[], Any]]:
        return {title: lambda task=task: workers[task].call(task, str(folder), number) for task, title in TITLES.items()}

    def equal(results: dict[str, Any]) -> None:
        if results[TITLES["opencv"]] != results[TITLES["ours"]]:
            raise SystemExit(f"{case}: OpenCV's squares are not ours: {results}")

    starts = report.compare(f"{case}, start", sides(PROCESSES), PROCESSES, "files", equal, show=False)
    times = report.compare(case, sides(count), count, "files", equal)
    wall = {title: [row.wall - median(start.wall for start in starts[title]) for row in rows] for title, rows in times.items()}
    cpu = {title: [row.cpu - median(start.cpu for start in starts[title]) for row in rows] for title, rows in times.items()}
    for title, rows in starts.items():
        wall_start, cpu_start = median(start.wall for start in rows), median(start.cpu for start in rows)
        print(f"  of which the start: {title}, {wall_start:.2f} s, {cpu_start:.2f} s of CPU time")
    for title in list(TITLES.values())[1:]:
        bounds = (1.0, 1.5) if title != TITLES["pillow"] else (None, None)
        for measure, seconds in (("wall", wall), ("cpu", cpu)):
            ratio = median(theirs / ours for theirs, ours in zip(seconds[title], seconds[TITLES["ours"]], strict=True))
            name = f"prepare of images, {case}, against {title}" + (", CPU" if measure == "cpu" else "")
            report.add_line(name, ratio, *bounds, measure=f"{measure} without the start", case=case)


def write_images(folder: Path, count: int, height: int, width: int) -> None:
    """Write JPEG images of clouds of colour with edges and grain."""
    import cv2

    from tfdetect.data.media.encode import encode_jpeg

    rng, grain = np.random.default_rng(0), np.random.default_rng(1).normal(0, 5, (height, width, 3)).astype(np.float32)
    folder.mkdir()
    for number in range(count):
        image = np.zeros((height, width, 3), np.float32)
        for cells, contrast in ((6, 50), (40, 20), (200, 10)):
            noise = rng.normal(0, contrast, (cells, cells, 3)).astype(np.float32)
            image += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
        for _ in range(30):
            centre, axes = rng.integers(0, (width, height)), rng.integers(10, height // 6, 2)
            colour = tuple(float(value) for value in rng.uniform(-80, 80, 3))
            cv2.ellipse(image, tuple(map(int, centre)), tuple(map(int, axes)), 0, 0, 360, colour, -1)
        image += 128 + np.roll(grain, number * 37, axis=1)
        (folder / f"{number:04d}.jpg").write_bytes(encode_jpeg(np.clip(image, 0, 255).astype(np.uint8), 92))


def prepare_ours(folder: str, count: int) -> int:
    """Prepare the first images with the suite. Return the sum of all pixels."""
    import pandas as pd

    from tfdetect.data.prepare.clip_cache import Cache, ClipSpec
    from tfdetect.data.prepare.decode import prepare

    paths = sorted(map(str, Path(folder).glob("*.jpg")))[:count]
    with tempfile.TemporaryDirectory(dir=folder) as name:
        cache = Cache(Path(name), ClipSpec(1, SIZE))
        table = prepare(pd.DataFrame({"path": paths}), cache)
        if (table["error"] != "").any():
            raise SystemExit(table["error"].max())
        return sum(int(cache.load(sha).sum(dtype=np.int64)) for sha in table["sha"])


def read_opencv(path: str) -> np.ndarray:
    """Return the square of an image, RGB uint8, as users of OpenCV read it."""
    import cv2

    image = cv2.resize(cv2.imread(path), (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def read_draft(path: str) -> np.ndarray:
    """Return the square of an image as users of Pillow read it who know `draft`."""
    return read_pillow(path, draft=True)


def read_pillow(path: str, draft: bool = False) -> np.ndarray:
    """Return the square of an image as users of Pillow read it."""
    from PIL import Image

    with Image.open(path) as image:
        if draft:
            image.draft("RGB", (SIZE, SIZE))
        return np.asarray(image.convert("RGB").resize((SIZE, SIZE)))


READERS: dict[str, Callable[[str], np.ndarray]] = {"opencv": read_opencv, "draft": read_draft, "pillow": read_pillow}


def save(item: tuple[str, str, str]) -> int:
    """Read the square of an image and save it. Return the sum of its pixels."""
    task, path, target = item
    square = READERS[task](path)
    np.save(target, square)
    return int(square.sum(dtype=np.int64))


def prepare_others(task: str, folder: str, count: int) -> int:
    """Read and save the first images with a pool of processes. Return the sum of all pixels."""
    paths = sorted(map(str, Path(folder).glob("*.jpg")))[:count]
    with tempfile.TemporaryDirectory(dir=folder) as name, get_context("fork").Pool(PROCESSES) as pool:
        total = sum(pool.imap_unordered(save, [(task, path, f"{name}/{Path(path).stem}.npy") for path in paths]))
        pool.close()
        pool.join()
        return total


def compare_pixels(folder: Path) -> dict[str, dict[str, float]]:
    """Return the mean and the largest difference between our squares and others, of eight files: those of the readers above, and
    those of libjpeg's scaled decode with our own resize, which is what it would cost here."""
    import cv2

    from tfdetect.data.media.frames import to_squares
    from tfdetect.data.media.read import read_image

    scaled_flags = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}
    differences: dict[str, list[np.ndarray]] = {}
    for path in sorted(map(str, folder.glob("*.jpg")))[:8]:
        media = read_image(path, SIZE)
        scale = max((factor for factor in scaled_flags if min(media.height, media.width) // factor >= SIZE), default=1)
        others = {TITLES[task]: read(path) for task, read in READERS.items()}
        if scale > 1:
            scaled = cv2.cvtColor(cv2.imread(path, scaled_flags[scale]), cv2.COLOR_BGR2RGB)
            others[f"scaled decode by {scale}, our resize"] = to_squares(scaled, SIZE)[0]
        for title, square in others.items():
            differences.setdefault(title, []).append(np.abs(square.astype(int) - media.frames[0]))
    return {title: {"mean": round(float(np.mean(rows)), 3), "max": int(np.max(rows))} for title, rows in differences.items()}


if __name__ == "__main__":
    if sys.argv[1:2] == [WORKER]:
        serve({"ours": prepare_ours, **{task: lambda folder, count, task=task: prepare_others(task, folder, count)
                                        for task in READERS}})  # fmt: skip
    else:
        main()
