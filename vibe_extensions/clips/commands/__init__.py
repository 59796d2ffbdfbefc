"""Commands of the extension clips."""
