"""Detectors, layouts and corruptions from outside the package: from installed packages or single files (`--plugin FILE.py`).

A plugin is a module that registers something when it is imported: a detector with `@detector.register`, a layout with
`@tree.layout`, or a corruption with `@corruption_spec.register` (see CONTRIBUTING.md and docs/augment.md).
"""

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path

from tfdetect.errors import UserError

GROUPS = ("tfdetect.detectors", "tfdetect.layouts", "tfdetect.corruptions")
FLAG = "--plugin"
PREFIX = "tfdetect_plugin_"  # of the module names of single files


def take_flags(argv: Sequence[str]) -> tuple[list[str], list[Path]]:
    """Return the command line without its `--plugin FILE` flags, and the files they name."""
    rest: list[str] = []
    files: list[Path] = []
    words = iter(argv)
    for word in words:
        flag, equals, value = word.partition("=")
        if flag != FLAG:
            rest.append(word)
        elif file := value if equals else next(words, ""):
            files.append(Path(file))
        else:
            raise UserError(f"{FLAG} needs the path of a Python file.")
    return rest, files


def load(files: Sequence[Path], installed: bool = True) -> None:
    """Load these files and, if `installed`, the plugins of installed packages.

    The suite's own detectors and layouts, whose names they cannot take, are loaded first.
    """
    groups = ["tfdetect.layouts", "tfdetect.corruptions"]
    if files or (installed and are_installed(groups)):
        for name in ("tfdetect.models", "tfdetect.data.layouts.detect"):
            importlib.import_module(name)
    if installed:
        load_installed(groups)
    for file in files:
        load_file(file)


def load_file(path: Path) -> None:
    """Import a plugin file, once. Raises UserError if it does not exist or cannot be imported."""
    path = path.expanduser().resolve()
    if path in loaded_files():
        return
    if not path.is_file():
        raise UserError(f"There is no plugin {path}; give the path of a Python file with {FLAG}.")
    name = f"{PREFIX}{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"The plugin {path} is not a Python file: its name must end in .py.")
    sys.modules[name] = module = importlib.util.module_from_spec(spec)  # before it runs, as dataclasses look it up there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise UserError(f"The plugin {path} cannot be imported: {reason(error)}.") from error


def load_saved(paths: Sequence[Path], registered: bool, run: Path | None = None) -> None:
    """Load the plugins that a config.yaml names.

    A plugin that was moved may have been given with `--plugin` before. If the run's detector is `registered` already, a plugin
    that cannot be loaded is skipped: it may have become part of the suite. `run` is the folder of a run, which names plugins by
    the absolute paths that they had in training: any other came with the run, and is imported only if `--plugin` gives it.
    """
    names = {path.name for path in loaded_files()}
    for path in paths:
        if path.name in names:
            continue
        if run and (not path.is_absolute() or path.resolve().is_relative_to(run.resolve())):
            raise UserError(f"{run} names the plugin {path}, which came with it: program code of whoever made the run. If you "
                            f"trust it, give its path with {FLAG}.")  # fmt: skip
        if registered and not path.is_file():
            continue
        if not path.is_file():
            raise UserError(f"This run needs the plugin {path}, which does not exist; give its new path with {FLAG}.")
        try:
            load_file(path)
        except UserError:
            if not registered:
                raise


def loaded_files() -> list[Path]:
    """Return the plugin files imported so far, in that order."""
    return [Path(str(module.__file__)) for name, module in sys.modules.items() if name.startswith(PREFIX)]


def are_installed(groups: Sequence[str] = GROUPS) -> bool:
    """Return whether any installed package has plugins in these groups of entry points."""
    return any(entry_points(group=group) for group in groups)


def load_installed(groups: Sequence[str] = GROUPS) -> None:
    """Import the plugins of installed packages, by entry points. One that fails is named on stderr and left out."""
    for group in groups:
        for entry in entry_points(group=group):
            try:
                entry.load()
            except (Exception, SystemExit) as error:
                leave_out(f"the plugin {entry.name} ({entry.value})", error)


def find_source(error: BaseException) -> Path | None:
    """Return the plugin file in whose code an error was raised, if any."""
    files, traceback, found = loaded_files(), error.__traceback__, None
    while traceback:
        if (path := Path(traceback.tb_frame.f_code.co_filename)) in files:
            found = path
        traceback = traceback.tb_next
    return found


def leave_out(what: str, error: BaseException) -> None:
    """Say on stderr that something could not be imported and is left out."""
    print(f"tfdetect: {what} cannot be imported and is left out: {reason(error)}.", file=sys.stderr)


def reason(error: BaseException) -> str:
    """Return an error with its type and, for a file's own error, its line."""
    if isinstance(error, SyntaxError):
        return f"SyntaxError: {error.msg} (line {error.lineno})"
    lines, traceback = [], error.__traceback__
    while traceback:
        if traceback.tb_frame.f_code.co_name == "<module>":
            lines.append(traceback.tb_lineno)
        traceback = traceback.tb_next
    return f"{type(error).__name__}: {error}".rstrip(".") + (f" (line {lines[-1]})" if lines else "")
