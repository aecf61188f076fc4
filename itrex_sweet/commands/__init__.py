"""One file per verb of the command line: `SUMMARY`, `add_arguments(parser)` and `run(args) -> exit status`.

At import, a file here loads nothing heavy; torch and transformers are imported when the verb runs.
"""
