"""Which job runs when, and what is told of it.

`runner` executes a plan: `todos` says which job is next, `slots` how many run, `resume` what is
left to do, `control` when to end. `feed` hands events to listeners, `logs` follows what jobs print.
No process and no file of a job is touched here; executors do that.
"""
