"""Detectors, one a file. Importing this package registers them all; none of that imports Keras."""

import importlib
import pkgutil
from os import PathLike
from typing import TYPE_CHECKING

from tfdetect.layers_known import PARTS, register

if TYPE_CHECKING:
    import keras

for _, _name, _ in pkgutil.iter_modules(__path__):
    if _name not in PARTS:
        importlib.import_module(f"{__name__}.{_name}")


def load(path: str | PathLike[str]) -> "keras.Model":
    """The model in a .keras file, to judge with: not compiled, and no layer tells of a loss."""
    import keras

    register()
    model = keras.saving.load_model(path, compile=False)
    for layer in model.layers:
        if hasattr(layer, "telling"):
            layer.telling = False
    return model
