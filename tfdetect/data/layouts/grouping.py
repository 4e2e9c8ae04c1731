"""Which files of class folders belong together, for train and test to be kept apart: by their names, and where names do not
tell a video's frames from a category's pictures, by a look at some of them.

Frames that follow each other are alike, as no two pictures of a category are. A few dozen pictures are read, however many there
are; what cannot be read tells nothing.
"""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd

from tfdetect.data.layouts.tree import STRUCTURE, connected_names, find_people
from tfdetect.data.media.read import DECODER_ERRORS, read_image
from tfdetect.data.media.sniff import VIDEO_EXTENSIONS, MediaError
from tfdetect.files import plural

TIME = r"(?<!\d)\d\d[-_.:]\d\d[-_.:]\d\d(?:[.,]\d+)?(?!\d)|\d+\.\d+(?=s(?:ec)?$)"  # 00-01-23, or 0.5s
NUMBER = re.compile(rf"^(.*?)({TIME}|\d+)(\D*)$")
NUMBER_BEFORE = re.compile(r"^(.*?)(\d+)(\D+\d+\D*)$")  # such as 0012_0, the first face of frame 12
NUMBER_FIRST = re.compile(r"^()(\d+)([\W_]+[^\W\d_].*)$")  # 0001_VIDEO7
CLASS_WORD = re.compile(r"^(real|fake|original|orig|input|output)[_-](?=.)|(?<=.)[_-](real|fake|original|orig|input|output)$", re.I)
FRAME_WORD = re.compile(r"(^|[\W_])frames?[ _-]?$", re.I)
CLASS_FOLDER = re.compile(r"^([01]_)?(real|fake)$", re.I)  # folders that tell the class
MAX_COMPARISONS = 24  # where in all the sequences of one kind is looked
MAJORITY = 0.8  # of the neighbours are alike, or are not, and then all of a kind are frames, or none is
MAX_CHECKED = 100  # sequences that are looked at one by one, where those of a kind differ
MIN_GROUPS = 10  # groups of a class, at the least, that can be split
MAX_SIBLINGS = 4  # files of a folder that may be of one making, such as of one prompt
MIN_CORRELATION = 0.95  # correlation of frames that hardly change, as in duplicates.py
NO_GROUPS = "Groups: none given; each file is its own: files of one person or recording may be on both sides of a split."


class File(NamedTuple):
    path: str
    label: int
    place: tuple[str, ...]  # the folders that it lies in, but for those of class and split
    within: str = ""  # the folders of a given split, which no group leaves


@dataclass
class NumberedSequence:
    """Pictures of one folder whose names differ in a number."""

    rows: list[int]  # in the order of their numbers
    unit: tuple[str, ...]  # what they stand for, should they be frames: their folder, or their common name in it
    kind: tuple[object, ...]  # sequences of one kind are most likely all frames, or none is
    named: bool  # the name says "frame"
    flat: bool  # all of a class folder


def find_groups(files: Sequence[File]) -> tuple[list[str], str]:
    """The group of each file, and a sentence that says by which rule."""
    found = find_sequences(files)
    frames = [sequence for sequence in found if sequence.named]
    seen, doubts = find_frame_sequences(files, [sequence for sequence in found if not sequence.named])
    units = [(*map(strip_class, file.place), stem(file.path)) for file in files]
    for sequence in (frames := frames + seen):
        for row in sequence.rows:
            units[row] = sequence.unit
    held = {row for sequence in frames for row in sequence.rows}
    groups = join_groups(files, name_units(files, units), units, held)
    return groups, describe_groups(groups, frames, doubts)


# --- what the names say ----------------------------------------------------------------------------------------------


def strip_class(name: str) -> str:
    """A name without what only tells the class: 7_input, real_7 -> 7."""
    return CLASS_WORD.sub("", name)


def stem(path: str) -> str:
    """A file's name without what only tells the class, and without an extension, which a number is not."""
    stem, extension = os.path.splitext(os.path.basename(path))
    return strip_class(stem + extension if extension[1:].isdigit() else stem)


def find_sequences(files: Sequence[File]) -> list[NumberedSequence]:
    """The numbered pictures, by folder and, where a folder holds several kinds of names, by name."""
    folders = defaultdict(list)
    for row, file in enumerate(files):
        if not file.path.lower().endswith(VIDEO_EXTENSIONS):
            folders[os.path.dirname(file.path)].append(row)
    return [sequence for rows in folders.values() for sequence in _of_folder(files, rows)]


