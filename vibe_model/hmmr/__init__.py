"""HMMR: temporal convolutions, and the past and future of every frame (Kanazawa et al., CVPR 2019)."""

from __future__ import annotations

from typing import Final

from vibe_model.models import Model

MODEL: Final = Model("HMMR", __name__, section="hmmr", preset="hmmr", baseline="single-view")
