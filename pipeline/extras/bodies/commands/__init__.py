"""Commands of the extension anny."""
