"""The commands of `python -m tasks`: a file each, with `options(parser)` and `run(args) -> exit
code`.
"""
