"""From the text of a hermes file to its jobs.

`source`, `words`, `syntax`: from text to entries. `sweeps`, `binding`: from entries to jobs.
`kinds`, `settings`, `options`: what can be set, one table each. `scripts`, `keys`: what a job is.
`plan` puts it all together, `checks` says whether its jobs can start, `writing` goes back to text.
Compiling reads the hermes file and `.hermes_settings` and nothing else, and it writes nothing.
"""
