"""Custom Keras layers and losses. Importing a module of this package registers its layers."""
