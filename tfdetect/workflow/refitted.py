"""calibrate: what is familiar, fitted again to files of one's own."""

from dataclasses import dataclass
from typing import Any

import pandas as pd
from numpy.typing import NDArray

from tfdetect import models
from tfdetect.artifact import Artifact
from tfdetect.data.prepare.clip_cache import Cache
from tfdetect.data.prepare.decode import usable_rows
from tfdetect.evaluation import adaptation, familiarity
from tfdetect.evaluation.familiarity import DEFAULT_LEVEL, Familiarity
from tfdetect.models.vectors import content_layer
from tfdetect.settings import Run
from tfdetect.workflow.adaptation import load_familiarity
from tfdetect.workflow.familiarity import vectors
from tfdetect.workflow.run_evaluation import feature_extractor


@dataclass(frozen=True, eq=False)
class Known:
    """What a version knows of the files that are like those it was fitted to."""

    familiarity: Familiarity | None
    is_new: bool = False
    """Whether it was fitted again; else it is that of the version before."""
    marks: NDArray[Any] | None = None
    """Which of the files fitted to are unlike those of other groups, (files,) bool; None if they are too few to tell."""
    notes: tuple[str, ...] = ()


def refit(before: Artifact, run: Run, table: pd.DataFrame, cache: Cache) -> Known:
    """Fit what is familiar to the usable rows of a prepared table; with too few groups by default, keep that of the version
    before."""
    old, level = load_familiarity(before), run.evaluate.unfamiliar
    if level == 0:
        return Known(None, is_new=True)
    wanted = level or (old.level if old else DEFAULT_LEVEL)
    rows = usable_rows(table)
    if missing := familiarity.missing_files(rows["group"].nunique(), wanted):
        kept = "What is familiar stays that of the version before" if old else "No file is marked as unlike the training data"
        return Known(old, notes=(f"{kept}: {missing}",))
    model = models.load(before.model)
    layer = old.layer if old else content_layer(model, run.detector)
    extractor = feature_extractor(lambda: model, run.detector, cache)
    found, _ = vectors(model, run.detector, rows.assign(split="validation"), cache, layer, extractor)
    return Known(familiarity.fit(layer, found, level=wanted), True, adaptation.cross_fitted_marks(found, wanted))
