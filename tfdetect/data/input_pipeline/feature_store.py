"""Features of a frozen backbone on disk, computed once for each frame and view.

`<folder>/<number>-<random>.npy` holds (rows, n) numbers and is memory-mapped for reading. The `.txt` file of the same
name lists the names of the rows. It is written last, so a part that has one is complete and an interrupted computation
resumes with the missing rows. The name of the folder identifies everything else that determines the numbers: the
weights and the preprocessing.
"""

import contextlib
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from tfdetect.files import atomic_write, write_arrays

SAVE_EVERY = 30.0  # seconds of work that an interruption may lose
MAX_PART_ROWS = 8192  # a part is saved once it has this many rows


class FeatureStore:
    """Named rows of numbers in files that are added but never changed, so several processes may add rows at once."""

    def __init__(self, folder: Path, dtype: str = "float32"):
        """`dtype` is float32, or float16 for half the disk space at three significant digits."""
        self.folder, self.dtype = folder, np.dtype(dtype)
        self.parts: list[Path] = []
        self.rows: dict[str, tuple[int, int]] = {}  # name -> (index of its part, row in the part)
        for names in sorted(folder.glob("[0-9]*.txt")):
            with contextlib.suppress(FileNotFoundError, ValueError):  # a damaged part is computed again
                rows = np.load(names.with_suffix(".npy"), mmap_mode="r")
                if len(listed := names.read_text().split()) == len(rows):
                    self._index_part(names.with_suffix(".npy"), listed)

    def __contains__(self, name: str) -> bool:
        return name in self.rows

    def add(self, names: Sequence[str], rows: np.ndarray) -> None:
        """Write rows (names, n) of any float dtype; names must not contain white space. Raises OSError if writing fails."""
        path = self.folder / f"{len(self.parts):06d}-{secrets.token_hex(4)}.npy"
        write_arrays(path, np.asarray(rows, self.dtype))
        with atomic_write(path.with_suffix(".txt")) as temporary:
            temporary.write_text("\n".join(names))
        self._index_part(path, names)

    def gather(self, names: Sequence[str]) -> np.ndarray:
        """Return the rows of these names, (names, n) float32. Raises KeyError for an unknown name."""
        positions = np.array([self.rows[name] for name in names], np.int64).reshape(-1, 2)
        parts = {number: np.load(self.parts[number], mmap_mode="r") for number in np.unique(positions[:, 0])}
        width = next(iter(parts.values())).shape[1] if parts else 0
        gathered = np.empty((len(names), width), np.float32)
        for number, rows in parts.items():
            in_part = positions[:, 0] == number
            gathered[in_part] = rows[positions[in_part, 1]]
        return gathered

    def _index_part(self, path: Path, names: Sequence[str]) -> None:
        self.rows |= {name: (len(self.parts), row) for row, name in enumerate(names)}
        self.parts.append(path)


Embed: TypeAlias = Callable[[Sequence[int], Sequence[int]], Iterable[Sequence[np.ndarray]]]


def add_missing(stores: Sequence[FeatureStore], names: Sequence[str], embed: Embed, step: Callable[[int], None]) -> None:
    """Compute and add the rows of `names` that any of the stores lacks, in one pass for all that the same stores lack.

    `embed` gets indices into `stores` and into `names`, and yields for each batch of these names, in that order, its rows
    (batch, n) for each of these stores. `step` is called with the number of names completed since its last call; the first call
    counts those that no store lacks.
    """
    groups: dict[tuple[int, ...], list[int]] = {}  # stores -> names that they lack
    for name, index in {name: index for index, name in enumerate(names)}.items():
        groups.setdefault(tuple(number for number, store in enumerate(stores) if name not in store), []).append(index)
    groups.pop((), None)
    step(len(names) - sum(map(len, groups.values())))
    for numbers, indices in groups.items():
        _add([stores[number] for number in numbers], [names[index] for index in indices], embed(numbers, indices), step)


def _add(stores: Sequence[FeatureStore], names: Sequence[str], batches: Iterable[Sequence[np.ndarray]],
         step: Callable[[int], None]) -> None:  # fmt: skip
    """Add to each store its rows of `names`, which come in batches, and save them from time to time."""
    waiting: list[Sequence[np.ndarray]] = []
    saved, last_save = 0, time.monotonic()

    def save() -> None:
        nonlocal saved, last_save, waiting
        count = sum(len(batch[0]) for batch in waiting)
        for store, rows in zip(stores, zip(*waiting, strict=True), strict=True) if count else ():
            store.add(names[saved : saved + count], np.concatenate(rows))
        saved, last_save, waiting = saved + count, time.monotonic(), []

    try:
        for batch in batches:
            waiting.append(batch)
            step(len(batch[0]))
            if time.monotonic() > last_save + SAVE_EVERY or sum(len(batch[0]) for batch in waiting) >= MAX_PART_ROWS:
                save()
    finally:  # an interrupt loses nothing
        save()
