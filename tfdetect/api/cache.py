"""cache: what takes space in caches of decoded clips, and what of it is old or needed by no run, to be deleted."""

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import tyro

from tfdetect import config, files
from tfdetect.errors import UserError
from tfdetect.workflow.cache_needs import Needs, find_needs
from tfdetect.workflow.console import counter

if TYPE_CHECKING:
    from sqlite3 import Connection

    import pandas as pd

SETTINGS = r"v(?P<reader>\d+)-(?P<key>(?:npy|tfrecord)-.+)"  # the name of `Cache.folder`
SIZE = re.compile(r"(npy|tfrecord)-\d+x(\d+)")  # how a key begins: kind and size of the clips
CLIPS = re.compile(SETTINGS)
FEATURES = re.compile(rf"features/v\d+-{SETTINGS}-[0-9a-f]{{16}}-float\d+")  # of a `FeatureExtractor`
SAMPLE = re.compile(r"sample-(image|video)-\d+x\d+x\d+")
PART = re.compile(r"\d{6,}-[0-9a-f]{8}")  # the stem of a part of a feature store
SHARD = re.compile(r"(\d{5,})\.(npy|tfrecord)")
OTHERS = {"equalised": "equalised files", "shards": "shards of Apache Beam", "self_blended": "self-blended fakes"}
PARTIAL = ".part-"  # how `files.atomic_write` begins the name of a file until it is complete
IN_USE = 24 * 3600.0  # seconds after its last use in which a process that is still running may need an entry
UNITS = {"h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600}
AGE = re.compile(r"(\d+(?:\.\d+)?)([hdw])")


@dataclass(frozen=True)
class Caches:
    """Show what takes space in caches; with --older_than or --unused, also what could be deleted."""

    folders: tyro.conf.Positional[tuple[Path, ...]] = (Path("cache"),)
    """Folders of --data.cache_dir, or made by prepare, from which nothing is ever deleted."""
    older_than: str = ""
    """Select what was last used longer ago than this, such as 12h, 30d or 2w."""
    unused: bool = False
    """Select what no run in --runs needs to be resumed, trained further or evaluated again on its own files.
    What was used in the last day is left out, unless --older_than gives another time.
    Files that also hold clips that are needed are rewritten without the others."""
    runs: tuple[Path, ...] = (Path("saved_models"),)
    """Folders of runs."""

    def __post_init__(self) -> None:
        if self.older_than and not AGE.fullmatch(self.older_than):
            raise UserError(f"--older_than must be a time such as 12h, 30d or 2w (hours, days, weeks), got {self.older_than!r}.")

    @property
    def min_age(self) -> float:
        """Seconds since its last use after which something may be deleted; infinite if nothing is selected."""
        match = AGE.fullmatch(self.older_than)
        return float(match[1]) * UNITS[match[2]] if match else IN_USE if self.unused else float("inf")


class Entry(NamedTuple):
    """Files that are deleted together: a shard of clips, a part of a feature store, a sample; or a file that is kept."""

    paths: tuple[str, ...]
    size: int  # bytes on disk
    used: float  # when one of the files was last written or read, in seconds since 1970
    name: str = ""  # of what may be deleted
    clips: tuple[tuple[str, int], ...] = ()  # of a shard: the hash of the file of each clip, and its bytes
    kept: frozenset[str] = frozenset()  # the hashes of clips that are moved to another shard when this one is deleted


@dataclass
class Place:
    """A part of a cache: the clips or features with one setting, a sample, another file or folder."""

    root: Path
    name: str  # below `root`
    kind: str
    age: int = 0  # of the clips' reader against this one: -1 older, 1 newer
    key: str = ""  # storage format and settings of the clips, such as npy-8x256
    files: int = 0
    size: int = 0
    used: float = 0.0
    prunable: list[Entry] = field(default_factory=list)

    path = property(lambda self: self.root / self.name)


def cache(*folders: str | Path, **settings: Any) -> "pd.DataFrame":
    """Return a row per part of the caches in these folders, by default of `cache`, the largest first, with the columns folder,
    name, kind, files, size, used, prunable_files and prunable_size. Nothing is deleted.

    The keywords are flags of the command `cache`, such as `older_than="30d"` and `unused=True`; the last two columns count what
    these select. Sizes are in bytes on disk; `used` is when a file of the part was last written or, where the file system keeps
    that time, read. Raises UserError for a setting that is not valid, and if a folder does not exist.
    """
    defaults = Caches(tuple(map(Path, folders)) or (Path("cache"),))
    return to_table(review(config.parse_keywords(defaults, settings, "cache")))


def to_table(places: Sequence[Place]) -> "pd.DataFrame":
    """Return the table of `cache`."""
    from tfdetect.pandas_settings import pd

    columns = ["folder", "name", "kind", "files", "size", "used", "prunable_files", "prunable_size"]
    rows = [(str(place.root), place.name, place.kind, place.files, place.size, pd.Timestamp.fromtimestamp(int(place.used)),
             sum(len(entry.paths) for entry in place.prunable), sum(entry.size for entry in place.prunable))
            for place in places]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def review(settings: Caches) -> list[Place]:
    """Return the parts of the caches, the largest first, each with the entries that the settings select for deletion."""
    if missing := [root for root in settings.folders if not root.is_dir()]:
        raise UserError(f"There is no folder {missing[0]}: give that of --data.cache_dir, by default cache, which train makes, "
                        "or one made by prepare.")  # fmt: skip
    selecting = bool(settings.unused or settings.older_than)
    needs = find_needs(settings.runs, training_only=not settings.unused) if selecting else Needs()
    training = find_needs(settings.runs, training_only=True) if settings.unused else needs
    latest, in_use = time.time() - settings.min_age, time.time() - IN_USE
    places = [place for root in dict.fromkeys(settings.folders) for place in list_places(root)]
    with counter("Reading the cache", "file") as step:
        for place in places:
            is_needed = needed_by(place, needs, settings.unused)
            is_read = needed_by(place, training, settings.unused)
            for entry in read_entries(place):
                place.files += len(entry.paths)
                place.size += entry.size
                place.used = max(place.used, entry.used)
                step(len(entry.paths))
                old = entry.used <= latest and not (entry.name.startswith(PARTIAL) and entry.used > in_use)  # being written
                if not (selecting and entry.name and old):
                    continue
                if not is_needed(entry):
                    place.prunable.append(entry._replace(clips=()))
                elif entry.clips and not is_read(entry) and (part := unneeded_part(entry, place, needs)):
                    place.prunable.append(part)
    return sorted(places, key=lambda place: -place.size)


def list_places(root: Path) -> Iterator[Place]:
    """Yield the parts of a cache."""
    from tfdetect.data.media.read import READER_VERSION

    names = sorted(os.listdir(root))
    if "features" in names and (root / "features").is_dir():
        names.remove("features")
        names += [f"features/{name}" for name in sorted(os.listdir(root / "features"))]
    for name in names:
        path = root / name
        if match := CLIPS.fullmatch(name) or FEATURES.fullmatch(name):
            age = (int(match["reader"]) > READER_VERSION) - (int(match["reader"]) < READER_VERSION)
            kind = ("features" if "/" in name else "clips") + ("", " of a newer tfdetect", " of an older tfdetect")[age]
            yield Place(root, name, kind, age, match["key"])
        elif SAMPLE.fullmatch(name):
            yield Place(root, name, "embedded sample")
        elif (path / config.PREPARED_FILE).exists():
            yield Place(root, name, "prepared folder")
        else:
            kind = "incomplete" if name.startswith(PARTIAL) else "face model" if path.suffix == ".onnx" else "other"
            yield Place(root, name, OTHERS.get(name, kind))


def read_entries(place: Place) -> Iterator[Entry]:
    """Yield what is in a part of a cache, with a name if it may be deleted: never in a prepared folder, nor other files."""
    found = files.walk(place.path) if place.path.is_dir() else status_of(place.path)
    if (place.root / config.PREPARED_FILE).exists() or not (place.key or place.kind in ("embedded sample", "incomplete")):
        yield from (make_entry("", [item]) for item in found)
    elif place.key and not place.age:
        from tfdetect.data.prepare.clip_index import ClipIndex

        by_stem: dict[str, list[tuple[str, os.stat_result]]] = {}
        for item in found:
            name = os.path.basename(item[0])
            by_stem.setdefault(name.rpartition(".")[0] if PART.match(name) else name, []).append(item)
        with ClipIndex(place.path).open() as connection:
            for stem, group in by_stem.items():
                shard = SHARD.fullmatch(stem)
                entry = make_entry(stem if shard or PART.fullmatch(stem) or stem.startswith(PARTIAL) else "", group)
                yield entry._replace(clips=clips_of(connection, int(shard[1]))) if shard else entry
    elif whole := list(found):
        yield make_entry(place.name, whole)


def clips_of(connection: "Connection", shard: int) -> tuple[tuple[str, int], ...]:
    """Return the hash and the bytes of each clip in a shard."""
    from tfdetect.data.prepare import clip_index

    return tuple((sha, length) for sha, _, length in clip_index.clips_in(connection, shard))


def unneeded_part(entry: Entry, place: Place, needs: Needs) -> Entry | None:
    """Return the clips of a shard that no run needs, None if there are none; the others are kept."""
    from tfdetect.data.prepare import clip_index

    hashes = needs.hashes_for(place.key)
    dropped = [] if hashes is None else [length for key, length in entry.clips if clip_index.file_of(key) not in hashes]
    kept = frozenset(key for key, _ in entry.clips if hashes is None or clip_index.file_of(key) in hashes)
    return entry._replace(size=sum(dropped), kept=kept) if dropped else None


def status_of(path: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the path and status of a file, unless it was deleted meanwhile."""
    with suppress(FileNotFoundError):
        yield str(path), path.lstat()


def make_entry(name: str, items: Sequence[tuple[str, os.stat_result]]) -> Entry:
    """Return an entry of files with their status."""
    size = sum(files.disk_size(status.st_size) for _, status in items)
    return Entry(tuple(path for path, _ in items), size, max(last_use(*item) for item in items), name)


def last_use(path: str, status: os.stat_result) -> float:
    """Return when a file was written or read; the lists of names in feature stores are also read by `needed_by`."""
    return max(status.st_mtime, 0 if path.endswith(".txt") else status.st_atime)


def needed_by(place: Place, needs: Needs, unused: bool) -> Callable[[Entry], bool]:
    """Return a function that says whether a run needs an entry of the part; if not asked for what is unused, whether a training
    that is going on does."""
    if not place.key:
        answer = needs.samples or needs.has_folder(place.path)
    elif place.age:
        answer = place.age > 0 and unused
    elif (hashes := needs.hashes_for(place.key)) is None:
        answer = True
    elif place.name.startswith("features/"):
        return lambda entry: not entry.name.startswith(PARTIAL) and not hashes.isdisjoint(hashes_of_part(entry))
    else:
        from tfdetect.data.prepare import clip_index

        return lambda entry: any(clip_index.file_of(key) in hashes for key, _ in entry.clips)
    return lambda entry: answer and not entry.name.startswith(PARTIAL)


def hashes_of_part(entry: Entry) -> Iterator[str]:
    """Yield the hashes of the files whose features are in a part of a feature store; none for one that is incomplete or was
    deleted meanwhile."""
    from tfdetect.data.prepare import clip_index

    for path in entry.paths:
        if path.endswith(".txt"):
            with suppress(FileNotFoundError):
                yield from (clip_index.file_of(row.partition(":")[0]) for row in Path(path).read_text().split())


def prune(places: Sequence[Place], step: Callable[..., None]) -> tuple[int, int]:
    """Delete what `review` has selected and nobody has used since; return the numbers of files and bytes. `step` is called with
    `advance=` files. An interruption leaves only whole clips, and files that the next training completes."""
    count = size = 0
    for place in places:
        for entry in place.prunable:
            if not was_used_since(entry):
                delete(place, entry)
                count, size = count + len(entry.paths), size + entry.size
            step(advance=len(entry.paths))
        if place.prunable:
            delete_empty_folders(place.path)
    return count, size


def delete(place: Place, entry: Entry) -> None:
    """Delete the files of an entry; the clips of a shard that are kept are moved to another one first."""
    if SHARD.fullmatch(entry.name) and not place.age:
        from tfdetect.data.prepare import shards

        kind, size = SIZE.match(place.key).group(1, 2)  # type: ignore[union-attr]  # SETTINGS has matched it
        shards.drop(place.path, kind, int(size), int(entry.name.partition(".")[0]), entry.kept)
        return
    for path in sorted(entry.paths, key=lambda path: not path.endswith(".txt")):  # this one completes a part of a feature store
        Path(path).unlink(missing_ok=True)


def was_used_since(entry: Entry) -> bool:
    """Return whether a file of an entry was used after `review` had looked at it."""
    for path in entry.paths:
        with suppress(FileNotFoundError):
            if last_use(path, os.lstat(path)) > entry.used:
                return True
    return False


def delete_empty_folders(folder: Path) -> None:
    """Delete the folders without files below `folder`, and it too if only the index of its clips is left."""
    from tfdetect.data.prepare.clip_index import INDEX_NAME

    for parent, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):  # not empty
            if os.listdir(parent) == [INDEX_NAME]:
                os.unlink(os.path.join(parent, INDEX_NAME))
            os.rmdir(parent)
