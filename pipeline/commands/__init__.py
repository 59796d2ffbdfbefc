"""Commands of `python -m pipeline`: one file each, with `options(parser)` and `run(args) -> exit
code`.
"""
