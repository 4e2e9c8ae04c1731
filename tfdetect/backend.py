"""Keras runs on TensorFlow, torch or jax: what differs. tf.distribute and SavedModels are TensorFlow's alone."""

from collections.abc import Callable
from typing import Any

from tfdetect.errors import UserError


def tensorflow() -> bool:
    """Whether Keras runs on TensorFlow."""
    import keras

    return keras.backend.backend() == "tensorflow"


def require_tensorflow(what: str) -> None:
    """ValueError that says so where Keras runs on anything else."""
    import keras

    if not tensorflow():
        raise UserError(f"{what} needs TensorFlow, but Keras runs on {keras.backend.backend()}; set KERAS_BACKEND=tensorflow.")


def gradient(function: Callable[[Any], Any], x: Any) -> Any:
    """The gradient of `function`, which gives one number, at the tensor `x`; a tensor like it, outside of any training."""
    import keras

    if keras.backend.backend() == "jax":
        import jax

        return jax.grad(function)(x)
    if keras.backend.backend() == "torch":
        import torch

        with torch.enable_grad():
            at = x.detach().requires_grad_(True)
            return torch.autograd.grad(function(at), at)[0]
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(x)
        out = function(x)
    return tape.gradient(out, x)
