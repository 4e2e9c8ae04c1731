"""Detectors and their building blocks. Importing this package registers the detectors but does not import Keras."""

import importlib
import pkgutil
import tempfile
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
    except (Exception, SystemExit) as _error:  # the other detectors still work
        plugins.leave_out(f"{detectors.__path__[0]}/{_module.name}.py", _error)
plugins.load_installed(["tfdetect.detectors"])


def require_reloadable(model: "keras.Model") -> None:
    """Save and reload a model of a detector from outside of the suite, before it is trained. Raises UserError if that fails."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/model.keras"
        try:
            model.save(path)
            load(path)
        except Exception as error:  # whatever a layer of somebody else's raises
            reason = " ".join(str(error.__cause__ or error).split())[:300]
            raise UserError(f"The model {model.name} cannot be saved and loaded again ({reason}). Define custom layers at module "
                            "level, with @keras.saving.register_keras_serializable(), and use no Lambda layer.") from error


def load(path: str | PathLike[str]) -> "keras.Model":
    """Load a .keras file for inference: not compiled, and without the losses that layers add in training.

    Raises UserError for a damaged file, one from an incompatible version, and one that holds program code, as Lambda layers do.
    """
    import keras

    from tfdetect.models.pretrained import fast_blocks
    from tfdetect.models.pretrained.initial_weights import no_random_weights

    register()
    try:
        with no_random_weights():
            model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except (ValueError, TypeError, KeyError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = str(error).strip().partition("\n")[0][:200]
        if "`Lambda`" in reason:
            raise UserError(f"{path} has a Lambda layer, which is program code that would run here; no such file is loaded. "
                            "Write the layer as a class that a plugin registers with Keras.") from error  # fmt: skip
        raise UserError(f"{path} cannot be loaded: it is damaged, or from another version of tfdetect or Keras ({reason}). Copy "
                        "it again, or repeat the training run.") from error  # fmt: skip
    for layer in model.layers:
        if hasattr(layer, "adds_loss"):
            layer.adds_loss = False
    fast_blocks.speed_up(model)
    return model
