"""Where a model is trained: tf.distribute strategy, precision, seeds."""

import contextlib
import os

import keras
import tensorflow as tf

from tfdetect import backend
from tfdetect.errors import UserError


def setup(precision, seed):
    """Seeds (weights, dropout), deterministic ops and the dtype policy, for this process."""
    keras.utils.set_random_seed(seed)
    if backend.tensorflow():
        tf.config.experimental.enable_op_determinism()
    keras.config.set_dtype_policy(precision)


def strategy(name="auto"):
    """The tf.distribute strategy of that name. `auto` mirrors over all GPUs, with none or one it is `single`.

    Raises ValueError where `multiworker` lacks TF_CONFIG, or no TPU answers.
    """
    if name not in ("auto", "single"):
        backend.require_tensorflow(f"--train.strategy {name}")
    if name == "auto" and backend.tensorflow():
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
    resolver = getattr(chosen, "cluster_resolver", None)
    return (resolver.task_id or 0) if isinstance(chosen, MultiWorker) and resolver else 0
