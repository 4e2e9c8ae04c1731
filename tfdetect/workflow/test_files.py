"""Which files `evaluate` judges: those asked for, without what a run was trained on."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import tyro

from tfdetect import corruption_spec
from tfdetect.artifact import Artifact
from tfdetect.settings import Data, DecodeOverrides
from tfdetect.workflow import dataset
from tfdetect.workflow.console import console, plural

HASHES = ("sha", "original_sha")  # by which a file is known again


@dataclass(frozen=True)
class EvaluateData(DecodeOverrides):
    """Which files, and how much of each at most."""

    path: Path | None = None
    """Folder or manifest, as for train. Without it, the run's own test files; of several runs those they all have."""
    fake: tuple[str, ...] = ()
    """Names of the class folders that are fake; by default as in training."""
    layout: str = "auto"
    """How the folder is laid out; by default it is recognised."""
    labels: Literal["check", "as_given"] = "check"
    """Refuse a table in which the files under real/ are labelled fake and those under fake/ real, or take it as it is."""
    sources: tuple[str, ...] = ()
    """Judge the fakes of these generators or manipulations only, and all reals."""
    group: str = "auto"
    """What belongs together, as for train; the test's interval goes by it."""
    corrupt: str = ""
    """What the clips go through before they are judged, such as "jpeg(80)" or "blur(2)"; docs/augment.md lists the steps."""

    def __post_init__(self) -> None:
        super().__post_init__()
        corruption_spec.check(self.corrupt, "--data.corrupt", labels=False)


@dataclass(frozen=True)
class Evaluate:
    """Judge an exported detector; threshold and calibration stay those of its validation files."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """The run's folder, such as saved_models/cnn. Of several, the mean of their probabilities is judged too."""
    data: EvaluateData = EvaluateData()
    out: Path | None = None
    """Where the report goes; by default evaluations/NAME in the (first) run's folder, a name of its own for each data set and
    --data.corrupt."""


def select_test_files(asked: Evaluate, artifact: Artifact, data: Data):
    """The files to judge: those of a test split where there is one, else all."""
    from tfdetect.data import manifest
    from tfdetect.data.layouts import detect

    if asked.data.path is None:
        table = detect.of_sources(manifest.read(artifact.manifest), asked.data.sources)
    else:
        choice = {name: getattr(asked.data, name) for name in ("layout", "sources", "labels", "group")}
        table = dataset.read_manifest(asked.data.path, replace(data, **choice))
    if (table["split"] == "test").any():
        if others := int((table["split"] != "test").sum()):
            console.print(f"Judged are the files of the test split; {plural(others, 'other')} are left out.")
        table = table[table["split"] == "test"]
        table.attrs["left_out"] = {**table.attrs.get("left_out", {}), **({"other splits": others} if others else {})}
    return table.assign(split="test").reset_index(drop=True)


def drop_training_overlap(table, *runs: Artifact):
    """The table without the files whose bytes, or whose original's bytes, were in training or validation of any run, and without
    others of their groups, such as fakes of a source that was left out there; and a warning that counts them."""
    import pandas as pd

    known, leak = pd.Series(False, table.index), pd.Series(False, table.index)
    for run in runs:
        mine, groups = files_seen_in_training(table, run)
        known, leak = known | mine, leak | table["group"].isin(groups)
    if not leak.any():
        return table, ()
    which = "this run" if len(runs) == 1 else "one of these runs"
    others = f", and {(leak & ~known).sum()} more are of their groups" if (leak & ~known).any() else ""
    text = f"{known.sum():,} of {plural(len(table), 'file')} took part in training {which}{others}; they are left out here."
    console.print(text)
    kept = table[~leak].reset_index(drop=True)
    kept.attrs["left_out"] = {**table.attrs.get("left_out", {}), "of the training": int(leak.sum())}
    return kept, (text,)


def files_seen_in_training(table, run: Artifact):
    """Which files of the table the run was fitted on, (files,) bool, and the groups of the table that thereby took part.

    Where the files known again carry the same groups as in training, both tables name groups alike, and all training groups
    count. Else a group of the same name proves nothing: most sets have a 1.
    """
    import pandas as pd

    from tfdetect.data import manifest

    rows = manifest.raw(run.manifest)
    used = rows[rows["split"] != "test"]
    groups = {sha: group for name in HASHES if name in used for sha, group in used[[name, "group"]].to_numpy() if sha and group}
    then = pd.Series(None, table.index, object)  # the group that a file had in training
    for name in filter(table.columns.__contains__, HASHES):
        then = then.fillna(table[name].map(groups))
    known = then.notna()
    same = table.loc[known, "group"]
    return known, set(same) | (set(used["group"]) if (same == then[known]).mean() > 0.5 else set())
