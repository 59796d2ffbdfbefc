"""Trains the embedding of 2D poses, Pr-VIPE, whose network is `pipeline.pr_vipe` (Sun et al., ECCV 2020)."""
