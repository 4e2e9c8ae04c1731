"""A frozen backbone's features on disk: computed once for each frame and view, ever.

`<folder>/<number>-<random>.npy` holds (rows, n) numbers, memory-mapped when they are read; the `.txt` of the same name says
which row is which and is written last, so what has one is whole: work that was cut off goes on with what is lacking. The
folder's name stands for all that decides the numbers besides the file and the view: the weights and what is before them.
"""

import contextlib
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from tfdetect.files import atomic_write, write_arrays

SAVE_EVERY = 30.0  # of work that may be lost
MAX_PART_ROWS = 8192  # of a part at most


class FeatureStore:
    """Rows of numbers by name, in files that are added and never changed: several processes may add at once."""

    def __init__(self, folder: Path, dtype: str = "float32"):
        """`dtype`: float32, or float16 in half the room and with three digits."""
        self.folder, self.dtype = folder, np.dtype(dtype)
        self.parts: list[Path] = []
        self.places: dict[str, tuple[int, int]] = {}  # name -> number of its part, row
        for names in sorted(folder.glob("[0-9]*.txt")):
            with contextlib.suppress(FileNotFoundError, ValueError):  # a part that is damaged is made anew
                rows = np.load(names.with_suffix(".npy"), mmap_mode="r")
                if len(listed := names.read_text().split()) == len(rows):
                    self._take(names.with_suffix(".npy"), listed)

    def __contains__(self, name: str) -> bool:
        return name in self.places

    def add(self, names: Sequence[str], rows: np.ndarray) -> None:
        """Rows (names, n) of any float type; names hold no white space. OSError where they cannot be written."""
        path = self.folder / f"{len(self.parts):06d}-{secrets.token_hex(4)}.npy"
        write_arrays(path, np.asarray(rows, self.dtype))
        with atomic_write(path.with_suffix(".txt")) as temporary:
            temporary.write_text("\n".join(names))
        self._take(path, names)

    def gather(self, names: Sequence[str]) -> np.ndarray:
        """The rows of these names, (names, n) float32. KeyError for one that is not there."""
        found = np.array([self.places[name] for name in names], np.int64).reshape(-1, 2)
        parts = {number: np.load(self.parts[number], mmap_mode="r") for number in np.unique(found[:, 0])}
        width = next(iter(parts.values())).shape[1] if parts else 0
        out = np.empty((len(names), width), np.float32)
        for number, rows in parts.items():
            here = found[:, 0] == number
            out[here] = rows[found[here, 1]]
        return out

    def _take(self, path: Path, names: Sequence[str]) -> None:
        self.places |= {name: (len(self.parts), row) for row, name in enumerate(names)}
        self.parts.append(path)


def add_missing(store: FeatureStore, names: Sequence[str], embed: Callable[[Sequence[int]], Iterable[np.ndarray]],
             step: Callable[[int], None]) -> None:
    """Add what the store lacks of `names`.

    `embed` is given positions among the names and yields their rows (batch, n), batch by batch and in that order. `step` is
    told how many more are done; those first that the store has.
    """
    lacking = [place for name, place in {name: place for place, name in enumerate(names)}.items() if name not in store]
    step(len(names) - len(lacking))
    rows: list[np.ndarray] = []
    done, since = 0, time.monotonic()

    def save() -> None:
        nonlocal done, since, rows
        count = sum(map(len, rows))
        if count:
            store.add([names[place] for place in lacking[done : done + count]], np.concatenate(rows))
        done, since, rows = done + count, time.monotonic(), []

    try:
        for batch in embed(lacking) if lacking else ():
            rows.append(batch)
            step(len(batch))
            if time.monotonic() > since + SAVE_EVERY or sum(map(len, rows)) >= MAX_PART_ROWS:
                save()
    finally:  # an interrupt loses nothing
        save()
