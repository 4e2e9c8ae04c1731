"""tfdetect: tell recorded images and videos from generated or manipulated ones.

In Python:

    detector = tfdetect.train("cnn", data="DIR", size=256, epochs=20)
    detector = tfdetect.load("saved_models/cnn")
    detector.predict(["a.jpg", "b.mp4"])

docs/python.md describes all functions; each takes the flags of the command of its name as keywords.
"""

import importlib
from typing import TYPE_CHECKING, Any

from tfdetect import keras_layers
from tfdetect.errors import UserError

if TYPE_CHECKING:
    from tfdetect.api.audit import audit
    from tfdetect.api.cache import cache
    from tfdetect.api.calibrate import calibrate
    from tfdetect.api.doctor import doctor
    from tfdetect.api.evaluate import evaluate
    from tfdetect.api.load import load
    from tfdetect.api.manifest import manifest
    from tfdetect.api.origin import origin
    from tfdetect.api.prepare import prepare
    from tfdetect.api.reproduce import reproduce
    from tfdetect.api.runs import runs
    from tfdetect.api.sample import sample
    from tfdetect.api.train import train

__all__ = ["UserError", "audit", "cache", "calibrate", "doctor", "evaluate", "load", "manifest", "origin", "prepare", "reproduce",
           "runs", "sample", "train"]  # fmt: skip
__version__ = "0.1.0"

keras_layers.register_on_keras_import()


def __getattr__(name: str) -> Any:
    """Import a function when it is first used, so that `import tfdetect` stays fast."""
    if name not in __all__:
        raise AttributeError(f"module 'tfdetect' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(f"tfdetect.api.{name}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
