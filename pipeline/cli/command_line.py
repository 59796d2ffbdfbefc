"""Parser, shared options, exit codes, errors and Ctrl-C of `python -m pipeline` and `python -m
tasks`.

Each program makes its parser by `parser_of`, from a table of commands, and calls `run`, which
parses the arguments, fills in settings (`complete`), and runs the command. A command's module has a
`Command`, and is only imported if the command is named. Errors of a command end here, as messages;
so do Ctrl-C, SIGTERM and SIGHUP (`listen`). --help imports neither rich nor the console, which
functions import when they print.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import os
import pkgutil
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any, Final, NoReturn

from pipeline.cli import pages
from pipeline.cli.help import EXAMPLE, CommandEntry, HelpFormatter, list_of
from pipeline.cli.progress import begin_run, end_run, has_started
from pipeline.cli.system_errors import error_text
from pipeline.cli.text import as_called, command
from pipeline.errors import PipelineError, did_you_mean, library_of

EXIT_CODES: Final = {
    0: "done, or nothing to do",
    1: "done, but with problems",
    2: "error",
    75: "busy, try again later",
    129: "hung up",
    130: "interrupted",
    141: "broken pipe",
    143: "terminated",
}

# what an interrupted command says about its output (`Command.kept`)
NOTHING_HALF: Final = "no output is incomplete; a new run starts from the beginning"
WORK_KEPT: Final = "what is on the disk is kept; the same command continues from there"

TRY_LATER: Final = 75  # exit code, as in sysexits.h

GPU_FULL: Final = (
    "Set a smaller batch_size in [features] (of precision = fast) or in the training's "
    "section, or end other programs on this GPU (nvidia-smi)."
)
OPEN_FILES: Final = 65_536  # number of files that this process may open, if the system allows it

SETTING: Final = "SECTION.KEY=VALUE"
SET_A_KEY: Final = f"To set a key of luigi.cfg: --set {SETTING}, such as --set paths.raw=DIR"
QUOTE: Final = (
    "Expected no further name; put a name that has spaces into quotes, and in place of several "
    "files name their folder"
)
# environment variable for child processes: a line SECTION.KEY=VALUE for each --set
SET: Final = "PIPELINE_SET"

# s within which several signals are one: `timeout` sends two, to a process and to its group
AT_ONCE: Final = 1.0
# `exit_code` -> word for messages
INTERRUPTED: Final = {129: "hung up", 130: "interrupted", 143: "terminated"}


@dataclass(frozen=True)
class Command:
    """A command of the command line. Its module has one as the attribute `COMMAND`."""

    run: Callable[[argparse.Namespace], int]  # prints the results, and returns the exit code
    # Returns the sections and settings (SECTION.KEY) of luigi.cfg that the command reads besides
    # those of its options; None: it reads all except training's.
    reads: Callable[[argparse.Namespace], Sequence[str] | None] | None = None
    # what an interrupted run keeps, or a function that looks
    kept: str | Callable[[argparse.Namespace], str] = NOTHING_HALF
    # writes the state of a run that has ended: its arguments, exit code and seconds
    record: Callable[[argparse.Namespace, int, float], None] | None = None


class _Parser(argparse.ArgumentParser):
    def __init__(self, *, elsewhere: Mapping[str, str] | None = None, **options: Any) -> None:
        super().__init__(formatter_class=HelpFormatter, **options)
        self._elsewhere = elsewhere or {}  # command of another program -> that program

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        names = [*map(str, action.choices or ())]
        program = self._elsewhere.get(str(value))  # a value without words is a list
        if program is not None:
            raise argparse.ArgumentError(action, f"no such command. Run {program} {value}")
        if names and str(value) not in names:
            hint = did_you_mean(str(value), names) or ";"  # "; did you mean 'plan'?" or ";"
            message = f"invalid choice: {value!r}{hint} known: {', '.join(names)}"
            raise argparse.ArgumentError(action, message)

    def _print_message(self, message: str, file: Any = None) -> None:
        super()._print_message(as_called(message), file)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} ({self.prog} --help)\n")


class _CommandParser(_Parser):
    """Parser of one command. It imports the command's options to print help, and its module only
    when its arguments are right.
    """

    def __init__(
        self, *, entry: CommandEntry, complete: Callable[[argparse.Namespace], None], **options: Any
    ) -> None:
        super().__init__(**options)
        self._entry = entry
        self._is_loaded = False
        self._complete = complete

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self._load()
        self._refuse_misspelt(args or ())  # before argparse says that another one is required
        namespace, unknown = super().parse_known_args(args, namespace)
        if unknown:
            do = SET_A_KEY if unknown[0].startswith("-") else QUOTE
            self.error(f"unrecognized arguments: {' '.join(unknown)}. {do}")
        loaded: Command = importlib.import_module(self._entry.module).COMMAND
        vars(namespace).update(
            run=loaded.run, kept=loaded.kept, reads=loaded.reads, record=loaded.record
        )
        return namespace, unknown

    def _refuse_misspelt(self, words: Iterable[str]) -> None:
        """Exit with a message if a word is similar to an option."""
        options = [*self._option_string_actions]
        for word in words:
            name = word.partition("=")[0]
            is_option = name.startswith("-") and " " not in name
            # argparse also accepts the beginning of an option's name
            is_known = any(option.startswith(name) for option in options)
            # without the dashes, which would make any two short names similar
            names = [option[2:] for option in options if option.startswith("--")]
            hint = did_you_mean(name.lstrip("-"), names).replace("'", "'--", 1)
            if is_option and not is_known and hint:
                self.error(f"unrecognized arguments: {word}{hint}")

    def format_help(self) -> str:
        self._load()
        return super().format_help()

    def _load(self) -> None:
        """Add the command's arguments, once."""
        if self._is_loaded:
            return
        self._is_loaded = True
        self.set_defaults(complete=self._complete)
        self.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS
        )
        pkgutil.resolve_name(self._entry.options)(self)
        help_ = "Override a luigi.cfg setting for this run (repeatable)"
        self.add_argument(
            "--set",
            dest="settings",
            action="append",
            default=[],
            metavar=SETTING,
            help=help_,
        )


