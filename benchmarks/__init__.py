"""Measures Hermes side by side with other ways to do the same work: `python -m benchmarks [NAME ...]`.

These machines are shared and noisy, so nothing is timed alone: rivals take turns in one run, and ratios are medians over the turns.
"""
