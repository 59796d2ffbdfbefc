"""The terminal, for every command: console, text, options, progress, signals, and the command line itself."""
