"""Cache of measured file properties, so that an interrupted audit can resume.

A text file with one line of JSON per file: its path, versions and limits, size and modification time, then its
properties. Lines are only ever appended. The last line of a path counts; incomplete and unknown lines are ignored.
"""

import base64
import contextlib
import json
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np

from tfdetect import __version__
from tfdetect.data.media.read import READER_VERSION
from tfdetect.files import size_and_mtime
from tfdetect.limits import Decoding, Limits


class PropertyCache:
    """Properties of files that are unchanged since the same version measured them under the same limits and decoding."""

    def __init__(self, path: Path, limits: Limits, decoding: Decoding):
        self.path, self.settings = path, [__version__, READER_VERSION, *astuple(limits), *astuple(decoding)]
        self.offsets: dict[str, int] = {}  # path -> offset of its line; keeping the lines would take much memory
        with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
            while line := file.readline():
                with contextlib.suppress(ValueError, TypeError, IndexError):
                    self.offsets[str(json.loads(line)[0])] = file.tell() - len(line)

    def find(self, path: str) -> dict[str, Any] | None:
        """Return the properties of a file; None if it must be measured."""
        if path not in self.offsets:
            return None
        with open(self.path, "rb") as file:
            file.seek(self.offsets[path])
            _, settings, saved_state, properties = json.loads(file.readline(), object_hook=decode_array)
        return properties if [settings, saved_state] == [self.settings, size_and_mtime(path)] else None

    def add(self, path: str, properties: dict[str, Any]) -> None:
        """Append the properties of a file, unless it failed; failed files are tried again."""
        if properties["error"]:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps([path, self.settings, size_and_mtime(path), properties], default=encode)
        with open(self.path, "ab") as file:
            file.write(f"\n{line}".encode())  # the newline comes first, because a killed process may have left half a line


def encode(value: Any) -> Any:
    """Return what JSON has instead of an array or a NumPy number, as `default` of `json.dumps`."""
    if isinstance(value, np.ndarray):
        return {"dtype": value.dtype.str, "shape": value.shape, "bytes": base64.b64encode(value.tobytes()).decode()}
    return value.item()


def decode_array(tree: dict[str, Any]) -> Any:
    """Return the array that `encode` has replaced by this object, or the object, as `object_hook` of `json.loads`."""
    if set(tree) != {"dtype", "shape", "bytes"}:
        return tree
    return np.frombuffer(base64.b64decode(tree["bytes"]), tree["dtype"]).reshape(tree["shape"])
