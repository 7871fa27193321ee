"""The command line: options in, text out. Everything that it does, a Python caller can do with
`hermes` itself."""
