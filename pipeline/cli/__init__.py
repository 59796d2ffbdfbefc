"""The terminal, for every command: console, text, progress, and the command line with its options
and signals.
"""
