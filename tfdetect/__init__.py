"""tfdetect: tell recorded images and videos from generated or manipulated ones."""

from tfdetect import keras_layers

__version__ = "0.1.0"

keras_layers.register_on_keras_import()
