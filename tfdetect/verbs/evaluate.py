"""evaluate: evaluate a run again, or on another data set; or several runs and the mean of their probabilities."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from tfdetect import artifact as artifacts
from tfdetect import config, files, models
from tfdetect.artifact import Artifact
from tfdetect.detector import ReportContext
from tfdetect.errors import UserError
from tfdetect.settings import Run
from tfdetect.workflow import dataset, output_paths
from tfdetect.workflow.console import console, devices_line, import_keras
from tfdetect.workflow.test_files import Evaluate, drop_training_overlap, select_test_files


def main(argv: Sequence[str]) -> int:
    """Parse the flags and evaluate one run, or an ensemble."""
    args = config.parse_flags(Evaluate, argv, "evaluate.py")
    if not args.runs:
        raise UserError("No run given; name the folder of one, such as saved_models/cnn, or of several.")
    if len(args.runs) > 1:
        from tfdetect.workflow import ensemble

        ensemble.evaluate(args)
        return 0
    artifact = artifacts.find(args.runs[0])
    evaluate(args, artifact, artifacts.load_config(artifact))
    return 0


def evaluate(args: Evaluate, artifact: Artifact, run: Run) -> None:
    """Read, decode, leave out what the run was trained on, score, write the report."""
    import_keras()
    console.print(devices_line(run.train.precision))
    from tfdetect.data.input_pipeline import corruptions
    from tfdetect.data.prepare.decode import usable_rows
    from tfdetect.serving.predictor import Predictor
    from tfdetect.workflow import results, scoring

    chain = corruptions.parse(args.data.corrupt)
    target = Artifact(output_paths.evaluation_folder(args, corruption=chain.slug if chain else ""))
    data = dataset.for_other_files(args.data.apply_to(run.data), args.data.path, args.data.fake)
    cache = dataset.cache_for(data, run.detector)
    cache = cache if cache.root == data.path else dataset.with_equalisation(cache, artifact)
    table, excluded = dataset.separate_excluded(select_test_files(args, artifact, data), cache, data.workers)
    table, warnings = drop_training_overlap(dataset.decode(table, data, cache, excluded), artifact)
    dataset.print_count(table)
    table, _ = dataset.add_source_classes(table, run.detector)
    if (good := usable_rows(table)).empty:
        raise UserError("No file is left to evaluate: all were used in training or to choose the epoch. Give other files.")
    dataset.print_if_one_class(good)
    if chain:
        warnings = (*warnings, f"The clips were corrupted before they were scored: {chain}.")
    predictor = Predictor(artifact, cache.spec, run.detector)
    scored = scoring.score(predictor, table, cache, chain)
    context = ReportContext(partial(models.load, artifact.model), scored, predictor.threshold, good,
                            scoring.clip_loader(good, cache))  # fmt: skip
    metrics = {"scored_with": predictor.scored_with, **validation_metrics(artifact)}
    evaluation = results.Evaluation(run, table, data, scored, predictor.threshold, run.train.threshold, context.load_clip,
                                    (*warnings, *predictor.warnings), metrics,
                                    results.report_extras(run.detector, context, predictor))  # fmt: skip
    for warning in predictor.warnings:
        console.print(warning)
    results.finish(target, evaluation, {"test": "test"})
    console.print(f"\nReport  {target.report}")


def validation_metrics(artifact: Artifact) -> dict[str, Any]:
    """Return the summary of the run's validation files, as its training left it; {} if there is none."""
    if not artifact.metrics.exists():
        return {}
    found = files.read_json(artifact.metrics, (), "delete it; only the validation metrics will then be missing from the report.")
    return {"validation": found["validation"]} if found.get("validation") else {}
