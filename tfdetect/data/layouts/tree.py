"""The folder of a data set: list its files, register and recognise layouts, and find the people in its videos.

A plugin adds a layout with the decorator `layout`:

    from tfdetect.data.layouts.tree import Row, layout, list_media

    @layout("a folder named mysteries", lambda tree: tree.has("mysteries"))
    def mysteries(root):
        for parts, folder, names in list_media(root):
            for name in names:
                yield Row(f"{folder}/{name}", int("fake" in parts), source="mysteries")
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from tfdetect.data.components import first_of_component
from tfdetect.data.media.sniff import IMAGE_EXTENSIONS, VIDEO_EXTENSIONS, MediaError, media_kind
from tfdetect.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

MEDIA = IMAGE_EXTENSIONS + VIDEO_EXTENSIONS
MAX_ENTRIES = 12  # folders per level, and files per folder, that are examined to recognise a layout
SPLIT_PRIORITY = ("test", "validation", "train")  # which split keeps a file that several have: a given test stays intact
STRUCTURE = ("videos", "frames", "images")  # folder names without meaning; if several exist side by side, the first is read


class Row(NamedTuple):
    """A file of a data set. Without a label it is left out and counted. An empty group makes the file a group by itself."""

    path: str
    label: int | None
    source: str
    split: str = ""
    group: str = ""
    category: str = ""
    """What the file shows, for data sets with reals and fakes of each category."""


Reader = Callable[[Path], "Iterable[Row] | pd.DataFrame"]
R = TypeVar("R", bound=Reader)


@dataclass(frozen=True)
class Layout:
    """A directory tree that a data set ships in."""

    name: str
    expected: str  # what identifies the layout, for error messages
    recognise: Callable[[Tree], bool]  # examines few entries
    rows: Reader


LAYOUTS: dict[str, Layout] = {}  # in order of registration; detect.RECOGNITION_ORDER decides which built-in layout comes first


def layout(expected: str, recognise: Callable[[Tree], bool]) -> Callable[[R], R]:
    """Return a decorator that registers a function from a root to its rows as the layout with the function's name.

    Label 1 means fake, whatever the convention of the data set. Raises UserError if the name is taken.
    """

    def decorator(rows: R) -> R:
        name = getattr(rows, "__name__", "")
        if name in LAYOUTS or name in ("auto", "manifest", "class_folders", "deepfakebench"):
            raise UserError(f"Cannot register the layout {name!r}: the name already exists. Rename the function.")
        LAYOUTS[name] = Layout(name, expected, recognise, rows)
        return rows

    return decorator


class Tree:
    """A folder whose layout is to be recognised; each level is read once."""

    def __init__(self, root: Path):
        self.root, self.name = root, os.path.basename(os.path.abspath(root))
        self._folders: dict[tuple[str, ...], list[str]] = {}

    def folders(self, *parts: str) -> list[str]:
        """Return the names of the visible folders in root/parts, sorted; [] if that is not a folder."""
        if parts not in self._folders:
            try:
                with os.scandir(os.path.join(self.root, *parts)) as entries:
                    names = sorted(entry.name for entry in entries if not _is_hidden(entry.name) and entry.is_dir())
            except (FileNotFoundError, NotADirectoryError):
                names = []
            self._folders[parts] = names
        return self._folders[parts]

    def has(self, *parts: str) -> bool:
        """Return whether root/parts exists."""
        return os.path.exists(os.path.join(self.root, *parts))

    def files(self, *parts: str) -> list[str]:
        """Return the names of a few files in root/parts."""
        if not self.has(*parts):
            return []
        with os.scandir(os.path.join(self.root, *parts)) as entries:
            return [entry.name for entry, _ in zip(entries, range(MAX_ENTRIES), strict=False) if entry.is_file()]

    def head(self, *parts: str) -> str:
        """Return the first 4096 characters of a text file; "" if it does not exist."""
        path = os.path.join(self.root, *parts)
        if not os.path.isfile(path):
            return ""
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            return file.read(4096)

    def below(self, depth: int, *parts: str) -> Iterator[tuple[str, ...]]:
        """Yield the folder itself and a few folders up to `depth` levels below it, as parts."""
        yield parts
        if depth:
            for name in self.folders(*parts)[:MAX_ENTRIES]:
                yield from self.below(depth - 1, *parts, name)


def nested_trees(root: Path) -> Iterator[Tree]:
    """Yield the folder, then up to three levels of only subfolders: archives often add a level.

    A folder named `splits` beside the subfolder does not count.
    """
    for _ in range(4):
        tree = Tree(root)
        yield tree
        subfolders = [name for name in tree.folders() if name != "splits"]
        if len(subfolders) != 1:
            return
        root = root / subfolders[0]


def _is_hidden(name: str) -> bool:
    """Return whether an entry is hidden, or a folder that macOS adds to archives."""
    return name.startswith(".") or name == "__MACOSX"


def list_media(root: str | os.PathLike[str]) -> Iterator[tuple[tuple[str, ...], str, list[str]]]:
    """Yield (parts below root, folder, names of media files) of each folder, in a fixed order.

    Media files are those with such an extension, even if they are broken links or pipes (decoding them reports the
    reason), and those whose first bytes identify them. Hidden entries are skipped. Raises OSError for a folder that
    cannot be read.
    """
    for parts, folder, names in list_files(root):
        if not any(map(_is_hidden, parts)):
            yield parts, folder, [name for name in names if not _is_hidden(name) and is_listed(folder, name)]


def list_files(root: str | os.PathLike[str]) -> Iterator[tuple[tuple[str, ...], str, list[str]]]:
    """Yield (parts below root, folder, names of all files) of each folder, including hidden ones, in a fixed order.

    An empty folder with a media extension is listed as a file; decoding it reports the reason.
    """

    def raise_error(error: OSError) -> None:
        raise error

    for folder, folders, files in os.walk(root, onerror=raise_error, followlinks=True):
        folders[:] = sorted(name for name in folders if not _is_loop(os.path.join(folder, name)))
        path = Path(folder)
        empty = [name for name in folders if name.lower().endswith(MEDIA) and not os.listdir(os.path.join(folder, name))]
        yield path.relative_to(root).parts, "" if folder == "." else str(path), sorted([*files, *empty])


def is_listed(folder: str, name: str) -> bool:
    """Return whether `list_media` lists a file: by its extension, or else by its first bytes."""
    if name.lower().endswith(MEDIA):
        return True
    try:
        return bool(media_kind(os.path.join(folder, name)))
    except (MediaError, OSError):
        return False


def count_left_out(root: Path, used: Iterable[str], unlabelled: Iterable[str]) -> dict[str, int]:
    """Count the files below `root` that are not used.

    Keys are "FOLDER/" (or "./") for images and videos in or below that folder, ".txt" for other files with that extension,
    and "hidden". Used and counted files add up to all files.
    """
    used_paths, counts = {os.path.normpath(path) for path in used}, Counter[str]()
    unlabelled_paths = {os.path.normpath(path) for path in unlabelled}
    for parts, folder, names in list_files(root):
        for name in names:
            path = os.path.normpath(os.path.join(folder, name))
            extension = os.path.splitext(name)[1].lower()
            if path in used_paths:
                continue
            if _is_hidden(name) or any(map(_is_hidden, parts)):
                counts["hidden"] += 1
            elif path in unlabelled_paths or extension in MEDIA:
                counts[f"{parts[0] if parts else '.'}/"] += 1
            else:
                counts[extension or name] += 1
    return dict(counts)


def count_files(root: Path) -> tuple[int, Counter[str]]:
    """Return the number of files that `walk_media` yields, and that of others below `root`, by extension; "hidden" for hidden."""
    count, others = 0, Counter[str]()
    for parts, folder, names in list_files(root):
        for name in names:
            if _is_hidden(name) or any(map(_is_hidden, parts)):
                others["hidden"] += 1
            elif is_listed(folder, name):
                count += 1
            else:
                others[os.path.splitext(name)[1].lower() or name] += 1
    return count, others


def walk_media(root: Path) -> Iterator[Path]:
    """Yield the images and videos below `root`, in the order of `list_media`."""
    for _, folder, names in list_media(root):
        yield from (Path(folder, name) for name in names)


def _is_loop(folder: str) -> bool:
    """Return whether the folder is a link to one of its parents; following it would never end."""
    if not os.path.islink(folder):
        return False
    target = os.path.join(os.path.realpath(folder), "")
    return any(os.path.join(os.path.realpath(parent), "").startswith(target) for parent in Path(folder).parents)


def list_clips(root: str | os.PathLike[str]) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """Yield (parts, video, path) of each file; the video of an image is the folder with its frames.

    `parts` are the meaningful folders between root and video. Masks are skipped.
    """
    for parts, folder, names in list_media(root):
        if "masks" in parts or _has_preferred_sibling(os.fspath(root), parts):
            continue
        inner = tuple(part for part in parts if part not in STRUCTURE)
        for name in names:
            if inner and name.lower().endswith(IMAGE_EXTENSIONS) and (inner[-1].isdigit() or find_people(inner[-1], "")):
                yield inner[:-1], inner[-1], os.path.join(folder, name)
            else:
                yield inner, os.path.splitext(name)[0], os.path.join(folder, name)


def _has_preferred_sibling(root: str, parts: tuple[str, ...]) -> bool:
    """Return whether the videos are beside their extracted frames; reading both would count the videos twice."""
    for at, part in enumerate(parts):
        if part in STRUCTURE:
            preferred = STRUCTURE[: STRUCTURE.index(part)]
            return any(os.path.isdir(os.path.join(root, *parts[:at], name)) for name in preferred)
    return False


def find_people(video: str, default: str) -> list[str]:
    """Return the people in a video by its name; [default] if the name says nothing, [] if the default is empty.

    Names are those of Celeb-DF (`id0_id1_0000`), DFD (`01_02__walk__X`) and FaceForensics++ (`000_003`).
    """
    if ids := re.findall(r"(?<![A-Za-z])id\d+", video):
        return [f"celeb/{person}" for person in ids]
    if match := re.match(r"(\d\d)(?:_(\d\d))?__", video):
        return [f"actors/{person}" for person in match.groups() if person]
    if match := re.fullmatch(r"(\d{3})(?:_(\d{3}))?", video):
        return [f"youtube/{person}" for person in match.groups() if person]
    return [default] if default else []


def group_by_person(rows_with_people: Iterable[tuple[Row, list[str]]]) -> Iterator[Row]:
    """Yield the rows with groups: files that share a person, directly or through others, form one group.

    Each row comes with the people in it, at least one. A group has the name of its first person.
    """
    pairs = list(rows_with_people)
    group_of = first_of_component(people for _, people in pairs)
    for row, people in pairs:
        yield row._replace(group=group_of[people[0]])


def to_table(rows: Iterable[Row]) -> pd.DataFrame:
    """Return the rows as a table, with the column `category` only if any row has one."""
    import pandas as pd

    table = pd.DataFrame(list(rows), columns=list(Row._fields))
    return table if table["category"].any() else table.drop(columns="category")


def resolve_split_conflicts(table: pd.DataFrame) -> pd.DataFrame:
    """Resolve files and groups that an official list puts into several splits, so that no model is tested on training data.

    A file in several splits stays in test, else in validation. A group in several splits keeps the first of test,
    validation and train; its other files lose their split and follow the group when the data are split.
    """
    rank = table["split"].map({name: rank for rank, name in enumerate((*SPLIT_PRIORITY, ""))})
    table = table.assign(rank=rank).sort_values("rank", kind="stable").drop_duplicates("path").sort_index()
    best = table.groupby("group")["rank"].transform("min")
    table.loc[table["rank"] > best, "split"] = ""
    return table.drop(columns="rank").reset_index(drop=True)
