"""evaluate with several runs: score the same files with each run, and with the mean of their probabilities."""

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from tfdetect import artifact as artifacts
from tfdetect import config, versions
from tfdetect.artifact import Artifact
from tfdetect.detector import ReportExtras
from tfdetect.errors import UserError
from tfdetect.verdict_settings import VerdictOverrides
from tfdetect.workflow import dataset, judge, operating_point, output_paths, overlap, seen
from tfdetect.workflow.console import console, import_keras, plural
from tfdetect.workflow.judging_run import JudgingRun
from tfdetect.workflow.seen import TrainingSources
from tfdetect.workflow.test_files import Evaluate, other_aggregate_warning

if TYPE_CHECKING:
    import pandas as pd

    from tfdetect.data.input_pipeline.corruptions import CorruptionChain
    from tfdetect.evaluation.calibration import Calibration


PRINTED = 10  # differences between runs; the report has all
DIFFERENCES = "Differences between runs: bootstrap over groups, the same for all, and DeLong's test, each pair by itself"


def evaluate(args: Evaluate) -> Artifact:
    """Read the files, decode them for each run, drop those that any run was trained on, score, average, write the report;
    return its folder."""
    members = load_members(args)
    import_keras()
    from tfdetect.data.input_pipeline import corruptions
    from tfdetect.data.prepare.decode import usable_rows

    chain = corruptions.parse(args.data.corrupt)
    target = Artifact(output_paths.evaluation_folder(args, [*members], chain.slug if chain else ""))
    table, warnings = read_test_files(args, members)
    first = next(iter(members.values()))
    table, excluded = dataset.separate_excluded(table, first.cache, first.data.workers)
    decoded = {name: decode(name, table, member, excluded) for name, member in members.items()}
    trained = [member.training_files for member in members.values()]
    table, left_out = overlap.leave_out(merge_tables(decoded), trained, target.folder, args.overlap, args.data.path)
    dataset.print_count(table)
    good = usable_rows(table)["path"]
    if good.empty:
        raise UserError("No file is left to evaluate: each was used to train one of the runs, or cannot be read by one of them. "
                        "Give other files.")  # fmt: skip
    scored = {name: score_member(member, decoded[name], good, chain) for name, member in members.items()}
    corrupted = (f"The clips were corrupted before they were scored: {chain}.",) if chain else ()
    training = {name: seen.of_run(member.artifact, member.run, args.data.path) for name, member in members.items()}
    write_report(target, members, table, scored, training, (*warnings, *left_out, *corrupted), args.evaluate)
    return target


def load_members(args: Evaluate) -> dict[str, JudgingRun]:
    """Return the runs by unique names. Raises UserError if a run is given twice, or if they read class folders differently."""
    from tfdetect.evaluation import ensemble

    folders = [path.resolve() for path in args.runs]
    repeated = [str(path) for number, path in enumerate(args.runs) if folders[number] in folders[:number]]
    if repeated:
        raise UserError(f"{repeated[0]} was given twice; an ensemble takes different runs.")
    found = [artifacts.find(path, trust=args.trust) for path in args.runs]
    runs = [artifacts.load_config(artifact) for artifact in found]
    if args.data.path and not args.data.fake and len({run.data.fake for run in runs}) > 1:
        raise UserError("The runs were trained with different --data.fake; name the fake class folders with --data.fake.")
    members = [JudgingRun.of(args, artifact, run) for artifact, run in zip(found, runs, strict=True)]
    return dict(zip(ensemble.unique_names([versions.name(artifact.folder) for artifact in found]), members, strict=True))


def read_test_files(args: Evaluate, members: Mapping[str, JudgingRun]) -> "tuple[pd.DataFrame, tuple[str, ...]]":
    """Return the manifest of the files to score, those asked for or the common test files, and warnings about their choice."""
    from tfdetect.data.layouts import detect
    from tfdetect.workflow import test_files

    if args.data.path is None:
        table, warnings = common_test_files({name: member.artifact for name, member in members.items()})
        return detect.select_sources(table, args.data.sources), warnings
    first = next(iter(members.values()))
    return test_files.select_test_files(args, first.artifact, first.data), ()


def common_test_files(runs: Mapping[str, Artifact]) -> "tuple[pd.DataFrame, tuple[str, ...]]":
    """Return the first run's test files whose content is in the test of every run, and a warning if that excludes some.

    Raises UserError if there are none, or if the runs label one of them differently.
    """
    tests = identify_test_files(runs)
    pairs = [set(zip(rows["content"], rows["label"], strict=True)) for rows in tests.values()]
    common = set.intersection(*(set(rows["content"]) for rows in tests.values()))
    if not common:
        raise UserError("These runs have no test file in common; give files to evaluate with --data.path.")
    conflicting = {content for other in pairs for content, _ in other ^ pairs[0]} & common
    if conflicting:
        raise UserError(f"The runs disagree on the labels of {plural(len(conflicting), 'test file')}; give files to evaluate "
                        "with --data.path.")  # fmt: skip
    table = next(iter(tests.values()))
    table = table[table["content"].isin(common)].drop(columns="content").reset_index(drop=True)
    sizes = " and ".join(f"{len(rows)} of {name}" for name, rows in tests.items())
    text = f"{plural(len(table), 'test file')} {'is' if len(table) == 1 else 'are'} common to all runs ({sizes})."
    console.print(text)
    all_common = all(rows["content"].isin(common).all() for rows in tests.values())
    return table, () if all_common else (f"{text} Only these are evaluated.",)


