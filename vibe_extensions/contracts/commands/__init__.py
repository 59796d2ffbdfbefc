"""Commands of the extension `contracts`."""
