"""The last steps of train, evaluate and ensembles: metrics, figures and the report of scored files, and lines about them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tfdetect import config, files, installation, versions
from tfdetect.artifact import Artifact
from tfdetect.data.audit import shortcuts as audit
from tfdetect.data.prepare.clip_cache import Cache
from tfdetect.data.prepare.decode import list_messages, usable_rows
from tfdetect.detector import Detector, ReportContext, ReportExtras, describe_detector
from tfdetect.errors import UserError
from tfdetect.evaluation import aggregation, calibration, cross_source, metrics, predictions
from tfdetect.evaluation.calibration import Calibration
from tfdetect.evaluation.familiarity import Familiarity
from tfdetect.evaluation.seen import sentence as seen_sentence
from tfdetect.evaluation.verdicts import verdict_metrics
from tfdetect.pages import card, markdown, report
from tfdetect.pages.adaptation import Adaptation
from tfdetect.pages.learnt import Learnt
from tfdetect.pages.robustness import Robustness
from tfdetect.pages.verdicts import precision_sentence, unfamiliar_sentence
from tfdetect.plots import robustness as robustness_plots
from tfdetect.plots import standard
from tfdetect.serving.predictor import Predictor
from tfdetect.settings import Data, Run
from tfdetect.split_settings import AUTO, NONE
from tfdetect.workflow import (
    dataset,
    environment,
    feature_report,
    leaks,
    made_fakes,
    mistakes,
    reconstruction_report,
    seen,
)
from tfdetect.workflow.console import console, plural, printable
from tfdetect.workflow.scoring import find_shortcuts
from tfdetect.workflow.seen import TrainingSources

Tables = Callable[[Artifact], Mapping[str, pd.DataFrame]]  # makes tables for the report from predictions.csv and metrics.json
BeforeReport = Callable[[Mapping[str, Any], Mapping[str, Path]], None]  # gets the metrics, and the extra figures as drawn


@dataclass(frozen=True)
class Evaluation:
    """Scored files, and what their report says besides the metrics."""

    run: Run | None
    """None for detectors of other origin, which are only judged."""
    table: pd.DataFrame
    """The prepared manifest of all files, failures included."""
    data: Data
    """The data settings that these files were read with."""
    predictions: pd.DataFrame
    """Scores and probabilities of the validation and test files, or of the test files alone."""
    threshold: float
    threshold_rule: str
    load_clip: Callable[..., np.ndarray | None] | None
    """Path of a file, and with all faces the number of one -> uint8 clip (frames, height, width, 3), None if it is not here."""
    warnings: tuple[str, ...] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)
    """Added to metrics.json, such as the summaries of splits that were evaluated before."""
    extras: ReportExtras = field(default_factory=ReportExtras)
    history: pd.DataFrame | None = None
    best_epoch: int | None = None
    cache: Cache | None = None
    """Of the files' clips, which knows the properties of the files as well; None if they are to be measured again."""
    study: Callable[[audit.Shortcuts], Learnt] | None = None
    """Finds out what the detector learnt, given the shortcuts of its files; None leaves that out."""
    robustness: Robustness | None = None
    """What became of the verdicts after corruptions of the files; None leaves that out."""
    adaptation: Adaptation | None = None
    """What changed against the version before; None for a run that was not adapted."""
    name: str = ""
    """Heads the report; by default the name of the run, or of the folder of results."""
    title: str = ""
    """What was evaluated; by default the detector and the first line of its docstring."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Shown in the report; by default those of `run`."""
    origin: str = ""
    """Without a run: what is known about its training, and how calibration and threshold came about."""
    training: TrainingSources | None = None
    """The sources of the fakes that it was trained on; None if they are not known."""
    calibration: Calibration | None = None
    """What gives verdicts, which may be inconclusive; None for detectors of other origin and if there is only a threshold."""
    familiarity: Familiarity | None = None
    """What says which files are unlike the training data, if the run knows that."""
    any_file: bool = False
    """Whether the verdicts on these count, too."""
    make_map: mistakes.MapMaker | None = None
    """Makes heat-maps of mistakes; None leaves them out."""


