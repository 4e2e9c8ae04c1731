"""Keras runs on TensorFlow, torch or jax: what differs. tf.distribute and SavedModels are TensorFlow's alone."""

import json
import os
from collections.abc import Callable
from typing import Any

from tfdetect.errors import UserError


def is_tensorflow() -> bool:
    """Whether Keras runs on TensorFlow."""
    import keras

    return keras.backend.backend() == "tensorflow"


def require_tensorflow(what: str) -> None:
    """ValueError that says so where Keras runs on anything else."""
    import keras

    if not is_tensorflow():
        raise UserError(f"{what} needs TensorFlow, but Keras runs on {keras.backend.backend()}; set KERAS_BACKEND=tensorflow.")


def worker_index() -> int:
    """This process's place in a cluster by TF_CONFIG; 0 is the chief, which alone writes the results, and who is alone.

    The chief is the task of that type, or else worker 0. UserError for a task that does not train, and for what is no JSON.
    """
    try:
        told = json.loads(os.environ.get("TF_CONFIG") or "{}")
        task, chief = told.get("task", {}), bool(told.get("cluster", {}).get("chief"))
        kind, index = task.get("type", "worker"), int(task.get("index", 0))
    except (ValueError, TypeError, AttributeError) as error:
        where = "tensorflow.org/guide/distributed_training#TF_CONFIG"
        raise UserError(f"TF_CONFIG is not the JSON of a cluster and a task ({where}): {error}.") from error
    if kind not in ("chief", "worker"):
        raise UserError(f"TF_CONFIG says that this process is of type {kind!r}; only chief and worker train.")
    return index + (kind == "worker" and chief)


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
