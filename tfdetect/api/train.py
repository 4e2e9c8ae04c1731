"""train: train, evaluate and export a detector.

Heavy modules are imported where they are used, so that `--help` and error messages about flags appear quickly.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfdetect import artifact as artifacts
from tfdetect import backend, config, files, hashes, models
from tfdetect.api.load import TrainedDetector
from tfdetect.api.study import Study
from tfdetect.artifact import Artifact
from tfdetect.detector import ReportContext
from tfdetect.errors import UserError, is_out_of_memory
from tfdetect.settings import Run
from tfdetect.workflow import cost, dataset, fine_tuning, operating_point, protocols, seen, splits, studies
from tfdetect.workflow.console import console, devices_line, feature_progress, import_keras
from tfdetect.workflow.profile import profiled
from tfdetect.workflow.resuming import reopen, require_same_splits, why_finished
from tfdetect.workflow.startup import start
from tfdetect.workflow.training_data import prepare, save_inputs

if TYPE_CHECKING:
    import keras
    import pandas as pd

    from tfdetect.data.prepare.clip_cache import Cache
    from tfdetect.detector import FeatureTable
    from tfdetect.evaluation.calibration import Calibration
    from tfdetect.serving.predictor import Predictor
    from tfdetect.training.feature_extractor import FeatureExtractor
    from tfdetect.training.fit import Fitted
    from tfdetect.workflow.results import Tables


def train(detector: str | None = None, data: str | Path | None = None, **settings: Any) -> TrainedDetector | Study:
    """Train, evaluate and export a detector, as the command `train` does, and return it; several, such as with `folds=5`, as a
    study.

    `detector` is its name, such as "cnn", and `data` the path of a data set, by default the embedded sample. All other keywords
    are flags of the command, by their last part or their whole name: `epochs=20`, `**{"data.size": 64}`. `config="FILE.yaml"`
    starts from a saved run, `from_run="RUN"` fine-tunes one (docs/adapt.md), and `plugin="FILE.py"` loads a detector of your own.
    A run that was interrupted resumes when the call is repeated. Raises UserError for a setting that is not valid and for data
    that cannot be trained on, and OSError for a path that does not exist.
    """
    start(settings.pop("plugin", ()))
    argv = [*([detector] if detector else []), *(["--config", str(path)] if (path := settings.pop("config", None)) else [])]
    if old := settings.pop("from_run", None):
        argv += ["--from", str(old), *(["--data.path", str(data)] if data else [])]
    if not argv:
        raise UserError("Neither a detector nor a config is given: name a detector, as in train('cnn').")
    with config.parser_errors():
        default = config.parse(argv, "train")
        run = config.parse([*argv, *config.keywords_to_flags(default, config.data_path(data) | settings)], "train")
    run = resolve(run)
    return Study(train_study(run).folder) if protocols.is_study(run) else TrainedDetector(train_run(run).folder)


def resolve(run: Run) -> Run:
    """Return the run with the names of other runs replaced by the paths of their models.

    Raises UserError for a threshold that is computed from test scores: only recipes of published tables may use one.
    """
    from tfdetect.evaluation import calibration

    if calibration.is_pooled(rule := run.train.threshold):
        raise UserError(f"--train.threshold {rule} uses the test scores, which then prove nothing: only `reproduce RECIPE` "
                        "accepts it, to repeat a published table. Give quantile:0.8, which uses the real validation "
                        "files.")  # fmt: skip
    return resolve_runs(run)


def resolve_runs(run: Run) -> Run:
    """Return the run with the names of other runs replaced by the paths of their models, and --data.leave_out NAME by what it
    stands for."""
    run = protocols.as_single(run)
    run = replace(run, detector=run.detector.resolve_runs(partial(fine_tuning.find_model, trust=run.trust)))
    return fine_tuning.resolve(run)


def train_study(run: Run) -> protocols.Study:
    """Train the runs of a study, each in another process, and write the report of all; see `studies.run_study`."""
    from tfdetect.workflow.child import ChildProcess

    with ChildProcess() as process:
        return studies.run_study(run, partial(process.call, train_member), partial(process.call, try_out))


def train_member(run: Run) -> dict[str, Any]:
    """Train and evaluate a run of a study."""
    train_run(run)
    return {}


def try_out(run: Run) -> dict[str, Any]:
    """Train a run without scoring its test files, and return its validation figures. The run counts as interrupted: `train_run`
    goes on with calibration, export and test."""
    from tfdetect.workflow.search import validation_figures

    found: dict[str, float] = {}
    train_run(run, conclude=lambda *trained: found.update(validation_figures(*trained)))
    return {"validation": found}


def train_run(run: Run, tables: "Tables | None" = None, conclude: Callable[..., None] | None = None) -> Artifact:
    """Run all steps: decode, train, calibrate, export, evaluate. `tables` adds tables to the report; `conclude` takes the place
    of the steps after training. Raises UserError if the settings ask for several trainings."""
    protocols.require_single(run)
    import_keras()
    console.print(devices_line(run.train.precision))
    from tfdetect.training import tensorboard, trackers

    trackers.require(run.train.tracker)
    if note := run.detector.require():
        console.print(note)
    if backend.worker_index():
        return train_as_worker(run)
    with fine_tuning.reserve(run) as (artifact, resuming), ExitStack() as tracked:
        if resuming and artifact.is_finished and (reason := why_finished(run, artifact)):
            console.print(f"{artifact.folder} is finished: {reason}. Report: {artifact.report}")
            return fine_tuning.publish(run, artifact)
        run = splits.keep_choice(run, artifact) if resuming else run
        with profiled(run.profile, artifact.logs / "profile", with_trace=False):  # `fit` traces some steps
            run, table, cache = prepare(run)
            open_folder(artifact, run, table, resuming)
            save_inputs(artifact, fine_tuning.with_old_files(table, run), cache)
            title = tensorboard.run_name(artifact.logs)
            tracker = tracked.enter_context(trackers.tracking(run.train.tracker, artifact.logs, title, config.sections(run)))
            console.print(tracker.where, end="")
            with cost.timed(artifact, run.train.precision):
                fitted = fit(run, artifact, table, cache, callbacks=tracker.callbacks)
        if conclude:
            conclude(run, artifact, table, cache, fitted)
            return artifact
        finish(run, artifact, table, cache, fitted, tables)
        if run.train.tracker != "none":
            tracker.finish(files.read_json(artifact.metrics, (), "train the run again."), (artifact.report, artifact.config))
        return fine_tuning.publish(run, artifact)


def open_folder(artifact: Artifact, run: Run, table: "pd.DataFrame", resuming: bool) -> None:
    """Make the folder of the run ready for its training, which goes on if it is `resuming`."""
    if resuming:
        require_same_splits(artifact, table)
        console.print(f"Resuming {artifact.folder}")
        reopen(artifact, run)
    else:
        artifacts.reset_folder(artifact, run)
    fine_tuning.mark(run, artifact)


def train_as_worker(run: Run) -> Artifact:
    """Train as a worker that is not the chief: the same data and steps, but it writes no results."""
    if run.from_run:
        raise UserError("--from trains in one process: unset TF_CONFIG.")
    if run.name is None:
        raise UserError("Several workers need --name, so that all train the same run.")
    artifact = Artifact(run.out / run.name)
    run, table, cache = prepare(run)
    fit(run, artifact, table, cache, chief=False)
    return artifact


@contextmanager
def explain_out_of_memory(run: Run) -> Iterator[None]:
    """Turn an out-of-memory error into a UserError that says which settings to lower."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(f"Out of memory in training: lower --train.batch ({run.train.batch}) or --data.size ({run.data.size}), "
                        "or use --train.precision mixed_bfloat16.") from error  # fmt: skip


