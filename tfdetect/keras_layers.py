"""After `import tfdetect`, `keras.models.load_model` opens a model.keras of this suite.

Keras finds the layers of another package only once they are registered, which takes an import of Keras: seconds. So they are
registered as soon as something imports Keras, and not before: `import tfdetect` itself stays quick.
"""

import importlib
import importlib.util
import pkgutil
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

LAYER_MODULES = [f"tfdetect.models.layers.{module.name}"
          for module in pkgutil.iter_modules([str(Path(__file__).parent / "models" / "layers")])]  # fmt: skip


def register_on_keras_import() -> None:
    """Register the layers now if Keras is imported, else as soon as it is."""
    if "keras" in sys.modules:
        register()
    else:
        sys.meta_path.insert(0, _KerasImportHook())


def register() -> None:
    """Import the modules in `tfdetect.models.layers`, each of which registers its layers."""
    for name in LAYER_MODULES:
        importlib.import_module(name)


class _KerasImportHook(MetaPathFinder):
    """Leaves the import of Keras to the other finders, and calls `register` after it."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name != "keras":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec and spec.loader:
            execute = spec.loader.exec_module

            def and_register(module: Any) -> None:
                execute(module)
                if not any(name in sys.modules for name in LAYER_MODULES):  # else one of them is importing Keras
                    register()

            spec.loader.exec_module = and_register  # type: ignore[method-assign]
        return spec
