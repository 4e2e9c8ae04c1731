"""A data set's folder: what lies in it, how a layout recognises it, and who is in its files."""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from tfdetect.data.media.sniff import IMAGE_EXTENSIONS, VIDEO_EXTENSIONS, MediaError, media_kind

MEDIA = IMAGE_EXTENSIONS + VIDEO_EXTENSIONS
MAX_ENTRIES = 12  # folders of a level that are looked into to recognise a layout
STRUCTURE = ("videos", "frames", "images")  # levels without meaning of their own; of several the first is read


class Row(NamedTuple):
    """A file of a data set. Without a label it is left out, and counted. An empty group is the file by itself."""

    path: str
    label: int | None
    source: str
    split: str = ""
    group: str = ""
    category: str = ""
    """What is to be seen, where the set has reals and fakes of each."""


@dataclass(frozen=True)
class Layout:
    """A tree that a data set ships in."""

    name: str
    needs: str  # what it is known by, in a few words
    recognise: "Callable[[Tree], bool]"  # looks at few entries
    rows: Callable[[Path], "Iterable[Row] | pd.DataFrame"]


LAYOUTS: dict[str, Layout] = {}  # in the order in which they are tried


def layout(needs: str, recognise: "Callable[[Tree], bool]") -> Callable[..., Any]:
    """Register a function from a root to its rows as the layout of its name."""

    def add(rows: Callable[[Path], "Iterable[Row] | pd.DataFrame"]) -> Any:
        LAYOUTS[rows.__name__] = Layout(rows.__name__, needs, recognise, rows)
        return rows

    return add


class Tree:
    """A folder to be recognised; each level is read once."""

    def __init__(self, root: Path):
        self.root, self.name = root, os.path.basename(os.path.abspath(root))
        self._folders: dict[tuple[str, ...], list[str]] = {}

    def folders(self, *parts: str) -> list[str]:
        """The visible folders in root/parts, sorted; none where that is no folder."""
        if parts not in self._folders:
            try:
                with os.scandir(os.path.join(self.root, *parts)) as entries:
                    found = sorted(entry.name for entry in entries if not _hidden(entry.name) and entry.is_dir())
            except (FileNotFoundError, NotADirectoryError):
                found = []
            self._folders[parts] = found
        return self._folders[parts]

    def has(self, *parts: str) -> bool:
        return os.path.exists(os.path.join(self.root, *parts))

    def files(self, *parts: str) -> list[str]:
        """A few file names in root/parts."""
        if not self.has(*parts):
            return []
        with os.scandir(os.path.join(self.root, *parts)) as entries:
            return [entry.name for entry, _ in zip(entries, range(MAX_ENTRIES), strict=False) if entry.is_file()]

    def head(self, *parts: str) -> str:
        """How a text file begins; nothing where there is none."""
        path = os.path.join(self.root, *parts)
        if not os.path.isfile(path):
            return ""
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            return file.read(4096)

    def below(self, depth: int, *parts: str) -> Iterator[tuple[str, ...]]:
        """The folder itself and the first few below it, down to `depth` levels, as parts."""
        yield parts
        if depth:
            for name in self.folders(*parts)[:MAX_ENTRIES]:
                yield from self.below(depth - 1, *parts, name)


def nested_trees(root: Path) -> Iterator[Tree]:
    """The folder, and while it holds but one folder, that one: archives like to add a level or two. Lists of splits may lie
    beside it."""
    for _ in range(4):
        tree = Tree(root)
        yield tree
        inner = [name for name in tree.folders() if name != "splits"]
        if len(inner) != 1:
            return
        root = root / inner[0]


def _hidden(name: str) -> bool:
    """Hidden entries are no data, nor is what macOS adds to archives."""
    return name.startswith(".") or name == "__MACOSX"


def list_media(root: str | os.PathLike[str]) -> Iterator[tuple[tuple[str, ...], str, list[str]]]:
    """(parts below root, folder, names of the media in it) of each folder, in a fixed order.

    A medium is what is named like one, be it a broken link or a pipe: its reader will say what is wrong with it; and what
    begins like one, whatever its name. Hidden entries are no data. A folder that may not be read is an error (OSError).
    """
    for parts, folder, names in list_files(root):
        if not any(map(_hidden, parts)):
            yield parts, folder, [name for name in names if not _hidden(name) and is_listed(folder, name)]


def list_files(root: str | os.PathLike[str]) -> Iterator[tuple[tuple[str, ...], str, list[str]]]:
    """(parts below root, folder, names of all files in it) of each folder, hidden ones too, in a fixed order. An empty folder
    that is named like a medium counts as a file: its reader says what is wrong with it."""

    def refuse(error: OSError) -> None:
        raise error

    for folder, folders, files in os.walk(root, onerror=refuse, followlinks=True):
        folders[:] = sorted(name for name in folders if not _loops(os.path.join(folder, name)))
        place = Path(folder)
        empty = [name for name in folders if name.lower().endswith(MEDIA) and not os.listdir(os.path.join(folder, name))]
        yield place.relative_to(root).parts, "" if folder == "." else str(place), sorted([*files, *empty])


