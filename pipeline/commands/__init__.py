"""The commands of `python -m pipeline`: a file each, with `HELP`, `options(parser)` and `run(args) -> exit code`."""
