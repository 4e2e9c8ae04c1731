"""The same picture twice: exact copies by their bytes, near ones by what they show; and what of it leaks between splits.

Near duplicates are found by perceptual hashes and confirmed on small grey pictures. `python benchmarks/duplicates.py
DIR` measures on your own pictures which changes are seen through, and how many pairs of different pictures are taken for one.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tfdetect.data.audit.properties import hash_clip
from tfdetect.data.layouts.tree import connected_names

MAX_HASH_DISTANCE = 8  # of 64 that may differ
MIN_CORRELATION = 0.95  # correlation of the small grey pictures
BAND_BITS = (10, 9, 9, 9, 9, 9, 9)  # bits of each; pairs that differ in at most 6 bits agree in one band, most others of 8 too
MAX_FILES_PER_SIDE = 10_000  # files of each side of a split that are compared after decoding
MAX_NEIGHBOURS = 2000  # files of one band are compared with at most so many that follow: a band may be the same in all of a flat set

ADVICE = {
    "leak": "One picture stands on both sides of a split: what the test then measures is memory. Keep it on one side.",
    "group": "A person or original stands on both sides of a split. Mend the split column, or empty it: it is made by group.",
    "label": "The same bytes are called real and fake. One of the two is wrong; training leaves both out.",
    "join": "One picture in several groups may end up on both sides of a split. Give them one group, or delete all but one.",
    "copies": "Copies count twice, and are one group, so that no split parts them; delete all but one.",
}  # fmt: skip


def find_duplicates(table: pd.DataFrame, properties: pd.DataFrame) -> list[dict[str, Any]]:
    """Sets of files that show the same, the exact first: {"kind", "paths", "labels", "splits", "groups", "across", "advice"}.

    `kind` is "exact" (equal bytes) or "near"; `across` names what differs within the set, of label, split and group. Near
    duplicates within one group are left out: there they are expected. Unreadable files take no part.
    """
    good = np.flatnonzero((properties["error"] == "").to_numpy())
    groups = pd.factorize(table["group"])[0]
    exact = pd.Series(good).groupby(properties["sha"].to_numpy()[good], sort=False)
    sets = [("exact", list(rows)) for _, rows in exact if len(rows) > 1]
    first = {at: rows[0] for _, rows in sets for at in rows}
    sole = np.array([at for at in good if first.get(at, at) == at], int)
    sets += [("near", rows) for rows in connected_rows(find_near_pairs(properties, sole, groups))]
    return [describe_set(kind, table.iloc[rows]) for kind, rows in sets]


def find_near_pairs(properties: pd.DataFrame, rows: Sequence[int] | np.ndarray, groups: np.ndarray) -> set[tuple[int, int]]:
    """Pairs of `rows`, of different groups, of which at least half of the frames of the one with fewer show the same."""
    hashes = [properties["hashes"].iat[row] for row in rows]
    if not sum(map(len, hashes)):
        return set()
    owner = np.repeat(np.asarray(rows, int), [len(found) for found in hashes])
    small = np.concatenate([properties["small"].iat[row].reshape(-1, 256) for row, found in zip(rows, hashes, strict=True)
                            if len(found)]).astype(np.float32)  # fmt: skip
    small -= small.mean(axis=1, keepdims=True)
    small /= np.linalg.norm(small, axis=1, keepdims=True) + 1e-6
    alike: dict[tuple[int, int], set[tuple[int, int]]] = {}
    for one, other in candidate_pairs(np.concatenate(hashes), groups[owner]):
        for a, b in zip(one.tolist(), other.tolist(), strict=True):
            if small[a] @ small[b] >= MIN_CORRELATION:
                low, high = sorted(((int(owner[a]), a), (int(owner[b]), b)))
                alike.setdefault((low[0], high[0]), set()).add((low[1], high[1]))
    count = dict(zip(np.asarray(rows).tolist(), map(len, hashes), strict=True))
    return {(one, other) for (one, other), found in alike.items()
            if 2 * min(len({a for a, _ in found}), len({b for _, b in found})) >= min(count[one], count[other])}  # fmt: skip


def find_near_pairs_across_splits(table: pd.DataFrame, load: Callable[[str], np.ndarray]) -> list[tuple[str, str]]:
    """(training file, file of test or validation) that show the same and are of different groups, by the clips that `load` has
    for `sha`; of so large sets that it would take long, among some of the files."""
    parts = [table[table["split"] == "train"], table[table["split"] != "train"]]
    table = pd.concat([part.sample(min(len(part), MAX_FILES_PER_SIDE), random_state=0) for part in parts]).sort_index().reset_index(drop=True)
    looks = [hash_clip(load(sha)) for sha in table["sha"]]
    found = find_near_pairs(pd.DataFrame(looks, columns=["hashes", "small"]), np.arange(len(table)), pd.factorize(table["group"])[0])
    trained = (table["split"] == "train").to_numpy()
    paths = table["path"].to_list()
    return [(paths[a], paths[b]) if trained[a] else (paths[b], paths[a]) for a, b in sorted(found) if trained[a] != trained[b]]


def candidate_pairs(hashes: np.ndarray, groups: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Positions (one, other) of hashes that differ in at most BITS bits and in their group; some of them more than once.

    Only hashes that agree in one of the BANDS are compared: 100,000 take seconds, where all pairs would take hours.
    """
    shift = 0
    for wide in BAND_BITS:
        band = (hashes >> np.uint64(shift)) & np.uint64((1 << wide) - 1)
        shift += wide
        order = np.lexsort((hashes, band))
        band, sorted_hashes, sorted_groups = band[order], hashes[order], groups[order]
        here = np.arange(len(order))
        for apart in range(1, MAX_NEIGHBOURS):
            here = here[here + apart < len(order)]
            here = here[band[here] == band[here + apart]]
            if not len(here):
                break
            there = here + apart
            near = np.bitwise_count(sorted_hashes[here] ^ sorted_hashes[there]) <= MAX_HASH_DISTANCE
            near &= sorted_groups[here] != sorted_groups[there]
            yield order[here[near]], order[there[near]]


