"""The exception for mistakes that a user can fix, and what its messages share."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any


class UserError(ValueError):
    """A mistake that the user can fix.

    The message says in one or two sentences what was given, what was expected and how to fix it; the command line prints
    it without a traceback. Any other exception except OSError is a bug in tfdetect or in a library.
    """


class UnknownSource(UserError):
    """A source was asked for that no fake of the data set has; `known` are those that fakes have."""

    def __init__(self, message: str, known: Iterable[str]):
        super().__init__(message)
        self.known = tuple(known)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether the machine or a GPU ran out of memory; the errors of TensorFlow, PyTorch and JAX are known by name or text,
    without importing these."""
    names = {cls.__name__ for cls in type(error).__mro__}
    return bool(names & {"MemoryError", "ResourceExhaustedError", "OutOfMemoryError"}) or "RESOURCE_EXHAUSTED" in str(error)


@contextmanager
def suppress_out_of_memory() -> Iterator[None]:
    """Leave the block where the machine or a GPU runs out of memory, and go on after it."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise


def nearest(name: str, names: Iterable[str], cutoff: float = 0.6) -> str:
    """Return which of `names` was probably meant by `name`, ignoring letter case; "" if none is similar.

    `cutoff` is the least similarity, 0..1, as in `difflib`.
    """
    import difflib  # few commands need it

    by_key = {each.lower(): each for each in names}
    return next((by_key[key] for key in difflib.get_close_matches(name.lower(), by_key, 1, cutoff)), "")


def suggestion(name: str, names: Iterable[str], prefix: str = "") -> str:
    """Return a blank and the sentence that suggests the nearest of `names`, written after `prefix`; "" if none is similar."""
    meant = nearest(name, names)
    return f" Perhaps you meant {prefix}{meant}." if meant else ""


def require_minimum(minimum: float, section: str, settings: Any, *names: str) -> None:
    """Raise UserError, naming the flag --SECTION.NAME, if one of these settings is below the minimum; None is allowed."""
    for name in names:
        value = getattr(settings, name)
        if value is not None and value < minimum:
            raise UserError(f"--{section}.{name} must be at least {minimum}, got {value}.")
