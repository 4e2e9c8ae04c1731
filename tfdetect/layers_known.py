"""After `import tfdetect`, `keras.models.load_model` opens a model.keras of this suite.

Keras finds a layer of another package only where that was registered, which takes an import of Keras: seconds. So it is done
as soon as Keras is there, and not before: `import tfdetect` itself stays quick.
"""

import importlib
import importlib.util
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from typing import Any

PARTS = ("layers", "highpass", "head_layers", "resample", "evidence", "describe")  # of models/: what detectors are made of


def to_keras() -> None:
    """Register the layers now, where Keras is imported, else when it will be."""
    if "keras" in sys.modules:
        register()
    else:
        sys.meta_path.insert(0, _AfterKeras())


def register() -> None:
    """Import all of PARTS, each of which registers what it holds."""
    for part in PARTS:
        importlib.import_module(f"tfdetect.models.{part}")


class _AfterKeras(MetaPathFinder):
    """Lets others find Keras, and has `register` follow its import."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name != "keras":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec and spec.loader:
            execute = spec.loader.exec_module

            def and_register(module: Any) -> None:
                execute(module)
                if not any(f"tfdetect.models.{part}" in sys.modules for part in PARTS):  # else one of them asked for Keras
                    register()

            spec.loader.exec_module = and_register  # type: ignore[method-assign]
        return spec
