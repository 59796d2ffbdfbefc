"""What this project adds to `luigi --module tasks`.

Luigi imports the module `tasks`, which calls `prepare` before Luigi reads its settings. It

- sets defaults of them, applies `--set`, and checks the lock and the scheduler,
- installs a filter of Luigi's log, and handlers of Ctrl-C and exit codes
  (`_take_over_from_luigi`).

While Luigi runs, its events print a line for each task, and messages of failures.
"""

from __future__ import annotations

import argparse
import errno
import functools
import hashlib
import logging
import os
import shlex
import signal
import socket
import sys
import tempfile
import time
from contextlib import suppress
from multiprocessing.sharedctypes import RawValue
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any, Final, NoReturn
from urllib.parse import urlsplit

import luigi
from luigi import configuration, lock, retcodes
from luigi.task_register import TaskClassException

from cache.errors import Busy
from pipeline.cli import console
from pipeline.cli.command_line import (
    SET,
    WORK_KEPT,
    Terminated,
    exit_code,
    listen,
    print_interruption,
    set_up_process,
)
from pipeline.cli.progress import begin_run, end_run
from pipeline.cli.system_errors import error_text
from pipeline.cli.text import from_here, python
from pipeline.errors import ConfigError, PipelineError
from pipeline.files.raw import is_demo_data
from pipeline.processes.software import package_version
from pipeline.settings.file import LUIGI, parse_overrides, settings_file
from pipeline.settings.sections import Settings
from pipeline.steps.run_state import record_run
from tasks.base import UP_TO_DATE, USER_ERRORS, PipelineTask, at_success, fact, plain
from tasks.settings import end, settings

EXIT_CODES: Final = {
    "already_running": 10,
    "missing_data": 20,
    "not_run": 25,
    "task_failed": 30,
    "scheduling_error": 35,
    "unhandled_exception": 40,
}
SCHEDULER_TIMEOUT: Final = 5.0  # s
# environment variable with the command that the user typed, if make started Luigi
TYPED: Final = "TYPED_COMMAND"

# These flags are shared with the processes of Luigi's workers.
_busy: Final = RawValue("b")  # 1: a task failed because another process writes
_began: Final = time.monotonic()
_n_failed: Final = RawValue("i")  # tasks that failed for another reason
# messages of printed failures: one missing folder fails all splits of a dataset
reported: Final[set[str]] = set()


class _SettingsOver(luigi.Config):
    """Declares `--set` for Luigi's parser of the command line; `prepare` has read it before."""

    use_cmdline_section = False
    set = luigi.Parameter(
        default="",
        description="override a luigi.cfg setting for this run: SECTION.KEY=VALUE, "
        "as vibe.epochs=5 (repeatable)",
        always_in_help=True,
    )


def _luigi_defaults(file: Path) -> dict[tuple[str, str], str]:
    """Our defaults of Luigi's settings: (section, key) -> text.

    With its own defaults, Luigi logs a lot, and exits with 0 after failures.
    """
    # Luigi finds running commands by their words only, which are the same in every clone. Its
    # folder is one user's.
    clone = hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:16]
    pid_folder = Path(tempfile.gettempdir()) / f"luigi-{os.getuid()}-{clone}"
    defaults = {
        ("core", "log_level"): "WARNING",
        ("core", "lock_pid_dir"): str(pid_folder),
        # A conversion that leaves a lost video for the next run is done, but not complete; the
        # extraction follows it.
        ("worker", "check_unfulfilled_deps"): "false",
    }
    for name, code in EXIT_CODES.items():
        defaults["retcode", name] = str(code)
    return defaults


def prepare() -> None:
    """On import: apply defaults and `--set` before Luigi reads its settings; exit if it cannot
    run.
    """
    by_luigi = _is_luigi()
    if by_luigi:
        begin_run(_typed_command(), package_version)
    options = _options(sys.argv[1:] if by_luigi else [])
    if by_luigi:
        os.environ[SET] = "\n".join([*filter(None, [os.environ.get(SET)]), *options.set])
    config = configuration.get_config()
    for (section, key), text in _luigi_defaults(settings_file()).items():
        if not config.has_option(section, key):
            config.set(section, key, text)
    try:
        list(parse_overrides(options.set))  # raises ConfigError
        for section, key, text in parse_overrides():
            if section in LUIGI:
                config.set(section, key, text)
        shows_help = options.help or options.help_all
        if by_luigi and not shows_help:
            _require_runnable(config, options)
    # ValueError: [core] local_scheduler is no truth value
    except (PipelineError, ValueError) as error:
        end(error)
    _take_over_from_luigi()


def _require_runnable(config: Any, options: argparse.Namespace) -> None:
    """Check the settings, the lock and the scheduler. Raises ConfigError or ValueError; exits if
    the same command already runs.
    """
    settings()
    pids = options.lock_pid_dir or config.get("core", "lock_pid_dir")
    running = None if options.own_lock else _find_running(pids)
    if running is not None:
        typed = shlex.join(["luigi", *sys.argv[1:]])
        text = f"another `{typed}` runs here already (process {running}): wait for it, or end it"
        console.err.print(f"{console.BUSY} {plain(text)}")
        code = config.getint("retcode", "already_running")
        end_run(code)
        raise SystemExit(code)
    if not (options.local_scheduler or config.getboolean("core", "local_scheduler", False)):
        _check_scheduler(_scheduler_url(config, options))


