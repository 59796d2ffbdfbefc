"""Uses pipeline.show. Files of other programs: VIBE's databases, arrays, Parquet, Rerun, WHAM,
GVHMR, fits of SMPL.
"""
