"""The commands of `python -m pipeline`: a file each, with `options(parser)` and `run(args) -> exit code`."""
