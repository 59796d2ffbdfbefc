"""Uses pipeline.demo. Tests that other packages run on their own datasets and streams.

Derive a test class and override its fixtures. The functions behind them return a list of problems,
empty if none was found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pipeline.plug_ins import import_on_use

if TYPE_CHECKING:
    from pipeline.testing.datasets import DatasetContract
    from pipeline.testing.streams import StreamContract

__all__ = ["DatasetContract", "StreamContract"]

_HOMES: Final = {name: f"{__name__}.{name.removesuffix('Contract').lower()}s" for name in __all__}
__getattr__ = import_on_use(__name__, _HOMES)
