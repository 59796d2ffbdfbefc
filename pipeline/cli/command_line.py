"""What `python -m pipeline` and `python -m tasks` share: arguments, exit codes, and how errors and Ctrl-C are told."""

from __future__ import annotations

import argparse
import io
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from pipeline.cli import text
from pipeline.cli.console import ERROR, err, plain
from pipeline.cli.signals import NAMES, exit_code, listen, listening, signal_of

if TYPE_CHECKING:
    from pipeline.commands import Command

EXIT_CODES: Final = (
    "exit codes: 0 done; 1 done, and something is wrong with what was looked at (verify, doctor, convert, config); "
    "2 an error, told in words on standard error; 130 interrupted (Ctrl-C); 143 terminated (SIGTERM); "
    "141 whoever read the output has gone. See docs/terminal.md."
)
HALF: Final = "nothing is left half-written; the same command starts again"


class _Parser(argparse.ArgumentParser):
    """One line for a mistake in the arguments, as for every other error."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} ({self.prog} --help)\n")


def parser_of(commands: Mapping[str, Command], prog: str, description: str, see: str = "") -> argparse.ArgumentParser:
    """All commands and their options; of what it parses, `run` is the command's function. `see`: what else there is.

    A command may have `kept(args)`, which says what of an interrupted run is kept; its parser, a default `complete`, a
    function that fills in what the arguments leave open.
    """
    top = _Parser(prog=prog, description=description, epilog=" ".join(filter(None, [see, EXIT_CODES])))
    top.add_argument("--debug", action="store_true", help="show the traceback of an error")
    known = top.add_subparsers(dest="command", required=True)
    for name, command in commands.items():
        sub = known.add_parser(name, help=command.HELP, description=command.HELP, epilog=EXIT_CODES)
        sub.set_defaults(run=command.run, kept=getattr(command, "kept", None))
        sub.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        command.options(sub)
    return top


def run(
    parser: Callable[[], argparse.ArgumentParser],
    argv: Sequence[str] | None,
    mendable: tuple[type[Exception], ...],
    module: str,
) -> int:
    """One command of a command line, and its exit code: see EXIT_CODES.

    mendable: errors whose own words are enough; of others, it is said that they should not happen.
    """
    show_any_symbol()
    if argv is not None:
        with listening():
            return _run(parser, list(argv), mendable, module)
    listen()  # to the very end: a second Ctrl-C may come while Python tidies up
    return _run(parser, sys.argv[1:], mendable, module)


def _run(
    parser: Callable[[], argparse.ArgumentParser],
    arguments: list[str],
    mendable: tuple[type[Exception], ...],
    module: str,
) -> int:
    args = argparse.Namespace()
    try:
        parsed = parser().parse_args(arguments)
        if (complete := getattr(parsed, "complete", None)) is not None:
            complete(parsed)
        args = parsed
        code: int = args.run(args)
    except KeyboardInterrupt as error:
        _tell_how_to_go_on(error, args, text.command(*arguments, module=module))
        return exit_code(error)
    except Exception as error:
        if "--debug" in arguments:
            traceback.print_exc()
        named = [path for option in ("cache", "out") if (path := getattr(args, option, None)) is not None]
        err.print(f"{ERROR} {plain(_told(error, mendable, named))}")
        return 2
    return code


def _tell_how_to_go_on(error: KeyboardInterrupt, args: argparse.Namespace, again: str) -> None:
    """What is kept, and the very command. Of several processes that torch's launcher started, the first one speaks."""
    rank, kept = os.environ.get("RANK"), getattr(args, "kept", None)
    if rank not in (None, "0"):
        return
    said = f"{NAMES[signal_of(error)]}: {plain(HALF if kept is None else kept(args))}"
    err.print(said if rank is not None else f"{said}:\n  {plain(again)}")


def _told(error: Exception, mendable: tuple[type[Exception], ...], named: Sequence[Path | str]) -> str:
    """An error as the user is told it, who named these places to be written."""
    if isinstance(error, mendable):
        return text.in_words(error, named)
    return f"{type(error).__name__}: {error}. This should not happen: --debug shows where it does."


def show_any_symbol() -> None:
    """A terminal that knows no "✓" is no reason to fail."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
