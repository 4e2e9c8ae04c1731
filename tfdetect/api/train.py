"""train: train, evaluate and export a detector.

Heavy modules are imported where they are used, so that `--help` and error messages about flags appear quickly.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfdetect import artifact as artifacts
from tfdetect import backend, config, files, models
from tfdetect.api import explain
from tfdetect.api.load import TrainedDetector
from tfdetect.artifact import Artifact
from tfdetect.detector import ReportContext
from tfdetect.errors import UserError
from tfdetect.settings import Run
from tfdetect.workflow import dataset, made_fakes, operating_point
from tfdetect.workflow.console import console, devices_line, feature_progress, import_keras
from tfdetect.workflow.profile import profiled
from tfdetect.workflow.startup import start

if TYPE_CHECKING:
    import keras
    import pandas as pd

    from tfdetect.data.prepare.clip_cache import Cache
    from tfdetect.evaluation.calibration import Calibration
    from tfdetect.training.feature_extractor import FeatureExtractor
    from tfdetect.training.fit import Fitted
    from tfdetect.workflow.results import Tables

SPLITS = ("train", "validation", "test")
FEW = 5  # validation files of a class below which the choice of the epoch is left to chance


def train(detector: str | None = None, data: str | Path | None = None, **settings: Any) -> TrainedDetector:
    """Train, evaluate and export a detector, as the command `train` does, and return it.

    `detector` is its name, such as "cnn", and `data` the path of a data set, by default the embedded sample. All other keywords
    are flags of the command, by their last part or their whole name: `epochs=20`, `**{"data.size": 64}`. `config="FILE.yaml"`
    starts from a saved run, and `plugin="FILE.py"` loads a detector of your own. A run that was interrupted resumes when the call
    is repeated. Raises UserError for a setting that is not valid and for data that cannot be trained on, and OSError for a path
    that does not exist.
    """
    start(settings.pop("plugin", ()))
    argv = [*([detector] if detector else []), *(["--config", str(path)] if (path := settings.pop("config", None)) else [])]
    if not argv:
        raise UserError("Neither a detector nor a config is given: name a detector, as in train('cnn').")
    with config.parser_errors():
        default = config.parse(argv, "train")
        run = config.parse([*argv, *config.keywords_to_flags(default, config.data_path(data) | settings)], "train")
    return TrainedDetector(train_run(resolve(run)).folder)


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
    """Return the run with the names of other runs replaced by the paths of their models."""
    return replace(run, detector=run.detector.resolve_runs(lambda name: str(artifacts.find(Path(name), "model").model)))


def train_run(run: Run, tables: "Tables | None" = None) -> Artifact:
    """Run all steps: decode, train, calibrate, export, evaluate. `tables` adds tables to the report."""
    import_keras()
    console.print(devices_line(run.train.precision))
    from tfdetect.training import tensorboard, trackers

    trackers.require(run.train.tracker)
    if note := run.detector.require():
        console.print(note)
    if backend.worker_index():
        return train_as_worker(run)
    with artifacts.reserve_folder(run) as (artifact, resuming), ExitStack() as tracked:
        if resuming and artifact.is_finished and (reason := why_finished(run, artifact)):
            console.print(f"{artifact.folder} is finished: {reason}. Report: {artifact.report}")
            return artifact
        with profiled(run.profile, artifact.logs / "profile", with_trace=False):  # `fit` traces some steps
            run, table, cache = prepare(run)
            if resuming:
                require_same_splits(artifact, table)
                console.print(f"Resuming {artifact.folder}")
                reopen(artifact, run)
            else:
                artifacts.reset_folder(artifact, run)
            save_inputs(artifact, table, cache)
            title = tensorboard.run_name(artifact.logs)
            tracker = tracked.enter_context(trackers.tracking(run.train.tracker, artifact.logs, title, config.run_to_dict(run)))
            console.print(tracker.where, end="")
            fitted = fit(run, artifact, table, cache, callbacks=tracker.callbacks)
        finish(run, artifact, table, cache, fitted, tables)
        tracker.finish(files.read_json(artifact.metrics, (), "train the run again."), (artifact.report, artifact.config))
    return artifact


def why_finished(run: Run, artifact: Artifact) -> str:
    """Return why a finished run cannot be trained further with these settings; "" if it can."""
    old = artifacts.load_config(artifact).train
    if not (states := checkpoint_states(artifact) or rebuilt_states(run, artifact)):
        return "it cannot be trained further, because its head was not trained in epochs, or its checkpoints/ is gone"
    done = max(len(state["history"]) for state in states)
    if run.train.epochs > done and (run.train.epochs, run.train.patience) != (old.epochs, old.patience):
        return ""
    ended = f"it stopped early, after {done} of {old.epochs} epochs" if done < old.epochs else f"all {done} epochs are done"
    return f"{ended}; to train it further, raise --train.epochs, or --train.patience if it stopped early"


def checkpoint_states(artifact: Artifact) -> "list[Mapping[str, Any]]":
    """Return the states of the run's checkpoints. Raises UserError if one is damaged."""
    from tfdetect.training.callbacks import RESTART_HINT

    return [files.read_json(path, ("history", "last"), RESTART_HINT) for path in artifact.checkpoints.glob("*/state.json")]