def _of_folder(files: Sequence[File], rows: Sequence[int]) -> list[NumberedSequence]:
    stems = {row: stem(files[row].path) for row in rows}
    first = files[rows[0]]
    series = _series(stems, NUMBER)
    if len(series) > len(rows) / 2:
        series = min(series, _series(stems, NUMBER_BEFORE), key=lambda found: len(found) or len(rows))
    prefix, most = max(series.items(), key=lambda item: len(item[1]), default=(("", ""), []))
    named = bool(FRAME_WORD.search(prefix[0]))
    if 2 * len(most) > len(rows):  # one series: the folder's
        folder = (first.label, "folder", len(first.place), re.sub(r"[a-z]+", "a", re.sub(r"\d+", "0", prefix[0].lower())))
        others = [row for row in rows if row not in set(most)]
        return [NumberedSequence([*most, *others], strip_structure(first.place), folder, named and bool(first.place), not first.place)]
    kind: tuple[object, ...] = (first.label, "stem", len(first.place))
    after = [NumberedSequence(found, (*first.place, video_name(name)), kind, bool(FRAME_WORD.search(name)), False)
             for (name, _), found in series.items() if video_name(name)]  # fmt: skip
    ahead = [NumberedSequence(found, (*first.place, video_name(name)), (*kind, "first"), False, False)
             for (_, name), found in _series(stems, NUMBER_FIRST).items()]  # fmt: skip
    return after + (ahead if len(ahead) > 1 else [])


def _series(stems: dict[int, str], number: re.Pattern[str]) -> dict[tuple[str, str], list[int]]:
    """(what stands before the number, what after it) -> rows in the order of their numbers."""
    found: dict[tuple[str, str], list[tuple[list[float], int]]] = defaultdict(list)
    for row, stem in stems.items():
        if match := number.match(stem):
            found[match[1], match[3]].append(([float(part) for part in re.findall(r"\d+(?:\.\d+)?", match[2])], row))
    return {name: [row for _, row in sorted(numbered)] for name, numbered in found.items()}


def video_name(prefix: str) -> str:
    """What a video is called whose frames are called prefix1, prefix2."""
    return strip_class(FRAME_WORD.sub("", prefix).strip(" _-.(#"))


def strip_structure(place: tuple[str, ...]) -> tuple[str, ...]:
    """VIDEO/frames and VIDEO.mp4 stand for VIDEO."""
    while len(place) > 1 and place[-1].lower() in (*STRUCTURE, "frame", "faces", "crops"):
        place = place[:-1]
    stem, extension = os.path.splitext(place[-1]) if place else ("", "")
    return (*place[:-1], strip_class(stem if extension.lower() in VIDEO_EXTENSIONS else place[-1])) if place else ()


def name_units(files: Sequence[File], units: Sequence[tuple[str, ...]]) -> list[str]:
    """A name for each unit, equal for twins such as real/7.png and fake/METHOD/7.png: the last part of it.

    Where many folders of a class hold a few files of the same names (prompt_5/image.png), it is the folder; where the names come
    again in many folders, and in the other class in the same ones (dog/0001.jpg), it is both.
    """
    units = list(units)
    for _ in range(max(map(len, units), default=0)):
        names = [Counter(unit[-1] for unit in _of(files, units, label)) for label in (0, 1)]
        few = [_few(_of(files, units, label)) for label in (0, 1)]
        short = [unit[:-1] if len(unit) > 1 and unit[-1] in few[file.label] and names[1 - file.label][unit[-1]] != 1 else unit
                 for unit, file in zip(units, files, strict=True)]  # fmt: skip
        if short == units:
            break
        units = short
    real, fake = ({unit[-2:] for unit in _of(files, units, label)} for label in (0, 1))
    own, others = ({unit[-1] for unit in found} for found in (real, fake))
    repeated = 2 * len(own) <= len(real) and (2 * len(real & fake) >= len(fake) or not own & others)
    return ["/".join(unit[-2:] if repeated else unit[-1:]) for unit in units]


def _of(files: Sequence[File], units: Sequence[tuple[str, ...]], label: int) -> set[tuple[str, ...]]:
    return {unit for unit, file in zip(units, files, strict=True) if file.label == label and unit}


def _few(units: set[tuple[str, ...]]) -> set[str]:
    """Names in more folders than each of these has names, which are few."""
    size = Counter(unit[:-1] for unit in units)
    folders: dict[str, list[int]] = defaultdict(list)
    for unit in units:
        folders[unit[-1]].append(size[unit[:-1]])
    return {name for name, sizes in folders.items() if len(sizes) > float(np.median(sizes)) <= MAX_SIBLINGS}


