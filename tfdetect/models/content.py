"""What a detector's own network sees in a clip: the pooled output of an early layer, computed together with its scores."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
from keras import ops

from tfdetect.models.layers.common import Tensor
from tfdetect.models.layers.pixel_statistics import PixelStatistics

DEPTH = 1 / 2  # of the layers with weights, counted from the input, that come before the one whose output is pooled


def early_layer(model: keras.Model) -> str:
    """Return the path of the layer about half way through those with weights and an output for each position or moment; that of
    `features`, or else of the last layer but one, where there is none. Such a path is "frames/frame_network/conv2d_1"."""
    spatial = [path for path, layer in _walk(model) if layer.weights and len(_output_shape(layer)) > 2]
    if spatial:
        return spatial[int(DEPTH * (len(spatial) - 1))]
    names = [layer.name for layer in model.layers]
    return "features" if "features" in names else names[-2]


def _walk(layer: Any, path: str = "") -> Iterator[tuple[str, keras.layers.Layer]]:
    """Yield all layers in a model with their paths, at any depth; a wrapped layer comes in the place of its wrapper."""
    inner = layer.layers if hasattr(layer, "layers") else [layer.layer] if isinstance(layer, keras.layers.Wrapper) else []
    for child in inner:
        yield from _walk(child, f"{path}{child.name}/")
    if not inner:
        yield path.removesuffix("/"), layer


def _output_shape(layer: keras.layers.Layer) -> tuple[int | None, ...]:
    try:
        shape = layer.output.shape
    except (AttributeError, ValueError):  # it is called never, or more than once, or has several outputs
        return ()
    return shape if shape[-1] is not None else ()


@contextmanager
def _recorded(layer: keras.layers.Layer) -> Iterator[list[Tensor]]:
    """Yield a list that gets what the layer returns whenever it is called; Keras has no hooks for that."""
    outputs: list[Tensor] = []
    original = layer.call

    def call(*args: Any, **options: Any) -> Tensor:
        outputs.append(original(*args, **options))
        return outputs[-1]

    layer.call = call
    try:
        yield outputs
    finally:
        del layer.call


class WithContent(keras.Model):
    """A detector whose outputs are its own, then content (batch, n) and processing (batch, m), both float32.

    `layer` is the path of the layer whose output, averaged over positions and frames, is the content. Processing are
    `PixelStatistics` of the clips. The network runs once.
    """

    def __init__(self, model: keras.Model, layer: str):
        super().__init__()
        self.model, self.tap, self.statistics = model, dict(_walk(model))[layer], PixelStatistics()

    def call(self, inputs: Tensor, training: bool | None = None) -> list[Tensor]:
        with _recorded(self.tap) as seen:
            outputs = self.model(inputs, training=training)
        outputs = list(outputs) if isinstance(outputs, list | tuple) else [outputs]
        return [*outputs, pool(seen[0], ops.shape(inputs)[0], inputs.shape[1] > 1), self.statistics(inputs)]


def pool(output: Tensor, batch: Any, clips: bool) -> Tensor:
    """Return the mean over all positions of a layer's output, (rows, ..., n), for each input, (batch, n) float32.

    Rows beyond the batch are the frames of `clips`, one clip after the other; else copies of the whole batch, one after the
    other, for test-time augmentation.
    """
    output = ops.cast(output, "float32")
    rows = ops.mean(output, axis=tuple(range(1, len(output.shape) - 1))) if len(output.shape) > 2 else output
    if clips:
        return ops.mean(ops.reshape(rows, (batch, -1, output.shape[-1])), axis=1)
    return ops.mean(ops.reshape(rows, (-1, batch, output.shape[-1])), axis=0)
