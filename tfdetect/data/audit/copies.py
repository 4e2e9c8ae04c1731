"""Equal bytes under several names: one group, hence one split; never two labels.

What has no label of its own, or would be trained on and tested with, is left out with its reason.
"""

import os
import stat
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pandas as pd

from tfdetect.data.media.read import digest

COMPARED_BYTES = 4096  # bytes in the middle of files of one size; what differs there need not be hashed
SPLIT_PRIORITY = ("test", "validation", "train")
CLASS_NAMES = ("real", "fake")


def find_copies(paths: Iterable[str], workers: int | None = None) -> list[str]:
    """For each path the SHA-256 of its bytes if another has the same, else "". Few files are read, fewer still whole; what cannot
    be read has no copies."""
    paths = list(paths)
    sizes = {path: _size(path) for path in paths}
    todo = _with_equal_values(paths, map(sizes.get, paths))
    with ThreadPoolExecutor(workers) as pool:
        todo = _with_equal_values(todo, pool.map(_none_on_error(_middle), todo, map(sizes.get, todo)))
        same = set(_with_equal_values(todo, hashes := list(pool.map(_none_on_error(digest), todo))))
    found = dict(zip(todo, hashes, strict=True))
    return [found[path] if path in same else "" for path in paths]


def _with_equal_values(paths: Sequence[str], values: Iterable[Any]) -> list[str]:
    """The paths whose value another has, too; None is no value."""
    places = defaultdict(list)
    for path, value in zip(paths, values, strict=True):
        places[value].append(path)
    return [path for value, held in places.items() if value is not None and len(held) > 1 for path in held]


def _size(path: str) -> int | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) and found.st_size else None


def _middle(path: str, size: int) -> tuple[int, bytes]:
    file = os.open(path, os.O_RDONLY)
    try:
        return size, os.pread(file, COMPARED_BYTES, max(size - COMPARED_BYTES, 0) // 2)
    finally:
        os.close(file)


def _none_on_error(work: Callable[..., Any]) -> Callable[..., Any]:
    def tried(*arguments: Any) -> Any:
        try:
            return work(*arguments)
        except OSError:  # its reader will say why
            return None

    return tried


def resolve_copies(table: pd.DataFrame, contents: Sequence[str]) -> tuple[pd.DataFrame, pd.Series]:
    """The manifest with the groups of copies joined, and for each row the reason why it is left out, or "".

    `contents` says row for row what a file holds, "" for nothing known. Files with equal contents and both labels are all left
    out. Of copies in several splits only those of the strictest, test before validation before train, are kept: a test stays
    what it was given as. A row without a split counts as in that of its group.
    """
    sets = defaultdict(list)
    for at, content in enumerate(contents):
        if content:
            sets[content].append(at)
    paths, labels, groups = (table[name].tolist() for name in ("path", "label", "group"))
    known = dict(table.loc[table["split"] != "", ["group", "split"]].to_numpy())
    splits = [known.get(group, "") for group in groups]
    reasons, leader = [""] * len(table), _MergedGroups()
    for same in sets.values():
        if len({labels[at] for at in same}) > 1:
            for at in same:
                other = next(there for there in same if labels[there] != labels[at])
                here, elsewhere = CLASS_NAMES[labels[at]], CLASS_NAMES[labels[other]]
                reasons[at] = f"labelled {here}, and the same bytes are labelled {elsewhere}: '{paths[other]}'"
            continue
        best = next((name for name in SPLIT_PRIORITY if any(splits[at] == name for at in same)), "")
        first = next(at for at in same if splits[at] == best)
        for at in same:
            if splits[at] not in ("", best):
                reasons[at] = f"in {splits[at]}, and the same bytes are in {best}: '{paths[first]}'"
            else:
                leader.join(groups[first], groups[at])
    joined = table.assign(group=pd.Series([leader.of(group) for group in groups], table.index, table["group"].dtype))
    return joined, pd.Series(reasons, table.index, object)


class _MergedGroups:
    """Of groups that hang together, the first by name."""

    def __init__(self) -> None:
        self.above: dict[str, str] = {}

    def of(self, group: str) -> str:
        while group in self.above:
            group = self.above[group]
        return group

    def join(self, one: str, other: str) -> None:
        low, high = sorted((self.of(one), self.of(other)))
        if low != high:
            self.above[high] = low


def count_copies(contents: Sequence[str]) -> int:
    """How many files are copies of others."""
    held = [content for content in contents if content]
    return len(held) - len(set(held))
