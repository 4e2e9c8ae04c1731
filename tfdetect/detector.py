"""The contract of a detector: a frozen dataclass in one file of `models/`, whose fields are its hyper-parameters.

The fields are at once the flags of the command line, the keys of the YAML and, by their docstrings, the help text.
This module imports neither Keras nor TensorFlow, so that `--help` answers at once.
"""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from tfdetect.errors import UserError

if TYPE_CHECKING:
    import keras
    import numpy as np

REGISTRY: dict[str, type[Detector]] = {}


@dataclass(frozen=True)
class Phase:
    """A stretch of the training."""

    epochs: int | None = None
    """How long; None is to the end."""
    learning_rate_factor: float = 1.0
    """Learning rate as a part of --train.learning_rate."""
    prepare: Callable[[keras.Model], None] | None = None
    """Sets what of the model is trained in it."""


@dataclass(frozen=True)
class FeatureTable:
    """What a frozen part of a model makes of files: a row for each frame, and for each view of it."""

    features: np.ndarray
    """(rows, n) float32, the outputs of the layer `features`."""
    labels: np.ndarray
    """(rows,) int64, 0 real and 1 fake."""
    texts: Sequence[str] = ()
    """What each row shows, in words; empty where nothing says."""
    paths: Sequence[str] = ()
    """The file of each row."""
    sources: Sequence[str] = ()
    """Of each row."""


@dataclass(frozen=True)
class FeatureFitContext:
    """What a detector that learns from stored features is given."""

    train: FeatureTable
    validation: FeatureTable
    """The validation files, both classes: they choose the epoch, and train nothing."""
    fit_by_gradient: Callable[..., None]
    """fit_by_gradient(model, x, y, validation_x, validation_y, loss=None): train by the run's settings, leave the best epoch's weights."""
    seed: int = 0


@dataclass(frozen=True)
class Detector(ABC):
    """Subclass it, add fields with docstrings, decorate with `@register("name")` and write `build`."""

    name: ClassVar[str]
    """Set by `register`; the sub-command."""
    input_kind: ClassVar[Literal["frame", "clip"]] = "frame"
    """A frame detector scores single pictures, and a video by the mean of its frames; a clip detector sees time."""
    trains_on: ClassVar[Literal["both", "real"]] = "both"
    """One-class detectors learn from reals alone."""
    reconstructs: ClassVar[bool] = False
    """Whether its model has a layer `reconstruction` that gives the normalised picture, which the layer `picture` made, what came back
    of it, and the mean and, if it is drawn, the log variance of its latent."""
    default_overrides: ClassVar[Mapping[str, Any]] = {}
    """Defaults of its own for the run, such as {"data.size": 256}: a bare `train.py NAME` must be right."""

    least_size: ClassVar[int] = 16
    """Width and height in pixels of the smallest pictures that it works on."""
    classes: ClassVar[tuple[str, ...]] = ()
    """Sources or families that it tells fakes apart by, besides the score; see `build`."""

    def require(self) -> None:  # noqa: B027 (most need nothing)
        """Fetch or look for what `build` needs besides the data, such as published weights, before any work is done.
        ValueError where it is not at hand."""

    @abstractmethod
    def build(self, clip_shape: tuple[int, int, int, int]) -> keras.Model:
        """A model from uint8 RGB clips (batch, frames, height, width, 3), 0..255, to scores (batch, 1) float32.

        `clip_shape` is (frames, height, width, 3); frames is 1 for a frame detector. Higher is more likely fake. With
        `classes` the output is (batch, 1 + classes): the score, then the logit of each class for the case of a fake.
        """

    @property
    def caches_features(self) -> bool:
        """Whether all before the layer `features` stays as it is. Its outputs are then computed once for each file and kept, and
        `learn` trains the rest on them."""
        return False

    @property
    def supports_focal_loss(self) -> bool:
        """Whether gradients of a loss of the score train it, which `--train.balance focal` can weigh; else it is refused."""
        return self.trains_on == "both"

    def fit_head(self, model: keras.Model, context: FeatureFitContext) -> keras.Model:
        """The trained model, of the inputs of `model`, which `build` made; for detectors that are `stored`."""
        raise NotImplementedError(f"{self.name} is stored, and has no `learn`")

    def warnings(self) -> tuple[str, ...]:
        """Sentences that no report of this detector may lack."""
        return ()

    def phases(self) -> tuple[Phase, ...]:
        """Stretches of the training, such as the head alone and then all; by default one."""
        return (Phase(),)

    def losses(self) -> Any:
        """What `keras.Model.compile` takes as its loss: by default binary cross-entropy on the score as a logit. None for a model
        whose layers add their own."""
        import keras

        return keras.losses.BinaryCrossentropy(from_logits=True)


D = TypeVar("D", bound=type[Detector])


def register(name: str) -> Callable[[D], D]:
    """Class decorator: from now on the detector can be named on the command line and in a YAML."""

    def add(cls: D) -> D:
        if REGISTRY.setdefault(name, cls) is not cls:
            raise ValueError(f"Two detectors are named {name!r}: {REGISTRY[name].__module__} and {cls.__module__}.")
        cls.name = name
        return cls

    return add


def find(name: str) -> type[Detector]:
    """The registered detector of that name. ValueError with the nearest name for a misspelt one."""
    if name in REGISTRY:
        return REGISTRY[name]
    near = difflib.get_close_matches(name, REGISTRY, n=1)
    hint = f" Perhaps you meant {near[0]}." if near else ""
    raise UserError(f"There is no detector {name!r}.{hint} Detectors: {', '.join(sorted(REGISTRY))}.")