def join_groups(files: Sequence[File], names: Sequence[str], units: Sequence[tuple[str, ...]], frames: set[int]) -> list[str]:
    """The names, those of one group made equal: a fake A_B and the reals A and B; videos that share a person by Celeb-DF's ids.
    Both only where fakes and reals are named so. What is in a given split stays in it."""
    reals = {name for name, file in zip(names, files, strict=True) if file.label == 0}
    fakes = {name for name, file in zip(names, files, strict=True) if file.label == 1}
    ids = {name: [person for person in find_people(name, "") if not person.startswith("youtube/")] for name in reals | fakes}
    both = {person for name in reals for person in ids[name]} & {person for name in fakes for person in ids[name]}
    members = {name: [name, *(ids[name] if both else ()), *(_pair(name, reals) if name in fakes else ())] for name in ids}
    leader = connected_names(members.values())
    inside = [unit[len(file.place) :] if row in frames else (os.path.basename(file.path),)
              for row, (unit, file) in enumerate(zip(units, files, strict=True))]  # fmt: skip
    return ["/".join((file.within, *own)) if file.within else leader[name]
            for file, name, own in zip(files, names, inside, strict=True)]  # fmt: skip


def _pair(name: str, reals: set[str]) -> list[str]:
    """A and B of a fake called A_B, where both or one, and the other looks like it, are reals."""
    for match in re.finditer(r"[_-]", name):
        parts = name[: match.start()], name[match.end() :]
        found = [part for part in parts if part in reals]
        if found and len({re.sub(r"\d", "0", part) for part in parts}) == 1:
            return found
    return []


# --- what the pictures show ------------------------------------------------------------------------------------------


