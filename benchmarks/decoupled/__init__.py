"""Exits with private layers: many ways of training them beside one plain fine-tuning, and afterwards."""
