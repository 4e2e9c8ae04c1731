"""The contract of a detector: a frozen dataclass in one file of `models/detectors/`, whose fields are its hyper-parameters.

Each field is a command-line flag and a key of the YAML, and its docstring is the help text. Everything that the rest of the suite
may ask of a detector is declared here, with a type and a default. This module imports neither Keras nor TensorFlow, so `--help`
is fast.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self, TypeVar

from tfdetect.errors import UserError, suggestion

if TYPE_CHECKING:
    import keras
    import numpy as np
    import pandas as pd
    from matplotlib.figure import Figure

REGISTRY: dict[str, type[Detector]] = {}


@dataclass(frozen=True)
class Phase:
    """One phase of the training."""

    epochs: int | None = None
    """Number of epochs; None trains to the end."""
    learning_rate_factor: float = 1.0
    """Multiplier on --train.learning_rate."""
    prepare: Callable[[keras.Model], None] | None = None
    """Sets which layers of the model are trainable in this phase."""


@dataclass(frozen=True)
class FeatureTable:
    """Features of files, computed once by the frozen part of a model: one row per view of a frame, or of a clip for clip
    detectors."""

    features: np.ndarray
    """(rows, n) float32, the outputs of the layer `features`."""
    labels: np.ndarray
    """(rows,) int64, 0 real and 1 fake."""
    texts: Sequence[str] = ()
    """The text of each row; empty strings where the manifest has none."""
    paths: Sequence[str] = ()
    """The file of each row."""
    sources: Sequence[str] = ()
    """The source of each row: generator, manipulation or camera set."""


class GradientFit(Protocol):
    """Fits `model` on features by gradient descent with the run's settings and leaves the weights of the best epoch in it."""

    def __call__(self, model: keras.Model, x: np.ndarray, y: np.ndarray, validation_x: np.ndarray, validation_y: np.ndarray,
                 loss: keras.losses.Loss | None = None) -> None: ...  # fmt: skip


@dataclass(frozen=True)
class FeatureFitContext:
    """What `Detector.fit_head` is given."""

    train: FeatureTable
    validation: FeatureTable
    """Files of both classes, even for one-class detectors: they choose the epoch, and nothing is trained on them."""
    fit_by_gradient: GradientFit
    seed: int = 0


@dataclass(frozen=True)
class ReportContext:
    """A run whose files have been scored, as `Detector.report_extras` sees it."""

    load_model: Callable[[], keras.Model]
    predictions: pd.DataFrame
    """Scores and probabilities of the validation and test files, with the columns of predictions.csv; those of the training
    files too, if they were scored from stored features."""
    threshold: float
    """Probability from which a file is called fake."""
    files: pd.DataFrame
    """The prepared manifest of all files that could be decoded, with the columns path, label, split, group and source."""
    load_clip: Callable[..., np.ndarray]
    """Path of a file, and with --data.faces all the number of a face -> uint8 clip (frames, height, width, 3), RGB 0..255."""
    history: pd.DataFrame | None = None
    """One row per epoch; None if the run was not trained just now."""
    best_epoch: int | None = None
    validation_scores: Mapping[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    """Labels and scores (files,) of the validation files, by epoch."""
    features: FeatureTable | None = None
    """Stored features of `files`, one row per frame, for clip detectors one per file, if they were scored from features."""

    @cached_property
    def model(self) -> keras.Model:
        """The saved model, reloaded when it is first asked for."""
        return self.load_model()


@dataclass(frozen=True)
class ReportExtras:
    """Named figures and tables that are added to the report, to plots/ and to TensorBoard, in this order."""

    figures: Mapping[str, Figure] = field(default_factory=dict)
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)
    """Added to metrics.json."""

    def __post_init__(self) -> None:
        if isinstance(self.warnings, str):
            raise TypeError("ReportExtras.warnings is a tuple of texts, not a single text.")

    def __or__(self, other: ReportExtras) -> ReportExtras:
        return ReportExtras({**self.figures, **other.figures}, {**self.tables, **other.tables},
                            (*self.warnings, *other.warnings), {**self.metrics, **other.metrics})  # fmt: skip


