"""evaluate --predictions and --model: judge detectors that were not trained here, one by one and combined."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfdetect import config
from tfdetect.artifact import Artifact
from tfdetect.detector import ReportExtras
from tfdetect.errors import UserError
from tfdetect.settings import Data
from tfdetect.workflow import dataset, output_paths
from tfdetect.workflow.console import console, import_keras, plural, print_columns, printable
from tfdetect.workflow.test_files import Evaluate

if TYPE_CHECKING:
    import pandas as pd

    from tfdetect.data.score_table import ScoreTable
    from tfdetect.evaluation.stacking import Floats, Scored

WITHIN, HELD_OUT = "within", "sources held out"
AS_GIVEN = 0.5  # threshold of probabilities that are judged as they are
MAX_LISTED = 20  # files without a score, per detector
TABLE = {"detector": "detector", "n": "files", "failed": "no score", "auc": "AUC", "auc_interval": "95 % interval",
         "accuracy": "accuracy", "recall": "recall", "fpr": "false positive rate", "calibration_error": "ECE"}  # fmt: skip
UNKNOWN = "What these detectors were trained on is not known here: if it was files like these, the results are too good."


def judge(args: Evaluate) -> Artifact:
    """Judge a table of scores, or a function that gives them, and return the folder of the report."""
    target = Artifact(output_paths.judged_folder(args))
    table = read_predictions(args) if args.predictions else run_model(args, target)
    for note in table.notes:
        console.print(printable(note))
    judged = Judged(table, args.columns.as_given)
    write_report(target, judged, args)
    return target


def read_predictions(args: Evaluate) -> "ScoreTable":
    """Return the scores of --predictions."""
    from tfdetect.data import score_table

    columns = args.columns
    given = {role: getattr(columns, role) for role in score_table.ROLES}
    return score_table.read(Path(str(args.predictions)), given, columns.scores, columns.only)


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


def judged_rows(split: "pd.Series") -> "pd.Series":
    """Return which rows are judged: those of the test split if there is one, else all."""
    return split == "test" if (split == "test").any() else split.notna()


@dataclass(frozen=True)
class Judged:
    """The scores of a table, calibrated, thresholded and combined."""

    table: "ScoreTable"
    as_given: bool

    def __post_init__(self) -> None:
        if self.as_given and (others := [name for name in self.table.scores if not self.is_probability(name)]):
            raise UserError(f"--columns.as_given takes scores for probabilities, but those of {others[0]} are not within 0..1.")
        labels = self.rows["label"][~self.validation]
        if labels.nunique() < 2:
            only = "fake" if labels.any() else "real"
            raise UserError(f"All {plural(len(labels), 'file')} to judge are {only}; judging takes real and fake ones. Label 1 "
                            "means fake.")  # fmt: skip

    @cached_property
    def rows(self) -> "pd.DataFrame":
        """The files that are judged or fitted on, without those of train; the index is that of the table."""
        files = self.table.files
        kept = judged_rows(files["split"])
        validation = files["split"] == "validation"
        is_fitted_on = (files["split"] == "test").any() and files["label"][validation].nunique() == 2
        return files[kept | validation] if is_fitted_on else files[kept].assign(split="test")

    @cached_property
    def validation(self) -> "pd.Series":
        """Which of the rows calibration and combination are fitted on, if they are not cross-fitted."""
        return (self.rows["split"] == "validation").to_numpy()

    def files(self, *names: str) -> "Scored":
        """Return the scores of these detectors, by default all, in the form that is calibrated and combined."""
        from tfdetect.evaluation.stacking import Scored

        scores = self.table.scores.loc[self.rows.index, list(names) or slice(None)].to_numpy()
        label, group, source = (self.rows[name].to_numpy() for name in ("label", "group", "source"))
        return Scored(scores, label, group, source, self.validation)

    def is_probability(self, name: str) -> bool:
        """Return whether a detector's scores look like probabilities."""
        from tfdetect.evaluation import stacking

        return stacking.is_probability(self.table.scores.loc[self.rows.index, name].to_numpy())

    @cached_property
    def threshold(self) -> float:
        """Probability from which files are called fake: the share of fakes among those fitted on, by which mistakes on either
        class weigh the same; it takes no score into account, so no score has seen it."""
        fitted = self.rows["label"][self.validation] if self.validation.any() else self.rows["label"]
        return AS_GIVEN if self.as_given or self.table.probability is not None else float(fitted.mean())

    @cached_property
    def detectors(self) -> "dict[str, pd.DataFrame]":
        """The predictions of each detector on the judged files that it scored."""
        from scipy.special import logit

        from tfdetect.evaluation import stacking

        scores, own = self.table.scores, self.table.probability
        given = scores if self.as_given else None if own is None else scores.assign(**dict.fromkeys(scores, own))
        if given is None:
            log_odds = stacking.calibrate_each(self.files())
        else:
            log_odds = logit(given.loc[self.rows.index].clip(2.0**-50, 1 - 2.0**-50).to_numpy())
        return {name: self.predictions(scores.loc[self.rows.index, name].to_numpy(), log_odds[:, number])
                for number, name in enumerate(scores)}  # fmt: skip

    def predictions(self, score: "Floats", log_odds: "Floats") -> "pd.DataFrame":
        """Return the predictions table of the judged rows with a score."""
        from tfdetect.evaluation import stacking

        kept = ~self.validation
        return stacking.to_predictions(self.rows[kept], score[kept], log_odds[kept])

    @cached_property
    def combinations(self) -> "dict[tuple[str, str], pd.DataFrame]":
        """(combination, WITHIN or HELD_OUT) -> its predictions; none for a single detector or where nothing can be fitted."""
        from tfdetect.evaluation import stacking

        if len(self.table.scores.columns) < 2 or self.as_given:
            return {}
        files, out = self.files(), {}
        sources = len(set(files.sources[(files.labels == 1)]))
        for how in (WITHIN, HELD_OUT) if sources > 1 else (WITHIN,):
            for name, log_odds in zip(stacking.COMBINATIONS, stacking.combine(files, how == HELD_OUT).T, strict=True):
                rows = self.predictions(log_odds, log_odds)
                if rows["label"].nunique() == 2:
                    out[name, how] = rows
        return out

    @property
    def main(self) -> "tuple[str, pd.DataFrame]":
        """What the figures of the report show, and its predictions: the only detector, or the stack of several."""
        from tfdetect.evaluation import stacking

        for how in (HELD_OUT, WITHIN):
            if (key := (stacking.STACK, how)) in self.combinations:
                return f"{key[0]} of {plural(len(self.detectors), 'detector')}, {how}", self.combinations[key]
        return next(iter(self.detectors.items()))

    @property
    def protocol(self) -> str:
        """How calibration and threshold came about, in a sentence."""
        names = [name for name in self.detectors if self.is_probability(name)]
        scale = "all scores" if len(names) == len(self.detectors) else f"the scores of {', '.join(names)}" if names else ""
        if self.threshold == AS_GIVEN and (self.as_given or self.table.probability is not None):
            return "The probabilities are judged as they were given: not calibrated, and called fake from 0.5."
        treated = f"; {scale} lie within 0..1 and were taken for probabilities, whose log-odds are calibrated" if scale else ""
        fitted = (f"on {plural(int(self.validation.sum()), 'validation file')}" if self.validation.any()
                  else "by cross-fitting: each file by a fit to other groups")  # fmt: skip
        return (f"Scores were calibrated {fitted}{treated}. Files are called fake from a probability of {self.threshold:.3f}, "
                "the share of fakes, by which mistakes on either class weigh the same.")  # fmt: skip


