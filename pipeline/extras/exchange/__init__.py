"""Export to and import from files of other programs.

Formats: VIBE's databases, arrays, Parquet, Rerun, WHAM, GVHMR, and SMPL fits.
"""
