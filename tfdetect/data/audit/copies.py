"""Find exact copies, that is files with equal bytes, and keep them in one group, one split and one class.

Copies with contradicting labels, and copies that would be both trained on and tested with, are excluded with a reason.
"""

import os
import stat
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pandas as pd

from tfdetect.data.components import first_of_component
from tfdetect.data.layouts.tree import SPLIT_PRIORITY
from tfdetect.data.media.read import digest

COMPARED_BYTES = 4096  # in the middle of files of equal size; files that differ there are not hashed
CLASS_NAMES = ("real", "fake")


def find_copies(paths: Iterable[str], workers: int | None = None, digest: Callable[[str], str] = digest) -> list[str]:
    """Return for each path the SHA-256 of its bytes if another path has the same bytes, else "".

    Few files are read, and even fewer completely. Files that cannot be read have no copies. `digest` returns the hash of a file;
    it is called by several threads.
    """
    paths = list(paths)
    sizes = {path: _size(path) for path in paths}
    candidates = _with_equal_values(paths, map(sizes.get, paths))
    with ThreadPoolExecutor(workers) as pool:
        candidates = _with_equal_values(candidates, pool.map(_none_on_error(_middle), candidates, map(sizes.get, candidates)))
        hashes = list(pool.map(_none_on_error(digest), candidates))
    copies = set(_with_equal_values(candidates, hashes))
    hash_of = dict(zip(candidates, hashes, strict=True))
    return [hash_of[path] if path in copies else "" for path in paths]


def _with_equal_values(paths: Sequence[str], values: Iterable[Any]) -> list[str]:
    """Return the paths whose value another path has too; None is not a value."""
    by_value = defaultdict(list)
    for path, value in zip(paths, values, strict=True):
        by_value[value].append(path)
    return [path for value, same in by_value.items() if value is not None and len(same) > 1 for path in same]


def _size(path: str) -> int | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) and status.st_size else None


def _middle(path: str, size: int) -> tuple[int, bytes]:
    file = os.open(path, os.O_RDONLY)
    try:
        return size, os.pread(file, COMPARED_BYTES, max(size - COMPARED_BYTES, 0) // 2)
    finally:
        os.close(file)


def _none_on_error(function: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except OSError:  # decoding the file will report the reason
            return None

    return wrapper


def resolve_copies(table: pd.DataFrame, contents: Sequence[str]) -> tuple[pd.DataFrame, pd.Series]:
    """Return the manifest with the groups of copies merged, and for each row the reason why it is excluded, or "".

    `contents` identifies the content of each row; "" means unknown. Copies with both labels are all excluded. Of copies
    in several splits only those in the first of SPLIT_PRIORITY are kept, so that a given test set stays intact. A row
    without a split counts as being in the split of its group.
    """
    rows_of = defaultdict(list)
    for row, content in enumerate(contents):
        if content:
            rows_of[content].append(row)
    paths, labels, groups = (table[name].tolist() for name in ("path", "label", "group"))
    known = dict(table.loc[table["split"] != "", ["group", "split"]].to_numpy())
    splits = [known.get(group, "") for group in groups]
    reasons, joined = [""] * len(table), [[group] for group in groups]
    for rows in rows_of.values():
        if len({labels[row] for row in rows}) > 1:
            for row in rows:
                other = next(candidate for candidate in rows if labels[candidate] != labels[row])
                this_class, other_class = CLASS_NAMES[labels[row]], CLASS_NAMES[labels[other]]
                reasons[row] = f"labelled {this_class}, but the same bytes are labelled {other_class}: '{paths[other]}'"
            continue
        kept_split = next((name for name in SPLIT_PRIORITY if any(splits[row] == name for row in rows)), "")
        first = next(row for row in rows if splits[row] == kept_split)
        for row in rows:
            if splits[row] not in ("", kept_split):
                reasons[row] = f"in {splits[row]}, but the same bytes are in {kept_split}: '{paths[first]}'"
            else:
                joined.append([groups[first], groups[row]])
    merged = first_of_component(joined)
    resolved = table.assign(group=pd.Series([merged[group] for group in groups], table.index, table["group"].dtype))
    return resolved, pd.Series(reasons, table.index, object)


def count_copies(contents: Sequence[str]) -> int:
    """Return how many files are copies of another file, not counting the first of each content."""
    known = [content for content in contents if content]
    return len(known) - len(set(known))
