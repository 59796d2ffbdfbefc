"""Commands of the extension exchange."""
