"""Measures Hermes side by side with what its users would pick instead: `python -m benchmarks [NAME ...] [--json FILE]`.

Machines are shared and noisy, so nothing is timed alone: contenders take turns in one run (A B A B ...), and what is shown are medians
over the turns, of ratios the ratios within each turn. Targets are data, next to the row that they belong to; a missed one is no error.
"""
