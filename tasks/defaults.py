"""What Luigi does where luigi.cfg says nothing: Luigi's own defaults are loud, and call every failure a success."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Final

from luigi import configuration

from pipeline.settings.file import settings_file

EXIT_CODES: Final = {
    "already_running": 10,
    "missing_data": 20,
    "not_run": 25,
    "task_failed": 30,
    "scheduling_error": 35,
    "unhandled_exception": 40,
}


def values(file: Path) -> dict[tuple[str, str], str]:
    """(section, key) -> value, for the project that this luigi.cfg is of."""
    found = {("retcode", name): str(code) for name, code in EXIT_CODES.items()}
    return found | {("core", "log_level"): "WARNING", ("core", "lock_pid_dir"): str(lock_folder(file))}


def set_defaults() -> None:
    """Called once, when the tasks are imported: before Luigi reads [core] and [retcode]."""
    config = configuration.get_config()
    for (section, key), value in values(settings_file()).items():
        if not config.has_option(section, key):
            config.set(section, key, value)


def lock_folder(file: Path) -> Path:
    """Each project's own: Luigi knows a running command by its words alone, and those are the same in every clone."""
    digest = hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"luigi-{digest}"
