"""Untrusted folders: what is in them, and whether it has changed.  [raw] -> tracks -> features -> windows"""
