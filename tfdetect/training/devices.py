"""Where a model is trained: tf.distribute strategy, precision, seeds."""

import contextlib
import importlib
import os
from collections import Counter
from pathlib import Path

import keras
import tensorflow as tf

from tfdetect import backend
from tfdetect.errors import UserError


def setup(precision, seed):
    """Seeds (weights, dropout), deterministic ops and the dtype policy, for this process."""
    keras.utils.set_random_seed(seed)
    if backend.is_tensorflow():
        tf.config.experimental.enable_op_determinism()
    keras.config.set_dtype_policy(precision)


def strategy(name="auto"):
    """The tf.distribute strategy of that name. `auto` mirrors over all GPUs, with none or one it is `single`.

    Raises ValueError where `multiworker` lacks TF_CONFIG, or no TPU answers.
    """
    if name not in ("auto", "single"):
        backend.require_tensorflow(f"--train.strategy {name}")
    if name == "auto" and backend.is_tensorflow():
        name = "mirrored" if len(tf.config.list_logical_devices("GPU")) > 1 else "single"
    if name in ("auto", "single"):
        return None
    if name == "mirrored":
        devices = [device.name for kind in ("GPU", "CPU") for device in tf.config.list_logical_devices(kind)]
        gpus = [device for device in devices if "GPU" in device]
        return tf.distribute.MirroredStrategy(gpus or devices)
    if name == "multiworker":
        if not os.environ.get("TF_CONFIG"):
            raise UserError(
                "--train.strategy multiworker needs TF_CONFIG, the JSON with the cluster's addresses and this worker's "
                "index (tensorflow.org/guide/distributed_training#TF_CONFIG), in each worker's environment."
            )
        return MultiWorker()
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect(tpu="local")
    except (ValueError, tf.errors.OpError) as error:
        raise UserError(f"--train.strategy tpu found no TPU: {error}.") from error
    return tf.distribute.TPUStrategy(resolver)


class MultiWorker(tf.distribute.MultiWorkerMirroredStrategy):
    """MultiWorkerMirroredStrategy with which Keras 3 can fit (keras issue 20585).

    Keras reduces a whole structure at once, and scalars along axis 0; the stock `reduce` takes neither.
    """

    def reduce(self, reduce_op, value, axis):
        def one(part):
            local = self.experimental_local_results(part)[0]
            if local.dtype == tf.uint8:  # a batch of clips: Keras wants only its shape, and collectives know no uint8
                return local
            return super(MultiWorker, self).reduce(reduce_op, part, axis if local.shape.rank else None)

        return tf.nest.map_structure(one, value)


def scope(chosen):
    """The strategy's scope, or one that does nothing."""
    return contextlib.nullcontext() if chosen is None else chosen.scope()


def worker(chosen):
    """Number of this process among the workers; 0 is the chief, which alone writes the results."""
    return backend.worker_index() if isinstance(chosen, MultiWorker) else 0


def describe(precision, chatter=""):
    """What is computed on, a line; and where an NVIDIA GPU is there but not used, a second one that says why, as far as
    `chatter`, what the libraries wrote to stderr when they were loaded, tells."""
    name, found = keras.backend.backend(), gpus()
    module = importlib.import_module(name)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    title = {"tensorflow": "TensorFlow", "torch": "PyTorch", "jax": "JAX"}.get(name, name)
    devices = ", ".join(f"{count} GPU{'s' * (count > 1)} ({gpu})" for gpu, count in Counter(found).items()) or "no GPU"
    line = (f"{cores} CPU core{'s' * (cores > 1)}, {devices}; {precision}; Keras {keras.__version__} on {title} "
            f"{module.__version__}")  # fmt: skip
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    return line if found or hidden or not nvidia() else f"{line}\n{unused(title, chatter)}"


def gpus():
    """Names of the GPUs that Keras' backend finds."""
    if keras.backend.backend() == "torch":
        import torch

        return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    if keras.backend.backend() == "jax":
        import jax

        return [device.device_kind for device in jax.devices() if device.platform != "cpu"]
    details = map(tf.config.experimental.get_device_details, tf.config.list_physical_devices("GPU"))
    return [about.get("device_name", "of unknown name") for about in details]


def nvidia():
    """Whether this machine has an NVIDIA GPU, by its driver."""
    return Path("/proc/driver/nvidia").exists() or any(Path("/dev").glob("nvidia[0-9]*"))


def unused(title, chatter):
    """Why an NVIDIA GPU is not used, and what helps."""
    why = next((said for mark, said in TROUBLE.items() if mark in chatter), "its driver or CUDA libraries were not found")
    how = {"TensorFlow": "pip install 'tensorflow[and-cuda]'", "JAX": "pip install 'jax[cuda12]'"}
    return f"An NVIDIA GPU is there, but {title} does not use it: {why}. Try {how.get(title, 'a build of it for CUDA')}."


TROUBLE = {"Cannot dlopen some GPU libraries": "some CUDA libraries are missing or cannot be loaded",
           "libcudart": "the CUDA runtime cannot be loaded", "libcudnn": "cuDNN cannot be loaded",
           "failed call to cuInit": "its driver does not answer (cuInit fails)",
           "Could not find cuda drivers": "its driver was not found"}  # fmt: skip
