"""Demo data: small rendered datasets in the official layouts, and a procedural
body.

Each folder has a marker file STAND_IN.json with the SHA-256 of every file that was written. A
folder with other files is never replaced. In a clone, all are in the folder `demo`, with all that
is made of them; `make clean` deletes it. All data that are made from demo data are marked as such.
"""
