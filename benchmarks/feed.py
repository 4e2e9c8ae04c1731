"""Measure how fast cached clips and cached images become batches, beside what others feed their models with.

    python benchmarks/feed.py [--torch PYTHON]

Clips: 20 frames of 64 x 64 pixels, uint8, shuffled batches of 32, all from files that the system has in memory. Ours is
`training_batches`, as `train` uses it. "generator" is the published one: np.load of each file, np.stack, and /255. Models here
make floats on the device; so there is the generator without /255 too, which leaves them to the step as well. `DataLoader` is
PyTorch's, with two worker processes, on the same .npy files. "copy" gathers the same batches from one array in memory: the floor
of any feed that hands out copies.

Images: JPEG files of 256 x 256 pixels in batches of 32, ours from the cache; Keras' `image_dataset_from_directory` decodes the
files anew in every epoch.

Every side runs in a process of its own, whose start and imports do not count; that of an epoch, such as DataLoader's processes,
does. All sides must deliver the same sums of pixels.
"""

import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import clip_files
import numpy as np
from side_by_side import WORKER, Report, Worker, options_parser, serve

FRAMES, SIZE, BATCH, IMAGE_SIDE = 20, 64, 32, 256
PACKAGES = ("tensorflow", "keras", "numpy", "tfdetect")
FEEDS = {"ours": "tfdetect", "generator": "generator, without /255", "generator_255": "generator, with /255",
         "copy": "copy from one array in memory"}  # fmt: skip


def main() -> None:
    parser = options_parser(__doc__, __file__)
    parser.add_argument("--torch", metavar="PYTHON", help="Python interpreter that has PyTorch, for DataLoader")
    options = parser.parse_args()
    report = Report(__file__, options, PACKAGES, {"data": 0, "order": 0})
    clips, epochs, images = (512, 2, 384) if options.quick else (1024, 4, 960)  # whole batches
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        compare_clips(report, folder / "clips", clips, epochs, options.torch)
        compare_images(report, folder / "images", images, epochs)
    report.write()


def compare_clips(report: Report, folder: Path, count: int, epochs: int, torch: str | None) -> None:
    """Measure the feeds of clips."""
    clip_files.write_clips(folder, count, FRAMES, SIZE)
    workers = {title: (Worker(__file__), task) for task, title in FEEDS.items()}
    if torch:
        workers["DataLoader, 2 workers"] = (Worker(__file__, torch), "loader")
        report.about["versions"]["torch"] = workers["DataLoader, 2 workers"][0].call("torch_version").result
    else:
        print("PyTorch's DataLoader is left out: --torch names no interpreter that has PyTorch")
    measure(report, "clips", workers, folder, count, epochs, tolerance=0)
    ours = FEEDS["ours"]
    report.line("cached clips against the published generator", "clips", ours, FEEDS["generator_255"], 5, 6.5)
    report.line("cached clips against the generator without /255", "clips", ours, FEEDS["generator"], None, None)
    if torch:
        report.line("cached clips against DataLoader", "clips", ours, "DataLoader, 2 workers", 2, 3)
    floor = report.ratio("clips", FEEDS["generator_255"], FEEDS["copy"])
    report.facts["memory-copy floor, times the published generator"] = round(floor, 2)
    print(f"  memory-copy floor: {floor:.3g}x the published generator")


def compare_images(report: Report, folder: Path, count: int, epochs: int) -> None:
    """Measure the feeds of images."""
    write_images(folder, count)
    titles = {"image_ours": "tfdetect", "image_dataset": "image_dataset_from_directory"}
    workers = {title: (Worker(__file__), task) for task, title in titles.items()}
    measure(report, "images", workers, folder, count, epochs, tolerance=0.01)  # two JPEG decoders
    report.line("cached images against image_dataset_from_directory", "images", *titles.values(), 1.5, 3)


def measure(report: Report, case: str, workers: dict[str, tuple[Worker, str]], folder: Path, count: int, epochs: int,
            tolerance: float) -> None:  # fmt: skip
    """Let each worker run `epochs` epochs a round, after all of them have delivered the same pixels and labels in one."""
    sums = {title: worker.call("sums", task, str(folder), epochs).result for title, (worker, task) in workers.items()}
    for title, found in sums.items():
        scale = 255 if found[2] <= 1 else 1  # the largest pixel
        expected = next(iter(sums.values()))
        if found[1] != expected[1] or abs(found[0] * scale / expected[0] - 1) > max(tolerance, 1e-6 * (scale > 1)):
            raise SystemExit(f"{case}: {title} delivers other pixels or labels: {sums}")
    sides = {title: lambda worker=worker, task=task: worker.call("run", task, str(folder), epochs)
             for title, (worker, task) in workers.items()}  # fmt: skip
    report.compare(case, sides, count * epochs, case)
    for worker, _ in workers.values():
        worker.close()


