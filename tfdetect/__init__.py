"""tfdetect: tell recorded images and videos from generated or manipulated ones."""

from tfdetect import layers_known

__version__ = "0.1.0"

layers_known.to_keras()
