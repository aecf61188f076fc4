"""Validates every file of an artifact before a backend or transformers reads it. Imports no torch.

`config` and `settings` have the rules of the two JSON files, `records` those of calibration and other records,
and `tensors`, with the shapes of `shapes`, those of the weights.
"""
