"""Export and import of the database files of VIBE and TCMR (docs/vibe-databases.md).

tracks, features -> database file        vibe_extensions.exchange.vibe_db.export
database file -> tracks, features        vibe_extensions.exchange.vibe_db.importing
"""
