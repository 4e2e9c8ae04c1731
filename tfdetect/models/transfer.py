"""Base class of transfer detectors: a backbone with published weights, a new head, two training phases, optional attribution."""

from abc import abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from tfdetect.detector import Detector, Phase
from tfdetect.errors import UserError, nearest, require_minimum
from tfdetect.models.pretrained.hdf5 import WeightsFile, resolve_weights
from tfdetect.models.pretrained.optional_weights import OptionalWeights
from tfdetect.models.pretrained.weight_files import flat_layers, load_weights


@dataclass(frozen=True)
class Transfer(OptionalWeights, Detector):
    """A pretrained backbone with a new head. Subclasses implement `build_backbone`.

    The first phase trains the head on the frozen backbone, the second also the backbone from `unfreeze_from` on.
    """

    imagenet_weights: ClassVar[WeightsFile]
    """The published ImageNet weights of the backbone."""

    weights: Literal["imagenet", "none"] | Path = "imagenet"
    """Initial weights of the backbone: published ones (downloaded once), random ones, or a file; see docs/detectors.md."""
    unfreeze_from: str = ""
    """First backbone layer to train in the second phase: its name, a number of last layers, or all; empty: no second phase."""
    head_epochs: int = 3
    """Epochs of the first phase, with a frozen backbone; the second phase has a tenth of the learning rate."""
    dense: int = 0
    """Units of a dense layer before the score; 0 for none."""
    dropout: float = 0.3
    """Dropout rate before each dense layer."""
    crop: int = 0
    """Side in pixels of random training crops, at one position per batch; 0 trains on whole images."""
    mirror: bool = True
    """Flip half of the training images horizontally."""
    sides: bool = False
    """Average the features of each image and its mirror image (test-time augmentation); doubles the work."""
    attribute: Literal["none", "source", "family"] = "none"
    """Besides real or fake, predict the source of a fake, or its family of sources."""
    families: tuple[str, ...] = ()
    """Family of each source, as SOURCE=FAMILY; by default read from the manifest's column family."""
    classes: tuple[str, ...] = ()
    """Sources or families found in the training files; set by training."""

    def __post_init__(self) -> None:
        require_minimum(0, "detector", self, "head_epochs")
        if malformed := [pair for pair in self.families if pair.count("=") != 1]:
            raise UserError(f"--detector.families must have the form SOURCE=FAMILY, such as stylegan=gan; got {malformed[0]!r}.")

    def with_classes(self, classes: tuple[str, ...]) -> Self:
        return replace(self, classes=classes)

    def require(self) -> str | None:
        self.weights_path()
        return None

    def weights_path(self) -> Path | None:
        """Return the file of initial weights; None if `build_backbone` sets them. Raises UserError if there is no such file."""
        return resolve_weights(self.weights, self.imagenet_weights)

    @abstractmethod
    def build_backbone(self, images: Any) -> Any:
        """Return the features of RGB images (batch, height, width, 3), floats in 0..255; includes the normalisation."""

    def pool(self, backbone: Any) -> Any:
        """Return the pooled features (batch, n) of a backbone, a keras.Model; the output of a layer `features`."""
        from keras import layers

        return layers.GlobalAveragePooling2D(name="features")(backbone.output)

    def build(self, clip_shape: tuple[int, int, int, int]) -> Any:
        import keras
        from keras import layers

        from tfdetect.models.layers.common import AlignedCrop, FlipTTA, FlipTTAMean, RandomHorizontalFlip

        path = self.weights_path()
        inputs = keras.Input(clip_shape, dtype="uint8", name="clip")
        x = RandomHorizontalFlip()(inputs) if self.mirror else inputs
        x = layers.Reshape(clip_shape[1:])(x)
        x = AlignedCrop(self.crop)(x) if self.crop else x
        x = layers.Rescaling(1.0, name="pixels")(FlipTTA()(x) if self.sides else x)
        backbone = keras.Model(inputs, self.build_backbone(x))
        if path:
            load_weights(backbone, path)
        self.layer_names_from(backbone, self.unfreeze_from)  # reports an unknown layer before training starts
        x = self.pool(backbone)
        return keras.Model(inputs, self.build_head(FlipTTAMean()(x) if self.sides else x), name=self.name)

    def build_head(self, x: Any) -> Any:
        """Return the scores (batch, 1) of features (batch, n), or with `classes` the scores and the logits of the classes."""
        import keras
        from keras import layers

        from tfdetect.models.layers.common import score_layer

        x = layers.Dropout(self.dropout)(x)
        if self.dense:
            x = layers.Dropout(self.dropout)(layers.Dense(self.dense, activation="relu")(x))
        # Near zero: a few epochs would not undo larger random weights on thousands of features.
        outputs = score_layer(x, keras.initializers.RandomNormal(stddev=1e-3))
        if self.classes:
            class_logits = layers.Dense(len(self.classes), dtype="float32", name="source")(x)
            outputs = layers.Concatenate(dtype="float32", name="score_and_classes")([outputs, class_logits])
        return outputs

    def phases(self) -> tuple[Phase, ...]:
        if self.weights == "none":  # no pretrained weights to protect
            return (Phase(),)
        head = Phase(prepare=lambda model: self.set_trainable(model, ""))
        if not self.unfreeze_from:
            return (head,)
        fine_tuning = Phase(learning_rate_factor=0.1 if self.head_epochs else 1.0,
                            prepare=lambda model: self.set_trainable(model, self.unfreeze_from))  # fmt: skip
        return (replace(head, epochs=self.head_epochs), fine_tuning) if self.head_epochs else (fine_tuning,)

    def set_trainable(self, model: Any, start: str) -> None:
        """Make the backbone trainable from layer `start` on, except BatchNormalization, which keeps its pretrained statistics."""
        import keras

        backbone = keras.Model(model.inputs, model.get_layer("features").input)
        trainable = self.layer_names_from(backbone, start)
        for layer in flat_layers(backbone):
            layer.trainable = layer.name in trainable and not isinstance(layer, keras.layers.BatchNormalization)

    def layer_names_from(self, backbone: Any, start: str) -> set[str]:
        """Return the names of the layers that `start` selects, in the form of `unfreeze_from`.

        Raises UserError if the backbone has no such layer.
        """
        names = [layer.name for layer in flat_layers(backbone)]
        if start.isdecimal():
            return set(names[len(names) - int(start) :])
        if start in ("", "all"):
            return set(names if start else ())
        if start not in names:
            raise UserError(f"--detector.unfreeze_from {start}: {self.name} has no such layer; expected all, a number of last "
                            f"layers, or a layer name such as {nearest(start, names, 0.3) or names[-1]}.")  # fmt: skip
        return set(names[names.index(start) :])
