"""Feature streams.  tracks -> [features] -> windows"""