def rebuilt_states(run: Run, artifact: Artifact) -> "list[Mapping[str, Any]]":
    """Return the states of a finished run whose checkpoints are gone, rebuilt from its history; none for a head on features."""
    import pandas as pd

    from tfdetect.training.callbacks import rebuild_state

    history = pd.read_csv(artifact.history) if artifact.history.exists() and not run.detector.caches_features else ()
    if len(history):
        rebuild_state(artifact.checkpoints, history, run.train.monitor)
    return checkpoint_states(artifact)


def require_same_splits(artifact: Artifact, table: "pd.DataFrame") -> None:
    """Raise UserError if a file is in another split than when the run was trained, because files were added or removed."""
    from tfdetect.data import manifest

    if not artifact.manifest.exists():
        return
    old = manifest.read(artifact.manifest)
    old_split = dict(zip(old["path"], old["split"], strict=True))
    paths = [str(Path(path).absolute()) for path in table["path"]]
    moved = [path for path, split in zip(paths, table["split"], strict=True) if old_split.get(path, split) != split]
    if moved:
        raise UserError(f"Some files are in another split than when {artifact.folder} was trained ({len(moved)}, the first "
                        f"{moved[0]}): the data have changed, and the run would be tested on files it was trained on. Give "
                        "another --name.")  # fmt: skip


def reopen(artifact: Artifact, run: Run) -> None:
    """Store the new settings, and delete the report, which marks a run as finished."""
    if artifact.is_finished:
        if any(state["history"] and not state["last"] for state in checkpoint_states(artifact)):
            console.print("The optimizer state was too large to keep: training continues from the best epoch with a new one.")
        artifact.report.unlink()
        shutil.rmtree(artifact.logs / "test", ignore_errors=True)
    config.write_yaml(run, artifact.config)


def train_as_worker(run: Run) -> Artifact:
    """Train as a worker that is not the chief: the same data and steps, but it writes no results."""
    if run.name is None:
        raise UserError("Several workers need --name, so that all train the same run.")
    artifact = Artifact(run.out / run.name)
    run, table, cache = prepare(run)
    fit(run, artifact, table, cache, chief=False)
    return artifact


def save_inputs(artifact: Artifact, table: "pd.DataFrame", cache: "Cache") -> None:
    """Save what the run saw: the prepared manifest with absolute paths, the failures, the face detector, the equalisation."""
    from tfdetect.data import manifest
    from tfdetect.data.equalise import find_plan

    if faces := cache.spec.faces:
        files.write_bytes(artifact.face_model, faces.model.read_bytes())
        files.write_json(artifact.faces, {**asdict(faces), "model": artifact.face_model.name})
    plans = {find_plan(path) for path in table.loc[(table["split"] == "train") & (table["error"] == ""), "path"]}
    if len(plans) == 1 and (plan := plans.pop()):
        files.write_bytes(artifact.equalisation_plan, plan.read_bytes())
    table = table.assign(path=[str(Path(path).absolute()) for path in table["path"]])
    manifest.write(table, artifact.manifest)
    manifest.write(table[table["error"] != ""], artifact.failures)


