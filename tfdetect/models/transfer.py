"""What the transfer detectors share: a backbone with published weights, a head, two phases of training, two levels of verdict."""

import difflib
from abc import abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from tfdetect.detector import Detector, Phase
from tfdetect.errors import UserError
from tfdetect.models.pretrained.hdf5 import Published, load, resolve


@dataclass(frozen=True)
class Transfer(Detector):
    """Subclass it and write `backbone`. First the head is trained on the frozen backbone, then both from some layer on."""

    published: ClassVar[Published]
    """Where its ImageNet weights are."""

    weights: Literal["imagenet", "none"] | Path = "imagenet"
    """Where the backbone starts: published weights (fetched once), random ones, or an HDF5 file without top."""
    unfreeze_from: str = ""
    """Second phase: train the backbone from this layer on; its name, the number of last layers, or all. Empty: never."""
    head_epochs: int = 3
    """Epochs of the first phase, in which the backbone is frozen; the second one has a tenth of the rate."""
    dense: int = 0
    """Units of a dense layer before the score; 0 for none."""
    dropout: float = 0.3
    """Share of features dropped before each dense layer, in training."""
    crop: int = 0
    """Pixels of the side of the crops that it trains on, a place of their own for each batch; 0 trains on whole pictures."""
    mirror: bool = True
    """Flip half of the training pictures."""
    sides: bool = False
    """Score the mean of a picture's and its mirror image's features: twice the work."""
    attribute: Literal["none", "source", "family"] = "none"
    """Learn, besides real or fake, which source a fake has, or which family of sources."""
    families: tuple[str, ...] = ()
    """The family of each source, as SOURCE=FAMILY; without it, the manifest's column family says."""
    classes: tuple[str, ...] = ()
    """What attribute found in the training files; set by the training."""

    def __post_init__(self):
        if self.head_epochs < 0:
            raise UserError(f"--detector.head_epochs must be at least 0, got {self.head_epochs}.")
        if wrong := [pair for pair in self.families if pair.count("=") != 1]:
            raise UserError(f"--detector.families must be like stylegan=gan, got {wrong[0]!r}.")

    @property
    def initial_weights(self):
        return str(self.weights)

    @property
    def offline_overrides(self):
        return {"weights": "none"}

    def with_classes(self, classes):
        return replace(self, classes=classes)

    def require(self):
        resolve(self.weights, self.published)

    @abstractmethod
    def backbone(self, x: Any) -> Any:
        """Pictures (batch, height, width, 3), floats 0..255, RGB -> their features; its own normalising included."""

    def pool(self, body: Any) -> Any:
        """The backbone (a keras.Model) -> features (batch, n)."""
        from keras import layers

        return layers.GlobalAveragePooling2D(name="features")(body.output)

    def build(self, clip_shape):
        import keras
        from keras import layers

        from tfdetect.models.layers.common import AlignedCrop, FlipTTA, FlipTTAMean, RandomHorizontalFlip, score

        path = resolve(self.weights, self.published)
        inputs = keras.Input(clip_shape, dtype="uint8", name="clip")
        x = RandomHorizontalFlip()(inputs) if self.mirror else inputs
        x = layers.Reshape(clip_shape[1:])(x)
        x = AlignedCrop(self.crop)(x) if self.crop else x
        x = layers.Rescaling(1.0, name="pixels")(FlipTTA()(x) if self.sides else x)
        body = keras.Model(inputs, self.backbone(x))
        if path:
            load(body, path)
        self._named(body, self.unfreeze_from)  # a wrong name is said before the training
        x = self.pool(body)
        x = layers.Dropout(self.dropout)(FlipTTAMean()(x) if self.sides else x)
        if self.dense:
            x = layers.Dropout(self.dropout)(layers.Dense(self.dense, activation="relu")(x))
        # Near zero: what chance puts on thousands of features, a few epochs would not take away.
        outputs = score(x, keras.initializers.RandomNormal(stddev=1e-3))
        if self.classes:
            source = layers.Dense(len(self.classes), dtype="float32", name="source")(x)
            outputs = layers.Concatenate(dtype="float32", name="levels")([outputs, source])
        return keras.Model(inputs, outputs, name=self.name)

    def phases(self):
        if self.weights == "none":  # nothing to protect
            return (Phase(),)
        head = Phase(prepare=lambda model: self.free(model, ""))
        if not self.unfreeze_from:
            return (head,)
        rest = Phase(learning_rate_factor=0.1 if self.head_epochs else 1.0, prepare=lambda model: self.free(model, self.unfreeze_from))
        return (replace(head, epochs=self.head_epochs), rest) if self.head_epochs else (rest,)

    def free(self, model, start):
        """Train of the backbone what comes from layer `start` on, except BatchNormalization, whose statistics stay."""
        import keras

        body = keras.Model(model.inputs, model.get_layer("features").input)
        free = self._named(body, start)
        for layer in body.layers:
            layer.trainable = layer.name in free and not isinstance(layer, keras.layers.BatchNormalization)

    def _named(self, body, start):
        """Names of the layers from `start` on. ValueError where the backbone has no such layer."""
        names = [layer.name for layer in body.layers]
        if start.isdecimal():
            return set(names[len(names) - int(start) :])
        if start in ("", "all"):
            return set(names if start else ())
        if start not in names:
            near = ", ".join(difflib.get_close_matches(start, names, n=3, cutoff=0.3))
            raise UserError(f"--detector.unfreeze_from {start}: {self.name} has no such layer; expected all, a number of last "
                             f"layers, or a name such as {near or names[-1]}.")  # fmt: skip
        return set(names[names.index(start) :])
