"""Figures of predictions, features and reconstructions."""
