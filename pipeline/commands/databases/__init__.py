"""The commands about the database files of VIBE and TCMR."""
