"""Part-based 3D dynamics with uncertainty (after Lee and Lee, ICCV 2021): a decoder split by body regions."""

from __future__ import annotations

from typing import Final

from vibe_model.models import Model

MODEL: Final = Model("Part dynamics", __name__, section="part_dynamics", preset="partdyn", baseline="per-frame")
