"""Uses pipeline.show. Demo data: small rendered datasets in the official layouts, and a procedural
body.

Each folder has a marker file STAND_IN.json with the SHA-256 of every file that was written. A
folder with other files is never replaced or deleted, by `make clean` either. All data that are made
from demo data are marked as such.
"""
