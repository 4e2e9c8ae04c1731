"""Custom Keras layers, losses and metrics. Importing a module of this package registers them with Keras."""
