"""Uses pipeline.testing. What packages test themselves with: pytest classes for models and
protocols.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pipeline.plug_ins import import_on_use

if TYPE_CHECKING:
    from vibe_model.testing.models import ModelContract
    from vibe_model.testing.protocols import ProtocolContract

__all__ = ["ModelContract", "ProtocolContract"]

_HOMES: Final = {name: f"{__name__}.{name.removesuffix('Contract').lower()}s" for name in __all__}
__getattr__ = import_on_use(__name__, _HOMES)
