"""Where a model is trained: tf.distribute strategy, precision, seeds."""

import contextlib
import importlib
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from tfdetect import backend, machine
from tfdetect.errors import UserError

if TYPE_CHECKING:
    from tfdetect.data.input_pipeline import dataset

CUDA_ERRORS = {"Cannot dlopen some GPU libraries": "some CUDA libraries are missing or cannot be loaded",
               "libcudart": "the CUDA runtime cannot be loaded", "libcudnn": "cuDNN cannot be loaded",
               "Could not find cuda drivers": "its driver was not found",  # before cuInit, which then fails as well
               "failed call to cuInit": "its driver does not answer (cuInit fails)"}  # fmt: skip
TITLES = {"tensorflow": "TensorFlow", "torch": "PyTorch", "jax": "JAX"}  # of Keras' backends, as their makers write them


def setup(precision: str, seed: int) -> None:
    """Set the seeds of weights and dropout, deterministic ops and the dtype policy for this process."""
    import keras

    keras.utils.set_random_seed(seed)
    if backend.is_tensorflow():
        tf.config.experimental.enable_op_determinism()
    keras.config.set_dtype_policy(precision)


def strategy(name: str = "auto") -> tf.distribute.Strategy | None:
    """Return the tf.distribute strategy of that name, None for `single`; `auto` mirrors over all GPUs if there are several.

    Raises UserError if TF_CONFIG is missing for `multiworker`, or if no TPU is found.
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
    """A MultiWorkerMirroredStrategy that works with Keras 3's `fit` (keras issue 20585).

    Keras reduces a whole structure at once, and scalars along axis 0; the stock `reduce` takes neither.
    """

    def reduce(self, reduce_op: Any, value: Any, axis: int | None) -> Any:
        def reduce_one(tensor: Any) -> Any:
            local = self.experimental_local_results(tensor)[0]
            if local.dtype == tf.uint8:  # a batch of clips: Keras only wants its shape, and collectives have no uint8
                return local
            return super(MultiWorker, self).reduce(reduce_op, tensor, axis if local.shape.rank else None)

        return tf.nest.map_structure(reduce_one, value)


def distribute(chosen: tf.distribute.Strategy | None, make: "Callable[[dataset.Part | None], tf.data.Dataset]") -> Any:
    """Return batches for Keras: `make(None)`, or where several workers train, `make` of the part that each of them reads."""
    if not isinstance(chosen, MultiWorker):
        return make(None)
    from tfdetect.data.input_pipeline import dataset  # predict, which asks for devices, starts faster without it

    def make_part(context: tf.distribute.InputContext) -> tf.data.Dataset:
        return make(dataset.Part(context.input_pipeline_id, context.num_input_pipelines, context.num_replicas_in_sync))

    return chosen.distribute_datasets_from_function(make_part)


def lowest(chosen: tf.distribute.Strategy | None, value: int) -> int:
    """Return the lowest of the numbers with which all workers call this."""
    if not isinstance(chosen, MultiWorker):
        return value
    return int(tf.reduce_min(chosen.gather(chosen.run(lambda: tf.constant([value])), axis=0)))


@contextlib.contextmanager
def lost_worker_explained(chosen: tf.distribute.Strategy | None) -> Iterator[None]:
    """Raise UserError if another worker ends while this one trains with it."""
    try:
        yield
    except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.InternalError) as error:
        if not isinstance(chosen, MultiWorker):
            raise
        raise UserError("another worker of the cluster was lost: start all of them again with the same commands, and training "
                        f"goes on after the last complete epoch ({error.message.splitlines()[0]}).") from error  # fmt: skip


def scope(chosen: tf.distribute.Strategy | None) -> AbstractContextManager:
    """Return the strategy's scope, or a context manager that does nothing."""
    return contextlib.nullcontext() if chosen is None else chosen.scope()


