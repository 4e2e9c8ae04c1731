"""Which sources of fakes a run was trained on, and which of those that are tested it never saw."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfdetect import versions
from tfdetect.artifact import Artifact
from tfdetect.settings import Run

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class TrainingSources:
    """The sources of the fakes in training and validation."""

    names: frozenset[str]
    same_data: bool
    """Whether the test files come from the same data set, so that a name as general as "fake" means the same in both."""
    validation_only: bool = False
    """Whether training used none of them, as that of one-class detectors."""

    def has(self, source: str) -> bool | None:
        """Return whether fakes of this source were used, None if that cannot be told from its name."""
        if self.same_data:
            return source in self.names if self.names else None
        lower, general = {name.lower() for name in self.names}, general_names()
        if source.lower() in general:
            return None
        return True if source.lower() in lower else None if not lower or lower & general else False


def general_names() -> set[str]:
    """Return names of sources, in lower case, that do not tell one generator from another."""
    from tfdetect.data.manifest import FAKE_WORDS

    return {"", "ai", *FAKE_WORDS}


def of_table(table: "pd.DataFrame", run: Run, same_data: bool) -> TrainingSources:
    """Return the sources of the fakes that trained a run, from its prepared manifest.

    A source of a single group is a folder of one video or person, whose name says nothing; if all are, none is known.
    """
    used = table[(table["label"].astype(str) == "1") & (table["split"] != "test") & (table["error"] == "")]
    groups = used.groupby("source")["group"].nunique()
    names = frozenset(map(str, used["source"])) if (groups > 1).any() else frozenset()
    return TrainingSources(names, same_data, run.detector.trains_on == "real")


def of_run(artifact: Artifact, run: Run, path: Path | None) -> TrainingSources:
    """Return the sources of the fakes that trained a run, which is tested on the data set at `path`, or on its own test files."""
    from tfdetect.data import manifest

    trained = Artifact(versions.trained(artifact.folder))  # what a version was calibrated on trained no model
    return of_table(manifest.read_unchecked(trained.manifest), run, path is None or same_place(path, run.data.path))


def of_any(runs: Iterable[TrainingSources]) -> TrainingSources:
    """Return the sources of the fakes that trained at least one of these runs."""
    runs = list(runs)
    return TrainingSources(frozenset().union(*(each.names for each in runs)), all(each.same_data for each in runs),
                           all(each.validation_only for each in runs))  # fmt: skip


def same_place(path: Path, other: Path | None) -> bool:
    """Return whether both paths lead to the same file or folder."""
    return other is not None and path.resolve() == other.resolve()


def add_metrics(test: dict[str, Any], rows: "pd.DataFrame", training: TrainingSources | None) -> None:
    """Add to the metrics of the test split what they are on sources seen and never seen, and which sources are which."""
    from tfdetect.evaluation import seen

    if training is None or not (rows["label"] == 1).any():
        return
    fakes = rows.loc[rows["label"] == 1, "source"].fillna("")
    in_training = {str(name): training.has(str(name)) for name in fakes.unique()}
    test |= {**seen.compare(rows, test["threshold"], in_training, general_names()),
             "fakes_used_for": "validation" if training.validation_only else "training"}  # fmt: skip
    for name, row in test["by_source"].items():
        row["in_training"] = in_training.get(name)
