"""Let `keras.models.load_model` open a model.keras of this package after `import tfdetect`.

Keras only finds layers that are registered, and registering them imports Keras, which takes seconds. A hook therefore
registers them when something else imports Keras, and `import tfdetect` itself stays fast.
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
    """Register the layers now if Keras is already imported, otherwise as soon as it is."""
    if "keras" in sys.modules:
        register()
    else:
        sys.meta_path.insert(0, _KerasImportHook())


def register() -> None:
    """Import all modules of `tfdetect.models.layers`; each registers its layers on import."""
    for name in LAYER_MODULES:
        importlib.import_module(name)


class _KerasImportHook(MetaPathFinder):
    """Import hook that leaves the import of Keras to the other finders and calls `register` after it."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Return the spec of Keras with `register` appended to its loader, None for any other module."""
        if name != "keras":
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, (finder.find_spec(name, path, target) for finder in others)), None)
        if spec and spec.loader:  # it may only be looked for, as `import tensorflow` does
            exec_module = spec.loader.exec_module

            def exec_and_register(module: Any) -> None:
                exec_module(module)
                if self in sys.meta_path:
                    sys.meta_path.remove(self)
                if not any(name in sys.modules for name in LAYER_MODULES):  # else one of them is importing Keras right now
                    register()

            spec.loader.exec_module = exec_and_register  # type: ignore[method-assign]  # the loader of this import only
        return spec