def _scheduler_url(config: Any, options: argparse.Namespace) -> str:
    """The address of Luigi's scheduler, by the options, else the settings, else Luigi's default."""

    def setting(name: str, default: str) -> str:
        text: str = config.get("core", f"scheduler_{name}", default)
        return getattr(options, f"scheduler_{name}") or text

    url = setting("url", "")
    if url:
        return url
    host = setting("host", "localhost")
    port = setting("port", "8082")
    return f"http://{host}:{port}"


def _is_luigi() -> bool:
    """Whether this process is `luigi` or `python -m luigi`."""
    return "luigi" in Path(sys.argv[0]).parts[-2:]


def _options(words: list[str]) -> argparse.Namespace:
    """Parse those options of Luigi's command line that `prepare` needs; ignores all others."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--set", action="append", default=[])
    for name in ("--local-scheduler", "--help", "--help-all"):
        parser.add_argument(name, action="store_true")
    for name in ("--no-lock", "--take-lock", "--lock-size"):  # with these, Luigi's own lock decides
        parser.add_argument(name, dest="own_lock", action="append_const", const=name)
    for name in ("--scheduler-url", "--scheduler-host", "--scheduler-port", "--lock-pid-dir"):
        parser.add_argument(name)
    return parser.parse_known_args(words)[0]


def _find_running(pids: str) -> int | None:
    """Find a process of the same command. Raises ConfigError for an unusable folder `pids`."""
    _, words, file = lock.get_info(pids)
    try:
        Path(pids).mkdir(mode=0o700, exist_ok=True)
        if not os.access(pids, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "permission denied")
        running = list[str]()
        if Path(file).is_file():
            running += Path(file).read_text().split()
    except OSError as error:
        message = (
            f"{error.strerror}. Delete it, or name another folder: --set core.lock_pid_dir=DIR"
        )
        raise ConfigError(f"[core] lock_pid_dir = {pids}: {message}") from error
    for pid in map(int, filter(str.isdecimal, running)):
        if pid != os.getpid() and lock.getpcmd(pid) == words:
            return pid
    return None


def _check_scheduler(url: str) -> None:
    """Raise ConfigError if no scheduler answers: Luigi itself would retry for a minute, and end
    with a traceback.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):  # a Unix socket
        return
    try:
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
        socket.create_connection((parts.hostname or "localhost", port), SCHEDULER_TIMEOUT).close()
    except OSError as error:
        raise ConfigError(
            f"[core] local_scheduler is false, and no luigid answers at {url} "
            f"({error.strerror or error}). Start one "
            "(luigid), name it ([core] scheduler_url), or run without: --local-scheduler"
        ) from None


@luigi.Task.event_handler(luigi.Event.DEPENDENCY_DISCOVERED)
def _introduce_data(task: luigi.Task, dependency: luigi.Task) -> None:  # noqa: ARG001 - Luigi's signature
    if isinstance(task, PipelineTask):
        _introduce()


@luigi.Task.event_handler(luigi.Event.DEPENDENCY_PRESENT)
def _up_to_date(task: luigi.Task) -> None:
    """Print the line of a complete task, and its result."""
    if isinstance(task, PipelineTask):
        _introduce()
        if task.flaw:
            task.say(f"up to date ({task.flaw})", mark=console.DOUBT)
        else:
            task.say(UP_TO_DATE, mark=console.IDLE)
        task.show()


@luigi.Task.event_handler(luigi.Event.FAILURE)
def _report_failure(task: luigi.Task, error: BaseException) -> None:
    """Print a failure's message once, and note what the exit code depends on."""
    if isinstance(error, Busy):
        _busy.value = 1
    else:
        _n_failed.value += 1
    # Luigi itself logs others
    if isinstance(task, PipelineTask) and isinstance(error, USER_ERRORS):
        message = "the same error"
        if str(error) not in reported:
            message = task.message_of(error)
        reported.add(str(error))
        mark = console.BUSY if isinstance(error, Busy) else console.WRONG
        _complain(console.task_line(task.verb, task.what, message), mark)


@luigi.Task.event_handler(luigi.Event.BROKEN_TASK)
def _unreadable_settings(task: luigi.Task, error: BaseException) -> None:
    _n_failed.value += 1
    if isinstance(task, PipelineTask) and isinstance(error, USER_ERRORS):
        _complain(error_text(error))


@luigi.Task.event_handler(luigi.Event.PROCESS_FAILURE)
@luigi.Task.event_handler(luigi.Event.TIMEOUT)
def _report_lost_process(task: luigi.Task, message: str) -> None:
    """Print a task whose process ended without a result. message: Luigi's."""
    _n_failed.value += 1
    if isinstance(task, PipelineTask):
        text = f"its process {message.partition(task.task_id)[2].strip()}"
        number = message.rpartition(" exit code -")[2]
        if number.isdecimal():
            text = f"its process was killed by {signal.Signals(int(number)).name}"
            if int(number) == signal.SIGKILL:
                text += ", most likely because memory ran out: use fewer workers, or allow more"
        _complain(console.task_line(task.verb, task.what, text))


