"""A run that is about to score files other than those of its training: how it reads them, and what makes verdicts of scores."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tfdetect.artifact import Artifact
from tfdetect.evaluation.calibration import Calibration
from tfdetect.settings import Data, Run
from tfdetect.workflow import dataset, operating_point, overlap
from tfdetect.workflow.test_files import Evaluate

if TYPE_CHECKING:
    from tfdetect.data.prepare.clip_cache import Cache
    from tfdetect.serving.predictor import Predictor


@dataclass(frozen=True)
class JudgingRun:
    """A run, with its data settings and cache for the files to score."""

    artifact: Artifact
    run: Run
    data: Data
    cache: "Cache"
    aggregate: str
    calibration: Calibration
    """Its own, or what is given fitted to its validation files again."""

    @classmethod
    def of(cls, args: Evaluate, artifact: Artifact, run: Run) -> "JudgingRun":
        """Return the run as these settings of `evaluate` have it."""
        data = dataset.for_other_files(args.data.apply_to(run.data), args.data.path, args.data.fake)
        cache = dataset.evaluation_cache(data, run.detector, artifact)
        aggregate = args.evaluate.aggregate_for(run.evaluate, run.data.faces)
        fitted = operating_point.calibration_of(artifact, args.evaluate, aggregate)
        return cls(artifact, run, data, cache, aggregate, fitted)

    @property
    def comparable_calibration(self) -> Calibration:
        """The same with probabilities for the share of fakes in its validation, for all runs alike."""
        return self.calibration.with_prevalence(None)

    @property
    def training_files(self) -> overlap.Trained:
        """What must not be scored."""
        return overlap.Trained(self.artifact, self.run, self.cache)

    def predictor(self) -> "Predictor":
        """Return what scores the files."""
        return operating_point.judged_predictor(self.artifact, self.cache.spec, self.run.detector, self.aggregate,
                                                self.calibration)  # fmt: skip
