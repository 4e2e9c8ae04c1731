"""evaluate: evaluate a run again, or on other data sets; or several runs and the mean of their probabilities."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache as once
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfdetect import artifact as artifacts
from tfdetect import config, files, models, versions
from tfdetect.api import explain
from tfdetect.api.results import Comparison, Matrix, Results
from tfdetect.artifact import Artifact
from tfdetect.detector import ReportContext
from tfdetect.errors import UserError
from tfdetect.settings import Run
from tfdetect.workflow import dataset, operating_point, output_paths, overlap, seen
from tfdetect.workflow.console import console, devices_line, feature_progress, import_keras
from tfdetect.workflow.startup import as_paths, start
from tfdetect.workflow.test_files import Evaluate, other_aggregate_warning, select_test_files

if TYPE_CHECKING:
    import keras

    from tfdetect.data.prepare.clip_cache import Cache
    from tfdetect.training.feature_extractor import FeatureExtractor


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
    from tfdetect.workflow import familiarity, results, robustness, scoring, stress

    aggregate, chain = args.evaluate.aggregate_for(run.evaluate, run.data.faces), corruptions.parse(args.data.corrupt)
    target = Artifact(output_paths.evaluation_folder(args, corruption=chain.slug if chain else ""))
    data = dataset.for_other_files(args.data.apply_to(run.data), args.data.path, args.data.fake)
    cache = dataset.evaluation_cache(data, run.detector, artifact)
    table, excluded = dataset.separate_excluded(select_test_files(args, artifact, data), cache, data.workers)
    table = dataset.decode(table, data, cache, excluded)
    trained = [overlap.Trained(artifact, run, cache)]
    table, warnings = overlap.leave_out(table, trained, target.folder, args.overlap, args.data.path)
    dataset.print_count(table)
    table, _ = dataset.add_source_classes(table, run.detector)
    if (good := usable_rows(table)).empty:
        raise UserError("No file is left to evaluate: all were used in training or to choose the epoch. Give other files.")
    dataset.print_if_one_class(good)
    if chain:
        warnings = (*warnings, f"The clips were corrupted before they were scored: {chain}.")
    calibration = operating_point.calibration_of(artifact, args.evaluate, aggregate)
    rule = args.evaluate.rule or run.threshold_rule
    warnings = (*warnings, *other_aggregate_warning(aggregate, run), *operating_point.rate_note(calibration, rule))
    predictor = operating_point.judged_predictor(artifact, cache.spec, run.detector, aggregate, calibration)
    predictor = predictor.judging(args.evaluate.unfamiliar, args.evaluate.any)
    load_model = once(partial(models.load, artifact.model))
    extractor = feature_extractor(load_model(), run, cache) if run.detector.caches_features and not chain else None
    scored = (familiarity.score_features(predictor, extractor.of(good), table, run.detector, cache) if extractor
              else scoring.score(predictor, table, cache, chain))  # fmt: skip
    context = ReportContext(load_model, scored, predictor.threshold, good, scoring.clip_loader(good, cache))
    metrics = {"scored_with": predictor.scored_with, **validation_metrics(artifact)}
    study = stress.plan_study(args.stress, run, data, context, predictor, cache, extractor)
    evaluation = results.Evaluation(run, table, data, scored, predictor.threshold, rule, context.load_clip,
                                    (*warnings, *predictor.warnings), metrics,
                                    results.report_extras(run.detector, context, predictor), cache=cache, study=study,
                                    training=seen.of_run(artifact, run, args.data.path), calibration=calibration,
                                    familiarity=predictor.familiarity, any_file=args.evaluate.any,
                                    name=evaluation_name(artifact, args.data.path),
                                    make_map=explain.map_maker(predictor, run.detector))  # fmt: skip
    if args.robustness is not None:
        found = robustness.measure(args.robustness, target, artifact, predictor, good, cache, data)
        evaluation = replace(evaluation, robustness=found)
    for warning in predictor.warnings:
        console.print(warning)
    results.finish(target, evaluation, {"test": "test"})
    if evaluation.robustness:
        console.print(robustness.describe(evaluation.robustness, target))
    return target


def evaluation_name(artifact: Artifact, path: Path | None) -> str:
    """Return what heads the report of a run on a data set, None for its own test files."""
    return f"{versions.title(artifact.folder)} on {(path.resolve().name or path) if path else 'its own test files'}"


def feature_extractor(model: "keras.Model", run: Run, cache: "Cache") -> "FeatureExtractor":
    """Return what computes the features of a frozen backbone and keeps them."""
    from tfdetect.training.feature_extractor import FeatureExtractor

    return FeatureExtractor(model, run.detector, cache, feature_progress)


def validation_metrics(artifact: Artifact) -> dict[str, Any]:
    """Return the summary of the run's validation files, as its training left it; {} if there is none."""
    if not artifact.metrics.exists():
        return {}
    found = files.read_json(artifact.metrics, (), "delete it; only the validation metrics will then be missing from the report.")
    return {"validation": found["validation"]} if found.get("validation") else {}
