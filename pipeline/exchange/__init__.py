"""Ways out and in: databases of VIBE, pages of tracks."""