def fit(run: Run, artifact: Artifact, table: "pd.DataFrame", cache: "Cache", chief: bool = True,
        callbacks: "Sequence[keras.callbacks.Callback]" = ()) -> "Fitted":  # fmt: skip
    """Train, and save the model of the best epoch; the chief also logs to TensorBoard and prints a line per epoch."""
    keras = import_keras()
    from tfdetect.data.prepare.decode import usable_rows
    from tfdetect.evaluation import predictions
    from tfdetect.training import trace
    from tfdetect.training.callbacks import ProgressLogger
    from tfdetect.training.train import train
    from tfdetect.workflow import reconstruction_report

    table = predictions.with_aggregate(usable_rows(table), run.evaluate.aggregate)
    with files.tensorflow_path(artifact.logs) as logs, explain_out_of_memory(run):
        callbacks = [
            *callbacks,
            keras.callbacks.TensorBoard(logs, write_graph=False, profile_batch=0),  # training.tensorboard writes the graph
            ProgressLogger(console, run.train.epochs),
            *([trace.StepTimes(artifact.logs / "profile")] if run.profile else []),
            *reconstruction_report.training_callbacks(run.detector, artifact.logs, table, cache),
        ] if chief else []  # fmt: skip
        return train(run.detector, table, cache, run.train, artifact.checkpoints, artifact.model, callbacks, feature_progress,
                     fine_tuning.start(run))


