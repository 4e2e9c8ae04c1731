"""What a case report says about a run: its files, what it was trained on, and how good it is."""

import json
from typing import Any

import numpy as np
import pandas as pd

from tfdetect import versions
from tfdetect.artifact import Artifact
from tfdetect.detector import describe_detector
from tfdetect.evaluation import seen
from tfdetect.evaluation.calibration import Calibration
from tfdetect.evaluation.metrics import describe_interval
from tfdetect.pages import advice, card, conclusion
from tfdetect.pages.case_content import Model
from tfdetect.pages.content import Report
from tfdetect.verdict_settings import VerdictOverrides
from tfdetect.workflow.case import Judge, hash_files
from tfdetect.workflow.verdicts import settings_key

BINS = 40  # of the histogram of test scores
SAMPLE = ("It was trained on the embedded sample, pictures that are drawn by code: its verdicts on photographs and films mean "
          "nothing.")  # fmt: skip
FACES = "It judges faces only, and nothing else in the picture."
FRAMES = "It judges each frame by itself, so that it sees no motion."
NOT_MEASURED = "Its metrics.json is gone, so that nothing is known about how good it is."


def describe(judge: Judge, given: VerdictOverrides) -> Model:
    """Return what is known about a run that judges with these settings."""
    artifact, fitted = judge.artifact, judge.predictor.calibration
    measured, unfit, caveats = judge_run(artifact)
    scope = [text for text, holds in ((SAMPLE, judge.run.data.path is None), (FACES, judge.run.data.faces != "none"),
                                      (FRAMES, judge.predictor.is_frame_detector)) if holds]  # fmt: skip
    return Model(
        name=versions.title(artifact.folder),
        folder=str(artifact.folder),
        version=str(versions.number(artifact.folder)),
        detector=describe_detector(judge.run.detector),
        scored_with=judge.predictor.scored_with,
        hashes=hash_files(artifact),
        settings=settings_key(artifact, judge.data, given),
        threshold=judge.predictor.threshold,
        inconclusive=fitted.inconclusive,
        prevalence=prevalence_of(fitted),
        calibration=calibration_sentence(fitted),
        training=counts(judge),
        measured=measured,
        unfit=[f"{versions.title(artifact.folder)}: do not use it {text}" for text in unfit],
        caveats=[*scope, *judge.predictor.warnings, *judge.run.detector.warnings(), *caveats],
        card=card.quote(artifact.card.read_text(encoding="utf-8", errors="replace")) if artifact.card.exists() else {},
        histogram=histogram(judge.split("test")),
        doubts=[text for text in scope if text == SAMPLE] + doubts(artifact),
    )


def _read_json(path: Any) -> dict[str, Any]:
    """Return the content of a file of the run; empty if it is gone or damaged."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def prevalence_of(fitted: Calibration) -> float | None:
    """Return the share of fakes where the probabilities hold; None if it is unknown, or validation lacks a class."""
    if not (fitted.reals and fitted.fakes):
        return None
    return fitted.prevalence or fitted.fakes / (fitted.reals + fitted.fakes)


def calibration_sentence(fitted: Calibration) -> str:
    """Return how scores became probabilities."""
    files = "validation files" if fitted.reals is None else f"{fitted.reals} real and {fitted.fakes} fake validation files"
    return f"Scores became probabilities by the method {fitted.method}, fitted to {files}."


def judgement(report: Report) -> tuple[str, list[str], list[str]]:
    """Return how good a run is on its test files, what it is not fit for, and what to be careful about, as its report says it."""
    test = report.metrics["test"]
    auc = "" if test["auc"] is None else f"AUC {test['auc']:.3f} ({describe_interval(test) or 'no interval'})."
    counted = f"Measured on {test['n_real']:,} real and {test['n_fake']:,} fake files."
    parts = (advice.grade(report), seen.sentence(test) or auc, counted,
             advice.against_shortcuts(test, advice.strongest_shortcut(report)))  # fmt: skip
    return " ".join(filter(None, parts)), advice.unfit_uses(report), conclusion.cautions(report.metrics)


def judge_run(artifact: Artifact) -> tuple[str, list[str], list[str]]:
    """Return the same for a stored run; NOT_MEASURED if its metrics.json is gone or damaged, or if it was not tested."""
    try:
        return judgement(Report(artifact.folder.name, _read_json(artifact.metrics), shortcuts=_read_json(artifact.shortcuts)))
    except KeyError:
        return NOT_MEASURED, [], []


def doubts(artifact: Artifact) -> list[str]:
    """Return in a sentence that the test of a run does not show it to be better than chance; none if it does, or was not made."""
    try:
        report = Report(artifact.folder.name, _read_json(artifact.metrics), shortcuts=_read_json(artifact.shortcuts))
        return [] if advice.shows_skill(report) else [advice.grade(report)]
    except KeyError:
        return []


def counts(judge: Judge) -> list[tuple[str, str, str, int]]:
    """Return the number of files of the run's data set by split, class and source."""
    rows = judge.manifest()
    if not {"split", "label", "source"} <= set(rows):
        return []
    rows = rows[rows["error"] == ""] if "error" in rows else rows
    grouped = rows.groupby(["split", "label", "source"]).size()
    order = {"train": 0, "validation": 1, "test": 2}
    keys = sorted(grouped.index, key=lambda key: (order.get(key[0], 3), *key))
    return [(split, {"0": "real", "1": "fake"}.get(label, label), source, int(grouped[split, label, source]))
            for split, label, source in keys]  # fmt: skip


def histogram(files: pd.DataFrame) -> tuple[list[float], list[int], list[int]] | None:
    """Return edges of bins of the score, and the numbers of real and of fake test files in them; None without files."""
    if not len(files):
        return None
    edges = np.histogram_bin_edges(files["score"], BINS)
    reals, fakes = (np.histogram(files.loc[files["label"] == label, "score"], edges)[0].tolist() for label in (0, 1))
    return edges.tolist(), reals, fakes
