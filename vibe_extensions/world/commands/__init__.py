"""Commands of the extension world."""
