"""The lines that tasks and commands print: what was done, warnings, failures, and where to look."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Final

from cache import CacheError
from pipeline.cli import console
from pipeline.cli.text import from_here
from pipeline.errors import PipelineError

# Errors of a line or two, which the user can act on: a wrong file or setting, a full disk, a missing right.
USER_ERRORS: Final = (PipelineError, CacheError, OSError)
NO_RESULT: Final = "no number here is a scientific result"
DEMO_DATA: Final = f"{console.STAND_IN}  {NO_RESULT}"
UNTRAINED_FEATURES: Final = f"{console.UNTRAINED}  features of random weights: {NO_RESULT}"
UP_TO_DATE: Final = "[dim]up to date[/dim]"

plain = functools.partial(console.plain, keep="\n\t")  # file names and messages, without what a terminal would obey


def say(verb: str, what: str, detail: str = "", *, mark: str = console.DONE) -> None:
    """✓ convert    penn_action/train         10 videos, 380 of 400 frames kept"""
    console.out.print(f"{mark} {console.line(verb, what, detail)}")


def warn(text: str) -> None:
    """! what the user should know, below the line of its task."""
    console.out.print(f"  {console.DOUBT} {plain(text)}")


def complain(text: str) -> None:
    """✗ convert    penn_action/train         which file, what was expected, what was found, what to do"""
    console.err.print(f"{console.WRONG} {plain(text)}")


def fact(name: str, value: str) -> None:
    """Where something is, before and after the tasks' lines."""
    console.out.print(f"{name:<10} {value}")


def short_path(path: Path | str) -> str:
    """As seen from here, where that is shorter. A URL stays what it is."""
    return path if isinstance(path, str) else from_here(path)
