"""Asking what came of experiments: rows of columns, filters, metrics, statistics.

Reads experiment directories, and never changes them. What is kept to be fast is a cache that can
be deleted. Prints nothing; how it looks is `show`'s.
"""
