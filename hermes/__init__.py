"""Hermes runs a researcher's jobs from one small text file and never loses or mixes up a result."""

__version__ = "0.1.0"
