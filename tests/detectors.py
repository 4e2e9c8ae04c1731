"""Any registered detector, small and without a download."""

import dataclasses


def clip_shape(cls):
    """(frames, height, width, 3) that it works on."""
    size = max(32, cls.least_size)
    return (1 if cls.sees == "frame" else 4, size, size, 3)


def made(cls):
    """An instance that needs nothing from the net."""
    random = {"weights": "none"} if "weights" in {item.name for item in dataclasses.fields(cls)} else {}
    return cls(**random)
