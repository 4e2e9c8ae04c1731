"""What train, evaluate and fine-tuning share: the scores of a run's files, and all that a report says of them."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from tfdetect.data.input_pipeline.corruptions import CorruptionChain
from tfdetect.data.prepare.clip_cache import Cache
from tfdetect.detector import Detector, FeatureTable, ReportContext
from tfdetect.evaluation import predictions
from tfdetect.pandas_settings import pd
from tfdetect.serving.predictor import Predictor
from tfdetect.settings import Data, Run
from tfdetect.training.feature_extractor import FeatureExtractor
from tfdetect.workflow import familiarity, quick_maps, results, scoring, stress
from tfdetect.workflow.console import feature_progress

if TYPE_CHECKING:
    import keras


def feature_extractor(load_model: "Callable[[], keras.Model]", detector: Detector, cache: Cache) -> FeatureExtractor | None:
    """Return what computes and stores the features of a detector's frozen part; None for those trained end to end."""
    return FeatureExtractor(load_model(), detector, cache, feature_progress) if detector.caches_features else None


def score(predictor: Predictor, table: pd.DataFrame, detector: Detector, cache: Cache, features: FeatureTable | None = None,
          chain: CorruptionChain | None = None) -> pd.DataFrame:  # fmt: skip
    """Return the predictions of the usable files of a prepared table, from their `features` where there are any, else from their
    clips after the corruptions of `chain`."""
    if features:
        return familiarity.score_features(predictor, features, table, detector, cache)
    return scoring.score(predictor, table, cache, chain)


def describe(run: Run, data: Data, table: pd.DataFrame, cache: Cache, predictor: Predictor, context: ReportContext,
             stressed: int | None, extractor: FeatureExtractor | None) -> results.Evaluation:  # fmt: skip
    """Return what `results.finish` writes about the validation and test files scored in `context`; `stressed` says how many test
    files `stress.plan_study` alters."""
    scored = context.predictions
    return results.Evaluation(
        run,
        table,
        data,
        scored[scored["split"].isin(predictions.SPLITS)].reset_index(drop=True),
        predictor.threshold,
        run.threshold_rule,
        context.load_clip,
        metrics={"scored_with": predictor.scored_with},
        extras=results.report_extras(run.detector, context, predictor),
        history=context.history,
        best_epoch=context.best_epoch,
        cache=cache,
        study=stress.plan_study(stressed, run, data, context, predictor, cache, extractor),
        familiarity=predictor.familiarity,
        make_map=quick_maps.map_maker(predictor, run.detector),
    )
