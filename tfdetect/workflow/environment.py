"""The machine that a report was made on."""

import platform

from tfdetect import machine


def describe(precision: str) -> dict[str, str]:
    """Return the operating system, the memory, and the devices as Keras sees them."""
    from tfdetect.training import devices

    return {"system": platform.platform(), "memory": f"{machine.total_memory() / 1e9:.1f} GB",
            "devices": devices.describe(precision)}  # fmt: skip