def report_extras(detector: Detector, context: ReportContext, predictor: Predictor) -> ReportExtras:
    """Return what the detector's capabilities, and then the detector itself, add to the report."""
    own = detector.report_extras(context)
    if not isinstance(own, ReportExtras):
        raise UserError(f"{detector.name}: report_extras must return ReportExtras, got {type(own).__name__}.")
    shared = feature_report.report_extras(detector, context, predictor) | reconstruction_report.report_extras(detector, context)
    return shared | own


def finish(target: Artifact, evaluation: Evaluation, lines: Mapping[str, str], tables: Tables | None = None,
           before_report: BeforeReport | None = None) -> None:
    """Write everything about the evaluation into `target`, and print the results.

    `lines` maps the splits whose results are printed to the names they are printed under. `before_report` is called with the
    metrics and the paths of the extra figures when all but the report has been written.
    """
    shortcuts = find_shortcuts(evaluation.table, evaluation.data, evaluation.cache)
    learnt = evaluation.study(shortcuts) if evaluation.study else Learnt()
    found = write(target, evaluation, shortcuts, learnt, tables, before_report)
    for split, name in lines.items():
        console.print(summary_line(name, found[split], evaluation.threshold_rule))
    if said := seen_sentence(found["test"]):
        console.print(printable(said))
    console.print(verdict_line(found["test"].get("verdicts")), end="")
    console.print(attribution_line(found["test"]), end="")
    console.print(shortcut_line(shortcuts))
    console.print(stress_line(learnt), end="")
    for warning in learnt.warnings:
        console.print(warning)


def write(target: Artifact, evaluation: Evaluation, shortcuts: audit.Shortcuts, learnt: Learnt, tables: Tables | None = None,
          before_report: BeforeReport | None = None) -> dict[str, Any]:
    """Write predictions.csv, metrics.json, plots/, report.md and report.html, in the folder of a run its model card, and
    for a test across sources Results.csv and Final_Prediction.txt; return the metrics."""
    run, extras = evaluation.run, evaluation.extras
    target.folder.mkdir(parents=True, exist_ok=True)
    with files.atomic_write(target.predictions) as temporary:
        predictions.write(evaluation.predictions, temporary)
    found = measure(evaluation, learnt)
    found["test"]["shortcut_intervals"] = shortcuts.intervals
    files.write_json(target.metrics, found)
    if run and run.data.test_sources:
        write_final(target, evaluation, run, found)
    figures = save_figures(target, evaluation, shortcuts, learnt)
    drawn = standard.save_plots(target.plots, extras.figures, figures.values())
    own_tables = {str(name): table for name, table in extras.tables.items()}
    page = replace(describe(target, evaluation, shortcuts, learnt), figures=figures, extra_figures=drawn,
                   metrics={name: found[name] for name in predictions.SPLITS if name in found},
                   extra_tables={**(tables(target) if tables else {}), **own_tables})  # fmt: skip
    if before_report:
        before_report(found, drawn)
    if target.config.exists():  # the folder of a run
        with files.atomic_write(target.card) as temporary:
            card.write(temporary, page)
    with files.atomic_write(target.report_text) as temporary:
        markdown.write(temporary, page)
    with files.atomic_write(target.report) as temporary:  # last: a run with a report counts as finished
        report.write(temporary, page)
    return found


def measure(evaluation: Evaluation, learnt: Learnt) -> dict[str, Any]:
    """Return the content of metrics.json."""
    splits = {name: rows for name, rows in evaluation.predictions.groupby("split") if name in predictions.SPLITS}
    added = {name: value for name, value in json_values(evaluation.extras.metrics).items() if name not in predictions.SPLITS}
    found = {**added, "threshold_rule": evaluation.threshold_rule, **evaluation.metrics, **learnt.metrics,
             **(evaluation.robustness.metrics if evaluation.robustness else {}),
             **(evaluation.adaptation.metrics if evaluation.adaptation else {}),
             **{name: metrics.summarise(rows, evaluation.threshold) for name, rows in splits.items()}}  # fmt: skip
    seen.add_metrics(found["test"], splits["test"], evaluation.training)
    if evaluation.calibration:
        found["test"]["verdicts"] = verdict_metrics(splits["test"], evaluation.calibration, evaluation.familiarity,
                                                    evaluation.any_file)  # fmt: skip
    return found


