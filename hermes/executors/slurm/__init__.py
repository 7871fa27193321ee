"""Jobs as tasks of a Slurm cluster: a client submits them as job arrays, a node executes each.

`executor` is the client, whose services are `submitting`, `asking`, `following` and `finishing`;
`node` is the program on the node. `tasks`: the files by which they tell each other what happens.
`states`, `open_tasks`: what that means. No process of a job starts here: the local executor does.
"""
