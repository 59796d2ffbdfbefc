"""Detectors for your own videos, and bodies predicted in them. See README.md."""
