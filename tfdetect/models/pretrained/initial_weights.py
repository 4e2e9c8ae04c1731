"""Build networks whose weights a file replaces, without drawing random ones first."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

RANDOM = ("RandomNormal", "RandomUniform", "TruncatedNormal", "VarianceScaling")


@contextmanager
def no_random_weights() -> Iterator[None]:
    """Let Keras' random initialisers return zeros: those of a CLIP take over a second to draw, only to be replaced."""
    from keras import initializers, ops

    classes = [getattr(initializers, name) for name in RANDOM]
    original = [cls.__call__ for cls in classes]

    def zeros(self: Any, shape: Any, dtype: Any = None, **options: Any) -> Any:
        return ops.zeros(shape, dtype)

    try:
        for cls in classes:
            cls.__call__ = zeros
        yield
    finally:
        for cls, call in zip(classes, original, strict=True):
            cls.__call__ = call
