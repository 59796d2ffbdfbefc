"""Anny's body, fitted to joints in metres. See README.md."""
