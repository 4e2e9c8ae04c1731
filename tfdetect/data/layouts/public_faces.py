"""Layouts of public data sets of manipulated faces.

Each layout is a function from a root folder to rows, preceded by the function that recognises it. Label 1 always means
fake, whatever the convention of the data set. Videos that share a person, as target or source, form one group.
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
CELEB_FOLDERS = ("celeb-real", "youtube-real", "celeb-synthesis")
DF40_WITH_REALS = ("heygen", "deepfacelab", "whichfaceisreal", "collabdiff", "e4e", "starganv2", "styleclip")
ENTRIES = "an object with a label for each file name"
RowsWithPeople = Iterator[tuple[Row, list[str]]]


def _is_faceforensics(tree: Tree) -> bool:
    return tree.has("original_sequences", "youtube") or any(tree.has("manipulated_sequences", name) for name in METHODS)


@layout("original_sequences/youtube, manipulated_sequences/Deepfakes", _is_faceforensics)
def faceforensics(root: Path) -> Iterator[Row]:
    """Read FaceForensics++ with all available methods and compressions, and DFD if it is in the same tree.

    The official lists hold pairs of ids: both orders are fakes, each id is a real. https://arxiv.org/abs/1901.08971
    """
    return group_by_person(_sequences(root))


def _is_dfd(tree: Tree) -> bool:
    return tree.has("original_sequences", "actors") or tree.has("manipulated_sequences", "DeepFakeDetection")


@layout("original_sequences/actors, manipulated_sequences/DeepFakeDetection", _is_dfd)
def dfd(root: Path) -> Iterator[Row]:
    """Read DeepFakeDetection alone. Its 28 actors are swapped with many others, so there are few groups."""
    return group_by_person(pair for pair in _sequences(root) if pair[0].source in ("actors", "DeepFakeDetection"))


def _sequences(root: Path) -> RowsWithPeople:
    splits = _split_by_person(root)
    for label, kind in enumerate(("original_sequences", "manipulated_sequences")):
        for parts, video, path in list_clips(root / kind) if (root / kind).is_dir() else ():
            people = find_people(video, path)
            yield Row(path, label, parts[0] if parts else kind, splits.get(people[0], "")), people


def _split_by_person(root: Path) -> dict[str, str]:
    """Return person, named as by `find_people` -> split, from the official lists of pairs; {} if they are missing."""
    parent = root.absolute().parent
    for folder in (root / "splits", root / "dataset" / "splits", root, parent / "splits", parent):
        lists = [folder / f"{name}.json" for name in ("train", "val", "test")]
        if (all if folder is parent else any)(path.is_file() for path in lists):
            return {f"youtube/{video}": SPLIT_NAMES[path.stem] for path in lists if path.is_file()
                    for pair in _json(path, "a list of pairs of ids", _is_pair_list) for video in pair}  # fmt: skip
    return {}


@layout("Celeb-real, Celeb-synthesis", lambda tree: any(name.lower() in CELEB_FOLDERS for name in tree.folders()))
def celeb_df(root: Path) -> pd.DataFrame:
    """Read Celeb-DF v1, v2 or ++. Labels come from the folders; in its list of testing videos, 1 means real.

    The list puts videos of one person into train and test. A person's other videos lose their split here, and follow the
    person into test when the data are split. https://arxiv.org/abs/1909.12962
    """
    testing = _read_testing_list(root / "List_of_testing_videos.txt")
    return resolve_split_conflicts(to_table(group_by_person(_celeb_rows(root, testing))))


def _celeb_rows(root: Path, testing: set[str]) -> RowsWithPeople:
    for name in Tree(root).folders():
        if name.lower() not in CELEB_FOLDERS:
            continue
        is_fake = name.lower() == "celeb-synthesis"
        for parts, video, path in list_clips(root / name):
            key = "/".join((name, *parts, video))
            split = ("test" if key.lower() in testing else "train") if testing else ""
            yield Row(path, int(is_fake), parts[-1] if is_fake and parts else name, split), find_people(video, key)


def _read_testing_list(path: Path) -> set[str]:
    """Return the listed videos as folder/video in lower case, without extension and without `videos/`."""
    if not path.is_file():
        return set()
    names = [line.split(maxsplit=1)[-1].strip().replace("\\", "/") for line in path.read_text().splitlines() if line.strip()]
    return {os.path.splitext(name)[0].replace("/videos/", "/").lower() for name in names}


# --- DFDC ------------------------------------------------------------------------------------------------------------


def _is_dfdc(tree: Tree) -> bool:
    return any(re.search(r'\.mp4"\s*:\s*\{', tree.head(*parts, "metadata.json"), re.IGNORECASE)
               or tree.head(*parts, "labels.csv").startswith("filename,label") for parts in tree.below(2))  # fmt: skip


@layout("dfdc_train_part_N/metadata.json, or labels.csv with filename,label", _is_dfdc)
def dfdc(root: Path) -> Iterator[Row]:
    """Read the Deepfake Detection Challenge: one or more parts with metadata.json, or the test set with labels.csv.

    A fake is in the group of its original. Videos that no table names are left out. https://arxiv.org/abs/2006.07397
    """
    listed: dict[str, set[str]] = {}
    for _, folder, names in list_media(root):
        table = _read_labels(Path(folder))
        if table:
            video_folder = os.path.join(folder, "videos") if os.path.isdir(os.path.join(folder, "videos")) else folder
            listed[video_folder] = {name for name, *_ in table}
            for name, label, split, original in table:
                yield Row(os.path.join(video_folder, name), label, "DFDC", split, f"dfdc/{original}")
        known = listed.get(folder, set())
        yield from (Row(os.path.join(folder, name), None, "") for name in names if name not in known)


def _read_labels(folder: Path) -> list[tuple[str, int, str, str]]:
    """Return (file name, label, split, original) from the metadata.json or labels.csv of a folder; [] if it has neither."""
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


def _is_dfdc_preview(tree: Tree) -> bool:
    return tree.has("dataset.json") and re.search(r'"(method_\w|original_videos)/', tree.head("dataset.json")) is not None


@layout("dataset.json, original_videos, method_A", _is_dfdc_preview)
def dfdc_preview(root: Path) -> pd.DataFrame:
    """Read the DFDC preview. Groups are the target and swapped people in dataset.json. https://arxiv.org/abs/1910.08854"""
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


