"""Tracks of people whom a detector found in clips.  [raw -> tracks] -> features -> windows"""
