"""What `python -m pipeline` and `python -m tasks` share: the parser, exit codes, and messages for errors and Ctrl-C."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, NoReturn, Protocol

from pipeline.cli import text
from pipeline.cli.console import ERROR, err, plain
from pipeline.cli.options import set_option, settings_over
from pipeline.cli.signals import NAMES, BrokenPipe, exit_code, listen, listening, signal_of

EXIT_CODES: Final = (
    "exit codes: 0 done; 1 done, but problems were found (verify, doctor, leaks, prepare, detect, convert, config); "
    "2 an error, with a message on standard error; 130 interrupted (Ctrl-C); 143 terminated (SIGTERM); "
    "141 broken pipe. See docs/terminal.md."
)
NOTHING_HALF: Final = "no output is half-written; the same command starts again"


class Command(Protocol):
    """What the module of a command has.

    It may also have `kept(args)`: what of an interrupted run is kept; and `reads(args)`: sections and SECTION.KEY of
    luigi.cfg that it reads besides those of its options, None for all that is not training's.
    """

    def options(self, sub: argparse.ArgumentParser, /) -> None:
        """Add the command's arguments to its parser."""

    def run(self, args: argparse.Namespace, /) -> int:
        """Do it, print the results, and return the exit code."""


class CommandEntry(NamedTuple):
    """A command, whose module is imported when it is used."""

    module: str
    help: str
    program: str = "pipeline"  # or "tasks": the package that `python -m` runs it with


class _Parser(argparse.ArgumentParser):
    """One line for a mistake in the arguments, as for every other error."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} ({self.prog} --help)\n")


class _CommandParser(_Parser):
    """Of one command, whose module is imported when arguments are parsed or help is printed: others take their time."""

    def __init__(self, *, module: str, complete: Callable[[argparse.Namespace], None], **options: Any) -> None:
        super().__init__(**options)
        self._module, self._complete = module, complete

    def parse_known_args(self, *args: Any, **kwargs: Any) -> Any:
        """As argparse's."""
        self._load()
        return super().parse_known_args(*args, **kwargs)

    def format_help(self) -> str:
        """As argparse's."""
        self._load()
        return super().format_help()

    def _load(self) -> None:
        module, self._module = self._module, ""
        if not module:
            return
        command: Command = importlib.import_module(module)
        of_command = {name: getattr(command, name, None) for name in ("kept", "reads")}
        self.set_defaults(run=command.run, complete=self._complete, **of_command)
        self.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        command.options(self)
        set_option(self)


def parser_of(
    commands: Mapping[str, CommandEntry],
    prog: str,
    description: str,
    see: str = "",
    *,
    complete: Callable[[argparse.Namespace], None],
) -> argparse.ArgumentParser:
    """A parser of all commands and their options; `run` of its result is the command's function.

    `see`: the end of --help, before the exit codes. `complete`: called before `run`, it fills in what the arguments
    leave to luigi.cfg, and refuses a `--set` that the command does not read.
    """
    top = _Parser(prog=prog, description=description, epilog=" ".join(filter(None, [see, EXIT_CODES])))
    top.add_argument("--debug", action="store_true", help="show the traceback of an error")
    subparsers = top.add_subparsers(dest="command", required=True, parser_class=_CommandParser)
    for name, (module, help_, _) in commands.items():
        subparsers.add_parser(name, help=help_, description=help_, epilog=EXIT_CODES, module=module, complete=complete)
    return top


def run(
    parser: Callable[[], argparse.ArgumentParser],
    argv: Sequence[str] | None,
    user_errors: Callable[[], tuple[type[Exception], ...]],
    module: str,
) -> int:
    """One command of a command line, and its exit code: see EXIT_CODES.

    user_errors: returns those whose messages are meant for users; others are reported as defects of this program.
    """
    show_any_symbol()
    arguments = sys.argv[1:] if argv is None else list(argv)
    # In a process of its own to the very end: a second Ctrl-C may come while Python exits.
    with contextlib.nullcontext(listen()) if argv is None else listening():
        args = argparse.Namespace()
        try:
            parsed = parser().parse_args(arguments)
            with settings_over(parsed):
                parsed.complete(parsed)
                args = parsed
                code: int = args.run(args)
        except BrokenPipe as error:
            return exit_code(error)
        except KeyboardInterrupt as error:
            _print_interruption(error, args, text.command(*arguments, module=module))
            return exit_code(error)
        except Exception as error:
            if "--debug" in arguments:
                traceback.print_exc()
            message = f"{type(error).__name__}: {error}. This is a defect of the program: --debug shows where it is."
            if isinstance(error, user_errors()):
                places = (getattr(args, key, None) for key in ("cache", "out"))
                message = text.error_text(error, [place for place in places if place is not None])
            err.print(f"{ERROR} {plain(message)}")
            return 2
    return code


def _print_interruption(error: KeyboardInterrupt, args: argparse.Namespace, again: str) -> None:
    """What is kept, and the command to continue. Of several processes of torch's launcher, only the first prints."""
    rank, kept = os.environ.get("RANK"), getattr(args, "kept", None)
    if rank not in (None, "0"):
        return
    message = f"{NAMES[signal_of(error)]}: {plain(NOTHING_HALF if kept is None else kept(args))}"
    err.print(message if rank is not None else f"{message}:\n  {plain(again)}")


def show_any_symbol() -> None:
    """Let a terminal whose encoding has no "✓" show an escape instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
