"""Export and import of the database files of VIBE and TCMR (docs/vibe-databases.md).

tracks, features -> database file        pipeline.extras.exchange.vibe_db.export
database file -> tracks, features        pipeline.extras.exchange.vibe_db.importing
"""
