"""Trains the embedding of 2D poses, Pr-VIPE (Sun et al., ECCV 2020). Its network is the stream's, too."""
