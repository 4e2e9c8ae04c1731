"""Judging a detector: plain functions of a predictions table, which know neither files nor models.

`predictions` is the table, `calibration` turns scores into probabilities, `metrics` counts, `plots` draws, `report`
tells it all on one page. Import the module you need; nothing is imported here, so that a command line stays quick.
"""