def write_report(target: Artifact, judged: Judged, args: Evaluate) -> None:
    """Print the results, and write predictions, metrics, plots and the report of the only detector, or of the stack."""
    import_keras()  # quietly; the report's modules need it
    from tfdetect.workflow import results

    name, predictions = judged.main
    tables, metrics = compare(judged)
    warnings = list_warnings(judged, metrics)
    console.print(judged.protocol)
    for warning in warnings:
        console.print(printable(warning))
    print_table(tables["Detectors and combinations"])
    mistakes = list_mistakes(predictions, judged.threshold)
    rule = "as given" if judged.as_given else "share of fakes"
    evaluation = results.Evaluation(
        None, list_files(judged), Data(), predictions, judged.threshold, rule, None, tuple(warnings), {},
        ReportExtras(tables={**tables, **mistakes}, metrics=metrics), title=name, settings=config.settings_to_dict(args),
        origin=f"{judged.protocol} {UNKNOWN}",
    )  # fmt: skip
    results.finish(target, evaluation, {"test": name})


def compare(judged: Judged) -> "tuple[dict[str, pd.DataFrame], dict[str, Any]]":
    """Return the tables of all detectors and combinations, by title, and their metrics for metrics.json."""
    import pandas as pd

    from tfdetect.evaluation.metrics import compute_metrics
    from tfdetect.evaluation.predictions import check

    found = {name: compute_metrics(check(rows), judged.threshold) for name, rows in judged.detectors.items()}
    combined = {key: compute_metrics(check(rows), judged.threshold) for key, rows in judged.combinations.items()}
    total = int((~judged.validation).sum())
    best = sorted(found, key=lambda name: -(found[name]["auc"] or 0))
    rows = [to_row(name, found[name], total) for name in best]
    rows += [to_row(f"{name}, {how}", metrics, total) for (name, how), metrics in combined.items()]
    tables = {"Detectors and combinations": pd.DataFrame(rows)[list(TABLE)].rename(columns=TABLE)}
    if not judged.as_given and (given := as_given_rows(judged, total)):
        tables["As given: called fake from 0.5"] = pd.DataFrame(given)[list(TABLE)].rename(columns=TABLE)
    if failures := list_failures(judged):
        tables["Files without a score"] = pd.DataFrame(failures, columns=["detector", "files", "file", "reason"])
    by_how = {how: {name: metrics for (name, other), metrics in combined.items() if other == how} for _, how in combined}
    return tables, {"detectors": found, **({"combinations": by_how} if by_how else {})}


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
    tables = {name: judged.detectors[name].drop(columns="log_odds", errors="ignore") for name in names}
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
    tables, _ = compare(Judged(table, False))
    return {"Runs and combinations, cross-fitted on these files": tables["Detectors and combinations"]}


def print_table(table: "pd.DataFrame") -> None:
    """Print the table of detectors."""
    from tfdetect.pages import html

    cells = [[str(row[0]), *map(html.format_cell, row[1:])] for row in table.itertuples(index=False)]
    print_columns(list(table), cells, [name for name in table if name != "detector"])
