"""Pr-VIPE, an embedding of 2D poses, and its training (Sun et al., ECCV 2020)."""
