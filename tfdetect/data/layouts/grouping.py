"""Find which files of class folders belong to one group and must stay in the same split.

File and folder names decide. If they do not tell the frames of a video from the images of a category, some images are
compared: neighbouring frames are more similar than two images of a category. A few dozen images are read, however many
there are; images that cannot be read are ignored.
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

from tfdetect.data.components import first_of_component
from tfdetect.data.layouts.tree import STRUCTURE, find_people
from tfdetect.data.media.read import DECODER_ERRORS, read_image
from tfdetect.data.media.sniff import VIDEO_EXTENSIONS, MediaError
from tfdetect.files import plural

TIME = r"(?<!\d)\d\d[-_.:]\d\d[-_.:]\d\d(?:[.,]\d+)?(?!\d)|\d+\.\d+(?=s(?:ec)?$)"  # 00-01-23, or 0.5s
NUMBER = re.compile(rf"^(.*?)({TIME}|\d+)(\D*)$")
NUMBER_BEFORE_INDEX = re.compile(r"^(.*?)(\d+)(\D+\d+\D*)$")  # such as 0012_0, the first face of frame 12
LEADING_NUMBER = re.compile(r"^()(\d+)([\W_]+[^\W\d_].*)$")  # 0001_VIDEO7
CLASS_WORD = re.compile(
    r"^(real|fake|original|orig|input|output)[_-](?=.)|(?<=.)[_-](real|fake|original|orig|input|output)$", re.I)  # fmt: skip
FRAME_WORD = re.compile(r"(^|[\W_])frames?[ _-]?$", re.I)
CLASS_FOLDER = re.compile(r"^([01]_)?(real|fake)$", re.I)
MAX_COMPARISONS = 24  # positions at which neighbours are compared, over all sequences of one kind
MAJORITY = 0.8  # if this share of neighbours is similar, all sequences of a kind are frames; if dissimilar, none is
MAX_CHECKED = 100  # sequences that are checked one by one if those of a kind differ
MIN_GROUPS = 10  # groups of a class that are needed for a split
MAX_SIBLINGS = 4  # files of a folder that may have one origin, such as one prompt
MIN_CORRELATION = 0.95  # of small grey images of frames that hardly change, and of near duplicates
NO_GROUPS = "Groups: none given; each file is a group, so files of one person or recording may be on both sides of a split."


class File(NamedTuple):
    """A file in a class folder."""

    path: str
    label: int
    folders: tuple[str, ...]  # below the class folder, without folders for splits
    split_folder: str = ""  # path of the folder of a given split; groups stay within it


@dataclass
class NumberedSequence:
    """Images of one folder whose names differ in a number."""

    rows: list[int]  # in the order of their numbers
    unit: tuple[str, ...]  # what the images belong to if they are frames: their folder, or their common name in it
    kind: tuple[object, ...]  # sequences of one kind are probably all frames, or none of them is
    has_frame_name: bool  # the names contain "frame"
    in_class_folder: bool  # the images are directly in a class folder


def find_groups(files: Sequence[File]) -> tuple[list[str], str]:
    """Return the group of each file, and a sentence on how they were found."""
    frames, warnings = find_frame_sequences(files)
    units = [(*map(strip_class, file.folders), stem(file.path)) for file in files]
    for sequence in frames:
        for row in sequence.rows:
            units[row] = sequence.unit
    frame_rows = {row for sequence in frames for row in sequence.rows}
    groups = join_groups(files, name_units(files, units), units, frame_rows)
    return groups, describe_groups(groups, frames, warnings)


# --- by name ---------------------------------------------------------------------------------------------------------


def strip_class(name: str) -> str:
    """Return a name without a word for the class: 7_input and real_7 become 7."""
    return CLASS_WORD.sub("", name)


def stem(path: str) -> str:
    """Return the name of a file without a word for the class and without extension; a number is not an extension."""
    name, extension = os.path.splitext(os.path.basename(path))
    return strip_class(name + extension if extension[1:].isdigit() else name)


def find_sequences(files: Sequence[File]) -> list[NumberedSequence]:
    """Return the sequences of numbered images in each folder; several if a folder has several kinds of names."""
    folders = defaultdict(list)
    for row, file in enumerate(files):
        if not file.path.lower().endswith(VIDEO_EXTENSIONS):
            folders[os.path.dirname(file.path)].append(row)
    return [sequence for rows in folders.values() for sequence in _sequences_of_folder(files, rows)]


def _sequences_of_folder(files: Sequence[File], rows: Sequence[int]) -> list[NumberedSequence]:
    stems = {row: stem(files[row].path) for row in rows}
    first = files[rows[0]]
    series = _split_numbers(stems, NUMBER)
    if len(series) > len(rows) / 2:
        series = min(series, _split_numbers(stems, NUMBER_BEFORE_INDEX), key=lambda candidate: len(candidate) or len(rows))
    affixes, longest = max(series.items(), key=lambda item: len(item[1]), default=(("", ""), []))
    has_frame_name = bool(FRAME_WORD.search(affixes[0]))
    if 2 * len(longest) > len(rows):  # one series, which stands for the folder
        pattern = re.sub(r"[a-z]+", "a", re.sub(r"\d+", "0", affixes[0].lower()))
        others = [row for row in rows if row not in set(longest)]
        return [NumberedSequence([*longest, *others], strip_structure(first.folders),
                                 (first.label, "folder", len(first.folders), pattern),
                                 has_frame_name and bool(first.folders), not first.folders)]  # fmt: skip
    kind: tuple[object, ...] = (first.label, "stem", len(first.folders))
    numbered_last = [NumberedSequence(numbered, (*first.folders, video_name(name)), kind, bool(FRAME_WORD.search(name)), False)
                     for (name, _), numbered in series.items() if video_name(name)]  # fmt: skip
    numbered_first = [NumberedSequence(numbered, (*first.folders, video_name(name)), (*kind, "first"), False, False)
                      for (_, name), numbered in _split_numbers(stems, LEADING_NUMBER).items()]  # fmt: skip
    return numbered_last + (numbered_first if len(numbered_first) > 1 else [])


def _split_numbers(stems: dict[int, str], pattern: re.Pattern[str]) -> dict[tuple[str, str], list[int]]:
    """Return (text before the number, text after it) -> rows in the order of their numbers."""
    series: dict[tuple[str, str], list[tuple[list[float], int]]] = defaultdict(list)
    for row, name in stems.items():
        if match := pattern.match(name):
            series[match[1], match[3]].append(([float(part) for part in re.findall(r"\d+(?:\.\d+)?", match[2])], row))
    return {affixes: [row for _, row in sorted(numbered)] for affixes, numbered in series.items()}


def video_name(prefix: str) -> str:
    """Return the name of the video whose frames have names that start with `prefix`."""
    return strip_class(FRAME_WORD.sub("", prefix).strip(" _-.(#"))


def strip_structure(folders: tuple[str, ...]) -> tuple[str, ...]:
    """Reduce VIDEO/frames and VIDEO.mp4 to VIDEO."""
    while len(folders) > 1 and folders[-1].lower() in (*STRUCTURE, "frame", "faces", "crops"):
        folders = folders[:-1]
    name, extension = os.path.splitext(folders[-1]) if folders else ("", "")
    return (*folders[:-1], strip_class(name if extension.lower() in VIDEO_EXTENSIONS else folders[-1])) if folders else ()


def name_units(files: Sequence[File], units: Sequence[tuple[str, ...]]) -> list[str]:
    """Return the name of each unit, equal for counterparts such as real/7.png and fake/METHOD/7.png: its last part.

    If many folders of a class hold a few files of the same names (prompt_5/image.png), the folder is the name. If names
    recur in many folders, and in the same folders of the other class (dog/0001.jpg), folder and file name are.
    """
    units = list(units)
    for _ in range(max(map(len, units), default=0)):
        names = [Counter(unit[-1] for unit in _units_of_class(files, units, label)) for label in (0, 1)]
        generic = [_generic_names(_units_of_class(files, units, label)) for label in (0, 1)]
        shortened = [unit[:-1] if len(unit) > 1 and unit[-1] in generic[file.label] and names[1 - file.label][unit[-1]] != 1
                     else unit for unit, file in zip(units, files, strict=True)]  # fmt: skip
        if shortened == units:
            break
        units = shortened
    real, fake = ({unit[-2:] for unit in _units_of_class(files, units, label)} for label in (0, 1))
    real_names, fake_names = ({unit[-1] for unit in pairs} for pairs in (real, fake))
    is_repeated = 2 * len(real_names) <= len(real) and (2 * len(real & fake) >= len(fake) or not real_names & fake_names)
    return ["/".join(unit[-2:] if is_repeated else unit[-1:]) for unit in units]


def _units_of_class(files: Sequence[File], units: Sequence[tuple[str, ...]], label: int) -> set[tuple[str, ...]]:
    return {unit for unit, file in zip(units, files, strict=True) if file.label == label and unit}


def _generic_names(units: set[tuple[str, ...]]) -> set[str]:
    """Return the names that occur in more folders than each of these has names, if these are at most MAX_SIBLINGS."""
    size = Counter(unit[:-1] for unit in units)
    sizes_by_name: dict[str, list[int]] = defaultdict(list)
    for unit in units:
        sizes_by_name[unit[-1]].append(size[unit[:-1]])
    return {name for name, sizes in sizes_by_name.items() if len(sizes) > float(np.median(sizes)) <= MAX_SIBLINGS}


def join_groups(files: Sequence[File], names: Sequence[str], units: Sequence[tuple[str, ...]], frame_rows: set[int]) -> list[str]:
    """Return the group of each file: its name, after joining a fake A_B with the reals A and B, and videos of one person.

    People are recognised by Celeb-DF's ids, if both reals and fakes have them. Files stay in their given split.
    """
    reals = {name for name, file in zip(names, files, strict=True) if file.label == 0}
    fakes = {name for name, file in zip(names, files, strict=True) if file.label == 1}
    people = {name: [person for person in find_people(name, "") if not person.startswith("youtube/")] for name in reals | fakes}
    shared = {person for name in reals for person in people[name]} & {person for name in fakes for person in people[name]}
    members = {name: [name, *(people[name] if shared else ()), *(_originals(name, reals) if name in fakes else ())]
               for name in people}  # fmt: skip
    group_of = first_of_component(members.values())
    inside = [unit[len(file.folders) :] if row in frame_rows else (os.path.basename(file.path),)
              for row, (unit, file) in enumerate(zip(units, files, strict=True))]  # fmt: skip
    return ["/".join((file.split_folder, *rest)) if file.split_folder else group_of[name]
            for file, name, rest in zip(files, names, inside, strict=True)]  # fmt: skip


def _originals(name: str, reals: set[str]) -> list[str]:
    """Return the originals A and B of a fake called A_B: those that are reals, if both names have the same form."""
    for match in re.finditer(r"[_-]", name):
        parts = name[: match.start()], name[match.end() :]
        originals = [part for part in parts if part in reals]
        if originals and len({re.sub(r"\d", "0", part) for part in parts}) == 1:
            return originals
    return []


# --- by similarity ---------------------------------------------------------------------------------------------------


def find_frame_sequences(files: Sequence[File]) -> tuple[list[NumberedSequence], list[str]]:
    """Return the sequences of frames, those named so and those whose neighbours are similar, decided per kind; and warnings about
    ambiguous ones."""
    sequences, similarity = find_sequences(files), _Similarity(files)
    frames = [sequence for sequence in sequences if sequence.has_frame_name]
    kinds: dict[tuple[object, ...], list[NumberedSequence]] = defaultdict(list)
    for sequence in sequences:
        if not sequence.has_frame_name:
            kinds[sequence.kind].append(sequence)
    samples = {kind: _sample([one for one in each if len(one.rows) > 1], MAX_COMPARISONS) for kind, each in kinds.items()}
    positions = max(2, MAX_COMPARISONS // max(sum(map(len, samples.values())), 1))
    similarity.fit_threshold([sequence for sample in samples.values() for sequence in sample])
    warnings: list[str] = []
    for kind, each in kinds.items():
        selected = _select_similar(each, samples[kind], positions, similarity)
        ambiguous = [one for one in selected if one.in_class_folder]
        if ambiguous:
            folder = os.path.dirname(files[ambiguous[0].rows[0]].path)
            warnings.append(f"neighbours in {folder} are similar: if they are frames of videos, give each video a folder, or add "
                            "groups")  # fmt: skip
        selected = [one for one in selected if not one.in_class_folder]
        if selected and not similarity.changes_over_time(selected):  # may be a category that looks the same throughout
            enough, name = len({one.unit for one in selected}) >= MIN_GROUPS, selected[0].unit[-1]
            flag = "--data.group file if they are not frames" if enough else f"--data.group {kind[1]} if they are frames"
            warnings.append(f"images in {name} and similar folders all look alike, whether neighbours or not: add {flag}")
            selected = selected if enough else []
        frames += selected
    return frames, warnings


def _select_similar(sequences: Sequence[NumberedSequence], sample: Sequence[NumberedSequence], positions: int,
                    similarity: "_Similarity") -> list[NumberedSequence]:  # fmt: skip
    """Return the sequences of one kind whose neighbours are similar: all or none if a sample is clear, else one by one."""
    shares = [share for one in sample if (share := similarity.similar_share(one, positions)) is not None]
    mean = float(np.mean(shares)) if shares else 0.0
    if not 1 - MAJORITY <= mean < MAJORITY:
        return list(sequences) if mean >= MAJORITY else []
    checked = _sample(sequences, MAX_CHECKED)
    ids = {id(one) for one in checked}
    return [one for one in sequences if (id(one) not in ids and mean >= 0.5)
            or (id(one) in ids and (similarity.similar_share(one, 6) or 0) >= 0.6)]  # fmt: skip


def _sample(sequences: Sequence[NumberedSequence], count: int) -> list[NumberedSequence]:
    indices = np.random.default_rng(0).permutation(len(sequences))[:count]
    return [sequences[index] for index in sorted(indices)]


class _Similarity:
    """Correlations of small grey images, each of which is read once."""

    def __init__(self, files: Sequence[File]):
        self.files, self.threshold = files, 1.0
        self.vectors: dict[int, np.ndarray | None] = {}

    def vector(self, row: int) -> np.ndarray | None:
        """Return an image as a vector (256,) of zero mean and unit length; None if it cannot be read or is flat."""
        if row not in self.vectors:
            try:
                frame = read_image(self.files[row].path, 16).frames[0]
                grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32).ravel()
                grey -= grey.mean()
                self.vectors[row] = grey / length if (length := float(np.linalg.norm(grey))) > 32 else None
            except (MediaError, OSError, *DECODER_ERRORS):
                self.vectors[row] = None
        return self.vectors[row]

    def correlation(self, one: int, other: int) -> float | None:
        """Return the correlation of two images; None if one of them has no vector."""
        a, b = self.vector(one), self.vector(other)
        return None if a is None or b is None else float(a @ b)

    def correlations(self, sequence: NumberedSequence, positions: int, distance: int = 1) -> list[float]:
        """Return correlations of images that are `distance` apart, at up to `positions` places of a sequence."""
        count = max(len(sequence.rows) - distance, 0)
        values = (self.correlation(sequence.rows[at], sequence.rows[at + distance])
                  for at in np.unique(np.linspace(0, count - 1, min(positions, count)).astype(int)).tolist())  # fmt: skip
        return [value for value in values if value is not None]

    def fit_threshold(self, sequences: Sequence[NumberedSequence]) -> None:
        """Set the threshold to the 95th percentile of the correlations of unrelated images."""
        values = [value for at, one in enumerate(sequences) for other in sequences[:at] if one.kind[0] == other.kind[0]
                  and not _tokens(one.unit) & _tokens(other.unit)
                  if (value := self.correlation(one.rows[0], other.rows[0])) is not None]  # fmt: skip
        if len(values) < MIN_GROUPS:
            values += [value for one in sequences for value in self.correlations(one, 6, max(len(one.rows) // 2, 2))]
        self.threshold = float(np.quantile(values, 0.95)) if values else 1.0

    def similar_share(self, sequence: NumberedSequence, positions: int) -> float | None:
        """Return the share of compared neighbours whose correlation exceeds that of unrelated images."""
        near = self.correlations(sequence, positions)
        return float(np.mean([value > min(self.threshold, MIN_CORRELATION) for value in near])) if near else None

    def changes_over_time(self, sequences: Sequence[NumberedSequence]) -> bool:
        """Return whether neighbours are nearly identical, or more similar than images further apart.

        Neither is the case in a folder of one category that looks the same throughout.
        """
        sample = _sample([one for one in sequences if len(one.rows) > 1], MAX_COMPARISONS)
        near = [value for one in sample for value in self.correlations(one, 2)]
        far = [value for one in sample if len(one.rows) >= 6 for value in self.correlations(one, 2, len(one.rows) // 2)]
        median = float(np.median(near)) if near else 0.0
        return bool(near) and (not far or median >= MIN_CORRELATION or median > float(np.median(far)) + 0.05)


def _tokens(unit: tuple[str, ...]) -> set[str]:
    return {word for word in re.split(r"[\W_]+", unit[-1] if unit else "") if re.search(r"\d", word)}


# --- descriptions ----------------------------------------------------------------------------------------------------


def regroup_frames(table: pd.DataFrame, root: str) -> tuple[list[str], str]:
    """Return the groups of a public data set of images, with the frames of one video joined, and a sentence about them."""
    files = []
    for path, label in zip(table["path"], table["label"], strict=True):
        folders = os.path.dirname(os.path.relpath(path, root)).split(os.sep)
        files.append(File(path, label, tuple(part for part in folders if not CLASS_FOLDER.search(part))))
    frames, warnings = find_frame_sequences(files)
    groups = list(table["group"])
    for sequence in frames:
        for row in sequence.rows:
            groups[row] = "/".join(sequence.unit)
    return groups, describe_groups(groups, frames, warnings)


def describe_groups(groups: Sequence[str], frames: Sequence[NumberedSequence], warnings: Sequence[str]) -> str:
    """Return a sentence with the number of groups, how they were found, and warnings."""
    count, frame_count = len(set(groups)), sum(len(one.rows) for one in frames)
    suffix = "".join(f"; {warning}" for warning in warnings)
    if not frames and count == len(groups):
        return NO_GROUPS[:-1] + suffix + "."
    origins = []
    for kind, noun in (("folder", "folder"), ("stem", "name")):
        units = {one.unit for one in frames if one.kind[1] == kind}
        origins += [f"frames of {plural(len(units), noun)}"] if units else []
    if frame_count < len(groups):
        origins.append("the rest by name" if origins else "by file and folder names")
    noun = "images" if frame_count == len(groups) else "files"
    return f"{len(groups):,} {noun} in {plural(count, 'group')}: {', '.join(origins)}{suffix}."
