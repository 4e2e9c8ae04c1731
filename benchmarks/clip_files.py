"""Clips for the benchmarks of feed and training: short videos, the suite's cache of them, and the .npy files that others read."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs from a checkout, installed or not

if TYPE_CHECKING:
    import pandas as pd

    from tfdetect.data.prepare.clip_cache import Cache

TABLE, NPY, LABELS = "table.pkl", "npy", "labels.npy"


def write_clips(folder: Path, count: int, frames: int, size: int, validation: int = 0, seed: int = 0) -> None:
    """Write `count` training videos and some for validation, their cache, and the training clips as `npy/NNNNN.npy`.

    Half of the videos are fake: their left half is brighter, which a network learns within a few steps.
    """
    import pandas as pd

    from tfdetect.data.media.encode import encode_h264
    from tfdetect.data.prepare.decode import prepare, usable_rows

    rng, rows = np.random.default_rng(seed), []
    (folder / NPY).mkdir(parents=True)
    for number in range(count + validation):
        shades = rng.integers(40, 180, (frames, 1, 1, 3)) + rng.integers(0, 40, (frames, size, size, 3))
        shades[:, :, : size // 2] += 35 * (number % 2)
        path = folder / f"{number:05d}.mp4"
        path.write_bytes(encode_h264(shades.astype(np.uint8), 16, {"qp": "24", "preset": "ultrafast"}))
        rows.append({"path": str(path), "label": number % 2, "split": "train" if number < count else "validation",
                     "group": path.stem, "source": ""})  # fmt: skip
    cache = open_cache(folder, frames, size)
    table = usable_rows(prepare(pd.DataFrame(rows), cache))
    if len(table) != len(rows):
        raise SystemExit("some of the videos were not decoded")
    table.to_pickle(folder / TABLE)
    for number in range(count):
        np.save(folder / NPY / f"{number:05d}.npy", cache.spec.read(table["path"][number]).frames)
    np.save(folder / LABELS, table["label"][:count].to_numpy(np.float32))


def open_cache(folder: Path, frames: int, size: int) -> "Cache":
    """Return the suite's cache of the clips."""
    from tfdetect.data.prepare.clip_cache import Cache, ClipSpec

    return Cache(folder / "cache", ClipSpec(frames, size))


def read_table(folder: Path) -> "pd.DataFrame":
    """Return the prepared manifest."""
    import pandas as pd

    return pd.read_pickle(folder / TABLE)


def npy_paths(folder: Path) -> list[str]:
    """Return the paths of the .npy files of the training clips."""
    return sorted(str(path) for path in (folder / NPY).glob("*.npy"))


def load_arrays(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the training clips (clips, frames, size, size, 3) uint8 and their labels (clips,) float32."""
    return np.stack([np.load(path) for path in npy_paths(folder)]), np.load(folder / LABELS)
