"""Image networks by name: of keras.applications, keras-cv and keras-hub, each with the normalisation that its weights expect.

    network = networks.find("efficientnet_b4")
    maps = network.build(images, imagenet=False)    # RGB images (batch, height, width, 3), floats in 0..255

The libraries are asked for their names, in this order; LIBRARY:NAME asks only one. Letter case and separators do not matter. A
name that begins presets of keras-hub stands for the first of them. keras.applications knows its architectures, the two others
download them; the exception is EfficientNet-Lite, which is described here and has no published Keras weights. `tiny` is a small
network for tests and for trying out.
"""

import inspect
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tfdetect.errors import UserError, nearest

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of RGB in 0..1
LITE_MEAN, LITE_STD = 127.0, 128.0  # of pixels in 0..255, in the published EfficientNet-Lite and its ports
# Width and depth of EfficientNet-Lite 0 to 4, and its stages (Tan and Le 2019; github.com/tensorflow/tpu, efficientnet/lite).
LITE = {"efficientnetlite0": (1.0, 1.0), "efficientnetlite1": (1.0, 1.1), "efficientnetlite2": (1.1, 1.2),
        "efficientnetlite3": (1.2, 1.4), "efficientnetlite4": (1.4, 1.8)}  # fmt: skip
# fmt: off
LITE_STAGES = {"stackwise_kernel_sizes": [3, 3, 5, 3, 5, 5, 3], "stackwise_num_repeats": [1, 2, 2, 3, 3, 4, 1],
               "stackwise_input_filters": [32, 16, 24, 40, 80, 112, 192], "stackwise_expansion_ratios": [1, 6, 6, 6, 6, 6, 6],
               "stackwise_output_filters": [16, 24, 40, 80, 112, 192, 320], "stackwise_strides": [1, 2, 2, 2, 1, 2, 1]}
# fmt: on
TINY = "tiny"
OTHER_WEIGHTS = "give a file as --detector.weights FILE, or random weights by --detector.weights none"

WITHOUT_A_NETWORK = {  # what helps if a download fails
    "keras.applications": f"put the file into ~/.keras/models, or {OTHER_WEIGHTS}",
    "keras-cv": "only networks of keras.applications and EfficientNet-Lite can be built without a download",
    "keras-hub": "download the preset on another machine and give its folder as --detector.network FOLDER",
}


@dataclass(frozen=True)
class Network:
    """A network that a library knows."""

    library: str
    name: str
    """Its name in the library."""
    construct: Callable[[Any, bool], Any]
    """From images (batch, height, width, 3), floats in 0..255, and whether ImageNet weights are loaded, to the last maps."""

    def build(self, images: Any, imagenet: bool) -> Any:
        """Return the last maps (batch, height, width, n) of RGB images in 0..255, or tokens (batch, positions, n).

        Raises UserError if the library refuses the size of the images, or cannot download what it needs.
        """
        try:
            return self.construct(images, imagenet)
        except UserError:
            raise
        except Exception as error:  # failed downloads and unsuitable sizes raise any kind of exception
            reason = " ".join(str(error).split(" with url")[0].split())[:300].rstrip(".")
            if isinstance(error, ValueError):
                raise UserError(f"{self.name} ({self.library}) does not take images of {images.shape[2]} x {images.shape[1]} "
                                f"pixels: {reason}. Give another --data.size.") from error  # fmt: skip
            raise UserError(f"{self.library} could not download what {self.name} needs ({reason}); "
                            f"{WITHOUT_A_NETWORK[self.library]}.") from error  # fmt: skip


def find(name: str) -> Network:
    """Return the network of that name, or of a folder saved by keras-hub. Raises UserError with the closest name."""
    if Path(name).is_dir():
        return Network("keras-hub", name, partial(_build_hub, name))
    if name == TINY:
        return Network("keras.applications", TINY, _build_tiny)
    library, _, rest = name.rpartition(":")
    libraries = {"keras": _keras, "keras_cv": _keras_cv, "keras_hub": _keras_hub}
    if library and library not in libraries:
        raise UserError(f"--detector.network {name}: there is no library {library!r}; expected {', '.join(libraries)}.")
    known: dict[str, Network] = {}
    for list_networks in [libraries[library]] if library else libraries.values():
        found = list_networks()
        if match := found.get(key(rest)) or _first_preset(rest, found):
            return match
        known = {**found, **known}
    meant = known[nearest(key(rest), known)].name if nearest(key(rest), known) else ""
    raise UserError(f"--detector.network {name}: no network of this name in keras.applications, keras-cv or keras-hub."
                    + (f" Perhaps you meant {meant}." if meant else ""))  # fmt: skip


def key(name: str) -> str:
    """Return a name without what may differ between libraries: letter case, separators, and the B of B0, B1 ..."""
    return re.sub(r"b(?=\d+$)", "", re.sub(r"[^a-z0-9]", "", name.lower()))


def _first_preset(start: str, networks: Mapping[str, Network]) -> Network | None:
    """Return the first preset of keras-hub whose name goes on after `start`, such as vit_base_patch16_224_imagenet."""
    presets = (network for network in networks.values() if network.library == "keras-hub")
    return next((network for network in presets if network.name.startswith(f"{start.lower()}_")), None)


