"""Public sets of manipulated faces, each by the tree that it ships in.

A layout is a function from its root to rows, with what it is known by above it. 1 is always fake, whatever the set's own
convention. Whoever is in two videos, as target or as source, joins them into one group.
"""

import csv
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from tfdetect.data.layouts.tree import (
    Row,
    Tree,
    find_people,
    group_by_person,
    layout,
    list_clips,
    list_media,
    resolve_split_conflicts,
    to_table,
)
from tfdetect.data.manifest import LABELS, SPLIT_NAMES
from tfdetect.data.media.sniff import IMAGE_EXTENSIONS
from tfdetect.errors import UserError

METHODS = ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures", "FaceShifter")
CELEB = ("celeb-real", "youtube-real", "celeb-synthesis")
DF40 = ("heygen", "deepfacelab", "whichfaceisreal", "collabdiff", "e4e", "starganv2", "styleclip")  # with reals of their own
ENTRIES = "a table with a label for each file name"
Found = Iterator[tuple[Row, list[str]]]  # a row and who is in it


def _faceforensics(tree: Tree) -> bool:
    return tree.has("original_sequences", "youtube") or any(tree.has("manipulated_sequences", name) for name in METHODS)


@layout("original_sequences/youtube, manipulated_sequences/Deepfakes", _faceforensics)
def faceforensics(root: Path) -> Iterator[Row]:
    """FaceForensics++, all methods and compressions that are there, and DFD where it lies in the same tree.

    The official lists hold pairs of ids: both orders are fakes, each id is a real. https://arxiv.org/abs/1901.08971
    """
    return group_by_person(_sequences(root))


def _dfd(tree: Tree) -> bool:
    return tree.has("original_sequences", "actors") or tree.has("manipulated_sequences", "DeepFakeDetection")


@layout("original_sequences/actors, manipulated_sequences/DeepFakeDetection", _dfd)
def dfd(root: Path) -> Iterator[Row]:
    """DeepFakeDetection alone. Its 28 actors swap with many others, so few groups remain."""
    return group_by_person(found for found in _sequences(root) if found[0].source in ("actors", "DeepFakeDetection"))


def _sequences(root: Path) -> Found:
    splits = _pairs(root)
    for label, kind in enumerate(("original_sequences", "manipulated_sequences")):
        for parts, video, path in list_clips(root / kind) if (root / kind).is_dir() else ():
            who = find_people(video, path)
            yield Row(path, label, parts[0] if parts else kind, splits.get(who[0], "")), who


def _pairs(root: Path) -> dict[str, str]:
    """Person, as `people` names it -> split, by the official lists of pairs where they are there."""
    above = root.absolute().parent
    for folder in (root / "splits", root / "dataset" / "splits", root, above / "splits", above):
        lists = [folder / f"{name}.json" for name in ("train", "val", "test")]
        if (all if folder is above else any)(path.is_file() for path in lists):
            return {f"youtube/{video}": SPLIT_NAMES[path.stem] for path in lists if path.is_file()
                    for pair in _json(path, "a list of pairs of ids", _is_pairs) for video in pair}  # fmt: skip
    return {}


@layout("Celeb-real, Celeb-synthesis", lambda tree: any(name.lower() in CELEB for name in tree.folders()))
def celeb_df(root: Path) -> pd.DataFrame:
    """Celeb-DF v1, v2 and ++. In its list of testing videos 1 is real; the folders say the same.

    The list puts videos of one person into train and test. Here the person's other videos lose their split, and go to
    test with the person where the data are split. https://arxiv.org/abs/1909.12962
    """
    return resolve_split_conflicts(to_table(group_by_person(_celebrities(root, _testing(root / "List_of_testing_videos.txt")))))


def _celebrities(root: Path, testing: set[str]) -> Found:
    for name in Tree(root).folders():
        if name.lower() not in CELEB:
            continue
        fake = name.lower() == "celeb-synthesis"
        for parts, video, path in list_clips(root / name):
            key = "/".join((name, *parts, video))
            split = ("test" if key.lower() in testing else "train") if testing else ""
            yield Row(path, int(fake), parts[-1] if fake and parts else name, split), find_people(video, key)


