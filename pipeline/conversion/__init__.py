"""Conversion of raw videos to committed rows: plan and execution.  [raw -> tracks -> rows]"""
