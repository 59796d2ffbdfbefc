"""Checks of packages and of caches: contract tests as pytest classes, `leaks`, `verify --recompute`. See README.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pipeline.plug_ins import import_on_use

if TYPE_CHECKING:
    from vibe_extensions.contracts.datasets import DatasetContract
    from vibe_extensions.contracts.detectors import DetectorContract
    from vibe_extensions.contracts.models import ModelContract
    from vibe_extensions.contracts.protocols import ProtocolContract
    from vibe_extensions.contracts.streams import StreamContract

__all__ = ["DatasetContract", "DetectorContract", "ModelContract", "ProtocolContract", "StreamContract"]

# Commands run without pytest.
_HOMES: Final = {name: f"{__name__}.{name.removesuffix('Contract').lower()}s" for name in __all__}
__getattr__ = import_on_use(__name__, _HOMES)
