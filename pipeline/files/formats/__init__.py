"""Bytes of untrusted files -> arrays.  [raw] -> tracks -> features -> windows"""
