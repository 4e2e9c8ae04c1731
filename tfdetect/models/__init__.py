"""Detectors and what they are made of. Importing this package registers the detectors; none of that imports Keras."""

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
    """The model in a .keras file, to judge with: not compiled, and no layer tells of a loss."""
    import keras

    register()
    try:
        model = keras.saving.load_model(path, compile=False)
    except (ValueError, TypeError, KeyError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        first = str(error).strip().partition("\n")[0][:200]
        raise UserError(f"{path} cannot be loaded: it is damaged, or of another version of tfdetect or Keras ({first}). Copy it "
                        "anew, or train the run again.") from error  # fmt: skip
    for layer in model.layers:
        if hasattr(layer, "telling"):
            layer.telling = False
    return model
