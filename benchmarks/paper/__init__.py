"""Reproduction of the SWEET paper's figures: plan, runs, tables and pictures."""
