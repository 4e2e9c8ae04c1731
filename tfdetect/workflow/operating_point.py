"""The calibration, threshold and band of a run: as it has them, or fitted to its validation files again with other settings."""

from typing import TYPE_CHECKING

import numpy as np

from tfdetect.artifact import Artifact, load_calibration, load_config
from tfdetect.detector import Detector
from tfdetect.errors import UserError
from tfdetect.evaluation import calibration, familiarity
from tfdetect.evaluation.aggregation import face_rule, frame_rule
from tfdetect.evaluation.calibration import Calibration
from tfdetect.settings import Run
from tfdetect.verdict_settings import VerdictOverrides

if TYPE_CHECKING:
    import keras
    import pandas as pd

    from tfdetect.data.prepare.clip_cache import Cache, ClipSpec
    from tfdetect.serving.predictor import Predictor
    from tfdetect.training.feature_extractor import FeatureExtractor

DEFAULT_COVERAGE = 0.9


def calibration_of(artifact: Artifact, given: VerdictOverrides, aggregate: str | None = None) -> Calibration:
    """Return the calibration of a run, with what is `given` fitted to the validation files in its predictions.csv.

    `aggregate` says how the scores of frames become those of files, by default as in training; for another way than that, all is
    fitted again. Raises UserError if the files are gone, or too few or of one class where the settings need more.
    """
    stored, run = load_calibration(artifact), load_config(artifact) if aggregate else None
    is_other = run is not None and is_other_aggregate(aggregate or "", run) and not calibration.is_pooled(run.train.threshold)
    if not given.refits and not is_other:
        return stored
    files = validation_files(artifact, aggregate)
    check(files, given.calibration, given.coverage, given.prevalence, given.rule or "")
    if run is not None and is_other:
        asked = given.apply_to(run.evaluate)
        coverage = DEFAULT_COVERAGE if asked.coverage is None else asked.coverage
        return calibration.fit(files["score"], files["label"], given.rule or run.threshold_rule, asked.calibration,
                               files["group"], coverage, asked.prevalence)  # fmt: skip
    return calibration.refit(stored, files["score"], files["label"], files["group"], given.calibration, given.rule or "",
                             given.coverage, given.prevalence)  # fmt: skip


def fit(model: "keras.Model", table: "pd.DataFrame", cache: "Cache", run: Run,
        extractor: "FeatureExtractor | None" = None) -> Calibration:  # fmt: skip
    """Fit probability, threshold and band on the validation scores of the saved and reloaded model. Only the threshold rules that
    are reserved for recipes read the test scores."""
    files, rule, asked = score_files(model, table, "validation", cache, run, extractor), run.threshold_rule, run.evaluate
    coverage = DEFAULT_COVERAGE if asked.coverage is None else asked.coverage
    pooled = calibration.is_pooled(rule)
    fitted = calibration.fit(files["score"], files["label"], "youden" if pooled else rule, asked.calibration, files["group"],
                             coverage)  # fmt: skip
    if pooled:
        test = score_files(model, table, "test", cache, run, extractor)
        fitted = calibration.pool_threshold(fitted, test["score"], rule)
    return fitted.with_prevalence(asked.prevalence)


def score_files(model: "keras.Model", table: "pd.DataFrame", split: str, cache: "Cache", run: Run,
                extractor: "FeatureExtractor | None" = None) -> "pd.DataFrame":  # fmt: skip
    """Return label, group and score of the files of a split, by the reloaded model itself: nothing is exported yet."""
    from tfdetect.data.input_pipeline.dataset import expand_frames
    from tfdetect.evaluation import predictions
    from tfdetect.training.fit import predict_scores, select_split

    rows = select_split(table, split)
    frames = expand_frames(rows, run.detector.input_kind == "frame")
    scores = predict_scores(model, rows, cache, run.detector, run.train.batch, extractor)
    return predictions.file_scores(predictions.with_aggregate(frames.assign(score=scores), run.evaluate.aggregate))


def is_other_aggregate(rule: str, run: Run) -> bool:
    """Return whether a rule combines the frames or faces of a file in another way than the run does; clips have no frames."""
    frames, faces = ([part(each) for each in (rule, run.evaluate.aggregate)] for part in (frame_rule, face_rule))
    return (run.detector.input_kind == "frame" and len({*frames}) > 1) or (run.data.faces == "all" and len({*faces}) > 1)


def judged_predictor(artifact: Artifact, spec: "ClipSpec", detector: Detector, aggregate: str,
                     fitted: Calibration) -> "Predictor":  # fmt: skip
    """Return the predictor whose figures go into a report: those of the test files with their own share of fakes, whatever share
    of them --evaluate.prevalence gives."""
    from tfdetect.serving.predictor import Predictor

    return Predictor(artifact, spec, detector, aggregate=aggregate, calibration=fitted.with_prevalence(None))


def validation_files(artifact: Artifact, aggregate: str | None = None) -> "pd.DataFrame":
    """Return label, group and score of the run's validation files. Raises UserError if its predictions.csv is gone."""
    from tfdetect.evaluation import predictions

    if not artifact.predictions.exists():
        raise UserError(f"{artifact.folder} has no predictions.csv, whose validation scores --evaluate.* needs: copy it again.")
    table = predictions.read(artifact.predictions)
    if (files := table[table["split"] == "validation"]).empty:
        raise UserError(f"{artifact.predictions} holds no validation files, which --evaluate.* needs: train the run again.")
    if aggregate:
        files = predictions.with_aggregate(files.drop(columns=predictions.AGGREGATE, errors="ignore"), aggregate)
    return predictions.file_scores(files)


def check(files: "pd.DataFrame", method: str | None, coverage: float | None, prevalence: float | None, rule: str,
          unfamiliar: float | None = None) -> None:  # fmt: skip
    """Raise UserError if validation, with the columns label and group, is too small for what was asked for."""
    label, groups = files["label"].to_numpy(), files["group"].to_numpy()
    calibration.check_rule(rule, label)
    calibration.require_both_classes(label, method, prevalence)
    if coverage and (missing := calibration.missing_files(label, coverage, groups)):
        raise UserError(f"--evaluate.coverage {coverage:g} is out of reach. {missing} Lower it, or add files.")
    if unfamiliar and (missing := familiarity.missing_files(len(np.unique(groups)), unfamiliar)):
        raise UserError(f"--evaluate.unfamiliar {unfamiliar:g} is out of reach. {missing} Raise it, or add files.")


def notes(fitted: Calibration, files: "pd.DataFrame", coverage: float | None, rule: str) -> tuple[str, ...]:
    """Return sentences on what the validation files among these, with the columns split, label and group, were too few for."""
    rows, missing = files[files["split"] == "validation"], ""
    if coverage is None and fitted.band is None:
        missing = calibration.missing_files(rows["label"].to_numpy(), DEFAULT_COVERAGE, rows["group"].to_numpy())
    return (*([f"Every file is called real or fake, none inconclusive: {missing}"] if missing else []), *rate_note(fitted, rule))


def rate_note(fitted: Calibration, rule: str) -> tuple[str, ...]:
    """Return a sentence if the rule asks for a lower false positive rate than the real validation files can show."""
    name, _, share = rule.partition(":")
    if name != "fpr" or not fitted.reals or not 0 < float(share) * fitted.reals < 1:
        return ()
    return (f"A false positive rate of {float(share):g} cannot be set on {fitted.reals} real validation files: the threshold "
            f"lies above all of them. It takes at least {1 / float(share):,.0f}.",)  # fmt: skip
