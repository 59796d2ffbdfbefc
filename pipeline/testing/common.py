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


def version_problems(plug_in: Any) -> Iterator[str]:
    """Problems of `version`, which must be a positive integer."""
    version = plug_in.version
    if not isinstance(version, int) or version < 1:
        yield f"version is {version!r}: expected an integer >= 1"
