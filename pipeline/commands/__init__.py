"""Commands of `python -m pipeline`: one file each, with `run(args) -> exit code`; their options are
in a folder of their own.
"""
