"""Measures Hermes side by side with what its users would pick instead.

`python -m benchmarks [NAME ...] [--json FILE]`. Machines are shared and noisy, so nothing is timed
alone: contenders take turns in one run (A B A B ...). Medians over the turns are shown; a ratio is
taken within each turn. Targets stand next to the row that they belong to, each with its reason. A
missed target is shown, and is no error.
"""
