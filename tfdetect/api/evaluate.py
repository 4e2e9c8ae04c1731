"""evaluate: evaluate a run again, or on other data sets; or several runs and the mean of their probabilities."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache as once
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfdetect import artifact as artifacts
from tfdetect import config, files, models, versions
from tfdetect.api.results import Comparison, Matrix, Results
from tfdetect.artifact import Artifact
from tfdetect.detector import ReportContext
from tfdetect.errors import UserError
from tfdetect.settings import Run
from tfdetect.workflow import dataset, operating_point, output_paths, overlap, seen
from tfdetect.workflow.console import console, devices_line, import_keras
from tfdetect.workflow.judging_run import JudgingRun
from tfdetect.workflow.startup import as_paths, start
from tfdetect.workflow.test_files import Evaluate, other_aggregate_warning, select_test_files

if TYPE_CHECKING:
    import pandas as pd

    from tfdetect.data.input_pipeline.corruptions import CorruptionChain
    from tfdetect.serving.predictor import Predictor
    from tfdetect.workflow.results import Evaluation


def evaluate(runs: "str | Path | Iterable[str | Path]" = (), data: "str | Path | Iterable[str | Path] | None" = None,
             **settings: Any) -> Results:  # fmt: skip
    """Evaluate a run, or several and the mean of their probabilities, and return the folder with the results.

    `runs` are folders such as "saved_models/cnn"; `data` is the path of a data set, by default the run's own test files. With a
    list of several data sets, each run is evaluated on each of them, and a `Matrix` is returned; with `compare=True`, finished
    runs are compared side by side, and a `Comparison` is returned. All other keywords are flags of
    the command `evaluate`, such as `corrupt="jpeg(80)"` and `out="FOLDER"`. Instead of runs, `predictions="scores.csv"` or
    `model="FILE.py"` judge any detectors (docs/judge.md). Raises UserError for a setting that is not valid and if no file is left
    to evaluate, and FileNotFoundError if there is no such run.
    """
    start(settings.pop("plugin", ()))
    default = Evaluate(tuple(as_paths(runs)))
    paths = [] if data is None else as_paths(data)
    args = config.parse_keywords(default, config.data_path(paths[0] if paths else None) | settings, "evaluate")
    folder = evaluate_runs(args, paths).folder
    if args.compare:
        return Comparison(folder)
    return Matrix(folder) if len(paths) > 1 else Results(folder)


def evaluate_runs(args: Evaluate, paths: Sequence[Path] = ()) -> Artifact:
    """Evaluate one run, an ensemble, or with several `paths` of data sets each run on each; return where the results are."""
    if args.compare:
        from tfdetect.workflow import compare

        if len(paths) > 1:
            raise UserError("--compare takes one --data.path; several, without --compare, make a matrix of runs and data sets.")
        return compare.evaluate(args, evaluate_run)
    if len(paths) > 1:
        from tfdetect.workflow import matrix

        return matrix.evaluate(args, paths, evaluate_run)
    if args.predictions or args.model:
        from tfdetect.workflow import judge

        return judge.judge(args)
    if not args.runs:
        raise UserError("No run given; name the folder of one, such as saved_models/cnn, or of several; or give the scores of "
                        "any detectors with --predictions FILE.")  # fmt: skip
    if len(args.runs) > 1:
        from tfdetect.workflow import ensemble

        return ensemble.evaluate(args)
    artifact = artifacts.find(args.runs[0], trust=args.trust)
    return evaluate_run(args, artifact, artifacts.load_config(artifact))


def evaluate_run(args: Evaluate, artifact: Artifact, run: Run) -> Artifact:
    """Read, decode, leave out what the run was trained on, score, write the report."""
    import_keras()
    console.print(devices_line(run.train.precision))
    from tfdetect.data.input_pipeline import corruptions
    from tfdetect.data.prepare.decode import usable_rows
    from tfdetect.workflow import results, robustness

    chain = corruptions.parse(args.data.corrupt)
    target = Artifact(output_paths.evaluation_folder(args, corruption=chain.slug if chain else ""))
    judge = JudgingRun.of(args, artifact, run)
    table, warnings = prepare_files(args, judge, target)
    if chain:
        warnings = (*warnings, f"The clips were corrupted before they were scored: {chain}.")
    predictor = judge.predictor().judging(args.evaluate.unfamiliar, args.evaluate.any)
    evaluation = score(args, judge, predictor, table, chain)
    evaluation = replace(evaluation, warnings=(*warnings, *evaluation.warnings, *predictor.warnings))
    if args.robustness is not None:
        found = robustness.measure(args.robustness, target, artifact, predictor, usable_rows(table), judge.cache, judge.data)
        evaluation = replace(evaluation, robustness=found)
    for warning in predictor.warnings:
        console.print(warning)
    results.finish(target, evaluation, {"test": "test"})
    if evaluation.robustness:
        console.print(robustness.describe(evaluation.robustness, target))
    return target


def prepare_files(args: Evaluate, judge: JudgingRun, target: Artifact) -> "tuple[pd.DataFrame, tuple[str, ...]]":
    """Return the prepared manifest of the files to score, and sentences on those that were left out, which `target` lists. Raises
    UserError if no file is left."""
    from tfdetect.data.prepare.decode import usable_rows

    data, cache = judge.data, judge.cache
    table, excluded = dataset.separate_excluded(select_test_files(args, judge.artifact, data), cache, data.workers)
    table = dataset.decode(table, data, cache, excluded)
    table, warnings = overlap.leave_out(table, [judge.training_files], target.folder, args.overlap, args.data.path)
    dataset.print_count(table)
    table, _ = dataset.add_source_classes(table, judge.run.detector)
    if (good := usable_rows(table)).empty:
        raise UserError("No file is left to evaluate: all were used in training or to choose the epoch. Give other files.")
    dataset.print_if_one_class(good)
    return table, warnings


def score(args: Evaluate, judge: JudgingRun, predictor: "Predictor", table: "pd.DataFrame",
          chain: "CorruptionChain | None") -> "Evaluation":  # fmt: skip
    """Score a prepared manifest, and return what its report says."""
    from tfdetect.data.prepare.decode import usable_rows
    from tfdetect.workflow import run_evaluation, scoring

    artifact, run, cache, good = judge.artifact, judge.run, judge.cache, usable_rows(table)
    load_model = once(partial(models.load, artifact.model))
    extractor = None if chain else run_evaluation.feature_extractor(load_model, run.detector, cache)
    features = extractor.of(good) if extractor else None
    scored = run_evaluation.score(predictor, table, run.detector, cache, features, chain)
    context = ReportContext(load_model, scored, predictor.threshold, good, scoring.clip_loader(good, cache))
    found = run_evaluation.describe(run, judge.data, table, cache, predictor, context, args.stress, extractor)
    rule = args.evaluate.rule or run.threshold_rule
    return replace(
        found,
        threshold_rule=rule,
        warnings=(*other_aggregate_warning(judge.aggregate, run), *operating_point.rate_note(judge.calibration, rule)),
        metrics={**found.metrics, **validation_metrics(artifact)},
        training=seen.of_run(artifact, run, args.data.path),
        calibration=judge.calibration,
        any_file=args.evaluate.any,
        name=evaluation_name(artifact, args.data.path),
    )


def evaluation_name(artifact: Artifact, path: Path | None) -> str:
    """Return what heads the report of a run on a data set, None for its own test files."""
    return f"{versions.title(artifact.folder)} on {(path.resolve().name or path) if path else 'its own test files'}"


def validation_metrics(artifact: Artifact) -> dict[str, Any]:
    """Return the summary of the run's validation files, as its training left it; {} if there is none."""
    if not artifact.metrics.exists():
        return {}
    found = files.read_json(artifact.metrics, (), "delete it; only the validation metrics will then be missing from the report.")
    return {"validation": found["validation"]} if found.get("validation") else {}
