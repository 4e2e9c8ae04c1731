"""The installation: versions, packages and whether they can be imported, optional parts, plugins, environment variables."""

import importlib
import os
import platform
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING

from tfdetect import __version__, plugins
from tfdetect.workflow.doctor.finding import PACKAGE, Finding, import_cause, module_of, shortage, without_folders

if TYPE_CHECKING:
    from packaging.requirements import Requirement

OPTIONAL = {"beam": ("apache-beam", "pip install 'tfdetect[beam]'"), "torch": ("torch", "pip install torch"),
            "jax": ("jax", "pip install jax"), "transformers": ("transformers", "pip install transformers")}  # fmt: skip
CUDA = "tensorflow[and-cuda]"
SHOWN_VARIABLES = ("CUDA_VISIBLE_DEVICES", "TF_FORCE_GPU_ALLOW_GROWTH", "TF_ENABLE_ONEDNN_OPTS", "XLA_FLAGS",
                   "JAX_PLATFORMS", "OMP_NUM_THREADS", "MALLOC_ARENA_MAX")  # fmt: skip
NAMED_VARIABLES = ("LD_LIBRARY_PATH", "LD_PRELOAD", "PYTHONPATH", "TF_CONFIG", "TMPDIR", "KERAS_HOME")  # values may be private


def check_versions() -> Iterator[Finding]:
    """Yield the versions of tfdetect, Python and the system, and the environment variables that change what happens."""
    environment = "virtual environment" if sys.prefix != sys.base_prefix else "no virtual environment"
    container = ", in a container" if Path("/.dockerenv").exists() or Path("/run/.containerenv").exists() else ""
    libc = " ".join(platform.libc_ver()).strip()
    yield Finding("system", "tfdetect", detail=__version__)
    yield Finding("system", "Python", detail=f"{platform.python_implementation()} {platform.python_version()}, {environment}")
    names = (platform.system(), platform.release(), platform.machine(), libc)
    yield Finding("system", "platform", detail=" ".join(filter(None, names)) + container)
    shown = [f"{name}={os.environ[name]}" for name in SHOWN_VARIABLES if name in os.environ]
    shown += [f"{name} is set" for name in NAMED_VARIABLES if name in os.environ]
    yield Finding("system", "environment", detail=", ".join(shown) or "no variable of interest is set")


@cache
def requirements() -> "Mapping[str, Requirement]":
    """Return what tfdetect needs on this platform, by name: from the checkout, or from the metadata of the installed package."""
    from packaging.requirements import Requirement

    file = PACKAGE.parent / "requirements.txt"
    if file.exists():
        lines = [line.partition("#")[0].strip() for line in file.read_text().splitlines()]
    else:
        lines = metadata.requires("tfdetect") or []
    parsed = [Requirement(line) for line in lines if line]
    return {item.name: item for item in parsed if not item.marker or item.marker.evaluate({"extra": ""})}


def check_import(name: str) -> Iterator[Finding]:
    """Check that a required package has an allowed version and can be imported."""
    requirement = requirements()[name]
    wanted = f"{name}{requirement.specifier}"
    module = module_of(name)
    version = version_of(name)
    if not version and not util.find_spec(module):
        yield Finding("packages", name, "problem", "is not installed", f"pip install '{wanted}'")
        return
    try:
        importlib.import_module(module)
    except Exception as error:
        if shortage(f"{type(error).__name__}: {error}"):
            raise
        reason = f"{version} cannot be imported: {without_folders(f'{type(error).__name__}: {error}')}"
        yield Finding("packages", name, "problem", reason, import_advice(str(error), wanted), cause=import_cause(error))
        return
    if version and not requirement.specifier.contains(version, prereleases=True):
        yield Finding("packages", name, "problem", f"{version} is installed, tfdetect needs {requirement.specifier}",
                      f"pip install '{wanted}'")  # fmt: skip
        return
    yield Finding("packages", name, detail=version or "found, but not as an installed package")


def version_of(name: str) -> str:
    """Return the version of an installed package, or ""."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def import_advice(error: str, wanted: str) -> str:
    """Return how to repair a package that cannot be imported."""
    if library := re.search(r"(lib[\w.+-]+\.so[.\d]*): cannot open shared object", error):
        return f"Install the system library {library[1]} with the package manager of this system."
    if missing := re.search(r"No module named '([\w]+)", error):
        return f"pip install {missing[1]}, or pip install --force-reinstall '{wanted}'"
    return f"pip install --force-reinstall '{wanted}'"


def check_optional(required: Sequence[str]) -> Iterator[Finding]:
    """Yield which optional parts are installed; those that are `required` are imported elsewhere, in a child."""
    for check, (name, advice) in OPTIONAL.items():
        if not is_present(check):
            yield Finding("optional", check, "absent", "", advice)
        elif check not in required:
            yield Finding("optional", check, detail=version_of(name))
    needed = cuda_packages()
    present = [name for name in needed if version_of(name)]
    if needed and len(present) == len(needed):
        yield Finding("optional", CUDA, detail="installed")
    else:
        partly = f"{len(present)} of {len(needed)} packages are installed" if present else ""
        yield Finding("optional", CUDA, "warning" if present else "absent", partly, f"For an NVIDIA GPU: pip install '{CUDA}'")


def is_present(check: str) -> bool:
    """Return whether the optional part of this name is an installed package."""
    return check in OPTIONAL and bool(version_of(OPTIONAL[check][0]))


def cuda_packages() -> list[str]:
    """Return the names of the CUDA packages that TensorFlow's extra installs on this platform."""
    from packaging.requirements import Requirement

    try:
        parsed = map(Requirement, metadata.requires("tensorflow") or [])
    except metadata.PackageNotFoundError:
        return []
    marked = [(item.name, item.marker) for item in parsed if item.marker]
    return [name for name, marker in marked if marker.evaluate({"extra": "and-cuda"}) and not marker.evaluate({"extra": ""})]


def check_optional_import(check: str) -> Iterator[Finding]:
    """Check that an optional part that is asked for can be imported."""
    name = OPTIONAL[check][0]
    try:
        importlib.import_module(module_of(name))
    except Exception as error:
        detail = f"{version_of(name)} cannot be imported: {without_folders(plugins.reason(error))}"
        yield Finding("optional", check, "problem", detail, import_advice(str(error), name))
        return
    yield Finding("optional", check, detail=version_of(name))


def list_plugins() -> list[str]:
    """Return the plugins of installed packages as GROUP:NAME."""
    return [f"{group}:{entry.name}" for group in plugins.GROUPS for entry in metadata.entry_points(group=group)]


def check_plugin(key: str) -> Iterator[Finding]:
    """Check that a plugin of an installed package can be imported."""
    importlib.import_module("tfdetect.models")  # the suite's own detectors and layouts first, whose names a plugin cannot take
    importlib.import_module("tfdetect.data.layouts.detect")
    group, _, name = key.partition(":")
    (entry, *_) = metadata.entry_points(group=group, name=name)
    package = f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value
    try:
        entry.load()
    except (Exception, SystemExit) as error:
        detail = f"of {package}, is left out because of {without_folders(plugins.reason(error))}"
        yield Finding("plugins", key, "problem", detail, f"Update {package.split()[0]}, or uninstall it.")
        return
    yield Finding("plugins", key, detail=package)
