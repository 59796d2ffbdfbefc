"""Commits of splits and streams, and what is removed again.  tracks -> [cache] -> windows"""