def write_images(folder: Path, count: int) -> None:
    """Write JPEG images of smooth colours with grain to real/ and fake/, and the suite's cache of them."""
    import cv2
    import pandas as pd

    from tfdetect.data.media.encode import encode_jpeg
    from tfdetect.data.prepare.decode import prepare, usable_rows

    rng, rows = np.random.default_rng(0), []
    for number in range(count):
        path = folder / "files" / ("real", "fake")[number % 2] / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        smooth = cv2.resize(rng.integers(30, 220, (8, 8, 3)).astype(np.float32), (IMAGE_SIDE,) * 2)
        grain = rng.normal(0, 4, smooth.shape)
        path.write_bytes(encode_jpeg(np.clip(smooth + grain, 0, 255).astype(np.uint8), 92))
        rows.append({"path": str(path), "label": number % 2, "split": "train"})
    table = usable_rows(prepare(pd.DataFrame(rows), clip_files.open_cache(folder, 1, IMAGE_SIDE)))
    table.to_pickle(folder / clip_files.TABLE)


def suite_batches(folder: Path, epochs: int, frames: int, size: int) -> Iterable[Any]:
    """Return our training batches of all clips, for a number of epochs."""
    from tfdetect.data.input_pipeline.dataset import training_batches
    from tfdetect.settings import Train

    settings = replace(Train(), batch=BATCH, balance="none")
    cache = clip_files.open_cache(folder, frames, size)
    return training_batches(clip_files.read_table(folder), cache, False, settings, 0, epochs)


def generate(folder: Path, epochs: int, scale: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield batches as the published generator does."""
    paths, labels, rng = clip_files.npy_paths(folder), np.load(folder / clip_files.LABELS), np.random.default_rng(0)
    for _ in range(epochs):
        order = rng.permutation(len(paths))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            chosen = order[start : start + BATCH]
            batch = np.stack([np.load(paths[number]) for number in chosen])
            yield (batch / 255 if scale else batch), labels[chosen]


def copies(folder: Path, epochs: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield batches gathered from one array, which the first call loads."""
    if folder not in _ARRAYS:
        _ARRAYS[folder] = clip_files.load_arrays(folder)
    clips, labels = _ARRAYS[folder]
    for epoch in range(epochs):
        order = np.random.default_rng(epoch).permutation(len(clips))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            chosen = order[start : start + BATCH]
            yield clips[chosen], labels[chosen]


_ARRAYS: dict[Path, tuple[np.ndarray, np.ndarray]] = {}


def loader_batches(folder: Path, epochs: int) -> Iterator[Any]:
    """Yield the batches of PyTorch's DataLoader."""
    import torch
    from torch.utils.data import DataLoader, Dataset

    class Clips(Dataset):
        def __init__(self) -> None:
            self.paths, self.labels = clip_files.npy_paths(folder), np.load(folder / clip_files.LABELS)

        def __len__(self) -> int:
            return len(self.paths)

        def __getitem__(self, index: int) -> tuple[Any, float]:
            return torch.from_numpy(np.load(self.paths[index])), self.labels[index]

    loader = DataLoader(Clips(), batch_size=BATCH, shuffle=True, num_workers=2, drop_last=True)
    for _ in range(epochs):
        yield from loader


def keras_images(folder: Path, epochs: int) -> Iterator[Any]:
    """Yield the batches of Keras' image_dataset_from_directory."""
    import keras

    # class_names: alphabetically, fake would be 0
    images = keras.utils.image_dataset_from_directory(folder / "files", image_size=(IMAGE_SIDE,) * 2, batch_size=BATCH, seed=0,
                                                      class_names=["real", "fake"], verbose=False)  # fmt: skip
    for _ in range(epochs):
        yield from images


def batches(task: str, folder: str, epochs: int) -> Iterable[Any]:
    """Return the batches of a task."""
    place = Path(folder)
    functions = {"ours": lambda: suite_batches(place, epochs, FRAMES, SIZE), "generator": lambda: generate(place, epochs, False),
                 "generator_255": lambda: generate(place, epochs, True), "copy": lambda: copies(place, epochs),
                 "loader": lambda: loader_batches(place, epochs), "image_dataset": lambda: keras_images(place, epochs),
                 "image_ours": lambda: suite_batches(place, epochs, 1, IMAGE_SIDE)}  # fmt: skip
    return functions[task]()


def run(task: str, folder: str, epochs: int) -> int:
    """Consume the batches and return the number of clips."""
    return sum(len(batch[1]) for batch in batches(task, folder, epochs))


def sums(task: str, folder: str, epochs: int) -> tuple[float, float, float]:
    """Return the sums of the pixels and labels of one epoch, and the largest pixel. Also warms up what a first call loads."""
    pixels, labels, largest = 0.0, 0.0, 0.0
    for batch in batches(task, folder, 1):
        values = np.asarray(batch[0])
        pixels += float(values.sum(dtype=np.float64))
        labels += float(np.asarray(batch[1], np.float64).sum())
        largest = max(largest, float(values.max()))
    return pixels, labels, largest


def torch_version() -> str:
    """Return the version of PyTorch."""
    import torch

    return torch.__version__


if __name__ == "__main__":
    if sys.argv[1:2] == [WORKER]:
        serve({"run": run, "sums": sums, "torch_version": torch_version})
    else:
        main()
