"""Streams that exports and models in world coordinates read.  crops, labels -> [streams] ->
features"""