class _ShowVersion(argparse.Action):
    """The action of --version: computes the version only when asked for, prints it, and exits."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from pipeline.cli.console import out

        out.out(self.const(), highlight=False)
        parser.exit()


def parser_of(
    commands: Mapping[str, CommandEntry],
    prog: str,
    description: str,
    see: str = "",
    *,
    elsewhere: Mapping[str, str],
    complete: Callable[[argparse.Namespace], None],
    version: Callable[[], str],
) -> argparse.ArgumentParser:
    """Make the parser of all commands. In its parsed arguments, `run` is the command's function.

    Args:
        commands: Name -> command (`table.COMMANDS`).
        see: End of --help, before the exit codes.
        elsewhere: Command of the other program -> that program, such as "python -m tasks".
        complete: Called before `run`. It fills in settings of luigi.cfg, and refuses a `--set` that
            the command does not read.
        version: Returns the text of --version.
    """
    codes = "; ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES.items())
    epilog = f"{see} exit codes: {codes} ({pages.EXIT_CODES})".strip()
    description = "\n".join([description, *list_of(commands)])
    top = _Parser(prog=prog, description=description, epilog=epilog, elsewhere=elsewhere)
    top.set_defaults(describe_version=version)
    top.add_argument("--debug", action="store_true", help="Show the traceback of an error")
    help_ = "Show version, commit and an id of the code"
    top.add_argument("--version", action=_ShowVersion, nargs=0, const=version, help=help_)
    subparsers = top.add_subparsers(
        dest="command", metavar="COMMAND", required=True, parser_class=_CommandParser,
        help=f"One of those above; for its options: {prog} COMMAND --help",
    )  # fmt: skip
    for name, entry in commands.items():
        examples = (f"{EXAMPLE}{prog} {name} {words}".rstrip() for words in entry.examples)
        sub = subparsers.add_parser(
            name,
            description=entry.summary,
            epilog="\n".join(["examples:", *examples]),
            entry=entry,
            complete=complete,
        )
        if entry.writes == "output":
            text = "Replace files that this command did not write, except its inputs"
            sub.add_argument("--overwrite", action="store_true", help=text)
    return top


def run(
    parser: Callable[[], argparse.ArgumentParser], argv: Sequence[str] | None, module: str
) -> int:
    """Run one command of `python -m MODULE` and return its exit code (EXIT_CODES).

    Without `argv`, it is what this process is for, and writes a log if there is no terminal.
    """
    code = _run(parser, argv, module)
    end_run(code)
    return code


def _run(
    parser: Callable[[], argparse.ArgumentParser], argv: Sequence[str] | None, module: str
) -> int:
    began = time.monotonic()
    set_up_process()
    arguments = list(sys.argv[1:] if argv is None else argv)
    handlers = listen()
    if argv is None:
        # The process ends after this call. Its handlers stay, because a second Ctrl-C may come
        # while Python exits: after `pop_all`, `with handlers` restores nothing.
        handlers.pop_all()
    with handlers:
        # what messages about errors read: empty until all arguments are complete
        args = argparse.Namespace()
        try:
            parsed = parser().parse_args(arguments)
            from pipeline.cli import console

            console.explanations.clear()
            if argv is None:
                begin_run(command(*arguments, module=module), parsed.describe_version)
            with _override_settings(parsed):
                parsed.complete(parsed)
                args = parsed
                code: int = args.run(args)
        except KeyboardInterrupt as error:
            _print_interruption(error, args, command(*arguments, module=module))
            return exit_code(error)
        except Exception as error:
            if "--debug" in arguments:
                traceback.print_exc()
            from pipeline.cli import console

            mark, message = _message_of(error, args)
            console.err.print(f"{mark} {console.plain(message)}")
            if has_started():
                console.err.print(f"  {console.plain(_describe_progress(args))}")
            code = 2
    if code and console.is_only_busy():
        return TRY_LATER
    record = getattr(args, "record", None)
    if record is not None:
        record(args, code, time.monotonic() - began)
    return code


def _message_of(error: Exception, args: argparse.Namespace) -> tuple[str, str]:
    """Mark and message of an error that ends a command: what is wrong, and what to do."""
    from cache import Busy, CacheError  # --help does not need it
    from pipeline.cli.console import BUSY, ERROR

    if isinstance(error, PipelineError | CacheError | OSError):
        places = (getattr(args, key, None) for key in ("cache", "out"))
        message = error_text(error, [path for path in places if path is not None])
        return BUSY if isinstance(error, Busy) else ERROR, message
    if type(error).__name__ == "OutOfMemoryError":  # torch's; torch is not imported here
        problem, _, _ = str(error).partition(". GPU")
        return ERROR, f"the GPU's memory is full ({problem}). {GPU_FULL}"
    if isinstance(error, MemoryError) or "failed to map segment" in str(error):
        do = "Allow this process more: ulimit -v, or the job's limit."
        return ERROR, f"too little memory ({error}). {do}"
    do = "This is a bug in this program: --debug shows where."
    library = library_of(error)
    if library:
        do = f"This is about {library}: --debug shows where."
    return ERROR, f"{type(error).__name__}: {error}. {do}"


def _print_interruption(error: KeyboardInterrupt, args: argparse.Namespace, again: str) -> None:
    """Print what an interrupted command keeps, and the command that continues.

    Under torch's launcher, only the first process prints; none does if nobody reads its output.
    """
    from pipeline.cli.console import BrokenPipe

    rank = os.environ.get("RANK")
    if rank not in (None, "0") or isinstance(error, BrokenPipe):
        return
    print_interruption(exit_code(error), _describe_progress(args), again if rank is None else "")


def _describe_progress(args: argparse.Namespace) -> str:
    """What a command that has not come to its end keeps."""
    kept = getattr(args, "kept", NOTHING_HALF)
    return kept if isinstance(kept, str) else str(kept(args))


def print_interruption(code: int, kept: str, again: str) -> None:
    """Print what an interrupted command keeps, and the command that continues."""
    from pipeline.cli.console import ERROR, err, plain

    mark = "" if err.is_terminal else f"{ERROR} "
    err.print(f"{mark}{INTERRUPTED[code]}: {plain(kept)}")
    if again:
        err.print(f"  {plain(again)}")


def set_up_process() -> None:
    """Raise the limit of open files, as far as the system allows, since a batch reads many shards;
    and print an escape for symbols that the terminal's encoding does not have.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


