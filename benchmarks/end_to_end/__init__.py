"""Compares classifiers from strings to labels: early exit, INT8 engines at full depth, and smaller models."""
