"""An array in a file of weights."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfdetect.errors import UserError


@dataclass(frozen=True)
class StoredArray:
    """An array in a file of weights, which is read only when it is needed."""

    layer: str
    """Its layer, with underscores in place of dots and slashes."""
    role: str
    """The name of the variable in Keras, such as `kernel`; "" if the file does not tell."""
    name: str
    """Its name in the file."""
    shape: tuple[int, ...]
    load: Callable[[], Any]
    """Returns the array, as it is in the file."""
    axes: Sequence[tuple[int, ...]] = field(default=())
    """Transpositions that may lead to Keras' order of axes; empty if it is in that order."""

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Its possible shapes in Keras' order of axes."""
        return [tuple(self.shape[axis] for axis in axes) for axes in self.axes] or [tuple(self.shape)]

    @property
    def is_dense(self) -> bool:
        """Whether it may belong to a dense layer, or to a convolution of 1 x 1 pixel in its place."""
        if len(self.shape) == 1:
            return self.role in ("bias", "")
        return self.role in ("kernel", "") and sum(size > 1 for size in self.shape) <= 2

    def role_differs(self, name: str) -> bool:
        """Whether the file says that it is anything else than a variable of that name; kernels have several names."""
        return bool(self.role) and self.role != name and not (self.role.endswith("kernel") and name.endswith("kernel"))

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether it has that shape in Keras' order of axes."""
        return shape in self.shapes

    def read(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return it with that shape, as float32. Raises UserError unless it holds floating point numbers."""
        array = np.asarray(self.load())
        if array.dtype.kind in "iub":
            raise UserError(f"{self.name} holds numbers of type {array.dtype}, expected floating point numbers")
        if self.axes:
            array = array.transpose(self.axes[self.shapes.index(shape)])
        return array.astype(np.float32)