def identify_test_files(runs: Mapping[str, Artifact]) -> "dict[str, pd.DataFrame]":
    """Return each run's test files, with the hash of their content in the column `content`."""
    from tfdetect.data import manifest

    raw = {name: manifest.read_unchecked(run.manifest) for name, run in runs.items()}
    hashes = {name: dict(zip(rows["path"], rows["sha"], strict=True)) for name, rows in raw.items()}
    # A file that one run could not open has no hash there; another run may have hashed the same path.
    any_hash = {path: sha for by_path in hashes.values() for path, sha in by_path.items() if sha}
    tests = {name: manifest.validate(rows[rows["split"] == "test"], str(runs[name].manifest)) for name, rows in raw.items()}
    return {name: rows.assign(content=[hashes[name][path] or any_hash.get(path, path) for path in rows["path"]])
            for name, rows in tests.items()}  # fmt: skip


def decode(name: str, table: "pd.DataFrame", member: JudgingRun, excluded: "pd.DataFrame") -> "pd.DataFrame":
    """Return the manifest as decoded for this run."""
    console.print(f"{name}:")
    return dataset.decode(table, member.data, member.cache, excluded)


def merge_tables(decoded: "Mapping[str, pd.DataFrame]") -> "pd.DataFrame":
    """Return the first run's manifest, in which a file that any run could not read is a failure."""
    merged = next(iter(decoded.values())).copy()
    for column in ("error", "note"):
        texts = zip(*(table[column] for table in decoded.values()), strict=True)
        merged[column] = [merge_texts(dict(zip(decoded, row, strict=True))) for row in texts]
    shas = zip(*(table["sha"] for table in decoded.values()), strict=True)
    merged["sha"] = [next(filter(None, row), "") for row in shas]
    return merged


def merge_texts(texts: Mapping[str, str]) -> str:
    """Return the text of all runs about a file; where they differ, each with the run's name."""
    if len(set(texts.values())) == 1:
        return next(iter(texts.values()))
    return "; ".join(f"{name}: {text}" for name, text in texts.items() if text)


def score_member(member: JudgingRun, table: "pd.DataFrame", paths: Iterable[str],
                 chain: "CorruptionChain | None") -> "tuple[pd.DataFrame, float]":
    """Return a run's predictions of these files, corrupted by `chain`, and its threshold; print the predictor's warnings."""
    from tfdetect.workflow.scoring import score

    predictor = member.predictor()
    rows, _ = dataset.add_source_classes(table[table["path"].isin(set(paths))], member.run.detector)
    for warning in predictor.warnings:
        console.print(warning)
    return score(predictor, rows, member.cache, chain), predictor.threshold


def write_report(target: Artifact, members: Mapping[str, JudgingRun], table: "pd.DataFrame",
                 scored: "Mapping[str, tuple[pd.DataFrame, float]]", training: Mapping[str, TrainingSources],
                 warnings: tuple[str, ...], given: VerdictOverrides) -> None:  # fmt: skip
    """Write the report of the mean into `target`, and print the results of the mean and of each run; `given` changes how its
    threshold and band are fitted."""
    from tfdetect.evaluation import calibration, comparison, ensemble, metrics
    from tfdetect.workflow import results
    from tfdetect.workflow.scoring import clip_loader

    first = next(iter(members.values()))
    validation = ensemble.average({name: validation_predictions(member) for name, member in members.items()}, by=["path"])
    fitted, rule, no_threshold = fit_mean(validation, members, given)
    threshold = fitted.with_prevalence(None).threshold if fitted else 0.5
    mean = ensemble.average(scored_rows := {name: rows for name, (rows, _) in scored.items()})
    summaries = {name: summarise_member(members[name], training[name], *found) for name, found in scored.items()}
    compared = comparison.compare(mean["label"], mean["group"], ensemble.file_scores(scored_rows) | {"mean": mean["score"]})
    extra_metrics = {"members": summaries, "comparisons": compared}
    if not no_threshold:
        extra_metrics["validation"] = metrics.summarise(validation, threshold)
    warnings = (*warnings, *(f"{name}: {text}" for name, member in members.items()
                             for text in other_aggregate_warning(member.aggregate, member.run)))  # fmt: skip
    rules = {name: member.run.threshold_rule for name, member in members.items()}
    pooled = [f"{name}: {warning}" for name, rule in rules.items() for warning in calibration.rule_warnings(rule)]
    tables = {"Runs of this ensemble": ensemble.comparison_table({**summaries, "mean": metrics.summarise(mean, threshold)}),
              **({DIFFERENCES: comparison.table(compared)} if compared else {}),
              **judge.compare_runs(ensemble.align(scored_rows))}  # fmt: skip
    for name, summary in summaries.items():
        console.print(results.summary_line(name, summary, rules[name]))
    evaluation = results.Evaluation(
        first.run, table, first.data, mean, threshold, rule,
        clip_loader(table, first.cache), (*pooled, *warnings, *no_threshold), extra_metrics,
        ReportExtras(tables=tables),
        training=seen.of_any(training.values()),
        title=f"the mean probability of {', '.join(members)}",
        settings={name: config.run_to_dict(member.run) for name, member in members.items()},
        calibration=fitted,
    )  # fmt: skip
    results.finish(target, evaluation, {"test": "mean"})
    for row in compared[:PRINTED]:
        console.print(comparison.sentence(row))


