"""Find duplicate files: exact copies by their bytes, near copies by their pixels; and leaks between splits.

Near duplicates are found by perceptual hashes and confirmed on small grey images. `python benchmarks/duplicates.py DIR`
measures on your images which modifications are recognised, and how many pairs of different images are confused.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import pandas as pd

from tfdetect.data.audit.properties import hash_clip
from tfdetect.data.components import first_of_component
from tfdetect.data.layouts.grouping import MIN_CORRELATION

MAX_HASH_DISTANCE = 8  # differing bits of 64
BAND_BITS = (10, 9, 9, 9, 9, 9, 9)  # hashes that differ in at most 6 bits agree in one band, and most that differ in 7 or 8
MAX_FILES_PER_SIDE = 10_000  # of training, and of the other splits, compared after decoding
DETAIL_SIZE, MIN_DETAIL_CORRELATION = 32, 0.95  # pixels; of near duplicates that are certain
MAX_NEIGHBOURS = 2000  # per hash and band; all hashes of a flat set may share one band

ADVICE = {
    "leak": "One image is on both sides of a split, so the test measures memorisation. Keep it on one side.",
    "group": "A person or original video is on both sides of a split. Fix the split column, or empty it to split by group.",
    "label": "The same bytes are labelled real and fake. One label is wrong; training excludes both files.",
    "join": "One image is in several groups and may end up on both sides of a split. Merge the groups, or delete all but one.",
    "copies": "Copies count twice, though they share a group and no split can separate them. Delete all but one.",
}  # fmt: skip


def find_duplicates(table: pd.DataFrame, properties: pd.DataFrame) -> list[dict[str, Any]]:
    """Return sets of files that show the same, exact copies first.

    Each set is {"kind", "paths", "labels", "splits", "groups", "across", "advice"}: `kind` is "exact" (equal bytes) or
    "near", and `across` names which of label, split and group differ within the set. Near duplicates within one group
    are omitted, because they are expected there. Unreadable files are ignored.
    """
    good = np.flatnonzero((properties["error"] == "").to_numpy())
    groups = pd.factorize(table["group"])[0]
    by_content = pd.Series(good).groupby(properties["sha"].to_numpy()[good], sort=False)
    sets = [("exact", list(rows)) for _, rows in by_content if len(rows) > 1]
    first = {row: rows[0] for _, rows in sets for row in rows}
    distinct = np.array([row for row in good if first.get(row, row) == row], int)
    sets += [("near", rows) for rows in connected_rows(find_near_pairs(properties, distinct, groups))]
    return [describe_set(kind, table.iloc[rows]) for kind, rows in sets]


def find_near_pairs(properties: pd.DataFrame, rows: Sequence[int] | np.ndarray, groups: np.ndarray) -> set[tuple[int, int]]:
    """Return pairs of `rows` from different groups that match in at least half of the frames of the one with fewer frames."""
    hashes = [properties["hashes"].iat[row] for row in rows]
    if not sum(map(len, hashes)):
        return set()
    owner = np.repeat(np.asarray(rows, int), [len(frame_hashes) for frame_hashes in hashes])
    small = np.concatenate([properties["small"].iat[row].reshape(-1, 256) for row, frame_hashes in zip(rows, hashes, strict=True)
                            if len(frame_hashes)]).astype(np.float32)  # fmt: skip
    small -= small.mean(axis=1, keepdims=True)
    small /= np.linalg.norm(small, axis=1, keepdims=True) + 1e-6
    matches: dict[tuple[int, int], set[tuple[int, int]]] = {}
    for ones, others in candidate_pairs(np.concatenate(hashes), groups[owner]):
        for a, b in zip(ones.tolist(), others.tolist(), strict=True):
            if small[a] @ small[b] >= MIN_CORRELATION:
                low, high = sorted(((int(owner[a]), a), (int(owner[b]), b)))
                matches.setdefault((low[0], high[0]), set()).add((low[1], high[1]))
    count = dict(zip(np.asarray(rows).tolist(), map(len, hashes), strict=True))
    return {(one, other) for (one, other), frames in matches.items()
            if 2 * min(len({a for a, _ in frames}), len({b for _, b in frames})) >= min(count[one], count[other])}  # fmt: skip


def find_near_pairs_across_splits(table: pd.DataFrame, load: Callable[[str], np.ndarray]) -> list[tuple[str, str]]:
    """Return (training file, validation or test file) that show the same and are in different groups.

    `load` returns the clip of a `sha`. Of large sets, a random sample of files is compared.
    """
    sides = [table[table["split"] == "train"], table[table["split"] != "train"]]
    samples = [side.sample(min(len(side), MAX_FILES_PER_SIDE), random_state=0) for side in sides]
    table = pd.concat(samples).sort_index().reset_index(drop=True)
    hashed = pd.DataFrame([hash_clip(load(sha)) for sha in table["sha"]], columns=["hashes", "small"])
    pairs = find_near_pairs(hashed, np.arange(len(table)), pd.factorize(table["group"])[0])
    in_train = (table["split"] == "train").to_numpy()
    paths = table["path"].to_list()
    return [(paths[a], paths[b]) if in_train[a] else (paths[b], paths[a]) for a, b in sorted(pairs) if in_train[a] != in_train[b]]


def shows_the_same(clip: np.ndarray, other: np.ndarray) -> bool:
    """Return whether two clips that are near duplicates, (frames, height, width, 3) uint8, have the same details as well.

    Compared are grey images of DETAIL_SIZE pixels without what a blur leaves of them. Another encoding, size, brightness or gamma
    changes these details little in photographs, while different images of the same pose or light rarely share them; cropped
    ones do not either. `python benchmarks/duplicates.py DIR` measures both. Clips of fewer pixels have too few details to tell.
    """
    if min(*clip.shape[1:3], *other.shape[1:3]) < DETAIL_SIZE:
        return False
    ones, others = ([_details(each[at]) for at in sorted({0, len(each) // 2, len(each) - 1})] for each in (clip, other))
    return max(float((one * two).sum()) for one in ones for two in others) >= MIN_DETAIL_CORRELATION


def _details(frame: np.ndarray) -> np.ndarray:
    """Return the details of a frame (height, width, 3) uint8 as (DETAIL_SIZE, DETAIL_SIZE) float32 of mean 0 and norm 1."""
    grey = cv2.cvtColor(np.array(frame), cv2.COLOR_RGB2GRAY).astype(np.float32)
    small = cv2.resize(grey, (DETAIL_SIZE, DETAIL_SIZE), interpolation=cv2.INTER_AREA)
    details = small - cv2.GaussianBlur(small, (0, 0), 2)
    details -= details.mean()
    return details / (np.linalg.norm(details) + 1e-6)


def candidate_pairs(hashes: np.ndarray, groups: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield indices (ones, others) of hashes within MAX_HASH_DISTANCE and of different groups; pairs may repeat.

    Only hashes that agree in one of the bands are compared: 100,000 take seconds, while all pairs would take hours.
    """
    shift = 0
    for bits in BAND_BITS:
        band = (hashes >> np.uint64(shift)) & np.uint64((1 << bits) - 1)
        shift += bits
        order = np.lexsort((hashes, band))
        band, sorted_hashes, sorted_groups = band[order], hashes[order], groups[order]
        ones = np.arange(len(order))
        for distance in range(1, MAX_NEIGHBOURS):
            ones = ones[ones + distance < len(order)]
            ones = ones[band[ones] == band[ones + distance]]
            if not len(ones):
                break
            others = ones + distance
            near = np.bitwise_count(sorted_hashes[ones] ^ sorted_hashes[others]) <= MAX_HASH_DISTANCE
            near &= sorted_groups[ones] != sorted_groups[others]
            yield order[ones[near]], order[others[near]]


