"""evaluate: judge a run again, or on another data set; or several runs and their mean."""

from collections.abc import Sequence
from typing import Any

from tfdetect import artifact as artifacts
from tfdetect import config, files, models  # noqa: F401  (registers the detectors)
from tfdetect.artifact import Artifact
from tfdetect.errors import UserError
from tfdetect.settings import Run
from tfdetect.workflow import dataset, output_paths
from tfdetect.workflow.console import console, devices_line, import_keras
from tfdetect.workflow.test_files import Evaluate, drop_training_overlap, select_test_files


def main(argv: Sequence[str]) -> int:
    """Parse and evaluate."""
    asked = config.arguments(Evaluate, argv, "evaluate.py")
    if not asked.runs:
        raise UserError("No run came; name the folder of one, such as saved_models/cnn, or of several.")
    if len(asked.runs) > 1:
        from tfdetect.workflow import ensemble

        ensemble.evaluate(asked)
        return 0
    artifact = artifacts.find(asked.runs[0])
    run = artifacts.load_config(artifact)
    evaluate(asked, artifact, run)
    return 0


def evaluate(asked: Evaluate, artifact: Artifact, run: Run) -> None:
    """Read, decode, leave out what the run was trained on, score, write."""
    import_keras()
    console.print(devices_line(run.train.precision))
    from tfdetect.data.input_pipeline import corruptions
    from tfdetect.data.prepare.decode import usable
    from tfdetect.evaluation import calibration
    from tfdetect.serving.predictor import Predictor
    from tfdetect.workflow import results
    from tfdetect.workflow.scoring import find_shortcuts, score

    chain = corruptions.parse(asked.data.corrupt)
    target = Artifact(output_paths.evaluation(asked, corrupted=chain.slug if chain else ""))
    data = dataset.with_path(asked.data.apply_to(run.data), asked.data.path, asked.data.fake)
    cache = dataset.cache_for(data, run.detector)
    cache = cache if cache.root == data.path else dataset.with_equalisation(cache, artifact)
    table, left = dataset.separate_excluded(select_test_files(asked, artifact, data), cache, data.workers)
    table, warnings = drop_training_overlap(dataset.decode(table, data, cache, left), artifact)
    dataset.say_count(table)
    warnings = (*warnings, *dataset.copies_line(table))
    table, _ = dataset.with_source_classes(table, run.detector)
    if usable(table).empty:
        raise UserError("No file is left to judge: all of them were used in training or chose the epoch. Give others.")
    dataset.say_one_class(usable(table))
    if chain:
        warnings = (*warnings, f"The clips were corrupted before they were judged: {chain}.")
    target.folder.mkdir(parents=True, exist_ok=True)
    predictor = Predictor(artifact, cache.spec, run.detector)
    predicted = score(predictor, table, cache, chain)
    shortcuts = find_shortcuts(table, data)
    rule = run.train.threshold
    others = {"judged": predictor.judged, "threshold_rule": rule, **held_out(artifact)}
    warnings = (*calibration.rule_warnings(rule), *warnings, *predictor.warnings, *dataset.data_warnings(table))
    found = results.write(target, run, table, predicted, predictor.threshold, cache, warnings=warnings, others=others,
                          shortcuts=shortcuts)  # fmt: skip
    console.print(results.summary_line("test", found["test"], rule))
    console.print(results.attribution_line(found["test"]), end="")
    console.print(results.shortcut_line(shortcuts.aucs))
    console.print(f"\nReport  {target.report}")


def held_out(artifact: Artifact) -> dict[str, Any]:
    """The summary of the run's validation files, as its training left it; nothing where that is gone."""
    if not artifact.metrics.exists():
        return {}
    found = files.read_json(artifact.metrics, (), "delete it, and the report lacks only what is said of the validation files.")
    return {"validation": found["validation"]} if found.get("validation") else {}
