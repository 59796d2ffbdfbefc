"""The fixtures of `lab.py`."""

from tests.pipeline.commands.lab import lab, types

__all__ = ["lab", "types"]
