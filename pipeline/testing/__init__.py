"""Tests that other packages run on their own datasets and streams.

Contracts are pytest classes. Subclass one in a test file and override its fixtures:

    class TestMine(StreamContract):
        @pytest.fixture
        def stream(self) -> Stream:
            return MyStream()

A test fails with the list of broken promises. The functions behind them return this list:
`reader_problems`, ... Fixtures that a docstring names must be defined; others have a default.
"""

from pipeline.testing.datasets import DatasetContract
from pipeline.testing.streams import StreamContract

__all__ = ["DatasetContract", "StreamContract"]
