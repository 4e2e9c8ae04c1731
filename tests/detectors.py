"""Any registered detector, small and without a download."""

import dataclasses

BIG = ("inception", "resnet50", "resnet_vae")  # which take their time on two cores


def clip_shape(cls):
    """(frames, height, width, 3) that it works on."""
    size = max(32, cls.least_size)
    return (1 if cls.input_kind == "frame" else 4, size, size, 3)


def make_detector(cls, **options):
    """An instance that needs nothing from the net; of the options, those that it has are set."""
    names = {item.name for item in dataclasses.fields(cls)}
    return cls(**{name: value for name, value in {"weights": "none", "preset": "tiny", **options}.items() if name in names})
