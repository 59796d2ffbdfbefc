"""The contract of all models, on the demo data that `make data` writes.  python -m pytest"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from former import FormerConfig

from vibe_model.testing import ModelContract


class TestContract(ModelContract):
    @pytest.fixture
    def config(self) -> FormerConfig:
        return replace(
            FormerConfig.embedded(), cache=Path("data/cache"), body=Path("data/embedded/body")
        )