def _testing(path: Path) -> set[str]:
    """Folder/video in small letters, without extension and `videos/`."""
    if not path.is_file():
        return set()
    names = [line.split(maxsplit=1)[-1].strip().replace("\\", "/") for line in path.read_text().splitlines() if line.strip()]
    return {os.path.splitext(name)[0].replace("/videos/", "/").lower() for name in names}


# --- DFDC ------------------------------------------------------------------------------------------------------------


def _dfdc(tree: Tree) -> bool:
    return any(re.search(r'\.mp4"\s*:\s*\{', tree.head(*parts, "metadata.json"), re.IGNORECASE)
               or tree.head(*parts, "labels.csv").startswith("filename,label") for parts in tree.below(2))  # fmt: skip


@layout("dfdc_train_part_N/metadata.json, or labels.csv with filename,label", _dfdc)
def dfdc(root: Path) -> Iterator[Row]:
    """The Deepfake Detection Challenge: parts with metadata.json, one or many; the test with labels.csv.

    A fake is of its original's group. Videos that no table names are left out. https://arxiv.org/abs/2006.07397
    """
    named: dict[str, set[str]] = {}
    for _, folder, names in list_media(root):
        table = _table(Path(folder))
        if table:
            place = os.path.join(folder, "videos") if os.path.isdir(os.path.join(folder, "videos")) else folder
            named[place] = {name for name, *_ in table}
            for name, label, split, original in table:
                yield Row(os.path.join(place, name), label, "DFDC", split, f"dfdc/{original}")
        known = named.get(folder, set())
        yield from (Row(os.path.join(folder, name), None, "") for name in names if name not in known)


def _table(folder: Path) -> list[tuple[str, int, str, str]]:
    """(file name, label, split, original) by the folder's metadata.json or labels.csv; nothing where it has none."""
    if (folder / "metadata.json").is_file():
        path, entries = folder / "metadata.json", _json(folder / "metadata.json", ENTRIES, _is_entries)
    elif (folder / "labels.csv").is_file():
        path, split = folder / "labels.csv", SPLIT_NAMES.get(folder.absolute().name.lower(), "test")
        with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            entries = {row.get("filename"): {"label": row.get("label"), "split": split} for row in csv.DictReader(file)}
    else:
        return []
    rows = []
    for name, entry in entries.items():
        label = str(entry.get("label", entry.get("is_fake"))).strip().lower()
        if label not in LABELS or not name:
            raise UserError(f"{path}: {name!r} has the label {label!r}, expected REAL or FAKE, 0 or 1.")
        rows.append((name, LABELS[label], SPLIT_NAMES.get(str(entry.get("split", "")), ""), entry.get("original") or name))
    return rows


def _preview(tree: Tree) -> bool:
    return tree.has("dataset.json") and re.search(r'"(method_\w|original_videos)/', tree.head("dataset.json")) is not None


@layout("dataset.json, original_videos, method_A", _preview)
def dfdc_preview(root: Path) -> pd.DataFrame:
    """The DFDC preview: dataset.json with label and set; persons are target and swapped. https://arxiv.org/abs/1910.08854"""
    entries = _json(root / "dataset.json", ENTRIES, _is_entries) if (root / "dataset.json").is_file() else {}
    rows = [(Row(os.path.join(root, name), LABELS.get(str(entry.get("label")).lower()), name.split("/")[0],
                 SPLIT_NAMES.get(str(entry.get("set", "")).lower(), "")), _subjects(name, entry))
            for name, entry in entries.items()]  # fmt: skip
    others = (Row(os.path.join(folder, name), None, "") for parts, folder, names in list_media(root) for name in names
              if "/".join((*parts, name)) not in entries)  # fmt: skip
    return resolve_split_conflicts(to_table([*group_by_person(rows), *others]))