def describe(target: Artifact, evaluation: Evaluation, shortcuts: audit.Shortcuts, learnt: Learnt) -> report.Report:
    """Return the report, without its metrics, figures and tables."""
    run = evaluation.run
    mistaken, heat_maps = mistakes.most_wrong(evaluation.predictions, evaluation.threshold, evaluation.load_clip,
                                               evaluation.make_map)  # fmt: skip
    return report.Report(
        name=evaluation.name or versions.title(target.folder),
        metrics={},
        detector=evaluation.title or (describe_detector(run.detector) if run else ""),
        warnings=(*all_warnings(evaluation), *learnt.warnings),
        mistakes=mistaken,
        data=usable_rows(evaluation.table),
        heat_maps=heat_maps,
        failures=list_messages(evaluation.table, "error"),
        notes=list_messages(evaluation.table, "note"),
        shortcuts=shortcuts.aucs,
        suspects=[(warning.property, warning.auc) for warning in shortcuts.warnings],
        leaks=leaks.find(evaluation.table),
        learnt=learnt,
        robustness=evaluation.robustness,
        adaptation=evaluation.adaptation,
        command=installation.command_line(),
        settings=evaluation.settings or (config.run_to_dict(run) if run else {}),
        versions=installation.versions(),
        machine=environment.describe(run.train.precision if run else ""),
        epochs=kept_and_last_epoch(evaluation),
        origin=evaluation.origin,
    )


def kept_and_last_epoch(evaluation: Evaluation) -> tuple[int, int] | None:
    """Return the epoch whose weights were kept and the last one; None without a training by epochs."""
    if evaluation.history is None or not len(evaluation.history) or not evaluation.best_epoch:
        return None
    return evaluation.best_epoch, int(evaluation.history["epoch"].max())


