"""Feature sets: what a text such as `cosines` or `hf-clip:FOLDER@penultimate` stands for, as frozen Keras layers.

    sets = [FeatureSet.parse(text) for text in ("cosines", "tiny@penultimate+patches:1")]
    outputs = build(sets, keras.Input((1, 224, 224, 3), dtype="uint8"))  # [[(batch, 15309)], [(batch, 32), (batch, 32)]]
    features = join([output for outputs_of_set in outputs for output in outputs_of_set])  # (batch, 15373)

A new kind of set is a function from clips and what follows the colon to features, entered in `KINDS`.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from tfdetect.detector import find
from tfdetect.errors import UserError, nearest
from tfdetect.models.pretrained import backbones, feature_names, presets

ARGUMENTS = {"none": ("", ""), "number": (r"|[1-9]\d{0,3}", " or {}:N with a number from 1"), "file": (".+", ":FILE")}
EXPECTED = "expected cosines, residuals, spectrum, squeezenet:FILE, or a pretrained backbone as PRESET@FEATURES"


class Kind(NamedTuple):
    """A kind of features that needs no transformer."""

    build: Callable[[Any, str], Any]
    """uint8 clips of one frame (batch, 1, height, width, 3) and the argument -> features (batch, n)."""
    argument: Literal["none", "number", "file"] = "none"
    """What follows the colon; a number may be left out."""


@dataclass(frozen=True)
class FeatureSet:
    """Features that are computed from single frames without training, as the command line names them."""

    kind: str
    """A key of `KINDS`, or the preset of a pretrained backbone."""
    argument: str = ""
    """What follows the colon of a kind; the outputs of a backbone, see `feature_names`."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            feature_names.parse(self.argument)
        elif not re.fullmatch(ARGUMENTS[KINDS[self.kind].argument][0], self.argument):
            form = self.kind + ARGUMENTS[KINDS[self.kind].argument][1]
            raise UserError(f"There is no feature set '{self}'; {self.kind} is written {form.format(self.kind)}.")

    def __str__(self) -> str:
        separator = "@" if self.kind not in KINDS else ":" if self.argument else ""
        return f"{self.kind}{separator}{self.argument}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the set that a text names; a preset alone stands for its `projected` features.

        Raises UserError for a misspelt kind, a wrong argument and misspelt outputs of a backbone.
        """
        kind, _, argument = text.partition(":")
        if kind in KINDS:
            return cls(kind, argument)
        preset, at, outputs = text.rpartition("@") if "@" in text else (text, "", "projected")
        meant = "" if at or Path(preset).is_dir() else nearest(kind, KINDS, 0.75)
        if meant or not preset:
            raise UserError(f"There is no feature set {text!r}, {EXPECTED}." + (f" Perhaps you meant {meant}." if meant else ""))
        return cls(preset, outputs)

    @property
    def label(self) -> str:
        """A short name: paths without their folders."""
        if self.kind in KINDS:
            return str(FeatureSet(self.kind, Path(self.argument).name)) if self.argument else self.kind
        return f"{Path(self.kind.removeprefix(presets.HF_CLIP)).name}@{self.argument}"

    def outputs(self) -> list[Self]:
        """Return each output of a backbone as a set of its own; any other set alone."""
        if self.kind in KINDS:
            return [self]
        return [replace(self, argument=str(output)) for output in feature_names.parse(self.argument)]

    @property
    def is_random(self) -> bool:
        """Whether its weights are random, so that results are meaningless."""
        return presets.is_random(self.kind)

    def require(self) -> None:
        """Find or download the weights. Raises UserError if they are not available."""
        if self.kind not in KINDS:
            presets.require(self.kind)
        elif self.kind == "squeezenet":
            _squeezenet_detector(self.argument).require()


def build(sets: Sequence[FeatureSet], clips: Any) -> list[list[Any]]:
    """Return the outputs (batch, n) of each set: several for a backbone with several outputs, otherwise one.

    `clips` are uint8 (batch, 1, height, width, 3), 0..255. Sets with the same preset share one backbone, which runs once.
    """
    by_preset: dict[str, dict[feature_names.Output, Any]] = {}
    for preset in dict.fromkeys(each.kind for each in sets if each.kind not in KINDS):
        outputs = {output for each in sets if each.kind == preset for output in feature_names.parse(each.argument)}
        text = "+".join(map(str, outputs))
        by_preset[preset] = dict(zip(feature_names.parse(text), pretrained(clips, preset, text), strict=True))
    return [[KINDS[each.kind].build(clips, each.argument)] if each.kind in KINDS else
            [by_preset[each.kind][output] for output in feature_names.parse(each.argument)] for each in sets]  # fmt: skip


def join(outputs: Sequence[Any]) -> Any:
    """Return the float32 output of a layer `features` that concatenates outputs (batch, n); each is stored on its own."""
    from keras import layers

    if len(outputs) == 1:
        return layers.Identity(dtype="float32", name="features")(outputs[0])
    parts = [layers.Identity(dtype="float32")(output) for output in outputs]
    return layers.Concatenate(dtype="float32", name="features")(parts)


def pretrained(clips: Any, preset: str, outputs: str) -> list[Any]:
    """Outputs of a frozen vision backbone, in the order of `feature_names.parse`."""
    vision = backbones.vision_model(presets.load(preset), clips.shape[2], outputs)
    for layer in vision.layers:
        layer.trainable = False
    return apply_vision(vision, clips)


def apply_vision(vision: Any, clips: Any) -> list[Any]:
    """Return the outputs of a vision model for clips of one frame."""
    features = vision(pixels(clips))
    return list(features) if isinstance(features, list | tuple) else [features]


def pixels(clips: Any) -> Any:
    """Turn uint8 clips of one frame into float images (batch, height, width, 3) in 0..255."""
    from keras import layers

    return layers.Rescaling(1.0)(layers.Reshape(clips.shape[2:])(clips))


def cosines(clips: Any, grid: str) -> Any:
    """DCT energies of 8 x 8 blocks, averaged over a raster of regions; 8 x 8 by default."""
    from keras import layers

    from tfdetect.models.layers.block_dct import BlockDCTEnergies

    x = layers.Rescaling(1 / 127.5, -1, dtype="float32")(layers.Reshape(clips.shape[2:])(clips))
    return BlockDCTEnergies(int(grid or 8))(x)


def residuals(clips: Any, _: str) -> Any:
    """Statistics of high-pass residuals: moments, correlations between the colours, co-occurrences of neighbours."""
    from tfdetect.models.layers.noise import ResidualStatistics

    return ResidualStatistics()(pixels(clips))


def spectrum(clips: Any, bins: str) -> Any:
    """Power of each ring of spatial frequencies, and its peaks; 32 rings by default."""
    from tfdetect.models.layers.noise import RadialSpectrum

    return RadialSpectrum(int(bins or 32))(pixels(clips))


def squeezenet(clips: Any, file: str) -> Any:
    """Channel statistics of all blocks of SqueezeNet with the weights of a file."""
    import keras

    from tfdetect.models.pretrained.weight_files import load_weights

    detector = _squeezenet_detector(file)
    network = keras.Model(clips, detector.build_backbone(pixels(clips)))
    load_weights(network, Path(file))
    outputs = keras.Model(clips, detector.pool(network)).get_layer("features").input
    for layer in keras.Model(clips, outputs).layers:
        layer.trainable = False
    return outputs


def _squeezenet_detector(file: str) -> Any:
    return find("squeezenet")(weights=Path(file), crop=0, mirror=False, sides=False)  # type: ignore[call-arg]


KINDS = {"cosines": Kind(cosines, "number"), "residuals": Kind(residuals), "spectrum": Kind(spectrum, "number"),
         "squeezenet": Kind(squeezenet, "file")}  # fmt: skip