@dataclass(frozen=True)
class Detector(ABC):
    """Subclass it, add fields with docstrings, decorate with `@register("name")` and write `build`.

    Everything else has a default. Properties may be overridden by fields of the same name, which makes them flags.
    """

    name: ClassVar[str]
    """The sub-command; set by `register`."""
    input_kind: ClassVar[Literal["frame", "clip"]] = "frame"
    """A frame detector scores single frames, and a video by the mean of its frames; a clip detector scores whole clips."""
    trains_on: ClassVar[Literal["both", "real"]] = "both"
    """The files that train it: both classes, or real files only (one-class detectors)."""
    default_overrides: ClassVar[Mapping[str, Any]] = {}
    """The detector's own defaults for the run, such as {"data.size": 256}: `tfdetect train NAME` without flags must work well."""
    min_size: ClassVar[int] = 16
    """Minimum width and height of a frame in pixels."""
    reconstructs: ClassVar[bool] = False
    """Whether it is an autoencoder: its model has a layer `picture`, the normalised input, and a layer `reconstruction` with the
    outputs [normalised input, reconstruction, latent mean, and for a variational one the latent log variance]."""

    heat_map: ClassVar[Literal["error", "gradcam", "integrated_gradients", "occlusion"]] = "occlusion"
    """The method of `explain` by default; for those of the suite the one that found forgeries best, see docs/explain.md."""

    # Training

    @property
    def caches_features(self) -> bool:
        """Whether everything before the layer `features` is frozen. Its outputs are then computed once per file and stored, and
        `fit_head` fits the rest on them."""
        return False

    @property
    def feature_dtype(self) -> Literal["float32", "float16"]:
        """Data type of the features on disk."""
        return "float32"

    @property
    def views(self) -> int:
        """Number of views of each training frame whose features are stored; all but the first are augmented."""
        return 1

    @property
    def supports_focal_loss(self) -> bool:
        """Whether it is trained by gradient descent on a loss of the score, which `--train.balance focal` can weight."""
        return self.trains_on == "both"

    def phases(self) -> tuple[Phase, ...]:
        """The training phases in order, such as the head alone and then all layers; one by default."""
        return (Phase(),)

    def losses(self) -> Any:
        """Return what `keras.Model.compile` takes as loss: by default binary cross-entropy on the score as a logit; None for a
        model whose layers add their own losses."""
        import keras

        return keras.losses.BinaryCrossentropy(from_logits=True)

    def fit_head(self, model: keras.Model, context: FeatureFitContext) -> keras.Model:
        """Return the trained model with the same inputs as `model`, which `build` made; for detectors that cache features."""
        raise NotImplementedError(f"{self.name} caches features and has no `fit_head`.")

    # Pretrained weights

    @property
    def initial_weights(self) -> str | None:
        """Name of the initial weights, for reports; "none" for random weights, and None if the detector has no such
        setting."""
        return None

    @property
    def offline_overrides(self) -> Mapping[str, Any]:
        """Field values that let it run without pretrained weights, such as {"weights": "none"}, to try out a recipe."""
        return {}

    def require(self) -> str | None:
        """Find or download what `build` needs besides the data, such as pretrained weights, before any work is done.

        Returns a sentence that the user should read, if any. Raises UserError if it is not available.
        """
        return None

    def resolve_runs(self, find_model: Callable[[str], str]) -> Self:
        """Return the detector with names of other runs in its fields replaced by paths of their .keras files; `find_model` maps
        one to the other, and such a path to itself."""
        return self

    # Attribution and texts

    @property
    def attribute(self) -> Literal["none", "source", "family"]:
        """Whether it also predicts the source of a fake, or its family of sources."""
        return "none"

    @property
    def families(self) -> tuple[str, ...]:
        """The family of each source, as SOURCE=FAMILY; sources not listed take the manifest's column `family`."""
        return ()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the sources or families that it predicts besides the score; see `build`."""
        return ()

    def with_classes(self, classes: tuple[str, ...]) -> Self:
        """Return the detector for these sources or families, which were found in the training files."""
        raise NotImplementedError(f"{self.name} has `attribute` and no `with_classes`.")

    @property
    def text_template(self) -> str | None:
        """Text for a file without one, filled in from its column `category`, such as "a photo of a {category}"; None if the
        detector uses no texts."""
        return None

    # The model and its report

    @property
    def content_layer(self) -> str | None:
        """Path of the layer whose output, averaged over positions and frames, says what a clip shows, such as
        "frames/frame_network/conv2d_1": files for which it is unusual are marked as unfamiliar. None takes the stored features,
        or a layer half way through the network."""
        return None

    @abstractmethod
    def build(self, clip_shape: tuple[int, int, int, int]) -> keras.Model:
        """Return a model from uint8 RGB clips (batch, frames, height, width, 3), 0..255, to scores (batch, 1) float32.

        `clip_shape` is (frames, height, width, 3); frames is 1 for a frame detector. A higher score is more likely fake. With
        `classes` the output is (batch, 1 + classes): the score, then the logit of each class given that it is a fake.
        """

    def warnings(self) -> tuple[str, ...]:
        """Warnings that every report of this detector must show."""
        return ()

    def report_extras(self, context: ReportContext) -> ReportExtras:
        """Return figures and tables of its own for the report and TensorBoard."""
        return ReportExtras()


D = TypeVar("D", bound=type[Detector])


def register(name: str) -> Callable[[D], D]:
    """Class decorator: makes the detector available by this name on the command line and in a YAML.

    Raises UserError if another detector has that name, if it is not a plain lower-case word, if a field has no default, or if
    `build` or another method that its declarations require is missing.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise UserError(f"A detector's name consists of a-z, 0-9 and _ and starts with a letter; got {name!r}.")

    def add(cls: D) -> D:
        if cls.__abstractmethods__:
            raise UserError(f"The detector {name} lacks {', '.join(sorted(cls.__abstractmethods__))}.")
        if cls.caches_features is not Detector.caches_features and cls.fit_head is Detector.fit_head:
            raise UserError(f"The detector {name} declares caches_features and therefore needs fit_head.")
        if cls.attribute is not Detector.attribute and cls.with_classes is Detector.with_classes:
            raise UserError(f"The detector {name} declares attribute and therefore needs with_classes.")
        if missing := [item.name for item in fields(cls) if item.default is MISSING and item.default_factory is MISSING]:
            raise UserError(f"The detector {name} needs defaults for its field{'s' * (len(missing) > 1)} {', '.join(missing)}.")
        if REGISTRY.setdefault(name, cls) is not cls:
            raise UserError(f"Two detectors are named {name!r}: {REGISTRY[name].__module__} and {cls.__module__}.")
        cls.name = name
        return cls

    return add


def find(name: str) -> type[Detector]:
    """Return the registered detector of that name. Raises UserError, with the closest name for a misspelt one."""
    if name in REGISTRY:
        return REGISTRY[name]
    known = ", ".join(sorted(REGISTRY))
    raise UserError(f"There is no detector {name!r}.{suggestion(name, REGISTRY)} Detectors: {known}. A detector of your own "
                    "needs --plugin FILE.")


def describe_detector(detector: Detector) -> str:
    """Return the name of a detector and the first line of its docstring."""
    return f"{detector.name}: {(type(detector).__doc__ or '').splitlines()[0]}"
