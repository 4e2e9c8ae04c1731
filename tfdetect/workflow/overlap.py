"""Files that nothing may be judged on, because training had them, others of their groups, or near copies of them."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tfdetect import files, installation, versions
from tfdetect.artifact import Artifact
from tfdetect.errors import UserError
from tfdetect.settings import Run
from tfdetect.workflow import dataset, leaks, output_paths
from tfdetect.workflow.console import console, plural, printable, progress

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from tfdetect.data.prepare.clip_cache import Cache

LIST_NAME = "training_overlap.csv"
HASH_COLUMNS = ("sha", "original_sha")  # identify a file's content, and that of the original of an equalised file
NOT_COMPARED = ("Near duplicates of {:,} of {:,} training files were not looked for: their clips are no longer in {}. Files of "
                "the same content are found without them.")  # fmt: skip
CONTENT, PATH, NEAR, GROUP = REASONS = "same content", "same path", "near duplicate", "same group"
TRAIN, CALIBRATE = "train", "calibrate"
MEMORISED = "the result on them may be memorised"
LISTED = 3  # files in a message
MOST = 0.5  # of a run's training files, from which on a data set counts as the one that it was trained on
Policy = Literal["refuse", "drop"]


@dataclass(frozen=True)
class Trained:
    """A run that is to be evaluated, and the cache with its clips of the files to score."""

    artifact: Artifact
    run: Run
    cache: "Cache"


def leave_out(table: "pd.DataFrame", members: Sequence[Trained], target: Path, policy: Policy,
              path: Path | None) -> "tuple[pd.DataFrame, tuple[str, ...]]":  # fmt: skip
    """Return the decoded table without files that training or validation of a run used, and warnings about them.

    Files are recognised by their bytes, by those of their original, and by their path; in the data set at `path`, None for the
    run's own test files, near duplicates are looked for as well. Other files of their groups are left out too, such as fakes of
    a source that was not trained on. All are listed in LIST_NAME in the folder `target`. With the policy "refuse", raises
    UserError, unless the table holds at least half of what a run was trained on: then it is not a test set with leaks, but the
    data set of the run.
    """
    import pandas as pd

    (target / LIST_NAME).unlink(missing_ok=True)
    found: list[pd.DataFrame] = []
    warnings: list[str] = []
    is_own = path is None
    for member in members:
        matches, used, notes = match_training(table, member, path)
        found.append(matches.assign(run=member.artifact.folder.name))
        warnings += notes
        is_own |= 0 < len(matches) >= MOST * used
    overlap = pd.concat(found)
    overlap = overlap.sort_values("reason", key=lambda column: column.map(REASONS.index), kind="stable")
    overlap = overlap[~overlap.index.duplicated()].sort_index()
    table.attrs[leaks.TRAINED_ON] = leaks.left_out(len(overlap))
    if overlap.empty:
        return table, tuple(warnings)
    write_list(target / LIST_NAME, overlap)
    text = describe(overlap, len(table), "this run" if len(members) == 1 else "one of these runs")
    if policy == "refuse" and not is_own:
        raise UserError(f"{text}: {name_first(overlap)}. All are listed in {target / LIST_NAME}. A detector is to be judged on "
                        "files that it was not trained on: take these out, or leave them out here with --overlap "
                        "drop.")  # fmt: skip
    text = f"{text}; they are left out here, and listed in {LIST_NAME}."
    console.print(text)
    kept = table.drop(overlap.index).reset_index(drop=True)
    kept.attrs["left_out"] = {**table.attrs.get("left_out", {}), "used in training": len(overlap)}
    return kept, (*warnings, text)


def match_training(table: "pd.DataFrame", member: Trained,
                   path: Path | None) -> "tuple[pd.DataFrame, int, tuple[str, ...]]":  # fmt: skip
    """Return a row for each file of the table that a run must not be judged on, how many files the run used, and warnings.

    The rows have the index of the table and the columns path, reason, training_file, used_to. In the data set at `path`, near
    duplicates are found, too. All training groups count as used if both tables name groups in the same way: if they lie in the
    same folder, or most of the files with known content have the same group in both. Otherwise an equal name proves nothing:
    most data sets have a group "1".
    """
    import pandas as pd

    from tfdetect.data import manifest

    rows = manifest.read_unchecked(member.artifact.manifest)
    used = rows[rows["split"] != "test"]
    training_file = find_content(table, used)
    reason = pd.Series(None, table.index, object).mask(training_file.notna(), CONTENT)
    paths = table["path"].map(os.path.abspath)[training_file.isna()]
    paths = paths[paths.isin(used["path"])]
    training_file[paths.index], reason[paths.index] = paths, PATH
    in_training = training_file.map(dict(zip(used["path"], used["group"], strict=True)))[training_file.notna()]
    warnings: tuple[str, ...] = ()
    if path:
        near, warnings = find_near(table[training_file.isna()], used, member)
        training_file[near.index], reason[near.index] = near, NEAR
    same_names = len(in_training) and (table["group"][in_training.index] == in_training).mean() > 0.5
    same_names = same_names or are_tables_of_one_folder(path, member.run.data.path)
    file_of_group = dict(used.drop_duplicates("group")[["group", "path"]].to_numpy()) if same_names else {}
    file_of_group |= dict(zip(table["group"][training_file.notna()], training_file.dropna(), strict=True))
    related = table["group"][training_file.isna()].map(file_of_group).dropna()
    training_file[related.index], reason[related.index] = related, GROUP
    matches = table[["path"]].assign(reason=reason, training_file=training_file)[training_file.notna()]
    matches["used_to"] = matches["training_file"].isin(calibrated_on(used, member.artifact)).map({True: CALIBRATE, False: TRAIN})
    return matches, int((used["error"] == "").sum()), warnings


def calibrated_on(used: "pd.DataFrame", artifact: Artifact) -> "set[str]":
    """Return the files among `used` that only calibrated a version of a run; none if the version that was trained is gone."""
    from tfdetect.data import manifest

    try:
        trained = manifest.read_unchecked(Artifact(versions.trained(artifact.folder)).manifest)
    except UserError:
        return set()
    return set(used["path"]) - set(trained["path"])


def are_tables_of_one_folder(path: Path | None, other: Path | None) -> bool:
    """Return whether both are tables, and in the same folder."""
    return bool(path and other and path.is_file() and other.is_file() and path.resolve().parent == other.resolve().parent)


def find_content(table: "pd.DataFrame", used: "pd.DataFrame") -> "pd.Series":
    """Return for each file of the table the training file of the same content, None if there is none."""
    import pandas as pd

    by_hash = {sha: path for name in HASH_COLUMNS if name in used for sha, path in used[[name, "path"]].to_numpy() if sha}
    found = pd.Series(None, table.index, object)
    for name in filter(table.columns.__contains__, HASH_COLUMNS):
        found = found.where(found.notna(), table[name].map(by_hash))
    return found.astype(object)


def find_near(table: "pd.DataFrame", used: "pd.DataFrame", member: Trained) -> "tuple[pd.Series, tuple[str, ...]]":
    """Return the training file that shows the same as a file of the table, for those that have one, by their index; and warnings
    about files that are merely similar, and about training files whose clips are no longer in the cache to be compared.
    """
    import pandas as pd

    from tfdetect.data.audit import duplicates
    from tfdetect.data.prepare.decode import usable_rows

    used, good = usable_rows(used), usable_rows(table)
    used = used.sample(min(len(used), duplicates.MAX_FILES_PER_SIDE), random_state=0)
    cache = dataset.cache_for(member.run.data, member.run.detector)
    total, used = len(used), used[used["sha"].isin(cache.find(used["sha"]))]
    gone = (NOT_COMPARED.format(total - len(used), total, cache.folder),) * (len(used) < total)
    if used.empty or good.empty:
        return pd.Series(dtype=object), gone
    sides = [used.assign(split="train", group="train"), good.assign(split="test", group="test")]
    readers = [(set(side["sha"]), of.reader(side["sha"])) for side, of in zip(sides, (cache, member.cache), strict=True)]
    load = lambda sha: next(reader for shas, reader in readers if sha in shas).load(sha)  # noqa: E731
    pairs = compare_clips(pd.concat([side[["path", "sha", "split", "group"]] for side in sides], ignore_index=True), load)
    similar = pairs[~pairs["certain"] & ~pairs["path"].isin(pairs.loc[pairs["certain"], "path"])]
    near = table["path"].map(dict(pairs.loc[pairs["certain"], ["path", "training_file"]].to_numpy())).dropna()
    return near, (*gone, *([f"{describe_near(similar)}: {MEMORISED}."] if len(similar) else []))


def compare_clips(table: "pd.DataFrame", load: "Callable[[str], np.ndarray]") -> "pd.DataFrame":
    """Return a row for each pair of `duplicates.find_near_pairs_across_splits`: path, split, training_file, and whether it is
    certain that both show the same. Show a progress bar."""
    import pandas as pd

    from tfdetect.data.audit import duplicates

    total = sum(min(int(count), duplicates.MAX_FILES_PER_SIDE) for count in (table["split"] == "train").value_counts())
    with progress("Looking for near duplicates", total, may_fail=False) as step:

        def load_and_step(sha: str) -> "np.ndarray":
            step()
            return load(sha)

        pairs = duplicates.find_near_pairs_across_splits(table, load_and_step)
    is_train = table["split"] == "train"
    sha_of, sha_of_other = (dict(table.loc[side, ["path", "sha"]].to_numpy()) for side in (is_train, ~is_train))
    split_of = dict(table.loc[~is_train, ["path", "split"]].to_numpy())
    rows = [(other, split_of[other], first, duplicates.shows_the_same(load(sha_of[first]), load(sha_of_other[other])))
            for first, other in pairs]  # fmt: skip
    return pd.DataFrame(rows, columns=["path", "split", "training_file", "certain"]).astype({"certain": bool})


def write_list(path: Path, overlap: "pd.DataFrame") -> None:
    """Write the table as CSV."""
    with files.atomic_write(path) as temporary:
        overlap.to_csv(temporary, index=False, errors="surrogateescape")


def describe(overlap: "pd.DataFrame", total: int, which: str) -> str:
    """Return how many of the files overlap with the training of `which` run, by reason."""
    reasons = overlap["reason"].replace(PATH, CONTENT)
    counts = {reason: int((reasons == reason).sum()) for reason in (CONTENT, NEAR, GROUP)}
    use = f"were used to {' or '.join(kind for kind in (TRAIN, CALIBRATE) if kind in set(overlap['used_to']))} {which}"
    said = {CONTENT: use, NEAR: f"look like files that {use}", GROUP: f"belong to groups that {use}"}
    more = {NEAR: "more look like such files", GROUP: "more belong to their groups"}
    (first, count), *others = [(reason, count) for reason, count in counts.items() if count]
    return ", and ".join([f"{count:,} of {plural(total, 'file')} {said[first]}",
                          *(f"{count:,} {more[reason]}" for reason, count in others)])  # fmt: skip


def name_first(overlap: "pd.DataFrame") -> str:
    """Return the first files of the list, each with its reason and the training file."""
    rows = [f"{printable(row.path)} ({row.reason} as {printable(row.training_file)})"
            for row in overlap.head(LISTED).itertuples()]  # fmt: skip
    return ", ".join(rows) + ", ..." * (len(overlap) > LISTED)


def check_splits(table: "pd.DataFrame", cache: "Cache", run: Run, given_splits: bool) -> "pd.DataFrame":
    """Return the decoded table of a training, without near duplicates across splits as --data.near_duplicates says.

    Print, and keep for the report, if validation or test images look like training images of other groups. `given_splits` says
    whether the splits came with the data. Raises UserError, after writing the list, if there are some that are refused; those of
    which it is not certain that they show the same never are.
    """
    from tfdetect.data.prepare.decode import usable_rows

    good = usable_rows(table)
    pairs = compare_clips(good, cache.reader(good["sha"]).load)
    table.attrs[dataset.NEAR] = f"{plural(pairs['path'].nunique(), 'file')} found" if len(pairs) else "none found"
    policy = run.data.near_duplicates
    policy = policy if policy != "auto" else "refuse" if given_splits else "keep"
    certain = pairs[pairs["certain"]]
    if policy == "refuse" and len(certain):
        path = run.out / f"near_duplicates-{output_paths.unique_name(run.data.path or Path())}.csv"
        write_list(path, certain.drop(columns="certain"))
        raise UserError(f"{describe_near(certain)}. All are listed in {path}. Correct the splits, or add --data.near_duplicates "
                        "drop (train without these training files and their groups) or keep (train on them all).")  # fmt: skip
    if policy == "drop" and len(certain):
        groups = good.loc[good["path"].isin(certain["training_file"]), "group"]
        dropped = (table["split"] == "train") & table["group"].isin(groups)
        console.print(f"{describe_near(certain)}: {plural(int(dropped.sum()), 'training file')} of their groups are left out.")
        left_out = {**table.attrs.get("left_out", {}), "near duplicates": int(dropped.sum())}
        table, pairs = table[~dropped].reset_index(drop=True), pairs[~pairs["certain"]]
        table.attrs["left_out"] = left_out
        table.attrs[dataset.NEAR] = f"{leaks.left_out(certain['path'].nunique())} in training"
    if len(pairs):
        fix = "keep them on one side of the split" if given_splits else "put them into one group"
        audit = installation.command("audit", "DIR", "--write_groups")
        text = (f"{describe_near(pairs)}: {MEMORISED}. To {fix}, see --data.group, or run {audit}, which writes such a "
                "manifest.")  # fmt: skip
        console.print(text)
        table.attrs["alike"] = (text,)
    return table


def describe_near(found: "pd.DataFrame") -> str:
    """Return how many validation and test files look like training files, with the first pair."""
    count, splits, first = found["path"].nunique(), " or ".join(sorted(set(found["split"]))), found.iloc[0]
    many = f"{count} {splits} files look" if count > 1 else f"1 {splits} file looks"
    return f"{many} like training files of other groups, e.g. {printable(first['path'])} and {printable(first['training_file'])}"
