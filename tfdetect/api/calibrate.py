"""calibrate: a new version of a run, with probabilities, threshold and inconclusive band fitted to files of one's own."""

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from tfdetect import artifact as artifacts
from tfdetect import config, versions
from tfdetect.api.load import TrainedDetector
from tfdetect.artifact import Artifact
from tfdetect.errors import UserError
from tfdetect.settings import DecodeOverrides, Run
from tfdetect.verdict_settings import VerdictOverrides
from tfdetect.workflow import adaptation, dataset, operating_point
from tfdetect.workflow.console import console, devices_line, import_keras, plural
from tfdetect.workflow.startup import start

if TYPE_CHECKING:
    import pandas as pd

    from tfdetect.data.prepare.clip_cache import Cache
    from tfdetect.evaluation.calibration import Calibration


@dataclass(frozen=True)
class CalibrateData(DecodeOverrides):
    """Files of one's own, and the limits for reading them; by default as in training."""

    path: Path | None = None
    """Folder or manifest with real and fake files of your own, as for train; 50 to 200 files are enough."""
    fake: tuple[str, ...] = ()
    """Names of the folders with fakes, ignoring case; by default as in training."""
    layout: str = "auto"
    """Folder layout of the data set, such as faceforensics or class_folders; auto recognises it."""
    labels: Literal["check", "as_given"] = "check"
    """Refuse (check) or accept (as_given) a manifest that labels files under real/ as fake and files under fake/ as real."""
    sources: tuple[str, ...] = ()
    """Use only fakes of these sources (generators or manipulations), and all reals; by default all sources."""
    group: str = "auto"
    """Rule that groups related files, as for train; files of one group never judge each other."""


@dataclass(frozen=True)
class Calibrate:
    """Fit probabilities, threshold and inconclusive band of a run to files of your own, as a new version; the old one stays."""

    run: tyro.conf.Positional[Path]
    """Folder of the run, such as saved_models/cnn, or of one of its versions, such as saved_models/cnn/versions/1."""
    data: CalibrateData = field(default_factory=CalibrateData)
    evaluate: VerdictOverrides = field(default_factory=VerdictOverrides)
    trust: bool = False
    """Use a run even if its files differ from its SHA256SUMS."""

    def __post_init__(self) -> None:
        if self.evaluate.any:
            raise UserError("--evaluate.any is about single verdicts: give it to predict or evaluate.")
        if self.data.path is None:
            raise UserError("calibrate needs real and fake files of your own: add --data.path DIR.")


def calibrate(run: str | Path, data: str | Path, **settings: Any) -> TrainedDetector:
    """Fit the calibration of a run to files of one's own, as the command `calibrate` does, and return the new version.

    `run` is a folder such as "saved_models/cnn", `data` the path of a data set. All other keywords are flags of the command,
    such as `coverage=0.95`. The folder of the run then holds the new version, and `versions/1` in it the one before. Raises
    UserError for a setting that is not valid and for files that nothing can be fitted to, FileNotFoundError if there is no
    such run.
    """
    start(settings.pop("plugin", ()))
    default = Calibrate(Path(run), CalibrateData(path=Path(data)))
    return TrainedDetector(calibrate_run(config.parse_keywords(default, settings, "calibrate")).folder)


def calibrate_run(args: Calibrate) -> Artifact:
    """Read and score the files, fit, compare before and after, and publish the new version; return the run."""
    base = versions.base(args.run)
    artifacts.find(base, trust=args.trust)  # completes a version whose writing was interrupted
    artifact = artifacts.find(args.run, "predictions", args.trust)
    run = settings_of(artifact, args.evaluate)
    with adaptation.adapting(base) as folder, adaptation.new_folder(folder) as staged:
        import_keras()
        console.print(devices_line(run.train.precision))
        from tfdetect.workflow.calibrated import Calibrated
        from tfdetect.workflow.refitted import refit

        scored, table, cache, notes = score_own_files(args, artifact, run)
        own = by_file(scored)
        fitting, judged = split_given(own)
        check(fitting, args.evaluate, run)
        known = refit(artifact, run, table[table["path"].isin(fitting["path"])], cache)
        fit = partial(fit_to, stored=artifacts.load_calibration(artifact), run=run)
        adapted = {"version": versions.next_number(base), "by": "calibrate", "from": versions.number(artifact.folder),
                   "data": str(Path(str(args.data.path)).absolute())}  # fmt: skip
        new = Calibrated(artifact, run, fit(fitting), known, scored, table, adapted, notes)
        new.write(staged, new.compare(judged, fit if judged is own else None))
        return adaptation.publish(base, staged)


