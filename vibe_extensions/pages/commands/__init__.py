"""Commands of the extension pages."""
