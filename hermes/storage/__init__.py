"""What is on the disk. The directory tree is the database; any index would be a cache.

`layout`: every name and format. `metadata`, `identifiers`, `writer`: one experiment. `run_folder`:
what a run needs for itself. `git`: the code that ran. `provenance`: its machine. `query`: reading.
Nothing here starts a process but git, and nothing that a job can replace is opened unasked.
"""
