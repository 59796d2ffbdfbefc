"""The made-up split, streams and pixels of made_up.py, for these tests and for decoding processes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def on_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with made_up.py alone, on this process's path, which those that decode share."""
    folder = tmp_path_factory.mktemp("path")
    (folder / "made_up.py").write_bytes(Path(__file__).with_name("made_up.py").read_bytes())
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


@pytest.fixture(scope="session")
def made_up(on_path: Path) -> ModuleType:
    import made_up as module

    return module
