"""Parser, exit codes, and messages for errors and Ctrl-C of `python -m pipeline` and `python -m tasks`."""

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
from pipeline.cli.options import override_settings, set_option
from pipeline.cli.signals import NAMES, BrokenPipe, exit_code, listen, listening, signal_of
from pipeline.errors import PipelineError

EXIT_CODES: Final = (
    "exit codes: 0 done; 1 problems found; 2 error; 130 interrupted; 141 broken pipe; 143 terminated (docs/terminal.md)"
)
NOTHING_HALF: Final = "no output is incomplete; the same command starts from the beginning"


class Command(Protocol):
    """Module of a command.

    Optional: `KEPT`, a message about what an interrupted run keeps; `reads(args)`, sections and SECTION.KEY of
    luigi.cfg that it reads besides those of its options (None: all except those of training).
    """

    def options(self, sub: argparse.ArgumentParser, /) -> None:
        """Add the command's arguments to its parser."""

    def run(self, args: argparse.Namespace, /) -> int:
        """Run the command, print the results, and return the exit code."""


class CommandEntry(NamedTuple):
    """A command; its module is imported on use."""

    module: str
    help: str
    program: str = "pipeline"  # `python -m pipeline` or `python -m tasks`


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} ({self.prog} --help)\n")


class _CommandParser(_Parser):
    """Parser of one command. It imports the command's module to parse arguments or print help."""

    def __init__(self, *, module: str, complete: Callable[[argparse.Namespace], None], **options: Any) -> None:
        super().__init__(**options)
        self._module, self._complete = module, complete

    def parse_known_args(self, *args: Any, **kwargs: Any) -> Any:
        self._load()
        return super().parse_known_args(*args, **kwargs)

    def format_help(self) -> str:
        self._load()
        return super().format_help()

    def _load(self) -> None:
        module, self._module = self._module, ""
        if not module:
            return
        command: Command = importlib.import_module(module)
        kept, reads = getattr(command, "KEPT", NOTHING_HALF), getattr(command, "reads", None)
        self.set_defaults(run=command.run, complete=self._complete, kept=kept, reads=reads)
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
    """Make the parser of all commands; `run` of its result is the command's function.

    Args:
        see: the end of --help, before the exit codes.
        complete: called before `run`; fills in settings of luigi.cfg and refuses a `--set` that the command ignores.
    """
    top = _Parser(prog=prog, description=description, epilog=" ".join(filter(None, [see, EXIT_CODES])))
    top.add_argument("--debug", action="store_true", help="Show the traceback of an error")
    subparsers = top.add_subparsers(dest="command", required=True, parser_class=_CommandParser)
    for name, (module, help_, _) in commands.items():
        subparsers.add_parser(name, help=help_, description=help_, epilog=EXIT_CODES, module=module, complete=complete)
    return top


def run(parser: Callable[[], argparse.ArgumentParser], argv: Sequence[str] | None, module: str) -> int:
    """Run one command of `python -m MODULE` and return its exit code (EXIT_CODES)."""
    show_any_symbol()
    arguments = sys.argv[1:] if argv is None else list(argv)
    # In its own process to the very end: a second Ctrl-C may come while Python exits.
    with contextlib.nullcontext(listen()) if argv is None else listening():
        args = argparse.Namespace()
        try:
            parsed = parser().parse_args(arguments)
            with override_settings(parsed):
                parsed.complete(parsed)
                args = parsed
                code: int = args.run(args)
        except BrokenPipe as error:
            return exit_code(error)
        except KeyboardInterrupt as error:
            _print_interruption(error, args, text.command(*arguments, module=module))
            return exit_code(error)
        except Exception as error:
            from cache import CacheError  # --help does not need it

            if "--debug" in arguments:
                traceback.print_exc()
            message = f"{type(error).__name__}: {error}. This is a bug in this program: --debug shows where."
            if isinstance(error, PipelineError | CacheError | OSError):
                places = (getattr(args, key, None) for key in ("cache", "out"))
                message = text.error_text(error, [place for place in places if place is not None])
            err.print(f"{ERROR} {plain(message)}")
            return 2
    return code


def _print_interruption(error: KeyboardInterrupt, args: argparse.Namespace, again: str) -> None:
    """Print what is kept, and the command to continue; under torch's launcher, in the first process only."""
    rank = os.environ.get("RANK")
    if rank not in (None, "0"):
        return
    message = f"{NAMES[signal_of(error)]}: {plain(getattr(args, 'kept', NOTHING_HALF))}"
    err.print(message if rank is not None else f"{message}:\n  {plain(again)}")


def show_any_symbol() -> None:
    """Print an escape for symbols that the terminal's encoding does not have."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
