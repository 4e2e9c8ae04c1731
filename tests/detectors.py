"""Any registered detector, small and without a download."""

import dataclasses
from typing import Any

from tfdetect.detector import Detector

LARGE = ("inception", "resnet50", "resnet_vae")  # slow to build and train on two cores


def clip_shape(cls: type[Detector]) -> tuple[int, int, int, int]:
    """Return a small (frames, height, width, 3) that the detector accepts."""
    size = max(32, cls.min_size)
    return (1 if cls.input_kind == "frame" else 4, size, size, 3)


def make_detector(cls: type[Detector], **options: Any) -> Detector:
    """Return an instance that needs no download, with those of the options that the detector has."""
    names = {item.name for item in dataclasses.fields(cls)}
    offline = {"weights": "none", "preset": "tiny", "network": "tiny",
               "sets": ("tiny@penultimate+patches:1", "cosines", "residuals", "spectrum")}  # fmt: skip
    return cls(**{name: value for name, value in {**offline, **options}.items() if name in names})
