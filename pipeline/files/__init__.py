"""Untrusted files, which may be damaged or hostile: formats, pixels, and detection of changes."""