def json_values(value: Any) -> Any:
    """Return metrics as JSON has them: NumPy values as plain numbers and lists, NaN and infinities as None."""
    if isinstance(value, Mapping):
        return {str(key): json_values(item) for key, item in value.items()}
    value = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
    if isinstance(value, list | tuple):
        return [json_values(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def all_warnings(evaluation: Evaluation) -> tuple[str, ...]:
    """Return the warnings of the detector, its extras, the threshold, this evaluation and the data set."""
    own = evaluation.run.detector.warnings() if evaluation.run else ()
    return (*own, *evaluation.extras.warnings,
            *calibration.rule_warnings(evaluation.threshold_rule), *evaluation.warnings,
            *faces_note(evaluation.predictions), *made_fakes.warning(evaluation.table), *dataset.copies_warning(evaluation.table),
            *dataset.data_warnings(evaluation.table))  # fmt: skip


def faces_note(table: pd.DataFrame) -> tuple[str, ...]:
    """Return what the score of a file with several faces is; nothing for predictions without faces."""
    if "face" not in table:
        return ()
    rule = aggregation.describe(predictions.aggregate_of(table), True)
    return ("Each face of a file is scored (--data.faces all); training used the largest of each file. The score of a file is "
            f"{rule}. A label is that of the file: which of its faces is fake is not known.",)  # fmt: skip


def save_figures(target: Artifact, evaluation: Evaluation, shortcuts: audit.Shortcuts, learnt: Learnt) -> dict[str, Path]:
    """Write the report's own figures to plots/, and shortcuts.json; return the figures' paths by name."""
    figures = standard.standard(evaluation.predictions, evaluation.threshold)
    if evaluation.history is not None and len(evaluation.history):
        figures["history"] = standard.history(evaluation.history, evaluation.best_epoch)
    if shortcuts.aucs:
        figures["shortcuts"] = standard.shortcuts(shortcuts.aucs, audit.WARNING_AUC, audit.SEVERE_AUC, shortcuts.intervals)
        files.write_json(target.shortcuts, shortcuts.aucs)
    if learnt.stress:
        figures["stress"] = standard.stress(learnt.stress, shortcuts.aucs.get("all"))
    if evaluation.robustness:
        figures["robustness"] = robustness_plots.robustness(evaluation.robustness.table.iloc[1:])
    return standard.save_plots(target.plots, figures)


def write_final(target: Artifact, evaluation: Evaluation, run: Run, found: Mapping[str, Any]) -> None:
    """Write Results.csv and Final_Prediction.txt."""
    with files.atomic_write(target.results) as temporary:
        rows = cross_source.verdict_table(evaluation.predictions, evaluation.threshold)
        rows.to_csv(temporary, index=False, errors="surrogateescape")
    held_out = ", ".join(run.data.hold_out) if run.data.hold_out[0] not in (AUTO, NONE) else ""
    trained_on = run.data.train_sources or ((f"all sources but {held_out}",) if held_out else ())
    text = cross_source.summary_text(target.folder.name, trained_on, evaluation.predictions, found["test"])
    text += "".join(f"{warning}\n" for warning in calibration.rule_warnings(evaluation.threshold_rule))
    files.write_bytes(target.final_prediction, text.encode(errors="surrogateescape"))


def summary_line(name: str, found: Mapping[str, Any], rule: str = "") -> str:
    """Return the result of a split on one line; that of the test says if the threshold was chosen on it."""
    interval = f" ({text})" if (text := metrics.describe_interval(found)) else ""
    auc = "none, one class only" if found["auc"] is None else f"{found['auc']:.3f}"
    accuracy = "none" if found["accuracy"] is None else f"{found['accuracy']:.3f}"
    seen = f"; {calibration.TEST_SEEN_NOTE}" if name != "validation" and calibration.is_pooled(rule) else ""
    return f"{name}: AUC {auc}{interval}, accuracy {accuracy}, {found['n_real']:,} real and {found['n_fake']:,} fake files{seen}"


def verdict_line(found: Mapping[str, Any] | None) -> str:
    """Return lines on how many test files of each class are inconclusive, or called the other, and on what fake means where fakes
    are rare, and on how many are unlike the training data; "" without a band and without knowing that."""
    if not found:
        return ""
    unfamiliar = f"{unfamiliar_sentence(found['unfamiliar'])}\n" if found["unfamiliar"] else ""
    if found["level"] is None:
        return unfamiliar
    rows = [f"of the {name} files {100 * row['inconclusive']:.1f} % inconclusive and {100 * row['wrong']:.1f} % called {other}"
            for (name, row), other in zip(found["by_class"].items(), ("fake", "real"), strict=True) if row["n"]]  # fmt: skip
    precise = f"{said}\n" if (said := precision_sentence(found)) else ""
    return f"verdicts at a coverage of {found['level']:g}: {', '.join(rows)}\n{precise}{unfamiliar}"


def attribution_line(found: Mapping[str, Any]) -> str:
    """Return the accuracy of naming the source of a fake, on a line; "" for a detector that names none."""
    if not (attribution := found.get("attribution")):
        return ""
    accuracy = "none" if attribution["accuracy"] is None else f"{attribution['accuracy']:.3f}"
    return f"source of the {attribution['n']} fakes: accuracy {accuracy} among {len(attribution['classes'])} classes\n"


def stress_line(learnt: Learnt) -> str:
    """Return the AUC after each corruption, on a line; "" if none was measured."""
    if not learnt.stress:
        return ""
    aucs = ", ".join(f"{standard.STRESS_NAMES[key]} {row['auc']:.3f}" for key, row in learnt.stress.items())
    return f"AUC of {plural(learnt.stress[standard.UNCHANGED]['n'], 'test file')}: {aucs}\n"


def shortcut_line(found: audit.Shortcuts) -> str:
    """Return what cheap properties of the files alone reach, to be read beside the detector's result."""
    if not (aucs := found.aucs):
        return "shortcuts: not measured, too few files or groups, or files unavailable"
    best = max(aucs, key=lambda name: aucs[name])
    single = "" if best == "all" else f"; the best single one: {standard.property_name(best)}, {aucs[best]:.3f}"
    text = metrics.describe_interval({"auc_interval": found.intervals.get("all")})
    interval = f" ({text})" if text else ""
    return f"shortcuts: file size, format and the like alone reach AUC {aucs['all']:.3f}{interval}{single}"
