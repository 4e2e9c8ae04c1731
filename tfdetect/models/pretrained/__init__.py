"""Pretrained weights and backbones."""