def _is_df40(tree: Tree) -> bool:
    subfolders = {name: {*tree.folders(name)} for name in tree.folders()}
    return any({"ff", "cdf"} & inner or ("real" in inner and name.lower() in DF40_WITH_REALS)
               for name, inner in subfolders.items())  # fmt: skip


@layout("METHOD/ff, METHOD/cdf or METHOD/{real,fake}", _is_df40)
def df40(root: Path) -> Iterator[Row]:
    """Read DF40: files outside of folders named `real` are fake.

    `ff` and `cdf` are based on FaceForensics++ and Celeb-DF, which have the reals. https://arxiv.org/abs/2406.13495
    """

    def rows() -> RowsWithPeople:
        for parts, video, path in list_clips(root):
            at = next((at for at, part in enumerate(parts) if at and part.lower() in ("ff", "cdf", "real", "fake")), 0)
            label = int(parts[at].lower() != "real") if at else None
            video_parts = parts[at + 1 :] if path.lower().endswith(IMAGE_EXTENSIONS) else ()  # frames are in their video's folder
            name = "/".join((*parts[:1], *(video_parts or (video,))))
            yield Row(path, label, parts[0] if parts else ""), find_people(video, name)

    return group_by_person(rows())


def deepfakebench(path: Path) -> pd.DataFrame:
    """Read a JSON file of DeepfakeBench: dataset > label > split > [compression >] video > frames. Each frame is a row; videos
    that share a person form a group. A file that is listed in several splits counts as test.
    """
    videos = list(_benchmark_videos(_json(path, "dataset > label > split > video", _is_entries), path))
    base = _find_base(path, [frames[0] for *_, frames in videos if frames][:20])

    def rows() -> RowsWithPeople:
        for data, label, split, video, frames in videos:
            is_fake, people = int(not label.lower().endswith("real")), find_people(video, f"{data}/{video.removesuffix('_fake')}")
            yield from ((Row(os.path.join(base, name), is_fake, label, split), people) for name in frames)
            if not frames:
                yield Row(f"{video} (without frames)", None, label), people

    return resolve_split_conflicts(to_table(group_by_person(rows())))


def _benchmark_videos(content: Any, path: Path) -> Iterator[tuple[str, str, str, str, list[str]]]:
    """Yield (dataset, label, split, video, frames with forward slashes) of each video."""
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
            f"{path} is not a JSON file of DeepfakeBench ({type(error).__name__}: {error}); expected dataset > label > train, "
            "val or test > video > frames. Other data sets need a CSV or Parquet file with path,label."
        ) from error


def _find_base(path: Path, names: list[str]) -> Path:
    """Return the folder that the names are relative to: the nearest at or above the JSON file in which one of them exists."""
    folders = [path.parent, *path.absolute().parents]
    return next((folder for folder in folders if any(os.path.exists(folder / name) for name in names)), path.parent)


def _json(path: Path, expected: str, fits: Callable[[Any], bool]) -> Any:
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path} cannot be read as JSON: {error}.") from error
    if not fits(content):
        raise UserError(f"{path} has unexpected JSON content; expected {expected}.")
    return content


def _is_pair_list(content: Any) -> bool:
    return isinstance(content, list) and all(isinstance(pair, list) for pair in content)


def _is_entries(content: Any) -> bool:
    return isinstance(content, dict) and all(isinstance(entry, dict) for entry in content.values())
