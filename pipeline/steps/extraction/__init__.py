"""Extraction of streams: its plan and its run.  tracks -> [features] -> windows"""
