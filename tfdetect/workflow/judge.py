"""evaluate --predictions and --model: judge detectors that were not trained here, one by one and combined."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfdetect import config
from tfdetect.artifact import Artifact
from tfdetect.data.worker_pool import WorkerFailure
from tfdetect.detector import ReportExtras
from tfdetect.errors import UserError
from tfdetect.settings import Data
from tfdetect.workflow import dataset, output_paths
from tfdetect.workflow.console import console, import_keras, plural, print_columns, printable
from tfdetect.workflow.judged import AS_GIVEN, COVERAGE, HELD_OUT, Judged, judged_rows
from tfdetect.workflow.test_files import Evaluate

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from tfdetect.data.score_table import ScoreTable
    from tfdetect.workflow.judged import Opinion

MAX_LISTED = 20  # files without a score, per detector
FAILURES = "Files without a score"
TABLE = {"detector": "detector", "n": "files", "failed": "no score", "auc": "AUC", "auc_interval": "95 % interval",
         "accuracy": "accuracy", "recall": "recall", "fpr": "false positive rate", "calibration_error": "ECE"}  # fmt: skip
DOUBTS = {"detector": "detector", "inconclusive": "inconclusive", "accuracy_decided": "accuracy of the others",
          "coverage_real": "real files not called fake", "coverage_fake": "fakes not called real"}  # fmt: skip
RARE = {"detector": "detector", "precision": "fake", "precision_interval": "95 % interval"}
PICTURE = 256  # pixels
UNKNOWN = "What these detectors were trained on is not known here: if it was files like these, the results are too good."


def judge(args: Evaluate) -> Artifact:
    """Judge a table of scores, or a function that gives them, and return the folder of the report."""
    target = Artifact(output_paths.judged_folder(args))
    table = read_predictions(args) if args.predictions else run_model(args, target)
    for note in table.notes:
        console.print(printable(note))
    settings = args.evaluate
    coverage = COVERAGE if settings.coverage is None else settings.coverage
    judged = Judged(table, args.columns.as_given, settings.calibration or "auto", coverage, settings.rule or "",
                    args.columns.report)  # fmt: skip
    write_report(target, judged, args)
    return target


def read_predictions(args: Evaluate) -> "ScoreTable":
    """Return the scores of --predictions."""
    from tfdetect.data import score_table

    columns = args.columns
    given = {role: getattr(columns, role) for role in score_table.ROLES}
    return score_table.read(Path(str(args.predictions)), given, columns.scores, columns.only, args.evaluate.aggregate)


def run_model(args: Evaluate, target: Artifact) -> "ScoreTable":
    """Return the scores that --model gives the files of --data.path; those so far are in scores.jsonl."""
    import pandas as pd

    from tfdetect.data import score_table
    from tfdetect.workflow import scored_files

    function = scored_files.ScoringFunction.of(str(args.model))
    named = {name: getattr(args.data, name) for name in ("layout", "sources", "labels", "group")}
    data = replace(Data(), **named, fake=args.data.fake or ("fake",))
    files = dataset.read_manifest(Path(str(args.data.path)), data)
    files = files[judged_rows(files["split"]) | (files["split"] == "validation")].reset_index(drop=True)
    scores, errors = scored_files.score_files(function, list(files["path"]), target.folder / "scores.jsonl", args.data.workers,
                                              args.data.timeout)  # fmt: skip
    if not scores:
        path, error = next(iter(errors.items()))
        raise UserError(f"{function.file} failed on all {plural(len(files), 'file')}; the first: {path}: {error}.")
    name = function.file.stem
    return score_table.ScoreTable(files[list(score_table.ROLES)].assign(frames=1),
                                  pd.DataFrame({name: files["path"].map(scores)}), {name: errors}, None, ())  # fmt: skip


def write_report(target: Artifact, judged: Judged, args: Evaluate) -> None:
    """Print the results, and write predictions, metrics, plots and the report of the only detector, or of the stack."""
    from tfdetect.evaluation import comparison

    name, main = judged.main
    import_keras()  # quietly; the report's modules need it
    from tfdetect.workflow import results

    tables, metrics = compare(judged, args.evaluate.prevalence)
    warnings = list_warnings(judged, metrics)
    console.print(judged.protocol)
    for warning in warnings:
        console.print(printable(warning))
    for title, rows in tables.items():
        if title.startswith(("Detectors", "Verdicts", "AUC", "Where")):
            console.print(f"\n{title}")
            print_table(rows)
    mistakes, pictures = list_mistakes(main.predictions, main.threshold), load_pictures(main, args)
    rule = judged.rule or ("as given" if judged.as_given else "share of fakes")
    evaluation = results.Evaluation(
        None, list_files(judged), Data(), main.predictions, main.threshold, rule, pictures.get, tuple(warnings), {},
        ReportExtras(tables={**tables, **mistakes}, metrics=metrics), title=name, settings=config.settings_to_dict(args),
        origin=f"{judged.protocol} {UNKNOWN}",
    )  # fmt: skip
    results.finish(target, evaluation, {"test": name})
    for row in metrics.get("comparisons", ()):
        console.print(comparison.sentence(row))


def compare(judged: Judged, prevalence: float | None = None) -> "tuple[dict[str, pd.DataFrame], dict[str, Any]]":
    """Return the tables of all detectors and combinations, by title, and their metrics for metrics.json; with `prevalence` also
    what "fake" means where that share of the files is fake."""
    import pandas as pd

    from tfdetect.evaluation import comparison, stacking

    found = {name: measure(opinion, prevalence) for name, opinion in judged.detectors.items()}
    combined = {key: measure(opinion, prevalence) for key, opinion in judged.combinations.items()}
    total = int((~judged.validation).sum())
    best = sorted(found, key=lambda name: -(found[name]["auc"] or 0))
    rows = [to_row(name, found[name], total) for name in best]
    rows += [to_row(f"{name}, {how}", metrics, total) for (name, how), metrics in combined.items()]
    tables = {"Detectors and combinations": pd.DataFrame(rows)[list(TABLE)].rename(columns=TABLE)}
    if doubts := [{**row, **row["verdicts"]} for row in rows if row["verdicts"]]:
        title = f"Verdicts that may be inconclusive, at a coverage of {judged.coverage:g}"
        tables[title] = pd.DataFrame(doubts)[list(DOUBTS)].rename(columns=DOUBTS)
    if rare := [{**row, **row["rare"]} for row in rows if row.get("rare")]:
        title = f"Where {100 * (prevalence or 0):.3g} % of the files are fake, of those called fake"
        tables[title] = pd.DataFrame(rare)[list(RARE)].rename(columns=RARE)
    if not judged.as_given and (given := as_given_rows(judged, total)):
        tables["As given: called fake from 0.5"] = pd.DataFrame(given)[list(TABLE)].rename(columns=TABLE)
    if differences := compare_combinations(judged):
        tables["Differences between combinations, sources held out"] = comparison.table(differences)
    if judged.combinations and len(strict := stacking.strict_aucs(judged.files)):
        title = f"AUC in {plural(len(strict), 'fold')} with the sources of reals held out, too"
        tables[title] = pd.DataFrame({"combination": stacking.COMBINATIONS, "mean": strict.mean(0), "lowest": strict.min(0),
                                      "highest": strict.max(0)})  # fmt: skip
    if failures := list_failures(judged):
        tables[FAILURES] = pd.DataFrame(failures, columns=["detector", "files", "file", "reason"])
    by_how = {how: {name: metrics for (name, other), metrics in combined.items() if other == how} for _, how in combined}
    return tables, {"detectors": found, **({"combinations": by_how, "comparisons": differences} if by_how else {})}


def compare_combinations(judged: Judged) -> list[dict[str, Any]]:
    """Return whether combinations with sources held out differ by more than chance; [] if no source could be held out."""
    from tfdetect.evaluation import comparison

    opinions = {name: opinion.predictions for (name, how), opinion in judged.combinations.items() if how == HELD_OUT}
    if not opinions:
        return []
    rows = next(iter(opinions.values()))
    return comparison.compare(rows["label"], rows["group"], {name: each["score"] for name, each in opinions.items()})


def measure(opinion: "Opinion", prevalence: float | None = None) -> dict[str, Any]:
    """Return the metrics of a detector or combination, with `verdicts`: the share that is inconclusive, the accuracy of the
    others, and the share of each class that is not called the other; and with a prevalence `rare`: `precision`, the share of
    files called fake that are fake where that share of all files is, and its interval."""
    from tfdetect.evaluation.metrics import compute_metrics
    from tfdetect.evaluation.predictions import check

    found, verdicts = compute_metrics(check(opinion.predictions), opinion.threshold), None
    if prevalence is not None and "probability" in opinion.predictions:
        found["rare"] = rare_fakes(opinion, prevalence)
    if (given := opinion.verdicts) is not None:
        label = opinion.predictions["label"].to_numpy()
        decided = given != "inconclusive"
        right = (given == "fake") == (label == 1)
        verdicts = {"inconclusive": float(1 - decided.mean()),
                    "accuracy_decided": float(right[decided].mean()) if decided.any() else None,
                    **{f"coverage_{name}": float((given[label == kind] != other).mean())
                       for kind, name, other in ((0, "real", "fake"), (1, "fake", "real"))}}  # fmt: skip
    return {**found, "verdicts": verdicts}


def rare_fakes(opinion: "Opinion", prevalence: float) -> dict[str, Any]:
    """Return what "fake" means where this share of the files is fake: prevalence, precision and precision_interval."""
    from tfdetect.evaluation.clusters import precision_interval

    rows, verdicts = opinion.predictions, opinion.verdicts
    called = (rows["probability"] >= opinion.threshold).to_numpy() if verdicts is None else verdicts == "fake"
    kinds = [(rows["label"] == kind).to_numpy() for kind in (0, 1)]
    hits, groups = (tuple(values[kind] for kind in kinds) for values in (called, rows["group"].to_numpy()))
    precision, interval = precision_interval(hits, groups, prevalence)
    return {"prevalence": prevalence, "precision": precision, "precision_interval": interval}


def load_pictures(main: "Opinion", args: Evaluate) -> "dict[str, NDArray[Any]]":
    """Return a small picture (1, height, width, 3) uint8 of each of the most confident mistakes whose file is here.

    They are decoded in another process, since a file may crash its decoder.
    """
    from tfdetect.data.worker_pool import map_unordered
    from tfdetect.evaluation.predictions import worst_mistakes

    if "probability" not in main.predictions:
        return {}
    paths = [path for path in worst_mistakes(main.predictions, main.threshold)["path"] if Path(path).is_file()]
    found = map_unordered(paths, read_picture, args.data.workers, Data().timeout)
    return {path: frames for path, frames in found if not isinstance(frames, WorkerFailure)}


def read_picture(path: str) -> "NDArray[Any] | WorkerFailure":
    """Return the middle frame of a file, its longer side at most PICTURE pixels."""
    from tfdetect.data.media.frames import padded_shape, resize_to
    from tfdetect.data.media.read import read_media
    from tfdetect.data.media.sniff import MediaError, failure_reason

    try:
        frame = read_media(path).frames[0]
    except (MediaError, OSError) as error:
        return WorkerFailure(failure_reason(error))
    height, width = frame.shape[:2]
    return resize_to(frame, *padded_shape(height, width, min(PICTURE, max(height, width))))[None]


def to_row(name: str, metrics: Mapping[str, Any], total: int) -> dict[str, Any]:
    """Return a row of the table of detectors."""
    passed = metrics["per_class"]["real"]["recall"]
    return {**metrics, "detector": name, "failed": total - metrics["n"], "recall": metrics["per_class"]["fake"]["recall"],
            "fpr": None if passed is None else 1 - passed}  # fmt: skip


def as_given_rows(judged: Judged, total: int) -> list[dict[str, Any]]:
    """Return the rows of the detectors whose scores look like probabilities, uncalibrated."""
    from tfdetect.evaluation.metrics import compute_metrics
    from tfdetect.evaluation.predictions import check

    names = [name for name in judged.detectors if judged.is_probability(name)]
    tables = {name: judged.detectors[name].predictions.drop(columns="log_odds", errors="ignore") for name in names}
    return [to_row(name, compute_metrics(check(rows.assign(probability=rows["score"])), AS_GIVEN), total)
            for name, rows in tables.items()]  # fmt: skip


def list_failures(judged: Judged) -> list[tuple[str, int, str, str]]:
    """Return (detector, number of files, file, reason) for the first MAX_LISTED judged files that a detector has no score of."""
    paths, out = judged.rows["path"][~judged.validation], []
    for name, reasons in judged.table.reasons.items():
        failed = [(path, reasons[path]) for path in paths if path in reasons]
        out += [(name, len(failed), path, reason) for path, reason in failed[:MAX_LISTED]]
    return out


def list_mistakes(predictions: "pd.DataFrame", threshold: float) -> "dict[str, pd.DataFrame]":
    """Return a table of the most confident mistakes, by its title; none without probabilities."""
    from tfdetect.evaluation.predictions import worst_mistakes

    if "probability" not in predictions:
        return {}
    rows = worst_mistakes(predictions, threshold)
    rows = rows.assign(label=rows["label"].map({0: "real", 1: "fake"}))
    return {"Most confident mistakes": rows[["path", "label", "source", "probability"]]} if len(rows) else {}


def list_files(judged: Judged) -> "pd.DataFrame":
    """Return the manifest of all files as the report takes it: those without any score have an error."""
    scored = judged.table.scores.loc[judged.rows.index].notna().any(axis=1)
    reasons = next(iter(judged.table.reasons.values()), {})
    errors = ["" if known else reasons.get(path, "no score") for path, known in zip(judged.rows["path"], scored, strict=True)]
    return judged.rows.drop(columns="frames").assign(error=errors, note="", sha="").reset_index(drop=True)


def list_warnings(judged: Judged, metrics: Mapping[str, Any]) -> list[str]:
    """Return what makes the results worth less."""
    out = [] if judged.as_given or len(judged.detectors) < 2 else combination_warnings(metrics)
    for name, found in metrics["detectors"].items():
        if (interval := found["auc_interval"]) and interval[1] < 0.5:
            out.append(f"{name} ranks real files above fakes (AUC {found['auc']:.3f}): perhaps its score or the label means "
                       "real.")  # fmt: skip
        if found["n"] and found["accuracy"] is None:
            out.append(f"{name} could not be calibrated: too few groups of files in a class. Only its ranking is judged.")
    for name, reasons in judged.table.reasons.items():
        if failed := sum(path in reasons for path in judged.rows["path"]):
            out.append(f"{name} has no score for {failed:,} of {plural(len(judged.rows), 'file')}; they do not count for it.")
    return out


def combination_warnings(metrics: Mapping[str, Any]) -> list[str]:
    """Return what keeps several detectors from being combined."""
    if "combinations" not in metrics:
        return ["The detectors could not be combined: too few groups of files in a class."]
    if HELD_OUT not in metrics["combinations"]:
        return ["No source could be held out, since all fakes are of one source: the combinations are judged on the source that "
                "they were fitted on. A column source tells generators apart."]
    return []


def compare_runs(files: "Mapping[str, pd.DataFrame]") -> "dict[str, pd.DataFrame]":
    """Return, by its title, the table of runs and their combinations, from their predictions of the same files, one row a file.

    Unlike the report of the mean, it is cross-fitted on these files. There is none where a class is missing.
    """
    import pandas as pd

    from tfdetect.data.score_table import ROLES, ScoreTable

    first = next(iter(files.values())).assign(frames=1)
    if len(files) < 2 or first["label"].nunique() < 2:
        return {}
    scores = pd.DataFrame({name: rows["log_odds"].to_numpy() for name, rows in files.items()})
    table = ScoreTable(first[[*ROLES, "frames"]].reset_index(drop=True), scores, {}, None, ())
    tables, _ = compare(Judged(table))
    return {"Runs and combinations, cross-fitted on these files": tables["Detectors and combinations"]}


def print_table(table: "pd.DataFrame") -> None:
    """Print the table of detectors."""
    from html import unescape

    from tfdetect.pages.html import format_cell

    cells = [[unescape(format_cell(cell)) for cell in row] for row in table.itertuples(index=False)]
    print_columns(list(table), cells, [name for name in table if name != "detector"])
