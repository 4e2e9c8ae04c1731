"""What `evaluation.familiarity` compares clips by, computed together with their scores, in one pass of the network.

*Content* is the output of an early layer of the detector's own network, averaged over positions and frames: late layers see only
what tells fakes from reals. *Processing* are `PixelStatistics`.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import keras
from keras import ops

from tfdetect.detector import Detector
from tfdetect.evaluation.familiarity import Familiarity, Space
from tfdetect.models.layers.common import Tensor
from tfdetect.models.layers.pixel_statistics import PixelStatistics


def content_layer(model: keras.Model, detector: Detector) -> str:
    """Return the path of the layer whose pooled output is the content, such as "frames/frame_network/conv2d_1".

    It is the one that the detector names, or `features` where these are stored anyway; else the middle one of those with weights
    and an output for each position, or without such layers of those with weights; "" is the clip itself.
    """
    if detector.content_layer or detector.caches_features:
        return detector.content_layer or "features"
    layers = [(path, _output_shape(layer)) for path, layer in _walk(model) if layer.weights]
    spatial = [path for path, shape in layers if len(shape) > 2]
    candidates = spatial or [path for path, shape in layers if shape] or [""]
    return candidates[(len(candidates) - 1) // 2]


class WithVectors(keras.Model):
    """A detector whose outputs are its own, and then content (batch, n) and processing (batch, m), both float32.

    With `familiarity`, they are followed by the distances of both, (batch, 1), in place of the vectors. Raises KeyError if the
    model has no layer of this path.
    """

    def __init__(self, model: keras.Model, layer: str, familiarity: Familiarity | None = None):
        super().__init__()
        self.model, self.observed, self.statistics = model, dict(_walk(model))[layer] if layer else None, PixelStatistics()
        self.spaces = (familiarity.content, familiarity.processing) if familiarity else None

    def call(self, inputs: Tensor, training: bool | None = None) -> list[Tensor]:
        with _recorded(self.observed) if self.observed else nullcontext([inputs]) as seen:
            outputs = self.model(inputs, training=training)
        vectors = [pool(seen[0], ops.shape(inputs)[0], inputs.shape[1] > 1), self.statistics(inputs)]
        if self.spaces:
            vectors = [distances(space, vector) for space, vector in zip(self.spaces, vectors, strict=True)]
        return [*(outputs if isinstance(outputs, list | tuple) else [outputs]), *vectors]


def distances(space: Space, vectors: Tensor) -> Tensor:
    """Return what `Space.distances` does, in float32: (batch, n) -> (batch, 1)."""
    scaled = (vectors - ops.convert_to_tensor(space.mean)) / ops.convert_to_tensor(space.scale)
    rows = ops.matmul(scaled, ops.convert_to_tensor(space.whitening)) - ops.convert_to_tensor(space.offset)
    logarithm = 0.5 * ops.log(ops.sum(ops.square(rows), axis=1, keepdims=True) + 1e-12)
    return (logarithm - space.centre) / space.spread


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


def _walk(layer: Any, path: str = "") -> Iterator[tuple[str, keras.layers.Layer]]:
    """Yield all layers in a model with their paths, at any depth; a model or wrapper is replaced by the layers in it."""
    inner = layer.layers if hasattr(layer, "layers") else [layer.layer] if isinstance(layer, keras.layers.Wrapper) else []
    for child in inner:
        yield from _walk(child, f"{path}{child.name}/")
    if not inner:
        yield path.removesuffix("/"), layer


def _output_shape(layer: keras.layers.Layer) -> tuple[int | None, ...]:
    """Return the shape of a layer's output; () if it has several, or is called more than once."""
    try:
        shape = layer.output.shape
    except (AttributeError, ValueError):
        return ()
    return () if shape[-1] is None else tuple(shape)


@contextmanager
def _recorded(layer: keras.layers.Layer) -> Iterator[list[Tensor]]:
    """Yield a list that gets what the layer returns whenever it is called; Keras has no hooks for that."""
    outputs: list[Tensor] = []
    original, replaced = layer.call, vars(layer).get("call")

    def call(*args: Any, **options: Any) -> Tensor:
        outputs.append(original(*args, **options))
        return outputs[-1]

    layer.call = call
    try:
        yield outputs
    finally:
        del layer.call
        if replaced:  # as by `pretrained.fast_blocks`
            layer.call = replaced
