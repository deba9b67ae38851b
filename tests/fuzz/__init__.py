"""Thousands of bad inputs, each made from a seed: every one ends in a result or in an error that is meant.

`python -m tests.fuzz KIND SEED` tries one again, `python -m tests.fuzz 10000` that many of all kinds. A new
kind of input is one more module in `kinds/`.
"""
