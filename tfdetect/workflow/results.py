"""Score with the exported model, and write down how good it is: predictions, metrics, plots, report."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from tfdetect import __version__, config, files
from tfdetect.artifact import Artifact
from tfdetect.data.audit import shortcuts as audit_shortcuts
from tfdetect.data.prepare.clip_cache import Cache
from tfdetect.data.prepare.decode import problems, usable
from tfdetect.evaluation import calibration, cross_source, metrics, predictions
from tfdetect.pages import report
from tfdetect.plots import standard
from tfdetect.settings import Run

PACKAGES = ("tensorflow", "keras", "numpy", "opencv-python", "opencv-python-headless", "av", "decord", "scikit-learn")


@dataclass(frozen=True)
class ReportExtras:
    """What a kind of detector adds to its report and metrics."""

    figures: Mapping[str, Figure] = field(default_factory=dict)
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


NOTHING = ReportExtras()


def write(folder: Artifact, run: Run, table: pd.DataFrame, predicted: pd.DataFrame, threshold: float, cache: Cache,
          history: pd.DataFrame | None = None, best_epoch: int | None = None, warnings: tuple[str, ...] = (),
          others: Mapping[str, Any] | None = None, shortcuts: audit_shortcuts.Shortcuts | None = None,
          about: Mapping[str, Any] | None = None,
          tables: Callable[[Artifact], Mapping[str, pd.DataFrame]] | None = None, own: ReportExtras = NOTHING) -> dict[str, Any]:
    """predictions.csv, metrics.json, plots/ and report.html into `folder`, and of a test across sources two more; the metrics.

    `table` is the prepared manifest of all files; `predicted` the scores of those that are judged. `others` goes into the
    metrics besides, `threshold_rule` always, and such as the summaries of splits that are not judged here; `shortcuts` is what
    `find_shortcuts` found, `about` holds parts of the report that are not to be those of `run`; `tables` makes more tables of
    what is in the folder by then.
    """
    with files.atomic(folder.predictions) as temporary:
        predictions.write(predicted, temporary)
    parts = {name: predicted[predicted["split"] == name] for name in predictions.SPLITS}
    judged = {name: metrics.summarise(rows, threshold) for name, rows in parts.items() if len(rows)}
    found = {**(others or {}), **own.facts, **judged}
    files.write_json(folder.metrics, found)
    if run.data.test_sources:
        write_final(folder, run, predicted, threshold, found)
    figures = draw(folder, predicted, threshold, history, best_epoch, shortcuts)
    page = report.Report(
        name=folder.folder.name,
        metrics={name: found[name] for name in predictions.SPLITS if name in found},
        detector=f"{run.detector.name}: {(type(run.detector).__doc__ or '').splitlines()[0]}",
        warnings=(*run.detector.warnings(), *own.warnings, *warnings),
        figures=figures,
        mistakes=list(most_wrong_frames(predicted, threshold, table, cache)),
        data=usable(table),
        failures=problems(table, "error"),
        notes=problems(table, "note"),
        shortcuts=shortcuts.aucs if shortcuts else {},
        suspects=[(warning.property, warning.auc) for warning in shortcuts.warned] if shortcuts else [],
        extra_figures=standard.save_plots(folder.plots, own.figures),
        extra_tables={**(tables(folder) if tables else {}), **own.tables},
        command=command(),
        settings=config.tree(run),
        versions=versions(),
    )
    with files.atomic(folder.report) as temporary:
        report.write(temporary, replace(page, **(about or {})))
    return found


def draw(folder: Artifact, predicted: pd.DataFrame, threshold: float, history: pd.DataFrame | None, best_epoch: int | None,
         shortcuts: audit_shortcuts.Shortcuts | None) -> dict[str, Path]:
    """The report's figures in plots/, by name: the standard ones, and of training and shortcuts where there are
    such, whose numbers are kept, too."""
    figures = standard.standard(predicted, threshold)
    if history is not None and len(history):
        figures["history"] = standard.history(history, best_epoch)
    if shortcuts and shortcuts.aucs:
        figures["shortcuts"] = standard.shortcuts(shortcuts.aucs, audit_shortcuts.SUSPECT, audit_shortcuts.FATAL)
        files.write_json(folder.shortcuts, shortcuts.aucs)
    return standard.save_plots(folder.plots, figures)


def write_final(folder: Artifact, run: Run, predicted: pd.DataFrame, threshold: float, found: Mapping[str, Any]) -> None:
    """Results.csv and Final_Prediction.txt."""
    with files.atomic(folder.results) as temporary:
        cross_source.verdict_table(predicted, threshold).to_csv(temporary, index=False, errors="surrogateescape")
    said = cross_source.summary_text(folder.folder.name, run.data.train_sources, predicted, found["test"])
    said += "".join(f"{warning}\n" for warning in calibration.rule_warnings(found["threshold_rule"]))
    files.write_bytes(folder.final, said.encode(errors="surrogateescape"))


def most_wrong_frames(predicted: pd.DataFrame, threshold: float, table: pd.DataFrame,
             cache: Cache) -> Iterator[tuple[str, int, str, float, np.ndarray]]:
    """The most wrong test files, each with its middle frame."""
    shas = dict(zip(table["path"], table["sha"], strict=True))
    wrong = predictions.worst_mistakes(predicted[predicted["split"] == "test"], threshold)
    for row in wrong.itertuples():
        clip = cache.load(shas[row.path])
        yield row.path, row.label, row.source, row.probability, np.array(clip[len(clip) // 2])


def versions() -> dict[str, str]:
    """Of this suite, Python, and those of PACKAGES that are installed."""
    found = {"tfdetect": __version__, "python": sys.version.split()[0]}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def command() -> str:
    """What was typed."""
    program = Path(sys.argv[0])
    name = f"python scripts/{program.name}" if program.suffix == ".py" else program.name
    return " ".join(map(files.quoted, [*name.split(), *sys.argv[1:]]))


def summary_line(name: str, found: Mapping[str, Any], rule: str = "") -> str:
    """A split's result in a line; that of the test says so where the threshold's rule has seen it."""
    low, high = found["auc_interval"] or (None, None)
    interval = "" if low is None else f" (95 % interval {low:.3f} to {high:.3f})"
    auc = "none, one class only" if found["auc"] is None else f"{found['auc']:.3f}"
    accuracy = "none" if found["accuracy"] is None else f"{found['accuracy']:.3f}"
    seen = f"; {calibration.TEST_SEEN_NOTE}" if name != "validation" and calibration.is_pooled(rule) else ""
    return f"{name}: AUC {auc}{interval}, accuracy {accuracy}, {found['n_real']:,} real and {found['n_fake']:,} fake files{seen}"


def attribution_line(found: Mapping[str, Any]) -> str:
    """How often the source of a fake is named right, a line of its own; nothing for a detector that names none."""
    if not (told := found.get("attribution")):
        return ""
    share = "none" if told["accuracy"] is None else f"{told['accuracy']:.3f}"
    return f"source of the {told['n']} fakes: accuracy {share} among {len(told['classes'])}\n"


def shortcut_line(aucs: Mapping[str, float]) -> str:
    """What cheap properties alone would get, beside the detector's result."""
    if not aucs:
        return "shortcuts: not measured, the files or their groups are too few or not at hand"
    best = max(aucs, key=lambda name: aucs[name])
    return f"shortcuts: AUC {aucs['all']:.3f} by cheap properties of the files alone, at most {aucs[best]:.3f} (by {best})"
