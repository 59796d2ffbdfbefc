"""Options of the commands: a function of each command's name.

Nothing that a command works with is imported here, so that --help and a wrong option answer at
once.
"""
