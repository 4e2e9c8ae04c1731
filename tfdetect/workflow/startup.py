"""What comes before anything else, on the command line and in Python alike: the environment of the libraries, and plugins."""

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from tfdetect import plugins
from tfdetect.errors import UserError


def start(plugin_files: str | Path | Iterable[str | Path] = (), installed: bool = True) -> None:
    """Set the defaults of the environment, and load these plugin files and, if `installed`, the plugins of installed packages.

    Raises UserError on Windows, and for a plugin that cannot be loaded.
    """
    if sys.platform == "win32":
        raise UserError("tfdetect runs on Linux and macOS; on Windows, run it inside WSL 2.")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported anywhere
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    plugins.load(as_paths(plugin_files), installed)


def as_paths(given: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Return one path or several as a list. Raises UserError for anything else, and for an empty path, which would mean the
    current folder."""
    several = [given] if isinstance(given, str | os.PathLike) or not isinstance(given, Iterable) else list(given)
    if wrong := [path for path in several if not isinstance(path, str | os.PathLike) or not str(path)]:
        raise UserError(f"Expected the path of a file or folder, or several, got {wrong[0]!r}.")
    return list(map(Path, several))
