"""Compute feature streams for the rows of a split.  tracks -> [features] -> windows"""
