"""tfdetect: tell recorded images and videos from generated or manipulated ones."""

__version__ = "0.1.0"
