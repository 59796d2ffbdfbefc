"""Rows -> feature streams.  tracks -> [features] -> windows"""
