"""Contracts: pytest classes in the modules beside this one. Subclass one in a test file and
override its fixtures:

    class TestMine(StreamContract):
        @pytest.fixture
        def stream(self) -> Stream:
            return MyStream()

A test fails with the list of broken promises. The functions behind them return this list:
`reader_problems`, ... Fixtures that a docstring names must be defined; others have a default. This
module has the shared code.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


def fail_if_any(problems: list[str]) -> None:
    """Fail the test with one line for each broken promise."""
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)


def number_problems(plug_in: Any, name: str) -> Iterator[str]:
    """Problems of an attribute that must be a positive integer."""
    value = getattr(plug_in, name)
    if not isinstance(value, int) or value < 1:
        yield f"{name} is {value!r}: expected an integer >= 1"
