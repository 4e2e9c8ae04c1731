"""The same model with a float32 input in place of uint8, so that its score has a gradient with respect to the pixels."""

from typing import Any


def with_float_input(model: Any) -> Any:
    """Return a copy of a loaded Keras model, with weights of its own, that takes float32 clips, RGB 0..255, at any depth.

    A functional model casts what it is given to the data type of its input, and a cast to uint8 has no gradient.
    """
    from tfdetect.models.pretrained.initial_weights import no_random_weights

    with no_random_weights():
        copy = type(model).from_config(_as_float(model.get_config()))
    copy.set_weights(model.get_weights())
    for layer in copy.layers:
        if hasattr(layer, "adds_loss"):
            layer.adds_loss = False
    return copy


def _as_float(config: Any) -> Any:
    """Return the config of a model with all of its input layers of type float32."""
    if isinstance(config, dict):
        inner = {name: _as_float(value) for name, value in config.items()}
        return {**inner, "config": {**inner["config"], "dtype": "float32"}} if config.get("class_name") == "InputLayer" else inner
    return type(config)(map(_as_float, config)) if isinstance(config, list | tuple) else config