def _complain(text: str, mark: str = console.WRONG) -> None:
    """Print the message of a failure, after its mark."""
    console.err.print(f"{mark} {plain(text)}")


@functools.cache
def _introduce() -> None:
    """Print which data this is and where, once per process."""
    fact("data", _whose_data(settings()))
    fact("cache", from_here(settings().paths.cache))
    console.out.print()


def _whose_data(s: Settings) -> str:
    """Describe the data: "demo data (seed 0), in demo/raw: penn_action, amass"."""
    raw = from_here(s.paths.raw)
    demo = s.embedded_datasets
    other_names = ", ".join(
        f"{name} ([yellow]demo data[/yellow])" if is_demo_data(s.raw(name)) else name
        for name in s.data.datasets
        if name not in demo
    )
    if not demo:
        return f"in {raw}: {other_names}"
    parameters = f"seed {s.embedded.seed}"
    if s.embedded.size != "default":
        parameters += f", {s.embedded.size}"
    text = f"[yellow]demo data[/yellow] ({parameters}), in {raw}: {', '.join(demo)}"
    if other_names:
        text += f"; beside them {other_names}"
    return text


def _not_printed_by_us(record: logging.LogRecord) -> bool:
    """Filter: keep Luigi from logging what `_complain` prints, unless [core] log_level = INFO."""
    if logging.getLogger(record.name).isEnabledFor(logging.INFO):
        return True
    # Luigi logs errors in `requires` as text, while it handles them.
    error = sys.exc_info()[1]
    if record.exc_info:
        error = record.exc_info[1]
    return not isinstance(error, USER_ERRORS)


def _handle_interrupt(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Exception hook: print a message in place of a traceback for Ctrl-C and unknown tasks."""
    if isinstance(error, TaskClassException):
        console.err.print(f"{console.ERROR} {plain(str(error))}")
        _exit(1)
    if not isinstance(error, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    if isinstance(error, console.BrokenPipe):
        sys.exit(exit_code(error))
    code = exit_code(error)
    console.err.print()
    print_interruption(code, WORK_KEPT, _typed_command())
    end_run(code)
    if isinstance(error, Terminated):
        sys.exit(code)  # after Ctrl-C, Python itself ends by the signal


def _typed_command() -> str:
    """The command that the user typed."""
    program = [from_here(Path(sys.argv[0]))]
    if Path(sys.argv[0]).name == "__main__.py":
        program = [python(), "-m", "luigi"]
    return os.environ.get(TYPED) or shlex.join([*program, *sys.argv[1:]])


def _exit(code: int) -> NoReturn:
    """In place of `sys.exit`, by which Luigi ends: end the log before.

    The code is 2 if output was lost: Luigi drops exceptions that are raised while it reports a
    task.
    """
    if console.out.failure is not None:
        console.err.print(f"{console.ERROR} {plain(error_text(console.out.failure))}")
        code = 2
    if _n_failed.value:
        console.err.print(f"  {WORK_KEPT}")
    if not code:
        for end_task in at_success.values():
            with suppress(*USER_ERRORS):  # then the next command ends it
                end_task()
    _record(code)
    end_run(code, _n_failed.value)
    sys.exit(code)


def _record(code: int) -> None:
    """Write the state of a run of `Data`, unless other processes write what it needs."""
    if sys.argv[1:].count("Data") and code != EXIT_CODES["already_running"]:
        known = settings()
        root = known.paths.cache
        splits = [
            f"{name}/{split}"
            for name in known.data.datasets
            for split in known.dataset(name).splits
        ]
        seconds = time.monotonic() - _began
        record_run(known, root, "Data", "all", splits, code=code, seconds=seconds)


class _CodeOfFailures(luigi.IntParameter):
    """Luigi's exit code for failed tasks.

    It is `already_running` if all of them failed because other processes write. A data descriptor,
    because Luigi reads the code when all tasks have ended.
    """

    def __get__(self, codes: retcodes.retcode | None, _owner: type[retcodes.retcode]) -> Any:
        if codes is None:
            return self
        if _busy.value and not _n_failed.value:
            return codes.already_running
        return vars(codes)["task_failed"]

    def __set__(self, codes: retcodes.retcode, value: int) -> None:
        vars(codes)["task_failed"] = value


def _take_over_from_luigi() -> None:
    """Install the log filter, the exception hook and the signal handlers."""
    set_up_process()
    logging.getLogger("luigi-interface").addFilter(_not_printed_by_us)
    sys.excepthook = _handle_interrupt
    if _is_luigi():  # other programs handle their signals themselves
        listen()
        vars(retcodes)["sys"] = SimpleNamespace(exit=_exit)
        retcodes.retcode.task_failed = _CodeOfFailures(default=EXIT_CODES["task_failed"])