def prepare(run: Run) -> "tuple[Run, pd.DataFrame, Cache]":
    """Read, split and decode the data; return the run with what the data determine, the prepared manifest and the cache."""
    from tfdetect.data import manifest
    from tfdetect.data.prepare.decode import usable_rows

    cache = dataset.cache_for(run.data, run.detector)
    table, excluded = dataset.separate_excluded(dataset.load_dataset(run.data, run.detector), cache, run.data.workers)
    given_splits = bool((table["split"] != "").any())
    table = made_fakes.add_made_fakes(dataset.restrict_sources(manifest.split(table), run.data), run, cache)
    require_classes(table, run)
    table = dataset.add_texts(dataset.decode(table, run.data, cache, excluded), run.detector)
    dataset.print_count(table)
    dataset.require_few_failures(table, run.data.max_failed)
    good = usable_rows(table)
    require_classes(good, run)
    asked = run.evaluate
    validation = good[good["split"] == "validation"]
    operating_point.check(validation, asked.calibration, asked.coverage, asked.prevalence, run.threshold_rule)
    dataset.print_if_one_class(good)
    for warning in warnings(run, good):
        console.print(warning)
    if run.data.path:  # scenes of the embedded sample look alike by design
        table = dataset.warn_of_lookalikes(table, cache, given_splits)
    table, detector = dataset.add_source_classes(table, run.detector)
    return replace(run, detector=detector), table, cache


def require_classes(table: "pd.DataFrame", run: Run) -> None:
    """Raise UserError unless each split has the classes that it needs; training on fakes of its own making needs only reals."""
    from tfdetect.data import manifest

    trains_on = run.detector.trains_on
    manifest.require_classes(table, ["train"], "real" if run.train.makes_face_fakes else trains_on)
    manifest.require_classes(table, ["validation", "test"], trains_on)


def warnings(run: Run, table: "pd.DataFrame") -> tuple[str, ...]:
    """Warn if there are too few files for a batch, or for choosing an epoch."""
    rows, unit = table[table["split"] == "train"], run.detector.input_kind
    count, out = int(rows["frames"].sum()) if unit == "frame" else len(rows), []
    if run.train.batch > count:
        out.append(f"--train.batch {run.train.batch} is more than the {count} training {unit}s: an epoch is one step.")
    validation = table.loc[table["split"] == "validation", "label"]
    reals, fakes = int((validation == 0).sum()), int((validation == 1).sum())
    if min(reals, fakes or reals) < FEW:
        out.append(f"Validation has only {reals} real and {fakes} fake files: with fewer than {FEW} of a class, the choice of "
                   "epoch and threshold is left to chance. Add files.")  # fmt: skip
    return tuple(out)


@contextmanager
def explain_out_of_memory(run: Run) -> Iterator[None]:
    """Turn an out-of-memory error into a UserError that says which settings to lower."""
    try:
        yield
    except Exception as error:
        names = {cls.__name__ for cls in type(error).__mro__}
        if not names & {"MemoryError", "ResourceExhaustedError", "OutOfMemoryError"} and "RESOURCE_EXHAUSTED" not in str(error):
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
        return train(run.detector, table, cache, run.train, artifact.checkpoints, artifact.model, callbacks, feature_progress)


