"""The settings of `evaluate`, and which files it scores: those asked for, except what a run was trained on."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from tfdetect import corruption_spec
from tfdetect.artifact import Artifact
from tfdetect.errors import UserError
from tfdetect.settings import Data, DecodeOverrides, Run
from tfdetect.verdict_settings import EvaluateOverrides
from tfdetect.workflow import dataset, operating_point, robustness_grids
from tfdetect.workflow.console import console, plural

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class EvaluateData(DecodeOverrides):
    """Which files are evaluated, and the limits for reading them; by default as in training."""

    path: Path | None = None
    """Folder or manifest, as for train; by default the run's own test files, or those that several runs have in common.
    Given several times, each run is evaluated on each data set: a table and heat-map (docs/generalisation.md)."""
    fake: tuple[str, ...] = ()
    """Names of the folders with fakes, ignoring case; by default as in training."""
    layout: str = "auto"
    """Folder layout of the data set, such as faceforensics or class_folders; auto recognises it."""
    labels: Literal["check", "as_given"] = "check"
    """Refuse (check) or accept (as_given) a manifest that labels files under real/ as fake and files under fake/ as real."""
    sources: tuple[str, ...] = ()
    """Evaluate only fakes of these sources (generators or manipulations), and all reals; by default all sources."""
    group: str = "auto"
    """Rule that groups related files, as for train; confidence intervals resample whole groups."""
    corrupt: str = ""
    """Corruption of the clips before they are scored, such as "jpeg(80)" or "blur(2)"; docs/augment.md lists the steps."""

    def __post_init__(self) -> None:
        super().__post_init__()
        corruption_spec.check_flag(self.corrupt, "--data.corrupt", labels=False)


@dataclass(frozen=True)
class Columns:
    """--predictions: which columns hold what; by default guessed from their names (docs/judge.md)."""

    scores: tuple[str, ...] = ()
    """Columns of scores, one for each detector, higher for fakes; * stands for any text, as in 'prob_*'."""
    path: str = ""
    """Column of paths or other unique names of the files."""
    label: str = ""
    """Column of labels: 0 or real, 1 or fake."""
    source: str = ""
    """Column of sources, such as generators."""
    group: str = ""
    """Column of groups, such as persons or original videos."""
    split: str = ""
    """Column of splits: if there are validation and test rows, calibration and threshold come from validation."""
    only: tuple[str, ...] = ()
    """Judge only rows with these values, as COLUMN=VALUE, such as modality=image."""
    report: str = ""
    """Detector whose figures, mistakes and sources the report shows, or a combination such as stacking.
    By default that of the stack if there are several; tables and metrics.json have all of them."""
    as_given: bool = False
    """Scores are probabilities to judge as they are: not calibrated, and called fake from 0.5."""


@dataclass(frozen=True)
class Evaluate:
    """Evaluate an exported detector, with the threshold and calibration from its validation files; or the scores of others."""

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Folder of the run, such as saved_models/cnn.
    For several runs and one data set, the mean of their probabilities is evaluated as well."""
    data: EvaluateData = EvaluateData()
    evaluate: EvaluateOverrides = field(default_factory=EvaluateOverrides)
    overlap: Literal["refuse", "drop"] = "refuse"
    """What to do with files of --data.path that training had, of their groups, and near duplicates; all are listed in a table.
    refuse: stop, unless these are the data that the run was trained on: then evaluate the rest of them.
    drop: evaluate the rest in any case."""
    out: Path | None = None
    """Output folder; by default evaluations/NAME in the folder of the (first) run.
    NAME is unique to the data set, --data.corrupt and --evaluate.*."""
    stress: int = 0
    """Number of test files that the report's section "What it learnt" compresses, resizes and blurs; 0 omits the section."""
    robustness: tuple[str, ...] | None = None
    """Measure how the verdicts hold when the files are corrupted at their own size (docs/robustness.md): grids, or corruptions.
    Without a value, standard for images and video for videos.
    Grids: standard, social, video, univfd, genimage, aigcdetect, vipcup.
    Corruptions: texts such as "jpeg(70)" or "resize(0.5)|jpeg(80)".
    An interrupted sweep goes on where it was."""
    compare: bool = False
    """Compare several finished runs, by their stored predictions or on --data.path: a page with all side by side
    (docs/compare.md)."""
    predictions: Path | None = None
    """Instead of a run: a table with the scores of any detectors (CSV, .xlsx or Parquet), see docs/judge.md."""
    columns: Columns = Columns()
    model: str | None = None
    """Instead of a run: FILE.py with a function predict(path) that returns a score, higher for fakes, or FILE.py:FUNCTION.
    It scores the files of --data.path."""
    trust: bool = False
    """Use a run even if its files differ from its SHA256SUMS."""

    def __post_init__(self) -> None:
        if self.stress < 0:
            raise UserError(f"--stress must be at least 0, got {self.stress}.")
        self._check_foreign()
        if self.stress and (self.data.corrupt or len(self.runs) > 1):
            raise UserError("--stress corrupts the files of a single run by itself: give it without --data.corrupt, and one run.")
        if self.compare:
            self._check_compared()
        if self.robustness is not None:
            robustness_grids.parse(self.robustness)
            if self.data.corrupt or len(self.runs) > 1:
                raise UserError("--robustness corrupts the files of a single run by itself: give it without --data.corrupt, and "
                                "after one run.")  # fmt: skip

    def _check_compared(self) -> None:
        """Raise UserError if --compare is given with a flag that it has no use for."""
        rest = replace(self, runs=(), out=None, compare=False, trust=False)
        if self.data.path:
            rest = replace(rest, data=EvaluateData(), overlap="refuse")
        if rest != Evaluate():
            raise UserError("--compare reads what the runs have stored: give it with runs, --out and --trust alone; or with "
                            "--data.path and the flags that say how to read it.")  # fmt: skip

    def _check_foreign(self) -> None:
        """Raise UserError if what to judge is given twice, or with a flag that it has no use for."""
        given = [name for name in ("runs", "predictions", "model") if getattr(self, name)]
        if len(given) > 1:
            raise UserError(f"Give runs, --predictions or --model, one of them; got {' and '.join(given)}.")
        if self.columns != Columns() and not self.predictions:
            raise UserError("--columns describes the columns of --predictions FILE; give that too.")
        if (self.predictions or self.model) and (self.stress or self.data.corrupt or self.robustness is not None):
            raise UserError("--stress, --robustness and --data.corrupt need a run; --predictions and --model have none.")
        if self.model and self.evaluate.aggregate:
            raise UserError("--evaluate.aggregate combines the scores of frames, but --model gives one score for each file.")
        if self.predictions and self.data.path:
            raise UserError("--predictions holds the labels itself: omit --data.path, or give --model instead.")
        if self.model and not self.data.path:
            raise UserError("--model needs files to score: add --data.path DIR.")


