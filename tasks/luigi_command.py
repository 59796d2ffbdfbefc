"""Prepare `luigi --module tasks`: defaults, `--set`, the lock, and the scheduler."""

from __future__ import annotations

import argparse
import hashlib
import os
import shlex
import socket
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import luigi
from luigi import configuration, lock

from pipeline.cli.options import SET
from pipeline.errors import ConfigError
from pipeline.settings.file import LUIGI, parse_overrides, settings_file
from tasks.settings import end

EXIT_CODES: Final = {
    "already_running": 10,
    "missing_data": 20,
    "not_run": 25,
    "task_failed": 30,
    "scheduling_error": 35,
    "unhandled_exception": 40,
}
SCHEDULER_TIMEOUT: Final = 5.0  # s


class SettingsOver(luigi.Config):
    """`--set` of Luigi's command line, for its parser: `prepare` reads it before that."""

    use_cmdline_section = False
    set = luigi.Parameter(
        default="",
        description="override a luigi.cfg setting for this run: SECTION.KEY=VALUE, as vibe.epochs=5 (repeatable)",
        always_in_help=True,
    )


def luigi_defaults(file: Path) -> dict[tuple[str, str], str]:
    """(section, key) -> what we set where luigi.cfg does not: Luigi's own defaults are loud, and exit with 0."""
    # Luigi knows a running command by its words alone, and those are the same in every clone.
    digest = hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:16]
    core = {"log_level": "WARNING", "lock_pid_dir": str(Path(tempfile.gettempdir()) / f"luigi-{digest}")}
    codes = {("retcode", name): str(code) for name, code in EXIT_CODES.items()}
    return codes | {("core", key): text for key, text in core.items()}


def prepare() -> None:
    """Apply defaults and `--set` before Luigi reads its settings; exit if it cannot run. Called on import."""
    by_luigi = "luigi" in Path(sys.argv[0]).parts[-2:]  # bin/luigi, or luigi/__main__.py
    options = _options(sys.argv[1:] if by_luigi else [])
    if by_luigi:
        os.environ[SET] = "\n".join([*filter(None, [os.environ.get(SET)]), *options.set])
    config = configuration.get_config()
    for (section, key), text in luigi_defaults(settings_file()).items():
        if not config.has_option(section, key):
            config.set(section, key, text)
    try:
        for section, key, text in parse_overrides():
            if section in LUIGI:
                config.set(section, key, text)
        if by_luigi and not options.own_lock and (message := already_running(config.get("core", "lock_pid_dir"))):
            sys.stderr.write(f"error: {message}\n")
            raise SystemExit(config.getint("retcode", "already_running"))
        local = options.local_scheduler or config.getboolean("core", "local_scheduler", False)
        if by_luigi and not local and not (options.help or options.help_all):
            address = {
                key: getattr(options, f"scheduler_{key}")
                or config.get("core", f"scheduler_{key}", config.get("core", f"default-scheduler-{key}", usual))
                for key, usual in (("url", ""), ("host", "localhost"), ("port", "8082"))
            }
            check_scheduler(address["url"] or "http://{host}:{port}".format_map(address))
    except ConfigError as error:
        end(error)


def _options(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--set", action="append", default=[])
    for name in ("--local-scheduler", "--help", "--help-all"):
        parser.add_argument(name, action="store_true")
    for name in ("--no-lock", "--take-lock", "--lock-size"):  # Luigi's own: whatever they say, it decides
        parser.add_argument(name, dest="own_lock", action="append_const", const=name)
    for name in ("--scheduler-url", "--scheduler-host", "--scheduler-port"):
        parser.add_argument(name)
    return parser.parse_known_args(words)[0]


def already_running(pids: str) -> str:
    """That the same command runs, where and since when; "" where it does not. `pids`: Luigi's folder of such files."""
    _, words, file = lock.get_info(pids)
    try:
        pids_running = [int(pid) for pid in Path(file).read_text().split()]
        since = datetime.fromtimestamp(Path(file).stat().st_mtime).astimezone()
    except (OSError, ValueError):
        return ""
    for pid in pids_running:
        if pid != os.getpid() and lock.getpcmd(pid) == words:
            try:
                folder = Path(f"/proc/{pid}/cwd").readlink()
            except OSError:  # another user's
                folder = Path.cwd()
            typed = shlex.join(["luigi", *sys.argv[1:]])
            where = f"process {pid}, in {folder}, since {since:%Y-%m-%d %H:%M}"
            return f"another `{typed}` runs here already ({where}): wait for it, or end it"
    return ""


def check_scheduler(url: str) -> None:
    """Raise ConfigError where nothing answers there: Luigi itself would ask for a minute, then end with a traceback."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):  # a Unix socket
        return
    try:
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
        socket.create_connection((parts.hostname or "localhost", port), SCHEDULER_TIMEOUT).close()
    except OSError as error:
        raise ConfigError(
            f"[core] local_scheduler is false, and no luigid answers at {url} ({error.strerror or error}). Start one "
            "(luigid), name it ([core] scheduler_url), or run without: --local-scheduler"
        ) from None
