"""luigi.cfg of this process, read and checked once."""

from __future__ import annotations

import functools
import sys
from contextvars import ContextVar
from pathlib import Path
from typing import Final, NoReturn

from pipeline.errors import ConfigError
from pipeline.settings import sections
from pipeline.settings.file import SettingsFile, settings_file
from pipeline.settings.folders import refuse_one_folder
from pipeline.settings.new_cache import check_new_cache
from pipeline.settings.sections import Settings
from vibe_model.sections import ModelSections

_TOLERANT: Final = ContextVar("tolerant", default=False)


@functools.cache
def settings() -> Settings:
    """The effective settings. Raises ConfigError for invalid ones.

    For Luigi's tasks, also raises it for a missing cache that may not be created.
    """
    s = load(settings_file(), tolerant=_TOLERANT.get())
    if not _TOLERANT.get():
        check_new_cache(s, s.paths.cache)
        for name in s.data.datasets:
            refuse_one_folder(s.raw(name), s.paths.cache)
    return s


def tolerate() -> None:
    """In this context, let `settings` be tolerant (`sections.load`), for commands that use a part
    of luigi.cfg.
    """
    _TOLERANT.set(True)


def load(file: Path, *, tolerant: bool = False) -> Settings:
    """Read and check a whole luigi.cfg. Raises ConfigError, which names the line."""
    s = sections.load(file, tolerant=tolerant)
    ModelSections(s).check()
    return s


def _refuse_unreadable() -> None:
    """Exit with 2 and a line if a luigi.cfg cannot be read: Luigi itself would end with a
    traceback.
    """
    try:
        for file in dict.fromkeys([Path("luigi.cfg"), settings_file()]):
            if file.is_file():
                SettingsFile.read(file)
    except ConfigError as error:
        end(error)


def end(error: Exception) -> NoReturn:
    """Exit with 2 and a line, before Luigi begins."""
    from pipeline.cli import console  # not for --help
    from pipeline.cli.progress import end_run

    console.err.print(f"{console.ERROR} {console.plain(str(error))}")
    end_run(2)
    raise SystemExit(2) from None


if "luigi" not in sys.modules:  # the command `luigi` has read the file before it imports us
    _refuse_unreadable()
