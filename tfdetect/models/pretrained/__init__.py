"""Weights and backbones from elsewhere."""
