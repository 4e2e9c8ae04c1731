"""The trees that data sets ship in -> manifest."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from tfdetect.data import manifest
from tfdetect.data.media import is_media

MANIFESTS = ("manifest.csv", "manifest.parquet")


def read(path: Path, fake: Sequence[str] = ("fake",)) -> pd.DataFrame:
    """The manifest of a data set: a table as it is, a folder by its own manifest or by its class folders.

    `fake` names the class folders that are fake. Raises ValueError that says what was found and what was expected,
    FileNotFoundError or PermissionError where nothing can be read.
    """
    if path.is_file():
        return manifest.read(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; expected a folder or a manifest.")
    for name in MANIFESTS:
        if (path / name).is_file():
            return manifest.read(path / name)
    return class_folders(path, fake)


def class_folders(root: Path, fake: Sequence[str]) -> pd.DataFrame:
    """`real/` and `fake/` at any depth and in any letter case, with or without a folder of a split above them.

    Source is the path between class folder and file, or the class folder's own name. Without split folders, files of
    one name (`real/7.mp4`, `fake/7.mp4`) are one group: they may be twins, and a group too coarse does no harm. With
    split folders the split is already decided, and each file is a group of its own.
    """
    wanted = {name.lower() for name in fake}
    only_named = wanted == {"fake"}  # then a class folder is called real or fake, and others are not guessed at
    rows, strangers = [], set()
    for file in walk(root):
        parts = file.relative_to(root).parts[:-1]
        lower = [part.lower() for part in parts]
        at = next((i for i, part in enumerate(lower) if part in wanted or part == "real"), None)
        if at is None and not only_named and parts:
            at = next((i for i, part in enumerate(lower) if part not in manifest.SPLIT_NAMES), None)
        if at is None:
            strangers.add("/".join(parts) or ".")
            continue
        split = next((manifest.SPLIT_NAMES[part] for part in lower if part in manifest.SPLIT_NAMES), "")
        inner = "/".join(parts[at + 1 :])
        rows.append({"path": str(file), "label": int(lower[at] in wanted), "split": split, "source": inner or parts[at],
                     "group": str(file.relative_to(root)) if split else file.stem})  # fmt: skip
    if not rows:
        found = f"files in {', '.join(sorted(strangers)[:5])}" if strangers else "no image or video"
        raise ValueError(
            f"{root}: found {found}; expected class folders named real and {', '.join(fake)} with images or videos in "
            "them (--data.fake names other fakes), or a manifest.csv with path,label."
        )
    return manifest.check(pd.DataFrame(rows), str(root))


def walk(root: Path) -> Iterator[Path]:
    """Images and videos below `root` in a fixed order. A folder that may not be read is an error, not a smaller set."""

    def refuse(error: OSError) -> None:
        raise error

    for folder, folders, files in os.walk(root, onerror=refuse, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(folder, name) for name in sorted(files) if is_media(name) and not name.startswith("."))
