"""Detectors and their building blocks. Importing this package registers the detectors but does not import Keras."""

import importlib
import pkgutil
import zipfile
import zlib
from os import PathLike
from typing import TYPE_CHECKING

from tfdetect import plugins
from tfdetect.errors import UserError
from tfdetect.keras_layers import register
from tfdetect.models import detectors

if TYPE_CHECKING:
    import keras

for _module in pkgutil.iter_modules(detectors.__path__):
    try:
        importlib.import_module(f"{detectors.__name__}.{_module.name}")
    except Exception as _error:  # the other detectors still work
        plugins.leave_out(f"{detectors.__path__[0]}/{_module.name}.py", _error)
plugins.load_installed(["tfdetect.detectors"])


def load(path: str | PathLike[str]) -> "keras.Model":
    """Load a .keras file for inference: not compiled, and without the losses that layers add in training.

    Raises UserError for a damaged file, or one from an incompatible version.
    """
    import keras

    register()
    try:
        model = keras.saving.load_model(path, compile=False)
    except (ValueError, TypeError, KeyError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = str(error).strip().partition("\n")[0][:200]
        raise UserError(f"{path} cannot be loaded: it is damaged, or from another version of tfdetect or Keras ({reason}). Copy "
                        "it again, or repeat the training run.") from error  # fmt: skip
    for layer in model.layers:
        if hasattr(layer, "adds_loss"):
            layer.adds_loss = False
    return model
