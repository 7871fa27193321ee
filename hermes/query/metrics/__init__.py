"""Metrics: curves of numbers over steps, read from the files that jobs leave.

Nothing here runs code from those files: nothing is unpickled. Files of any size are read piece by
piece.
"""
