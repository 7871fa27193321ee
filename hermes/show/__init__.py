"""A run as people see it: text for terminals and pipes, and the display in a notebook.

Everything that comes from jobs is escaped here. Nothing here prints.
"""