def _subjects(name: str, entry: dict[str, Any]) -> list[str]:
    ids = [entry[key] for key in ("target_id", "swapped_id") if entry.get(key) is not None]
    return [f"subject/{person}" for person in ids or [name.split("/")[-2 if name.count("/") > 1 else -1]]]


# --- frames ----------------------------------------------------------------------------------------------------------


def _df40(tree: Tree) -> bool:
    tops = {name: {*tree.folders(name)} for name in tree.folders()}
    return any({"ff", "cdf"} & inner or ("real" in inner and name.lower() in DF40) for name, inner in tops.items())


@layout("METHOD/ff, METHOD/cdf or METHOD/{real,fake}", _df40)
def df40(root: Path) -> Iterator[Row]:
    """DF40: all that is not in a folder `real` is fake; `ff` and `cdf` are made of FaceForensics++ and Celeb-DF, whose
    own folders hold the reals. https://arxiv.org/abs/2406.13495"""

    def found() -> Found:
        for parts, video, path in list_clips(root):
            at = next((at for at, part in enumerate(parts) if at and part.lower() in ("ff", "cdf", "real", "fake")), 0)
            label = int(parts[at].lower() != "real") if at else None
            inside = parts[at + 1 :] if path.lower().endswith(IMAGE_EXTENSIONS) else ()  # frames in the folder of their video
            yield Row(path, label, parts[0] if parts else ""), find_people(video, "/".join((*parts[:1], *(inside or (video,)))))

    return group_by_person(found())


def deepfakebench(path: Path) -> pd.DataFrame:
    """A JSON of DeepfakeBench: dataset, label, split, perhaps compression, video, frames. Each frame is a row, its video
    the group, joined with others of the same persons. A file that it puts into several splits counts as test.
    """
    videos = list(_videos(_json(path, "dataset > label > split > video", _is_entries), path))
    base = _base(path, [frames[0] for *_, frames in videos if frames][:20])

    def found() -> Found:
        for data, label, split, video, frames in videos:
            fake, who = int(not label.lower().endswith("real")), find_people(video, f"{data}/{video.removesuffix('_fake')}")
            yield from ((Row(os.path.join(base, name), fake, label, split), who) for name in frames)
            if not frames:
                yield Row(f"{video} (without frames)", None, label), who

    return resolve_split_conflicts(to_table(group_by_person(found())))


def _videos(content: Any, path: Path) -> Iterator[tuple[str, str, str, str, list[str]]]:
    """(dataset, label, split, video, frames with slashes) of each video."""
    try:
        for data, labels in content.items():
            for label, splits in labels.items():
                for split, videos in splits.items():
                    for name, entry in videos.items():
                        compression = {name: entry} if "frames" in entry else entry
                        for video, listed in compression.items():
                            frames = [frame.replace("\\", "/") for frame in listed["frames"]]
                            yield data, label, SPLIT_NAMES[split.lower()], video, frames
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is no manifest: expected the JSON of DeepfakeBench, dataset > label > train, val or test > video > frames "
            f"({type(error).__name__}: {error}), or a CSV or Parquet file with path,label."
        ) from error


def _base(path: Path, names: list[str]) -> Path:
    """The folder that the names are relative to: the JSON's own or the nearest above it in which one of them is."""
    folders = [path.parent, *path.absolute().parents]
    return next((folder for folder in folders if any(os.path.exists(folder / name) for name in names)), path.parent)


def _json(path: Path, expected: str, fits: Callable[[Any], bool]) -> Any:
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path} cannot be read as JSON: {error}.") from error
    if not fits(content):
        raise UserError(f"{path} holds other JSON than expected: {expected}.")
    return content


def _is_pairs(content: Any) -> bool:
    return isinstance(content, list) and all(isinstance(pair, list) for pair in content)


def _is_entries(content: Any) -> bool:
    return isinstance(content, dict) and all(isinstance(entry, dict) for entry in content.values())