def summarise_member(member: JudgingRun, training: TrainingSources, rows: "pd.DataFrame", threshold: float) -> dict[str, Any]:
    """Return what `evaluate` writes about the test files of a run by itself."""
    from tfdetect.evaluation import metrics
    from tfdetect.evaluation.familiarity import Familiarity
    from tfdetect.evaluation.verdicts import verdict_metrics

    found, stored = metrics.summarise(rows, threshold), member.artifact.familiarity
    seen.add_metrics(found, rows, training)
    known = Familiarity.load(stored) if stored.exists() else None
    return {**found, "verdicts": verdict_metrics(rows, member.calibration, known)}


def validation_predictions(member: JudgingRun) -> "pd.DataFrame":
    """Return the run's predictions of its validation files, one row per content; the column `path` holds the content's hash."""
    from tfdetect.data import manifest
    from tfdetect.evaluation import predictions

    rows = manifest.read_unchecked(member.artifact.manifest)
    shas = dict(zip(rows["path"], rows["sha"], strict=True))
    frames, own = predictions.read(member.artifact.predictions), [predictions.AGGREGATE, predictions.FILE_LOG_ODDS]
    frames = frames[frames["split"] == "validation"].drop(columns=own, errors="ignore")
    frames = predictions.with_aggregate(frames, member.aggregate)
    files = predictions.by_file(predictions.add_probabilities(frames, member.comparable_calibration))
    return files.assign(path=[shas.get(path, path) for path in absolute_paths(list(files["path"]), shas)]).drop_duplicates("path")


def absolute_paths(paths: list[str], known_paths: Iterable[str]) -> list[str]:
    """Return the paths of a run's predictions.csv, which may be relative to where it was trained, as its manifest has them."""
    relative = [path for path in paths if not os.path.isabs(path)]
    if not relative:
        return paths
    known, longest = set(known_paths), max(relative, key=len)
    roots = [path.removesuffix(longest) for path in known if path.endswith(f"/{longest}")]
    root = next((root for root in roots if all(root + path in known for path in relative)), "")
    return [path if os.path.isabs(path) else root + path for path in paths]


def fit_mean(validation: "pd.DataFrame", members: Mapping[str, JudgingRun],
             given: VerdictOverrides) -> "tuple[Calibration | None, str, tuple[str, ...]]":  # fmt: skip
    """Return how the mean probability becomes a verdict, fitted to the validation files that all runs have in common, the rule
    for its threshold, and a warning if these files lack a class, so that there is neither.

    The coverage of its band is by default that of the runs, if they have the same. Raises UserError if the files are too few for
    what is given.
    """
    from tfdetect.evaluation import ensemble

    rule = given.rule or "youden"
    if validation["label"].nunique() < 2:
        lacking = f"The runs have {plural(len(validation), 'validation file')} in common, and these lack a class."
        if given.coverage or given.prevalence is not None or given.rule:
            raise UserError(f"{lacking} The mean of the runs needs both for --evaluate.coverage, .prevalence and .fpr.")
        return None, "none, 0.5", (f"{lacking} The threshold of the mean is therefore 0.5 and not fitted to data.",)
    try:
        operating_point.check(validation, None, given.coverage, given.prevalence, rule)
    except UserError as error:
        raise UserError(f"For the mean, on the validation files that the runs have in common: {error}") from error
    bands = [member.calibration.band for member in members.values()]
    levels = {band.coverage if band else None for band in bands}
    coverage = given.coverage if given.coverage is not None else levels.pop() if len(levels) == 1 else None
    fitted = ensemble.fit_verdicts(validation, rule, coverage, given.prevalence)
    return fitted, rule, operating_point.rate_note(fitted, rule) if fitted else ()