def finish(run: Run, artifact: Artifact, table: "pd.DataFrame", cache: "Cache", fitted: "Fitted",
           tables: "Tables | None" = None) -> None:
    """Calibrate, export, and evaluate what was exported."""
    from tfdetect.data.prepare.decode import usable_rows
    from tfdetect.evaluation import predictions
    from tfdetect.serving.export import export
    from tfdetect.training import tensorboard
    from tfdetect.training.callbacks import keep_for_resume
    from tfdetect.training.feature_extractor import FeatureExtractor
    from tfdetect.workflow import results, scoring, stress

    with files.atomic_write(artifact.history) as temporary:
        fitted.history.to_csv(temporary, index=False)
    model, good = models.load(artifact.model), usable_rows(table)
    extractor = FeatureExtractor(model, run.detector, cache, feature_progress) if run.detector.caches_features else None
    features = extractor.of(good) if extractor else None
    calibration = calibrate(model, good, cache, run, extractor)
    files.write_json(artifact.calibration, calibration.to_dict())
    graph = None
    if backend.is_tensorflow():
        spec = dataset.with_equalisation(cache, artifact).spec
        graph = export(model, calibration.to_dict(), run.detector, artifact.saved_model, spec, run.evaluate.aggregate)
    predictor = operating_point.judged_predictor(artifact, cache.spec, run.detector, run.evaluate.aggregate, calibration)
    scored = (scoring.score_features(predictor, features, table) if features
              else scoring.score(predictor, table[table["split"] != "train"], cache))  # fmt: skip
    context = ReportContext(lambda: model, scored, predictor.threshold, good, scoring.clip_loader(good, cache), fitted.history,
                            fitted.best_epoch, fitted.validation_scores, features)  # fmt: skip
    extras = results.report_extras(run.detector, context, predictor)
    warnings = (*predictor.warnings, *operating_point.notes(calibration, good, run.evaluate.coverage, run.threshold_rule))
    evaluated = scored[scored["split"].isin(predictions.SPLITS)].reset_index(drop=True)
    study = stress.plan_study(run.stress, run, run.data, context, predictor, cache, extractor)
    evaluation = results.Evaluation(run, table, run.data, evaluated, predictor.threshold, run.threshold_rule, context.load_clip,
                                    warnings, {"scored_with": predictor.scored_with}, extras, fitted.history,
                                    fitted.best_epoch, cache, study, calibration=calibration)  # fmt: skip
    for warning in warnings:
        console.print(warning)

    def before_report(metrics: Mapping[str, Any], drawn: Mapping[str, Path]) -> None:
        tensorboard.write(artifact.logs, context, drawn, extras.tables, config.run_to_dict(run), metrics, graph,
                          explain.map_drawer(predictor, run.detector))  # fmt: skip
        keep_for_resume(artifact.checkpoints)

    results.finish(artifact, evaluation, {"validation": "validation", "test": "test"}, tables, before_report)


def calibrate(model: "keras.Model", table: "pd.DataFrame", cache: "Cache", run: Run,
              extractor: "FeatureExtractor | None" = None) -> "Calibration":
    """Fit probability, threshold and band on the validation scores of the saved and reloaded model. Only the threshold rules that
    are reserved for recipes read the test scores."""
    from tfdetect.data.input_pipeline.dataset import expand_frames
    from tfdetect.evaluation import calibration, predictions
    from tfdetect.training.fit import predict_scores

    def file_scores(split: str) -> "pd.DataFrame":
        rows = table[table["split"] == split].reset_index(drop=True)
        frames = expand_frames(rows, run.detector.input_kind == "frame")
        scores = predict_scores(model, rows, cache, run.detector, run.train.batch, extractor)
        return predictions.file_scores(predictions.with_aggregate(frames.assign(score=scores), run.evaluate.aggregate))

    files, rule, asked = file_scores("validation"), run.threshold_rule, run.evaluate
    coverage = operating_point.DEFAULT_COVERAGE if asked.coverage is None else asked.coverage
    pooled = calibration.is_pooled(rule)
    fitted = calibration.fit(files["score"], files["label"], "youden" if pooled else rule, asked.calibration, files["group"],
                             coverage)  # fmt: skip
    if pooled:
        fitted = calibration.pool_threshold(fitted, file_scores("test")["score"], rule)
    return fitted.with_prevalence(asked.prevalence)
