"""The database files that VIBE's and TCMR's code reads: written from a cache, and read into one.

    tracks, features -> database file        vibe_extensions.exchange.vibe_db.export
    database file -> tracks, features        vibe_extensions.exchange.vibe_db.importing

What such a file holds is docs/vibe-databases.md.
"""
