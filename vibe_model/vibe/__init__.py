"""VIBE: a GRU over image features, and a discriminator of motion (Kocabas et al., CVPR 2020)."""
