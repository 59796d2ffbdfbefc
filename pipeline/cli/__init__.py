"""What every command shares: arguments, consoles, progress, signals, wording."""
