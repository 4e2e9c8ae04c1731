"""Detectors, one a file. Importing this package registers them all; none of that imports Keras."""

import importlib
import pkgutil
from os import PathLike
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

PARTS = {"layers", "highpass", "head_layers", "resample"}  # what detectors are made of, and imports Keras

for _, _name, _ in pkgutil.iter_modules(__path__):
    if _name not in PARTS:
        importlib.import_module(f"{__name__}.{_name}")


def load(path: str | PathLike[str]) -> "keras.Model":
    """The model in a .keras file, not compiled. Its layers are made known first: Keras finds them by their names."""
    import keras

    for part in PARTS:
        importlib.import_module(f"{__name__}.{part}")
    return keras.saving.load_model(path, compile=False)
