"""Uses pipeline.show. Demo data: small rendered datasets in the official layouts, and a procedural
body.

Their folders have a file STAND_IN.json with the SHA-256 of all that was written: only folders of
nothing else are replaced, or deleted by `make clean`. Everything made of demo data is marked as
such.
"""
