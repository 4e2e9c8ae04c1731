"""What the layers of a Keras model cost: floating-point operations, and values read and written."""

import contextlib
import math
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def counted_layers() -> Iterator[dict[str, float]]:
    """Count multiplications and additions of layers with a kernel, and the values that innermost layers read and write."""
    import keras

    counts, call = {"flops": 0.0, "values": 0.0}, keras.layers.Layer.__call__

    def counting(layer: Any, *arguments: Any, **options: Any) -> Any:
        outputs = call(layer, *arguments, **options)
        shapes = [[tuple(x.shape) for x in keras.tree.flatten(values) if hasattr(x, "shape")] for values in (arguments, outputs)]
        is_recurrent = isinstance(layer, keras.layers.LSTM | keras.layers.GRU)
        if is_recurrent or (all(shapes) and not layer._layers and not type(layer).__name__.endswith("Cell")):
            counts["values"] += sum(map(math.prod, shapes[0] + shapes[1]))
            counts["flops"] += layer_flops(layer, shapes[0][0], shapes[1][0])
        return outputs

    keras.layers.Layer.__call__ = counting
    try:
        yield counts
    finally:
        keras.layers.Layer.__call__ = call


def layer_flops(layer: Any, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> float:
    """Return twice the multiplications of a layer with a kernel; 0 for others."""
    import keras

    if isinstance(layer, keras.layers.LSTM | keras.layers.GRU):
        return 2.0 * inputs[0] * inputs[1] * sum(math.prod(weight.shape) for weight in layer.weights[:2])
    kernel = getattr(layer, "kernel", None)
    if kernel is None:
        return 0.0
    if isinstance(layer, keras.layers.EinsumDense | keras.layers.Dense):
        return 2.0 * math.prod(inputs) / summed_values(layer, inputs) * math.prod(kernel.shape)
    positions = inputs[:-1] if isinstance(layer, keras.layers.Conv2DTranspose) else outputs[:-1]
    return 2.0 * math.prod(positions) * math.prod(kernel.shape)


def summed_values(layer: Any, inputs: tuple[int, ...]) -> int:
    """Return over how many values of its input each output of a dense layer sums."""
    if not (equation := getattr(layer, "equation", "")):
        return inputs[-1]
    left, right = equation.split("->")[0].split(",")
    sizes = dict(zip(right, layer.kernel.shape, strict=True))
    return math.prod(sizes[letter] for letter in right if letter in left)
