"""Detectors, one a file. Importing this package registers them all; none of that imports Keras."""

import importlib
import pkgutil

PARTS = {"layers"}  # what detectors are made of, and imports Keras

for _, _name, _ in pkgutil.iter_modules(__path__):
    if _name not in PARTS:
        importlib.import_module(f"{__name__}.{_name}")
