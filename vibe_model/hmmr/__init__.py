"""HMMR: temporal convolutions, and the past and future of every frame (Kanazawa et al., CVPR 2019)."""