def find_frame_sequences(files: Sequence[File], found: Sequence[NumberedSequence]) -> tuple[list[NumberedSequence], list[str]]:
    """The sequences whose neighbours are alike, kind by kind; and sentences on what is not clear."""
    looked = _Looks(files)
    kinds: dict[tuple[object, ...], list[NumberedSequence]] = defaultdict(list)
    for sequence in found:
        kinds[sequence.kind].append(sequence)
    asked = {kind: _drawn([one for one in each if len(one.rows) > 1], MAX_COMPARISONS) for kind, each in kinds.items()}
    places = max(2, MAX_COMPARISONS // max(sum(map(len, asked.values())), 1))
    looked.far = looked.strangers([sequence for each in asked.values() for sequence in each])
    frames: list[NumberedSequence] = []
    doubts: list[str] = []
    for kind, each in kinds.items():
        near = [share for one in asked[kind] if (share := looked.alike(one, places)) is not None]
        part = float(np.mean(near)) if near else 0.0
        taken = each if part >= MAJORITY else []
        if 1 - MAJORITY <= part < MAJORITY:  # they differ
            some = _drawn(each, MAX_CHECKED)
            others = {id(one) for one in some}
            taken = [one for one in each if (id(one) not in others and part >= 0.5)
                     or (id(one) in others and (looked.alike(one, 6) or 0) >= 0.6)]  # fmt: skip
        flat = [one for one in taken if one.flat]
        if flat:
            where = os.path.dirname(files[flat[0].rows[0]].path)
            doubts.append(f"neighbours in {where} look alike: if they are frames of videos, give each video a folder, or groups")
        taken = [one for one in taken if not one.flat]
        if taken and not looked.change(taken):  # they may be a category that looks alike throughout
            enough, what = len({one.unit for one in taken}) >= MIN_GROUPS, f"pictures in {taken[0].unit[-1]} and its like look alike"
            other = "--data.group file, if they are no frames" if enough else f"--data.group {kind[1]}, if they are frames"
            doubts.append(f"{what}, neighbours no more than others: {other}")
            taken = taken if enough else []
        frames += taken
    return frames, doubts


def _drawn(each: Sequence[NumberedSequence], most: int) -> list[NumberedSequence]:
    chosen = np.random.default_rng(0).permutation(len(each))[:most]
    return [each[at] for at in sorted(chosen)]


class _Looks:
    """Small grey pictures, each read once, and how alike they are."""

    def __init__(self, files: Sequence[File]):
        self.files, self.kept, self.far = files, {}, 1.0  # type: Sequence[File], dict[int, np.ndarray | None], float

    def picture(self, row: int) -> np.ndarray | None:
        """Of zero mean and length one, (256,); None where it cannot be read, or is flat."""
        if row not in self.kept:
            try:
                frame = read_image(self.files[row].path, 16).frames[0]
                grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32).ravel()
                grey -= grey.mean()
                self.kept[row] = grey / length if (length := float(np.linalg.norm(grey))) > 32 else None
            except (MediaError, OSError, *DECODER_ERRORS):
                self.kept[row] = None
        return self.kept[row]

    def both(self, one: int, other: int) -> float | None:
        a, b = self.picture(one), self.picture(other)
        return None if a is None or b is None else float(a @ b)

    def pairs(self, sequence: NumberedSequence, places: int, apart: int = 1) -> list[float]:
        """Correlations of neighbours at so many places of a sequence, or of what stands further apart."""
        ends = max(len(sequence.rows) - apart, 0)
        found = (self.both(sequence.rows[at], sequence.rows[at + apart])
                 for at in np.unique(np.linspace(0, ends - 1, min(places, ends)).astype(int)).tolist())  # fmt: skip
        return [alike for alike in found if alike is not None]

    def strangers(self, asked: Sequence[NumberedSequence]) -> float:
        """What correlation 95 of 100 pairs of unlike names do not reach."""
        found = [alike for at, one in enumerate(asked) for other in asked[:at] if one.kind[0] == other.kind[0]
                 and not _tokens(one.unit) & _tokens(other.unit)
                 if (alike := self.both(one.rows[0], other.rows[0])) is not None]  # fmt: skip
        if len(found) < MIN_GROUPS:
            found += [alike for one in asked for alike in self.pairs(one, 6, max(len(one.rows) // 2, 2))]
        return float(np.quantile(found, 0.95)) if found else 1.0

    def alike(self, sequence: NumberedSequence, places: int) -> float | None:
        """The part of the neighbours looked at that are more alike than strangers."""
        near = self.pairs(sequence, places)
        return float(np.mean([alike > min(self.far, MIN_CORRELATION) for alike in near])) if near else None

    def change(self, taken: Sequence[NumberedSequence]) -> bool:
        """Whether neighbours are more alike than pictures further apart in their folder, or as good as the same: in a folder of
        one category that looks alike throughout they are neither."""
        drawn = _drawn([one for one in taken if len(one.rows) > 1], MAX_COMPARISONS)
        near = [alike for one in drawn for alike in self.pairs(one, 2)]
        wide = [alike for one in drawn if len(one.rows) >= 6 for alike in self.pairs(one, 2, len(one.rows) // 2)]
        middle = float(np.median(near)) if near else 0.0
        return bool(near) and (not wide or middle >= MIN_CORRELATION or middle > float(np.median(wide)) + 0.05)


def _tokens(unit: tuple[str, ...]) -> set[str]:
    return {word for word in re.split(r"[\W_]+", unit[-1] if unit else "") if re.search(r"\d", word)}


# --- what is said ----------------------------------------------------------------------------------------------------


def regroup_frames(table: pd.DataFrame, root: str) -> tuple[list[str], str]:
    """The groups of a public set of pictures that is grouped by name, but for what shows itself to be frames of a video."""
    files = []
    for path, label in zip(table["path"], table["label"], strict=True):
        place = os.path.dirname(os.path.relpath(path, root)).split(os.sep)
        files.append(File(path, label, tuple(part for part in place if not CLASS_FOLDER.search(part))))
    found = find_sequences(files)
    seen, doubts = find_frame_sequences(files, [one for one in found if not one.named])
    frames = [one for one in found if one.named] + seen
    groups = list(table["group"])
    for sequence in frames:
        for row in sequence.rows:
            groups[row] = "/".join(sequence.unit)
    return groups, describe_groups(groups, frames, doubts)


def describe_groups(groups: Sequence[str], frames: Sequence[NumberedSequence], doubts: Sequence[str]) -> str:
    count, held = len(set(groups)), sum(len(one.rows) for one in frames)
    more = "".join(f"; {doubt}" for doubt in doubts)
    if not frames and count == len(groups):
        return NO_GROUPS[:-1] + more + "."
    parts = []
    for kind, what in (("folder", "folder"), ("stem", "name")):
        units = {one.unit for one in frames if one.kind[1] == kind}
        parts += [f"frames of {plural(len(units), what)}"] if units else []
    if held < len(groups):
        parts.append("the rest by their names" if parts else "what belongs together by its names and folders")
    what = "pictures" if held == len(groups) else "files"
    return f"{len(groups):,} {what} in {plural(count, 'group')}: {', '.join(parts)}{more}."
