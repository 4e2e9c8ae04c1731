"""Evaluate a detector from its predictions table, without access to files or models.

`predictions` reads and writes the table, `calibration` turns scores into probabilities, `metrics` computes the metrics,
`ensemble` averages several detectors and `cross_source` summarises tests across sources. Nothing is imported here, to keep
the command line responsive.
"""