def _build_tiny(images: Any, imagenet: bool) -> Any:
    from keras import layers

    if imagenet:
        raise UserError("--detector.network tiny has no ImageNet weights; give --detector.weights none.")
    x = layers.Rescaling(1 / 127.5, -1, name="normalise")(images)
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False, name="conv1")(x)
    x = layers.Activation("relu")(layers.BatchNormalization(name="norm1")(x))
    x = layers.DepthwiseConv2D(3, padding="same", name="conv2")(x)
    return layers.Conv2D(16, 1, activation="relu", name="conv3")(x)


def _keras() -> dict[str, Network]:
    import keras

    functions = {name: value for name, value in vars(keras.applications).items() if inspect.isfunction(value)}
    return {key(name): Network("keras.applications", name.lower(), partial(_build_application, function))
            for name, function in functions.items()}  # fmt: skip


def _keras_cv() -> dict[str, Network]:
    import keras_cv

    # Classes with a __new__ of their own are named variants of an architecture, such as ResNet50.
    classes = {name.removesuffix("Backbone"): value for name, value in vars(keras_cv.models).items()
               if name.endswith("Backbone") and "__new__" in vars(value)}  # fmt: skip
    return {key(name): Network("keras-cv", name.lower(), partial(_build_lite, LITE[key(name)]) if key(name) in LITE
                               else partial(_build_keras_cv, value)) for name, value in classes.items()}  # fmt: skip


def _keras_hub() -> dict[str, Network]:
    import keras_hub

    backbones = [converter.backbone_cls for converter in keras_hub.layers.ImageConverter.__subclasses__()
                 if getattr(converter, "backbone_cls", None)]  # fmt: skip
    return {key(preset): Network("keras-hub", preset, partial(_build_hub, preset))
            for backbone in backbones for preset in backbone.presets}  # fmt: skip


def _build_application(function: Callable[..., Any], images: Any, imagenet: bool) -> Any:
    weights = "imagenet" if imagenet else None
    network = function(include_top=False, weights=weights, input_shape=tuple(images.shape[1:]))
    if not imagenet:
        _set_normalisation(network)
    return network.call(_normalise_as(sys.modules[function.__module__].preprocess_input, images))


def _set_normalisation(network: Any) -> None:
    """Set layers that keep the mean and variance of ImageNet among their weights; Keras leaves them at 0 and 1."""
    for layer in network.layers:
        if type(layer).__name__ == "Normalization" and layer.weights:
            layer.adapt_mean.assign(IMAGENET_MEAN)
            layer.adapt_variance.assign(np.square(IMAGENET_STD))
            layer.finalize_state()


def _normalise_as(preprocess: Callable[[np.ndarray], np.ndarray], images: Any) -> Any:
    """Apply a `preprocess_input` of keras.applications: it scales and shifts each channel, and may reverse their order."""
    from keras import layers, ops

    black, red = (preprocess(np.array([[[pixel]]], np.float32)).ravel() for pixel in ((0, 0, 0), (255, 0, 0)))
    white = preprocess(np.full((1, 1, 1, 3), 255, np.float32)).ravel()
    scale, offset = (white.astype(float) - black) / 255, black.astype(float)
    reverses = red[0] == black[0]
    if not reverses and np.allclose(scale, 1) and np.allclose(offset, 0):
        return images  # the network itself normalises
    x = ops.flip(images, axis=-1) if reverses else images
    return layers.Rescaling(scale.tolist(), offset.tolist(), name="normalise")(x)


def _build_lite(coefficients: tuple[float, float], images: Any, imagenet: bool) -> Any:
    import keras_cv
    from keras import layers

    if imagenet:
        raise UserError(f"keras-cv has no ImageNet weights for EfficientNet-Lite; {OTHER_WEIGHTS}, or take "
                        "--detector.network efficientnet_lite0_ra_imagenet of keras-hub.")  # fmt: skip
    network = keras_cv.models.EfficientNetLiteBackbone(
        include_rescaling=False, input_shape=tuple(images.shape[1:]), width_coefficient=coefficients[0],
        depth_coefficient=coefficients[1], **LITE_STAGES)  # fmt: skip
    return network.call(layers.Rescaling(1 / LITE_STD, -LITE_MEAN / LITE_STD, name="normalise")(images))


def _build_keras_cv(backbone: Any, images: Any, imagenet: bool) -> Any:
    presets: Mapping[str, Any] = backbone.presets_with_weights
    preset = next((name for name in presets if "imagenet" in name), None)
    if imagenet and not preset:
        raise UserError(f"keras-cv has no ImageNet weights for {backbone.__name__}; {OTHER_WEIGHTS}.")
    options = {"include_rescaling": True, "input_shape": tuple(images.shape[1:])}
    network = backbone.from_preset(preset, **options) if imagenet else backbone(**options)
    return network.call(images)


def _build_hub(preset: str, images: Any, imagenet: bool) -> Any:
    """Return the pooled features (batch, n) of a preset of keras-hub, for images of any size.

    The network stays one layer, because some of keras-hub's cannot be taken apart.
    """
    import keras_hub

    from tfdetect.models.pretrained import backbones
    from tfdetect.models.pretrained.presets import read_preprocessing

    network = keras_hub.models.Backbone.from_preset(preset, load_weights=imagenet)
    preprocessing = read_preprocessing(network, keras_hub.layers.ImageConverter.from_preset(preset))
    backbone = backbones.Backbone(preset, network, preprocessing)
    return backbones.vision_model(backbone, images.shape[1], "pooled")(images)
