"""VIBE: a GRU over image features, and a discriminator of motion (Kocabas et al., CVPR 2020)."""

from __future__ import annotations

from typing import Final

from vibe_model.models import Model

MODEL: Final = Model("VIBE", __name__, section="train", preset="published", baseline="per-frame")
