"""Audit a data set: file properties, shortcuts and duplicates."""
