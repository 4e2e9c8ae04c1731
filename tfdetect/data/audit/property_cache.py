"""The properties of files, kept as they are measured: an audit that was interrupted goes on where it was.

A text file, a line of JSON for each file: what it is known by (path, size, time of change), then what was found. Lines are only
ever added; the last of a path counts, and a torn or foreign line is passed over.
"""

import base64
import contextlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from tfdetect import __version__
from tfdetect.data.media.read import READER_VERSION
from tfdetect.files import size_and_mtime
from tfdetect.limits import Limits


class PropertyCache:
    """What is known of files that have not changed since, under the same limits, by the same version."""

    def __init__(self, path: Path, limits: Limits):
        self.path, self.made = path, [__version__, READER_VERSION, *asdict(limits).values()]
        self.places: dict[str, int] = {}  # path -> where its line begins: the lines themselves would take much memory
        with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
            while line := file.readline():
                with contextlib.suppress(ValueError, TypeError, IndexError):
                    self.places[str(json.loads(line)[0])] = file.tell() - len(line)

    def find(self, path: str) -> dict[str, Any] | None:
        """The properties of a file; None where they are to be measured."""
        if path not in self.places:
            return None
        with open(self.path, "rb") as file:
            file.seek(self.places[path])
            _, made, known, found = json.loads(file.readline(), object_hook=_decode_array)
        return found if [made, known] == [self.made, size_and_mtime(path)] else None

    def add(self, path: str, found: dict[str, Any]) -> None:
        """Keep those of a file that was read; any other is tried again."""
        if found["error"]:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps([path, self.made, size_and_mtime(path), found], default=_encode)
        with open(self.path, "ab") as file:
            file.write(f"\n{line}".encode())  # a new line first: a killed process may have left half of one


def _encode(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {"dtype": value.dtype.str, "shape": value.shape, "bytes": base64.b64encode(value.tobytes()).decode()}
    return value.item()


def _decode_array(tree: dict[str, Any]) -> Any:
    if set(tree) != {"dtype", "shape", "bytes"}:
        return tree
    return np.frombuffer(base64.b64decode(tree["bytes"]), tree["dtype"]).reshape(tree["shape"])
