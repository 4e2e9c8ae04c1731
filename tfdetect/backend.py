"""Keras runs on TensorFlow, torch or jax; tf.distribute and SavedModels are TensorFlow's alone."""


def tensorflow() -> bool:
    """Whether Keras runs on TensorFlow."""
    import keras

    return keras.backend.backend() == "tensorflow"


def require_tensorflow(what: str) -> None:
    """ValueError that says so where Keras runs on anything else."""
    import keras

    if not tensorflow():
        raise ValueError(f"{what} needs TensorFlow, but Keras runs on {keras.backend.backend()}; set KERAS_BACKEND=tensorflow.")
