"""Every rule that an artifact keeps, checked before a backend or transformers sees it. Imports no torch.

`config` and `settings` hold the rules of the two JSON files, `records` those of what a calibration left behind,
and `tensors`, with the shapes of `shapes`, those of the weights.
"""