def other_aggregate_warning(aggregate: str, run: Run) -> tuple[str, ...]:
    """Return a warning if frames or faces are combined in another way than in training."""
    if not operating_point.is_other_aggregate(aggregate, run):
        return ()
    from tfdetect.evaluation.calibration import is_pooled

    text = (f"The scores of frames are combined by --evaluate.aggregate {aggregate}, but the run itself is calibrated for "
            f"{run.evaluate.aggregate}: ")  # fmt: skip
    if is_pooled(run.train.threshold):
        return (f"{text}AUC, average precision and EER hold, while probabilities and decisions are not calibrated for it, since "
                "its threshold is that of a published table.",)  # fmt: skip
    return (f"{text}calibration, threshold and band were fitted again to the validation files, combined in the same way.",)


def select_test_files(args: Evaluate, artifact: Artifact, data: Data) -> "pd.DataFrame":
    """Return the manifest of the files to score: those of the test split if there is one, else all."""
    from tfdetect.data import manifest
    from tfdetect.data.layouts import detect

    if args.data.path is None:
        table = detect.select_sources(manifest.read(artifact.manifest), args.data.sources)
    else:
        overrides = {name: getattr(args.data, name) for name in ("layout", "sources", "labels", "group")}
        table = dataset.read_manifest(args.data.path, replace(data, **overrides))
    if (table["split"] == "test").any():
        if others := int((table["split"] != "test").sum()):
            console.print(f"Only the test split is evaluated: {plural(others, 'other file')} left out.")
        table = table[table["split"] == "test"]
        table.attrs["left_out"] = {**table.attrs.get("left_out", {}), **({"other splits": others} if others else {})}
    return table.assign(split="test").reset_index(drop=True)