def connected_rows(pairs: set[tuple[int, int]]) -> list[list[int]]:
    """Return the connected components of pairs of rows, each sorted."""
    components = defaultdict(list)
    for row, first in sorted(first_of_component(pairs).items()):
        components[first].append(row)
    return list(components.values())


def describe_set(kind: str, rows: pd.DataFrame) -> dict[str, Any]:
    """Return a set of duplicates as `find_duplicates` returns it."""
    across = [name for name in ("label", "split", "group") if rows[name].nunique() > 1]
    if is_leak(rows):
        advice = "leak"
    elif kind == "exact" and "label" in across:
        advice = "label"
    elif "group" in across:
        advice = "join"
    else:
        advice = "copies"
    return {"kind": kind, "paths": rows["path"].tolist(), "labels": rows["label"].tolist(), "splits": rows["split"].tolist(),
            "groups": rows["group"].tolist(), "across": across, "advice": ADVICE[advice]}  # fmt: skip


def has_contradicting_labels(duplicates: dict[str, Any]) -> bool:
    """Return whether a set of duplicates has equal bytes and both labels."""
    return duplicates["kind"] == "exact" and "label" in duplicates["across"]


def is_leak(rows: pd.DataFrame) -> bool:
    """Return whether these files are in more than one given split."""
    return rows.loc[rows["split"] != "", "split"].nunique() > 1


def merge_groups(table: pd.DataFrame, duplicates: Sequence[dict[str, Any]]) -> list[str]:
    """Return the group of each file after merging the groups of exact and near copies, transitively."""
    merged = first_of_component([*([group] for group in table["group"]), *(sorted(set(entry["groups"])) for entry in duplicates)])
    return [merged[group] for group in table["group"]]


def find_leaks(table: pd.DataFrame, duplicates: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what is on both sides of a given split: {"kind", "group" or "paths", "splits", "advice"}.

    `kind` is "group", "exact" or "near". Duplicates in several groups but without a given split are included with
    "splits": [], because a future split may separate them.
    """
    given = table.loc[table["split"] != ""]
    splits = given.groupby("group", sort=True)["split"].agg(lambda column: sorted(set(column)))
    leaks: list[dict[str, Any]] = [
        {"kind": "group", "group": group, "splits": names, "paths": given.loc[given["group"] == group, "path"].tolist(),
         "advice": ADVICE["group"]} for group, names in splits.items() if len(names) > 1]  # fmt: skip
    for entry in duplicates:
        given_splits = sorted(set(entry["splits"]) - {""})
        if len(given_splits) > 1 or (not given_splits and "group" in entry["across"]):
            leaks.append({"kind": entry["kind"], "paths": entry["paths"], "splits": given_splits, "advice": entry["advice"]})
    return leaks
