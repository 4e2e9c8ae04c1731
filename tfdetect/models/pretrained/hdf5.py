"""Load published weights: find or download the file, and read it from HDF5 by names and shapes alone.

A Keras `.h5` file may contain code that Keras would run (`safe_mode` does not apply to it). Here, h5py reads only arrays, and
only those whose shapes match. Links and data in other files are refused (CVE-2026-1669).
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tfdetect.errors import UserError
from tfdetect.models.pretrained.stored_array import StoredArray

ROLES = ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance", "depthwise_kernel", "pointwise_kernel")


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights to download."""

    url: str
    hash: str  # MD5 or SHA-256

    def download(self) -> Path:
        """Return the file in Keras' download folder, downloaded if needed.

        Raises UserError that says which file to put where.
        """
        import keras

        name = self.url.rsplit("/", 1)[1]
        folder = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "models"
        try:
            return Path(keras.utils.get_file(name, self.url, file_hash=self.hash, cache_subdir="models"))
        except Exception as error:  # get_file raises a bare Exception if the server does not answer
            reason = " ".join(str(error).split(" -- ")[-1].split())
            raise UserError(
                f"The ImageNet weights are not on this machine and could not be downloaded ({reason}). "
                f"Download {self.url} on another machine and put it into {folder}, or give its path "
                "as --detector.weights FILE; --detector.weights none starts from random weights."
            ) from error


def resolve_weights(weights: str | Path, imagenet_weights: WeightsFile | None) -> Path | None:
    """Return the file that `--detector.weights` names by `imagenet`, `none` or a path; None for `none`.

    Raises UserError if the file is missing.
    """
    if weights == "imagenet" and imagenet_weights:
        return imagenet_weights.download()
    if weights == "none":
        return None
    path = Path(weights)
    if not path.is_file():
        raise UserError(f"--detector.weights {path} is not a file; expected imagenet, none, or a file of "
                        "weights (.h5, .keras, .safetensors, .pth).")  # fmt: skip
    return path


def read(path: Path) -> list[StoredArray]:
    """Return the arrays of a file as written by Keras 1 and 2. Raises UserError for another format, links, or other files."""
    import h5py

    with h5py.File(path, "r") as file:
        layers = file.get("model_weights", file)
        if "layer_names" not in layers.attrs:
            raise UserError("it has no attribute layer_names, which the HDF5 files of Keras 1 and 2 have")
        return [stored for layer in _decode(layers.attrs["layer_names"]) for stored in _read_layer(path, layers, layer)]


def _read_layer(path: Path, layers: Any, layer: str) -> Iterator[StoredArray]:
    group = _get_local(layers, layer)
    for name in _decode(group.attrs["weight_names"]):
        dataset = _get_local(group, name)
        if dataset.external or dataset.is_virtual:
            raise UserError(f"{name} points at another file")
        role = name.rpartition("/")[2].removesuffix(":0")
        # Keras 3 does not allow slashes in names.
        yield StoredArray(layer.replace("/", "_"), role if role in ROLES else "", f"{layer} {name}", tuple(dataset.shape),
                          partial(_load, path, dataset.name))  # fmt: skip


def _load(path: Path, name: str) -> Any:
    import h5py

    with h5py.File(path, "r") as file:
        return file[name][()]


def _get_local(group: Any, name: str) -> Any:
    """Return the object of that name if it is in this file itself, not behind a link."""
    import h5py

    item = group
    for part in name.split("/"):
        if not isinstance(item.get(part, getlink=True), h5py.HardLink):
            raise UserError(f"{name} is missing, or a link")
        item = item[part]
    return item


def _decode(names: Any) -> list[str]:
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]
