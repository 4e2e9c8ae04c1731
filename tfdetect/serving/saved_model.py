"""Load a SavedModel. TensorFlow is imported without Keras, which takes as long to import and which a SavedModel does not need."""

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from threading import get_ident
from types import ModuleType
from typing import Any

import numpy as np

from tfdetect import files, installation
from tfdetect.errors import UserError

LAST_IMPORT = "keras.src.optimizers"  # what `import tensorflow` imports at its end, if it is there


def import_tensorflow() -> ModuleType:
    """Return TensorFlow, imported without Keras unless something else imports that."""
    if "tensorflow" in sys.modules:
        return importlib.import_module("tensorflow")
    import_module, thread = importlib.import_module, get_ident()

    def import_all_but_keras(name: str, package: str | None = None) -> ModuleType:
        if name == LAST_IMPORT and get_ident() == thread:
            raise ImportError(name)  # which TensorFlow expects where Keras is not installed
        return import_module(name, package)

    importlib.import_module = import_all_but_keras
    try:
        import tensorflow as tf
    finally:
        importlib.import_module = import_module
    return tf


def load_saved_model(folder: Path) -> Any:
    """Load the SavedModel in `folder`. Raises UserError if it is damaged; TensorFlow raises many different types for that."""
    tf = import_tensorflow()
    try:
        with files.tensorflow_path(folder) as path:
            return tf.saved_model.load(path)
    except (MemoryError, tf.errors.ResourceExhaustedError):
        raise
    except Exception as error:
        raise UserError(f"{folder} is not a complete SavedModel; re-export it with "
                        f"{installation.command('export', folder.parent)}.") from error  # fmt: skip


def call_signature(signature: Any, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Call a signature of a SavedModel with arrays by the names of its inputs; return its outputs by name."""
    tf = import_tensorflow()
    outputs = signature(**{name: tf.constant(value) for name, value in inputs.items()})
    return {name: value.numpy() for name, value in outputs.items()}
