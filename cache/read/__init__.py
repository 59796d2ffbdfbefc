"""Committed rows and windows of them.  tracks -> features -> [windows] -> training"""
