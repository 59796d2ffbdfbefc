"""Uses pipeline.demo. Tests that other packages run on their own datasets and streams.

Derive a test class and override its fixtures. The functions behind them return a list of problems,
empty if none was found.
"""

from pipeline.testing.datasets import DatasetContract
from pipeline.testing.streams import StreamContract

__all__ = ["DatasetContract", "StreamContract"]
