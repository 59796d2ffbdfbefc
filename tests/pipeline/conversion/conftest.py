"""A fixture of the tests of conversions by command."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def by_command(penn: Any, ran: Any) -> Callable[..., str]:
    """`convert` of Penn Action's train split; both outputs."""

    def run(*more: object, raw: Path = penn.raw, code: int = 0) -> str:
        shown = ran("convert", penn.name, "--raw", raw, "--cache", penn.root, *more, code=code)
        return str(shown.out + shown.err)

    return run