def is_listed(folder: str, name: str) -> bool:
    """Whether a file is listed: by its name, or where that says nothing by its first bytes."""
    if name.lower().endswith(MEDIA):
        return True
    try:
        return bool(media_kind(os.path.join(folder, name)))
    except (MediaError, OSError):
        return False


def count_left_out(root: Path, taken: Iterable[str], unlabelled: Iterable[str]) -> dict[str, int]:
    """What of the files below `root` is not among those taken: "FOLDER/" (or "./") -> images and videos right there or further
    down, ".txt" -> other files of that extension, "hidden" -> hidden ones; all together are as many as there are files."""
    used, found = {os.path.normpath(path) for path in taken}, Counter[str]()
    strange = {os.path.normpath(path) for path in unlabelled}
    for parts, folder, names in list_files(root):
        for name in names:
            path = os.path.normpath(os.path.join(folder, name))
            extension = os.path.splitext(name)[1].lower()
            if path in used:
                continue
            if _hidden(name) or any(map(_hidden, parts)):
                found["hidden"] += 1
            elif path in strange or extension in MEDIA:
                found[f"{parts[0] if parts else '.'}/"] += 1
            else:
                found[extension or name] += 1
    return dict(found)


def walk_media(root: Path) -> Iterator[Path]:
    """Images and videos below `root`, as `list_media` finds them."""
    for _, folder, names in list_media(root):
        yield from (Path(folder, name) for name in names)


def _loops(folder: str) -> bool:
    """A link to a folder that it lies in would be followed for ever."""
    if not os.path.islink(folder):
        return False
    real = os.path.join(os.path.realpath(folder), "")
    return any(os.path.join(os.path.realpath(above), "").startswith(real) for above in Path(folder).parents)


def list_clips(root: str | os.PathLike[str]) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """(parts, video, path) of each file: a video by its stem; an image is a frame, its folder the video. `parts` are the
    folders between root and video that mean something. Masks are no data."""
    for parts, folder, names in list_media(root):
        if "masks" in parts or _shadowed(os.fspath(root), parts):
            continue
        inner = tuple(part for part in parts if part not in STRUCTURE)
        for name in names:
            if inner and name.lower().endswith(IMAGE_EXTENSIONS) and (inner[-1].isdigit() or find_people(inner[-1], "")):
                yield inner[:-1], inner[-1], os.path.join(folder, name)
            else:
                yield inner, os.path.splitext(name)[0], os.path.join(folder, name)


def _shadowed(root: str, parts: tuple[str, ...]) -> bool:
    """Frames beside the videos that they were taken from would count the videos twice."""
    for at, part in enumerate(parts):
        if part in STRUCTURE:
            earlier = STRUCTURE[: STRUCTURE.index(part)]
            return any(os.path.isdir(os.path.join(root, *parts[:at], name)) for name in earlier)
    return False


def find_people(video: str, otherwise: str) -> list[str]:
    """Who is in a video by its name, in the manner of Celeb-DF (`id0_id1_0000`), DFD (`01_02__walk__X`) and
    FaceForensics++ (`000_003`); else [otherwise], or nobody where that is empty."""
    if found := re.findall(r"(?<![A-Za-z])id\d+", video):
        return [f"celeb/{person}" for person in found]
    if match := re.match(r"(\d\d)(?:_(\d\d))?__", video):
        return [f"actors/{person}" for person in match.groups() if person]
    if match := re.fullmatch(r"(\d{3})(?:_(\d{3}))?", video):
        return [f"youtube/{person}" for person in match.groups() if person]
    return [otherwise] if otherwise else []


def group_by_person(found: Iterable[tuple[Row, list[str]]]) -> Iterator[Row]:
    """Files that share a person, be it through others, are one group, named after the first of these persons.

    `found` are rows with the persons in them, at least one.
    """
    rows = list(found)
    first = connected_names(persons for _, persons in rows)
    for row, persons in rows:
        yield row._replace(group=first[persons[0]])


def connected_names(sets: Iterable[Sequence[str]]) -> dict[str, str]:
    """Name -> the first, in their order, of all names that hang together with it by sets that share one."""
    leader: dict[str, str] = {}

    def first(name: str) -> str:
        while (above := leader.setdefault(name, name)) != name:
            leader[name] = leader[above]
            name = above
        return name

    for names in sets:
        for name in names:
            low, high = sorted((first(names[0]), first(name)))
            leader[high] = low
    return {name: first(name) for name in leader}


def to_table(rows: Iterable[Row]) -> pd.DataFrame:
    """The rows as a table, with a category where any has one."""
    table = pd.DataFrame(list(rows), columns=list(Row._fields))
    return table if table["category"].any() else table.drop(columns="category")


def resolve_split_conflicts(table: pd.DataFrame) -> pd.DataFrame:
    """What an official list puts into several splits, for a model not to be tested on what it learnt from.

    A file that is in several stays in test, else in validation. A group that is in several keeps the strictest of them;
    its other files lose theirs, and go along with the group when the data are split.
    """
    rank = table["split"].map({"test": 0, "validation": 1, "train": 2, "": 3})
    table = table.assign(rank=rank).sort_values("rank", kind="stable").drop_duplicates("path").sort_index()
    best = table.groupby("group")["rank"].transform("min")
    table.loc[table["rank"] > best, "split"] = ""
    return table.drop(columns="rank").reset_index(drop=True)