def finish(run: Run, artifact: Artifact, table: "pd.DataFrame", cache: "Cache", fitted: "Fitted",
           tables: "Tables | None" = None) -> None:
    """Calibrate, export, and evaluate what was exported."""
    from tfdetect.data.prepare.decode import usable_rows
    from tfdetect.training import tensorboard
    from tfdetect.training.callbacks import keep_for_resume
    from tfdetect.workflow import quick_maps, results, run_evaluation

    with files.atomic_write(artifact.history) as temporary:
        fitted.history.to_csv(temporary, index=False)
    model, good = models.load(artifact.model), usable_rows(table)
    extractor = run_evaluation.feature_extractor(lambda: model, run.detector, cache)
    features = extractor.of(good) if extractor else None
    calibration, graph = calibrate_and_export(run, artifact, model, good, cache, extractor)
    predictor = operating_point.judged_predictor(artifact, cache.spec, run.detector, run.evaluate.aggregate, calibration)
    context = score(run, predictor, model, table, cache, features, fitted)
    evaluation = run_evaluation.describe(run, run.data, table, cache, predictor, context, run.stress, extractor)
    evaluation = replace(
        evaluation,
        warnings=(*predictor.warnings, *evaluation_notes(run, calibration, good)),
        training=seen.of_table(fine_tuning.with_old_files(table, run), run, same_data=not run.from_run),
        calibration=calibration,
        adaptation=fine_tuning.compare(run, calibration, context.predictions, table, artifact, cache),
    )
    for warning in evaluation.warnings:
        console.print(warning)

    def before_report(metrics: Mapping[str, Any], drawn: Mapping[str, Path]) -> None:
        tensorboard.write(artifact.logs, context, drawn, evaluation.extras.tables, config.sections(run), metrics, graph,
                          quick_maps.map_drawer(predictor, run.detector))  # fmt: skip
        keep_for_resume(artifact.checkpoints)

    results.finish(artifact, evaluation, {"validation": "validation", "test": "test"}, tables, before_report)
    if evaluation.adaptation:
        fine_tuning.print_changes(evaluation.adaptation)


def calibrate_and_export(run: Run, artifact: Artifact, model: "keras.Model", table: "pd.DataFrame", cache: "Cache",
                         extractor: "FeatureExtractor | None") -> "tuple[Calibration, Any]":  # fmt: skip
    """Write what makes verdicts of the model's scores, and where the backend can, the SavedModel; return the calibration and the
    graph of the export."""
    from tfdetect.serving.export import export
    from tfdetect.workflow import familiarity

    calibration = operating_point.fit(model, table, cache, run, extractor)
    files.write_json(artifact.calibration, calibration.to_dict())
    known = familiarity.fit(run.evaluate.unfamiliar, model, run.detector, table, cache, extractor)
    familiarity.store(known, artifact)
    graph = None
    if backend.is_tensorflow():
        spec = dataset.with_equalisation(cache, artifact).spec
        graph = export(model, calibration.to_dict(), run.detector, artifact.saved_model, spec, run.evaluate.aggregate, known)
    hashes.write(artifact.folder)
    return calibration, graph


def score(run: Run, predictor: "Predictor", model: "keras.Model", table: "pd.DataFrame", cache: "Cache",
          features: "FeatureTable | None", fitted: "Fitted") -> ReportContext:  # fmt: skip
    """Score the validation and test files, and from `features` the training files as well, which costs little."""
    from tfdetect.data.prepare.decode import usable_rows
    from tfdetect.workflow import run_evaluation, scoring

    rows, good = table if features else table[table["split"] != "train"], usable_rows(table)
    scored = run_evaluation.score(predictor, rows, run.detector, cache, features)
    return ReportContext(lambda: model, scored, predictor.threshold, good, scoring.clip_loader(good, cache), fitted.history,
                         fitted.best_epoch, fitted.validation_scores, features)  # fmt: skip


def evaluation_notes(run: Run, calibration: "Calibration", table: "pd.DataFrame") -> tuple[str, ...]:
    """Return sentences on what the validation files were too few for."""
    from tfdetect.workflow import familiarity

    return (*operating_point.notes(calibration, table, run.evaluate.coverage, run.threshold_rule),
            *familiarity.notes(run.evaluate.unfamiliar, table))  # fmt: skip
