"""Files of other programs: VIBE's databases, Parquet, Rerun. See README.md."""
