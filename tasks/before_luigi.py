"""Looks at luigi.cfg before Luigi does, whose own reader tells of a broken one with a traceback.

Where the command is `luigi` itself, that has read the file before any module of ours is there.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import TracebackType

from pipeline.errors import ConfigError
from pipeline.settings.file import read, settings_file


def look() -> None:
    """Raises ConfigError for files that Luigi could not read; uncaught, it is a line, and the exit code 2."""
    try:
        for file in dict.fromkeys([Path("luigi.cfg"), settings_file()]):
            if file.is_file():
                read(file)
    except ConfigError:
        sys.excepthook = _tell
        raise


def _tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not isinstance(error, ConfigError):
        sys.__excepthook__(kind, error, trace)
        return
    sys.stderr.write(f"error: {error}\n")
    raise SystemExit(2)


if "luigi" not in sys.modules:
    look()