def settings_of(artifact: Artifact, given: VerdictOverrides) -> Run:
    """Return the settings of the new version: those of the run, with what is given for verdicts."""
    run = adaptation.without_pooled(artifacts.load_config(artifact))
    if given.fpr is not None:
        run = replace(run, train=replace(run.train, threshold="youden"))
    settings: dict[str, Any] = {name: value for name, value in given.verdicts.items() if name != "any"}
    return replace(run, evaluate=replace(run.evaluate, **settings))


def score_own_files(args: Calibrate, artifact: Artifact, run: Run) -> "tuple[pd.DataFrame, pd.DataFrame, Cache, tuple[str, ...]]":
    """Return the scores of the files by the exported model, a row per frame as in predictions.csv; the prepared manifest, the
    cache of their clips, and sentences on what was left out."""
    data = dataset.for_other_files(args.data.apply_to(run.data), args.data.path, args.data.fake)
    cache = dataset.evaluation_cache(data, run.detector, artifact)
    reading = {name: getattr(args.data, name) for name in ("layout", "sources", "labels", "group")}
    manifest = dataset.read_manifest(Path(str(args.data.path)), replace(data, **reading))
    rows, excluded = dataset.separate_excluded(manifest, cache, data.workers)
    table, trained = dataset.decode(rows, data, cache, excluded), Artifact(versions.trained(artifact.folder))
    table, notes = adaptation.leave_out_own(table, trained, cache, Path(str(args.data.path)))
    dataset.print_count(table)
    table, _ = dataset.add_source_classes(table, run.detector)
    return adaptation.score_rows(artifact, run, artifacts.load_calibration(artifact), table, cache), table, cache, notes


def by_file(scored: "pd.DataFrame") -> "pd.DataFrame":
    """Return a row per file: path, label, group, source, split and score."""
    from tfdetect.evaluation import predictions

    return predictions.file_scores(scored, also=["split"])


def split_given(own: "pd.DataFrame") -> "tuple[pd.DataFrame, pd.DataFrame]":
    """Return the files to fit to and those to judge: all for both, unless the data set has a test split and others."""
    test = own["split"] == "test"
    if test.any() and not test.all() and set(own.loc[test, "label"]) == set(own["label"]):
        return own[~test].reset_index(drop=True), own[test].reset_index(drop=True)
    return own, own


def check(own: "pd.DataFrame", given: VerdictOverrides, run: Run) -> None:
    """Raise UserError if the files do not suffice for what was asked for."""
    label, asked = own["label"], run.evaluate
    if (label == 1).all():
        raise UserError(f"All {plural(len(own), 'file')} are fake, and it takes real files to say what is real: add some.")
    if (label == 1).any():
        operating_point.check(own, asked.calibration, asked.coverage, asked.prevalence, run.threshold_rule, asked.unfamiliar)
    elif named := [f"--evaluate.{name}" for name in ("calibration", "coverage", "prevalence") if name in given.verdicts]:
        raise UserError(f"{' and '.join(named)} need fakes as well, but all {plural(len(own), 'file')} are real: add fakes, or "
                        "omit the flag to fit what reals alone determine.")  # fmt: skip


def fit_to(own: "pd.DataFrame", stored: "Calibration", run: Run) -> "Calibration":
    """Return the calibration of files of one's own, with the columns score, label and group."""
    from tfdetect.evaluation import calibration
    from tfdetect.evaluation.adaptation import fit_to_reals

    asked, rule = run.evaluate, run.threshold_rule
    if own["label"].nunique() == 1:
        return fit_to_reals(stored, own["score"], own["group"], rule)
    coverage = operating_point.DEFAULT_COVERAGE if asked.coverage is None else asked.coverage
    return calibration.fit(own["score"], own["label"], rule, asked.calibration, own["group"], coverage, asked.prevalence)
