"""Where jobs run. An executor brings one job from its start to its final metadata.

`base`: the protocol, and how to write another one. `local`: processes of this machine (`processes`,
`proc`, `adopt`, `exits`). `slurm`: tasks of a cluster. `fake`: async functions, for tests.
No executor decides which job runs, when, or again, and none publishes an event.
"""