# --------------------------------------------------------------------------------------------------
# signals


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP, cleaned up after like Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def exit_code(error: KeyboardInterrupt) -> int:
    """130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP, 141 for a broken pipe."""
    from pipeline.cli.console import BrokenPipe

    if isinstance(error, BrokenPipe):
        return 128 + signal.SIGPIPE
    return 128 + (error.number if isinstance(error, Terminated) else signal.SIGINT)


def listen() -> contextlib.ExitStack:
    """Handle SIGINT, SIGTERM and SIGHUP until the returned stack is closed.

    The first SIGINT raises KeyboardInterrupt, the first SIGTERM or SIGHUP raises Terminated; a
    later signal exits at once. Signals that were ignored before stay ignored, such as SIGHUP by
    `nohup`. A fork of this process exits at once at any of them, without a message, since its
    parent waits for it. A process of torch's launcher keeps the system's action for SIGTERM and
    SIGHUP, since it may be waiting for the others in C code. Does nothing outside the main thread.
    """
    owner = os.getpid()
    received = 0.0  # time of the first signal; 0 until it comes

    def receive(number: int, _frame: FrameType | None) -> None:
        nonlocal received
        if os.getpid() != owner:
            os._exit(128 + number)
        if received and time.monotonic() - received < AT_ONCE:
            return
        # a second signal: exit like kill -9. Our other processes notice that their parent is gone,
        # and exit
        if received:
            show_cursor = "\x1b[?25h" if sys.stderr.isatty() else ""  # a bar hides it
            message = f"{show_cursor}\n{INTERRUPTED[128 + number]} again: ended at once\n"
            os.write(2, message.encode())
            os._exit(128 + number)
        received = time.monotonic()
        raise KeyboardInterrupt if number == signal.SIGINT else Terminated(number)

    handlers = contextlib.ExitStack()

    def handle(number: int) -> None:
        previous = signal.signal(number, receive)
        handlers.callback(signal.signal, number, previous)

    if threading.current_thread() is threading.main_thread():
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            handle(signal.SIGINT)
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL and "RANK" not in os.environ:
                handle(number)
    return handlers


# --------------------------------------------------------------------------------------------------
# options


def whole(least: int) -> Callable[[str], int]:
    """Type of an option: a whole number of at least `least`."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(
                f"expected a whole number of at least {least}, found {text!r}"
            )
        return int(text)

    return parse


def json_option(sub: argparse.ArgumentParser, more: str = "") -> None:
    """Add `--json`."""
    sub.add_argument(
        "--json", action="store_true", help=f"Print one JSON document, for scripts{more}"
    )


def every_option(sub: argparse.ArgumentParser) -> None:
    """Add --every."""
    help_ = (
        "Find people in every N-th frame, N from 1 to 100, and follow them in between (rtmpose, "
        "blaze_pose; default: 1)"
    )
    sub.add_argument("--every", type=whole(1), metavar="N", help=help_)


@contextlib.contextmanager
def _override_settings(args: argparse.Namespace) -> Iterator[None]:
    """Let `--set SECTION.KEY=VALUE` override luigi.cfg within the block, also in child
    processes.
    """
    before = os.environ.get(SET, "")
    os.environ[SET] = "\n".join([*filter(None, [before]), *args.settings])
    try:
        yield
    finally:
        os.environ[SET] = before
