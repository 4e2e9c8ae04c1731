"""What depends on the Keras backend: TensorFlow, torch or jax. Only TensorFlow has tf.distribute and SavedModels."""

import json
import os
from collections.abc import Callable
from typing import Any

from tfdetect.errors import UserError


def is_tensorflow() -> bool:
    """Return whether Keras runs on TensorFlow."""
    import keras

    return keras.backend.backend() == "tensorflow"


def require_tensorflow(feature: str) -> None:
    """Raise UserError if Keras runs on another backend than TensorFlow; `feature` begins the message."""
    import keras

    if not is_tensorflow():
        backend = keras.backend.backend()
        raise UserError(f"{feature} needs TensorFlow, but Keras runs on {backend}; set KERAS_BACKEND=tensorflow.")


def worker_index() -> int:
    """Return the index of this process in the cluster described by TF_CONFIG; 0 is the chief and a process without a cluster.

    Only the chief writes results. It is the task of type "chief" or, if there is none, worker 0. Raises UserError if
    TF_CONFIG is not valid or gives this process a task type that does not train.
    """
    try:
        settings = json.loads(os.environ.get("TF_CONFIG") or "{}")
        task, has_chief = settings.get("task", {}), bool(settings.get("cluster", {}).get("chief"))
        task_type, index = task.get("type", "worker"), int(task.get("index", 0))
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"TF_CONFIG is not valid ({error}); expected JSON with a cluster and a task, as described at "
                        "tensorflow.org/guide/distributed_training#TF_CONFIG.") from error  # fmt: skip
    if task_type not in ("chief", "worker"):
        raise UserError(f"TF_CONFIG gives this process the task type {task_type!r}; only chief and worker train.")
    return index + (task_type == "worker" and has_chief)


def gradient(function: Callable[[Any], Any], x: Any) -> Any:
    """Return the gradient of the scalar-valued `function` at the tensor `x`, with the shape and dtype of `x`.

    Works outside of `fit`, on any backend.
    """
    import keras

    if keras.backend.backend() == "jax":
        import jax

        return jax.grad(function)(x)
    if keras.backend.backend() == "torch":
        import torch

        with torch.enable_grad():
            leaf = x.detach().requires_grad_(True)
            return torch.autograd.grad(function(leaf), leaf)[0]
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    return tape.gradient(y, x)