def worker(chosen: tf.distribute.Strategy | None) -> int:
    """Return the number of this process among the workers; 0 is the chief, which alone writes the results."""
    return backend.worker_index() if isinstance(chosen, MultiWorker) else 0


def describe(precision: str, stderr: str = "", served: bool = False) -> str:
    """Return a line about the devices in use, and a second one if there is an NVIDIA GPU that is not used.

    `stderr` is what the libraries wrote when they were loaded; the reason is found there. With `served`, TensorFlow serves a
    SavedModel, whatever Keras' backend; the line then names neither Keras, which is not imported, nor the precision.
    """
    library = "tensorflow" if served else library_name()
    names, version = gpus(library), importlib.import_module(library).__version__
    software = f"{TITLES[library]} {version}"
    if not served:
        software = f"{precision}; Keras {importlib.import_module('keras').__version__} on {software}"
    cores = machine.available_cores()
    devices = ", ".join(f"{count} GPU{'s' * (count > 1)} ({gpu})" for gpu, count in Counter(names).items()) or "no GPU"
    line = f"{cores} CPU core{'s' * (cores > 1)}, {devices}; {software}"
    if names or are_hidden() or not has_nvidia_gpu():
        return line
    reason, fix = why_no_gpu(stderr, library)
    return f"{line}\n{reason}. Try {fix}."


def library_name() -> str:
    """Return the name of Keras' backend, which is also that of its module."""
    import keras

    return str(keras.backend.backend())


def gpus(library: str | None = None) -> list[str]:
    """Return the names of the GPUs that a library, by default Keras' backend, finds."""
    if (library := library or library_name()) == "torch":
        import torch

        return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    if library == "jax":
        import jax

        return [device.device_kind for device in jax.devices() if device.platform != "cpu"]
    details = map(tf.config.experimental.get_device_details, tf.config.list_physical_devices("GPU"))
    return [detail.get("device_name", "unnamed") for detail in details]


def has_nvidia_gpu() -> bool:
    """Return whether this machine has an NVIDIA GPU, as its driver shows."""
    return Path("/proc/driver/nvidia").exists() or any(Path("/dev").glob("nvidia[0-9]*"))


def are_hidden() -> bool:
    """Return whether the environment hides all GPUs on purpose."""
    return os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")


def why_no_gpu(stderr: str, library: str | None = None) -> tuple[str, str]:
    """Return why a library, by default Keras' backend, uses no GPU, and how to fix it or ""; `stderr` is what the libraries wrote
    when they were loaded."""
    visible, title = os.environ.get("CUDA_VISIBLE_DEVICES"), TITLES[library or library_name()]
    if visible is not None and (are_hidden() or has_nvidia_gpu()):
        return f"CUDA_VISIBLE_DEVICES={visible!r} hides the GPUs", "unset CUDA_VISIBLE_DEVICES"
    if not has_nvidia_gpu():
        if not has_nvidia_hardware():
            return "this machine has no NVIDIA GPU, or the container is not given one", ""
        return ("an NVIDIA GPU is present, but its driver is not loaded",
                "install NVIDIA's driver; start a container with --gpus all")  # fmt: skip
    default = "its driver or CUDA libraries were not found"
    reason = next((text for mark, text in CUDA_ERRORS.items() if mark in stderr), default)
    if title == "TensorFlow" and not tf.test.is_built_with_cuda():
        reason = "this build is for CPUs only"
    fix = {"TensorFlow": "pip install 'tensorflow[and-cuda]'", "JAX": "pip install 'jax[cuda12]'"}
    return f"An NVIDIA GPU is present, but {title} does not use it: {reason}", fix.get(title, "a build of it for CUDA")


def has_nvidia_hardware() -> bool:
    """Return whether an NVIDIA display controller is on the PCI bus, with or without a driver (Linux)."""
    for device in Path("/sys/bus/pci/devices").glob("*"):
        with contextlib.suppress(OSError):
            if (device / "vendor").read_text().strip() == "0x10de" and (device / "class").read_text().startswith("0x03"):
                return True
    return False