def connected_rows(found: set[tuple[int, int]]) -> list[list[int]]:
    """Pairs -> sets of all that hang together, sorted."""
    if not found:
        return []
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    rows, numbers = np.unique(np.array(sorted(found)), return_inverse=True)
    numbers = numbers.reshape(-1, 2)
    graph = coo_array((np.ones(len(numbers)), (numbers[:, 0], numbers[:, 1])), shape=(len(rows), len(rows)))
    which = connected_components(graph, directed=False)[1]
    return [rows[which == part].tolist() for part in range(which.max() + 1)]


def describe_set(kind: str, rows: pd.DataFrame) -> dict[str, Any]:
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


def has_contradicting_labels(entry: dict[str, Any]) -> bool:
    """Whether a set of `find_duplicates` has equal bytes and both labels."""
    return entry["kind"] == "exact" and "label" in entry["across"]


def is_leak(rows: pd.DataFrame) -> bool:
    """Whether these files stand in several of the splits that are given."""
    return rows.loc[rows["split"] != "", "split"].nunique() > 1


def merge_groups(table: pd.DataFrame, found: Sequence[dict[str, Any]]) -> list[str]:
    """The group of each file, those of files that are copies, exact or near, made one, be it through others."""
    leader = connected_names([*([group] for group in table["group"]), *(sorted(set(entry["groups"])) for entry in found)])
    return [leader[group] for group in table["group"]]


def find_leaks(table: pd.DataFrame, found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What stands on both sides of a given split: {"kind": "group", "exact" or "near", "group" or "paths", "splits", "advice"};
    and, with no split given, what would once one is made: sets in several groups, with "splits": []."""
    given = table.loc[table["split"] != ""]
    splits = given.groupby("group", sort=True)["split"].agg(lambda column: sorted(set(column)))
    out: list[dict[str, Any]] = [
        {"kind": "group", "group": group, "splits": names, "paths": given.loc[given["group"] == group, "path"].tolist(),
         "advice": ADVICE["group"]} for group, names in splits.items() if len(names) > 1]  # fmt: skip
    for entry in found:
        splits_here = sorted(set(entry["splits"]) - {""})
        if len(splits_here) > 1 or (not splits_here and "group" in entry["across"]):
            out.append({"kind": entry["kind"], "paths": entry["paths"], "splits": splits_here, "advice": entry["advice"]})
    return out
