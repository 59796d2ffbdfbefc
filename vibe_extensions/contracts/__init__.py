"""Checks of packages and of caches: contract tests as pytest classes, `leaks`, `verify --recompute`. See README.md."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pipeline.plug_ins import CommandEntry

if TYPE_CHECKING:
    from vibe_extensions.contracts.datasets import DatasetContract
    from vibe_extensions.contracts.detectors import DetectorContract
    from vibe_extensions.contracts.models import ModelContract
    from vibe_extensions.contracts.protocols import ProtocolContract
    from vibe_extensions.contracts.streams import StreamContract

__all__ = ["DatasetContract", "DetectorContract", "ModelContract", "ProtocolContract", "StreamContract"]

LEAKS = CommandEntry(
    "vibe_extensions.contracts.commands.leaks",
    "List people, recordings and images that training splits (named train) share with other splits.",
)


def __getattr__(name: str) -> Any:
    """Import the pytest classes on use: commands run without pytest."""
    if name in __all__:
        module = f"{__name__}.{name.removesuffix('Contract').lower()}s"
        return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
