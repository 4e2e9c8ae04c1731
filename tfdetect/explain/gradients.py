"""Heat-maps from the gradient of a score: Grad-CAM and integrated gradients of a Keras model on the TensorFlow backend.

`model` is a detector whose input is float32 (`models.float_input`): clips (batch, frames, height, width, 3), RGB 0..255, to
(batch, 1 or more), the score first. `clip` is one clip without the batch axis.
"""

from collections.abc import Iterator
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

Baseline = Literal["black", "mean", "blurred"]
STEPS = 32  # points on the path of integrated gradients
CLIPS_PER_CALL = 8  # of them at a time; bounds the memory
BLUR = 16  # the standard deviation of a blurred baseline is a BLURth of the shorter side
PATCH = 8  # pixels: a convolution of this stride or more that does not overlap cuts an image into the tokens of a transformer


class NoGradient(ValueError):
    """The model lacks what a method needs; the message says what, as the end of a sentence."""


class GradCam:
    """Grad-CAM of a model: where the maps of its last convolution speak for a higher score.

    Selvaraju et al., "Grad-CAM: Visual explanations from deep networks via gradient-based localization", 2017 (arXiv 1610.02391),
    in the form of Draelos and Carin, "Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural
    networks", 2020 (arXiv 2011.08891): the channels of the map times the gradient of the score, summed; negative sums count as 0.
    Grad-CAM takes the mean gradient of each channel instead. Where the map is averaged before the last layer, both are the same;
    where it is flattened, a channel speaks for a higher score at one place and for a lower one at another, and its mean says
    nothing: maps of `cnn` were empty even on fakes that it found.
    """

    def __init__(self, model: Any) -> None:
        """Record the outputs of the model's layers from now on, at any depth: each call leaves those with four axes.

        Raises NoGradient if there is no convolution, or none with a map of at least 2 x 2.
        """
        self.model, self.outputs = model, list[tuple[Any, Any]]()
        for layer in _leaf_layers(model):
            layer.call = _Recorder(layer, self.outputs)
        self(np.zeros((1, *model.input_shape[1:]), np.uint8))

    def __call__(self, clips: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the maps of clips (batch, frames, height, width, 3): (batch, frames, height, width) float32, at least 0.

        In units of the score: what a position of the convolution's map adds to it. Raises NoGradient if the score does not depend
        on that map.
        """
        import tensorflow as tf

        found: NDArray[np.float32] = self.maps(tf.constant(clips, tf.float32)).numpy()
        return found

    def maps(self, pixels: Any) -> Any:
        """Return the same as a tensor, of a float32 tensor, whose shape is known; also inside a graph."""
        import tensorflow as tf

        self.outputs.clear()
        with tf.GradientTape() as tape:
            tape.watch(pixels)
            score = self.model(pixels, training=False)[:, 0]
        maps = _last_convolution(self.outputs)
        gradient = tape.gradient(score, maps)
        self.outputs.clear()
        if gradient is None:
            raise NoGradient("whose score has no gradient with respect to its last convolution")
        maps, gradient = tf.cast(maps, tf.float32), tf.cast(gradient, tf.float32)
        heat = tf.nn.relu(tf.reduce_sum(gradient * maps, -1, keepdims=True))
        heat = tf.image.resize(heat, pixels.shape[2:4])[..., 0]
        return tf.reshape(_without_mirrored(heat, pixels.shape[0] * pixels.shape[1]), pixels.shape[:4])


def integrated_gradients(model: Any, clip: NDArray[np.uint8], baseline: Baseline = "black",
                         steps: int = STEPS) -> tuple[NDArray[np.float32], float]:  # fmt: skip
    """Return what each pixel adds to the score, (frames, height, width) float32, and the difference that they should add up to.

    Sundararajan et al., "Axiomatic attribution for deep networks", 2017 (arXiv 1703.01365): the gradient of the score, integrated
    along the straight line from a baseline to the clip, times the difference of their pixels. The attributions add up to the
    score of the clip less that of the baseline (completeness), the more exactly, the more `steps` the integral takes, which are
    the points of Gauss and Legendre. Raises NoGradient if the score does not depend on the pixels in a differentiable way.
    """
    import tensorflow as tf

    start = baseline_of(clip, baseline)
    way = clip.astype(np.float32) - start
    points, weights = np.polynomial.legendre.leggauss(steps)
    shares = ((points + 1) / 2).astype(np.float32)
    total = np.zeros(clip.shape, np.float64)
    for at in range(0, steps, CLIPS_PER_CALL):
        batch = tf.constant(start + shares[at : at + CLIPS_PER_CALL, None, None, None, None] * way)
        with tf.GradientTape() as tape:
            tape.watch(batch)
            score = model(batch, training=False)[:, 0]
        gradient = tape.gradient(score, batch)
        if gradient is None:
            raise NoGradient("whose score has no gradient with respect to the pixels")
        total += np.tensordot(weights[at : at + CLIPS_PER_CALL] / 2, gradient.numpy().astype(np.float64), 1)
    ends = model(tf.constant(np.stack([clip.astype(np.float32), start])), training=False)[:, 0].numpy()
    return (way * total).sum(axis=-1).astype(np.float32), float(ends[0] - ends[1])


def baseline_of(clip: NDArray[np.uint8], kind: Baseline) -> NDArray[np.float32]:
    """Return what integrated gradients start from, shaped as the clip: black, the mean colour of each frame, or its blurred copy.

    Black is that of the paper, under which dark pixels can never count. A blurred copy keeps scene and colours and lacks the fine
    traces (Sturmfels, Lundberg and Lee, "Visualizing the impact of feature attribution baselines", Distill 2020).
    """
    pixels = clip.astype(np.float32)
    if kind == "black":
        return np.zeros_like(pixels)
    if kind == "mean":
        return np.broadcast_to(pixels.mean(axis=(1, 2), keepdims=True), pixels.shape).copy()
    return np.stack([cv2.GaussianBlur(frame, (0, 0), min(frame.shape[:2]) / BLUR) for frame in pixels])


def smooth(heatmaps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return heat-maps (frames, height, width), blurred for the eye as a blurred baseline is; their sums stay the same."""
    sigma = min(heatmaps.shape[1:]) / BLUR
    return np.stack([cv2.GaussianBlur(heat, (0, 0), sigma, borderType=cv2.BORDER_REFLECT) for heat in heatmaps])


class _Recorder:
    """Stands in for `layer.call` and keeps the outputs with four axes, in the order of the calls."""

    def __init__(self, layer: Any, outputs: list[tuple[Any, Any]]) -> None:
        self.layer, self.call, self.outputs = layer, layer.call, outputs

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        result = self.call(*inputs, **options)
        if getattr(result, "shape", None) is not None and len(result.shape) == 4:
            self.outputs.append((self.layer, result))
        return result


def _leaf_layers(layer: Any) -> Iterator[Any]:
    """Yield the layers of a model that contain no others, at any depth, each once."""
    import keras

    inner = getattr(layer, "layers", None) or ([layer.layer] if isinstance(layer, keras.layers.Wrapper) else [])
    if not inner:
        yield layer
    seen = set[int]()
    for each in (leaf for part in inner for leaf in _leaf_layers(part)):
        if id(each) not in seen:
            seen.add(id(each))
            yield each


def _last_convolution(outputs: list[tuple[Any, Any]]) -> Any:
    """Return the output of the last convolution, with the normalisation, activation and sum right behind it.

    Transposed convolutions and those that cut an image into patches do not count. Raises NoGradient if there is none.
    """
    from keras import layers

    convolutions = (layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D)
    followers = (layers.Activation, layers.ReLU, layers.LeakyReLU, layers.BatchNormalization, layers.Add, layers.Concatenate)
    found = [at for at, (layer, maps) in enumerate(outputs)
             if isinstance(layer, convolutions) and not _cuts_patches(layer) and min(maps.shape[1:3]) > 1]  # fmt: skip
    if not found:
        raise NoGradient("which has no convolution whose map is at least 2 x 2")
    last = found[-1]
    for layer, maps in outputs[last + 1 :]:
        if not isinstance(layer, followers) or maps.shape[:3] != outputs[last][1].shape[:3]:
            break
        last += 1
    return outputs[last][1]


def _cuts_patches(layer: Any) -> bool:
    return tuple(layer.strides) == tuple(layer.kernel_size) and min(layer.strides) >= PATCH


def _without_mirrored(heat: Any, frames: int) -> Any:
    """Average the maps of images and of their mirrored copies behind them, where a model adds these (`FlipTTA`)."""
    import tensorflow as tf

    copies = tf.reshape(heat, (-1, frames, *heat.shape[1:]))
    return tf.reduce_mean(tf.concat([copies[:1], copies[1:, :, :, ::-1]], axis=0), axis=0)
