"""The commands of the command line, one module each: `SUMMARY`, `add_arguments(parser)` and `run(args) -> exit status`.

A module imports torch, transformers and other large packages only when the command runs.
"""
