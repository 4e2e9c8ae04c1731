"""What the report of a run says, whatever it is written as."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tfdetect.pages.adaptation import Adaptation
from tfdetect.pages.learnt import Learnt
from tfdetect.pages.robustness import Robustness

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class HeatMap:
    """What drives the score of a misjudged file."""

    image: NDArray[np.uint8]  # (height, width, 3) RGB: a frame with the map over it
    method: str  # a key of `explanation.METHOD_NOTES`
    check: str  # what hiding the hottest part changes, in words


@dataclass(frozen=True)
class Report:
    """Content of a report. Only `name` and `metrics` are required; sections without content are left out."""

    name: str  # of the run
    metrics: Mapping[str, Mapping[str, Any]]  # {"validation": ..., "test": ...}, each from `metrics.summarise`
    detector: str = ""  # its name and a one-line description
    warnings: Sequence[str] = ()  # shown before everything else, such as a backbone without pretrained weights
    figures: Mapping[str, Figure | Path] = field(default_factory=dict)  # from `standard.standard` and `standard.history`
    # (path, label 0/1, source, probability 0..1, uint8 RGB image (height, width, 3)); see `predictions.worst_mistakes`
    mistakes: Sequence[tuple[str, int, str, float, NDArray[np.uint8]]] = ()
    data: pd.DataFrame | None = None  # one row per file of all splits: split, label 0/1, source, group
    failures: Sequence[tuple[str, str]] = ()  # (path, reason) of files that could not be read or scored
    notes: Sequence[tuple[str, str]] = ()  # (path, remark) of files that were used despite a problem, such as damage
    shortcuts: Mapping[str, float] = field(default_factory=dict)  # test AUC of each simple file property, and of "all"
    suspects: Sequence[tuple[str, float]] = ()  # (property, AUC) of those significantly above chance, highest first
    leaks: Sequence[tuple[str, str]] = ()  # (what was looked for between splits, what was found)
    heat_maps: Mapping[str, HeatMap] = field(default_factory=dict)  # of some of the mistakes, by path
    learnt: Learnt | None = None  # what altered test files and the neighbours of mistakes say
    adaptation: Adaptation | None = None  # what changed against the version before
    robustness: Robustness | None = None  # metrics and verdicts after corruptions of the files
    extra_figures: Mapping[str, Figure | Path] = field(default_factory=dict)  # detector-specific, by title
    extra_tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)  # detector-specific, by title
    command: str = ""  # the exact command that repeats the run
    settings: Mapping[str, Any] = field(default_factory=dict)  # nested as in config.yaml
    versions: Mapping[str, str] = field(default_factory=dict)  # software versions by package
    machine: Mapping[str, str] = field(default_factory=dict)  # operating system, memory, devices
    epochs: tuple[int, int] | None = None  # (the one whose weights were kept, the last one) of the training, from 1
    origin: str = ""  # of a detector that was not trained here: what is known, and how calibration and threshold came about
