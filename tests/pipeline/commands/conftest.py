"""The fixtures of `lab.py`."""

from tests.pipeline.commands.lab import lab, types_in_lab

__all__ = ["lab", "types_in_lab"]
